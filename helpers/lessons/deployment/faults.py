"""A proxy in front of a real server that breaks it on purpose, and keeps what it received.

What stands behind is a real engine: an answer that gets through is its own. Each :class:`Fault` is
what a client sees of a remote in trouble; it can begin in the middle of the traffic (``after``).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from helpers.servers.serving import free_port

HOST = "127.0.0.1"
REPLY_TIMEOUT_S = 30  # for what is asked of the proxy itself

Outcome = Literal["under way", "answered", "reset", "stalled", "refused by status", "client left", "no upstream", "server ended"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong. ``kind``: ``healthy``, ``killed`` (open connections are reset, new ones refused), ``stalled``
    (accepts and never answers), ``overloaded`` (HTTP 503, ``delay_s`` late), ``limited`` (HTTP 429 beyond
    ``per_window`` requests in ``window_s`` seconds)."""

    kind: Literal["healthy", "killed", "stalled", "overloaded", "limited"] = "healthy"
    delay_s: float = 0.0
    per_window: int = 0
    window_s: float = 1.0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.delay_s < 0 or self.per_window < 0 or not self.window_s > 0:
            raise ValueError(f"{self}: times and counts are not negative, and a window has a length")


KINDS = ("healthy", "killed", "stalled", "overloaded", "limited")
HEALTHY = Fault()


@dataclass
class Received:
    """One request as the remote got it: what has left the machine, whatever became of it."""

    path: str
    body: dict
    at_s: float  # time.perf_counter()
    fault: str  # in force when it came
    outcome: Outcome = "under way"

    @property
    def text(self) -> str:
        """All that the request says, as one text to search in."""
        return json.dumps(self.body, ensure_ascii=False)


