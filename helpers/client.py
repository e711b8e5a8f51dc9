"""A load client for OpenAI-compatible servers: stamps at the socket, parses afterwards.

The time between a token's arrival and the reading of the clock is the client's own error, and
most clients spend it on parsing. Here the socket's callback only stamps and stores the bytes;
HTTP (h11), server-sent events and JSON are read when it has ended. Each request opens its
connection before its clock starts.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from socket import gaierror
from typing import Literal
from urllib.parse import urlsplit

import h11

from helpers.timing import Sample
from helpers.workload import Prompt

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
        content = {"messages": [{"role": "user", "content": prompt.text}]}
        if self.route == "completions":
            content = {"prompt": list(prompt.token_ids) if self.token_ids else prompt.text}
        return {
            "model": self.model, **content, "max_tokens": output_tokens, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}, **self.fields(output_tokens),
        }  # fmt: skip

    def request_bytes(self, prompt: Prompt, output_tokens: int) -> tuple[h11.Connection, bytes]:
        """The request as it goes on the wire, and the h11 state that can read its answer."""
        url = urlsplit(self.base_url)
        path = url.path.rstrip("/") + ("/chat/completions" if self.route == "chat" else "/completions")
        body = json.dumps(self.body(prompt, output_tokens)).encode()
        headers = [
            ("Host", url.netloc.rpartition("@")[2]),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept", "text/event-stream"),
            ("Connection", "close"),
        ]
        if self.api_key:
            headers.append(("Authorization", f"Bearer {self.api_key}"))
        http = h11.Connection(h11.CLIENT)
        wire = http.send(h11.Request(method="POST", target=path, headers=headers))
        return http, wire + http.send(h11.Data(data=body)) + http.send(h11.EndOfMessage())


class _Socket(asyncio.Protocol):
    """Keeps what arrives, with the time it arrived: nothing else happens on this path."""

    def __init__(self):
        self.stamps_ns: list[int] = []
        self.reads: list[bytes] = []
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.stamps_ns.append(time.perf_counter_ns())
        self.reads.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(error)


async def request(endpoint: Endpoint, prompt: Prompt, output_tokens: int, *, timeout_s: float = 120) -> Sample:
    """Send one request and return what happened, errors included; never raises for the server's sake.

    What cannot fit ``endpoint.context`` is not sent: some servers do not survive it.
    """
    asked = len(prompt.token_ids or prompt.text.split()) + output_tokens
    if asked > (endpoint.context or asked):
        problem = f"too long: {asked} tokens in and out, and the context is {endpoint.context}; ask for fewer"
        return Sample(time.perf_counter_ns(), error=problem)
    url = urlsplit(endpoint.base_url)
    http, wire = endpoint.request_bytes(prompt, output_tokens)
    tls = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    loop = asyncio.get_running_loop()
    try:
        connecting = loop.create_connection(_Socket, url.hostname, port, ssl=tls)
        transport, socket = await asyncio.wait_for(connecting, timeout_s)
    except (OSError, UnicodeError) as error:
        problem = f"refused: {url.hostname}:{port} did not take a connection ({_reason(error)})"
        return Sample(time.perf_counter_ns(), error=problem)
    try:
        sent_ns = time.perf_counter_ns()
        transport.write(wire)
        lost = await asyncio.wait_for(asyncio.shield(socket.closed), timeout_s)
        problem = f"reset: the connection broke ({lost})" if lost else None
    except TimeoutError:
        problem = f"stalled: no end within {timeout_s:g} s"
    finally:
        transport.abort()
    return read_answer(http, sent_ns, socket.stamps_ns, socket.reads, problem)


def _reason(error: Exception) -> str:
    if isinstance(error, (gaierror, ssl.SSLError)):  # their errno is not one of the system's
        return _detail(error.strerror or str(error))
    if getattr(error, "errno", None):
        return os.strerror(error.errno)
    return "timed out" if isinstance(error, TimeoutError) else _detail(str(error)) or type(error).__name__


def read_answer(
    http: h11.Connection, sent_ns: int, stamps_ns: Sequence[int], reads: Sequence[bytes], problem: str | None = None
) -> Sample:
    """Turn the bytes of one answer and their stamps into a :class:`Sample`."""
    event_ns, pieces, usage, finish_reason, done = [], [], {}, None, False
    status, kind, rest = None, "", bytearray()
    try:
        for stamp, part in _body_parts(http, stamps_ns, reads):
            if isinstance(part, h11.Response):
                status = part.status_code
                kind = dict(part.headers).get(b"content-type", b"").decode("latin-1")
                continue
            rest += part
            if status != 200 or "event-stream" not in kind:
                continue
            for payload in _events(rest):
                if payload == "[DONE]":
                    done = True
                    continue
                event = json.loads(payload)
                if event.get("error"):
                    raise EndpointError(f"server error: {_detail(payload)}")
                usage = _counts(event.get("usage")) or usage
                for choice in event.get("choices") or ():
                    text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                    finish_reason = choice.get("finish_reason") or finish_reason
                    if text:
                        pieces.append("" + text)
                        event_ns.append(stamp)
    except EndpointError as error:
        problem = problem or str(error)
    except (ValueError, AttributeError, TypeError) as error:
        problem = problem or f"malformed: {_detail(str(error))}"
    if problem is None or status not in (None, 200):
        problem = _verdict(status, kind, rest, ended=done or finish_reason is not None) or problem
    return Sample(
        sent_ns, tuple(event_ns), prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens", len(event_ns)),
        token_source="server_usage" if "completion_tokens" in usage else "events",
        cached_tokens=usage.get("cached_tokens"), finish_reason=finish_reason, text="".join(pieces), error=problem,
    )  # fmt: skip


def _counts(usage: dict | None) -> dict[str, int]:
    counts = {**(usage or {}), **((usage or {}).get("prompt_tokens_details") or {})}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _verdict(status: int | None, kind: str, rest: bytes, *, ended: bool) -> str | None:
    if status is None:
        return "ended early: the server closed without an answer"
    if status != 200:
        return f"HTTP {status}: {_detail(rest.decode(errors='replace'))}"
    if "event-stream" not in kind:
        return f"not a stream: content type {kind or 'missing'!r} instead of text/event-stream"
    return None if ended else "ended early: the stream stopped without a finish reason"


def _detail(text: str) -> str:
    return " ".join(text.split())[:200]


def _body_parts(http: h11.Connection, stamps_ns, reads) -> Iterator[tuple[int, h11.Response | bytes]]:
    """The response head and the body's parts, each with the stamp of the read it came in."""
    for stamp, read in [*zip(stamps_ns, reads), (stamps_ns[-1] if stamps_ns else 0, b"")]:
        if http.their_state is h11.DONE or (not read and http.their_state in (h11.IDLE, h11.SEND_RESPONSE)):
            return
        try:
            http.receive_data(read)
            while (event := http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    yield stamp, event
                elif isinstance(event, h11.Data):
                    yield stamp, bytes(event.data)
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    return
        except h11.RemoteProtocolError as error:
            raise EndpointError(f"{'malformed' if read else 'ended early'}: {error}") from None


def _events(rest: bytearray) -> Iterator[str]:
    """The payloads of the complete ``data:`` lines in ``rest``, which are taken out of it."""
    while (end := rest.find(b"\n")) >= 0:
        line = rest[:end].rstrip(b"\r")
        del rest[: end + 1]
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()


async def closed_loop(
    endpoint: Endpoint,
    prompts: Sequence[Prompt],
    *,
    users: int,
    output_tokens: int,
    timeout_s: float = 120,
    on_sample: Callable[[Sample], None] = lambda sample: None,
) -> list[Sample]:
    """``users`` users, each sending its next request when its last one has ended.

    Returns one sample per prompt, in the order they ended. Cancelling it closes every connection.
    """
    if users < 1:
        raise ValueError(f"users={users}: a load needs at least one user")
    waiting, samples = iter(prompts), []

    async def user() -> None:
        for prompt in waiting:
            sample = await request(endpoint, prompt, output_tokens, timeout_s=timeout_s)
            samples.append(sample)
            on_sample(sample)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(users, len(prompts))):
            group.create_task(user())
    return samples


def run(coroutine):
    """Run ``coroutine`` to its end, also where an event loop runs already (a notebook's kernel).

    It gets a loop and a thread of its own; an interrupt here cancels it there.
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

    thread = threading.Thread(target=work, name="helpers.client", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(task.cancel)
        thread.join(5)
        raise
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]
