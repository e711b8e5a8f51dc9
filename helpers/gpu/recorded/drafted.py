"""What n-gram drafts gave the small model on GPUs: two lives of one engine, or blocks of two servers in turns in one life.

Two lives may lie hours apart, on a host with other work: a row of theirs that says something is weak until blocks in turns say
it too (:func:`again`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING

from helpers import records
from helpers.formatting import told, users_told
from helpers.gpu.recorded import blocks, read
from helpers.gpu.work.side_by_side import DRAFTS, PLAIN
from helpers.servers import engines
from helpers.studies import standings

if TYPE_CHECKING:
    import pandas as pd

NO_DRAFTS = "no drafts"  # as read.drafting says
WEAK_S = 3600  # two lives that lie further apart may have had other neighbours
TURNS = "in turns"  # the work whose blocks are compared


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


def in_turns(found: Mapping) -> list[dict]:
    """The rows of one record in which both ways were measured in turns, by engine and number of users, named as in the others.

    A row has ``engine``, ``framework``, ``users``, ``plain`` and ``drafts`` (tokens/s of the blocks: median, low, high),
    ``times``, how many times the rate without drafts that with them is, pair by pair, and ``give``, what all pairs say.
    ``acceptance`` is accepted / drafted tokens, which SGLang does not count; ``tokens_per_step`` all three do. ``same`` of so
    ``many`` answers were the same in both. What is not defined is ``None``.
    """
    gpu = found["provenance"]["machine"]["gpus"][0].removeprefix("NVIDIA ").split()[0]
    where = read.recorded(found, works=(TURNS,))
    return [
        {
            "engine": one["engine"], "framework": engines.TITLES[one["engine"]], "users": users, "recorded": where,
            "name": f"{engines.TITLES[one['engine']]}, {gpu}, {one['date'][:10]}", **_turns(pairs), **_same(one, users),
        }
        for one in read.lives(found, TURNS)
        for users, pairs in sorted(blocks.pairs(one, PLAIN, DRAFTS).items())
    ]  # fmt: skip


def everywhere_in_turns() -> list[dict]:
    """The rows of :func:`in_turns` of every machine's newest record."""
    return [row for name in reversed(read.machines("questions")) for row in in_turns(read.load("questions", name))]


def _turns(pairs: Sequence[blocks.Pair]) -> dict:
    plain, drafting = zip(*pairs)
    times = blocks.ratio(pairs, _rate)
    counts = [row["counts"] for row in drafting if row["counts"]]
    drafted = sum(one.get("drafted", 0) for one in counts)
    return {
        "plain": blocks.spread(plain, _rate), "drafts": blocks.spread(drafting, _rate), "times": times,
        "give": blocks.gives(times), "pairs": len(pairs),
        "acceptance": sum(one["accepted"] for one in counts if "accepted" in one) / drafted if drafted else None,
        "tokens_per_step": median(one["tokens_per_step"] for one in counts) if counts else None,
    }  # fmt: skip


def _rate(row: Mapping) -> float | None:
    return row["output_tokens_per_s"]


def _same(one: Mapping, users: int) -> dict:
    said = next((row for row in one["rows"] if row["kind"] == "same answers" and row["users"] == users), {})
    return {"same": said.get("same"), "many": said.get("of")}


def turns_table(rows: Iterable[Mapping]) -> pd.DataFrame:
    """The ``rows`` of :func:`in_turns`: output tokens/s of the blocks, their ratio pair by pair, and what came of the drafts."""
    shown = {
        f"{row['name']}, {users_told(row['users'])}": {
            NO_DRAFTS: told(row["plain"]), "n-gram drafts": told(row["drafts"]), "x": told(row["times"], ".2f"),
            "drafts give": blocks.GIVES[row["give"]],
            "accepted": "-" if row["acceptance"] is None else f"{row['acceptance']:.0%}",
            "tokens a step": "-" if row["tokens_per_step"] is None else f"{row['tokens_per_step']:.2f}",
            "same answers": "-" if row["same"] is None else f"{row['same']} of {row['many']}",
        }
        for row in rows
    }  # fmt: skip
    return read.frame(shown)


