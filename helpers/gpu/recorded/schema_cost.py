"""What a JSON schema cost the small model under load on a GPU, replayed: the same prompts free and constrained, in turns.

Constrained answers end earlier than free ones, so that tokens/s have more prompts in them; TPOT compares the tokens alone. What
was recorded is read from :mod:`helpers.gpu.work.constrained`'s life of the newest record of each machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from helpers.bench.timing import figure
from helpers.formatting import told, users_told
from helpers.gpu.recorded import blocks, read
from helpers.gpu.recorded.blocks import Pair
from helpers.gpu.work.constrained import FORCED, FREE
from helpers.lessons.structured import questions
from helpers.servers import engines

if TYPE_CHECKING:
    import pandas as pd

WORK = "constrained"


def rows(found: Mapping) -> list[dict]:
    """A row for each engine and number of users of a record: ``framework``, ``users``, figures of the blocks, and ratios.

    ``free`` and ``forced`` have ``output_tokens_per_s``, ``tpot_s`` and ``ttft_s`` (median, low, high of the blocks), ``tokens``
    (mean of an answer) and ``outcomes``; ``times`` how many times the free figure the constrained one is, pair by pair. ``gives``
    is what becomes of tokens/s, in the words of :func:`helpers.gpu.recorded.blocks.gives`. What is not defined is ``None``.
    """
    return [
        {"framework": engines.TITLES[one["engine"]], "users": users, **_compared(pairs)}
        for one in read.lives(found, WORK)
        for users, pairs in sorted(blocks.pairs(one, FREE, FORCED).items())
    ]


FIGURES = {  # of a block, by the name that it has in a row
    "output_tokens_per_s": lambda block: (block["output_tokens_per_s"] or {}).get("median"),
    "tpot_s": lambda block: (block["tpot_s"] or {}).get("median"),
    "ttft_s": lambda block: (block["ttft_s"] or {}).get("median"),
}


def _compared(pairs: Sequence[Pair]) -> dict:
    sides = dict(zip(("free", "forced"), zip(*pairs)))
    times = {name: blocks.ratio(pairs, value) for name, value in FIGURES.items()}
    return {
        **{name: _side(of) for name, of in sides.items()}, "times": times, "pairs": len(pairs),
        "gives": blocks.gives(times["output_tokens_per_s"]),
    }  # fmt: skip


def _side(of: Sequence[Mapping]) -> dict:
    """The figures of one way's blocks; outcomes of all of them together."""
    outcomes: dict[str, int] = {}
    for what, count in (pair for block in of for pair in block["outcomes"].items()):
        outcomes[what] = outcomes.get(what, 0) + count
    tokens = [block["mean_output_tokens"] for block in of if block.get("mean_output_tokens") is not None]
    return {
        **{name: blocks.spread(of, value) for name, value in FIGURES.items()}, "outcomes": outcomes,
        "tokens": median(tokens) if tokens else None,
    }  # fmt: skip


def table(found: Mapping | None = None) -> pd.DataFrame:
    """The :func:`rows` of a record, by default the newest: tokens/s, TPOT and TTFT of both ways, each with its ratio."""
    found = found or read.load("questions")
    shown = {
        (row["framework"], users_told(row["users"])): {
            "tokens/s, free": told(row["free"]["output_tokens_per_s"], ",.0f"),
            "tokens/s, JSON": told(row["forced"]["output_tokens_per_s"], ",.0f"),
            "x tokens/s": told(row["times"]["output_tokens_per_s"], ".2f"),
            "TPOT free, ms": told(row["free"]["tpot_s"], ".2f", 1000),
            "TPOT JSON, ms": told(row["forced"]["tpot_s"], ".2f", 1000),
            "x TPOT": told(row["times"]["tpot_s"], ".2f"),
            "TTFT free, ms": told(row["free"]["ttft_s"], ".1f", 1000),
            "TTFT JSON, ms": told(row["forced"]["ttft_s"], ".1f", 1000),
            "x TTFT": told(row["times"]["ttft_s"], ".2f"),
        }
        for row in rows(found)
    }  # fmt: skip
    return read.frame(shown, found, works=(WORK,))


