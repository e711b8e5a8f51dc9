"""The source document's claims, each with its verdict and the cell or the page that settles it.

``notebooks/claims.toml`` has one table ``[[claims]]`` per row. The cell that shows a row carries
the row's :attr:`Claim.tag` in its metadata, the verdict included, so that a verdict changed in
one of the two places and not in the other is found (:func:`disagreement`).
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from helpers import paths
from helpers.collection import notebooks

if TYPE_CHECKING:
    import pandas as pd

FILE = paths.NOTEBOOKS / "claims.toml"
VERDICTS = ("holds", "holds with conditions", "outdated", "wrong", "cannot be checked")
SHOWN = {
    "ran it": "an engine did it, in a cell that was executed",
    "read the package": "the installed code or metadata was inspected by a cell",
    "computed": "a cell worked it out, without an engine",
    "read a record": "figures that were measured earlier are on file, and a cell compares them",
    "printed": "a cell prints it, and no check compares what it prints",
}
NEEDED = ("id", "section", "claim", "verdict", "why")
FIELDS = (*NEEDED, "now", "notebook", "shown", "source")
SOURCE_FIELDS = ("title", "address", "date")
ADDRESS = re.compile(r"https://[a-z0-9.-]+\.[a-z]{2,}(/([\w./~%#=&?+@:-]*[\w/#=])?)?")
NOT_RUN_HERE = {"gpu", "network", "tensorrt-llm"}  # a cell that needs one of these shows nothing in the committed file


class ClaimError(ValueError):
    """A row that cannot be used: one line with the row, the field and what to do."""


@dataclass(frozen=True)
class Source:
    """A public page and the day it was read."""

    title: str
    address: str
    date: date


@dataclass(frozen=True)
class Claim:
    """One row. ``section`` is a path such as ``Quantization · vLLM · FP8``; ``now`` is what should stand there."""

    id: str
    section: str
    claim: str
    verdict: str
    why: str
    now: str | None = None
    notebook: str | None = None
    shown: str | None = None
    source: Source | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The parts of ``section``."""
        return tuple(self.section.split(" · "))

    @property
    def tag(self) -> str:
        """What the cell that shows this row has among its tags."""
        return f"{self.id}: {self.verdict}"


def load(path: Path = FILE) -> list[Claim]:
    """All rows, checked; :class:`ClaimError` names the first that is wrong and how many more are."""
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ClaimError(f"{path.name} is not TOML: {error}; mend that line") from None
    if set(table) != {"claims"}:
        raise ClaimError(f"{path.name} has {', '.join(table) or 'nothing'} at its top: each row begins with [[claims]]")
    found = problems(table["claims"])
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ClaimError(f"{path.name}: {found[0]}{more}")
    return [_claim(row) for row in table["claims"]]


def _claim(row: dict) -> Claim:
    source = Source(**{**row["source"], "date": date.fromisoformat(str(row["source"]["date"]))}) if "source" in row else None
    return Claim(**{**row, "source": source})


def problems(rows: Iterable[dict]) -> list[str]:
    """One line for each thing that is wrong with ``rows``, as they come from the file."""
    found, seen = [], set()
    for index, row in enumerate(rows, 1):
        name = row.get("id", f"row {index}")
        found += [f"{name}: {what}" for what in _row_problems(row)]
        if name in seen:
            found.append(f"{name} stands there twice: remove one")
        seen.add(name)
    return found


def _row_problems(row: dict) -> list[str]:
    found = [f"the field {key!r} is none of {', '.join(FIELDS)}: correct its spelling" for key in row if key not in FIELDS]
    found += [f"the field {key!r} is missing: add it" for key in NEEDED if key not in row]
    found += [
        f"the field {key!r} is no text or empty: write a sentence"
        for key in FIELDS[:-1]
        if key in row and not (isinstance(row[key], str) and row[key].strip())
    ]
    return found or [*_value_problems(row), *_evidence_problems(row)]


def _value_problems(row: dict) -> list[str]:
    found = []
    if not re.fullmatch(r"C\d{3}", row["id"]):
        found.append("an id is C and three digits: correct it")
    if row["verdict"] not in VERDICTS:
        found.append(f"the verdict {row['verdict']!r} is none of {', '.join(VERDICTS)}: choose one")
    return found


def _evidence_problems(row: dict) -> list[str]:
    if "notebook" not in row and "source" not in row:
        return ["neither a notebook nor a source: name the notebook whose cell shows it, or a page"]
    found = []
    if "notebook" in row and not re.fullmatch(r"\d\d", row["notebook"]):
        found.append(f"the notebook {row['notebook']!r} is no number of two digits such as '07': correct it")
    if ("notebook" in row) != ("shown" in row):
        found.append("'notebook' and 'shown' stand together: add the one that is missing")
    if row.get("shown", "ran it") not in SHOWN:
        found.append(f"shown = {row['shown']!r} is none of {', '.join(SHOWN)}: choose one")
    if row["verdict"] == "cannot be checked" and row.get("shown", "printed") != "printed":
        found.append("what cannot be checked was not shown either: shown = 'printed' or none")
    return found + (_source_problems(row["source"]) if "source" in row else [])


