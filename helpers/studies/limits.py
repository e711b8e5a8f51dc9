"""How far the load client reaches on this machine: memory, events a second, streams and users, each held against its limit.

    python -m helpers.studies.limits [memory] [events] [streams] [users] [--json FILE]

Each part is a process of its own and has a truth server in another, on the same cores. Memory, lost events and refused users
are counted, on any machine; what is said of times is an upper bound, and of a busy machine nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers import cli, machine, records
from helpers.bench import client, connection, selftest, truth_server, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level, Sample

MOST_BYTES = 500_000_000
EVENTS_PER_S = 50_000
MOST_TTFT_ERROR_S = 0.001
USERS = (2_000, 10_000)
CHILD = "import sys; from helpers.studies import limits; limits.child(sys.argv[1])"
EVENTS_PER_WRITE = 10  # of the memory's load: the server is ten times as quick, and the client keeps a stamp for each event


class PartError(RuntimeError):
    """A part that ended without having found anything."""


@dataclass(frozen=True)
class Found:
    """What a part found, and whether its limit was kept."""

    part: str
    kept: bool
    said: str
    figures: dict

    def __str__(self) -> str:
        return f"{self.part}: {self.said}: {'kept' if self.kept else 'NOT kept'}"


def memory(requests: int = 10_000, tokens: int = 1_000, users: int = 100) -> Found:
    """The most memory of a process that sends ``requests``, keeps every sample and makes the figures of a level of them."""
    with truth_server.process(first_s=0.01, events_per_write=EVENTS_PER_WRITE) as server:
        endpoint, prompts = Endpoint(server.base_url, "truth"), workload.prompts(requests, 16, seed=1)
        samples = client.run(client.closed_loop(endpoint, prompts, users=users, output_tokens=tokens))
    errors = Level(users, (tuple(samples),)).to_dict()["errors"]
    events, peak_bytes = sum(len(sample.event_ns) for sample in samples), _peak_bytes()
    whole = errors == 0 and events == requests * tokens
    said = f"{requests:,} requests of {tokens:,} tokens, {events:,} events kept, at most {peak_bytes / 1e6:.0f} MB"
    return Found(
        "memory", whole and peak_bytes < MOST_BYTES, said, {"events": events, "errors": errors, "peak_bytes": peak_bytes}
    )


def _peak_bytes() -> int:
    """The most that this process has held; Linux says it in KiB, macOS in bytes (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def events(users: int = 100, per_s: float = 1.1 * EVENTS_PER_S, seconds: float = 5.0) -> Found:
    """Whether the client takes :data:`EVENTS_PER_S` on one core and loses none; the server is asked for a tenth more."""
    begun_s = time.process_time()
    seen = _load(users, round(per_s * seconds / users), gap_s=users / per_s, one_core=True)
    cpu_s = time.process_time() - begun_s  # of sending, reading and parsing: what does not depend on others' work
    sent, got = (sum(map(len, stamps)) for stamps in ([r["written_ns"] for r in seen.served], [s.event_ns for s in seen.samples]))
    lost, errors = sent - got, sum(sample.error is not None for sample in seen.samples)
    rate = events_per_s(seen.samples)
    told = f"{rate:,.0f}" if rate else "no measurable number"
    said = f"{sent:,} events at {told} a second to one core, which needs {cpu_s:.1f} s for them; {lost} lost, {errors} errors"
    figures = {"events_per_s": rate, "sent": sent, "lost": lost, "errors": errors, "cpu_s": cpu_s, "lag_s": seen.lag_s}
    return Found("events", lost == errors == 0 and (rate or 0) >= EVENTS_PER_S, said, figures)


def events_per_s(samples: Iterable[Sample]) -> float | None:
    """Events a second from the first to the last of all ``samples``: the wait before the first is no part of the stream."""
    stamps = [ns for sample in samples for ns in sample.event_ns]
    return (len(stamps) - 1) * 1e9 / (max(stamps) - min(stamps)) if len(set(stamps)) > 1 else None


def streams(users: int = 1_000, tokens: int = 32) -> Found:
    """The error of the median TTFT at so many streams of ten tokens a second."""
    seen = _load(users, tokens, gap_s=0.1)
    errors = sum(sample.error is not None for sample in seen.samples)
    said = f"{users:,} streams, median TTFT {seen.ttft_error_s * 1e3:+.2f} ms, {errors} errors"
    kept = errors == 0 and abs(seen.ttft_error_s) <= MOST_TTFT_ERROR_S
    return Found("streams", kept, said, {"ttft_error_s": seen.ttft_error_s, "errors": errors})


def users(numbers: Sequence[int] = USERS, tokens: int = 4) -> Found:
    """Whether so many users are all answered, or refused in one line where this system has no room for them."""
    told, kept = {}, True
    for number in numbers:
        try:
            connection.room_for(number)
        except ValueError as error:
            told[str(number)] = str(error)
            kept = kept and "\n" not in str(error)
            continue
        seen = _load(number, tokens, gap_s=1.0)
        whole = sum(sample.error is None and len(sample.event_ns) == tokens for sample in seen.samples)
        told[str(number)] = f"{whole:,} of {number:,} answered whole"
        kept = kept and whole == number
    return Found("users", kept, "; ".join(told.values()), told)


def _load(users: int, tokens: int, *, gap_s: float, one_core: bool = False) -> selftest.Seen:
    """A request of each user, all at once, and both sides of it; with ``one_core`` the client has one, the server any."""
    with truth_server.process(first_s=0.5, gap_s=gap_s) as server, _one_core() if one_core else nullcontext():
        endpoint, prompts = Endpoint(server.base_url, "truth"), workload.prompts(users, 16, seed=1)
        samples = client.run(client.closed_loop(endpoint, prompts, users=users, output_tokens=tokens))
        return selftest.Seen(samples, server.seen())


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread and those that it starts to one core, where the system can (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


PARTS: dict[str, Callable[[], Found]] = {"memory": memory, "events": events, "streams": streams, "users": users}


def apart(name: str) -> Found:
    """The part called ``name`` in a process of its own, so that its memory is its own; a terminal's Ctrl-C is not for it."""
    ran = subprocess.run([sys.executable, "-c", CHILD, name], stdout=subprocess.PIPE, text=True, start_new_session=True)
    if ran.returncode:
        raise PartError(f"{name}: its process ended with exit code {ran.returncode}; its error stands above")
    return Found(**json.loads(ran.stdout))


def child(name: str) -> None:
    """What :func:`apart` starts: one part, told as JSON."""
    print(json.dumps(asdict(PARTS[name]())))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (a limit was not kept), 2, 130/143 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.limits", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    options = parser.parse_args(argv)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.exit(2, f"no part is called {unknown[0]!r}: choose from {', '.join(PARTS)}\n")
    found: list[Found] = []

    def program() -> int:
        if word := machine.busy_word():
            print(word, file=sys.stderr)
        for name in options.parts or PARTS:
            found.append(apart(name))
            print(found[-1], flush=True)
            if options.json:
                kept = {"parts": list(map(asdict, found)), "provenance": records.provenance()}
                records.write_json(options.json, kept, replace=True)
        return 0 if all(one.kept for one in found) else 1

    return cli.finish(program, PartError, stopped="the parts that had ended are kept with --json")


if __name__ == "__main__":
    sys.exit(main())
