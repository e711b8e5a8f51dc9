"""A server in operation: is it healthy, what do its metrics say, how does it stop?

Each engine names the same things differently on its page ``/metrics``; :func:`reading` brings them
together. What an engine does not say is ``None``, never 0.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import httpx
import psutil

from helpers.bench.server_metrics import NAMES, Reading, read  # noqa: F401 - NAMES: what is read, for a table
from helpers.lessons.deployment import switching
from helpers.servers import metrics
from helpers.servers.guard import STOP_TIMEOUT_S
from helpers.servers.serving import Server

HEALTH_TIMEOUT_S = 2
POLL_S = 0.2


def health(server: Server, timeout_s: float | None = None) -> str:
    """What ``/health`` says now: ``200``, another status, or why none came in ``timeout_s`` (else ``HEALTH_TIMEOUT_S``)."""
    timeout_s = HEALTH_TIMEOUT_S if timeout_s is None else timeout_s
    url = server.base_url.removesuffix("/v1") + "/health"
    try:
        return str(httpx.get(url, timeout=timeout_s, trust_env=False).status_code)
    except httpx.TimeoutException:
        return f"no answer in {timeout_s} s"
    except httpx.HTTPError as error:
        return f"no connection ({type(error).__name__})"


def reading(server: Server) -> Reading:
    """What the server's page says now; :class:`helpers.servers.metrics.Unreadable` if it has no page."""
    return read(metrics.metrics_page(server), server.engine.kernel)


@contextmanager
def watched(server: Server, poll_s: float = POLL_S) -> Iterator[list[Reading]]:
    """A list that grows by a :class:`Reading` with its time every ``poll_s`` seconds, for the length of a ``with`` block."""
    seen, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.append(replace(reading(server), at_s=time.perf_counter()))
            except metrics.Unreadable:  # a page that is late under load: the next look tells
                pass
            done.wait(poll_s)

    thread = threading.Thread(target=look, name="metrics", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def most(seen: list[Reading]) -> Reading:
    """The largest value of each field over ``seen``: gauges rise and fall between two looks at a page."""
    found = {f.name: [getattr(one, f.name) for one in seen if getattr(one, f.name) is not None] for f in fields(Reading)}
    return Reading(**{name: max(values) for name, values in found.items() if values})


def drained(server: Server, timeout_s: float = 60) -> bool:
    """Wait until nothing runs and nothing waits; ``False`` if that is not so within ``timeout_s``."""
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        now = reading(server)
        if not now.running and not now.waiting:
            return True
        time.sleep(POLL_S)
    return False


@dataclass(frozen=True)
class Stopped:
    """What a SIGTERM in mid-answer did: seconds until all had ended by themselves, and what the client got."""

    seconds: float | None  # None: it had to be killed
    answer: str


def stop_in_mid_answer(server: Server, *, tokens: int = 64, begun_s: float = 0.5, patience_s: float = 15) -> Stopped:
    """Send SIGTERM to the engine's own main process ``begun_s`` after a request of ``tokens`` began; the server is gone after it.

    The client waits ``patience_s`` for its answer. ``Stopped.answer`` is what it got, or its error. What has not ended within
    ``STOP_TIMEOUT_S`` is killed: llama.cpp's handler of signals takes a lock that the thread it interrupts may hold
    (``server_queue::terminate``), and then waits for itself.
    """
    got: list[str] = []

    def client() -> None:
        try:
            got.append(str(switching.ask(server.endpoint, switching.LONG, tokens, timeout_s=patience_s)))
        except httpx.TimeoutException:
            got.append(f"nothing in {patience_s:g} s")
        except httpx.HTTPError as error:
            got.append(f"no answer ({type(error).__name__})")

    thread = threading.Thread(target=client)
    thread.start()
    time.sleep(begun_s)
    family = server.processes()
    started = time.perf_counter()
    family[0].send_signal(signal.SIGTERM)
    thread.join()
    left = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)[1]
    took_s = round(time.perf_counter() - started, 1)
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    return Stopped(None if left else took_s, got[0])
