"""What a measurement shows of itself while it runs: a line that is updated on a terminal, a line now and then elsewhere.

The client's event loop puts what it has anyway into two queues. The thread that waits for its end takes it out, twice a
second, counts and writes: the loop itself counts, formats and prints nothing.
"""

from __future__ import annotations

import sys
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TextIO

from helpers.bench import client
from helpers.bench.connection import Reply
from helpers.bench.timing import Sample

EVERY_S = 0.5  # a look on a terminal
PLAIN_EVERY_S = 10.0  # a line where nobody may be looking: a log
FORMAT = "{desc} |{bar:16}| {n_fmt} of {total_fmt} [{elapsed}]{postfix}"  # tqdm cuts it at the terminal's width


class Block:
    """What is known of the requests of one block, while they are sent and answered."""

    def __init__(self, title: str, total: int):
        self.title, self.total = title, total
        self._sent: deque[Reply] = deque()
        self._ended: deque[Sample] = deque()
        self.under_way: list[Reply] = []
        self.done = self.failed = self.tokens = 0
        self.ttft_s: list[float] = []  # of those that are done, in order
        self.begun_ns: int | None = None

    def sent(self, reply: Reply) -> None:
        """Called by the event loop: ``reply`` fills from now on."""
        self._sent.append(reply)

    def ended(self, sample: Sample) -> None:
        """Called by the event loop: a request is over."""
        self._ended.append(sample)

    def count(self) -> None:
        """Take what has come since the last time; in the thread that shows it."""
        while self._sent:
            reply = self._sent.popleft()
            self.begun_ns = self.begun_ns or reply.sent_ns
            self.under_way.append(reply)
        self.under_way = [reply for reply in self.under_way if not reply.over]  # what is over is let go
        while self._ended:
            self._take(self._ended.popleft())

    def _take(self, sample: Sample) -> None:
        self.done += 1
        self.failed += sample.error is not None
        self.tokens += sample.output_tokens or 0
        if sample.error is None and sample.ttft_s is not None:
            insort(self.ttft_s, sample.ttft_s)

    def tokens_per_s(self) -> float | None:
        """So far: the tokens of what is done, and of what is under way the pieces that have come, about a token each."""
        seconds = (time.perf_counter_ns() - self.begun_ns) / 1e9 if self.begun_ns else 0
        return (self.tokens + sum(len(reply.parts) for reply in self.under_way)) / seconds if seconds > 0 else None

    def state(self) -> str:
        """Under way, median TTFT of those done, tokens/s and failures so far."""
        rate = self.tokens_per_s()
        said = [f"{len(self.under_way)} under way"]
        said += [f"TTFT {self.ttft_s[len(self.ttft_s) // 2]:.3f} s"] if self.ttft_s else []
        said += [f"{rate:,.0f} tokens/s"] if rate else []
        said += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(said)

    def __str__(self) -> str:
        return f"{self.title}: {self.done} of {self.total} done, {self.state()}"


class View:
    """Shows blocks on ``stream`` (standard error): on a terminal one line that is updated and goes away.

    Elsewhere a line every ``plain_every_s`` seconds at the most; ``None``, or not ``shown``: nothing.
    """

    def __init__(self, shown: bool = True, *, plain_every_s: float | None = None, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.terminal = shown and self.stream.isatty()
        self.plain_every_s = plain_every_s if shown and not self.terminal else None
        self.said_s = time.monotonic()
        self.bar = None

    def run(self, title: str, total: int, sending: Callable[..., Coroutine]) -> list[Sample]:
        """Run ``sending(on_send=..., on_sample=...)`` of the client to its end, and show it meanwhile."""
        if not self.terminal and self.plain_every_s is None:
            return client.run(sending())
        block, show = Block(title, total), self._update if self.terminal else self._say

        def look() -> None:
            block.count()
            with suppress(OSError):  # a closed pipe: what cannot be shown ends no measurement
                show(block)

        try:
            return client.run(sending(on_send=block.sent, on_sample=block.ended), meanwhile=look, every_s=EVERY_S)
        finally:
            self._clear()

    def _update(self, block: Block) -> None:
        if self.bar is None:
            from tqdm import tqdm

            how = {"file": self.stream, "leave": False, "dynamic_ncols": True, "bar_format": FORMAT}
            self.bar = tqdm(desc=block.title, total=block.total, **how)
        self.bar.n = block.done
        self.bar.set_postfix_str(block.state())

    def _say(self, block: Block) -> None:
        if time.monotonic() - self.said_s >= self.plain_every_s:
            self.said_s = time.monotonic()
            print(block, file=self.stream, flush=True)

    def _clear(self) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()
            self.bar = None


def view(progress: bool | View) -> View:
    """The view that is asked for: ``True`` is one on a terminal and nothing elsewhere, ``False`` is none."""
    return progress if isinstance(progress, View) else View(progress)
