"""Random weights in a known model's shape, for every engine, and a tokenizer that fits them.

vLLM, SGLang and Transformers are given a folder with a config and a tokenizer, and make the values
themselves; llama.cpp gets a GGUF file. The tokenizer's words are one token each, so that prompts of
exact length can be written as text too (:mod:`helpers.bench.workload`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

from helpers import paths
from helpers.lessons.scaling import parallelism
from helpers.weights import files, models, shapes, sizes

WORDS_MARK = "\u2581"  # SentencePiece's leading space
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # llama.cpp's tokenizer asks for them
TINY = {
    "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 256,
    "intermediate_size": 512, "vocab_size": 2048, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
KEYS = (*TINY, "head_dim", "moe_intermediate_size", "num_experts", "num_experts_per_tok")
TINY_MOE = {
    **TINY, "model_type": "qwen3_moe", "num_key_value_heads": 2, "head_dim": 64, "moe_intermediate_size": 128, "num_experts": 8,
    "num_experts_per_tok": 2,
}  # fmt: skip
OWN = {"tiny": TINY, "tiny-moe": TINY_MOE}  # for rehearsals
ARCHITECTURES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "mlp_bias": False},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "rms_norm_eps": 1e-6, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
}  # fmt: skip
GGUF_TYPES = ("q4_0", "q8_0", "f16")
BLOCK, BLOCK_BYTES = 32, {"q4_0": 18, "q8_0": 34}  # 32 values in an f16 scale and 4 or 8 bits each
TILE_VALUES = 2**24  # so many random values are drawn and repeated


def config(shape: str) -> dict:
    """The fields of a config.json for ``shape``: one of :data:`OWN`, or a Llama or Qwen3 MoE that the calculator knows."""
    known = {**OWN, **{name: row for name, row in parallelism.known().items() if row["model_type"] in ARCHITECTURES}}
    if shape not in known:
        raise files.ModelError(f"no shape is called {shape!r}: choose one of {', '.join(known)}")
    fields = known[shape]
    kept = {key: fields[key] for key in KEYS if key in fields}
    return {
        **kept, "num_key_value_heads": fields.get("num_key_value_heads", fields["num_attention_heads"]),
        **ARCHITECTURES[fields["model_type"]], "hidden_act": "silu", "rope_theta": 10000.0,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "attention_bias": False,
    }  # fmt: skip


def sheet(shape: str) -> shapes.Sheet:
    """The data sheet of ``shape``."""
    return shapes.of_config(config(shape), shape)


def weights_bytes(shape: str, dtype: str = "bfloat16") -> int:
    """The bytes of all parameters as ``dtype``."""
    return sizes.bytes_of(sheet(shape).parameters, dtype)


@lru_cache
def vocabulary(size: int) -> tuple[str, ...]:
    """``size`` tokens: three special ones, one for each byte, and words of four letters."""
    words = (WORDS_MARK + "".join(letters) for letters in product(ascii_lowercase, repeat=4))
    return (*SPECIAL, *BYTES, *islice(words, size - len(SPECIAL) - len(BYTES)))


def folder(shape: str) -> Path:
    """The folder with the config and the tokenizer of ``shape``, made if it is not there."""
    target = paths.cache_dir() / f"random-{shape}"
    if (target / "config.json").exists():
        return target
    fields = config(shape)
    with files.staging() as making:
        made = making / "made"
        made.mkdir()
        (made / "config.json").write_text(json.dumps(fields, indent=1))
        (made / "tokenizer.json").write_text(json.dumps(_tokenizer(fields["vocab_size"])))
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        (made / "tokenizer_config.json").write_text(json.dumps({**named, "model_max_length": fields["max_position_embeddings"]}))
        with suppress(OSError):  # another run on this machine was faster
            os.rename(made, target)
    return target


def _tokenizer(size: int) -> dict:
    """A ``tokenizer.json`` of whole words; text is split before each space."""
    spaces = {"type": "Metaspace", "replacement": WORDS_MARK, "prepend_scheme": "never", "split": True}
    special = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, name in enumerate(SPECIAL)
    ]
    words = {entry: i for i, entry in enumerate(vocabulary(size))}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": spaces, "post_processor": None, "decoder": spaces,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip


def model(shape: str, form: str) -> models.Model:
    """What :mod:`helpers.servers.serving` is given: the folder ("safetensors") or a GGUF file ("q4_0", "f16")."""
    if form == "safetensors":
        return models.Model(f"random-{shape}", "folder", folder(shape))
    return models.Model(f"random-{shape}", "gguf", gguf_file(shape, form))


def gguf_file(shape: str, dtype: str) -> Path:
    """The GGUF file of ``shape`` with every matrix as ``dtype``, made if it is not there."""
    if dtype not in GGUF_TYPES:
        raise files.ModelError(f"no random GGUF is made as {dtype!r}: choose one of {', '.join(GGUF_TYPES)}")
    target = paths.cache_dir() / f"random-{shape}-{dtype}.gguf"
    if not target.exists():
        with files.staging() as making:
            _write_gguf(making / "made.gguf", config(shape), dtype)
            os.rename(making / "made.gguf", target)
    return target


def tensors(fields: dict) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape (rows, columns) of every tensor of a Llama, as GGUF names them."""
    hidden, feed, vocab = (fields[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    kv = hidden // fields["num_attention_heads"] * fields["num_key_value_heads"]
    yield "token_embd.weight", (vocab, hidden)
    for layer in range(fields["num_hidden_layers"]):
        named = f"blk.{layer}."
        for name, rows, columns in (
            ("attn_q", hidden, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden), ("attn_output", hidden, hidden),
            ("ffn_gate", feed, hidden), ("ffn_up", feed, hidden), ("ffn_down", hidden, feed),
        ):  # fmt: skip
            yield f"{named}{name}.weight", (rows, columns)
        yield f"{named}attn_norm.weight", (hidden,)
        yield f"{named}ffn_norm.weight", (hidden,)
    yield "output_norm.weight", (hidden,)
    yield "output.weight", (vocab, hidden)


def _write_gguf(path: Path, fields: dict, dtype: str) -> None:
    """Write every tensor one after the other: a 7B model in f16 takes 13 GB of disk and little memory."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    _add_fields(writer, fields)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    tile, made = _tile(dtype), list(tensors(fields))
    for name, shape in made:
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0])
        else:
            row = _row_bytes(shape[1], dtype)
            stored, as_type = (shape, np.dtype(np.float16)) if dtype == "f16" else ((shape[0], row), np.dtype(np.uint8))
            writer.add_tensor_info(name, stored, as_type, shape[0] * row, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in made:
        writer.write_tensor_data(np.ones(shape, np.float32) if len(shape) == 1 else _matrix(tile, name, shape, dtype))
    writer.close()


def _add_fields(writer, fields: dict) -> None:
    """The keys llama.cpp reads, and a SentencePiece vocabulary."""
    import gguf

    heads, size = fields["num_attention_heads"], fields["vocab_size"]
    writer.add_context_length(fields["max_position_embeddings"])
    writer.add_embedding_length(fields["hidden_size"])
    writer.add_block_count(fields["num_hidden_layers"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(fields["num_key_value_heads"])
    writer.add_rope_dimension_count(fields["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
    writer.add_vocab_size(size)
    kinds = gguf.TokenType
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * len(BYTES)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(vocabulary(size)))
    writer.add_token_scores([0.0] * len(special) + [-float(i) for i in range(size - len(special))])
    writer.add_token_types([*special, *[kinds.NORMAL] * (size - len(special))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def _row_bytes(columns: int, dtype: str) -> int:
    return 2 * columns if dtype == "f16" else columns // BLOCK * BLOCK_BYTES[dtype]


def _tile(dtype: str):
    """Random values as bytes: f16 of standard deviation 0.02, or blocks of one small scale."""
    import numpy as np

    draw = np.random.default_rng(0)
    if dtype == "f16":
        return (0.02 * draw.standard_normal(TILE_VALUES, np.float32)).astype(np.float16).view(np.uint8)
    blocks = draw.integers(0, 256, (TILE_VALUES // BLOCK, BLOCK_BYTES[dtype]), np.uint8)
    blocks[:, :2] = _scale(dtype)
    return blocks.reshape(-1)


def _scale(dtype: str):
    """The scale of a block, two bytes: the values of both types are then of one size."""
    import numpy as np

    return np.frombuffer(np.float16({"q4_0": 0.005, "q8_0": 0.0003}[dtype]).tobytes(), np.uint8)


def _matrix(tile, name: str, shape: tuple[int, int], dtype: str):
    """A matrix of repeated ``tile``; the head's rows of special tokens are zero, so that none of them is ever said."""
    import numpy as np

    row = _row_bytes(shape[1], dtype)
    data = np.resize(tile, shape[0] * row).reshape(shape[0], row)
    if name == "output.weight":
        data[: len(SPECIAL) + len(BYTES)] = 0 if dtype == "f16" else _zero_row(row, dtype)
    return data.view(np.float16) if dtype == "f16" else data


def _zero_row(row_bytes: int, dtype: str):
    import numpy as np

    block = np.full(BLOCK_BYTES[dtype], 0x88 if dtype == "q4_0" else 0, np.uint8)  # each nibble 8 means 0
    block[:2] = _scale(dtype)
    return np.resize(block, row_bytes)
