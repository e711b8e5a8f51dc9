"""What the truth server says, and what it keeps: a script, the writes that follow from it, a note of what was done.

A *write* is ``(pause_s, bytes, events, tokens, end)``: so long after the last one was due, these
bytes, holding so many pieces of an answer (one event, or one kind of an event of several kinds) and
so many tokens; ``end`` is how the answer ends with it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice, repeat

WORD = " word"
LONG_LINE_BYTES, PIECE_BYTES = 200_000_000, 1_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

Write = tuple[float, bytes, int, int, str | None]


@dataclass(frozen=True)
class Script:
    """What the server does with one request; by default it answers well and at once."""

    first_s: float = 0.0  # from the request to the first event with text
    gap_s: float = 0.0  # between two writes
    jitter_s: float = 0.0  # each pause is longer by a seeded random time up to this
    tokens: int | None = None  # None: as many as were asked for
    tokens_per_event: int = 1
    events_per_write: int = 1
    usage: bool = True
    extra_prompt_tokens: int = 0  # what a chat template would add to the count
    cached_tokens: int = 0
    role_first: bool = False  # an event that carries the role and no text
    reasoning_tokens: int = 0  # so many first tokens go out as ``reasoning_key``, on the chat route
    reasoning_key: str = "reasoning_content"  # or: reasoning, tool_calls, refusal
    kinds: tuple[str, ...] = ()  # of each event on the chat route, as "content" or "reasoning+content"; the last one goes on
    running_usage: bool = False  # every event tells how many tokens there were so far
    counted_tokens: int | None = None  # what usage says at the end; None: what was sent
    empty_deltas: int = 0  # events with empty text before each write
    status: int = 200
    answer: dict | None = None  # sent as plain JSON instead of a stream
    end: str = "done"  # or: reset, stall, close, cut, silence, trickle, long line, or one of ENDINGS


@dataclass
class Served:
    """One request as the server saw it; ``written_ns`` has one stamp per event with text."""

    path: str
    headers: dict[str, str]
    body: dict
    received_ns: int  # the arrival of the packet that made the request whole
    written_ns: list[int] = field(default_factory=list)
    tokens: int = 0
    ended: str | None = None  # "done", "client left", or the script's end; None while it runs

    @property
    def prompt(self) -> str | list[int]:
        return said(self.body)

    def to_dict(self) -> dict:
        """What ``GET /truth`` tells of it."""
        return {name: getattr(self, name) for name in ("path", "received_ns", "written_ns", "tokens", "ended")}


def said(body: Mapping) -> str | list[int]:
    """The prompt of a request: text, or ids; of a chat, its messages one after the other."""
    return body["prompt"] if "prompt" in body else "".join(message["content"] for message in body["messages"])


ENDINGS = {
    "malformed": b'{"choices": [',
    "not an object": b"5",
    "odd usage": b'{"choices": [], "usage": "none"}',
    "odd text": b'{"choices": [{"text": 5}]}',
    "not utf-8": b'{"choices": [{"text": "\xff\xfe"}]}',
    "error": b'{"error": {"message": "out of blocks", "code": 500}}',
}


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk of HTTP/1.1's chunked encoding (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(content: Mapping | bytes) -> bytes:
    """One server-sent event."""
    return b"data: %s\n\n" % (content if isinstance(content, bytes) else json.dumps(content).encode())


def plain(status: int, content: Mapping) -> bytes:
    """A whole answer in JSON."""
    body = json.dumps(content).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def text(content: str) -> bytes:
    """A whole answer in Prometheus' text format."""
    body = content.encode()
    kind = b"text/plain; version=0.0.4; charset=utf-8"
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body)


def writes(script: Script, path: str, body: Mapping, number: int) -> Iterator[Write]:
    """The writes that answer request ``number`` on ``path``."""
    draw = random.Random(number)

    def pause(seconds: float) -> float:
        return seconds + (draw.uniform(0, script.jitter_s) if script.jitter_s else 0.0)

    tokens = (body.get("max_completion_tokens") or body["max_tokens"]) if script.tokens is None else script.tokens
    if script.end == "silence":
        yield 0.0, b"", 0, 0, "silence"
    elif script.answer is not None or script.status != 200:
        yield pause(script.first_s), plain(script.status, script.answer or {}), 0, 0, "done"
    elif not body.get("stream"):
        whole_s = sum((pause(script.gap_s) for _ in range(tokens - 1)), pause(script.first_s))
        yield whole_s, plain(200, _whole(script, path, body, tokens)), 1, tokens, "done"
    else:
        yield from _stream(script, path, body, tokens, pause)


