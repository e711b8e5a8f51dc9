"""Definitions: what TTFT, ITL, TPOT and throughput are, computed from raw stamps.

All stamps come from one clock of one process, ``time.perf_counter_ns``. A figure that is
not defined (one output token has no inter-token latency) is ``None``, never 0.
The names follow vLLM's where vLLM and SGLang agree; ``ttft_s`` follows NVIDIA's AIPerf:
an event without a token (a role, an empty delta) does not end it, and a token of any kind does:
text, reasoning, refusal or tool call. ``time_to_first_answer_s`` waits for the text, as AIPerf's
*time to first output token* does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_REPEATS = 3
MIN_WARMUPS = 1
REPEATS_FOR_95 = 6  # 1 - 2 * 0.5**6 = 96.9 %: the first n whose range covers the median at 95 %
MOST_FAILURES = 10  # different errors that the JSON of a level quotes
EVENT_IS_TOKEN = 0.05  # so far from 1 may tokens per event lie, for a gap between events to be one between tokens
TIMES = ("ttft_s", "time_to_first_answer_s", "itl_s", "token_itl_s", "tpot_s", "e2e_s", "queue_s", "send_s")  # of the JSON
BELOW_ALL = 0.01  # a percentile is given where all requests lie below it with less than this probability


class TooFewRepeats(ValueError):
    """A figure was asked for with fewer repeats or warm-ups than give it a spread."""


@dataclass(frozen=True)
class Asked:
    """What one request asked for, where requests differ (see :mod:`helpers.bench.talks`)."""

    input_tokens: int | None  # None: not known before
    output_tokens: int
    parts: tuple[tuple[str, int], ...] = ()  # of the prompt: name and size of each
    words: bool = True  # sizes are in words of one token; else in letters
    talk: int = 0
    turn: int = 0


@dataclass(frozen=True)
class Sample:
    """One request as the client saw it: raw stamps, counts, and what went wrong.

    ``event_ns`` holds one stamp per piece: what an event carried of text, reasoning, a refusal or a tool call. Two events
    that arrived in one read share a stamp, and so do two kinds in one event. Where the system stamps arrivals, these are
    its stamps, and ``lag_ns`` is how much later the client came to read. ``error`` is ``None`` or ``"kind: detail"``.
    What there is of each piece is a tuple, or the same in fewer bytes (:mod:`helpers.bench.packed`).
    """

    sent_ns: int
    event_ns: Sequence[int] = ()
    scheduled_ns: int | None = None  # when it was due, in an open loop
    lag_ns: Sequence[int] | None = None  # how late the client read each event; None: not known
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    token_source: str | None = None  # "server_usage" or "events"
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None  # of the output tokens, where the server counts them apart
    finish_reason: str | None = None
    pieces: Sequence[str] = ()  # what each event carried
    kinds: tuple[str, ...] = ()  # of each piece: "text", "reasoning", "refusal" or "tool call"; empty: all are text
    event_tokens: Sequence[int] = ()  # of each piece, where the server counts along in every event
    error: str | None = None
    written_ns: int | None = None  # when the whole request was handed to the system; None: not known
    asked: Asked | None = None  # None: what all requests of the load asked for

    @property
    def text(self) -> str:
        """The whole answer, without what the model thought before it."""
        return self._all("text")

    @property
    def reasoning(self) -> str:
        """What a reasoning model thought, where the server sends it apart from the answer."""
        return self._all("reasoning")

    @property
    def refusal(self) -> str:
        """Why the model does not answer, where the server sends it apart from the answer."""
        return self._all("refusal")

    def _all(self, kind: str) -> str:
        return "".join(piece for piece, of in zip(self.pieces, self.piece_kinds) if of == kind)

    @property
    def piece_kinds(self) -> tuple[str, ...]:
        """The kind of each piece."""
        return self.kinds or ("text",) * len(self.event_ns)

    @property
    def queue_s(self) -> float | None:
        """Due to sent: how long the request waited in the client, seconds; ``None`` in a closed loop."""
        return (self.sent_ns - self.scheduled_ns) / 1e9 if self.scheduled_ns is not None else None

    @property
    def send_s(self) -> float | None:
        """How long it took to send the request, seconds: a part of the TTFT that is not the server's."""
        return None if self.written_ns is None else (self.written_ns - self.sent_ns) / 1e9

    @property
    def ttft_s(self) -> float | None:
        """Time to first token of any kind: request sent to first event that carries one, seconds."""
        return (self.event_ns[0] - self.sent_ns) / 1e9 if self.event_ns else None

    @property
    def time_to_first_answer_s(self) -> float | None:
        """Request sent to first event with text, seconds; ``None`` for an answer without text, which only thinks or calls."""
        if not self.kinds:
            return self.ttft_s
        first = next((ns for ns, kind in zip(self.event_ns, self.piece_kinds) if kind == "text"), None)
        return None if first is None else (first - self.sent_ns) / 1e9

    @property
    def e2e_s(self) -> float | None:
        """Request sent to last event with a token, seconds; the closing event does not count."""
        return (self.event_ns[-1] - self.sent_ns) / 1e9 if self.event_ns else None

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies: the gaps between events, seconds. Where an event is not a token: :attr:`token_itl_s`."""
        return tuple((b - a) / 1e9 for a, b in zip(self.event_ns, self.event_ns[1:]))

    @property
    def token_itl_s(self) -> tuple[float, ...]:
        """Inter-token latencies by the server's own count: each gap is spread over the tokens that ended it, seconds.

        How many those were, the server says in each event, or the mean of the whole answer is taken (then the mean is
        right and the spread is of events); the tokens of the first event have no gap of their own. Empty without a count.
        """
        counts = self.event_tokens
        if not counts and self.token_source == "server_usage" and self.event_ns and self.output_tokens:
            return tuple(gap * len(self.event_ns) / self.output_tokens for gap in self.itl_s)
        found, waited_s = [], 0.0
        for gap_s, tokens in zip(self.itl_s, counts[1:]):
            waited_s += gap_s  # an event that is no whole token: its gap belongs to the token that it begins
            if tokens:
                found += [waited_s / tokens] * tokens
                waited_s = 0.0
        return tuple(found)

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first, of any kind: (last - first) / (tokens - 1), seconds.

        ``None`` for one token, and where all came in one moment: a server that is kept busy gathers them, and then
        nothing is known of the time between them.
        """
        if not self.event_ns or not self.output_tokens or self.output_tokens < 2 or self.event_ns[0] == self.event_ns[-1]:
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


