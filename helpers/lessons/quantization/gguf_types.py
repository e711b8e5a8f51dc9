"""GGUF types of one model, made by llama.cpp's own quantizer, and what is really inside a file.

    python -m helpers.lessons.quantization.gguf_types Q8_0 Q4_K_M

``made("Q4_K_M")`` is a file in the cache: complete, or not there. Its name changes with the
content of its source, the unquantized weights. The quantizer runs in the interpreter of the
kernel ``llama-cpp``, so this can be called from anywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from gguf import LlamaFileType

from helpers import kernels, paths
from helpers.weights import convert, files, models
from helpers.weights.files import ModelError

PLAIN = ("F32", "F16", "BF16")  # types that are no quantization
TYPES = {  # the names llama.cpp gives its file types
    kind.name.removeprefix("MOSTLY_").removeprefix("ALL_"): int(kind) for kind in LlamaFileType if kind != LlamaFileType.GUESSED
}
COMMON = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K")


class UnknownType(ValueError):
    """A name that is no GGUF file type."""


@dataclass(frozen=True)
class Contents:
    """What is inside a GGUF file. The name of a file says one type, its tensors may have several."""

    file_bytes: int
    tensors_bytes: int
    values: int
    tensors: dict[str, int]  # how many of each type, the largest share of the bytes first
    row_lengths: dict[str, tuple[int, ...]]  # of the matrices of each type, every length once
    context: int | None  # tokens the model knows, if the file says so

    @property
    def bits_per_weight(self) -> float:
        """Bits per value over all tensors, scales and norms included."""
        return 8 * self.tensors_bytes / self.values

    @property
    def quantized(self) -> dict[str, int]:
        """How many tensors there are of each type that is a quantization."""
        return {kind: count for kind, count in self.tensors.items() if kind not in PLAIN}

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.tensors.items())
        return f"{self.file_bytes / 2**20:.1f} MiB, {self.bits_per_weight:.2f} bits per weight: {kinds}"


def contents(path: Path) -> Contents:
    """What is inside the GGUF file ``path``; :class:`ModelError` if it is not there or not whole.

    Reading a header takes seconds where the vocabulary is large, so the answer is remembered while
    the file does not change.
    """
    if not path.is_file():
        files.check_gguf(path)
    stat = path.stat()
    return _contents(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _contents(path: Path, mtime_ns: int, size: int) -> Contents:
    reader = files.read_gguf(path)
    sizes: dict[str, int] = {}
    rows: dict[str, set[int]] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        sizes[kind] = sizes.get(kind, 0) + int(tensor.n_bytes)
        if len(tensor.shape) > 1:
            rows.setdefault(kind, set()).add(int(tensor.shape[0]))
    by_size = sorted(sizes, key=sizes.get, reverse=True)
    return Contents(
        file_bytes=size,
        tensors_bytes=sum(sizes.values()),
        values=sum(int(tensor.n_elements) for tensor in reader.tensors),
        tensors={kind: sum(tensor.tensor_type.name == kind for tensor in reader.tensors) for kind in by_size},
        row_lengths={kind: tuple(sorted(lengths)) for kind, lengths in rows.items()},
        context=_context(reader),
    )


def _context(reader) -> int | None:
    if (architecture := reader.fields.get("general.architecture")) is None:
        return None
    limit = reader.fields.get(f"{architecture.contents()}.context_length")
    return None if limit is None else int(limit.contents())


def check(name: str) -> int:
    """llama.cpp's number of the file type called ``name``; :class:`UnknownType` says which there are."""
    if name not in TYPES:
        raise UnknownType(f"no GGUF type is called {name!r}: choose one like {', '.join(COMMON)} (all: {len(TYPES)} in TYPES)")
    return TYPES[name]


def unquantized(model: models.Model | None = None) -> Path:
    """The GGUF that types are made of: the bf16 copy of the default model, or the file ``MODEL`` names."""
    model = model or models.resolve()
    return models.weights("gguf-bf16" if model.kind == "default" else "gguf", model)


def check_source(path: Path, allow_requantize: bool = False) -> None:
    """:class:`ModelError` if ``path`` holds quantized tensors already, unless that is allowed."""
    found = contents(path).quantized
    if found and not allow_requantize:
        what = ", ".join(f"{count} tensors {kind}" for kind, count in found.items())
        why = "a second rounding adds its error to the first"
        raise ModelError(f"{path.name} is quantized already ({what}): {why}; take unquantized weights, or allow_requantize")


def made_path(name: str, source: Path) -> Path:
    """Where the type ``name`` of ``source`` belongs; it changes with the content of the source."""
    stem = source.stem.removesuffix("-bf16")
    return paths.cache_dir() / f"{stem}-{files.sha256(source)[:12]}-{name}.gguf"


def made(name: str, source: Path | None = None, *, allow_requantize: bool = False) -> Path:
    """The file with the type ``name`` of ``source`` (default: :func:`unquantized`), made first if need be.

    Raises :class:`UnknownType`, or :class:`ModelError` for a source that is damaged or quantized
    already and for what the quantizer refuses; both before a file is written.
    """
    check(name)
    source = source or unquantized()
    check_source(source, allow_requantize)
    target = made_path(name, source)
    if not target.exists():
        _make(name, source, allow_requantize)
    contents(target)  # refuses a file that is not whole
    return target


def _make(name: str, source: Path, allow_requantize: bool) -> None:
    """Run this module where llama.cpp is: in its kernel, which says where its libraries are, else here."""
    kernel = "llama-cpp" if kernels.installed("llama-cpp") or not find_spec("llama_cpp") else None
    options = ["--source", str(source), *["--allow-requantize"] * allow_requantize]
    try:
        kernels.run(kernel, "helpers.lessons.quantization.gguf_types", name, *options)
    except kernels.AskError as error:
        said = [line for line in error.errors.splitlines() if "failed to quantize" in line]
        reason = (said or [str(error)])[-1].removeprefix("llama_model_quantize: ")
        raise ModelError(f"{source.name} could not be made into {name}: {reason}; choose another type") from None


def quantize(name: str, source: Path, allow_requantize: bool = False) -> Path:
    """Make the type ``name`` in this interpreter, with llama.cpp's quantizer; a finished file is left as it is."""
    target = made_path(name, source)
    if target.exists():
        return target
    with files.staging() as folder:
        made = folder / "made.gguf"
        convert.quantize(source, made, check(name), allow_requantize)
        os.replace(made, target)  # complete or not there
    return target


def main() -> int:
    """The command; returns its exit code: 0, or 1 with the reason in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="TYPE", help=f"like {', '.join(COMMON)}")
    parser.add_argument("--source", type=Path, help="a GGUF file; default: the model's unquantized copy")
    parser.add_argument("--allow-requantize", action="store_true", help="also of a file that is quantized already")
    options = parser.parse_args()
    run = quantize if find_spec("llama_cpp") else made
    try:
        for name in options.names:
            check(name)
        source = options.source or unquantized()
        check_source(source, options.allow_requantize)
        for name in options.names:
            path = run(name, source, allow_requantize=options.allow_requantize)
            print(f"{path.name}: {contents(path)}")
    except (ModelError, UnknownType, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
