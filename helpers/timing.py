"""Definitions: what TTFT, ITL, TPOT and throughput are, computed from raw stamps.

All stamps come from one clock of one process, ``time.perf_counter_ns``. A figure that is
not defined (one output token has no inter-token latency) is ``None``, never 0.
The names follow vLLM's where vLLM and SGLang agree; ``ttft_s`` follows NVIDIA's AIPerf:
an event without a token (a role, an empty delta) does not end it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_REPEATS = 3
MIN_WARMUPS = 1
REPEATS_FOR_95 = 6  # 1 - 2 * 0.5**6 = 96.9 %: the first n whose range covers the median at 95 %
REQUESTS_FOR_P99 = 460  # 0.99**459 < 1 %: fewer requests may all lie below the 99th percentile


class TooFewRepeats(ValueError):
    """A figure was asked for with fewer repeats or warm-ups than give it a spread."""


@dataclass(frozen=True)
class Sample:
    """One request as the client saw it: raw stamps, counts, and what went wrong.

    ``event_ns`` holds one stamp per event that carried text, so two events that arrived in
    one read share a stamp. ``error`` is ``None`` or ``"kind: detail"``.
    """

    sent_ns: int
    event_ns: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    token_source: str | None = None  # "server_usage" or "events"
    cached_tokens: int | None = None
    finish_reason: str | None = None
    text: str = ""
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token: request sent to first event with text, seconds."""
        return (self.event_ns[0] - self.sent_ns) / 1e9 if self.event_ns else None

    @property
    def e2e_s(self) -> float | None:
        """Request sent to last event with text, seconds; the closing event does not count."""
        return (self.event_ns[-1] - self.sent_ns) / 1e9 if self.event_ns else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies: the gaps between events with text, seconds."""
        return tuple((b - a) / 1e9 for a, b in zip(self.event_ns, self.event_ns[1:]))

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (last - first) / (tokens - 1), seconds."""
        if not self.event_ns or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.event_ns[-1] - self.event_ns[0]) / 1e9 / (self.output_tokens - 1)


@dataclass(frozen=True)
class Figure:
    """A median over repeats with its spread: ``interval`` says which kind."""

    median: float
    low: float
    high: float
    interval: str  # "min-max" below six repeats, "95%" from six


def figure(values: Iterable[float | None]) -> Figure | None:
    """The median of ``values`` and its spread; ``None`` if no value is defined.

    From six values on, the interval is the distribution-free one of the median: order
    statistics whose binomial coverage is at least 95 % (Conover, *Practical Nonparametric
    Statistics*, section 3.2).
    """
    data = sorted(v for v in values if v is not None)
    if not data:
        return None
    n, cut, interval = len(data), 0, "min-max"
    if n >= REPEATS_FOR_95:
        interval = "95%"
        while 2 * sum(math.comb(n, k) for k in range(cut + 2)) / 2**n <= 0.05:
            cut += 1
    return Figure(float(np.median(data)), float(data[cut]), float(data[n - 1 - cut]), interval)


def percentile(values: Sequence[float], percent: float, requests: int | None = None) -> float | None:
    """The percentile of ``values``, or ``None`` where too few requests stand behind them.

    ``requests`` is given where a request has several values: its gaps are not independent.
    """
    if not values or (percent >= 99 and (len(values) if requests is None else requests) < REQUESTS_FOR_P99):
        return None
    return float(np.percentile(values, percent))


@dataclass(frozen=True)
class Level:
    """Everything measured at one number of users: one block of samples per repeat."""

    users: int
    blocks: tuple[tuple[Sample, ...], ...]
    label: str | None = None  # why this figure is not to be trusted, if so

    @property
    def samples(self) -> list[Sample]:
        """The requests that succeeded, all repeats together."""
        return [s for block in self.blocks for s in block if s.error is None]

    @property
    def error_kinds(self) -> Counter[str]:
        """How many requests failed, by kind (the part of ``error`` before the colon)."""
        failed = (s for block in self.blocks for s in block if s.error)
        return Counter(s.error.partition(":")[0] for s in failed)

    @property
    def output_tokens_per_s(self) -> Figure | None:
        """Output tokens of all users per second, first send to last token of each block."""
        return figure(_block_rate(block) for block in self.blocks)

    def latency(self, name: str) -> dict | None:
        """``ttft_s``, ``itl_s``, ``tpot_s`` or ``e2e_s``: spread over repeats, percentiles over requests.

        Returns a dict of ``median``, ``low``, ``high``, ``interval`` (over the repeats'
        medians) and ``p50``, ``p90``, ``p99``, ``n`` (over all requests; for ``itl_s`` over
        all gaps).
        """
        per_block = [[v for s in block if s.error is None for v in _values(s, name)] for block in self.blocks]
        spread = figure(np.median(values) for values in per_block if values)
        if spread is None:
            return None
        pooled = [v for values in per_block for v in values]
        percentiles = {f"p{p}": percentile(pooled, p, len(self.samples)) for p in (50, 90, 99)}
        return {**vars(spread), **percentiles, "n": len(pooled)}

    def to_dict(self) -> dict:
        """The level as the JSON of ``helpers.bench`` writes it."""
        rate = self.output_tokens_per_s
        tokens = sorted({s.output_tokens for s in self.samples if s.output_tokens is not None})
        prompts = sorted({s.prompt_tokens for s in self.samples if s.prompt_tokens is not None})
        events = sum(len(s.event_ns) for s in self.samples)
        total = sum(s.output_tokens or 0 for s in self.samples)
        return {
            "users": self.users,
            "requests": len(self.blocks[0]) if self.blocks else 0,
            "repeats": len(self.blocks),
            "errors": self.error_kinds.total(),
            "error_kinds": dict(self.error_kinds),
            "prompt_tokens": prompts,
            "output_tokens": tokens,
            "cached_tokens": max((s.cached_tokens or 0 for s in self.samples), default=0),
            "tokens_per_event": round(total / events, 3) if events else None,
            "output_tokens_per_s": vars(rate) if rate else None,
            **{name: self.latency(name) for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s")},
            "label": self.label,
        }


def _values(sample: Sample, name: str) -> tuple[float, ...]:
    value = getattr(sample, name)
    if isinstance(value, tuple):
        return value
    return () if value is None else (value,)


def _block_rate(block: Sequence[Sample]) -> float | None:
    done = [s for s in block if s.error is None and s.event_ns]
    if not done or any(s.output_tokens is None for s in done):
        return None
    span_ns = max(s.event_ns[-1] for s in done) - min(s.sent_ns for s in done)
    return sum(s.output_tokens for s in done) / (span_ns / 1e9) if span_ns else None
