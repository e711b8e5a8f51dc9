"""LiteLLM's ``Router`` over servers of ours: which group goes where, and traffic through it. Runs where LiteLLM is.

Nothing here routes: retries, time-outs, cooldowns and fallbacks are LiteLLM's. This says which
deployments there are, sends requests, and notes for each who answered and how long it took.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

TIMEOUT_S = 30
_COUNTED = ("TimeoutError", "RateLimitError", "InternalServerError", "ServiceUnavailableError")
COOLING = {f"{kind}AllowedFails": 0 for kind in _COUNTED}


def deployment(group: str, name: str, base_url: str, model: str, *, cooldown_s: float | None = None, **parameters) -> dict:
    """An entry of LiteLLM's ``model_list``: the server at ``base_url`` serves ``group`` with ``model``.

    ``name`` is what :class:`Answered` calls it; ``parameters`` are LiteLLM's, as ``timeout`` in seconds. After a
    failure it is asked nothing for ``cooldown_s`` seconds. LiteLLM does not let a group's only deployment cool
    down unless that deployment's own policy says so: hence ``COOLING``.
    """
    where = {"model": f"openai/{model}", "api_base": base_url, "api_key": "none"}
    cooling = {} if cooldown_s is None else {"allowed_fails_policy": COOLING, "cooldown_time": cooldown_s}
    return {"model_name": group, "litellm_params": {**where, **parameters}, "model_info": {"id": name, **cooling}}


def router(deployments: Sequence[Mapping], fallbacks: Mapping[str, Sequence[str]] | None = None, **options):
    """LiteLLM's ``Router``: no retries unless asked for, ``fallbacks`` a mapping of group to groups.

    A group that is named in ``fallbacks`` and has no deployment is an error here, not at the first failure.
    """
    import litellm

    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)  # an error is in the answer; not a second time in a log
    groups = {entry["model_name"] for entry in deployments}
    named = {name for group, others in (fallbacks or {}).items() for name in (group, *others)}
    if missing := sorted(named - groups):
        raise ValueError(f"no deployment serves the group {missing[0]!r}: there are {', '.join(sorted(groups)) or 'none'}")
    listed = [{group: list(others)} for group, others in (fallbacks or {}).items()]
    chosen = {"num_retries": 0, "timeout": TIMEOUT_S, **options}
    return litellm.Router(model_list=[dict(entry) for entry in deployments], fallbacks=listed, **chosen)


@dataclass(frozen=True)
class Answered:
    """What became of one request. ``by`` is the deployment's name; ``error`` one line, with ``text`` and ``by`` ``None``."""

    group: str
    prompt: str
    latency_s: float
    by: str | None = None
    text: str | None = None
    error: str | None = None


async def send(router, group: str, prompts: Sequence[str], *, users: int = 4, max_tokens: int = 12, **fields) -> list[Answered]:
    """Send every prompt to ``group``, ``users`` at a time, greedy; what became of each, in order."""
    if users < 1 or max_tokens < 1:
        raise ValueError(f"users={users}, max_tokens={max_tokens}: both must be at least 1")
    places = asyncio.Semaphore(users)

    async def one(prompt: str) -> Answered:
        async with places:
            started = time.perf_counter()
            try:
                answer = await router.acompletion(
                    model=group, messages=[{"role": "user", "content": prompt}], max_tokens=max_tokens, temperature=0, **fields
                )
            except Exception as error:  # LiteLLM's errors have no base class of their own
                return Answered(group, prompt, time.perf_counter() - started, error=one_line(error))
            by = answer._hidden_params["model_id"]
            return Answered(group, prompt, time.perf_counter() - started, by, answer.choices[0].message.content)

    return list(await asyncio.gather(*map(one, prompts)))


def one_line(error: Exception) -> str:
    """LiteLLM's error in one line of at most 200 characters: its kind, and what it says first."""
    said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    kind = type(error).__name__
    while said.startswith((f"litellm.{kind}: ", f"{kind}: ")):
        said = said.partition(": ")[2]
    return f"{kind}: {said}"[:200]


def row(answers: Sequence[Answered]) -> dict:
    """One line of a table: requests, how many were answered, by whom, the median latency with its range."""
    times = [answer.latency_s for answer in answers if answer.error is None]
    by = [answer.by for answer in answers if answer.by]
    return {
        "requests": len(answers),
        "answered": len(times),
        "by": ", ".join(f"{name} {by.count(name)}" for name in sorted(set(by))) or "none",
        "latency, ms": _spread(times),
    }


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"{median(seconds) * 1e3:.0f} ({min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f})"
