"""Ask an endpoint once before anything is measured: does it answer, and how does it count a prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from helpers.bench import client, workload
from helpers.bench.client import Endpoint, EndpointError

if TYPE_CHECKING:
    from helpers.bench.measure import Plan


@dataclass(frozen=True)
class Target:
    """An endpoint and how many words make a prompt that it counts as the asked length."""

    endpoint: Endpoint
    words: int


def probe(endpoint: Endpoint, plan: Plan, vocabulary: Sequence[str] | None = None) -> Target:
    """Ask once or a few times, unmeasured.

    A special token or a chat template adds to the prompt; words are left out until the
    server's own count is ``plan.input_tokens``. Raises :class:`EndpointError` in one line.
    """
    asked = plan.input_tokens + plan.output_tokens
    if endpoint.context is not None and asked > endpoint.context:
        raise EndpointError(
            f"{plan.input_tokens} tokens in and {plan.output_tokens} out do not fit the context of {endpoint.context}: "
            "ask for fewer, or start the server with more"
        )
    target = Target(endpoint, plan.input_tokens)
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
