"""Warm up, repeat, alternate: measure endpoints at rising numbers of users.

Closed loop: each user sends its next request when its last one has ended, so a slow server is
asked less often than a fast one. Requests are greedy and of fixed length; what came back is
in the samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from helpers import client, timing, workload
from helpers.client import Endpoint, EndpointError
from helpers.timing import Level, TooFewRepeats

MAX_FAILED = 0.01  # share of failed requests above which a level is no figure


@dataclass(frozen=True)
class Plan:
    """What is sent to every endpoint. Bad numbers raise before a request is sent."""

    users: tuple[int, ...] = (1,)
    input_tokens: int = 128
    output_tokens: int = 128
    requests: int | None = None  # per repeat, whatever the number of users; None: so many per user
    requests_per_user: int = 4
    repeats: int = timing.MIN_REPEATS
    warmups: int = timing.MIN_WARMUPS
    seed: int = 0
    timeout_s: float = 300
    allow_few: bool = False  # measure with fewer repeats than give a spread, and say so in the label

    def __post_init__(self):
        for name in ("input_tokens", "output_tokens", "requests", "requests_per_user", "repeats"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.warmups < 0 or not self.timeout_s > 0:
            raise ValueError(f"warmups={self.warmups}, timeout_s={self.timeout_s:g}: give no negative number, and some time")
        if not self.users or min(self.users) < 1:
            raise ValueError(f"users={self.users}: give numbers of at least 1, like 1,10,100")
        few = self.repeats < timing.MIN_REPEATS or self.warmups < timing.MIN_WARMUPS
        if few and not self.allow_few:
            raise TooFewRepeats(
                f"{self.repeats} repeats and {self.warmups} warm-ups give no spread: use at least {timing.MIN_REPEATS} and "
                f"{timing.MIN_WARMUPS}, or allow_few (--allow-few) to get a figure that is labelled"
            )

    @property
    def label(self) -> str | None:
        few = self.repeats < timing.MIN_REPEATS or self.warmups < timing.MIN_WARMUPS
        return f"not a measurement: {self.repeats} repeats after {self.warmups} warm-ups" if few else None


@dataclass(frozen=True)
class Target:
    """An endpoint and how many words make a prompt that it counts as the asked length."""

    endpoint: Endpoint
    words: int
    vocabulary: Sequence[str] | None


def probe(endpoint: Endpoint, plan: Plan, vocabulary: Sequence[str] | None = None) -> Target:
    """Ask once or a few times, unmeasured: does it answer, and how does it count a prompt?

    A special token or a chat template adds to the prompt; words are left out until the
    server's own count is ``plan.input_tokens``. Raises :class:`EndpointError` in one line.
    """
    asked = plan.input_tokens + plan.output_tokens
    if endpoint.context is not None and asked > endpoint.context:
        raise EndpointError(
            f"{plan.input_tokens} tokens in and {plan.output_tokens} out do not fit the context of {endpoint.context}: "
            "ask for fewer, or start the server with more"
        )
    target = Target(endpoint, plan.input_tokens, vocabulary)
    for attempt in range(4):
        prompt = workload.prompts(1, target.words, seed=-1 - attempt, vocabulary=vocabulary)[0]
        sample = client.run(client.request(endpoint, prompt, plan.output_tokens, timeout_s=plan.timeout_s))
        if sample.error:
            raise EndpointError(f"{endpoint.base_url} gives no answer to measure: {sample.error}")
        if sample.prompt_tokens in (None, plan.input_tokens):
            return target
        target = replace(target, words=target.words - (sample.prompt_tokens - plan.input_tokens))
        if target.words < 1:
            break
    raise EndpointError(
        f"{endpoint.base_url} counts {sample.prompt_tokens} prompt tokens where {plan.input_tokens} were asked for: ask for more"
    )


def levels(
    endpoints: Mapping[str, Endpoint], plan: Plan, *, vocabulary: Sequence[str] | None = None, progress: bool = True
) -> Iterator[dict[str, Level]]:
    """Measure every endpoint at every number of users; yields ``{name: Level}`` as each is done.

    At each number of users: warm-ups for all, then the repeats in blocks, the order of the
    endpoints turned round from repeat to repeat, so that a machine that slows down slows all
    of them. All endpoints get the same prompts, and no prompt is sent twice.
    """
    targets = {name: probe(endpoint, plan, vocabulary) for name, endpoint in endpoints.items()}
    for users in plan.users:
        blocks: dict[str, list] = {name: [] for name in targets}
        bar = _Progress(f"{users} users", len(targets) * (plan.warmups + plan.repeats) * _requests(plan, users), progress)
        for turn in range(-plan.warmups, plan.repeats):
            names = list(targets)[:: 1 if turn % 2 == 0 else -1]
            for name in names:
                samples = _block(targets[name], plan, users, turn, bar)
                if turn >= 0:
                    blocks[name].append(tuple(samples))
        bar.close()
        yield {name: _level(users, done, plan) for name, done in blocks.items()}


def compare(endpoints: Mapping[str, Endpoint], plan: Plan, **options) -> dict[str, list[Level]]:
    """:func:`levels`, collected: ``{name: [Level, ...]}`` in the order of ``plan.users``."""
    found: dict[str, list[Level]] = {name: [] for name in endpoints}
    for measured in levels(endpoints, plan, **options):
        for name, level in measured.items():
            found[name].append(level)
    return found


def measure(endpoint: Endpoint, plan: Plan, **options) -> list[Level]:
    """One endpoint alone: a :class:`Level` per number of users."""
    return compare({"": endpoint}, plan, **options)[""]


def conversation(
    endpoint: Endpoint, talks: Sequence[Sequence[workload.Prompt]], *, output_tokens: int
) -> list[list[timing.Sample]]:
    """One request after the other, turn by turn, the prefix cache allowed to help; a list of samples per talk."""

    async def speak() -> list[list[timing.Sample]]:
        return [[await client.request(endpoint.cached(), turn, output_tokens) for turn in talk] for talk in talks]

    return client.run(speak())


def workload_sha256(plan: Plan, vocabulary: Sequence[str] | None = None) -> str:
    """The hash of every measured prompt of ``plan``."""
    sent = [
        p
        for users in plan.users
        for turn in range(plan.repeats)
        for p in _prompts(plan, plan.input_tokens, users, turn, vocabulary)
    ]
    return workload.sha256(sent, plan.output_tokens)


def _requests(plan: Plan, users: int) -> int:
    return plan.requests or plan.requests_per_user * users


def _prompts(plan: Plan, words: int, users: int, turn: int, vocabulary) -> list[workload.Prompt]:
    seed = hash((plan.seed, users, turn if turn >= 0 else 2 * turn))  # ints hash the same everywhere; -1 and -2 hash alike
    return workload.prompts(_requests(plan, users), words, seed=seed, vocabulary=vocabulary)


def _block(target: Target, plan: Plan, users: int, turn: int, bar: _Progress) -> list[timing.Sample]:
    prompts = _prompts(plan, target.words, users, turn, target.vocabulary)
    return client.run(
        client.closed_loop(
            target.endpoint, prompts, users=users, output_tokens=plan.output_tokens, timeout_s=plan.timeout_s,
            on_sample=bar.step,
        )
    )  # fmt: skip


def _level(users: int, blocks, plan: Plan) -> Level:
    level = Level(users, tuple(blocks), plan.label)
    failed, sent = level.error_kinds.total(), sum(len(block) for block in blocks)
    if failed > MAX_FAILED * sent:
        return replace(level, label=f"not a measurement: {failed} of {sent} requests failed")
    return level


class _Progress:
    """A tqdm bar on a terminal or in a notebook, nothing elsewhere."""

    def __init__(self, title: str, total: int, shown: bool):
        self.bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=title, unit="request", leave=False)

    def step(self, sample: timing.Sample) -> None:
        if self.bar is not None:
            self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
