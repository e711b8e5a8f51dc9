"""Hours of mixed load with faults: is every request accounted for, and do memory and descriptors stay level?

    python -m helpers.studies.soak [--minutes 120] [--seed 0] [--json FILE]

llama.cpp's server stands behind the proxy of :mod:`helpers.lessons.deployment.faults`. Each round is a mixed load of the
bench's client, and in the middle of it one thing goes wrong: nothing, HTTP 429, a stall, a cut of all connections, the
server killed by SIGKILL and started again. What the client says of its requests is held against what the proxy saw.
When a round has ended, memory and open descriptors of both sides are read; the client's side is this process, proxy included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

import psutil

from helpers import cli, machine, memory, records
from helpers.bench import client, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Sample
from helpers.lessons.deployment import faults
from helpers.lessons.deployment.faults import HEALTHY, Fault
from helpers.servers import serving
from helpers.weights import models

FAULTS = ("none", "429", "stall", "cut", "kill")  # in this order, round by round
KILLS_EVERY = 4  # of the cycles of rounds: the lives between are long enough for a leak to be seen
SLOTS, CONTEXT = 4, 512
REQUESTS, AT = 15, 4  # of a round; so many have come when the fault begins
SHORT_TIMEOUT_S, LONG_TIMEOUT_S, FAULT_S = 2, 120, 3
SETTLED_S = 30  # for the proxy to see the end of what the client has given up
ENGINE = "llama-cpp"
GROWTH, GROWTH_BYTES, GROWTH_FILES = 0.05, 16 * memory.MIB, 2  # what is level: less than this, from the first third to the last
SEEN = {  # the proxy's outcomes in the client's words
    "answered": "whole", "refused by status": "status", "no upstream": "status", "stalled": "stalled", "client left": "stalled",
    "reset": "broken", "server ended": "broken", "under way": "under way",
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What one side holds when nothing is under way."""

    rss_bytes: int
    descriptors: int


@dataclass(frozen=True)
class Round:
    """One load with one fault: how the requests ended, by the client and by the proxy, and what was held afterwards."""

    number: int
    fault: str
    sent: int
    client: dict[str, int]  # "whole", "status", "stalled", "broken", "refused"
    proxy: dict[str, int]  # the same, without those that were refused: they never came
    here: Side
    server: Side
    fresh: bool  # the server has been started since the last round
    unasked: int = 0  # connections that the proxy reset before a request came

    def __str__(self) -> str:
        ended = ", ".join(f"{number} {kind}" for kind, number in sorted(self.client.items()))
        sides = (f"{side.rss_bytes / memory.MIB:.0f} MiB, {side.descriptors} files" for side in (self.here, self.server))
        return f"round {self.number}, {self.fault}: {self.sent} sent, {ended}; here {', server '.join(sides)}"


def kind(sample: Sample) -> str:
    """How a request ended, as the client says it."""
    word = (sample.error or "whole").partition(":")[0]
    if word.startswith("HTTP"):
        return "status"
    return word if word in ("whole", "stalled", "refused") else "broken"


