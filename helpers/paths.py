"""Where things lie: the repository and its notebooks, the reader's cache.

Libraries are imported where they are needed: the pre-flight reads the notebooks before anything is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPOSITORY / "notebooks"


def notebooks() -> list[Path]:
    """The numbered notebooks, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def notebook(number: str) -> Path | None:
    """The notebook whose file name begins with ``number``, such as ``07``; ``None`` if it is not there."""
    return next((path for path in notebooks() if path.name.startswith(number)), None)


class MissingData(RuntimeError):
    """A data file of this package that its installation lacks: the file, the reason, what to do."""


def present(file: Path) -> Path:
    """``file``, which belongs to this package; :class:`MissingData` if it is not there."""
    if not file.exists():
        name = file.relative_to(REPOSITORY).as_posix()
        raise MissingData(f"installed without its data file {name}: reinstall it whole, with pip install --force-reinstall")
    return file


def data(file: Path) -> str:
    """The text of ``file``, which belongs to this package; :class:`MissingData` if it is not there."""
    return present(file).read_text(encoding="utf-8")


def cache_dir() -> Path:
    """Where made and downloaded weights are kept, outside the repository."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("llm-frameworks-measured"))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else who locks ``folder`` is at work meanwhile; where there are no locks (Windows) nothing is locked."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write(path: Path, content: str | bytes) -> None:
    """Write ``content`` whole or not at all; an ``OSError`` names ``path``. What a killed writer of it has left is removed."""
    import psutil

    for old in path.parent.glob(f".{path.name}.*"):
        if old.suffix[1:].isdecimal() and not psutil.pid_exists(int(old.suffix[1:])):
            old.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None:  # its text is all there is
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)
