"""A batch in vLLM, step by step: the engine's steps are counted, and not those of each request alone.

A step of the engine computes tokens of all its requests. So a request without a guess waits for those that have one, and a
batch is done with its last request. What drafts cost a batch is seen in the engine's steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from helpers.lessons.speculation.speculative import Counts


@dataclass(frozen=True)
class Answers:
    """The token ids of each answer, the ``steps`` of the engine, and ``request_steps``: the requests in each, added up."""

    ids: list[list[int]]
    steps: int
    request_steps: int


def answered(llm, prompts: Sequence[Mapping], sampling: Callable[[], object]) -> Answers:
    """The answers of ``llm``, a ``vllm.LLM``, to ``prompts`` sent at once; ``sampling()`` makes one request's parameters."""
    engine = llm.llm_engine
    for number, prompt in enumerate(prompts):
        engine.add_request(str(number), prompt, sampling())
    ids, steps, request_steps = {}, 0, 0
    while engine.has_unfinished_requests():
        came = engine.step()
        ids |= {one.request_id: list(one.outputs[0].token_ids) for one in came}
        steps, request_steps = steps + bool(came), request_steps + len(came)
    return Answers([ids[str(number)] for number in range(len(prompts))], steps, request_steps)


def compared(counts: Counts, steps: Mapping[str, int], times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """What drafts change in a batch, as factors: 1 is "as without drafts". The speed-up is the first over the third.

    ``counts`` are of all requests that draft together, ``steps`` and ``times`` (seconds, repeated) those of the engine without
    drafts and then with them. A step computes one token for each of its requests, and the guesses; the prompts are left out.
    """
    (before, after), (plain_s, drafting_s) = steps.values(), (median(taken) for taken in times.values())
    plain_tokens, tokens = counts.tokens / before, (counts.steps + counts.drafted) / after
    return {
        "times fewer steps": before / after,
        "times the tokens in a step": tokens / plain_tokens,
        "times as long a step": (drafting_s / after) / (plain_s / before),
        "times as fast": plain_s / drafting_s,
    }
