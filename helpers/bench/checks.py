"""The guards beside every speed: the asked work and no other, and answers that agree.

A speed compares two engines only if both did the same. :mod:`helpers.servers.metrics` checks what they
hold, :mod:`helpers.weights.same_values` what they were given; this module checks what they answered.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from helpers.bench import client, timing, workload
from helpers.bench.client import Endpoint, EndpointError

FIRST_TOKENS = 16
MOST_CACHED = 0.005  # of the prompt tokens: below it a hit changes no figure that we print; it is noted and not refused
PROMPTS = tuple(  # plain text: after random words many tokens are nearly as likely, and any rounding decides
    map(
        workload.Prompt,
        (
            "The capital of France is",
            "Water is made of hydrogen and",
            "The days of the week are Monday, Tuesday,",
            "One, two, three, four, five,",
            "The sun rises in the east and sets in the",
            "A year has twelve months: January, February,",
            "def add(a, b):\n    return",
            "Once upon a time, there was a little girl who",
        ),
    )
)

Answer = str | Sequence[str]  # a text, or its pieces in the order they came


@dataclass(frozen=True)
class Hits:
    """Prompt tokens that a prefix cache has saved since the server's start; ``None`` where the engine does not count."""

    tokens: int | None
    source: str  # where it was read, or why it was not


@dataclass(frozen=True)
class Agreement:
    """How far one engine's greedy answers go along with the reference's; one share, 0 to 1, for each prompt."""

    shares: tuple[float, ...]

    @property
    def mean_share(self) -> float:
        return sum(self.shares) / len(self.shares)

    @property
    def whole(self) -> int:
        """The prompts whose answers agree from first to last token."""
        return sum(share == 1 for share in self.shares)

    def __str__(self) -> str:
        return f"{self.mean_share:.0%} of the first tokens agree, all of them for {self.whole} of {len(self.shares)} prompts"


def agreement(answers: Mapping[str, Sequence[Answer]], reference: str) -> dict[str, Agreement]:
    """Compare every engine's answers with those of ``reference``, one of the names in ``answers``.

    The answers are of equally many tokens. Where the reference's answer is a list of pieces, one
    for each token, the share is of tokens: those before the first difference. Where it is a text,
    it is of characters. How an engine cuts its own text into events does not matter.
    """
    if reference not in answers:
        raise ValueError(f"reference {reference!r} has no answers: choose one of {', '.join(answers)}")
    lengths = {name: len(given) for name, given in answers.items()}
    if len(set(lengths.values())) != 1 or not lengths[reference]:
        raise ValueError(f"answers per engine: {lengths}: give each the same prompts, at least one")
    return {
        name: Agreement(tuple(map(agreed_share, answers[reference], given)))
        for name, given in answers.items()
        if name != reference
    }


def agreed_share(reference: Answer, other: Answer) -> float:
    """The share of ``reference`` before the first difference from ``other``; 1 only if both are equal."""
    pieces = [reference] if isinstance(reference, str) else list(reference)
    expected, given = "".join(pieces), "".join(other)
    if expected == given:
        return 1.0
    common = len(os.path.commonprefix([expected, given]))
    if isinstance(reference, str):
        return common / max(len(expected), len(given))
    whole, end = 0, 0
    for piece in pieces:
        end += len(piece)
        whole += end <= common
    return min(whole, len(pieces) - 1) / len(pieces)  # a longer text that begins alike is not the same


def first_tokens(
    endpoints: Mapping[str, Endpoint],
    prompts: Sequence[workload.Prompt] = PROMPTS,
    k: int = FIRST_TOKENS,
    *,
    awake: Callable[[str], AbstractContextManager] = nullcontext,
) -> dict[str, list[Answer]]:
    """Each endpoint's greedy answers of ``k`` tokens, asked one at a time inside ``awake(its name)``.

    An answer is a tuple of pieces where the server sent one for each token, else its text.
    Raises :class:`helpers.bench.client.EndpointError` for an answer that failed or has another length.
    """
    answers = {}
    for name, endpoint in endpoints.items():
        with awake(name):
            samples = [client.run(client.request(_taking(endpoint, prompt), prompt, k)) for prompt in prompts]
        for sample in samples:
            if sample.error or sample.output_tokens != k:
                raise EndpointError(f"{name} gave no {k} tokens to compare: {sample.error or f'{sample.output_tokens} came'}")
        answers[name] = [tuple(sample.pieces) if len(sample.pieces) == k else sample.text for sample in samples]
    return answers


