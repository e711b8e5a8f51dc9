"""A load client for OpenAI-compatible servers: stamps at the socket (``connection``), parses afterwards (``stream``).

Closed loop: so many users, each sending its next request when its last one has ended. Open
loop: requests arrive at random, however busy the server is. Talks are either, with turns that
wait for each other. A request that a server refuses (HTTP 429) has failed: it is not sent again, and
a Retry-After is told and not waited for, as that would be another load than the one asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from helpers.bench import connection, stream
from helpers.bench.connection import Reply
from helpers.bench.talks import Talk, Writer
from helpers.bench.timing import Asked, Sample
from helpers.bench.workload import Prompt, arrivals

CONNECT_AHEAD_S = 0.25  # an open loop's connection is opened so long before its request is due
MOST_WAITING_BYTES = 32 << 20  # of answers that have ended and are not read; in memory they take about twice as much
_VISIBLE = re.compile("[!-~]+")  # what may stand in a request's head


class EndpointError(RuntimeError):
    """An endpoint did not answer as an OpenAI-compatible server does."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go and what this server wants to see in them.

    ``fields(output_tokens)`` returns the request fields that fix the output length there.
    """

    base_url: str  # "http://127.0.0.1:8000/v1"
    model: str
    route: Literal["completions", "chat"] = "completions"
    token_ids: bool = False  # takes a list of token ids as the prompt
    fields: Callable[[int], Mapping] = lambda output_tokens: {}
    api_key: str | None = field(default=None, repr=False)
    context: int | None = None  # tokens a request may hold, prompt and answer, where that is known
    cache_fields: Mapping = field(default_factory=dict)  # request fields that let the server's prefix cache help

    def __post_init__(self):
        try:
            url = urlsplit(self.base_url)
            good = url.scheme in ("http", "https") and url.hostname and url.port != 0 and _VISIBLE.fullmatch(self.base_url)
        except ValueError:  # a port that is none, half an IPv6 address
            good = False
        if not good:
            asked = "http(s)://host[:port]/path: give one like http://127.0.0.1:8000/v1"
            raise ValueError(f"base URL {self.base_url!r} is not {asked}")
        if self.api_key and not _VISIBLE.fullmatch(self.api_key):
            raise ValueError("the API key holds a space, a line break or a letter beyond ASCII: give the key alone")

    def cached(self) -> Endpoint:
        """The same endpoint with its prefix cache allowed to help."""
        return replace(self, fields=lambda output_tokens: {**self.fields(output_tokens), **self.cache_fields})

    def body(self, prompt: Prompt, output_tokens: int) -> dict:
        """The JSON of one streamed, greedy request."""
        messages = prompt.messages or (("user", prompt.text),)
        content = {"messages": [{"role": role, "content": text} for role, text in messages]}
        if self.route == "completions":
            content = {"prompt": list(prompt.token_ids) if self.token_ids else prompt.text}
        return {
            "model": self.model, **content, "max_tokens": output_tokens, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}, **self.fields(output_tokens),
        }  # fmt: skip

    def request_bytes(self, prompt: Prompt, output_tokens: int) -> bytes:
        """The request as it goes out."""
        url = urlsplit(self.base_url)
        path = url.path.rstrip("/") + ("/chat/completions" if self.route == "chat" else "/completions")
        body = json.dumps(self.body(prompt, output_tokens)).encode()
        head = {
            f"POST {path} HTTP/1.1\r\nHost": url.netloc.rpartition("@")[2],
            "Content-Type": "application/json",
            "Content-Length": len(body),
            "Accept": "text/event-stream",
        } | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {})
        return "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n" + body

    async def connect(self, timeout_s: float) -> connection.Connection:
        """An open connection to this endpoint; :class:`~helpers.bench.connection.Refused` if there is none to be had."""
        url = urlsplit(self.base_url)
        secure = url.scheme == "https"
        return await connection.connect(url.hostname, url.port or (443 if secure else 80), secure=secure, timeout_s=timeout_s)

    def too_long(self, prompt: Prompt, output_tokens: int) -> str | None:
        """Why the request is not sent: some servers do not survive one beyond their context."""
        asked = len(prompt.token_ids or prompt.text.split()) + output_tokens
        if asked <= (self.context or asked):
            return None
        return f"too long: {asked} tokens in and out, and the context is {self.context}; ask for fewer"


class _User:
    """Sends requests one after the other, over one connection while the server keeps it open."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, on_send: Callable[[Reply], None] = lambda reply: None):
        self.endpoint, self.timeout_s, self.on_send = endpoint, timeout_s, on_send
        self.connection: connection.Connection | None = None

    async def ready(self) -> None:
        """Have an open connection, before the clock of the next request starts."""
        if self.connection is None or not self.connection.usable:
            self.connection = await self.endpoint.connect(self.timeout_s)

    async def ask(self, request: bytes) -> Reply:
        """Send ``request`` and return what came back, however it ended.

        A server may close a kept connection at any time; a request that met this is sent once more
        (RFC 9112, section 9.3.1).
        """
        kept = self.connection is not None and self.connection.usable and self.connection.answers > 0
        answer = await self._once(request)
        stalled = answer.problem and answer.problem.startswith("stalled")
        return await self._once(request) if kept and not answer.stamps_ns and not stalled else answer

    async def _once(self, request: bytes) -> Reply:
        try:
            await self.ready()
        except connection.Refused as error:
            return Reply(time.perf_counter_ns(), problem=f"refused: {error}")
        answer = self.connection.send(request)
        if under_way := self.connection.answer:  # none where the connection broke at once
            self.on_send(under_way)
        try:
            return await asyncio.wait_for(asyncio.shield(answer), self.timeout_s)
        except TimeoutError:
            return self.connection.give_up(f"stalled: no end within {self.timeout_s:g} s")

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