def _source_problems(source: dict) -> list[str]:
    if not isinstance(source, dict) or set(source) != set(SOURCE_FIELDS):
        return [f"a source has {', '.join(SOURCE_FIELDS)} and nothing else: correct it"]
    found = []
    if not ADDRESS.fullmatch(str(source["address"])):
        found.append(f"the source's address {source['address']!r} is no https address: correct it")
    try:
        date.fromisoformat(str(source["date"]))
    except ValueError:
        found.append(f"the source's date {source['date']!r} is no day such as 2026-11-25: correct it")
    return found


def find(id: str, claims: Iterable[Claim] | None = None) -> Claim:
    """The row with this ``id``; :class:`ClaimError` if there is none."""
    rows = load() if claims is None else list(claims)
    for claim in rows:
        if claim.id == id:
            return claim
    raise ClaimError(f"there is no claim {id!r}: they go from {rows[0].id} to {rows[-1].id}")


def cell(claim: Claim) -> nbformat.NotebookNode:
    """The code cell that shows ``claim``; :class:`ClaimError` if none does, or several do."""
    if claim.notebook is None:
        raise ClaimError(f"{claim.id}: no cell shows it; its source is {claim.source.address}")
    path = paths.notebook(claim.notebook)
    if path is None:
        raise ClaimError(f"{claim.id}: there is no notebook {claim.notebook}: correct the field 'notebook'")
    marked = [c for c in _read(path, path.stat().st_mtime_ns).cells if c.cell_type == "code" and claim.id in tags(c)]
    if len(marked) != 1:
        has = f"{len(marked)} cells" if marked else "no code cell"
        raise ClaimError(f"{claim.id}: {path.name} has {has} with the tag {claim.tag!r}: tag the one cell that shows it")
    return marked[0]


@functools.lru_cache
def _read(path: Path, mtime_ns: int) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: nbformat.NotebookNode) -> dict[str, str]:
    """The claims that ``cell`` says it shows: id to verdict."""
    pairs = (tag.split(": ", 1) for tag in cell.metadata.get("tags", []) if re.match(r"C\d{3}: ", tag))
    return dict(pairs)


def compared(claim: Claim) -> bool:
    """Whether a check compares what the cell of ``claim`` prints: it is marked so, or its whole notebook is."""
    path = paths.notebook(claim.notebook)
    whole = _read(path, path.stat().st_mtime_ns)
    return "# NBVAL_CHECK_OUTPUT" in cell(claim).source or whole.metadata.get("collection", {}).get("compare") == "strict"


def output(cell: nbformat.NotebookNode) -> str:
    """What ``cell`` printed or returned when it was last run, as text."""
    return "".join(map(notebooks.plain, cell.outputs))


def disagreement(claim: Claim) -> str | None:
    """Why the row and its cell do not fit together, in one line; ``None`` if they do, or if no cell is named."""
    if claim.notebook is None:
        return None
    try:
        shows = cell(claim)
    except ClaimError as error:
        return str(error)
    said, text = tags(shows)[claim.id], output(shows)
    if said != claim.verdict:
        return f"{claim.id}: the row says {claim.verdict!r} and the cell's tag {said!r}: one of them is out of date"
    if NOT_RUN_HERE & set(shows.metadata.get("requires", [])) or shows.execution_count is None:
        return f"{claim.id}: its cell was not executed: choose one that runs everywhere"
    if not text.strip():
        return f"{claim.id}: its cell prints nothing: print what it shows"
    if "# NBVAL_CHECK_OUTPUT" in shows.source and ("False" in text or "True" not in text):
        return f"{claim.id}: its cell printed a False: the verdict is not shown"
    if claim.shown != "printed" and not compared(claim):
        return f"{claim.id}: nothing compares what its cell prints: name a cell that is compared, or shown = 'printed'"
    return None


def counts(claims: Iterable[Claim] | None = None) -> dict[str, int]:
    """How many rows have each verdict, how many are shown in each way, and how many are only cited."""
    rows = load() if claims is None else list(claims)
    found = {verdict: sum(claim.verdict == verdict for claim in rows) for verdict in VERDICTS}
    found |= {way: sum(claim.shown == way for claim in rows) for way in SHOWN}
    return found | {"cited": sum(claim.notebook is None for claim in rows)}


def link(claim: Claim) -> str:
    """Markdown: a link to the cell that shows ``claim``, or to its source."""
    if claim.notebook is None:
        return f"[{claim.source.title}]({claim.source.address})"
    path = paths.notebook(claim.notebook)
    return f"[{claim.notebook}]({path.name}#cell-id={cell(claim).id})" if path else claim.notebook


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """A pandas table of ``claims`` for a notebook: what was claimed, the verdict, why, and where it is shown."""
    import pandas as pd

    rows = [
        {
            "id": claim.id,
            "claim": claim.claim,
            "verdict": claim.verdict,
            "why": claim.why,
            "shown in": claim.notebook or "",
            "how": claim.shown or f"cited: {claim.source.title}",
        }
        for claim in claims
    ]
    return pd.DataFrame(rows).set_index("id")