def _stream(script: Script, path: str, body: Mapping, tokens: int, pause) -> Iterator[Write]:
    base = {"id": "truth-1", "object": "chat.completion.chunk" if _is_chat(path) else "text_completion", "created": 1}
    base["model"] = body.get("model", "truth")

    def choice(text: str, usage: Mapping | None = None, **more) -> bytes:
        carried = {"delta": {"content": text}} if _is_chat(path) else {"text": text}
        counted = {"usage": usage} if usage else {}
        return event({**base, "choices": [{"index": 0, "finish_reason": None, **carried, **more}], **counted})

    role = event({**base, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}) if script.role_first else b""
    yield 0.0, HEAD + (chunk(role) if role else b""), 0, 0, None
    if script.kinds or script.running_usage:
        yield from _of_kinds(script, body, tokens, pause, choice)
        yield from _ending(script, base, body, tokens, choice)
        return
    together = script.events_per_write * script.tokens_per_event
    empty = chunk(choice("") * script.empty_deltas) if script.empty_deltas else b""
    usual = chunk(choice(WORD * script.tokens_per_event) * script.events_per_write)
    thought = chunk(choice("", delta=_delta(script.reasoning_key, WORD * script.tokens_per_event)) * script.events_per_write)
    for start in range(0, tokens, together):
        wait_s = pause(script.gap_s if start else script.first_s)
        if empty:
            yield wait_s, empty, 0, 0, None
            wait_s = script.gap_s
        rest = tokens - start
        if rest >= together:
            yield wait_s, thought if start < script.reasoning_tokens else usual, script.events_per_write, together, None
        else:
            sizes = [min(script.tokens_per_event, rest - i) for i in range(0, rest, script.tokens_per_event)]
            yield wait_s, chunk(b"".join(choice(WORD * size) for size in sizes)), len(sizes), rest, None
    yield from _ending(script, base, body, tokens, choice)


def _of_kinds(script: Script, body: Mapping, tokens: int, pause, choice) -> Iterator[Write]:
    """Writes whose events are of :attr:`Script.kinds`, and tell the tokens so far where the script wants it."""
    sent, deltas = 0, _deltas(script, tokens)
    while together := list(islice(deltas, script.events_per_write)):
        events, before = [], sent
        for delta, size in together:
            sent += size
            usage = _usage(script, body, sent) if script.running_usage else None
            events.append(choice("", usage, delta=delta) if script.kinds else choice(delta["content"], usage))
        pieces = sum(len(delta) for delta, _ in together)
        yield pause(script.gap_s if before else script.first_s), chunk(b"".join(events)), pieces, sent - before, None


def _deltas(script: Script, tokens: int) -> Iterator[tuple[dict, int]]:
    """Deltas of so many tokens in all, each with the number of its own; every kind in one has ``tokens_per_event``."""
    kinds = chain(script.kinds, repeat(script.kinds[-1] if script.kinds else "content"))
    while tokens > 0:
        delta, before = {}, tokens
        for kind in next(kinds).split("+"):
            size = min(script.tokens_per_event, tokens)
            tokens -= size
            delta |= _delta(kind, WORD * size) if size else {}
        yield delta, before - tokens


def _delta(key: str, words: str) -> dict:
    """A delta that says ``words`` under ``key``."""
    if key == "tool_calls":
        return {key: [{"index": 0, "function": {"arguments": words}}]}
    return {key: {"arguments": words} if key == "function_call" else words}


def _ending(script: Script, base: Mapping, body: Mapping, tokens: int, choice) -> Iterator[Write]:
    if script.end == "reset":
        yield 0.05, b"", 0, 0, "reset"  # what was written arrives first
    elif script.end == "stall":
        yield 0.0, b"", 0, 0, "stall"
    elif script.end == "cut":
        yield 0.0, b"ff\r\ndata: {", 0, 0, "cut"
    elif script.end == "close":
        yield 0.0, LAST_CHUNK, 0, 0, "close"
    elif script.end == "trickle":
        for byte in event({**base, "choices": []}) * 1000:
            yield 1.0, chunk(bytes([byte])), 0, 0, None
        yield 0.0, LAST_CHUNK, 0, 0, "trickle"
    elif script.end == "long line":
        piece = chunk(b"x" * PIECE_BYTES)
        for _ in range(LONG_LINE_BYTES // PIECE_BYTES):
            yield 0.0, piece, 0, 0, None
        yield 0.0, LAST_CHUNK, 0, 0, "long line"
    elif script.end in ENDINGS:
        yield 0.0, chunk(event(ENDINGS[script.end])) + LAST_CHUNK, 0, 0, "close"
    else:
        asked = script.usage and (body.get("stream_options") or {}).get("include_usage")
        told = event({**base, "choices": [], "usage": _usage(script, body, script.counted_tokens or tokens)}) if asked else b""
        yield 0.0, chunk(choice("", finish_reason="length") + told + event(b"[DONE]")) + LAST_CHUNK, 0, 0, "done"


def _whole(script: Script, path: str, body: Mapping, tokens: int) -> dict:
    text = WORD * tokens
    content = {"message": {"role": "assistant", "content": text}} if _is_chat(path) else {"text": text}
    answer = {"id": "truth-1", "object": "chat.completion" if _is_chat(path) else "text_completion", "created": 1}
    answer |= {"model": body.get("model", "truth"), "choices": [{"index": 0, "finish_reason": "length", **content}]}
    return {**answer, "usage": _usage(script, body, tokens)} if script.usage else answer


def _usage(script: Script, body: Mapping, tokens: int) -> dict:
    prompt = said(body)
    counted = (len(prompt) if isinstance(prompt, list) else len(prompt.split())) + script.extra_prompt_tokens
    details = {"cached_tokens": script.cached_tokens}
    total = counted + tokens
    return {"prompt_tokens": counted, "completion_tokens": tokens, "total_tokens": total, "prompt_tokens_details": details}


def _is_chat(path: str) -> bool:
    return path.endswith("/chat/completions")
