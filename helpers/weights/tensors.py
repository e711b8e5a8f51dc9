"""What tensors a model's files hold: their names, types, shapes and bytes. No value is loaded.

Safetensors files are read by the library ``safetensors``, which needs no torch and refuses a file that is not whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.weights import files, named

BITS = {  # of a value, by safetensors' name of its type
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16,
    "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip
NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # as its writer wants them


@dataclass(frozen=True)
class Tensor:
    """One stored tensor; ``start`` is where its bytes begin in ``file`` (safetensors only)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: Path
    start: int | None = None

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def data(self) -> np.ndarray:
        """Its stored bytes, flat and mapped from the file, of a safetensors file."""
        return np.memmap(self.file, np.uint8, "r", self.start, (self.bytes,))


def of(path: Path) -> list[Tensor]:
    """The tensors of a folder of safetensors or of a ``.gguf`` file; :class:`~files.ModelError` for one that is not whole."""
    if named.is_gguf(path):
        return [
            Tensor(t.name, t.tensor_type.name, tuple(map(int, t.shape)), int(t.n_bytes), path)
            for t in files.read_gguf(path).tensors
        ]
    return [tensor for file in sorted(path.glob("*.safetensors")) for tensor in of_safetensors(file)]


def of_safetensors(file: Path) -> list[Tensor]:
    """The tensors of one safetensors file, in the order of their bytes, which lie without a gap up to its end."""
    with files.open_safetensors(file) as handle:
        slices = {name: handle.get_slice(name) for name in handle.offset_keys()}
        found = {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    sizes = {name: math.prod(shape) * BITS[dtype] // 8 for name, (dtype, shape) in found.items()}
    start, tensors = file.stat().st_size - sum(sizes.values()), []
    for name, (dtype, shape) in found.items():
        tensors.append(Tensor(name, dtype, shape, sizes[name], file, start))
        start += sizes[name]
    return tensors


def write(tensors: Iterable[Tensor], target: Path) -> None:
    """Write ``tensors`` of safetensors files as one such file, their stored bytes unchanged."""
    import safetensors

    data = {tensor: tensor.data() for tensor in tensors}  # kept alive until it is written
    specs = {
        one.name: safetensors.TensorSpec(
            dtype=NAMES[one.dtype], shape=list(one.shape), data_ptr=array.ctypes.data, data_len=one.bytes
        )
        for one, array in data.items()
    }
    safetensors.serialize_file(specs, target, {"format": "pt"})