async def request(
    endpoint: Endpoint,
    prompt: Prompt,
    output_tokens: int,
    *,
    timeout_s: float = 120,
    on_send: Callable[[Reply], None] = lambda reply: None,
) -> Sample:
    """Send one request and return what happened, errors included; never raises for the server's sake.

    ``on_send`` is given the :class:`~helpers.bench.connection.Reply` that fills while the answer comes: whoever wants to
    see it grow reads it (:func:`helpers.bench.stream.read`) from time to time, and the stamps stay the socket's.
    """
    how = {"users": 1, "output_tokens": output_tokens, "timeout_s": timeout_s, "on_send": on_send}
    (sample,) = await closed_loop(endpoint, [prompt], **how)
    return sample


async def closed_loop(
    endpoint: Endpoint,
    prompts: Sequence[Prompt],
    *,
    users: int,
    output_tokens: int,
    timeout_s: float = 120,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_send: Callable[[Reply], None] = lambda reply: None,
) -> list[Sample]:
    """``users`` users, each sending its next request when its last one has ended.

    All have an open connection before the first request is sent. Returns one sample per prompt,
    in the order they ended. Cancelling it closes every connection. ``on_send`` as in :func:`request`.
    """
    if users < 1:
        raise ValueError(f"users={users}: a load needs at least one user")
    connection.room_for(min(users, len(prompts)))
    requests = [(endpoint.too_long(p, output_tokens), endpoint.request_bytes(p, output_tokens)) for p in prompts]
    waiting = iter(requests)

    async def work(user: _User, reader: _Reader) -> None:
        for refusal, data in waiting:
            reader.put(Reply(time.perf_counter_ns(), problem=refusal) if refusal else await user.ask(data))

    everyone = [_User(endpoint, timeout_s, on_send) for _ in range(min(users, len(prompts)))]
    async with _reader(on_sample) as reader:
        try:
            if not all(refusal for refusal, _ in requests):
                await asyncio.gather(*(user.ready() for user in everyone), return_exceptions=True)
            async with asyncio.TaskGroup() as group:
                for user in everyone:
                    group.create_task(work(user, reader))
        finally:
            for user in everyone:
                user.close()
    return reader.samples


