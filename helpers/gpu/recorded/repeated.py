"""Figures taken again on another day: each beside its first range, and whether the two ranges meet.

Repeats within one life have the same neighbours, the same compiled code and the same place in memory; their range says little
about another day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from helpers.bench.timing import Figure, figure
from helpers.formatting import told
from helpers.gpu.recorded import read, scaled

if TYPE_CHECKING:
    import pandas as pd

RUNS = ("today", "scaling")


@dataclass(frozen=True)
class Pair:
    """One load of one life, tokens/s on two days."""

    life: str
    load: str
    first: Figure
    again: Figure

    @property
    def change(self) -> float:
        """Of the medians: 0.02 is 2 % more than the first time."""
        return self.again.median / self.first.median - 1

    @property
    def meets(self) -> bool:
        """Whether the ranges of both days have a value in common."""
        return self.again.low <= self.first.high and self.first.low <= self.again.high


def load(machine: str | None = None) -> dict:
    """The newest record of the run ``again``; :class:`~helpers.records.RecordError` if there is none."""
    return read.load("again", machine)


def pairs(found: Mapping | None = None) -> Iterator[Pair]:
    """Every load that was measured on both days, in the order of the lives."""
    found = found or load()
    before = {key: one for run in RUNS for key, one in read.beside(found, run)["lives"].items()}
    for key, one in found["lives"].items():
        first = scaled.by_load(before[key]) if key in before else {}
        for name, rates in scaled.by_load(one).items():
            if name in first:
                yield Pair(read.label(one), name, figure(first[name]), figure(rates))


def table(found: Mapping | None = None) -> pd.DataFrame:
    """Tokens/s of both days by life and load, the change of the median, and whether the ranges meet."""
    found = found or load()
    rows = {
        (one.life, one.load): {
            "first": told(vars(one.first), ",.0f"), "again": told(vars(one.again), ",.0f"),
            "change": f"{one.change:+.1%}", "ranges meet": "yes" if one.meets else "no",
        }
        for one in pairs(found)
    }  # fmt: skip
    return read.frame(rows, found, *(read.beside(found, run) for run in RUNS))


def finding(found: Mapping | None = None) -> str:
    """How many ranges meet, the median of all changes without their sign, and the largest change."""
    several = list(pairs(found))
    if not several:
        return "nothing was measured twice"
    far = max(several, key=lambda one: abs(one.change))
    usual = median(abs(one.change) for one in several)
    meeting = sum(one.meets for one in several)
    return (
        f"of {len(several)} figures the ranges of {meeting} meet those of the first day; the medians are {usual:.1%} apart in "
        f"the median, at most {far.change:+.1%} ({far.life}, {far.load})"
    )
