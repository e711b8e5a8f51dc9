"""Model files: kept in one cache, made whole or not at all, checked before they are loaded."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from helpers import paths
from helpers.weights import named
from helpers.weights.named import ModelError


class staging:
    """A folder inside the cache to make a thing in; what is complete is renamed out of it.

    It disappears at the end. It is locked as long as its process lives, so that one whose process was killed is
    told from one that is in use, and removed by :func:`sweep`.
    """

    def __enter__(self) -> Path:
        paths.cache_dir().mkdir(parents=True, exist_ok=True)
        with paths.locked(paths.cache_dir()):  # so that nobody sweeps the new one before it is locked
            _sweep()
            self.folder = Path(tempfile.mkdtemp(prefix=f".making-{os.getpid()}-", dir=paths.cache_dir()))
            self.lock = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self.folder

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def sweep() -> None:
    """Remove what a killed process has left half made in the cache."""
    if any(paths.cache_dir().glob(".making-*")):
        with paths.locked(paths.cache_dir()):
            _sweep()


def _sweep() -> None:
    for old in paths.cache_dir().glob(".making-*"):
        lock = os.open(old, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
        except OSError:
            pass  # in use, or not ours to remove
        finally:
            os.close(lock)


def sha256(path: Path) -> str:
    """The sha256 of a file's content, as hex; remembered while the file does not change."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_folder(path: Path) -> None:
    """Raise :class:`ModelError` unless ``path`` holds a config and whole safetensors."""
    named.look_into_folder(path)
    index = path / "model.safetensors.index.json"
    if index.is_file():
        missing = sorted({n for n in json.loads(index.read_text())["weight_map"].values() if not (path / n).is_file()})
        if missing:
            raise ModelError(f"{path} is not whole: {', '.join(missing)} not there; get the folder again")
    for file in sorted(path.glob("*.safetensors")):
        with open_safetensors(file) as handle:
            if not handle.keys():
                raise ModelError(f"{file} holds no tensor; get the file again")


def open_safetensors(file: Path):
    """A ``safetensors.safe_open`` over ``file``, for names, types and shapes; :class:`ModelError` if it is not whole."""
    try:
        import safetensors
    except ImportError:
        raise ModelError(f"{file.name} cannot be read without the library safetensors: install safetensors") from None
    try:
        return safetensors.safe_open(file, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise ModelError(f"{file} is not a whole safetensors file ({reason}); get it again") from None


def check_gguf(path: Path) -> None:
    """Raise :class:`ModelError` unless ``path`` is a GGUF file with all its tensors."""
    named.look_into_gguf(path)
    read_gguf(path)


def read_gguf(path: Path):
    """A ``gguf.GGUFReader`` over ``path``; :class:`ModelError` if it is not whole."""
    stat = path.stat()
    return _read_gguf(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read_gguf(path: Path, mtime_ns: int, size: int):
    try:
        import gguf
    except ImportError:
        raise ModelError(f"{path.name} cannot be read without the library gguf: install gguf") from None
    try:
        reader = gguf.GGUFReader(path)
        end = max(int(t.data_offset) + int(t.n_bytes) for t in reader.tensors)
    except (ValueError, IndexError, OSError, KeyError) as error:
        raise ModelError(f"{path} is not a whole GGUF file: {_why_no_gguf(size, error)}; get it again") from None
    if end > size:
        raise ModelError(f"{path} is truncated: {size} bytes of at least {end}; get it again")
    return reader


def _why_no_gguf(size: int, error: Exception) -> str:
    """What is wrong with a file that gguf cannot read: its own words are those of an array that is too short."""
    if any(word in str(error) for word in ("magic", "version", "Duplicate", "not a valid")):  # gguf's own words
        return str(error)
    return f"its {size:,} bytes end within its header or a tensor: a download that was cut"