def requests_for(percent: float) -> int:
    """The fewest requests that support a percentile above the median: 45 for the 90th, 460 for the 99th.

    So many that all but one lie below it with a probability under ``BELOW_ALL``.
    """
    return math.ceil(math.log(BELOW_ALL) / math.log(percent / 100)) + 1


def percentile(values: Sequence[float], percent: float, requests: int | None = None, *, in_place: bool = False) -> float | None:
    """The percentile of ``values``, or ``None`` where too few requests stand behind them.

    ``requests`` is given where a request has several values: its gaps are not independent. ``in_place`` sorts an array
    that nobody else reads, and takes no second one.
    """
    few = percent > 50 and (len(values) if requests is None else requests) < requests_for(percent)
    return float(np.percentile(values, percent, overwrite_input=in_place)) if len(values) and not few else None


@dataclass(frozen=True)
class Level:
    """Everything measured under one load: one block of samples per repeat.

    The load is so many ``users``, or ``rate_per_s`` requests that arrive per second. What is
    ``refused`` has no figures; a ``label`` says what to know before one is trusted.
    """

    users: int | None
    blocks: tuple[tuple[Sample, ...], ...]
    label: str | None = None
    rate_per_s: float | None = None
    refused: str | None = None
    warmups: int | None = None  # blocks that were sent before, until the rate was steady
    unproven: tuple[str, ...] = ()  # what the server did not report and nobody could check
    machine: Mapping | None = None  # the client's, during the repeats (see surroundings)
    prefix_cache: Mapping[str, int | None] | None = None  # tokens expected and reported, where prompts share their beginnings
    server_metrics: Mapping | None = None  # what the server said of itself meanwhile (see server_metrics)
    energy: Mapping | None = None  # what each device of this machine took for a token (see energy)

    @property
    def samples(self) -> list[Sample]:
        """The requests that succeeded, all repeats together."""
        return [s for block in self.blocks for s in block if s.error is None]

    @property
    def error_kinds(self) -> Counter[str]:
        """How many requests failed, by kind (the part of ``error`` before the colon)."""
        return Counter(error.partition(":")[0] for error in self.failures.elements())

    @property
    def failures(self) -> Counter[str]:
        """How many requests failed, by the whole error."""
        return Counter(s.error for block in self.blocks for s in block if s.error)

    @property
    def answers_at_once(self) -> int:
        """The most answers that were under way at once, between their first and their last token: did the server batch?"""
        return max((answers_at_once(block) for block in self.blocks), default=0)

    @property
    def tokens_per_event(self) -> float | None:
        """Output tokens by the server's count over the events that carried them; ``None`` where it did not count."""
        counted = [s for s in self.samples if s.token_source == "server_usage"]
        events = sum(len(s.event_ns) for s in counted)
        return sum(s.output_tokens for s in counted) / events if events else None

    @property
    def itl_basis(self) -> str:
        """What a gap of ``itl_s`` lies between: tokens, events of several tokens, or events that nobody has counted."""
        each = self.tokens_per_event
        if each is None:
            return "events; the server does not count tokens"
        if abs(each - 1) <= EVENT_IS_TOKEN:
            return "tokens"
        return f"events of {each:.2f} tokens"

    @property
    def in_one_moment(self) -> int:
        """How many answers of several tokens came in one moment: nothing is known of the time between their tokens."""
        return sum(s.error is None and (s.output_tokens or 0) > 1 and s.tpot_s is None for s in self.samples)

    @property
    def events_by_kind(self) -> dict[str, int]:
        """How many pieces were text, reasoning, refusals and tool calls."""
        counts = Counter(kind for s in self.samples for kind in s.kinds)
        if text := sum(len(s.event_ns) for s in self.samples if not s.kinds):
            counts["text"] += text
        return dict(counts)

    @property
    def reasoning_tokens(self) -> int | None:
        """Of the output tokens, by the server's own count; ``None`` where thoughts were seen that it has not counted."""
        uncounted = any(s.reasoning_tokens is None and "reasoning" in s.kinds for s in self.samples)
        return None if uncounted else sum(s.reasoning_tokens or 0 for s in self.samples)

    @property
    def events_per_s(self) -> float | None:
        """The most events with text that the client took in per second, of all blocks."""
        return max(filter(None, (events_rate(block) for block in self.blocks)), default=None)

    def per_block(self, name: str) -> list[float | None]:
        """One value per repeat: the rate for ``output_tokens_per_s``, else the median over its requests or gaps."""
        if self.refused:
            return [None] * len(self.blocks)
        if name == "output_tokens_per_s":
            return [tokens_rate(block) for block in self.blocks]
        values = (_pooled([block], name) for block in self.blocks)  # one block's at a time
        return [float(np.median(of_block, overwrite_input=True)) if len(of_block) else None for of_block in values]

    @property
    def output_tokens_per_s(self) -> Figure | None:
        """Output tokens of all users per second, first send to last token of each block."""
        return figure(self.per_block("output_tokens_per_s"))

    def goodput_requests_per_s(self, slo: Mapping[str, float]) -> Figure | None:
        """Requests per second that met every limit of ``slo``, like ``{"ttft_s": 0.2, "tpot_s": 0.05}``.

        As in DistServe (Zhong et al., 2024) and vLLM: an answer of one token has no TPOT and meets its limit.
        """
        return None if self.refused else figure(good_rate(block, slo) for block in self.blocks)

    def latency(self, name: str) -> dict | None:
        """A time of :class:`Sample` by its name, as ``ttft_s``: spread over repeats, percentiles over requests.

        Returns a dict of ``median``, ``low``, ``high``, ``interval`` (over the repeats'
        medians) and ``p50``, ``p90``, ``p99``, ``n`` (over all requests; for ``itl_s`` and
        ``token_itl_s`` over all gaps).
        """
        spread = figure(self.per_block(name))
        if spread is None:
            return None
        pooled = _pooled(self.blocks, name)
        percentiles = {f"p{p}": percentile(pooled, p, len(self.samples), in_place=True) for p in (50, 90, 99)}
        return {**vars(spread), **percentiles, "n": len(pooled)}

    def _times(self) -> dict[str, dict | None]:
        """Every time of the JSON; where an event is a token, its ITL is not computed twice."""
        found = {name: self.latency(name) for name in TIMES if name != "token_itl_s"}
        token = found["itl_s"] if self.itl_basis == "tokens" else self.latency("token_itl_s")
        return {name: token if name == "token_itl_s" else found[name] for name in TIMES}

    def client_lag_s(self) -> dict | None:
        """How late the client read the events, seconds; the stamps are corrected for it. ``None``: not known."""
        lags = np.fromiter((lag / 1e9 for s in self.samples for lag in s.lag_ns or ()), float)
        if not len(lags):
            return None
        median = float(np.median(lags, overwrite_input=True))
        return {"p50": median, "p99": percentile(lags, 99, in_place=True), "max": float(lags.max())}

    def to_dict(self, slo: Mapping[str, float] | None = None) -> dict:
        """The level as the JSON of ``helpers.bench`` writes it."""
        rate, good = self.output_tokens_per_s, self.goodput_requests_per_s(slo) if slo else None
        tokens = sorted({s.output_tokens for s in self.samples if s.output_tokens is not None})
        prompts = sorted({s.prompt_tokens for s in self.samples if s.prompt_tokens is not None})
        events = sum(len(s.event_ns) for s in self.samples)
        total = sum(s.output_tokens or 0 for s in self.samples)
        return {
            "users": self.users,
            "rate_per_s": self.rate_per_s,
            "requests": len(self.blocks[0]) if self.blocks else 0,
            "repeats": len(self.blocks),
            "requests_sent": sum(map(len, self.blocks)),  # of all repeats, which a search makes of different sizes
            "warmups": self.warmups,
            "errors": self.error_kinds.total(),
            "error_kinds": dict(self.error_kinds),
            "failures": dict(self.failures.most_common(MOST_FAILURES)),
            "prompt_tokens": prompts,
            "output_tokens": tokens,
            "cached_tokens": max((s.cached_tokens or 0 for s in self.samples), default=0),
            "tokens_per_event": round(total / events, 3) if events else None,
            "events_per_s": self.events_per_s,
            "answers_at_once": self.answers_at_once,
            "client_lag_s": self.client_lag_s(),
            "output_tokens_per_s": vars(rate) if rate else None,
            "per_repeat": {name: self.per_block(name) for name in ("output_tokens_per_s", "ttft_s", "tpot_s")},
            **({"slo": dict(slo), "goodput_requests_per_s": vars(good) if good else None} if slo else {}),
            **self._times(),
            "itl_basis": self.itl_basis,
            "events_by_kind": self.events_by_kind,
            "reasoning_tokens": self.reasoning_tokens,
            "client_machine": self.machine and dict(self.machine),
            "prefix_cache": self.prefix_cache and dict(self.prefix_cache),
            "server_metrics": self.server_metrics and dict(self.server_metrics),
            "energy": self.energy and dict(self.energy),
            "label": self.refused or self.label,
            "unproven": list(self.unproven),
        }