@dataclass
class Proxy:
    """A running proxy; ``base_url`` is what a client is given instead of the server's own."""

    upstream: str
    port: int
    received: list[Received] = field(default_factory=list)
    fault: Fault = HEALTHY
    unread: int = 0  # requests that came in the moment of the fault "killed" and were not read: none of `received`
    unasked: int = 0  # connections that it reset before a request came: a client may have sent one that nobody could see
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, repr=False)
    _listener: socket.socket | None = field(default=None, repr=False)
    _open: dict[asyncio.StreamWriter, socket.socket] = field(default_factory=dict, repr=False)
    _silent: set[asyncio.StreamWriter] = field(default_factory=set, repr=False)  # of them, those whose request was not read yet
    _tasks: set[asyncio.Task] = field(default_factory=set, repr=False)
    _next: tuple[int, Fault] | None = field(default=None, repr=False)
    _passed: deque[float] = field(default_factory=deque, repr=False)  # when requests of this window came

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def set(self, fault: Fault) -> None:
        """Put ``fault`` in force now, for open connections too; :data:`HEALTHY` ends it."""
        self._next = None
        self._ask(self._set(fault))

    def after(self, requests: int, fault: Fault) -> None:
        """Put ``fault`` in force when ``requests`` more requests have come: the last of them meets it."""
        if requests < 1:
            raise ValueError(f"after={requests}: a fault begins with a request, the first or a later one")
        self._next = (len(self.received) + requests, fault)

    def _ask(self, work: Coroutine) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(REPLY_TIMEOUT_S)

    async def _set(self, fault: Fault) -> None:
        self.fault = fault
        self._passed.clear()
        if fault.kind == "killed":
            self._close()
        elif self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=1024)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept)

    def _close(self) -> None:
        """End as a killed process ends: the port is closed and every open connection reset."""
        if self._listener is not None:
            self._accept()  # who waits to be accepted is reset like the others
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for writer, connected in list(self._open.items()):
            if writer in self._silent and _has_asked(connected):
                self.unread += 1
                self._silent.discard(writer)
            _reset(connected)
            writer.transport.abort()

    def _accept(self) -> None:
        """Serve whoever has connected, each in a task of ours.

        asyncio's own server loses, without a reset, a connection that comes in the moment in which it is closed, and Python
        3.11 prints of its tasks that they were cancelled.
        """
        with suppress(BlockingIOError):
            while True:
                connected, _ = self._listener.accept()
                task = self._loop.create_task(self._serve(connected))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, connected: socket.socket) -> None:
        if self.fault.kind == "killed":  # since it was accepted
            self._count(_has_asked(connected))
            _reset(connected)
            connected.close()
            return
        connected.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connected, limit=2**24)
        self._open[writer] = connected
        self._silent.add(writer)
        got: Received | None = None
        try:
            if (request := await _read(reader)) is None:  # a client may open a connection before it has something to ask
                self.unasked += self.fault.kind == "killed" and writer in self._silent
                self._silent.discard(writer)
                raise EOFError
            self._silent.discard(writer)
            got = self._keep(*request[1:])
            if self._next and len(self.received) >= self._next[0]:
                fault, self._next = self._next[1], None
                got.fault = fault.kind
                await self._set(fault)
            got.outcome = await self._answer(got, request[0], request[2], reader, writer)
        except (OSError, EOFError):
            if got is None:
                self.unread += self.fault.kind == "killed" and writer in self._silent
            elif got.outcome == "under way":
                got.outcome = "reset" if self.fault.kind == "killed" else "client left"
        finally:
            self._open.pop(writer)
            self._silent.discard(writer)
            writer.close()

    def _count(self, asked: bool) -> None:
        """A connection that is reset: with a request that nobody has read, or before one came."""
        self.unread += asked
        self.unasked += not asked

    def _keep(self, path: str, body: bytes) -> Received:
        try:
            said = json.loads(body) if body else {}
        except ValueError:
            said = {"not JSON": body.decode(errors="replace")}
        self.received.append(Received(path, said, time.perf_counter(), self.fault.kind))
        return self.received[-1]

    async def _answer(self, got: Received, head: bytes, body: bytes, reader, writer) -> Outcome:
        fault = self.fault
        if fault.kind == "killed":
            raise EOFError
        if fault.kind == "stalled":
            got.outcome = "stalled"
            await reader.read()  # until the client gives up, or the fault ends the connection
            return "stalled"
        if fault.kind == "overloaded":
            await asyncio.sleep(fault.delay_s)
            return await _refuse(writer, 503, "Service Unavailable", "overloaded on purpose")
        if fault.kind == "limited" and self._beyond(fault):
            return await _refuse(writer, 429, "Too Many Requests", "rate limited on purpose", retry_after_s=fault.window_s)
        return await self._forward(head + body, reader, writer)

    def _beyond(self, fault: Fault) -> bool:
        """Whether this request is one too many in the window that ends now."""
        now = time.perf_counter()
        while self._passed and now - self._passed[0] >= fault.window_s:
            self._passed.popleft()
        if len(self._passed) >= fault.per_window:
            return True
        self._passed.append(now)
        return False

    async def _forward(self, request: bytes, reader, writer) -> Outcome:
        """Send the request on and the answer back, byte by byte as it comes; ends with the client, if that goes first."""
        url = urlsplit(self.upstream)
        try:
            source, sink = await asyncio.open_connection(url.hostname, url.port, limit=2**24)
        except OSError:
            await _refuse(writer, 502, "Bad Gateway", "nothing listens behind the proxy")
            return "no upstream"
        gone, piece, reply = asyncio.ensure_future(reader.read(1)), None, b""
        try:
            sink.write(request)
            while True:
                piece = asyncio.ensure_future(source.read(65536))
                await asyncio.wait({piece, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    if whole(reply):  # a client need not wait for the end of the connection
                        return "answered"
                    raise EOFError
                if piece.exception() or not piece.result():  # reset by a killed server, or closed
                    return "answered" if whole(reply) else "server ended"
                reply += piece.result()
                writer.write(piece.result())
                await writer.drain()
        finally:
            gone.cancel()
            if piece is not None:
                piece.cancel()
            sink.close()


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, str, bytes] | None:
    """Head, path and body of one request; ``None`` if the client sent none. The head asks the server to close after it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(named.get("content-length", 0)))
    kept = [line for line in lines if not line.lower().startswith("connection:")]
    return "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1"), first.split()[1], body


def whole(reply: bytes) -> bool:
    """Whether these bytes are all of an HTTP answer: as long as its head says, or closed by an empty chunk."""
    head, _, body = reply.partition(b"\r\n\r\n")
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
    if b"content-length" in named:
        return len(body) >= int(named[b"content-length"])
    return body.endswith(b"0\r\n\r\n")


async def _refuse(writer, status: int, phrase: str, why: str, retry_after_s: float | None = None) -> Outcome:
    body = json.dumps({"error": {"message": why, "type": phrase, "code": status}}).encode()
    wait = "" if retry_after_s is None else f"Retry-After: {retry_after_s:g}\r\n"
    head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n{wait}Content-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
    return "refused by status"


def _has_asked(connected: socket.socket) -> bool:
    """Whether bytes have come that nobody has read: a connection alone is no request."""
    try:
        return bool(connected.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:  # nothing there, or the client is gone
        return False


def _reset(connected: socket.socket | None) -> None:
    """Let it end with RST and not FIN when it is closed: what is under way is lost, as after a kill."""
    if connected is not None:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A :class:`Proxy` before the server whose base URL is ``upstream``, for the length of a ``with`` block."""
    made = Proxy(upstream, free_port())
    thread = threading.Thread(target=made._loop.run_forever, name="faults", daemon=True)
    thread.start()
    try:
        made.set(HEALTHY)
        yield made
    finally:
        made._ask(_end(made))
        made._loop.call_soon_threadsafe(made._loop.stop)
        thread.join()
        made._loop.close()


async def _end(made: Proxy) -> None:
    made._close()
    for task in list(made._tasks):
        task.cancel()
    await asyncio.gather(*made._tasks, return_exceptions=True)
