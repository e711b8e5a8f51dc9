"""Tiny models of architectures that the collection does not ship: real GGUF files with random values, for llama.cpp itself."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from helpers.gpu import random_model

HIDDEN, FEED, VOCABULARY = 64, 128, 512


def gemma3(
    path: Path, layers: int = 6, window: int = 512, context: int = 8192,
    stored: gguf.LlamaFileType | None = None, begins: bool | None = None,
) -> Path:  # fmt: skip
    """Every sixth layer keeps every token, the others the last ``window``: one KV head of 32.

    Its header says what it is ``stored`` as and whether a text ``begins`` with the token for it, or (``None``) nothing of it.
    """
    writer = _writer(path, "gemma3", layers, context)
    if stored is not None:
        writer.add_file_type(stored)
    if begins is not None:
        writer.add_add_bos_token(begins)
    for name, value in {"head_count": 2, "head_count_kv": 1, "key_length": 32, "value_length": 32}.items():
        writer.add_uint32(f"gemma3.attention.{name}", value)
    if window:
        writer.add_uint32("gemma3.attention.sliding_window", window)
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    for layer in range(layers):
        _attention(writer, layer, queries=64, keys=32)
        _feed_forward(writer, layer)
        for name in norms:
            _add(writer, f"blk.{layer}.{name}.weight", HIDDEN)
        for name in ("attn_q_norm", "attn_k_norm"):
            _add(writer, f"blk.{layer}.{name}.weight", 32)
    return _written(writer, path)


def jamba(path: Path, kv_heads: tuple[int, ...] = (0, 0, 2, 0), context: int = 8192) -> Path:
    """A layer without KV heads is a Mamba block: 3 x 128 values of its convolution, 16 x 128 of its state."""
    writer = _writer(path, "jamba", len(kv_heads), context)
    writer.add_head_count(4)
    writer.add_array("jamba.attention.head_count_kv", list(kv_heads))
    writer.add_uint32("jamba.expert_count", 0)
    _mamba_fields(writer)
    for layer, heads in enumerate(kv_heads):
        _attention(writer, layer, queries=64, keys=16 * heads) if heads else _mamba_block(writer, layer, normed=True)
        _feed_forward(writer, layer)
        for name in ("attn_norm", "ffn_norm"):
            _add(writer, f"blk.{layer}.{name}.weight", HIDDEN)
    return _written(writer, path)


def mamba(path: Path, layers: int = 3) -> Path:
    """No layer has a KV cache, and the header says 0 heads."""
    writer = _writer(path, "mamba", layers, 8192)
    writer.add_head_count(0)
    _mamba_fields(writer)
    for layer in range(layers):
        _mamba_block(writer, layer, normed=False)
        _add(writer, f"blk.{layer}.attn_norm.weight", HIDDEN)
    return _written(writer, path)


def header(path: Path, arch: str, **fields) -> Path:
    """A GGUF with the sizes above and ``fields``, dots written as ``__``, and one tensor: nothing that an engine could load."""
    writer = _writer(path, arch, fields.pop("block_count", 8), 8192)
    for name, value in fields.items():
        key = f"{arch}.{name.replace('__', '.')}"
        writer.add_array(key, value) if isinstance(value, list) else writer.add_uint32(key, value)
    return _written(writer, path)


def _writer(path: Path, arch: str, layers: int, context: int) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    if arch not in ("jamba", "mamba"):
        writer.add_uint32(f"{arch}.feed_forward_length", FEED)
    else:
        writer.add_feed_forward_length(FEED if arch == "jamba" else 0)
    writer.add_block_count(layers)
    writer.add_layer_norm_rms_eps(1e-6)
    kinds = gguf.TokenType
    special = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * len(random_model.BYTES)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(random_model.vocabulary(VOCABULARY)))
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([*special, *[kinds.NORMAL] * (VOCABULARY - len(special))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    _add(writer, "token_embd.weight", VOCABULARY, HIDDEN)
    _add(writer, "output_norm.weight", HIDDEN)
    return writer


def _mamba_fields(writer: gguf.GGUFWriter) -> None:
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(2 * HIDDEN)
    writer.add_ssm_state_size(16)
    writer.add_ssm_time_step_rank(4)


def _attention(writer: gguf.GGUFWriter, layer: int, queries: int, keys: int) -> None:
    for name, shape in {"q": (queries, HIDDEN), "k": (keys, HIDDEN), "v": (keys, HIDDEN), "output": (HIDDEN, queries)}.items():
        _add(writer, f"blk.{layer}.attn_{name}.weight", *shape)


def _feed_forward(writer: gguf.GGUFWriter, layer: int) -> None:
    for name, shape in {"gate": (FEED, HIDDEN), "up": (FEED, HIDDEN), "down": (HIDDEN, FEED)}.items():
        _add(writer, f"blk.{layer}.ffn_{name}.weight", *shape)


def _mamba_block(writer: gguf.GGUFWriter, layer: int, normed: bool) -> None:
    inner, state, rank = 2 * HIDDEN, 16, 4
    shapes = {
        "ssm_in.weight": (2 * inner, HIDDEN), "ssm_conv1d.weight": (inner, 4), "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank), "ssm_dt.bias": (inner,),
        "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out.weight": (HIDDEN, inner),
    }  # fmt: skip
    if normed:
        shapes |= {"ssm_dt_norm.weight": (rank,), "ssm_b_norm.weight": (state,), "ssm_c_norm.weight": (state,)}
    for name, shape in shapes.items():
        _add(writer, f"blk.{layer}.{name}", *shape)


def _add(writer: gguf.GGUFWriter, name: str, *shape: int) -> None:
    drawn = np.random.default_rng(len(writer.tensors[0])).standard_normal(shape, np.float32)
    values = -np.abs(drawn) if name.endswith("ssm_a") else 0.02 * drawn if len(shape) > 1 else np.ones(shape, np.float32)
    writer.add_tensor(name, values)


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
