"""What users say who say more than one random prompt: talks of one or more turns, whose prompts share parts.

A prompt is a row of parts. Two parts with the same key are the same text, so a shared system prompt, a conversation's
past and the blocks of a trace are all the same thing: parts that an earlier prompt began with. What a model answers
is not known before, and every server must be sent the same: a later turn holds scripted answers, of the asked length.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from helpers.bench import workload
from helpers.bench.timing import Asked
from helpers.bench.workload import Prompt


@dataclass(frozen=True)
class Part:
    """A stretch of a prompt: ``size`` words that follow from ``key``, or a given ``text`` of ``size`` letters."""

    key: str
    size: int
    role: str = "user"  # or: system, assistant
    text: str | None = None
    first: int | None = None  # which of the words, in an order without repetition, it begins with; None: any


@dataclass(frozen=True)
class Turn:
    """One request: its prompt, what is asked for, and the pause before it."""

    parts: tuple[Part, ...]
    output_tokens: int
    input_tokens: int | None = None  # what the server should count; None: not known before
    think_s: float = 0.0  # after the last answer has ended

    def asked(self, talk: int, number: int, *, chat: bool) -> Asked:
        """What the request is held against. A chat template adds tokens to each message: of several, nobody knows how many."""
        known = self.input_tokens if not chat or len(_messages(self.parts)) == 1 else None
        words = all(part.text is None for part in self.parts)
        return Asked(known, self.output_tokens, tuple((part.key, part.size) for part in self.parts), words, talk, number)


@dataclass(frozen=True)
class Talk:
    """The turns of one conversation, each sent when the last one has been answered and thought about."""

    turns: tuple[Turn, ...]
    at_s: float | None = None  # when it begins, after the load has begun; None: when a user is free


class Source(Protocol):
    """Where talks come from; ``at_s`` is set in all of them or in none."""

    timed: bool  # it says itself when a talk begins

    def talks(self, count: int, *, seed: str, skip: int, overhead: int) -> list[Talk]:
        """``count`` talks, the same for the same ``seed``.

        ``skip`` first words were taken by others of the run; the server adds ``overhead`` tokens to a prompt of its own.
        """
        ...

    def facts(self) -> Mapping:
        """What the provenance keeps of it."""
        ...


class Writer:
    """Turns parts into text: words of a ``vocabulary``, or common words without one.

    ``order`` seeds the order of first words. A text is the same whenever it is written.
    """

    def __init__(self, vocabulary: Sequence[str] | None, order: str):
        self.known = vocabulary is not None
        self.pool = workload.pool(vocabulary)
        self.firsts = random.Random(order).sample(self.pool, len(self.pool))

    def prompt(self, parts: Sequence[Part]) -> Prompt:
        """The prompt that ``parts`` make: as one text, in ids where the vocabulary is known, and as messages."""
        written = [(part, self._entries(part)) for part in parts]
        texts = [part.text if entries is None else "".join(text for _, text in entries) for part, entries in written]
        ids = None
        if self.known and all(entries is not None for _, entries in written):
            ids = tuple(token_id for _, entries in written for token_id, _ in entries)
        text = ("" if all(part.text is None for part in parts) else "\n").join(texts)
        return Prompt(text, ids, _messages(replace(part, text=said) for part, said in zip(parts, texts)))

    def _entries(self, part: Part) -> list[tuple[int | None, str]] | None:
        if part.text is not None:
            return None
        entries = random.Random(part.key).choices(self.pool, k=part.size)
        return entries if part.first is None else [self.firsts[part.first % len(self.firsts)], *entries[1:]]


def _messages(parts: Iterable[Part]) -> tuple[tuple[str, str], ...]:
    """(role, text) of each message: parts of one role that follow each other are one."""
    messages: list[tuple[str, str]] = []
    for part in parts:
        if messages and messages[-1][0] == part.role:
            messages[-1] = (part.role, messages[-1][1] + (part.text or ""))
        else:
            messages.append((part.role, part.text or ""))
    return tuple(messages)


def sha256(blocks: Iterable[Sequence[Talk]], writer: Writer) -> str:
    """A hash of everything that is sent and when: two runs with the same one sent the same requests.

    Of a drawn text its key is hashed, from which it follows, and once the words that it is drawn from.
    """
    found = hashlib.sha256(json.dumps([writer.firsts, writer.prompt([Part("a text", 16)]).text]).encode())
    for talk in (talk for talks in blocks for talk in talks):
        found.update(json.dumps([talk.at_s, [_line(turn) for turn in talk.turns]]).encode())
    return found.hexdigest()


def _line(turn: Turn) -> list:
    return [turn.think_s, turn.output_tokens, [[part.key, part.size, part.role, part.first] for part in turn.parts]]
