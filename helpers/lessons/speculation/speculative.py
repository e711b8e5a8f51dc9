"""Speculative decoding: what it can bring, what an engine really did, and how its server is made to draft.

A cheap *draft* proposes the next few tokens, the model itself (the *target*) computes what it
would have said at each of these places in one step, and the draft's tokens count as far as they
agree. Formulas: Leviathan, Kalman, Matias, *Fast Inference from Transformers via Speculative
Decoding*, ICML 2023 (arXiv 2211.17192).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.bench.timing import figure
from helpers.formatting import told
from helpers.lessons.speculation.drafts import DraftError, check_draft
from helpers.servers import engines, metrics
from helpers.weights import models

CLEAR = 0.1  # a speed-up nearer to 1 than this is called neither faster nor slower

SENTENCES = (
    "The small boat leaves the harbour at six in the morning.",
    "My brother keeps three old clocks on the kitchen shelf.",
    "A green train crosses the long bridge over the river.",
    "She paints the garden wall before the winter rain comes.",
    "The baker sells warm bread and sweet rolls until noon.",
    "Two tall trees stand in front of the yellow school.",
    "Our dog sleeps under the table when guests arrive.",
    "He writes a short letter to his teacher every month.",
)
QUESTIONS = (
    "Explain why the sky is blue.",
    "What makes a good friend?",
    "Describe a walk through a forest.",
    "How do birds find their way in autumn?",
)


def copying(number: int = 0) -> str:
    """A task whose answer stands in its prompt: three of ``SENTENCES``, in an order of its own for each ``number``."""
    step = 1 + 2 * (number // len(SENTENCES) % 2)
    chosen = (SENTENCES[(number + step * place) % len(SENTENCES)] for place in range(3))
    return f"Repeat this text word for word: {' '.join(chosen)}"


def expected_tokens(alpha: float, draft_tokens: int) -> float:
    """Mean tokens a target step gives: 1 + a + a^2 + ... + a^k, which is (1 - a^(k+1)) / (1 - a).

    ``alpha`` (a) is the probability that a drafted token is accepted when all before it were;
    ``draft_tokens`` (k) are drafted for each step. Leviathan et al., equation 1.
    """
    if not 0 <= alpha <= 1 or draft_tokens < 0:
        raise DraftError(f"alpha={alpha}, draft_tokens={draft_tokens}: give a share from 0 to 1, and no negative number")
    return float(sum(alpha**place for place in range(draft_tokens + 1)))


def speedup(alpha: float, draft_tokens: int, cost: float = 0.0, verify: float = 1.0) -> float:
    """How many times as fast decoding becomes: expected tokens / (verify + k x cost).

    ``cost`` (c) is the time of a draft step, ``verify`` that of a target step over k + 1 tokens,
    both in plain target steps. Leviathan et al., theorem 3.8, has ``verify`` = 1: there a step
    takes as long as reading the weights, however few its tokens.
    """
    if cost < 0 or not verify > 0:
        raise DraftError(f"cost={cost}, verify={verify}: both are times, counted in plain steps of the target")
    return expected_tokens(alpha, draft_tokens) / (verify + draft_tokens * cost)


def alpha_from(accepted_per_draft: float, draft_tokens: int) -> float:
    """The ``alpha`` at which ``accepted_per_draft`` of ``draft_tokens`` are accepted on average.

    It is more than accepted / drafted, which engines call their acceptance rate: behind a
    rejected token no other one counts, however good. Bisection of :func:`expected_tokens`.
    """
    if draft_tokens < 1 or not 0 <= accepted_per_draft <= draft_tokens:
        raise DraftError(f"{accepted_per_draft} of {draft_tokens} drafted tokens accepted: that cannot be")
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens(middle, draft_tokens) < 1 + accepted_per_draft else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Counts:
    """What was generated and drafted. ``drafts``: steps that had a draft; ``None`` where the engine does not say.

    Each target step gives one token of its own beside the accepted ones, so the steps (of every
    request alone, its prefill among them) are the tokens that were not accepted from a draft.
    """

    tokens: int
    drafted: int
    accepted: int
    drafts: int | None = None

    @property
    def steps(self) -> int:
        return self.tokens - self.accepted

    @property
    def tokens_per_step(self) -> float | None:
        return self.tokens / self.steps if self.steps > 0 else None

    @property
    def acceptance(self) -> float | None:
        """Accepted / drafted, which engines call acceptance rate; ``None`` if nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    def __sub__(self, before: Counts) -> Counts:
        """What came after ``before``: the counters of engines only grow."""
        both = None if self.drafts is None or before.drafts is None else self.drafts - before.drafts
        return Counts(self.tokens - before.tokens, self.drafted - before.drafted, self.accepted - before.accepted, both)

    def __add__(self, other: Counts) -> Counts:
        both = None if self.drafts is None or other.drafts is None else self.drafts + other.drafts
        return Counts(self.tokens + other.tokens, self.drafted + other.drafted, self.accepted + other.accepted, both)

    def predicted(self, draft_tokens: int, cost: float = 0.0, verify: float = 1.0) -> float | None:
        """The speed-up that these counts should bring: :func:`speedup`, with the steps that had no draft at plain cost."""
        if self.drafts is None or self.tokens_per_step is None:
            return None
        return self.tokens_per_step / (1 + self.drafts / self.steps * (verify - 1 + draft_tokens * cost))

    def in_steps(self, steps: int) -> Counts:
        """The same with counted ``steps``: engines also call accepted what is cut off at an answer's end."""
        return replace(self, accepted=self.tokens - steps)

    def __str__(self) -> str:
        rate = "nothing drafted" if self.acceptance is None else f"{self.accepted} of {self.drafted} drafted tokens accepted"
        return f"{rate}, {self.tokens} tokens in {self.steps} steps: {self.tokens / max(self.steps, 1):.2f} tokens per step"


