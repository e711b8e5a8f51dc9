"""Where things lie: the repository and its notebooks, the reader's cache."""

from __future__ import annotations

from pathlib import Path

import platformdirs

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
    return Path(platformdirs.user_cache_dir("llm-frameworks-measured"))
