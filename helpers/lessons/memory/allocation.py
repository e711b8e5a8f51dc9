"""Three ways to keep a KV cache, on one trace of requests: exactly, token by token.

``contiguous`` reserves each request's longest possible length at its start. ``paged`` takes a page
when one is needed (vLLM's PagedAttention, Kwon et al. 2023). ``shared`` is paged and keeps full pages
of the same beginning once (vLLM's block hashes); with a page of one token it is a radix tree
(SGLang's RadixAttention, Zheng et al. 2024).

Time is counted in decode steps. A request holds its prompt from its first step on and one token more
at each further step; the last token of its answer is never stored, because nothing comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """``prompt`` are token ids; two prompts with the same beginning can share it."""

    prompt: tuple[int, ...]
    output_tokens: int
    start: int = 0  # the step at which it is admitted

    def __post_init__(self):
        if not self.prompt or self.output_tokens < 1 or self.start < 0:
            sizes = f"{len(self.prompt)} tokens in, {self.output_tokens} out, start {self.start}"
            raise ValueError(f"a request of {sizes}: lengths must be at least 1 and the start at least 0")

    @property
    def longest(self) -> int:
        """Tokens it holds at its last step."""
        return len(self.prompt) + self.output_tokens - 1

    def tokens(self, step: int) -> int:
        """Tokens it holds at ``step``: 0 before and after its life."""
        lived = step - self.start
        return len(self.prompt) + lived if 0 <= lived < self.output_tokens else 0


@dataclass(frozen=True)
class Usage:
    """All requests together at one step, in tokens."""

    reserved: int
    used: int  # that keys and values are stored for, shared ones once

    @property
    def wasted(self) -> int:
        """Reserved and empty."""
        return self.reserved - self.used


@dataclass(frozen=True)
class Allocation:
    """What a policy reserved at each step of the trace."""

    policy: str
    steps: tuple[Usage, ...]

    @property
    def peak(self) -> Usage:
        """The step at which most tokens are reserved, of several the fullest: the pool must hold it."""
        return max(self.steps, key=lambda step: (step.reserved, step.used))

    @property
    def wasted_share(self) -> float:
        """Of all that was reserved over the whole trace, the share that was empty."""
        return sum(step.wasted for step in self.steps) / sum(step.reserved for step in self.steps)


def contiguous(trace: Sequence[Request], longest: int) -> Allocation:
    """Each request reserves ``longest`` tokens from its start to its end, whatever it uses of them."""
    if over := [request.longest for request in trace if request.longest > longest]:
        raise ValueError(f"a request of {max(over)} tokens does not fit the {longest} that are reserved for each")
    return _over(trace, f"contiguous, {longest} each", lambda _, held: Usage(len(held) * longest, sum(held)))


def paged(trace: Sequence[Request], page: int) -> Allocation:
    """Each request takes a page of ``page`` tokens when it needs one."""
    _check(page)
    return _over(trace, f"paged, {page} tokens", lambda _, held: Usage(sum(pages(n, page) for n in held) * page, sum(held)))


def shared(trace: Sequence[Request], page: int) -> Allocation:
    """Paged, and a full page of prompt is kept once for all running requests that begin with the same tokens."""
    _check(page)
    known: dict = {}
    keys = {request.prompt: _keys(request.prompt, page, known) for request in trace}

    def step(running: list[Request], held: list[int]) -> Usage:
        common = {key for request in running for key in keys[request.prompt]}
        own = [n - len(keys[request.prompt]) * page for request, n in zip(running, held)]
        return Usage((len(common) + sum(pages(n, page) for n in own)) * page, len(common) * page + sum(own))

    return _over(trace, f"shared, {page} tokens", step)


def pages(tokens: int, page: int) -> int:
    """Pages that hold ``tokens`` tokens."""
    return -(-tokens // page)


def hits(trace: Sequence[Request], page: int) -> tuple[int, ...]:
    """Prompt tokens that each request finds computed if the trace comes one by one and nothing is thrown away.

    The last token of a prompt is always computed: its logits give the answer's first token.
    """
    _check(page)
    known: dict = {}
    found = []
    for request in trace:
        before = len(known)
        old = sum(key < before for key in _keys(request.prompt, page, known))
        found.append(min(old, (len(request.prompt) - 1) // page) * page)
    return tuple(found)


def _keys(prompt: tuple[int, ...], page: int, known: dict[tuple, int]) -> list[int]:
    """A number for each full page of ``prompt``; the same one for the same page after the same beginning, as a hash would be."""
    keys, before = [], -1
    for start in range(0, len(prompt) - page + 1, page):
        before = known.setdefault((before, prompt[start : start + page]), len(known))
        keys.append(before)
    return keys


def _check(page: int) -> None:
    if page < 1:
        raise ValueError(f"page={page}: a page holds at least 1 token")


def _over(trace: Sequence[Request], policy: str, step: Callable[[list[Request], list[int]], Usage]) -> Allocation:
    if not trace:
        raise ValueError("the trace has no requests: give at least one")
    steps = []
    for at in range(max(request.start + request.output_tokens for request in trace)):
        running = [request for request in trace if request.tokens(at)]
        steps.append(step(running, [request.tokens(at) for request in running]))
    return Allocation(policy, tuple(steps))
