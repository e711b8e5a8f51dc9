"""From the bytes of an answer and their stamps to a :class:`~helpers.bench.timing.Sample`: events, text, counts, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from helpers.bench.connection import Reply
from helpers.bench.packed import Numbers, Texts
from helpers.bench.timing import Sample

SAID = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")  # where a delta has tokens
KNOWN = (*SAID, "role", "name", "id")


class _Bad(ValueError):
    """What is wrong with an answer, as ``kind: detail``."""


def read(answer: Reply, scheduled_ns: int | None = None) -> Sample:
    """The :class:`Sample` of ``answer``; what is wrong with it is its ``error``, never an exception.

    One stamp and one lag per piece: events that came in one read share them, and so do an event's text and reasoning.
    """
    heard, problem = _Heard(), answer.problem
    try:
        if problem is None or answer.status not in (None, 200):
            _check_head(answer, answer.headers.get("content-type", ""))
        for index, event in _events(answer):
            heard.take(index, event)
        if not problem:
            heard.check(answer)
    except _Bad as error:
        problem = str(error)
    except (ValueError, AttributeError, TypeError) as error:  # JSON, UTF-8, or of another shape
        problem = problem or f"malformed: {_detail(str(error))}"
    return heard.sample(answer, scheduled_ns, problem)


class _Heard:
    """What was taken from an answer so far."""

    def __init__(self):
        self.times: list[int] = []  # one per piece: the number of the read that completed its event
        self.pieces: list[str] = []
        self.kinds: list[str] = []
        self.running: list[tuple[int, int]] = []  # (pieces, tokens) so far, of each event that says both
        self.events = 0  # with a piece
        self.usage: dict[str, int] = {}
        self.finish_reason, self.done = None, False

    def take(self, index: int, event: dict | None) -> None:
        """Take an event that read ``index`` completed; ``None`` is the end."""
        if event is None:
            self.done = True
            return
        counted, before = event.get("usage"), len(self.times)
        if counted:
            self.usage = _counts(counted) or self.usage
        for choice in event.get("choices") or ():
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            for kind, said in _said(choice):
                self.pieces.append("" + said)
                self.kinds.append(kind)
                self.times.append(index)
        if len(self.times) > before:
            self.events += 1
            if counted and "completion_tokens" in self.usage:
                self.running.append((len(self.times), self.usage["completion_tokens"]))

    def check(self, answer: Reply) -> None:
        """Raise :class:`_Bad` if the answer is not whole, or has tokens that nobody saw."""
        if not answer.whole:
            raise _Bad("ended early: the connection closed in the middle of the answer")
        if not self.done and self.finish_reason is None:
            raise _Bad("ended early: the stream stopped without a finish reason")
        tokens = self.usage.get("completion_tokens")
        if not self.times and tokens:
            raise _Bad(f"unseen: the server counts {tokens} tokens, and no event carried one that is known")

    def sample(self, answer: Reply, scheduled_ns: int | None, problem: str | None) -> Sample:
        """All of it, with the stamps of ``answer``."""
        usage, lags = self.usage, [answer.lags_ns[i] for i in self.times]
        return Sample(
            answer.sent_ns, Numbers([answer.stamps_ns[i] for i in self.times]), scheduled_ns=scheduled_ns,
            written_ns=answer.written_ns, lag_ns=None if None in lags else Numbers(lags),
            prompt_tokens=usage.get("prompt_tokens"), output_tokens=usage.get("completion_tokens", len(self.times)),
            token_source="server_usage" if "completion_tokens" in usage else "events",
            cached_tokens=usage.get("cached_tokens"), reasoning_tokens=self._reasoning_tokens(),
            finish_reason=self.finish_reason, pieces=Texts(self.pieces), event_tokens=Numbers(self._event_tokens()),
            kinds=tuple(self.kinds) if {*self.kinds} - {"text"} else (), error=problem,
        )  # fmt: skip

    def _reasoning_tokens(self) -> int | None:
        """The server's count; a 0 for thoughts that have come is none: vLLM says it where its reasoning parser does not count."""
        counted = self.usage.get("reasoning_tokens")
        return None if counted == 0 and "reasoning" in self.kinds else counted

    def _event_tokens(self) -> Sequence[int]:
        """Tokens of each piece where every event has told how many there were; a piece that shares its event is one token."""
        if not self.running or len(self.running) < self.events:
            return ()
        counts, pieces_before, tokens_before = [], 0, 0
        for pieces, tokens in self.running:
            shared = pieces - pieces_before - 1
            counts += [tokens - tokens_before - shared, *[1] * shared]
            pieces_before, tokens_before = pieces, tokens
        return counts if min(counts) >= 0 else ()


def _said(choice: dict) -> list[tuple[str, str]]:
    """What an event carries of tokens: (kind, text) for each kind in it, in the order in which a model makes them.

    Reasoning is ``reasoning_content`` in SGLang, llama.cpp and older vLLM, ``reasoning`` in newer vLLM, and the same
    thing where both are there. A tool call's tokens are its name and its arguments (``function_call`` before 2024).
    """
    if text := choice.get("text"):
        return [("text", text)]
    delta = choice.get("delta") or {}
    if len(delta) == 1 and (text := delta.get("content")):  # nearly all of them
        return [("text", text)]
    calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()] + [delta.get("function_call") or {}]
    parts = (
        ("reasoning", delta.get("reasoning_content") or delta.get("reasoning")),
        ("text", delta.get("content")),
        ("refusal", delta.get("refusal")),
        ("tool call", "".join((call.get("name") or "") + (call.get("arguments") or "") for call in calls)),
    )
    said = [(kind, part) for kind, part in parts if part]
    if not said and (hidden := [key for key, value in delta.items() if key not in KNOWN and value and isinstance(value, str)]):
        raise _Bad(f"unseen: an event carries {hidden[0]!r}, whose tokens this client does not know")
    return said


def _check_head(answer: Reply, kind: str) -> None:
    if answer.status is None:
        raise _Bad("ended early: the server closed without an answer")
    if 300 <= answer.status < 400:
        raise _Bad(f"HTTP {answer.status}: redirected to {answer.headers.get('location', 'nowhere')}; give that address")
    if answer.status != 200:
        again = f"; Retry-After: {_detail(wait)}" if (wait := answer.headers.get("retry-after")) else ""
        raise _Bad(f"HTTP {answer.status}: {_message(b''.join(part for _, part in answer.parts))}{again}")
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
    usage = usage or {}
    details = {**(usage.get("completion_tokens_details") or {}), **(usage.get("prompt_tokens_details") or {})}
    return {name: count for name, count in {**details, **usage}.items() if isinstance(count, int)}


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
