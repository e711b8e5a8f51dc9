"""The highest load that keeps limits, found by a search that knows about noise.

A load keeps its limits if at least a ``share`` of its requests do. One look at it only says which way it leans, so the
search doubles and halves by looks, and then confirms: it repeats the loads next to the edge until their share is on one
side of the asked one at 95 % confidence (Clopper and Pearson, Biometrika 26, 1934: exact for independent requests) and
most repeats agree, as requests of one repeat share its luck. A load of which this cannot be said is left open, and the
search ends there instead of guessing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from helpers.bench import timing
from helpers.bench.timing import Sample

BELOW_ALL = 0.05  # a bound is wrong with less than this probability
MOST_REPEATS = 7  # of one load, a look among them; then it is left open
MOST_OPEN = 2  # loads that may be left open between two that lean to either side; then it is not looked closer
MOST_OPEN_ALL = 5  # in all; then the search ends
MOST_BLOCKS = 100  # of the whole search
LOOK_REQUESTS = 20  # of a look, at the least
RESOLUTION = 0.1  # of the load: closer is not looked, but for whole users

Load = int | float
Block = Callable[[Load, int], Sequence[Sample]]  # (load, requests at the least) -> what came back


@dataclass(frozen=True)
class Judged:
    """Requests at one load: (kept the limits, sent) of each repeat."""

    repeats: tuple[tuple[int, int], ...] = ()

    @property
    def kept(self) -> int:
        return sum(kept for kept, _ in self.repeats)

    @property
    def requests(self) -> int:
        return sum(sent for _, sent in self.repeats)

    @property
    def low(self) -> float:
        """The share is not below this."""
        return bound(self.kept, self.requests)

    @property
    def high(self) -> float:
        """The share is not above this."""
        return 1 - bound(self.requests - self.kept, self.requests)

    def leans(self, share: float) -> bool:
        """Whether the requests so far, taken as they are, kept it."""
        return self.kept >= share * self.requests

    def verdict(self, share: float) -> bool | None:
        """Whether the share is kept, said after whole repeats that agree; ``None``: it cannot be said (yet)."""
        votes = [kept >= share * sent for kept, sent in self.repeats if sent >= repeat_requests(share)]
        if len(votes) < timing.MIN_REPEATS:
            return None
        agree = sum(votes) / len(votes)
        if self.low >= share and agree > 0.5:
            return True
        return False if self.high < share and agree < 0.5 else None


@cache
def bound(kept: int, requests: int) -> float:
    """The lowest share that is not ruled out by ``kept`` of ``requests``, at 95 % confidence (one-sided)."""
    if not kept:
        return 0.0
    low, high = 0.0, kept / requests
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(kept, requests, middle) < BELOW_ALL else (low, middle)
    return low


def _at_least(kept: int, requests: int, share: float) -> float:
    """The probability of ``kept`` or more of ``requests`` if each is kept with probability ``share``."""
    if not 0 < share < 1:
        return float(share >= 1)
    yes, no, ways = math.log(share), math.log1p(-share), math.lgamma(requests + 1)

    def exactly(n: int) -> float:
        return math.exp(ways - math.lgamma(n + 1) - math.lgamma(requests - n + 1) + n * yes + (requests - n) * no)

    if kept > requests / 2:  # the shorter sum
        return sum(map(exactly, range(kept, requests + 1)))
    return 1 - sum(map(exactly, range(kept)))


def requests_for(share: float) -> int:
    """The fewest requests that can show a share: 299 for 0.99, 59 for 0.95, 29 for 0.9."""
    return math.ceil(math.log(BELOW_ALL) / math.log(share))


def repeat_requests(share: float) -> int:
    """The fewest requests of a repeat that counts as one: three such can show the share. A look may have fewer."""
    return math.ceil(requests_for(share) / timing.MIN_REPEATS)


@dataclass(frozen=True)
class Found:
    """The highest load that is confirmed to keep the limits, and the lowest that is confirmed not to."""

    limits: Mapping[str, float]
    share: float
    unit: str  # "users" or "requests/s"
    keeps: Load | None  # None: not even the lowest
    exceeds: Load | None  # None: not even the highest that was allowed
    judged: Mapping[Load, Judged]
    reason: str | None = None  # why the two are not closer

    def to_dict(self) -> dict:
        """As the JSON has it."""
        told = {"limits": dict(self.limits), "share": self.share, "unit": self.unit, "keeps": self.keeps, "exceeds": self.exceeds}
        loads = [
            {
                "load": load,
                "kept": one.kept,
                "requests": one.requests,
                "repeats": len(one.repeats),
                "low": one.low,
                "high": one.high,
            }
            for load, one in sorted(self.judged.items())
        ]
        return {**told, "confidence": 1 - BELOW_ALL, "reason": self.reason, "loads": loads}

    def __str__(self) -> str:
        limits = " and ".join(f"{name.removesuffix('_s')} <= {limit:g} s" for name, limit in self.limits.items())
        asked = f"{limits} for {self.share * 100:g} % of the requests"
        if self.keeps is None:
            said = f"no load was confirmed to keep {asked}"
        else:
            said = f"{self.keeps:g} {self.unit} keep {asked} ({self._told(self.keeps, 'low')})"
        above = f"; {self.exceeds:g} do not ({self._told(self.exceeds, 'high')})" if self.exceeds is not None else ""
        return said + above + (f"; {self.reason}" if self.reason else "")

    def _told(self, load: Load, side: str) -> str:
        one = self.judged[load]
        least = {"low": "at least", "high": "at most"}[side]
        return f"{one.kept} of {one.requests} in {len(one.repeats)} repeats: {least} {getattr(one, side) * 100:.1f} %"


@dataclass
class Search:
    """A search under way: :meth:`run` it; what was sent is in :attr:`blocks`, also after an interrupt."""

    block: Block
    limits: Mapping[str, float]
    share: float
    first: Load
    most: Load
    unit: str = "users"
    blocks: dict[Load, list[tuple[Sample, ...]]] = field(default_factory=dict)
    counts: dict[Load, list[tuple[int, int]]] = field(default_factory=dict)  # (kept, sent) of each

    def __post_init__(self):
        if not 0.5 <= self.share < 1:
            raise ValueError(
                f"share={self.share:g}: must be from 0.5 to below 1; no number of requests shows that all keep limits"
            )
        if not 0 < self.first <= self.most:
            raise ValueError(f"a search from {self.first:g} to {self.most:g} {self.unit}: give a low and a high one, above 0")

    def run(self) -> Found:
        """Search until the edge is confirmed, or it is clear that it cannot be."""
        reason = None
        while reason is None and (step := self._next()):
            load, requests = step
            block = tuple(self.block(load, requests))
            self.blocks.setdefault(load, []).append(block)
            self.counts.setdefault(load, []).append((sum(map(self._kept, block)), len(block)))
            if len(self._open()) >= MOST_OPEN_ALL:
                break
            if sum(map(len, self.blocks.values())) >= MOST_BLOCKS:
                reason = f"stopped after {MOST_BLOCKS} repeats of all loads together"
        return self.found(reason)

    def judged(self, load: Load) -> Judged:
        """What is known of ``load``."""
        return Judged(tuple(self.counts.get(load, ())))

    def _kept(self, sample: Sample) -> bool:
        return sample.error is None and timing.met(sample, self.limits)

    def _next(self) -> tuple[Load, int] | None:
        """The load to send next and how many requests; ``None``: all is said that can be."""
        if not self.blocks:
            return self.first, LOOK_REQUESTS
        low, high = self._edge()
        look = self._beyond(low, high) if None in (low, high) else self._between(low, high)
        if look is not None:
            return look, LOOK_REQUESTS
        for load in (low, high):
            if load is not None and self.judged(load).verdict(self.share) is None:
                return load, repeat_requests(self.share)
        return None

    def _open(self) -> list[Load]:
        """Loads that were repeated as often as is allowed and are not decided."""
        tried = {load: self.judged(load) for load in self.blocks}
        return sorted(n for n, one in tried.items() if len(one.repeats) >= MOST_REPEATS and one.verdict(self.share) is None)

    def _edge(self) -> tuple[Load | None, Load | None]:
        """The lowest load that leans to exceed, and the highest below it that leans to keep; open ones are neither."""
        leaning = {load: self.judged(load).leans(self.share) for load in self.blocks if load not in self._open()}
        high = min((load for load, keeps in leaning.items() if not keeps), default=None)
        low = max((load for load, keeps in leaning.items() if keeps and (high is None or load < high)), default=None)
        return low, high

    def _beyond(self, low: Load | None, high: Load | None) -> Load | None:
        """A load to look at where one of the two is not known yet; ``None``: there is none."""
        if high is None:
            above = max(self.blocks)
            return min(2 * above, self.most) if above < self.most else None
        below = self._rounded(min(self.blocks) / 2)
        return below if below > self.first / 1024 else None

    def _between(self, low: Load, high: Load) -> Load | None:
        """A load to look at between the two; ``None``: they are next to each other, or enough is left open there."""
        left_open = [load for load in self._open() if low < load < high]
        if len(left_open) >= MOST_OPEN:
            return None
        a, b = max(zip([low, *left_open], [*left_open, high]), key=lambda pair: pair[1] / pair[0])
        if self.unit == "users":
            middle, apart = (a + b) // 2, b - a > max(1, RESOLUTION * a)
        else:
            middle, apart = self._rounded(math.sqrt(a * b)), b / a > 1 + RESOLUTION
        return middle if apart and middle not in self.blocks else None

    def _rounded(self, load: float) -> Load:
        return int(load) if self.unit == "users" else float(f"{load:.3g}")

    def found(self, reason: str | None = None) -> Found:
        """What the search can say so far."""
        judged = {load: self.judged(load) for load in sorted(self.blocks)}
        said = {load: one.verdict(self.share) for load, one in judged.items()}
        exceeds = min((load for load, keeps in said.items() if keeps is False), default=None)
        keeps = max((load for load, kept in said.items() if kept and (exceeds is None or load < exceeds)), default=None)
        return Found(self.limits, self.share, self.unit, keeps, exceeds, judged, reason or self._reason(keeps, exceeds))

    def _reason(self, keeps: Load | None, exceeds: Load | None) -> str | None:
        """Why the edge is not known more closely, or what stood in the way."""
        if undecided := [load for load in self._open() if (keeps or 0) < load < (exceeds or math.inf)]:
            told = (f"at {n:g} {self.judged(n).kept} of {self.judged(n).requests} in {MOST_REPEATS} repeats" for n in undecided)
            return f"it cannot be decided more closely: {', '.join(told)}"
        failed = Counter(s.error for block in self.blocks.get(exceeds, ()) for s in block if s.error)
        if failed:
            return f"{failed.total()} requests failed there, most with {failed.most_common(1)[0][0]!r}"
        return f"more than {self.most:g} were not tried" if exceeds is None else None
