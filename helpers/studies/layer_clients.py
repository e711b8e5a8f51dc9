"""The layers of the comparison: eight ways to build a load client's HTTP layer, each as small as it can be.

A layer opens its connections and gives a function that runs a closed loop: so many streams,
each sending its next request when its last answer has ended. What differs is who reads the
socket, what is done before the clock is read, and which event loop runs it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import util

import httptools

from helpers.bench import client, workload
from helpers.studies.peer_clients import Load

TIMEOUT_S = 120  # for one answer
WARM_UP_TOKENS = 2
LAST_CHUNK = b"0\r\n\r\n"  # ends a chunked answer
Answered = tuple[int, Sequence[int], int | None]  # sent_ns, stamps of the events with text, the server's count of tokens
Block = Callable[[Load], Awaitable[list[Answered]]]


class Incoming:
    """One answer while it comes. The clock is read when an event is out of its JSON, unless ``arrived_ns`` is known."""

    def __init__(self):
        self.stamps_ns, self.reads, self.tokens = [], [], None
        self.rest, self.whole, self.arrived_ns = b"", False, None
        self.sent_ns = time.perf_counter_ns()

    def on_body(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.line(line)

    def on_message_complete(self) -> None:
        self.whole = True

    def line(self, line: bytes | str) -> None:
        if line[6:7] not in (b"{", "{"):  # a blank line, or [DONE]
            return
        event = json.loads(line[6:])
        self.tokens = (event.get("usage") or {}).get("completion_tokens", self.tokens)
        if event["choices"] and event["choices"][0]["text"]:
            self.stamps_ns.append(self.arrived_ns or time.perf_counter_ns())

    def read(self) -> Answered:
        """What was asked for; bytes that were only kept are parsed now."""
        parser = httptools.HttpResponseParser(self)
        for stamp_ns, data in self.reads:
            self.arrived_ns = stamp_ns
            parser.feed_data(data)
        return self.sent_ns, self.stamps_ns, self.tokens


async def _closed_loop(asks: Sequence[Callable[[bytes], Awaitable[Incoming]]], endpoint: client.Endpoint, load: Load):
    body = json.dumps(endpoint.body(_prompt(), load.tokens)).encode()
    numbers, answers = iter(range(load.requests)), []

    async def work(ask) -> None:
        for _ in numbers:
            answers.append(await ask(body))

    await asyncio.gather(*map(work, asks))
    return [answer.read() for answer in answers]


def _prompt() -> workload.Prompt:
    return workload.prompts(1, 128, seed=0)[0]


@asynccontextmanager
async def _httpx(endpoint: client.Endpoint, streams: int) -> AsyncIterator[Block]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # by default 100, and 20 kept
    async with httpx.AsyncClient(base_url=endpoint.base_url, limits=limits, timeout=TIMEOUT_S, trust_env=False) as session:

        async def ask(body: bytes) -> Incoming:
            answer = Incoming()
            async with session.stream("POST", "/completions", content=body) as response:
                async for line in response.aiter_lines():
                    answer.line(line)
            return answer

        yield partial(_closed_loop, [ask] * streams, endpoint)


@asynccontextmanager
async def _aiohttp(endpoint: client.Endpoint, streams: int) -> AsyncIterator[Block]:
    import aiohttp

    limits = {"connector": aiohttp.TCPConnector(limit=0), "timeout": aiohttp.ClientTimeout(TIMEOUT_S)}  # by default 100
    async with aiohttp.ClientSession(**limits) as session:

        async def ask(body: bytes) -> Incoming:
            answer = Incoming()
            async with session.post(endpoint.base_url + "/completions", data=body) as response:
                async for line in response.content:
                    answer.line(line)
            return answer

        yield partial(_closed_loop, [ask] * streams, endpoint)


class _Parsing(asyncio.Protocol):
    """One connection that takes HTTP (httptools) and JSON apart as bytes arrive."""

    def __init__(self, address: str):
        self.address, self.loop = address, asyncio.get_running_loop()
        self.done: asyncio.Future[Incoming] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.done and not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed"))

    def ask(self, body: bytes) -> asyncio.Future[Incoming]:
        self.done, data = self.loop.create_future(), self.request(body)
        self.answer = Incoming()
        self.parser = httptools.HttpResponseParser(self.answer)
        self.transport.write(data)
        return self.done

    def request(self, body: bytes) -> bytes:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {self.address}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self.answer.whole:
            self.done.set_result(self.answer)


class _H11(_Parsing):
    """The same with h11, a parser written in Python."""

    def request(self, body: bytes) -> bytes:
        import h11

        self.h11, self.http = h11, h11.Connection(h11.CLIENT)
        head = [("Host", self.address), ("Content-Length", str(len(body)))]
        whole = (h11.Request(method="POST", target="/v1/completions", headers=head), h11.Data(data=body), h11.EndOfMessage())
        return b"".join(map(self.http.send, whole))

    def data_received(self, data: bytes) -> None:
        self.http.receive_data(data)
        while (event := self.http.next_event()) is not self.h11.NEED_DATA:
            if isinstance(event, self.h11.Data):
                self.answer.on_body(event.data)
            elif isinstance(event, self.h11.EndOfMessage):
                self.done.set_result(self.answer)
                return


class _Keeping(_Parsing):
    """One connection that stamps and keeps what the event loop read; all is parsed after the last answer."""

    def data_received(self, data: bytes) -> None:
        reads = self.answer.reads
        reads.append((time.perf_counter_ns(), data))
        if data.endswith(LAST_CHUNK) or (len(data) < 5 and b"".join(part for _, part in reads[-5:]).endswith(LAST_CHUNK)):
            self.done.set_result(self.answer)


@asynccontextmanager
async def _protocol(kind: type[_Parsing], endpoint: client.Endpoint, streams: int) -> AsyncIterator[Block]:
    host, _, port = endpoint.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: kind(f"{host}:{port}"), host, int(port)) for _ in range(streams)]
    try:
        yield partial(_closed_loop, [protocol.ask for _, protocol in pairs], endpoint)
    finally:
        for transport, _ in pairs:
            transport.close()


@asynccontextmanager
async def _ours(endpoint: client.Endpoint, streams: int) -> AsyncIterator[Block]:
    async def block(load: Load) -> list[Answered]:
        prompts = [_prompt()] * load.requests
        samples = await client.closed_loop(endpoint, prompts, users=load.streams, output_tokens=load.tokens)
        return [(s.sent_ns, tuple(s.event_ns), s.output_tokens) for s in samples]

    yield block


@dataclass(frozen=True)
class Layer:
    """One way to build it; ``needs`` are the libraries beyond those of this project's client."""

    name: str
    title: str
    open: Callable[[client.Endpoint, int], AbstractAsyncContextManager[Block]]
    needs: tuple[str, ...] = ()
    uvloop: bool = False

    @property
    def libraries(self) -> tuple[str, ...]:
        return (*self.needs, "uvloop") if self.uvloop else self.needs

    def missing(self) -> str | None:
        """Why it cannot be run in this interpreter, and the next step; ``None`` if it can."""
        lacking = [name for name in self.libraries if util.find_spec(name) is None]
        if not lacking:
            return None
        return f"this interpreter has no {' and no '.join(lacking)}: install it, or take one that has it, as vLLM's"