class Served:
    """llama.cpp's server at one port, which is killed and started again."""

    def __init__(self, model: models.Model | None):
        self.model, self.port, self.life = model, serving.free_port(), ExitStack()
        self.start()

    def start(self) -> None:
        """End what is left of the last life and begin the next."""
        self.life.close()
        self.server = self.life.enter_context(
            serving.serve(ENGINE, self.model, slots=SLOTS, context=CONTEXT, port=self.port)
        )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, to the engine itself."""
        for process in self.server.processes():
            process.kill()

    def holds(self) -> Side:
        """What its processes hold."""
        return _side(self.server.processes())


def _side(processes: Sequence[psutil.Process]) -> Side:
    return Side(sum(one.memory_info().rss for one in processes), sum(one.num_fds() for one in processes))


def begin(fault: str, remote: faults.Proxy, served: Served) -> None:
    """Let ``fault`` happen, and end it again where it would not end by itself."""
    if fault == "kill":
        served.kill()
    elif fault != "none":
        remote.set({"429": Fault("limited", per_window=1), "stall": Fault("stalled"), "cut": Fault("killed")}[fault])
        time.sleep(0.5 if fault == "cut" else FAULT_S)
        remote.set(HEALTHY)


async def mixed_load(endpoint: Endpoint, draw: random.Random, vocabulary: Sequence[str], timeout_s: float) -> list[Sample]:
    """Three loads at once: short requests of several users, long ones of one, chats that arrive at random."""

    def prompts(number: int, tokens: int) -> list[workload.Prompt]:
        return workload.prompts(number, tokens, seed=draw.randrange(2**31), vocabulary=vocabulary)

    third = REQUESTS // 3
    loads = [
        client.closed_loop(
            endpoint, prompts(third, draw.randint(8, 40)), users=draw.choice((2, 3, 5)), output_tokens=draw.randint(4, 16),
            timeout_s=timeout_s,
        ),
        client.closed_loop(endpoint, prompts(third, 120), users=1, output_tokens=draw.randint(8, 24), timeout_s=timeout_s),
        client.open_loop(
            replace(endpoint, route="chat"), prompts(REQUESTS - 2 * third, 30), rate_per_s=4, seed=draw.randrange(2**31),
            output_tokens=8, timeout_s=timeout_s,
        ),
    ]  # fmt: skip
    return [sample for samples in await asyncio.gather(*loads) for sample in samples]


def one_round(number: int, fault: str, remote: faults.Proxy, served: Served, draw: random.Random, vocabulary) -> Round:
    """Load, fault, settling, and the reading of both sides."""
    remote.received.clear()
    remote.unread = remote.unasked = 0
    ended = threading.Event()

    def break_it() -> None:
        while len(remote.received) < AT and not ended.is_set():
            time.sleep(0.01)
        begin(fault, remote, served)

    breaker = threading.Thread(target=break_it, name="soak")
    breaker.start()
    endpoint = replace(served.server.endpoint, base_url=remote.base_url)
    timeout_s = (SHORT_TIMEOUT_S if fault == "stall" else LONG_TIMEOUT_S) * machine.load_slowness()
    try:
        samples = client.run(mixed_load(endpoint, draw, vocabulary, timeout_s))
    finally:
        ended.set()
        breaker.join()
    until = time.monotonic() + SETTLED_S
    while any(got.outcome == "under way" for got in remote.received) and time.monotonic() < until:
        time.sleep(0.05)
    if fault == "kill":
        served.start()
    gc.collect()
    seen = Counter(SEEN[got.outcome] for got in remote.received) + Counter(broken=remote.unread)
    return Round(
        number, fault, REQUESTS, dict(Counter(map(kind, samples))), dict(seen), _side([psutil.Process()]), served.holds(),
        fresh=number == 0 or fault == "kill", unasked=remote.unasked,
    )  # fmt: skip


def soak(
    seconds: float, *, model: models.Model | None = None, seed: int = 0, on_round: Callable[[Round], None] = lambda one: None
) -> list[Round]:
    """Rounds for ``seconds``, each fault at least once; the one that has begun is ended."""
    until, draw, rounds = time.monotonic() + seconds, random.Random(seed), []
    vocabulary = models.vocabulary(model)
    with ExitStack() as stack:
        served = Served(model)
        stack.callback(lambda: served.life.close())
        remote = stack.enter_context(faults.proxy(served.server.base_url))
        for number in count():
            cycle, at = divmod(number, len(FAULTS))
            if cycle and time.monotonic() > until:
                return rounds
            fault = "none" if FAULTS[at] == "kill" and cycle % KILLS_EVERY else FAULTS[at]
            rounds.append(one_round(number, fault, remote, served, draw, vocabulary))
            on_round(rounds[-1])


def accounted(one: Round) -> bool:
    """Whether the proxy saw every request that the client did not see refused, with the same end.

    The client connects, and then sends: what it sends into a connection that was reset in between is broken for it, and nobody
    has seen it. So many requests may be missing at the proxy, and no more.
    """
    came, seen = Counter(one.client), Counter(one.proxy)
    del came["refused"]
    missing = came - seen
    return not seen - came and missing.keys() <= {"broken"} and missing.total() <= one.unasked


def problems(rounds: Sequence[Round]) -> list[str]:
    """What is not as it should be, a line each: requests that are not accounted for, a side that grows."""
    found = []
    for one in rounds:
        if sum(one.client.values()) != one.sent:
            found.append(f"round {one.number}: {one.sent} requests were sent, {sum(one.client.values())} have an end")
        if not accounted(one):
            said = f"the client says {one.client}, the proxy saw {one.proxy}"
            found.append(f"round {one.number}, {one.fault}: {said}, and reset {one.unasked} connections before a request came")
        if one.fault == "none" and set(one.client) != {"whole"}:
            found.append(f"round {one.number}: nothing was broken, and {one.client}")
    settled = [one for one in rounds if not one.fresh]
    for name, sides in {"here": [one.here for one in settled], "server": [one.server for one in settled]}.items():
        found += _growth(f"{name}: RSS, bytes", [side.rss_bytes for side in sides], GROWTH, GROWTH_BYTES)
        found += _growth(f"{name}: descriptors", [side.descriptors for side in sides], 0, GROWTH_FILES)
    return found


def _growth(name: str, values: Sequence[int], share: float, least: float) -> list[str]:
    """A line if the median of the last third is above that of the first one by more than ``share`` of it, and ``least``.

    Nothing is said of fewer than two values: the first rounds of a run.
    """
    if len(values) < 2:
        return []
    third = max(1, len(values) // 3)
    first, last = median(values[:third]), median(values[-third:])
    return [f"{name} grew from {first:.0f} to {last:.0f}"] if last - first > max(share * first, least) else []


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of lengths, users and arrivals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    options = parser.parse_args(argv)
    if not 0 < options.minutes < float("inf"):
        parser.exit(2, f"--minutes {options.minutes}: give a time above 0\n")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (something is not accounted for, or grows), 2, 130/143 (stopped)."""
    options, rounds = _arguments(argv), []

    def on_round(one: Round) -> None:
        rounds.append(one)
        if options.json:
            found = {"rounds": list(map(asdict, rounds)), "problems": problems(rounds), "provenance": records.provenance()}
            records.write_json(options.json, found, replace=True)
        print(one, flush=True)

    def program() -> int:
        soak(60 * options.minutes, seed=options.seed, on_round=on_round)
        wrong = problems(rounds)
        print("\n".join(wrong) or f"{sum(one.sent for one in rounds)} requests accounted for; memory and descriptors level")
        return 1 if wrong else 0

    return cli.finish(program, serving.ServerError, models.ModelError, stopped="the rounds that had ended are kept with --json")


if __name__ == "__main__":
    sys.exit(main())