def gains(turns: Iterable[Mapping]) -> dict[str, dict[int, Mapping]]:
    """Rows of one record for :func:`helpers.lessons.speculation.pictures.by_users`: the ratio by engine and number of users."""
    found: dict[str, dict[int, Mapping]] = {}
    for row in (row for row in turns if row["times"]):
        found.setdefault(row["engine"], {})[row["users"]] = row["times"]
    return found


def left_out(found: Mapping | None = None) -> list[str]:
    """A line for what is planned in turns and is not in a record, by default the newest: a life, or the blocks of some users."""
    return blocks.left_out(found or read.load("questions"), TURNS, PLAIN, DRAFTS)


def weak(rows: Iterable[Mapping]) -> list[Mapping]:
    """Those ``rows`` of :func:`everywhere` that say "more" or "less" of two lives that lie more than :data:`WEAK_S` apart."""
    return [row for row in rows if row["apart_s"] > WEAK_S and row["give"] != "no more"]


def again(rows: Iterable[Mapping], turns: Iterable[Mapping]) -> list[dict]:
    """What blocks in turns say to each :func:`weak` row: ``word`` is "repeated", "not repeated" or "not measured in turns".

    ``rows`` are those of :func:`everywhere`, ``turns`` those of :func:`in_turns`, of any GPU. It is repeated where all of these
    give the same. ``gave`` is what the two lives said; the rows in turns that answer it are its ``turns``.
    """
    turns = list(turns)
    return [
        {"name": row["name"], "users": row["users"], "gave": row["give"], "turns": there, "word": _word(row["give"], there)}
        for row in weak(rows)
        for there in [[one for one in turns if _is_of(one, row) and one["give"]]]
    ]


def _is_of(one: Mapping, row: Mapping) -> bool:
    return (one["framework"], one["users"]) == (row["framework"], row["users"])


def _word(gave: str, there: Sequence[Mapping]) -> str:
    if not there:
        return "not measured in turns"
    return "repeated" if {one["give"] for one in there} == {gave} else "not repeated"


def again_told(rows: Iterable[Mapping], turns: Iterable[Mapping]) -> list[str]:
    """The same as a line each: the ratio of each pair of rates in turns, what it says, and the word."""
    return [
        f"{one['name']}, {users_told(one['users'])}: {one['gave']} in two starts; "
        + "".join(
            f"{row['name']}, in turns: x {told(row['times'], '.2f')}, {blocks.GIVES[row['give']]}; " for row in one["turns"]
        )
        + one["word"]
        for one in again(rows, turns)
    ]


def finding(turns: Iterable[Mapping]) -> str:
    """What rows of :func:`in_turns` say, as a title: ``With drafts, in turns: more for vLLM (1 and 4 users), less for ...``."""
    of: dict[str, dict[str, list[int]]] = {}
    for row in (row for row in turns if row["give"]):
        of.setdefault(row["give"], {}).setdefault(row["framework"], []).append(row["users"])
    said = [f"{blocks.GIVES[give]} for {_who(of[give])}" for give in ("more", "less", "no more") if give in of]
    return f"With drafts, in turns: {'; '.join(said) or 'no two pairs of blocks are recorded'}"


def _who(users: Mapping[str, Iterable[int]]) -> str:
    """Frameworks with their numbers of users; those with the same numbers together."""
    together: dict[str, list[str]] = {}
    for name, counts in users.items():
        together.setdefault(_counts(counts), []).append(name)
    return ", ".join(f"{_listed(names)} ({counts})" for counts, names in together.items())


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _counts(users: Iterable[int]) -> str:
    numbers = sorted(set(users))
    return f"{_listed(map(str, numbers))} users" if numbers[1:] else users_told(numbers[0])


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