def _pooled(blocks: Iterable[Sequence[Sample]], name: str) -> np.ndarray:
    """A time of all requests that succeeded: eight bytes each, as there may be ten million gaps."""
    return np.fromiter((v for block in blocks for s in block if s.error is None for v in _values(s, name)), float)


def _values(sample: Sample, name: str) -> tuple[float, ...]:
    value = getattr(sample, name)
    if isinstance(value, tuple):
        return value
    return () if value is None else (value,)


def tokens_rate(block: Sequence[Sample]) -> float | None:
    """Output tokens per second of one block, first send to last token; ``None`` if it cannot be said."""
    done, seconds = span_s(block)
    counted = all(s.output_tokens is not None for s in done)
    return sum(s.output_tokens for s in done) / seconds if seconds and counted else None


def events_rate(block: Sequence[Sample]) -> float | None:
    """Events with text per second of one block."""
    done, seconds = span_s(block)
    return sum(len(s.event_ns) for s in done) / seconds if seconds else None


def answers_at_once(block: Sequence[Sample]) -> int:
    """The most answers of one block between their first and their last token at the same time."""
    spans = [(s.event_ns[0], s.event_ns[-1]) for s in block if s.event_ns]
    if not spans:
        return 0
    begun, ended = (np.sort(times) for times in np.array(spans).T)
    # at each beginning: those that have begun less those that had ended
    return int((np.searchsorted(begun, begun, side="right") - np.searchsorted(ended, begun)).max())


def good_rate(block: Sequence[Sample], slo: Mapping[str, float]) -> float | None:
    """Requests per second of one block that met every limit of ``slo``."""
    done, seconds = span_s(block)
    return sum(met(s, slo) for s in done) / seconds if seconds else None


def met(sample: Sample, slo: Mapping[str, float]) -> bool:
    """Whether an answer kept every limit of ``slo``; what is not defined keeps its limit, but for an answer without text."""
    if "time_to_first_answer_s" in slo and sample.time_to_first_answer_s is None:
        return False
    return all((getattr(sample, name) or 0) <= limit for name, limit in slo.items())


def span_s(block: Sequence[Sample]) -> tuple[list[Sample], float | None]:
    """The requests of one block that succeeded, and the seconds from the first send to the last token."""
    done = [s for s in block if s.error is None and s.event_ns]
    span_ns = max(s.event_ns[-1] for s in done) - min(s.sent_ns for s in done) if done else 0
    return done, span_ns / 1e9 or None
