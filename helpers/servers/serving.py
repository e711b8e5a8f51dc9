"""Start a framework's OpenAI-compatible server, wait until it answers, and end it for sure."""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import httpx
import psutil

from helpers import frameworks, kernels, machine
from helpers.bench.client import Endpoint
from helpers.servers import engines, guard
from helpers.weights import capacity, models, sizes

HOST = "127.0.0.1"
HIGHEST_PORT = 65535 - 10000  # SGLang 0.5.15 takes this server's port + 10,000 for gRPC
START_TIMEOUT_S = 300  # on an idle machine; as many times more as the load of the last minute slows it
BUSY = 1.5  # times the cores is the load average from which on an engine waits for its turn; alone it makes about once


class ServerError(RuntimeError):
    """A server that could not be started, or ended by itself: the thing, the reason, the log."""


@dataclass(frozen=True)
class Server:
    """A running server. ``endpoint`` is what the client is given."""

    engine: engines.Engine
    model: models.Model
    endpoint: Endpoint
    process: subprocess.Popen
    log: Path
    startup_s: float  # command to first answer
    slots: int
    context: int
    arguments: tuple[str, ...] = ()  # the engine's own, without paths and port
    command_line: str = ""  # as one would type it, without the folders of this machine

    @property
    def base_url(self) -> str:
        return self.endpoint.base_url

    def processes(self) -> list[psutil.Process]:
        """The engine's own processes, without the guard that watches them."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @contextmanager
    def awake(self) -> Iterator[Server]:
        """Let a suspended server work for the length of a ``with`` block."""
        for process in self.processes():
            process.resume()
        try:
            yield self
        finally:
            self.suspend()

    def suspend(self) -> None:
        """Stop the engine's processes where they are: an idle one may keep a core busy (SGLang's does)."""
        for process in self.processes():
            process.suspend()

    def __repr__(self) -> str:
        return f"<{self.engine.title} at {self.base_url}, {self.slots} slots of {self.context} tokens>"


@contextmanager
def serve(
    engine: str | engines.Engine,
    model: models.Model | None = None,
    *,
    slots: int = 16,
    context: int = 512,
    port: int | None = None,
    timeout_s: float | None = None,
    extra: tuple[str, ...] = (),
) -> Iterator[Server]:
    """Serve ``model`` with ``engine`` on loopback for the length of a ``with`` block.

    Everything that can be wrong with the arguments is said before a process starts
    (``UnknownEngine``, ``MissingKernel``, ``ModelError``, ``ServerError`` for a port in use
    or a model that does not fit).
    A server that ends or does not answer within ``timeout_s`` (default: ``START_TIMEOUT_S``, more on a busy machine)
    raises :class:`ServerError` with the end of its log. The first start of a process says if others use the cores.
    However the block ends, no process of the server is left. ``extra`` are
    options of the engine's own, added to its command (see :func:`helpers.lessons.speculation.speculative.arguments`).
    """
    how = {"slots": slots, "context": context, "port": port, "timeout_s": timeout_s, "extra": extra}
    with _launched(engine, model, **how) as ready:
        yield ready()


@contextmanager
def at_once(several: Mapping[str, engines.Engine], model: models.Model | None = None, **options) -> Iterator[dict[str, Server]]:
    """Serve ``model`` with several engines side by side, all started at the same moment and waited for together.

    The servers have the names of ``several``; ``options`` and errors as in :func:`serve`. What they hold must fit beside each
    other. The first that does not start ends the others. All have ended when the block has.
    """
    ports: list[int] = []
    for _ in several:
        ports.append(free_port(ports))
    given_up = threading.Event()
    with ExitStack() as stack:
        ready = {
            name: stack.enter_context(_launched(engine, model, port=port, **options))
            for (name, engine), port in zip(several.items(), ports)
        }
        waiting = stack.enter_context(ThreadPoolExecutor(len(ports) or 1))
        stack.callback(given_up.set)  # before the threads are waited for
        answers = {name: waiting.submit(answered, given_up) for name, answered in ready.items()}
        for answer in as_completed(answers.values()):
            answer.result()
        yield {name: answer.result() for name, answer in answers.items()}


@contextmanager
def _launched(
    engine: str | engines.Engine, model: models.Model | None, *, slots: int, context: int, port: int | None = None,
    timeout_s: float | None = None, extra: tuple[str, ...] = (),
) -> Iterator[Callable[..., Server]]:  # fmt: skip
    """A server that is starting for the length of a block; what it gives waits for its first answer."""
    model = model or models.resolve()
    engine = engines.of(engines.get(engine) if isinstance(engine, str) else engine, model)
    start = _checked(engine, model, slots, context, port)
    command = [*engine.command(start), *extra]
    _say_once_if_busy()
    timeout_s = START_TIMEOUT_S * machine.load_slowness() if timeout_s is None else timeout_s
    started = time.perf_counter()
    env = kernels.process_environment(engine.kernel)
    with guard.guarded(command, env, name=engine.name, meets_by=engine.store_variable) as running:

        def ready(given_up: threading.Event | None = None) -> Server:
            wait(f"{engine.title}'s server", running, start.port, timeout_s, given_up=given_up)
            startup_s = time.perf_counter() - started
            frameworks.serves(engine.name, engine.dtype)
            endpoint = Endpoint(
                f"http://{HOST}:{start.port}/v1", str(start.weights) if engine.named_by_path else model.name,
                token_ids=engine.token_ids, fields=engine.fields, context=context, cache_fields=engine.cache_fields,
            )  # fmt: skip
            told = tuple(guard.without_folders(part) for part in command[1:] if part != str(start.port))
            typed = shlex.join(guard.without_folders(part) for part in command)
            return Server(engine, model, endpoint, running.process, running.log, startup_s, slots, context, told, typed)

        yield ready


@lru_cache
def _say_once_if_busy() -> None:
    if word := machine.busy_word():
        print(word, file=sys.stderr, flush=True)


def _checked(engine: engines.Engine, model: models.Model, slots: int, context: int, port: int | None) -> engines.Start:
    """What the server is started with; raises what :func:`serve` says of its arguments."""
    if slots < 1 or context < 1:
        raise ValueError(f"slots={slots}, context={context}: both must be at least 1")
    models.check_form(model, engine.form)  # before a hub is asked for what this engine does not take
    python = kernels.interpreter(engine.kernel)
    shape = models.shape(model)
    if context > (limit := shape.context):
        raise ValueError(f"context={context}: {model.name} knows {limit} tokens; ask for {limit} or fewer")
    path = models.weights(engine.form, model)
    port = free_port() if port is None else check_port(port, engine)
    start = engines.Start(python, path, port, slots, context, model.name, sizes.kv_bytes_per_token(shape))
    check_memory(start, engine, sizes.cache(shape))
    return start


@contextmanager
def side_by_side(
    several: Iterable[engines.Engine], *, failed: dict[str, str] | None = None, **options
) -> Iterator[dict[str, Server]]:
    """Serve with several engines, each suspended except inside its :meth:`Server.awake`; ``options`` as in :func:`serve`.

    So one engine is measured while the others are loaded and use no core at all. With ``failed`` an engine whose server
    does not start is named there with its reason, and the others are served.
    """
    with ExitStack() as stack:
        servers = {}
        for engine in several:
            try:
                servers[engine.name] = stack.enter_context(serve(engine, **options))
            except ServerError as error:
                if failed is None:
                    raise
                failed[engine.name] = str(error)
                continue
            servers[engine.name].suspend()
        if not servers and failed:
            raise ServerError(f"no server could be started: {'; '.join(failed.values())}")
        yield servers


def free_port(given: Collection[int] = ()) -> int:
    """A loopback port that nothing listens on now, none of those ``given`` to somebody, not above :data:`HIGHEST_PORT`.

    :class:`ServerError` if none is found.
    """
    for _ in range(1000):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            if (port := probe.getsockname()[1]) <= HIGHEST_PORT and port not in given:
                return port
    raise ServerError(f"no free port up to {HIGHEST_PORT} was found in 1,000 tries: give one with port=")


def check_memory(start: engines.Start, engine: engines.Engine, cache: sizes.Cache | None = None) -> None:
    """:class:`ServerError` if weights and KV cache do not fit the free memory, saying what would; before anything is loaded.

    ``cache`` is asked where the model's layers do not all keep every token.
    """
    if (free := capacity.free_bytes()) is None:
        return
    answer = capacity.Fit(
        start.name, engine.dtype, "16 bit", start.slots, start.context, free, free,
        sizes.stored_bytes(start.weights), start.kv_bytes_per_token, counted="slots", cache=cache,
    )  # fmt: skip
    if not answer.fits:
        raise ServerError(f"{engine.title}'s server was not started: {answer.say}")


def check_port(port: int, engine: engines.Engine) -> int:
    """``port`` if nothing listens there; :class:`ServerError` before anything is started if so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            reason = "is in use" if in_use else f"cannot be used ({getattr(error, 'strerror', 'not a port')})"
            raise ServerError(
                f"{engine.title}'s server was not started: port {port} {reason}; give another port or none"
            ) from None
    return port


