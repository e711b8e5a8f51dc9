"""What n-gram drafts gave the small model on GPUs: each life with drafts beside the same engine's life without them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from helpers import records
from helpers.formatting import told, users_told
from helpers.gpu import read
from helpers.servers import engines
from helpers.studies import standings

if TYPE_CHECKING:
    import pandas as pd

NO_DRAFTS = "no drafts"  # as read.drafting says


def pairs(found: Mapping) -> Iterator[dict]:
    """The lives of one record that drafted, beside those that did not, by number of users.

    A row has ``framework``, ``users``, ``plain`` and ``drafts`` (tokens/s: median, low, high), and ``apart_s``, the seconds
    between the two lives, in which the host may have got other work.
    """
    of = {(one["engine"], read.drafting(one)): one for one in read.lives(found, "real")}
    for (engine, how), one in of.items():
        plain = of.get((engine, NO_DRAFTS))
        if plain and how != NO_DRAFTS:
            yield from _pair(plain, one)


def _pair(plain: Mapping, drafting: Mapping) -> list[dict]:
    before, after = _rates(plain), _rates(drafting)
    dates = [datetime.fromisoformat(one["date"]) for one in (plain, drafting)]
    both = {"framework": engines.TITLES[plain["engine"]], "apart_s": abs(dates[1] - dates[0]).total_seconds()}
    return [{**both, "users": users, "plain": before[users], "drafts": after[users]} for users in after if users in before]


def _rates(one: Mapping) -> dict[int, Mapping]:
    return {row["users"]: row["output_tokens_per_s"] for row in one["rows"] if row["kind"] == "copying"}


def everywhere() -> list[dict]:
    """The rows of :func:`pairs` of every record there is, the oldest first.

    Each has its ``name`` (framework, GPU and day), what drafts ``give``, as :func:`helpers.studies.standings.change` says, and
    where it was ``recorded``.
    """
    rows = []
    for path in sorted(records.FOLDER.glob("*/gpu-options.*.json"), key=records.age):
        found = json.loads(path.read_text())
        gpu, day = found["provenance"]["machine"]["gpus"][0], path.name.split(".")[1]
        where = read.recorded(found, works=("real",))
        for row in pairs(found):
            name = f"{row['framework']}, {gpu.removeprefix('NVIDIA ').split()[0]}, {day}"
            rows.append({**row, "name": name, "give": standings.change(row["plain"], row["drafts"]), "recorded": where})
    return rows


def given(rows: Iterable[Mapping], framework: str, users: int) -> dict[str, list[float]]:
    """What drafts gave ``framework`` with so many ``users``, and the ``apart_s`` of every row that says so."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row["framework"], row["users"]) == (framework, users):
            found.setdefault(row["give"], []).append(row["apart_s"])
    return found


def table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """The ``rows`` of :func:`everywhere`: output tokens/s, and the minutes between the two lives of a row."""
    shown = {
        f"{row['name']}, {users_told(row['users'])}": {
            NO_DRAFTS: told(row["plain"]), "n-gram drafts": told(row["drafts"]),
            "drafts give": "no clear change" if row["give"] == "no more" else row["give"],
            "apart, min": round(row["apart_s"] / 60),
        }
        for row in rows
    }  # fmt: skip
    return read.frame(shown)


def panels(rows: Iterable[Mapping]) -> dict[str, dict[str, dict[str, Mapping]]]:
    """The same for :func:`helpers.lessons.speculation.pictures.recorded`: a panel for each number of users."""
    found: dict[str, dict] = {}
    for row in sorted(rows, key=lambda row: row["users"]):
        found.setdefault(users_told(row["users"]), {})[row["name"]] = {NO_DRAFTS: row["plain"], "n-gram drafts": row["drafts"]}
    return found
