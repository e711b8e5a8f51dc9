"""The source document's tables, each twice: as it has them, and as they are.

What the document says lies in ``document.toml``, what is true in ``notebooks/claims.toml``; a
cell's claim id joins the two. A table of figures has no "now" in words: it is measured
(``helpers.collection.document_figures``), and :func:`verdicts` says what remains of the document's.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import paths
from helpers.collection import claims
from helpers.servers import engines

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).with_name("document.toml")
ENGINES = {title: name for name, title in engines.TITLES.items()} | {"HuggingFace": "transformers"}  # by the document's names
SIGNS = {"holds": "✓", "holds with conditions": "≈", "outdated": "✗", "wrong": "✗", "cannot be checked": "?"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: where it stands, its text, and the claim that it makes."""

    row: str
    column: str
    text: str
    claim: claims.Claim


@functools.cache
def _tables() -> dict[str, dict]:
    return tomllib.loads(paths.data(FILE))


def names() -> list[str]:
    """The tables there are."""
    return list(_tables())


def _table(name: str) -> dict:
    """A table of the file; :class:`ValueError` if there is no such one."""
    if name not in _tables():
        raise ValueError(f"the document has no table {name!r}: choose from {', '.join(names())}")
    return _tables()[name]


def cells(name: str) -> list[Cell]:
    """The cells of a table, row by row; :class:`ValueError` if there is no such table."""
    table, known = _table(name), {claim.id: claim for claim in claims.load()}
    return [
        Cell(row, column, text, known[id])
        for row, texts in table["rows"].items()
        for column, (text, id) in zip(table["columns"], texts, strict=True)
    ]


def title(name: str) -> str:
    """The table's title in the document."""
    return _table(name)["title"]


def texts(name: str) -> dict[str, tuple[str, ...]]:
    """The table's rows as the document has them: name to texts, in the order of its columns."""
    return {row: tuple(text for text, _ in found) for row, found in _table(name)["rows"].items()}


def by_framework(name: str) -> dict[str, tuple[str, ...]]:
    """:func:`texts` of a table whose rows are frameworks, by our names of them."""
    return {ENGINES[row]: found for row, found in texts(name).items()}


def said(name: str) -> pd.DataFrame:
    """The table as the document has it, as a :class:`pandas.DataFrame`."""
    import pandas as pd

    return pd.DataFrame.from_dict(texts(name), orient="index", columns=_table(name)["columns"])


def now(name: str) -> pd.DataFrame:
    """The same table as it is today, each cell behind the sign of its claim's verdict (:data:`SIGNS`)."""
    found = cells(name)
    if missing := {cell.claim.id for cell in found if cell.claim.now is None}:
        raise ValueError(
            f"{title(name)} is a table of figures ({', '.join(sorted(missing))}): they are measured, see document_figures"
        )
    return _frame(found, _today(found))


def _today(found: Sequence[Cell]) -> list[str]:
    """Each cell's text of today. Two neighbours that make one claim share its text, split at its first colon."""
    told = []
    for before, cell, after in zip([None, *found], found, [*found[1:], None]):
        now = cell.claim.now
        if before and before.claim == cell.claim:
            told.append(now.partition(": ")[2])
        else:
            told.append(f"{SIGNS[cell.claim.verdict]} {now.partition(': ')[0] if after and after.claim == cell.claim else now}")
    return told


def verdicts(name: str, *, changed: bool = True) -> pd.DataFrame:
    """The claims that a table makes: what it says, the verdict, why, and a link to the cell or page that settles it.

    With ``changed`` those that simply hold are left out. A :class:`pandas.DataFrame` with the claim's id as index.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells(name):
        groups.setdefault(cell.claim.id, []).append(cell)
    rows = {
        id: {"": _where(group), "the document": ", ".join(cell.text for cell in group)} | judged(group[0].claim)
        for id, group in groups.items()
        if not (changed and group[0].claim.verdict == "holds")
    }
    return _by_id(rows)


def _where(group: list[Cell]) -> str:
    """A claim of one row is named by it (and by its column, if it is only one), of several by them all."""
    rows, columns = {cell.row: None for cell in group}, {cell.column: None for cell in group}
    return ", ".join(rows) + (f": {next(iter(columns))}" if len(columns) == 1 else "")


def sentences(framework: str) -> pd.DataFrame:
    """What the document says of ``framework`` in sentences, and what remains of it, as :func:`verdicts`."""
    wanted = [claim for claim in claims.load() if claim.path[0] == framework]
    if not wanted:
        sections = dict.fromkeys(claim.path[0] for claim in claims.load())
        raise ValueError(f"the document has no section {framework!r}: choose from {', '.join(sections)}")
    return _by_id({claim.id: {"": claim.path[1], "the document": claim.claim} | judged(claim) for claim in wanted})


def judged(claim: claims.Claim) -> dict[str, str]:
    """The verdict with its sign, the reason, and the link: the columns in which a claim is settled."""
    return {"verdict": f"{SIGNS[claim.verdict]} {claim.verdict}", "why": claim.why, "shown": claims.link(claim)}


def _by_id(rows: dict[str, dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows).T.rename_axis(None)


def _frame(found: list[Cell], texts: list[str]) -> pd.DataFrame:
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for cell, text in zip(found, texts):
        rows.setdefault(cell.row, {})[cell.column] = text
    return pd.DataFrame(rows).T
