"""Lengths and pauses that differ from request to request: a seeded draw from a distribution.

``128`` is always the same; ``uniform:64:256``, ``normal:MEAN:SD``, ``lognormal:MEDIAN:SIGMA`` and ``exponential:MEAN``
are Python's own (the module ``random``). What is drawn below the least allowed value is that value.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KINDS: Mapping[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "uniform": (("LOW", "HIGH"), lambda draw, low, high: draw.uniform(low, high)),
    "normal": (("MEAN", "SD"), lambda draw, mean, sd: draw.gauss(mean, sd)),
    "lognormal": (("MEDIAN", "SIGMA"), lambda draw, median, sigma: draw.lognormvariate(math.log(median), sigma)),
    "exponential": (("MEAN",), lambda draw, mean: draw.expovariate(1 / mean)),
}
MEANS: Mapping[str, Callable[..., float]] = {
    "uniform": lambda low, high: (low + high) / 2,
    "normal": lambda mean, sd: mean,
    "lognormal": lambda median, sigma: median * math.exp(sigma**2 / 2),
    "exponential": lambda mean: mean,
}


@dataclass(frozen=True)
class Distribution:
    """One of :data:`KINDS` with its parameters, or ``fixed``; nothing below ``least`` is drawn."""

    kind: str
    parameters: tuple[float, ...]
    least: float = 1

    @property
    def mean(self) -> float:
        """What is drawn in the mean, before ``least`` is applied."""
        return self.parameters[0] if self.kind == "fixed" else MEANS[self.kind](*self.parameters)

    def draw(self, source: random.Random) -> float:
        """The next value."""
        value = self.parameters[0] if self.kind == "fixed" else KINDS[self.kind][1](source, *self.parameters)
        return max(value, self.least)

    def whole(self, source: random.Random) -> int:
        """The next value as a whole number."""
        return round(self.draw(source))

    def __str__(self) -> str:
        numbers = ":".join(f"{value:g}" for value in self.parameters)
        return numbers if self.kind == "fixed" else f"{self.kind}:{numbers}"


def parse(name: str, text: str, *, least: float = 1) -> Distribution:
    """The distribution that ``text`` says, as ``128`` or ``uniform:64:256``; ``ValueError`` with ``name`` in one line."""
    kind, *numbers = text.split(":")
    if not numbers:
        kind, numbers = "fixed", [kind]
    shapes = {known: len(asked) for known, (asked, _) in KINDS.items()} | {"fixed": 1}
    try:
        values = tuple(map(float, numbers))
    except ValueError:
        values = ()
    if shapes.get(kind) != len(values) or not all(map(math.isfinite, values)):
        known = ", ".join(":".join((one, *asked)) for one, (asked, _) in KINDS.items())
        raise ValueError(f"{name} {text!r}: give a number, or one of {known}")
    if problem := _impossible(kind, values, least):
        raise ValueError(f"{name} {text!r}: {problem}")
    return Distribution(kind, values, least)


def _impossible(kind: str, values: tuple[float, ...], least: float) -> str | None:
    """Why these parameters draw nothing sensible, or ``None``."""
    first, *others = values
    if kind in ("lognormal", "exponential") and first <= 0:
        return f"{first:g} must be above 0"
    if first < least:
        return f"{first:g} must be at least {least:g}"
    if kind == "uniform" and others[0] < first:
        return f"the highest, {others[0]:g}, is below the lowest, {first:g}"
    if kind in ("normal", "lognormal") and others[0] < 0:
        return f"a spread of {others[0]:g}: must be at least 0"
    return None
