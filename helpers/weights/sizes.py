"""What a model takes, in bytes: its weights as stored, a token of its KV cache, numbers of any type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import memory
from helpers.weights import models, tensors

GIB, MIB = memory.GIB, memory.MIB
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "int8": 1}
KV_DTYPES = ("float32", "bfloat16", "float16", "fp8", "int8", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


class UnknownDtype(ValueError):
    """A type that no weights, or no KV cache, is stored in."""


@lru_cache
def blocks() -> dict[str, tuple[int, int]]:
    """Bytes and values of one block of each type; GGUF's quantized types keep their scales in the block."""
    import gguf

    sizes = {kind.name.lower(): (size, values) for kind, (values, size) in gguf.GGML_QUANT_SIZES.items()}
    return {name: (size, 1) for name, size in BYTES_PER_VALUE.items()} | {n: b for n, b in sizes.items() if b[1] > 1}


def bytes_of(values: int, dtype: str) -> int:
    """The bytes of ``values`` numbers stored as ``dtype``, whole blocks; :class:`UnknownDtype` names those that exist."""
    if dtype not in blocks():
        raise UnknownDtype(f"no dtype is called {dtype!r}: choose one of {', '.join(blocks())}")
    size, per_block = blocks()[dtype]
    return -(-values // per_block) * size


@dataclass(frozen=True)
class Cache:
    """What one sequence takes of an engine's memory, at any length: bytes of one layer and token, and counts of layers.

    The least that the model needs. Engines keep more of a window: llama.cpp one step more (``helpers.servers.llama_cpp``),
    vLLM up to ``max_num_batched_tokens`` more (``SlidingWindowSpec`` in its ``v1/kv_cache_interface.py``).
    """

    bytes_per_layer: int
    full: int  # layers that keep every token
    windowed: int = 0  # layers that keep the last `window` tokens
    window: int = 0
    state_bytes: int = 0  # of layers that keep a state instead, or beside

    @property
    def bytes_per_token(self) -> int:
        """What one token more takes, as long as every window has room."""
        return self.bytes_per_layer * (self.full + self.windowed)

    def bytes(self, tokens: float) -> float:
        """The bytes of ``tokens`` tokens, whole where these are."""
        return self.bytes_per_layer * (self.full * tokens + self.windowed * min(tokens, self.window)) + self.state_bytes

    def tokens(self, room_bytes: float) -> int | None:
        """The most tokens that fit into ``room_bytes``; ``None`` where any number does."""
        room = room_bytes - self.state_bytes
        if room < 0:
            return 0
        if not self.windowed or room < self.bytes_per_token * self.window:
            return int(room // self.bytes_per_token) if self.bytes_per_token else None
        beyond = room - self.bytes_per_token * self.window
        return self.window + int(beyond // (self.bytes_per_layer * self.full)) if self.full else None


def cache(shape: models.Shape, dtype: int | str = 2) -> Cache:
    """The :class:`Cache` of a model of ``shape`` whose keys and values are ``dtype``, as in :func:`kv_bytes_per_token`."""
    kept, per_token = shape.kept, kv_bytes_per_token(shape, dtype)
    per_layer = per_token // shape.caching if shape.caching else 0
    if kept is None:
        return Cache(per_layer, shape.layers)
    return Cache(per_layer, kept.caching - kept.windowed, kept.windowed, kept.window, kept.state_bytes)


def kv_bytes_per_token(shape: models.Shape, dtype: int | str = 2) -> int:
    """Bytes of KV cache one token takes: layers x KV heads x 2 x head_dim x bytes per value (MLA: layers x latent).

    ``dtype`` is one of ``KV_DTYPES``, or bytes per value. Of layers with a cache; in those with a sliding window only
    until the token leaves it: :func:`cache` knows the bytes at each length.
    """
    if isinstance(dtype, int):
        return shape.kv_values_per_token * dtype
    if dtype not in KV_DTYPES:
        raise UnknownDtype(f"no KV cache is stored as {dtype!r}: choose one of {', '.join(KV_DTYPES)}")
    row, per_block = shape.latent or shape.head_dim, blocks()[dtype][1]
    if row % per_block:
        raise UnknownDtype(
            f"a KV cache as {dtype} is made of blocks of {per_block}, and a head has {row} values: take fp8 or more"
        )
    return bytes_of(shape.kv_values_per_token, dtype)


def weights_bytes(form: models.Form, model: models.Model | None = None) -> int:
    """The bytes of all tensors of ``model`` in ``form``, as stored.

    With tied embeddings, as here, a decode step reads each of them once: this is also the
    number of bytes read per decode step, KV cache left out.
    """
    return stored_bytes(models.weights(form, model))


def stored_bytes(path: Path) -> int:
    """The bytes of all tensors in the file or folder ``path``, headers left out."""
    return sum(tensor.bytes for tensor in tensors.of(path))
