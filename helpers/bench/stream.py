"""From the bytes of an answer and their stamps to a :class:`~helpers.bench.timing.Sample`: events, text, counts, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator

from helpers.bench.connection import Reply
from helpers.bench.timing import Sample


class _Bad(ValueError):
    """What is wrong with an answer, as ``kind: detail``."""


def read(answer: Reply, scheduled_ns: int | None = None) -> Sample:
    """The :class:`Sample` of ``answer``; what is wrong with it is its ``error``, never an exception.

    One stamp and one lag per event with text: events that came in one read share them.
    """
    times, pieces, usage, finish_reason, done = [], [], {}, None, False
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
                text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                finish_reason = choice.get("finish_reason") or finish_reason
                if text:
                    pieces.append("" + text)
                    times.append(index)
        if not problem and not answer.whole:
            raise _Bad("ended early: the connection closed in the middle of the answer")
        if not problem and not done and finish_reason is None:
            raise _Bad("ended early: the stream stopped without a finish reason")
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
        cached_tokens=usage.get("cached_tokens"), finish_reason=finish_reason, pieces=tuple(pieces), error=problem,
    )  # fmt: skip


def _check_head(answer: Reply, kind: str) -> None:
    if answer.status is None:
        raise _Bad("ended early: the server closed without an answer")
    if answer.status != 200:
        raise _Bad(f"HTTP {answer.status}: {_message(b''.join(part for _, part in answer.parts))}")
    if "event-stream" not in kind:
        raise _Bad(f"not a stream: content type {kind or 'missing'!r} instead of text/event-stream")


def _events(answer: Reply) -> Iterator[tuple[int, dict | None]]:
    """The events of the body, each with the number of the read that completed it; ``[DONE]`` is ``None``."""
    rest: list[bytes] = []
    for index, part in answer.parts:
        first, *others = part.split(b"\n")
        rest.append(first)
        for following in others:
            line, rest = b"".join(rest), [following]
            if line.startswith(b"data:"):
                payload = line[5:].strip()
                yield index, None if payload == b"[DONE]" else _event(payload)


def _event(payload: bytes) -> dict:
    event = json.loads(payload)
    if event.get("error"):
        raise _Bad(f"server error: {_message(payload)}")
    return event


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
