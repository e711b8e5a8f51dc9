"""One of several copies is killed under load: which requests fail, what asking again brings, and the dip in tokens/s.

Users in a closed loop ask through a router; then every process of the last copy gets SIGKILL, and none is started again: a
start takes longer than the run. A router can send a request on to another copy until the answer's head has come; what was under
way after that ends early. Then the client asks once more.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from helpers.bench import client, server_metrics, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt
from helpers.gpu.session import Log
from helpers.lessons.scaling import gateway
from helpers.servers.serving import Server

ANSWER_S = 30  # a request that has no end after so long has failed
EVERY_S = 0.5  # tokens are counted in steps of it
WAYS = ("failed in mid-answer", "failed before a token", "refused by the router")
COUNTS = {  # what the router counts
    "retries": ("smg_worker_retries_total", {}),
    "failed calls": ("smg_worker_cb_outcomes_total", {"outcome": "failure"}),
}


@dataclass(frozen=True)
class Tried:
    """A request that was sent, the second time if ``again``; ``request`` is the number of what was asked."""

    request: int
    again: bool
    sample: Sample
    seen_ns: int  # when the client had its end

    @property
    def ended_ns(self) -> int:
        """Its last token; of one that failed, when the client saw it."""
        return self.seen_ns if self.sample.error or not self.sample.event_ns else self.sample.event_ns[-1]


def run(servers: Sequence[Server], policy: str, how: Mapping, log: Log, end: float, vocabulary: Sequence[str]) -> bool:
    """Ask for ``seconds``, kill the last of ``servers`` after ``kill_s``; one row with every request. Whether there was time.

    ``how`` has ``users``, ``requests`` (that there are, at most), ``input_tokens`` and ``output_tokens`` as well.
    """
    left_s = end - time.monotonic()
    if left_s < 2 * how["seconds"]:
        log.row("stopped", reason=f"the killed copy was left out: {max(left_s, 0):.0f} s were left")
        return False
    prompts = workload.prompts(how["requests"], how["input_tokens"], seed="killed", vocabulary=vocabulary)
    with gateway.router(servers, policy) as router:
        client.run(client.closed_loop(router.endpoint, prompts[: how["users"]], users=how["users"], output_tokens=8))  # a warm-up
        before, victims = counts(router.page()), servers[-1].processes()
        begun_ns, killed_ns, tried = client.run(
            load(router.endpoint, prompts[how["users"] :], how, lambda: end_now(victims), end - time.monotonic())
        )
        after = counts(router.page())
    taken = len({one.request for one in tried})
    log.row(
        "killed", policy=policy, sizes=dict(how), copies=len(servers), killed_s=_s(killed_ns, begun_ns), processes=len(victims),
        start_s=servers[-1].startup_s, all_taken=taken == len(prompts) - how["users"], what=what(tried),
        router={name: after[name] - before[name] for name in after}, requests=columns(tried, begun_ns),
        every_s=EVERY_S, output_tokens=in_steps(tried, begun_ns, EVERY_S),
    )  # fmt: skip
    return True


def end_now(victims: Sequence[psutil.Process]) -> None:
    """SIGKILL for each of them: none can say goodbye."""
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()


async def load(
    endpoint: Endpoint, prompts: Sequence[Prompt], how: Mapping, kill: Callable[[], None], left_s: float
) -> tuple[int, int, list[Tried]]:
    """When it began, when ``kill`` was called, and all that was tried; what is under way at the end is waited for."""
    tried: list[Tried] = []
    begun_ns, deadline = time.perf_counter_ns(), time.monotonic() + left_s
    over_ns = begun_ns + int(how["seconds"] * 1e9)
    waiting = iter(enumerate(prompts))

    async def ask(number: int, prompt: Prompt, again: bool) -> Sample:
        timeout_s = min(max(deadline - time.monotonic(), 1), ANSWER_S)
        sample = await client.request(endpoint, prompt, how["output_tokens"], timeout_s=timeout_s)
        tried.append(Tried(number, again, sample, time.perf_counter_ns()))
        return sample

    async def user(waiting: Iterator[tuple[int, Prompt]]) -> None:
        while time.perf_counter_ns() < over_ns and (asked := next(waiting, None)):
            if (await ask(*asked, again=False)).error:
                await ask(*asked, again=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(how["users"]):
            group.create_task(user(waiting))
        await asyncio.sleep(how["kill_s"])
        killed_ns = time.perf_counter_ns()
        kill()
    return begun_ns, killed_ns, tried


def counts(page: str) -> dict[str, int]:
    """The router's counters of :data:`COUNTS`, all copies together."""
    return {
        name: round(sum(value for labels, value in server_metrics.rows(page, metric) if wanted.items() <= labels.items()))
        for name, (metric, wanted) in COUNTS.items()
    }


def columns(tried: Sequence[Tried], begun_ns: int) -> dict[str, list]:
    """Every request that was sent, in the order they were: seconds since the beginning, tokens, and how it ended.

    ``output_tokens`` are the server's count; of an answer that failed, the events that came.
    """
    rows = sorted(tried, key=lambda one: one.sample.sent_ns)
    return {
        "request": [one.request for one in rows],
        "asked_again": [one.again for one in rows],
        "began_s": [_s(one.sample.sent_ns, begun_ns) for one in rows],
        "first_token_s": [_s(one.sample.event_ns[0], begun_ns) if one.sample.event_ns else None for one in rows],
        "ended_s": [_s(one.ended_ns, begun_ns) for one in rows],
        "ok": [one.sample.error is None for one in rows],
        "output_tokens": [one.sample.output_tokens or 0 for one in rows],
        "error": [one.sample.error for one in rows],
    }


def _s(stamp_ns: int, begun_ns: int) -> float:
    return round((stamp_ns - begun_ns) / 1e9, 6)


def in_steps(tried: Sequence[Tried], begun_ns: int, every_s: float) -> list[float]:
    """Output tokens of each step of ``every_s`` seconds, by the events' own stamps; the tokens of an answer are spread evenly
    over its events. Those of answers that failed are among them: they were made."""
    found: Counter[int] = Counter()
    for one in tried:
        events = one.sample.event_ns
        for stamp_ns in events:
            found[int((stamp_ns - begun_ns) / 1e9 // every_s)] += (one.sample.output_tokens or 0) / len(events)
    return [round(found[step], 2) for step in range(max(found, default=-1) + 1)]


def what(tried: Sequence[Tried]) -> dict[str, int]:
    """How many were asked; of those, how many failed in which way; what asking again brought.

    In mid-answer: with tokens on their way. Before a token: the answer had begun without one, so the router could not try
    another copy either. Refused: the router gave up, with an HTTP error. ``lost`` are those that have no answer in the end.
    """
    first, again = ({one.request: one.sample for one in tried if one.again == second} for second in (False, True))
    failed = {number: sample for number, sample in first.items() if sample.error}
    ways = Counter(way(sample) for sample in failed.values())
    return {
        "asked": len(first),
        **{name: ways[name] for name in WAYS},
        "asked again": len(again),
        "answered then": sum(sample.error is None for sample in again.values()),
        "lost": sum(number not in again or again[number].error is not None for number in failed),
    }


def way(sample: Sample) -> str:
    """In which of :data:`WAYS` a request failed."""
    if sample.event_ns:
        return WAYS[0]
    return WAYS[2] if sample.error.startswith("HTTP ") else WAYS[1]
