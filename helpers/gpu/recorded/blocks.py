"""Blocks of two ways in turns, as recorded: block i of one stands beside block i of the other, and the ratio is of each pair.

What slows the host slows both blocks of a pair, so their ratio says more than two medians. Its span is that of the pairs; with
six pairs, that is the 95 % interval of their median too (:func:`helpers.bench.timing.figure`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from helpers.bench.timing import figure
from helpers.formatting import users_told
from helpers.gpu import cases

Pair = tuple[Mapping, Mapping]  # a block of the first way, and that of the second with the same number
Value = Callable[[Mapping], float | None]
GIVES = {"more": "more", "less": "less", "no more": "no clear change", None: "-"}  # a word of :func:`gives`, for a reader


def pairs(one: Mapping, first: str, second: str) -> dict[int, list[Pair]]:
    """The blocks of the ways ``first`` and ``second`` in a life, by number of users; one without its neighbour is left out."""
    of: dict[int, dict[str, dict[int, Mapping]]] = {}
    for row in (row for row in one["rows"] if row["kind"] == "block"):
        of.setdefault(row["users"], {}).setdefault(row["way"], {})[row["repeat"]] = row
    both = {users: (ways.get(first, {}), ways.get(second, {})) for users, ways in of.items()}
    whole = {users: [(a[turn], b[turn]) for turn in sorted(a.keys() & b.keys())] for users, (a, b) in both.items()}
    return {users: found for users, found in whole.items() if found}


def span(values: Iterable[float | None]) -> Mapping | None:
    """``median``, ``low``, ``high`` and ``repeats`` of those that are defined; ``None`` if none is."""
    known = [value for value in values if value is not None]
    return vars(figure(known)) | {"repeats": len(known)} if known else None


def spread(rows: Iterable[Mapping], value: Value) -> Mapping | None:
    """``value`` of each block, as :func:`span`."""
    return span(map(value, rows))


def ratio(found: Sequence[Pair], value: Value) -> Mapping | None:
    """How many times the first way's ``value`` the second's is, pair by pair; as :func:`span`."""
    values = [(value(one), value(other)) for one, other in found]
    return span(other / one for one, other in values if one and other)


def gives(times: Mapping | None) -> str | None:
    """Whether every pair says "more" or every pair says "less", else "no more"; ``None`` where fewer than two say something.

    What a table shows as 1.00 is no more and no less.
    """
    if not times or times["repeats"] < 2:
        return None
    if round(times["low"], 2) > 1:
        return "more"
    return "less" if round(times["high"], 2) < 1 else "no more"


def left_out(found: Mapping, work: str, first: str, second: str) -> list[str]:
    """A line for each life of ``work`` that is planned and missing or was cut off, and for the users of which it has no pair."""
    lines = []
    for life in (life for life in cases.questions() if life.work == work):
        one = found["lives"].get(life.key)
        known = pairs(one, first, second) if one else {}
        missing = [users_told(users) for users in life.given["users"] if users not in known]
        said = list(one["failed"]) if one else ["planned, not recorded yet"]
        if missing and one and (known or not said):
            said.append(f"no blocks with {', '.join(missing)}")
        lines += [f"{life.key}: {line}" for line in said]
    return lines
