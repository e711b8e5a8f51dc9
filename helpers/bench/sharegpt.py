"""Requests from a file in ShareGPT's form: conversations that people had with a model.

``[{"id": "...", "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}, ...]}, ...]``, or an
object in each line. Each message of the user is a request that holds all before it; the file's own answers stand in
for the model's. An answer is asked for as long as the file's: by its letters, as nobody's tokenizer is known here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.bench import files
from helpers.bench.distributions import Distribution
from helpers.bench.files import BadFile
from helpers.bench.synthetic import NO_PAUSE
from helpers.bench.talks import Part, Talk, Turn

LETTERS_PER_TOKEN = 4  # a rule of thumb for English, as OpenAI's help gives it; what was really asked is in the figures
ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}


@dataclass(frozen=True)
class ShareGPT:
    """The conversations of a file, in a seeded order; ``output_tokens`` overrules the lengths of the file's answers."""

    conversations: Sequence[tuple[Turn, ...]]
    name: str  # of the file, without its folder
    file_sha256: str
    output_tokens: int | None = None
    think_s: Distribution = NO_PAUSE
    timed = False

    def talks(self, count: int, *, seed: str, skip: int, overhead: int) -> list[Talk]:
        """``count`` conversations after those that the run has had; round again when the file is used up."""
        order = random.Random(self.file_sha256).sample(self.conversations, len(self.conversations))
        draw = random.Random(seed)
        return [Talk(self._turns(order[(skip + i) % len(order)], draw)) for i in range(count)]

    def _turns(self, turns: tuple[Turn, ...], draw: random.Random) -> tuple[Turn, ...]:
        return tuple(
            replace(
                turn, output_tokens=self.output_tokens or turn.output_tokens, think_s=self.think_s.draw(draw) if number else 0.0
            )
            for number, turn in enumerate(turns)
        )

    def facts(self) -> Mapping:
        """The file by its name and hash, and what was made of it."""
        of = {"file": self.name, "file_sha256": self.file_sha256, "conversations": len(self.conversations)}
        answers = self.output_tokens or f"the file's letters / {LETTERS_PER_TOKEN}"
        return {"kind": "sharegpt", **of, "output_tokens": answers, "think_s": str(self.think_s)}


def read(file: Path, *, output_tokens: int | None = None, think_s: Distribution = NO_PAUSE) -> ShareGPT:
    """The conversations in ``file``; :class:`BadFile` with the line of what is wrong with it."""
    content, sha256 = files.text(file)
    found = [_conversation(f"{file}, line {line}", record) for line, record in files.objects(file, content)]
    if not found:
        raise BadFile(f"{file}: holds no conversation; give one in ShareGPT's form")
    return ShareGPT(found, file.name, sha256, output_tokens, think_s)


def _conversation(where: str, record: Mapping) -> tuple[Turn, ...]:
    files.check_fields(where, record, ("conversations",), ("id",))
    messages = record["conversations"]
    if not isinstance(messages, list) or not messages:
        raise BadFile(f"{where}: conversations is {files.shown(messages)}, must be a list with a message")
    parts = [_part(f"{where}, message {i + 1}", message) for i, message in enumerate(messages)]
    asked = [i for i, part in enumerate(parts) if part.role == "user"]
    if not asked:
        raise BadFile(f"{where}: nobody asks anything; a message from 'human' is missing")
    return tuple(Turn(tuple(parts[: i + 1]), _answer_tokens(parts[i + 1 :])) for i in asked)


def _part(where: str, message: object) -> Part:
    if not isinstance(message, dict):
        raise BadFile(f"{where}: {files.shown(message)} where an object is expected")
    files.check_fields(where, message, ("from", "value"))
    role, said = message["from"], message["value"]
    if role not in ROLES:
        raise BadFile(f"{where}: is from {files.shown(role)}, must be one of {', '.join(ROLES)}")
    if not isinstance(said, str) or not said.strip():
        raise BadFile(f"{where}: value is {files.shown(said)}, must be a text")
    return Part(hashlib.sha256(f"{ROLES[role]} {said}".encode()).hexdigest(), len(said), ROLES[role], said)


def _answer_tokens(after: Sequence[Part]) -> int:
    """How long an answer is asked for: as the one that follows in the file; 1 where none does."""
    answer = after[0].size if after and after[0].role == "assistant" else 0
    return max(round(answer / LETTERS_PER_TOKEN), 1)
