"""One connection to a server: bytes go out, bytes come in with the time they came.

The time between a token's arrival and the reading of the clock is a client's own error. Here
the socket's callback stores the bytes and two clocks and unpacks HTTP (httptools, in C);
everything else waits until the answer is whole. Where the system stamps arriving packets
(Linux, ``SO_TIMESTAMPNS``, socket(7)), that stamp is the time of arrival, however late this
process was; how late it was is kept as its *lag*.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass, field
from socket import gaierror

import httptools

try:
    import resource
except ImportError:  # Windows
    resource = None

SPARE_FILES = 100  # that a process has open beside its connections
READ_BYTES = 1 << 16
LARGEST_ANSWER_BYTES = 64 << 20
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python's socket module does not name it
STAMP = struct.Struct("qq")  # struct timespec, seconds and nanoseconds of CLOCK_REALTIME
KERNEL_STAMPS = sys.platform == "linux" and sys.maxsize > 2**32
CLOCKS_APART_NS = 1_000_000  # two clocks are read one after the other: a stamp may be so much too early
LONGEST_LAG_NS = 60_000_000_000  # a longer one is a clock that was set meanwhile


@dataclass
class Reply:
    """The bytes of one answer as they came, and how it ended. Times are ``perf_counter_ns``."""

    sent_ns: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    stamps_ns: list[int] = field(default_factory=list)  # one per read
    lags_ns: list[int | None] = field(default_factory=list)  # one per read; None: not known
    parts: list[tuple[int, bytes]] = field(default_factory=list)  # the body: number of the read, bytes
    size_bytes: int = 0
    whole: bool = False
    problem: str | None = None
    over: bool = False  # nothing more comes, however it ended
    written_ns: int | None = None  # when all of the request was handed to the system; None: over TLS, nobody knows


def room_for(connections: int) -> None:
    """Raise this process's limit of open files, where it is lower, so that so many ``connections`` can be open.

    ``ValueError`` in one line where the system allows no more.
    """
    if resource is None:  # a system without such a limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{connections} connections need {needed} open files, and this system allows {hard}: "
            "ask for fewer users, or raise its limit (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def take_all_room() -> None:
    """Raise this process's limit of open files to the system's."""
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ask_for_stamps(sock: socket.socket) -> None:
    """Let the system stamp what arrives at ``sock`` (and at what a listening ``sock`` accepts), where it can."""
    if KERNEL_STAMPS:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def read_stamped(sock: socket.socket) -> tuple[bytes, int, int | None]:
    """What has arrived at ``sock``, when it did (``perf_counter_ns``), and how much later this is, if known."""
    data, ancillary, _, _ = sock.recvmsg(READ_BYTES, 64)
    now_ns, wall_ns = time.perf_counter_ns(), time.time_ns()
    if ancillary:
        seconds, nanoseconds = STAMP.unpack(ancillary[0][2])
        lag_ns = wall_ns - seconds * 1_000_000_000 - nanoseconds
        if 0 <= lag_ns < LONGEST_LAG_NS:
            return data, now_ns - lag_ns, lag_ns
    return data, now_ns, None


class Refused(OSError):
    """No connection: ``str()`` is the address and the reason."""


class Connection:
    """An open connection; :meth:`send` returns a future of the :class:`Reply`."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self.answer: Reply | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self.usable = True  # for another request
        self.answers = 0  # so many came over it

    def send(self, wire: bytes) -> asyncio.Future[Reply]:
        """Write ``wire``, a whole request; the clock starts right before."""
        self.future = self.loop.create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.answer = Reply(0)
        self.answer.sent_ns = time.perf_counter_ns()
        self._write(wire)
        return self.future

    def give_up(self, problem: str) -> Reply:
        """End the request under way with ``problem`` and close; returns what had come of its answer."""
        self._end(problem)
        return self.future.result()

    def close(self) -> None:
        """Close at once; the answer to a request under way never comes."""
        self.usable = False
        self._shut()

    def arrived(self, data: bytes, stamp_ns: int, lag_ns: int | None) -> None:
        """Keep ``data``, which came at ``stamp_ns``."""
        answer = self.answer
        if answer is None:  # nothing was asked
            self.close()
            return
        earliest_ns = answer.stamps_ns[-1] if answer.stamps_ns else answer.sent_ns
        if stamp_ns < earliest_ns - CLOCKS_APART_NS:  # the system's clock was set meanwhile
            stamp_ns, lag_ns = stamp_ns + (lag_ns or 0), None
        answer.stamps_ns.append(max(stamp_ns, earliest_ns))
        answer.lags_ns.append(lag_ns)
        answer.size_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"malformed: {error}")
        if answer.size_bytes > LARGEST_ANSWER_BYTES:
            self._end(f"too large: an answer of more than {LARGEST_ANSWER_BYTES >> 20} MiB")

    def lost(self, error: Exception | None) -> None:
        """The other side has closed, or the connection broke."""
        self.usable = False
        answer = self.answer
        if answer is None:
            return
        if error:
            self._end(f"reset: the connection broke ({error})")
            return
        until_closed = not {"content-length", "transfer-encoding"} & answer.headers.keys()
        answer.whole = answer.status is not None and until_closed
        self._end(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.answer.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.answer.parts.append((len(self.answer.stamps_ns) - 1, body))

    def on_message_complete(self) -> None:
        if self.answer.status < 200:  # an interim answer; the real one follows
            self.answer.headers.clear()
            return
        self.answer.whole = True
        self.usable = self.usable and self.parser.should_keep_alive()
        self._end(None)

    def _end(self, problem: str | None) -> None:
        answer, self.answer = self.answer, None
        if answer is None:
            return
        answer.problem, answer.over = problem, True
        self.answers += 1
        if problem or not answer.whole or not self.usable:
            self.close()
        if not self.future.done():
            self.future.set_result(answer)


class _Plain(Connection):
    """Over TCP: reads the socket itself, to get the system's stamps."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket):
        super().__init__(loop)
        self.sock = sock
        self.rest = memoryview(b"")
        loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            data, stamp_ns, lag_ns = read_stamped(self.sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._shut()
            self.lost(error)
            return
        if data:
            self.arrived(data, stamp_ns, lag_ns)
        else:
            self._shut()
            self.lost(None)

    def _write(self, wire: bytes) -> None:
        self.rest = memoryview(wire)
        self._writable()

    def _writable(self) -> None:
        try:
            self.rest = self.rest[self.sock.send(self.rest) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._shut()
            self.lost(error)
            return
        if self.rest:
            self.loop.add_writer(self.sock, self._writable)
            return
        if self.answer is not None:
            self.answer.written_ns = time.perf_counter_ns()
        self.loop.remove_writer(self.sock)

    def _shut(self) -> None:
        if self.sock.fileno() >= 0:
            self.loop.remove_reader(self.sock)
            self.loop.remove_writer(self.sock)
            self.sock.close()


class _Secure(Connection, asyncio.Protocol):
    """Over TLS: the event loop reads and decrypts, so a stamp is of the reading."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.arrived(data, time.perf_counter_ns(), None)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost(error)

    def _write(self, wire: bytes) -> None:
        self.transport.write(wire)

    def _shut(self) -> None:
        self.transport.abort()


async def connect(host: str, port: int, *, secure: bool = False, timeout_s: float = 120) -> Connection:
    """Open a connection; :class:`Refused` with the reason if none is to be had within ``timeout_s``."""
    try:
        async with asyncio.timeout(timeout_s):
            return await (_secure if secure else _plain)(host, port)
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise Refused(f"{host}:{port} did not take a connection ({_reason(error)})") from None


async def _plain(host: str, port: int) -> _Plain:
    loop, last = asyncio.get_running_loop(), OSError("no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_for_stamps(sock)
            await loop.sock_connect(sock, address)
            return _Plain(loop, sock)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
    raise last


async def _secure(host: str, port: int) -> _Secure:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: _Secure(loop), host, port, ssl=ssl.create_default_context())
    return connection


def _reason(error: Exception) -> str:
    if isinstance(error, (gaierror, ssl.SSLError)):  # their errno is not one of the system's
        return " ".join((error.strerror or str(error)).split())[:200]
    if getattr(error, "errno", None):
        return os.strerror(error.errno)
    return "timed out" if isinstance(error, TimeoutError) else " ".join(str(error).split())[:200] or type(error).__name__
