"""What a prefix cache could have held, beside what the server says it did.

An endless cache is imagined that keeps every prompt, part by part. What it holds for a prompt when it is sent is the
expectation: at the least the prompts whose first token had come by then (they have surely been read), at the most all
that were sent before. A real cache has blocks, an end, and other users; so the expectation is a limit and no forecast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from helpers.bench.timing import Asked, Sample

LETTERS_APART = 1.25  # tokens have so many more letters in one part of a text than in another: what a share in letters may miss


@dataclass(frozen=True)
class Expected:
    """Prompt tokens that an endless prefix cache would have held."""

    low: int = 0
    high: int = 0
    most: int = 0  # with the template's own tokens and, of texts, what letters can tell: more than this is another's prompt

    def __add__(self, other: Expected) -> Expected:
        return Expected(self.low + other.low, self.high + other.high, self.most + other.most)


class Cache:
    """All prompts that were kept, as a tree of their parts."""

    def __init__(self):
        self.children: dict[tuple[int, str], int] = {}

    def keep(self, asked: Asked) -> None:
        node = 0
        for key, _ in asked.parts:
            node = self.children.setdefault((node, key), len(self.children) + 1)

    def held(self, asked: Asked) -> int:
        """So much of the prompt was kept before; a prompt's last word is read anew, even if all of it was."""
        node, found = 0, 0
        for key, size in asked.parts:
            if (node := self.children.get((node, key), -1)) < 0:
                return found
            found += size
        return max(found - 1, 0)


class Seen:
    """The two caches of one endpoint: of what has surely been read, and of what was sent."""

    def __init__(self):
        self.read, self.sent = Cache(), Cache()

    def take(self, samples: Iterable[Sample]) -> Expected:
        """Let ``samples``, a whole block, pass; what was expected for those that succeeded."""
        known = [sample for sample in samples if sample.asked is not None]
        moments = [(s.sent_ns, 0, i) for i, s in enumerate(known)] + [
            (s.event_ns[0], 1, i) for i, s in enumerate(known) if s.event_ns
        ]
        total = Expected()
        for _, answered, i in sorted(moments):
            sample = known[i]
            if answered:
                self.read.keep(sample.asked)
                continue
            if sample.error is None:
                total += _tokens(sample, self.read.held(sample.asked), self.sent.held(sample.asked))
            self.sent.keep(sample.asked)
        return total


def _tokens(sample: Sample, low: int, high: int) -> Expected:
    """Words are tokens, and the template's stand beside them; letters are turned into tokens by the server's count."""
    size = sum(size for _, size in sample.asked.parts)
    prompt = sample.prompt_tokens if sample.prompt_tokens is not None else sample.asked.input_tokens or size
    if sample.asked.words:
        return Expected(low, high, high + max(prompt - size, 0))
    most = min(round(LETTERS_APART * high / size * prompt), prompt)
    return Expected(round(low / size * prompt), round(high / size * prompt), most)
