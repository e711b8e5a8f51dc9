"""Requests that arrive at random, at rising rates: before one server, or before whatever stands in front of several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from helpers.bench import checks, measure, timing
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log

Hits = Callable[[], checks.Hits]  # asks what the engine counts of its prefix cache


def run(
    endpoint: Endpoint, hits: Hits, how: Mapping, log: Log, end: float, vocabulary: Sequence[str], nvml: Nvml,
    beside: Callable[[], Mapping] = dict,
) -> bool:  # fmt: skip
    """A row for each rate until fewer than the least share keep the limits; whether there was time.

    What ``beside`` gives after a rate is in its row. ``how`` is as :func:`helpers.gpu.cases.arrivals` gives it; ``end`` is in
    seconds of the monotonic clock.
    """
    for number, rate in enumerate(how["rates_per_s"]):
        if time.monotonic() + 2 * how["seconds"] > end:
            log.row("stopped", reason=f"{rate} requests/s were left out: {rest(end)}")
            return False
        plan = measure.Plan(
            rates_per_s=(rate,), input_tokens=how["input_tokens"], output_tokens=how["output_tokens"],
            requests=max(round(rate * how["seconds"]), 10), repeats=1, warmups=1 if number == 0 else 0, settle=False,
            seed=number, timeout_s=max(end - time.monotonic(), 1), allow_few=True,
        )  # fmt: skip
        found, joules = level(endpoint, hits, plan, vocabulary, nvml)
        met = sum(timing.met(sample, how["limits"]) for sample in found.samples) / max(sum(map(len, found.blocks)), 1)
        log.row("arrivals", **found.to_dict(how["limits"]), met=met, joules=joules, **beside())
        if met < how["least"]:
            break
    return True


def level(
    endpoint: Endpoint, hits: Hits, plan: measure.Plan, vocabulary: Sequence[str], nvml: Nvml
) -> tuple[Level, float | None]:
    """One load, and the joules that the GPUs took during its repeats, warm-ups left out."""
    read: list[float | None] = []

    def asked(_) -> checks.Hits:
        read.append(nvml.joules())  # asked just before the repeats and just after
        return hits()

    (found,) = measure.measure(endpoint, plan, vocabulary=vocabulary, progress=False, hits=asked)
    return found, read[-1] - read[0] if None not in read else None


def rest(end: float) -> str:
    """How much of the lease was left, in words; ``end`` is in seconds of the monotonic clock."""
    left_s = end - time.monotonic()
    return f"{left_s:.0f} s were left" if left_s > 0 else "no time was left"