def _taking(endpoint: Endpoint, prompt: workload.Prompt) -> Endpoint:
    return endpoint if prompt.token_ids else replace(endpoint, token_ids=False)


def problems(
    samples: Iterable[timing.Sample],
    *,
    input_tokens: int,
    output_tokens: int,
    cached: bool = False,
    cache_hits: int | None = None,
    expected_hits: int = 0,
) -> list[str]:
    """What makes ``samples`` another measurement than the asked one, a line each; empty is good.

    Failed requests are counted elsewhere and left out. ``cached`` says that the prefix cache was
    meant to help; otherwise it may hold ``MOST_CACHED`` of the prompt tokens, by chance.
    ``cache_hits`` is the engine's own count over these requests (:func:`helpers.bench.checks.hits_between`);
    each answer's own report is looked at anyway. ``expected_hits`` were asked for (:mod:`helpers.bench.prefixes`).
    A sample that says itself what was asked is held against that.
    """
    done = [sample for sample in samples if sample.error is None]
    if not done:
        return ["no request succeeded: nothing was measured"]
    found = _other(done, "output_tokens", output_tokens, "output") + _other(done, "prompt_tokens", input_tokens, "prompt")
    hit = [sample for sample in done if sample.cached_tokens]
    total = sum(sample.cached_tokens for sample in hit)
    asked = sum((sample.prompt_tokens or 0) if sample.asked else input_tokens for sample in done)
    if cached or max(total, cache_hits or 0) - expected_hits <= MOST_CACHED * asked:
        return found
    meant = f"{f'at most {expected_hits}' if expected_hits else 0} are allowed"
    if hit:
        found.append(f"prefix cache: {len(hit)} of {len(done)} answers report {total} cached prompt tokens, {meant}")
    else:
        found.append(f"prefix cache: the engine counted {cache_hits} cached prompt tokens, {meant}")
    return found


def _other(samples: Sequence[timing.Sample], name: str, asked: int, title: str) -> list[str]:
    field = {"output_tokens": "output_tokens", "prompt_tokens": "input_tokens"}[name]
    if any(sample.asked for sample in samples):
        return _other_each(samples, name, field, title)
    lengths = Counter(getattr(sample, name) for sample in samples)
    wrong = {length: count for length, count in lengths.items() if length not in (None, asked)}
    if not wrong:
        return []
    seen = ", ".join(map(str, sorted(wrong)))
    return [f"{title} length: {sum(wrong.values())} of {len(samples)} answers have {seen} tokens, {asked} were asked for"]


def _other_each(samples: Sequence[timing.Sample], name: str, field: str, title: str) -> list[str]:
    """The same where each request asked for a length of its own; ``None`` is any."""
    pairs = [(getattr(sample, name), getattr(sample.asked, field)) for sample in samples if sample.asked]
    wrong = [(got, asked) for got, asked in pairs if None not in (got, asked) and got != asked]
    if not wrong:
        return []
    got, asked = max(wrong, key=lambda pair: abs(pair[0] - pair[1]))
    return [
        f"{title} length: {len(wrong)} of {len(samples)} answers have another one than asked for; the worst {got} for {asked}"
    ]


def unproven(samples: Iterable[timing.Sample], *, cache_hits: int | None = None) -> list[str]:
    """What :func:`problems` could not check because the server does not report it, a line each."""
    done = [sample for sample in samples if sample.error is None]
    found = []
    if any(sample.output_tokens is None or sample.token_source == "events" for sample in done):
        found.append("output length: not reported by the server, events were counted")
    if any(sample.prompt_tokens is None for sample in done):
        found.append("prompt length: not reported by the server")
    if cache_hits is None and any(sample.cached_tokens is None for sample in done):
        found.append("prefix cache: neither the engine nor its answers report hits")
    return found


def hits_between(before: Hits, after: Hits, samples: Iterable[timing.Sample] = ()) -> int | None:
    """Cached prompt tokens of a block: the counter's difference, else the sum of what each answer reported.

    ``None`` if neither is there. If both are, the larger one: a counter that has stopped must not hide hits.
    """
    counted = None if before.tokens is None or after.tokens is None else after.tokens - before.tokens
    reported = [sample.cached_tokens for sample in samples if sample.error is None]
    reported = None if not reported or None in reported else sum(reported)
    known = [figure for figure in (counted, reported) if figure is not None]
    return max(known) if known else None
