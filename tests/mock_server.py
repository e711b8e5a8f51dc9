"""A small OpenAI-compatible server whose timing is scripted and written down as it happens.

``with MockServer(Script(...)) as mock:`` serves ``mock.base_url`` from a thread on a free
loopback port. ``mock.received`` keeps every request with the clock at each of its writes.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

WORD = " word"


@dataclass(frozen=True)
class Script:
    """What the server does with one request; by default it answers well and at once."""

    first_s: float = 0.0  # pause before the first event with text
    gap_s: float = 0.0  # pause between two writes
    tokens: int | None = None  # events with text; None: as many as were asked for
    per_write: int = 1  # events with text in one write
    usage: bool = True
    extra_prompt_tokens: int = 0  # what a chat template would add to the count
    role_first: bool = False  # an event that carries the role and no text
    empty_deltas: int = 0  # events with empty text before each write
    status: int = 200
    answer: dict | None = None  # sent as plain JSON instead of a stream
    end: str = "done"  # or: reset, stall, close, cut, silence, or one of ENDINGS


@dataclass
class Received:
    """One request as the server saw it; ``written_ns`` has one stamp per event with text."""

    path: str
    headers: dict[str, str]
    body: dict
    written_ns: list[int] = field(default_factory=list)
    ended_by_client: bool = False

    @property
    def prompt(self) -> str | list[int]:
        return self.body["prompt"] if "prompt" in self.body else self.body["messages"][0]["content"]


class MockServer:
    """``script`` may be a function of a request's number (from 0) and body."""

    def __init__(self, script: Script | Callable[[int, dict], Script] = Script()):  # noqa: B008 - frozen
        self.script = script if callable(script) else lambda number, body: script
        self.received: list[Received] = []
        self.at_once = self.most_at_once = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> MockServer:
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        self._server = server
        self._thread = threading.Thread(target=self._loop.run_forever, name="mock-server")
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def wait_until(self, true: Callable[[], bool], timeout_s: float = 10) -> bool:
        """Whether ``true()`` holds within ``timeout_s``."""
        deadline = time.perf_counter() + timeout_s
        while not true() and time.perf_counter() < deadline:
            time.sleep(0.01)
        return true()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            request = Received(head[0].split()[1], headers, body)
            self.received.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            gone = asyncio.ensure_future(reader.read())  # ends when the client closes
            answering = asyncio.ensure_future(_answer(self.script(len(self.received) - 1, body), request, writer))
            try:
                await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
                request.ended_by_client = not answering.done()
            finally:
                self.at_once -= 1
                gone.cancel()
                answering.cancel()
                await asyncio.gather(gone, answering, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.close()


async def _answer(script: Script, request: Received, writer: asyncio.StreamWriter) -> None:
    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    def event(content: dict | str) -> bytes:
        return f"data: {content if isinstance(content, str) else json.dumps(content)}\n\n".encode()

    def choice(text: str, **more) -> bytes:
        chat = {"delta": {"content": text}} if request.path.endswith("/chat/completions") else {"text": text}
        return event({"choices": [{"index": 0, "finish_reason": None, **chat, **more}]})

    if script.end == "silence":
        return
    if script.answer is not None or script.status != 200:
        content = json.dumps(script.answer or {}).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % script.status)
        writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(content), content))
        return
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    writer.write(head + (chunk(event({"choices": [{"delta": {"role": "assistant"}}]})) if script.role_first else b""))
    tokens = request.body["max_tokens"] if script.tokens is None else script.tokens
    await asyncio.sleep(script.first_s)
    for start in range(0, tokens, script.per_write):
        if start:
            await asyncio.sleep(script.gap_s)
        if script.empty_deltas:
            writer.write(chunk(choice("") * script.empty_deltas))
            await asyncio.sleep(script.gap_s)
        together = min(script.per_write, tokens - start)
        writer.write(chunk(choice(WORD) * together))
        request.written_ns += [time.perf_counter_ns()] * together
    await _end(script, request, writer, tokens, chunk, event, choice)


async def _end(script: Script, request: Received, writer: asyncio.StreamWriter, tokens: int, chunk, event, choice) -> None:
    if script.end == "reset":
        await asyncio.sleep(0.05)  # what was written arrives first
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: RST, not FIN
        writer.transport.abort()
    elif script.end == "stall":
        await asyncio.sleep(3600)
    elif script.end == "cut":
        writer.write(b"ff\r\ndata: {")
    elif script.end in ENDINGS:
        writer.write(chunk(event(ENDINGS[script.end])) + b"0\r\n\r\n")
    elif script.end == "close":
        writer.write(b"0\r\n\r\n")
    else:
        prompt = request.prompt
        counted = (len(prompt) if isinstance(prompt, list) else len(prompt.split())) + script.extra_prompt_tokens
        usage = {"prompt_tokens": counted, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 0}}
        last = choice("", finish_reason="length") + (event({"choices": [], "usage": usage}) if script.usage else b"")
        writer.write(chunk(last + event("[DONE]")) + b"0\r\n\r\n")


ENDINGS = {
    "malformed": '{"choices": [',
    "not an object": "5",
    "odd usage": {"choices": [], "usage": "none"},
    "odd text": {"choices": [{"text": 5}]},
    "error": {"error": {"message": "out of blocks", "code": 500}},
}
