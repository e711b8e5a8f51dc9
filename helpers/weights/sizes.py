"""Memory, in bytes: weights, KV cache, and what a server's whole process tree holds.

``None`` means "not measurable here", never 0. RSS counts a page once for every process that
maps it; PSS shares it out, so PSS may be summed over a tree and RSS may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from helpers.weights import files, models

GIB, MIB = 2**30, 2**20
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


def kv_bytes_per_token(shape: models.Shape, dtype: int | str = 2) -> int:
    """Bytes of KV cache one token takes: layers x KV heads x 2 x head_dim x bytes per value (MLA: layers x latent).

    ``dtype`` is one of ``KV_DTYPES``, or bytes per value.
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
    if path.suffix == ".gguf":
        return sum(int(tensor.n_bytes) for tensor in files.read_gguf(path).tensors)
    return sum(file.stat().st_size - 8 - _header_bytes(file) for file in path.glob("*.safetensors"))


def _header_bytes(file) -> int:
    with file.open("rb") as handle:
        return int.from_bytes(handle.read(8), "little")


@dataclass(frozen=True)
class TreeMemory:
    """What a set of processes holds now. ``file_bytes`` are mapped files: the system can drop them."""

    processes: int
    pss_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None
    peak_rss_bytes: int | None  # sum of each process's own peak: an upper bound

    def __repr__(self) -> str:
        def mib(value):
            return "not measurable" if value is None else f"{value / MIB:.0f} MiB"

        return (
            f"<{self.processes} process(es): PSS {mib(self.pss_bytes)} = anonymous {mib(self.anonymous_bytes)}"
            f" + file-backed {mib(self.file_bytes)}; peak RSS {mib(self.peak_rss_bytes)}>"
        )


def tree(processes: Iterable[psutil.Process]) -> TreeMemory:
    """Measure ``processes``; a process that ends meanwhile is left out."""
    found = [rollup for rollup in map(_rollup, processes) if rollup is not None]
    totals = [_total(found, key) for key in ("Pss", "Pss_Anon", "Pss_File", "VmHWM")]
    return TreeMemory(len(found), *totals)


def here() -> TreeMemory:
    """Measure this process and its children."""
    this = psutil.Process()
    return tree([this, *this.children(recursive=True)])


def mapped_bytes(path: Path) -> int | None:
    """How much of the mapped file ``path`` is in this process's memory now (RSS of its largest mapping)."""
    process = psutil.Process()
    if not hasattr(process, "memory_maps"):  # macOS
        return None
    maps = process.memory_maps(grouped=False)
    return max((part.rss for part in maps if part.path == str(path.resolve())), default=0)


def _total(found: list[dict[str, int]], key: str) -> int | None:
    if not found or any(key not in rollup for rollup in found):
        return None
    return sum(rollup[key] for rollup in found)


def _rollup(process: psutil.Process) -> dict[str, int] | None:
    """The kernel's sums for one process, in bytes (proc(5), smaps_rollup); {} where there is no /proc."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    values: dict[str, int] = {}
    for name in ("smaps_rollup", "status"):
        try:
            with open(f"/proc/{process.pid}/{name}") as lines:
                for line in lines:
                    key, _, rest = line.partition(":")
                    if rest.strip().endswith("kB"):
                        values[key] = int(rest.split()[0]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            if not process.is_running():
                return None
        except PermissionError:
            pass
    return values
