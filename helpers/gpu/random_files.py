"""Random values on disk, as safetensors: the weights of a known Llama's shape, and LoRA adapters for it.

Most lives let vLLM and SGLang make the values up (``load_format="dummy"``). These files are for what reads them: SGLang 0.5.23
loads no adapter beside such a model (its ``srt/lora/lora.py`` gives the adapter's files to a loader that refuses that format),
and a start that loads nothing is no start.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from helpers import paths
from helpers.gpu import random_model
from helpers.gpu.variants import RANK
from helpers.weights import files

Shape = tuple[int, ...]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # where an adapter adds to the weights
FILE_BYTES = 5 * 2**30  # of a weights file, about
ONE = b"\x80\x3f"  # 1.0 in bf16, little-endian


def folder(shape: str) -> Path:
    """The folder of ``shape`` with its weights in bf16, made if it is not there: 16 GB for 8 billion parameters."""

    def make(made: Path) -> None:
        shutil.copytree(random_model.folder(shape), made)
        _write_weights(made, random_model.config(shape))

    return _placed(f"random-{shape}-weights", make)


def adapters(shape: str, count: int) -> list[Path]:
    """``count`` folders with an adapter of rank :data:`RANK` for every linear layer of ``shape``, as PEFT writes them.

    Their values are the same, in one file that all of them name: engines load and compute each as its own.
    """
    found: list[Path] = []
    for number in range(count):

        def make(made: Path, first: Sequence[Path] = tuple(found[:1])) -> None:
            if first:
                shutil.copytree(first[0], made, copy_function=os.link)
            else:
                _write_adapter(made, random_model.config(shape))

        found.append(_placed(f"random-{shape}-lora{RANK}-{number}", make))
    return found


def _placed(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` in the cache, made whole or not at all if it is not there."""
    target = paths.cache_dir() / name
    if not target.exists():
        with files.staging() as making:
            make(making / "made")
            with suppress(OSError):  # another run on this machine was faster
                os.rename(making / "made", target)
    return target


def tensors(fields: dict) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor of a Llama, as Transformers names them."""
    hidden, vocab = fields["hidden_size"], fields["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(fields["num_hidden_layers"]):
        for name, (rows, columns) in linear(fields).items():
            yield f"model.layers.{layer}.{_inside(name)}.weight", (rows, columns)
        yield f"model.layers.{layer}.input_layernorm.weight", (hidden,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def linear(fields: dict) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer."""
    hidden, feed = fields["hidden_size"], fields["intermediate_size"]
    kv = hidden // fields["num_attention_heads"] * fields["num_key_value_heads"]
    of = {"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, hidden)}
    return {**of, "gate_proj": (feed, hidden), "up_proj": (feed, hidden), "down_proj": (hidden, feed)}


def adapter_tensors(fields: dict) -> Iterator[tuple[str, Shape]]:
    """Those of an adapter, as PEFT names them."""
    for layer in range(fields["num_hidden_layers"]):
        for name, (rows, columns) in linear(fields).items():
            stem = f"base_model.model.model.layers.{layer}.{_inside(name)}"
            yield f"{stem}.lora_A.weight", (RANK, columns)
            yield f"{stem}.lora_B.weight", (rows, RANK)


def _inside(name: str) -> str:
    return f"{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}"


def _write_weights(made: Path, fields: dict) -> None:
    """Files of about :data:`FILE_BYTES` and the index that says what is where."""
    several, sizes = [[]], [0]
    for name, shape in tensors(fields):
        if sizes[-1] > FILE_BYTES:
            several.append([])
            sizes.append(0)
        several[-1].append((name, shape))
        sizes[-1] += _bytes(shape)
    index = {}
    for number, some in enumerate(several, 1):
        name = f"model-{number:05}-of-{len(several):05}.safetensors"
        write(made / name, some)
        index |= dict.fromkeys((tensor for tensor, _ in some), name)
    said = {"metadata": {"total_size": sum(sizes)}, "weight_map": index}
    (made / "model.safetensors.index.json").write_text(json.dumps(said))


def _write_adapter(made: Path, fields: dict) -> None:
    made.mkdir()
    write(made / "adapter_model.safetensors", list(adapter_tensors(fields)))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "lora_dropout": 0.0, "bias": "none",
        "target_modules": list(LINEAR), "base_model_name_or_path": None, "inference_mode": True, "modules_to_save": None,
    }  # fmt: skip
    (made / "adapter_config.json").write_text(json.dumps(config))


def write(path: Path, some: Iterable[tuple[str, Shape]]) -> None:
    """A safetensors file with random bf16 values, one tensor after the other; vectors are ones."""
    header, at = {}, 0
    for name, shape in some:
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + _bytes(shape)]}
        at += _bytes(shape)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, shape in some:
            _write_values(file, name, shape)


def _write_values(file, name: str, shape: Shape) -> None:
    """The tile again and again; the head's rows of special tokens are zero, so that none of them is ever said."""
    if len(shape) == 1:
        file.write(ONE * shape[0])
        return
    left = _bytes(shape)
    if name.startswith("lm_head"):
        silent = 2 * shape[1] * (len(random_model.SPECIAL) + len(random_model.BYTES))
        file.write(bytes(silent))
        left -= silent
    while left:
        left -= file.write(_tile()[:left])


def _bytes(shape: Shape) -> int:
    return 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)


@lru_cache
def _tile() -> memoryview:
    """Random values of standard deviation 0.02 as bf16: the upper halves of f32."""
    import numpy as np

    values = (0.02 * np.random.default_rng(0).standard_normal(random_model.TILE_VALUES, np.float32)).view(np.uint32)
    return memoryview((values >> 16).astype("<u2").view(np.uint8))
