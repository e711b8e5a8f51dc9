"""From the bytes of an answer and their stamps to a :class:`~helpers.bench.timing.Sample`: events, text, counts, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

from helpers.bench.connection import Reply
from helpers.bench.timing import Sample

KNOWN = ("role", "content", "reasoning_content", "reasoning", "tool_calls", "name", "id")  # in a delta


class _Bad(ValueError):
    """What is wrong with an answer, as ``kind: detail``."""


def read(answer: Reply, scheduled_ns: int | None = None) -> Sample:
    """The :class:`Sample` of ``answer``; what is wrong with it is its ``error``, never an exception.

    One stamp and one lag per event with text: events that came in one read share them.
    """
    times, pieces, kinds, usage, finish_reason, done = [], [], [], {}, None, False
    kind = answer.headers.get("content-type", "")
    problem = answer.problem
    try:
        if problem is None or answer.status not in (None, 200):
            _check_head(answer, kind)
        for index, event in _events(answer):
            if event is None:
                done = True
                continue
            usage = _counts(event.get("usage")) or usage
            for choice in event.get("choices") or ():
                kind, said = _said(choice)
                finish_reason = choice.get("finish_reason") or finish_reason
                if said:
                    pieces.append("" + said)
                    kinds.append(kind)
                    times.append(index)
        if not problem and not answer.whole:
            raise _Bad("ended early: the connection closed in the middle of the answer")
        if not problem and not done and finish_reason is None:
            raise _Bad("ended early: the stream stopped without a finish reason")
        if not problem and not times and usage.get("completion_tokens"):
            raise _Bad(f"unseen: the server counts {usage['completion_tokens']} tokens, and no event carried one that is known")
    except _Bad as error:
        problem = str(error)
    except (ValueError, AttributeError, TypeError) as error:  # JSON, UTF-8, or of another shape
        problem = problem or f"malformed: {_detail(str(error))}"
    lags = tuple(answer.lags_ns[i] for i in times)
    return Sample(
        answer.sent_ns, tuple(answer.stamps_ns[i] for i in times), scheduled_ns=scheduled_ns,
        lag_ns=None if None in lags else lags, prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens", len(times)),
        token_source="server_usage" if "completion_tokens" in usage else "events",
        cached_tokens=usage.get("cached_tokens"), finish_reason=finish_reason, pieces=tuple(pieces),
        kinds=tuple(kinds) if {*kinds} - {"text"} else (), error=problem,
    )  # fmt: skip


def _said(choice: dict) -> tuple[str, str]:
    """What an event carries of tokens, and its kind.

    Reasoning is ``reasoning_content`` in SGLang, llama.cpp and older vLLM, ``reasoning`` in newer vLLM.
    """
    delta = choice.get("delta") or {}
    if text := choice.get("text") or delta.get("content"):
        return "text", text
    if thought := delta.get("reasoning_content") or delta.get("reasoning"):
        return "reasoning", thought
    if hidden := [key for key, value in delta.items() if key not in KNOWN and value and isinstance(value, str)]:
        raise _Bad(f"unseen: an event carries {hidden[0]!r}, whose tokens this client does not know")
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
    return "tool call", "".join((call.get("name") or "") + (call.get("arguments") or "") for call in calls)


def _check_head(answer: Reply, kind: str) -> None:
    if answer.status is None:
        raise _Bad("ended early: the server closed without an answer")
    if 300 <= answer.status < 400:
        raise _Bad(f"HTTP {answer.status}: redirected to {answer.headers.get('location', 'nowhere')}; give that address")
    if answer.status != 200:
        raise _Bad(f"HTTP {answer.status}: {_message(b''.join(part for _, part in answer.parts))}")
    if "event-stream" not in kind:
        raise _Bad(f"not a stream: content type {kind or 'missing'!r} instead of text/event-stream")
    if (packed := answer.headers.get("content-encoding", "identity")) != "identity":
        raise _Bad(f"compressed: the server sends {packed}, which was not asked for and hides when a token came")


def _events(answer: Reply) -> Iterator[tuple[int, dict | None]]:
    """The events of the body, each with the number of the read that completed it; ``[DONE]`` is ``None``.

    An event's JSON may stand on several ``data:`` lines (HTML standard, *Server-sent events*).
    """
    rest: list[bytes] = []
    held = b""
    for index, part in answer.parts:
        first, *others = part.split(b"\n")
        rest.append(first)
        for following in others:
            line, rest = b"".join(rest), [following]
            if line.startswith(b"data:"):
                payload = held + line[5:].strip()
                event, held = (None, b"") if payload == b"[DONE]" else _event(payload)
                if not held:
                    yield index, event
            elif held and not line.strip():
                json.loads(held)  # the event is over, and says what is wrong with it


def _event(payload: bytes) -> tuple[dict, bytes]:
    """The event, or so much of one as more lines may complete."""
    try:
        event = json.loads(payload)
    except json.JSONDecodeError:
        return {}, payload + b"\n"
    if event.get("error"):
        raise _Bad(f"server error: {_message(payload)}")
    return event, b""


def _counts(usage: dict | None) -> dict[str, int]:
    counts = {**(usage or {}), **((usage or {}).get("prompt_tokens_details") or {})}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def _message(body: bytes) -> str:
    """The server's own words out of an error's JSON (``error.message``, ``error``, ``detail`` or ``message``), or all of it."""
    text = body.decode(errors="replace")
    try:
        said = json.loads(text)
        said = said.get("error") or said.get("detail") or said.get("message")
        said = said.get("message") if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        said = None
    return _detail(said if isinstance(said, str) and said.strip() else text)


def _detail(text: str) -> str:
    return " ".join(text.split())[:200]