def without_log(reason: str) -> str:
    """A :class:`ServerError`'s text without its log, which is a file of this machine."""
    return re.split(r"; its log: | or read its log: ", reason)[0]


def busy() -> str | None:
    """That more work waits for this machine's cores than they can do, and what to do; ``None`` where that is not so."""
    load, cores = os.getloadavg()[0], machine.cores()
    if load < BUSY * cores:
        return None
    return f"the machine is busy (load average {load:.1f} on {cores} cores): end other programs, give it more time"


class _GivenUp(ServerError):
    """Another of several servers has failed: nothing is wrong with this one, and its log is not kept."""


def wait(
    what: str, running: guard.Guarded, port: int, timeout_s: float, path: str = "/health", given_up: threading.Event | None = None
) -> None:
    """Wait until ``path`` of ``port`` answers 200; :class:`ServerError` names ``what`` and its log, which is then kept.

    No longer than until ``given_up`` is set.
    """
    try:
        _wait(what, running, port, timeout_s, path, given_up or threading.Event())
    except _GivenUp:
        raise
    except ServerError:
        running.keep_log = True
        raise


def _wait(what: str, running: guard.Guarded, port: int, timeout_s: float, path: str, given_up: threading.Event) -> None:
    deadline = time.perf_counter() + timeout_s
    while True:
        if given_up.is_set():
            raise _GivenUp(f"{what} was not waited for any longer")
        if running.process.poll() is not None:
            raise ServerError(f"{what} ended before it answered: {running.reason()}; its log: {running.log}")
        try:
            if httpx.get(f"http://{HOST}:{port}{path}", timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.perf_counter() > deadline:
            waited = f"{what} did not answer within {timeout_s:g} s: {running.reason()}"
            advice = busy() or "give it more time"
            raise ServerError(f"{waited}; {advice} or read its log: {running.log}")
        time.sleep(0.1)
