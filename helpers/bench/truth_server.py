"""A server whose timing is known: what the client is held against.

It answers as an OpenAI-compatible server does, writes each token at a scripted time, and keeps
when it really did: in this process (:class:`TruthServer`, for tests) or in one of its own
(:func:`process`, for measurements), which ``GET /truth`` asks. All stamps are
``time.perf_counter_ns``, which on Linux is one clock for all processes.

    python -m helpers.bench.truth_server --first 0.05 --gap 0.01
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

from helpers.bench import connection, truth_script
from helpers.bench.truth_script import Script, Served

HOST = "127.0.0.1"
START_TIMEOUT_S = 30
ASK_TIMEOUT_S = 60
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment does not know loopback


class _Connection:
    """One client's connection: stamps what it reads, then parses and answers, request after request.

    It reads and writes the socket itself: an event loop's transport may write later than it is told to.
    """

    def __init__(self, server: TruthServer, sock: socket.socket):
        self.server, self.sock, self.loop = server, sock, asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.request: Served | None = None
        self.rest, self.closing = bytearray(), False
        self.on_message_begin()
        self.loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            data, stamp_ns, _ = connection.read_stamped(self.sock)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.loop.call_soon(self._parse, data, stamp_ns)  # after all that has arrived was read
        else:
            self.close()

    def close(self, end: str = "client left") -> None:
        self._end(end)
        self.server.connections.discard(self)
        if self.sock.fileno() >= 0:
            self.loop.remove_reader(self.sock)
            self.loop.remove_writer(self.sock)
            self.sock.close()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.content = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        path = urlsplit(self.url).path.decode()
        if path == "/reset":
            self.server.received.clear()
        if path == "/truth":
            self._send(truth_script.plain(200, {"requests": [served.to_dict() for served in self.server.received]}))
        elif path == "/metrics" and self.server.metrics is not None:
            self._send(truth_script.text(self.server.metrics()))
        elif path == "/reset" or self.parser.get_method() == b"GET":
            self._send(truth_script.plain(200, {"object": "list", "data": [{"id": "truth", "object": "model"}]}))
        elif not path.endswith("/completions"):
            self._send(truth_script.plain(404, {"error": f"no {path} here"}))
        else:
            body = json.loads(self.content)
            self.request = Served(path, self.headers, body if self.server.keep_bodies else {}, self.read_ns)
            script = self.server.accept(self.request, body)
            self.due_s = self.read_ns / 1e9  # the loop's clock is the same one, in seconds
            self.writes = truth_script.writes(script, path, body, number=len(self.server.received))
            self._next()

    def _parse(self, data: bytes, stamp_ns: int) -> None:
        self.read_ns = stamp_ns
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, ValueError):
            self._send(truth_script.plain(400, {"error": "not a request"}))
            self.close()

    def _send(self, data: bytes) -> None:
        """Write now what the socket takes, and the rest when it takes more."""
        self.rest += data
        try:
            del self.rest[: self.sock.send(self.rest)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.rest:
            self.loop.add_writer(self.sock, self._send, b"")
        else:
            self.loop.remove_writer(self.sock)
            if self.closing:
                self.close()

    def _next(self) -> None:
        """Schedule the next write at its time after the last one's, however late that was."""
        pause_s, *write = next(self.writes)
        self.due_s += pause_s
        late_s = time.perf_counter_ns() / 1e9 - self.due_s
        if pause_s == 0 or late_s > 0:
            self.loop.call_soon(self._write, *write)
        else:
            self.loop.call_later(-late_s, self._write, *write)

    def _write(self, data: bytes, events: int, tokens: int, end: str | None) -> None:
        if self.request is None:
            return
        self.request.written_ns += [time.perf_counter_ns()] * events
        self.request.tokens += tokens
        self._send(data)
        if end is None:
            self._next()
        elif end != "stall":
            self._finish(end)

    def _finish(self, end: str) -> None:
        keep = end == "done" and self.headers.get("connection", "").lower() != "close"
        self._end(end)
        if end == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST, not FIN
            self.close()
        elif not keep:
            self.closing = True
            self._send(b"")

    def _end(self, how: str) -> None:
        if self.request is not None:
            self.request.ended = how
            self.request = None
            self.server.at_once -= 1