async def open_loop(
    endpoint: Endpoint,
    prompts: Sequence[Prompt],
    *,
    rate_per_s: float,
    seed: int,
    output_tokens: int,
    timeout_s: float = 120,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_send: Callable[[Reply], None] = lambda reply: None,
) -> list[Sample]:
    """Requests that arrive at random, whether the last ones have ended or not: a Poisson process, seeded.

    A request that could not be sent when it was due says so in its ``queue_s``. ``on_send`` as in :func:`request`.
    """
    moments_s, start_ns = arrivals(len(prompts), rate_per_s, seed), time.perf_counter_ns() + int(CONNECT_AHEAD_S * 1e9)
    due_ns = [start_ns + int(at_s * 1e9) for at_s in moments_s]

    async def work(prompt: Prompt, at_ns: int, reader: _Reader) -> None:
        data, user = endpoint.request_bytes(prompt, output_tokens), _User(endpoint, timeout_s, on_send)
        try:
            await _until(at_ns - int(CONNECT_AHEAD_S * 1e9))
            with suppress(connection.Refused):
                await user.ready()
            await _until(at_ns)
            reader.put(await user.ask(data), at_ns)
        finally:
            user.close()

    async with _reader(on_sample) as reader:
        async with asyncio.TaskGroup() as group:
            for prompt, at_ns in zip(prompts, due_ns):
                group.create_task(work(prompt, at_ns, reader))
    return reader.samples


async def talks(
    endpoint: Endpoint,
    talks: Sequence[Talk],
    writer: Writer,
    *,
    users: int | None = None,
    timeout_s: float = 120,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_send: Callable[[Reply], None] = lambda reply: None,
) -> list[Sample]:
    """Conversations: each turn is sent when the last one has ended and was thought about, whether it succeeded or not.

    With ``users``, so many go on at once, and a user begins the next when one is over; all requests are written down
    before the first is sent. Without, each begins at its own ``at_s``, however busy the server is. ``on_send`` as in
    :func:`request`.
    """
    if users is not None and users < 1:
        raise ValueError(f"users={users}: a load needs at least one user")
    connection.room_for(min(users or 0, len(talks)))
    spoken = [_Spoken(endpoint, writer, talk, number) for number, talk in enumerate(talks)]
    everyone = [_User(endpoint, timeout_s, on_send) for _ in range(len(talks) if users is None else min(users, len(talks)))]
    async with _reader(on_sample) as reader:
        try:
            if users is None:
                start_ns = time.perf_counter_ns() + int(CONNECT_AHEAD_S * 1e9)
                speaking = [_at_its_time(each, user, reader, start_ns) for each, user in zip(spoken, everyone)]
            else:
                for each in spoken:
                    each.write_down()
                await asyncio.gather(*(user.ready() for user in everyone), return_exceptions=True)
                waiting = iter(spoken)
                speaking = [_one_by_one(waiting, user, reader) for user in everyone]
            async with asyncio.TaskGroup() as group:
                for one in speaking:
                    group.create_task(one)
        finally:
            for user in everyone:
                user.close()
    return reader.samples


