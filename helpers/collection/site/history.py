"""When a notebook's committed outputs were made, as far as git knows: the day of the commit that brought them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers import paths
from helpers.collection import recorded


@dataclass(frozen=True)
class Commit:
    """A commit: its hash and its day."""

    hash: str
    day: str


def outputs_commit(path: Path) -> Commit | None:
    """The oldest commit since which the outputs of notebook ``path`` are what they are now.

    ``None`` where git does not know: outside a clone, for a file that is not committed, with outputs that are not.
    """
    now, found = _outputs(path.read_text()), None
    for commit in _commits(path):
        then = show(commit, path)
        if then is None or _outputs(then) != now:
            break
        found = commit
    return found


def show(commit: Commit, path: Path) -> str | None:
    """The text of ``path`` as it was in ``commit``; ``None`` if it was not there."""
    return _git("show", f"{commit.hash}:{path.relative_to(paths.REPOSITORY).as_posix()}")


def _commits(path: Path) -> Iterator[Commit]:
    """The commits that changed ``path``, the newest first."""
    for line in (_git("log", "--format=%H %cs", "--", str(path)) or "").splitlines():
        yield Commit(*line.split())


def _outputs(text: str) -> list[Mapping]:
    """Those of the code cells that a run computes; a question that was put in another way is no new run."""
    code = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    return [cell["outputs"] for cell in code if not recorded.NOT_MEASURED & set(cell["metadata"].get("tags", []))]


def _git(*arguments: str) -> str | None:
    """What git prints; ``None`` if it fails or is not there."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=paths.REPOSITORY, capture_output=True, text=True)
    except OSError:
        return None
    return None if ran.returncode else ran.stdout