class TruthServer:
    """Serves ``base_url`` from a thread for the length of a ``with`` block; ``received`` is what it really did.

    ``script`` may be a function of a request's number (from 0) and body. ``metrics`` makes the page ``/metrics``, in this
    server's thread, from what the test wants to be read there.
    """

    def __init__(
        self,
        script: Script | Callable[[int, Mapping], Script] = Script(),  # noqa: B008
        *,
        keep_bodies: bool = True,
        metrics: Callable[[], str] | None = None,
    ):
        self.script = script if callable(script) else lambda number, body: script
        self.keep_bodies, self.metrics = keep_bodies, metrics
        self.received: list[Served] = []
        self.connections: set[_Connection] = set()
        self.at_once = self.most_at_once = self.accepted = 0

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def accept(self, request: Served, body: Mapping) -> Script:
        """Note ``request`` and return how it is answered."""
        self.received.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return self.script(len(self.received) - 1, body)

    def listen(self, port: int = 0) -> None:
        """Listen on loopback, with the running loop; :attr:`port` is known afterwards."""
        self._listener = socket.create_server((HOST, port), backlog=4096)
        self._listener.setblocking(False)
        connection.ask_for_stamps(self._listener)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.add(_Connection(self, sock))
                self.accepted += 1
        except BlockingIOError:
            pass
        except OSError as error:  # no more open files: the listener would stay readable, and this be called for ever
            self._stop_listening()
            said = f"the truth server takes no more than these {len(self.connections)} connections: {error.strerror}"
            print(said, file=sys.stderr)

    def _stop_listening(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def close(self) -> None:
        """Close every connection and stop listening."""
        self._stop_listening()
        for each in list(self.connections):
            each.close("server ended")

    async def _work(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self.listen()
        ready.set()
        await self._stopped.wait()
        self.close()

    def __enter__(self) -> TruthServer:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work(ready)), name="truth-server")
        self._thread.start()
        ready.wait(START_TIMEOUT_S)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)


@dataclass(frozen=True)
class Process:
    """A truth server in a process of its own."""

    base_url: str

    def seen(self) -> list[dict]:
        """What it did since the last :meth:`reset`, a dict per request (see :class:`Served`)."""
        return json.loads(self._asked("/truth"))["requests"]

    def reset(self) -> None:
        """Forget what was done so far."""
        self._asked("/reset", "POST")

    def _asked(self, path: str, method: str = "GET") -> bytes:
        """The answer's body; ``OSError`` if the server is away or answers with an error."""
        asked = urllib.request.Request(self.base_url.removesuffix("/v1") + path, method=method)
        with DIRECT.open(asked, timeout=ASK_TIMEOUT_S) as answer:
            return answer.read()


@contextmanager
def process(**script: float) -> Iterator[Process]:
    """A truth server with this :class:`Script` in a process of its own, for the length of a ``with`` block."""
    options = [part for name, value in script.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    running = subprocess.Popen(
        [sys.executable, "-m", "helpers.bench.truth_server", *options], stdout=subprocess.PIPE, text=True,
        start_new_session=True,  # a terminal's Ctrl-C is for us: it would end a server that still starts with a traceback
    )  # fmt: skip
    try:
        line = running.stdout.readline().strip()
        if not line:
            ended = running.wait(START_TIMEOUT_S)
            raise RuntimeError(f"the truth server did not start: exit code {ended}; its error stands above")
        yield Process(line)
    finally:
        running.terminate()
        running.wait()
        running.stdout.close()


async def _serve(script: Script, port: int) -> None:
    stopped, parent = asyncio.Event(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = TruthServer(script, keep_bodies=False)
    server.listen(port)
    connection.take_all_room()
    if not _announced(server.base_url):
        stopped.set()
    while not stopped.is_set() and os.getppid() == parent:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 1)
    server.close()


def _announced(address: str) -> bool:
    """Print ``address``; ``False`` if whoever started this process has gone meanwhile and nobody reads it."""
    try:
        print(address, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more at its end
        return False
    return True


def _run(work: Coroutine) -> None:
    """Run ``work`` on uvloop, whose own delays are shorter; on asyncio's loop where uvloop is not installed."""
    try:
        from uvloop import run
    except ImportError:
        run = asyncio.run
    run(work)


def main() -> None:
    """The command: serve one script until told to stop, or until the process that started it has gone."""
    import gc

    parser = argparse.ArgumentParser(prog="python -m helpers.bench.truth_server", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    for name in ("first", "gap", "jitter"):
        parser.add_argument(f"--{name}", f"--{name}-s", dest=f"{name}_s", type=float, default=0.0, help="seconds")
    for name in ("tokens-per-event", "events-per-write"):
        parser.add_argument(f"--{name}", type=int, default=1)
    options = vars(parser.parse_args())
    port = options.pop("port")
    gc.disable()  # a pause of the collector would be the server's own jitter
    _run(_serve(Script(**options), port))


if __name__ == "__main__":
    main()