class _Spoken:
    """A talk on its way: its requests in bytes, and the sending of them one after the other."""

    def __init__(self, endpoint: Endpoint, writer: Writer, talk: Talk, number: int):
        self.endpoint, self.writer, self.talk, self.number = endpoint, writer, talk, number
        self.written: dict[int, tuple[str | None, bytes, Asked]] = {}

    def write_down(self) -> None:
        for turn in range(len(self.talk.turns)):
            self.written[turn] = self.request(turn)

    def request(self, number: int) -> tuple[str | None, bytes, Asked]:
        """Of a turn: why its request is not sent, if so, its bytes, and what it is held against."""
        if number in self.written:
            return self.written.pop(number)
        turn, endpoint = self.talk.turns[number], self.endpoint
        prompt, asked = self.writer.prompt(turn.parts), turn.asked(self.number, number, chat=endpoint.route == "chat")
        return endpoint.too_long(prompt, turn.output_tokens), endpoint.request_bytes(prompt, turn.output_tokens), asked

    async def speak(self, user: _User, reader: _Reader, due_ns: int | None = None) -> None:
        """Send every turn; the first one at ``due_ns``."""
        for number, turn in enumerate(self.talk.turns):
            refusal, data, asked = self.request(number)
            if turn.think_s and number:
                due_ns = time.perf_counter_ns() + int(turn.think_s * 1e9)
            if due_ns is not None:
                await _until(due_ns)
            reply = Reply(time.perf_counter_ns(), problem=refusal) if refusal else await user.ask(data)
            reader.put(reply, due_ns, asked)
            due_ns = None


async def _at_its_time(spoken: _Spoken, user: _User, reader: _Reader, start_ns: int) -> None:
    due_ns = start_ns + int(spoken.talk.at_s * 1e9)
    try:
        await _until(due_ns - int(CONNECT_AHEAD_S * 1e9))
        spoken.written[0] = spoken.request(0)
        with suppress(connection.Refused):
            await user.ready()
        await spoken.speak(user, reader, due_ns)
    finally:
        user.close()


async def _one_by_one(waiting: Iterator[_Spoken], user: _User, reader: _Reader) -> None:
    for spoken in waiting:
        await spoken.speak(user, reader)


async def _until(at_ns: int) -> None:
    await asyncio.sleep(max(at_ns - time.perf_counter_ns(), 0) / 1e9)


class _Reader:
    """Turns answers into samples, one in a turn of the loop, so that sockets are read in between.

    Where answers end faster than that, those that wait would fill the memory: it reads on until few enough are left. The
    sockets wait meanwhile, their stamps are the system's, and the lag says it.
    """

    def __init__(self, on_sample: Callable[[Sample], None]):
        self.on_sample, self.samples, self.queue = on_sample, [], asyncio.Queue()
        self.waiting_bytes = 0

    def put(self, answer: Reply, scheduled_ns: int | None = None, asked: Asked | None = None) -> None:
        self.waiting_bytes += answer.size_bytes
        self.queue.put_nowait((answer, scheduled_ns, asked))

    async def work(self) -> None:
        while (item := await self.queue.get()) is not None:
            *seen, asked = item
            sample = stream.read(*seen)
            sample = replace(sample, asked=asked) if asked else sample
            self.samples.append(sample)
            self.on_sample(sample)
            self.waiting_bytes -= seen[0].size_bytes
            if self.waiting_bytes <= MOST_WAITING_BYTES:
                await asyncio.sleep(0)


@asynccontextmanager
async def _reader(on_sample: Callable[[Sample], None]) -> AsyncIterator[_Reader]:
    """A :class:`_Reader` at work; what was put is read when the block ends."""
    reader = _Reader(on_sample)
    task = asyncio.create_task(reader.work())
    try:
        yield reader
        reader.queue.put_nowait(None)
        await task
    finally:
        task.cancel()


def run(coroutine, *, meanwhile: Callable[[], None] | None = None, every_s: float = 0.1):
    """Run ``coroutine`` to its end, also where an event loop runs already (a notebook's kernel).

    It gets a loop and a thread of its own; an interrupt here cancels it there. ``meanwhile`` is called here every
    ``every_s`` until the end, so that something can be shown; if it raises, the coroutine is cancelled.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    outcome = {}

    def work() -> None:
        try:
            outcome["value"] = loop.run_until_complete(task)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread below
            outcome["error"] = error
        finally:
            loop.close()

    thread = threading.Thread(target=work, name="helpers.bench.client", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(every_s if meanwhile else None)
            if meanwhile:
                meanwhile()
    except BaseException:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(task.cancel)
        thread.join(5)
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