async def measure(layer: Layer, endpoint: client.Endpoint, load: Load) -> tuple[list[Answered], float, float]:
    """A short request per stream, so that connections are open, then ``load``.

    Returns what was answered, and the CPU seconds and the seconds it took, parsing included.
    """
    async with layer.open(endpoint, load.streams) as block:
        await block(replace(load, requests=load.streams, tokens=WARM_UP_TOKENS))
        cpu_s, start_s = time.process_time(), time.perf_counter()
        answers = await block(load)
        return answers, time.process_time() - cpu_s, time.perf_counter() - start_s


def run(layer: Layer, base_url: str, load: Load) -> tuple[list[Answered], float, float]:
    """:func:`measure` on the layer's own event loop."""
    factory = None
    if layer.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(measure(layer, client.Endpoint(base_url, "truth"), load))


LAYERS = {
    layer.name: layer
    for layer in (
        Layer("httpx", "httpx, lines and JSON on the path", _httpx, ("httpx",)),
        Layer("aiohttp", "aiohttp, lines and JSON on the path", _aiohttp, ("aiohttp",)),
        Layer("h11", "Protocol, h11 and JSON on the path", partial(_protocol, _H11), ("h11",)),
        Layer("httptools", "Protocol, httptools and JSON on the path", partial(_protocol, _Parsing)),
        Layer("keeping", "Protocol, stamp when read, parse after", partial(_protocol, _Keeping)),
        Layer("keeping-uvloop", "Protocol on uvloop, stamp when read", partial(_protocol, _Keeping), uvloop=True),
        Layer("ours", "ours: own reads, the system's stamps", _ours),
        Layer("ours-uvloop", "ours on uvloop", _ours, uvloop=True),
    )
}