def validity(found: Mapping | None = None) -> pd.DataFrame:
    """Of the same rows: how many answers were valid JSON of their schema in both ways, what the others were, and their length."""
    found = found or read.load("questions")
    shown = {
        (row["framework"], users_told(row["users"])): {
            "valid, free": valid(row["free"]["outcomes"]), "valid, JSON": valid(row["forced"]["outcomes"]),
            "others, JSON": others(row["forced"]["outcomes"]),
            **{f"tokens of an answer, {way}": f"{row[side]['tokens']:.0f}" if row[side]["tokens"] else "-"
               for way, side in (("free", "free"), ("JSON", "forced"))},
        }
        for row in rows(found)
    }  # fmt: skip
    return read.frame(shown, found, works=(WORK,))


def share(outcomes: Mapping[str, int]) -> float | None:
    """The share of answers that were valid; ``None`` without answers."""
    asked = sum(outcomes.values())
    return outcomes.get("valid", 0) / asked if asked else None


def valid(outcomes: Mapping[str, int]) -> str:
    """``240 of 252 (95 %)``, or "-"."""
    known = share(outcomes)
    return "-" if known is None else f"{outcomes.get('valid', 0)} of {sum(outcomes.values())} ({known:.0%})"


def others(outcomes: Mapping[str, int]) -> str:
    """What the answers were that were not valid, in the order of :data:`questions.OUTCOMES`."""
    return ", ".join(f"{outcomes[what]} {what}" for what in questions.OUTCOMES[1:] if outcomes.get(what)) or "-"


def compiled(found: Mapping | None = None) -> pd.DataFrame:
    """How long the first request of each schema waited: TTFT free, with the new schema, and with schemas that were known.

    With the fewest users, in the warm-up; of a record that has no warm-ups there is no row. What a new schema costs is the
    difference of the last two; other things that an engine does once may be in it.
    """
    found, shown = found or read.load("questions"), {}
    for one in read.lives(found, WORK):
        users = min((row["users"] for row in one["rows"] if row["kind"] == "warm-up"), default=None)
        first = {row["way"]: row["first_s"] for row in one["rows"] if row["kind"] == "warm-up" and row["users"] == users}
        known = next((row["forced"]["ttft_s"] for row in rows(found) if _is_of(row, one, users)), None)
        if first:
            shown[engines.TITLES[one["engine"]]] = {
                "schemas": str(len(first.get(FORCED, ()))), "TTFT free, ms": _ms(first.get(FREE)),
                "a new schema, ms": _ms(first.get(FORCED)), "a known one, ms": told(known, ".1f", 1000),
            }  # fmt: skip
    return read.frame(shown, found, works=(WORK,))


def _is_of(row: Mapping, one: Mapping, users: int | None) -> bool:
    return (row["framework"], row["users"]) == (engines.TITLES[one["engine"]], users)


def _ms(seconds: Mapping[str, float] | None) -> str:
    """Median, lowest and highest of all schemas, milliseconds; "-" without any."""
    spread = figure((seconds or {}).values())
    return told(spread and vars(spread), ".1f", 1000)


def left_out(found: Mapping | None = None) -> list[str]:
    """A line for what is planned and is not in a record: a life, or the blocks of some users."""
    return blocks.left_out(found or read.load("questions"), WORK, FREE, FORCED)


def ratios(found: Mapping | None = None) -> dict[str, dict[str, float]]:
    """How many times as long a constrained token takes: for :func:`helpers.lessons.structured.pictures.cost`, by users."""
    shown: dict[str, dict[str, float]] = {}
    for row in rows(found or read.load("questions")):
        if times := row["times"]["tpot_s"]:
            shown.setdefault(users_told(row["users"]), {})[row["framework"]] = times["median"]
    return shown
