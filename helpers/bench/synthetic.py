"""Seeded talks of random words: a shared system prompt, conversations with growing context, lengths from a distribution."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from helpers.bench.distributions import Distribution
from helpers.bench.talks import Part, Talk, Turn

ONE = Distribution("fixed", (1,))
NO_PAUSE = Distribution("fixed", (0,), least=0)


@dataclass(frozen=True)
class Synthetic:
    """Talks whose lengths, turns and pauses are drawn anew for each; all of them begin with the same system prompt.

    ``input_tokens`` is of a turn's new message: what came before is sent again, so the context grows.
    """

    input_tokens: Distribution
    output_tokens: Distribution
    system_tokens: int = 0
    turns: Distribution = ONE
    think_s: Distribution = NO_PAUSE
    timed = False

    def __post_init__(self):
        if self.system_tokens < 0:
            raise ValueError(f"system_tokens={self.system_tokens}: must be at least 0")

    def talks(self, count: int, *, seed: str, skip: int, overhead: int) -> list[Talk]:
        """See :class:`helpers.bench.talks.Source`."""
        return [self._talk(f"{seed}, talk {i}", skip + i, overhead) for i in range(count)]

    def _talk(self, name: str, first: int, overhead: int) -> Talk:
        draw, turns = random.Random(name), []
        past = (Part("system", self.system_tokens, "system"),) if self.system_tokens else ()
        for number in range(self.turns.whole(draw)):
            asked, answer = self.input_tokens.whole(draw), self.output_tokens.whole(draw)
            size = max(asked - (0 if number else overhead), 1)
            parts = (*past, Part(f"{name}, user {number}", size, first=None if number else first))
            think_s = self.think_s.draw(draw) if number else 0.0
            turns.append(Turn(parts, answer, sum(part.size for part in parts) + overhead, think_s))
            past = (*parts, Part(f"{name}, answer {number}", answer, "assistant"))
        return Talk(tuple(turns))

    def facts(self) -> Mapping:
        """What was asked for, as it can be asked for again."""
        asked = {name: str(getattr(self, name)) for name in ("input_tokens", "output_tokens", "turns", "think_s")}
        return {"kind": "synthetic", **asked, "system_tokens": self.system_tokens}
