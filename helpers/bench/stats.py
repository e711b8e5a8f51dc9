"""Which differences between two measurements are real.

Two engines are measured in turns, so block i of one stands beside block i of the other and what
slows the machine slows both: the ratio is taken per pair of blocks. Its interval is bootstrapped
over the pairs (scipy), and widened for their small number, without which it would hold in five of
six cases only (the expanded percentile interval: Hesterberg, *What Teachers Should Know About the
Bootstrap*, The American Statistician 69, 2015). The noise floor is what the same comparison says
of one engine against itself (an A/A run).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from helpers.bench.timing import REPEATS_FOR_95, Level

CONFIDENCE = 0.95
RESAMPLES = 9999


class MissingLibrary(RuntimeError):
    """What is asked for needs a library that is not installed."""


@dataclass(frozen=True)
class Difference:
    """How many times ``a`` is what ``b`` is, with an interval; ``None`` below six repeats."""

    a: str
    b: str
    ratio: float
    low: float | None
    high: float | None
    repeats: int
    floor: float | None = None  # how far from 1 the same engine was from itself

    @property
    def real(self) -> bool | None:
        """Whether the interval leaves out 1, and the ratio the noise floor; ``None``: too few repeats to say."""
        if self.low is None:
            return None
        beyond = self.floor is None or abs(math.log(self.ratio)) > math.log1p(self.floor)
        return beyond and not self.low <= 1 <= self.high

    def __str__(self) -> str:
        said = f"{self.a} / {self.b} = {self.ratio:.2f}"
        if self.low is None:
            return f"{said}: {self.repeats} repeats are too few to say, {REPEATS_FOR_95} are needed"
        return f"{said} ({self.low:.2f} to {self.high:.2f}): {'real' if self.real else 'within the noise'}"


def difference(
    a: Sequence[float | None],
    b: Sequence[float | None],
    *,
    names: tuple[str, str] = ("a", "b"),
    floor: float | None = None,
    comparisons: int = 1,
) -> Difference | None:
    """Compare values measured in turns, ``a[i]`` beside ``b[i]``; ``None`` if no pair is whole and positive.

    With several ``comparisons`` made at once each interval is wider (Bonferroni), so that all of
    them together hold at 95 %.
    """
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x and y and x > 0 and y > 0]
    if not pairs:
        return None
    logs = np.log([x / y for x, y in pairs])
    low = high = None
    if len(logs) >= REPEATS_FOR_95:
        low, high = (math.exp(bound) for bound in _interval(logs, 1 - (1 - CONFIDENCE) / comparisons))
    return Difference(*names, math.exp(float(np.mean(logs))), low, high, len(logs), floor)


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    try:
        from scipy.stats import bootstrap, norm, t  # the lab has it, the engines' environments need not
    except ImportError:
        raise MissingLibrary("an interval cannot be computed without the library scipy: install scipy") from None
    n = len(values)
    beyond = norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + confidence) / 2, n - 1))
    options = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
    found = bootstrap((values,), np.mean, confidence_level=1 - 2 * beyond, **options).confidence_interval
    return float(found.low), float(found.high)


def compare(
    found: Mapping[str, Sequence[Level]], figure: str = "output_tokens_per_s", *, floor: float | None = None
) -> dict[int | float, list[Difference]]:
    """Every pair of ``found`` (as :func:`measure.compare` returns it) under each load: ``{users or rate: [...]}``."""
    pairs = list(combinations(found, 2))
    result: dict[int | float, list[Difference]] = {}
    for a, b in pairs:
        for one, other in zip(found[a], found[b]):
            values = one.per_block(figure), other.per_block(figure)
            said = difference(*values, names=(a, b), floor=floor, comparisons=len(pairs))
            if said is not None:
                result.setdefault(one.users or one.rate_per_s, []).append(said)
    return result


def noise_floor(once: Sequence[Level], again: Sequence[Level], figure: str = "output_tokens_per_s") -> float | None:
    """How far from 1 an engine's ratio to itself may lie, from an A/A run: 0.03 means 3 %; ``None`` below six repeats."""
    said = [difference(a.per_block(figure), b.per_block(figure)) for a, b in zip(once, again)]
    bounds = [abs(math.log(bound)) for d in said if d and d.low is not None for bound in (d.low, d.high)]
    return math.expm1(max(bounds)) if bounds else None
