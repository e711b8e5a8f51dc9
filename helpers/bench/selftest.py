"""The instrument measures itself: its error against a server that knows what it did, and its ceiling.

Both are of this machine, now, at the tested concurrency, with the server on the same cores; so
they are upper bounds. A figure near the ceiling is the client's limit, not the server's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from helpers.bench import client, live, timing, truth_server, workload
from helpers.bench.client import Endpoint
from helpers.bench.live import View
from helpers.bench.timing import Level, Sample
from helpers.formatting import users_told

FIRST_S, GAP_S, TOKENS = 0.05, 0.01, 64
CEILING_RATES = (10_000, 20_000, 40_000, 60_000, 80_000)  # events/s asked of the server, rising
CEILING_S = 1.0
MOST_ERROR, MOST_LAG_S = 0.005, 0.01  # beyond either of these the client does not keep up
NEAR = 0.5  # of the ceiling


@dataclass(frozen=True)
class SelfTest:
    """The client's error at ``users`` streams of one token every 10 ms, and the most events per second it kept up with."""

    users: int
    ttft_error_s: float  # median TTFT less the server's
    rate_error: float  # output tokens/s over the server's, less 1
    itl_p99_error: float  # the same for the 99th percentile of the gaps
    ceiling_events_per_s: float
    server_was_the_limit: bool  # the client might have kept up with more

    def __str__(self) -> str:
        least = "at least " if self.server_was_the_limit else ""
        return (
            f"instrument at {users_told(self.users)}: TTFT {self.ttft_error_s * 1e3:+.2f} ms, "
            f"tokens/s {self.rate_error * 100:+.2f} %, "
            f"ITL p99 {self.itl_p99_error * 100:+.1f} %; ceiling {least}{self.ceiling_events_per_s:,.0f} events/s"
        )

    def note(self, level: Level) -> Level:
        """``level``, with a label if it came near the ceiling."""
        seen = level.events_per_s
        if seen is None or seen < NEAR * self.ceiling_events_per_s:
            return level
        said = f"near the client's limit: {seen:,.0f} of {self.ceiling_events_per_s:,.0f} events/s"
        return replace(level, label="; ".join(filter(None, (level.label, said))))


@dataclass(frozen=True)
class Seen:
    """One load as the client saw it and as the server did it."""

    samples: Sequence[Sample]
    served: Sequence[dict]

    @property
    def ttft_error_s(self) -> float:
        did = [(r["written_ns"][0] - r["received_ns"]) / 1e9 for r in self.served]
        return float(np.median([s.ttft_s for s in self.samples]) - np.median(did))

    @property
    def rate_error(self) -> float:
        return timing.tokens_rate(self.samples) / self.served_tokens_per_s - 1

    @property
    def served_tokens_per_s(self) -> float:
        span_ns = max(r["written_ns"][-1] for r in self.served) - min(r["received_ns"] for r in self.served)
        return sum(r["tokens"] for r in self.served) / span_ns * 1e9

    @property
    def itl_p99_error(self) -> float:
        gaps = np.concatenate([np.diff(r["written_ns"]) for r in self.served]) / 1e9
        return float(np.percentile([gap for s in self.samples for gap in s.itl_s], 99) / np.percentile(gaps, 99) - 1)

    @property
    def lag_s(self) -> float:
        """The median lag of the client's reads; 0 where it is not known."""
        return float(np.median([lag for s in self.samples for lag in s.lag_ns or (0,)])) / 1e9


def load(
    users: int, requests: int, tokens: int, *, first_s: float = FIRST_S, gap_s: float = GAP_S, progress: bool | View = False
) -> Seen:
    """Send ``requests`` from ``users`` users to a truth server of its own, shown as in a measurement; returns both sides."""
    with truth_server.process(first_s=first_s, gap_s=gap_s) as server:
        endpoint = Endpoint(server.base_url, "truth")
        client.run(client.closed_loop(endpoint, workload.prompts(users, 64, seed=0), users=users, output_tokens=4))  # warm-up
        server.reset()
        prompts = workload.prompts(requests, 64, seed=1)
        sending = partial(client.closed_loop, endpoint, prompts, users=users, output_tokens=tokens)
        samples = live.view(progress).run(f"self-test, {users_told(users)}", requests, sending)
        return Seen(samples, server.seen())


def run(users: int, *, progress: bool | View = False) -> SelfTest:
    """Measure the client at ``users`` streams; 5 to 15 seconds. Raises ``ValueError`` for less than one user.

    With ``progress`` it shows what a measurement shows: what that costs is in its error.
    """
    if users < 1:
        raise ValueError(f"users={users}: a load needs at least one user")
    seen = load(users, 2 * users if users > 1 else 3, TOKENS, progress=progress)
    kept_up, server_was_the_limit = users / GAP_S, True
    for asked, there in _rising(users, progress):
        did = there.served_tokens_per_s
        if abs(there.rate_error) > MOST_ERROR or there.lag_s > MOST_LAG_S:
            server_was_the_limit = False
            break
        kept_up = max(kept_up, did)
        if did < 0.8 * asked:
            break
    return SelfTest(users, seen.ttft_error_s, seen.rate_error, seen.itl_p99_error, kept_up, server_was_the_limit)


def _rising(users: int, progress: bool | View) -> Iterator[tuple[float, Seen]]:
    for asked in CEILING_RATES:
        tokens = max(int(CEILING_S * asked / users), 16)
        yield asked, load(users, users, tokens, first_s=0.01, gap_s=users / asked, progress=progress)
