"""A server under arrivals, step by step: who waits and for how long, from nothing but what a step takes.

Continuous batching (Orca, Yu et al., OSDI 2022) in a loop: in every step all users who decode get a token, and prompts that
wait are read, as many of their tokens as a step may have. What a step takes comes from outside, for example from
:mod:`~helpers.lessons.scaling.expected`; so waits follow from figures of single steps, and a record of a server can show
whether they do. HTTP and tokenizing are no part of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Step = Callable[[int, tuple[int, ...]], float]  # users who decode, lengths of the parts of prompts that are read -> seconds


@dataclass(frozen=True)
class Server:
    """``slots`` requests at once at the most, ``step_tokens`` tokens in a step. ``mixed``: prompts are read in the steps in which
    others decode, as in vLLM; else these wait meanwhile, as in SGLang as it comes.
    """

    step_s: Step
    slots: int
    step_tokens: int
    mixed: bool = True


@dataclass(frozen=True)
class Answer:
    """Seconds at which a request arrived and at which its tokens were there."""

    arrived_s: float
    token_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.arrived_s

    @property
    def tpot_s(self) -> float | None:
        """``None`` for an answer of one token."""
        gaps = len(self.token_s) - 1
        return (self.token_s[-1] - self.token_s[0]) / gaps if gaps else None

    def met(self, ttft_s: float, tpot_s: float) -> bool:
        """Whether it kept both limits."""
        return self.ttft_s <= ttft_s and (self.tpot_s or 0) <= tpot_s


@dataclass
class _Prompt:
    number: int
    left: int  # tokens that are not read yet


def answers(arrived_s: Sequence[float], input_tokens: int, output_tokens: int, server: Server) -> list[Answer]:
    """What becomes of requests that arrive at ``arrived_s``, in that order, each as long as the others.

    With ``input_tokens`` 0 a prompt has been read elsewhere: it takes part from its first step on.
    """
    coming, waiting = deque(enumerate(arrived_s)), deque()
    stamps: list[list[float]] = [[] for _ in arrived_s]
    decoding: list[int] = []
    now = 0.0
    while coming or waiting or decoding:
        if not waiting and not decoding:
            now = max(now, coming[0][1])
        while coming and coming[0][1] <= now:
            waiting.append(_Prompt(coming.popleft()[0], input_tokens))
        parts, read = _admitted(waiting, len(decoding), server)
        users = decoding if server.mixed or not parts else []
        now += server.step_s(len(users), parts)
        for number in (*users, *read):
            stamps[number].append(now)
        decoding = [number for number in (*decoding, *read) if len(stamps[number]) < output_tokens]
    return [Answer(at_s, tuple(tokens)) for at_s, tokens in zip(arrived_s, stamps)]


def _admitted(waiting: deque[_Prompt], decoding: int, server: Server) -> tuple[tuple[int, ...], list[int]]:
    """The parts of prompts that the next step reads, first come first, and who is read to the end with them."""
    room = server.step_tokens - (decoding if server.mixed else 0)
    parts, read = [], []
    while waiting and room > 0 and decoding + len(parts) < server.slots:
        part = min(room, waiting[0].left)
        waiting[0].left -= part
        room -= part
        parts.append(part)
        if not waiting[0].left:
            read.append(waiting.popleft().number)
    return tuple(parts), read


def copies(arrived_s: Sequence[float], count: int, serve: Callable[[Sequence[float]], Iterable[Answer]]) -> list[Answer]:
    """The answers of ``count`` servers that know nothing of each other: requests go to them in turn."""
    return [answer for first in range(count) for answer in serve(arrived_s[first::count])]
