"""Conversations of some turns: each sends again all that was said before, and the prefix cache holds most of it.

What a turn adds is computed, and what came before as well unless it is found in the cache: the wait for the first token says
which. Beside it prompts as long as a last turn, of which nothing was ever said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from helpers.bench import measure
from helpers.bench.distributions import Distribution
from helpers.bench.synthetic import Synthetic
from helpers.bench.timing import Level
from helpers.gpu import random_model, session, several
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.servers import metrics
from helpers.servers.serving import Server
from helpers.weights import models


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server with its prefix cache: a row of the conversations, one of each of their turns, one of the new prompts.

    ``life.given`` has ``users`` at once, ``requests`` of each of them in a block (conversations), ``turns``, and the tokens that
    a turn brings: ``input_tokens``, ``output_tokens``.
    """
    end, how = time.monotonic() + left_s, life.given
    with session.started(life, replace(setting, users=(how["users"],)), log, left_s) as server:
        for kind, turns, tokens in (("talks", how["turns"], how["input_tokens"]), ("new", 1, longest(how))):
            if time.monotonic() > end:
                log.row("stopped", reason="the time was over")
                return False
            asked = plan(how, turns, tokens, setting.repeats, max(end - time.monotonic(), 1))
            level = _level(server, setting, asked)
            several.LogCheck(server.log)()
            log.row(kind, **level.to_dict())
            for row in by_turn(level) if turns > 1 else ():
                log.row("turn", **row)
    return True


def longest(how: Mapping) -> int:
    """Tokens of a conversation's last prompt."""
    return (how["turns"] - 1) * (how["input_tokens"] + how["output_tokens"]) + how["input_tokens"]


def spoken(how: Mapping, turns: int, tokens: int) -> Synthetic:
    """Conversations of ``turns``, each of which adds ``tokens``, with nothing in common."""
    return Synthetic(
        *(Distribution("fixed", (count,)) for count in (tokens, how["output_tokens"])), 0, Distribution("fixed", (turns,))
    )


def plan(how: Mapping, turns: int, tokens: int, repeats: int, timeout_s: float) -> measure.Plan:
    """As many users at once as ``how`` says. Conversations of another number of ``turns`` have nothing in common with these."""
    return measure.Plan(
        (how["users"],), input_tokens=how["input_tokens"], output_tokens=how["output_tokens"], source=spoken(how, turns, tokens),
        requests=how["requests"] * how["users"], repeats=repeats, warmups=1, settle=False, seed=turns,
        timeout_s=timeout_s, allow_few=True,
    )  # fmt: skip


def _level(server: Server, setting: Setting, asked: measure.Plan) -> Level:
    """What came of ``asked``; the prefix cache may help, and the server says how much it did."""
    vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
    hits = {"hits": lambda _: metrics.cache_hits(server)}
    (level,) = measure.measure(server.endpoint.cached(), asked, vocabulary=vocabulary, progress=False, **hits)
    return level


def by_turn(level: Level) -> Iterator[dict]:
    """Of each turn: its number, tokens of its prompt, those said to be cached, TTFT by repeat (medians, seconds)."""
    for turn in sorted({sample.asked.turn for sample in level.samples}):
        blocks = [[one for one in block if one.asked.turn == turn and one.error is None] for block in level.blocks]
        mine = [one for block in blocks for one in block]
        cached = [one.cached_tokens for one in mine if one.cached_tokens is not None]
        yield {
            "turn": turn, "requests": len(mine), "prompt_tokens": sorted({one.prompt_tokens for one in mine}),
            "cached_tokens": float(np.median(cached)) if cached else None,
            "ttft_s": [float(np.median([one.ttft_s for one in block])) for block in blocks if block],
        }  # fmt: skip
