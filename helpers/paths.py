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


def cache_dir() -> Path:
    """Where made and downloaded weights are kept, outside the repository."""
    return Path(platformdirs.user_cache_dir("llm-frameworks-measured"))