def steps_of(calls: Sequence[Sequence[int]], prompt_tokens: int, tokens: int) -> list[tuple[int, int]]:
    """The (drafted, accepted) tokens of each call of the target that made ``tokens`` behind a prompt; the first computes it too.

    ``calls`` has for each how many tokens it computed, and how many the KV cache held before it. A rejected guess is taken out
    of the cache again, so what the cache grew by is what was kept: the accepted tokens and the target's own.
    """
    drafted = [calls[0][0] - prompt_tokens, *(width - 1 for width, _ in calls[1:])]
    held = [prompt_tokens - 1, *(cached for _, cached in calls[1:]), prompt_tokens + tokens - 1]
    return [(guesses, after - before - 1) for guesses, before, after in zip(drafted, held, held[1:])]


def from_steps(steps: Sequence[tuple[int, int]]) -> Counts:
    """Counts from the (drafted, accepted) tokens of each step."""
    drafted, accepted = (sum(one) for one in zip(*steps))
    return Counts(accepted + len(steps), drafted, accepted, sum(guesses > 0 for guesses, _ in steps))


def from_llama_cpp(timings: Mapping) -> Counts:
    """Counts from ``timings`` of a llama.cpp server's reply; it leaves ``draft_n`` out where nothing was drafted."""
    return Counts(timings["predicted_n"], timings.get("draft_n", 0), timings.get("draft_n_accepted", 0))


def from_vllm(told: str | Iterable) -> Counts:
    """Counts since vLLM's start, from the text of ``/metrics`` or from ``LLM.get_metrics()``.

    ``accepted`` has up to one draft too many for each answer, cut off at its end (see :meth:`Counts.in_steps`).
    :class:`DraftError` for an engine that was started without drafts: it has no such counters.
    """
    wanted = ("generation_tokens", "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens", "spec_decode_num_drafts")
    if isinstance(told, str):
        found = {one: [value for _, value in metrics.rows(told, f"vllm:{one}_total")] for one in wanted}
    else:
        named = [(metric.name.removesuffix("_total"), metric.value) for metric in told if hasattr(metric, "value")]
        found = {one: [value for name, value in named if name == f"vllm:{one}"] for one in wanted}
    if not found["spec_decode_num_drafts"]:
        raise DraftError("vLLM counts no drafts: start it with a speculative_config, and with its statistics on")
    return Counts(*(int(sum(found[one])) for one in wanted))


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int = 3) -> dict[str, list[float]]:
    """Seconds that each of ``ways`` took, called in turns, the order turned round each time; warm up before."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            started = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - started)
    return times


def gains(times: Mapping[str, Sequence[float]]) -> list[float]:
    """The speed-up of the second of two ways over the first, turn by turn: what slows the machine slows both."""
    plain, other = times.values()
    return [before / after for before, after in zip(plain, other, strict=True)]


def said(speedups: Sequence[float]) -> str:
    """Measured speed-ups as median, lowest and highest, and the :func:`word` for them."""
    return f"{told(vars(figure(speedups)), '.2f')}, {word(speedups)}"


def word(speedups: Iterable[float | None]) -> str:
    """ "faster" or "slower" if every one of these measured speed-ups says so clearly, else "no clear difference"."""
    found = [one for one in speedups if one is not None]
    if found and min(found) > 1 + CLEAR:
        return "faster"
    if found and max(found) < 1 - CLEAR:
        return "slower"
    return "no clear difference" if found else "not measured"


def arguments(
    engine: str, draft_tokens: int, *, ngram: int = 3, draft: Path | None = None, model: models.Model | None = None
) -> tuple[str, ...]:
    """``extra`` for :func:`helpers.servers.serving.serve`, so that ``engine``'s server drafts ``draft_tokens`` for a step.

    They are looked up behind an earlier occurrence of the last ``ngram`` tokens, or made by the
    model at ``draft``. What is wrong is said here, before anything starts.
    """
    able = [name for name, entry in engines.ENGINES.items() if entry.drafting]
    entry = engines.get(engine)
    if not entry.drafting:
        raise DraftError(f"{entry.title}'s server is not set up for drafts here: choose one of {', '.join(able)}")
    if draft_tokens < 1 or ngram < 1:
        raise DraftError(f"draft_tokens={draft_tokens}, ngram={ngram}: both must be at least 1")
    if draft is not None:
        check_draft(models.weights(entry.form, model), draft)
    return tuple(entry.drafting(engines.Drafting(draft_tokens, ngram, draft)))
