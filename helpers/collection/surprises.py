"""Notebook 14's first and last tables: the claims whose verdict surprises most, and all the others, folded by part.

``notebooks/surprises.toml`` chooses them; verdict, reason and link are those of ``claims.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from helpers import paths
from helpers.collection import claims, document

if TYPE_CHECKING:
    import pandas as pd

FILE = paths.NOTEBOOKS / "surprises.toml"


def load() -> dict[str, str]:
    """The sentence for each chosen claim, by its id, in the order in which they are told."""
    return {one["id"]: one["says"] for one in tomllib.loads(FILE.read_text(encoding="utf-8"))["surprises"]}


def listed() -> str:
    """The chosen claims as a numbered Markdown list: a sentence, and a link to the cell or the page that settles it."""
    known = {claim.id: claim for claim in claims.load()}
    return "\n".join(f"{i}. {says} ({claims.link(known[id])})" for i, (id, says) in enumerate(load().items(), 1))


def others() -> list[claims.Claim]:
    """Every claim that is not among the chosen ones."""
    chosen = load()
    return [claim for claim in claims.load() if claim.id not in chosen]


def parts(of: Iterable[claims.Claim] | None = None) -> dict[str, dict[str, int]]:
    """By part of the document how many of its claims have each verdict; of all claims by default."""
    found: dict[str, dict[str, int]] = {}
    for claim in claims.load() if of is None else of:
        count = found.setdefault(claim.path[0], dict.fromkeys(claims.VERDICTS, 0))
        count[claim.verdict] += 1
    return found


def table(part: str = "", verdict: str = "", word: str = "") -> pd.DataFrame:
    """The others as a :class:`pandas.DataFrame`: those of a part, with a verdict, with a word in them; all by default.

    Raises :class:`ValueError` for a part or a verdict that does not exist.
    """
    import pandas as pd

    for given, known in ((part, parts()), (verdict, claims.VERDICTS)):
        if given and given not in known:
            raise ValueError(f"there is no {given!r}: choose from {', '.join(known)}")
    rows = [claim for claim in others() if _wanted(claim, part, verdict, word)]
    columns = ["part", "the document", "verdict", "why", "shown"]
    of = {claim.id: [" · ".join(claim.path), claim.claim, *document.judged(claim).values()] for claim in rows}
    return pd.DataFrame.from_dict(of, orient="index", columns=columns)


def _wanted(claim: claims.Claim, part: str, verdict: str, word: str) -> bool:
    text = f"{claim.section} {claim.claim} {claim.why}".lower()
    return part in ("", claim.path[0]) and verdict in ("", claim.verdict) and word.lower() in text


def folded() -> str:
    """The others as HTML, a ``details`` for each part, so that they read without a kernel."""
    rest = others()
    of = {name: [claim for claim in rest if claim.path[0] == name] for name in parts(rest)}
    return "\n".join(_part(name, count, of[name]) for name, count in parts(rest).items())


def _part(name: str, count: dict[str, int], rows: Iterable[claims.Claim]) -> str:
    told = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number)
    body = "\n".join(_row(claim) for claim in rows)
    head = "<tr><th>id</th><th>the document</th><th>verdict</th><th>why</th><th>shown</th></tr>"
    return f"<details><summary>{escape(name)}: {told}</summary>\n<table>\n{head}\n{body}\n</table>\n</details>"


def _row(claim: claims.Claim) -> str:
    where = claims.link(claim)
    text, _, address = where.rpartition("](")
    link = f'<a href="{escape(address.removesuffix(")"))}">{escape(text.removeprefix("["))}</a>' if text else escape(where)
    place = " · ".join(claim.path[1:])
    said = f"{place}: {claim.claim}" if place else claim.claim
    cells = (claim.id, said, f"{document.SIGNS[claim.verdict]} {claim.verdict}", claim.why)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}<td>{link}</td></tr>"
