"""Long prompts among users that decode: what a prompt's prefill does to the tokens of the others, by how the engine cuts it up.

Blocks of the same users alone and beside a long prompt every so many seconds, in turns. An engine that computes a long prompt in
one step makes all others wait for it; one that cuts it into chunks can give them a token in between.

With its defaults vLLM 0.32.0 computes 8,192 tokens a step on such a GPU, decoding among them, so that a prompt of 8,192 tokens is
nearly one chunk. SGLang 0.5.23 cuts at 8,192 too and does not mix unless it is told to: while a cut prompt is under way, nobody
decodes between its chunks (``managers/scheduler.py``).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from helpers.bench import client, timing, workload
from helpers.bench.timing import Sample
from helpers.gpu import random_model, session
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import offline, together
from helpers.servers.serving import Server
from helpers.weights import models

ALONE, BESIDE = "alone", "beside long prompts"
SAID = re.compile(
    r"Chunked prefill is enabled with max_num_batched_tokens=\d+|chunked_prefill_size=-?\w+, max_prefill_tokens=\d+"
)


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server; a warm-up of each way, then its blocks in turns. A row for the users of each block, one for its long prompts.

    The joules are the GPU's for the whole block, long prompts included.

    ``life.given`` has ``users``, ``requests`` (of each user in a block), ``input_tokens``, ``output_tokens``, and of the long
    prompts ``long_tokens``, ``long_output_tokens``, ``every_s`` and ``most_long`` (of them in a block).
    """
    end, how, nvml = time.monotonic() + left_s, life.given, Nvml()
    own = replace(setting, users=(how["users"],))
    with session.started(life, own, log, left_s) as server:
        log.note(chunks=sorted(set(SAID.findall(server.log.read_text(errors="replace")))))
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        took_s = 0.0
        for turn, way in [(None, ALONE), (None, BESIDE), *offline.turns([ALONE, BESIDE], setting.repeats)]:
            if time.monotonic() + offline.RESERVE * took_s > end:
                log.row("stopped", reason=f"block {turn} {way}: {end - time.monotonic():.0f} s were left")
                return False
            began = time.monotonic()
            left = max(end - began, 1)
            before = nvml.joules()
            short, long = client.run(_block(server, how, way == BESIDE, f"{way} {turn}", vocabulary, left))
            joules, took_s = nvml.joules_since(before), max(took_s, time.monotonic() - began)
            if turn is not None:
                log.row("users", way=way, repeat=turn, joules=joules, **figures(together.answered(short, f"users {way}")))
                if way == BESIDE:
                    log.row("long prompts", repeat=turn, **_firsts(together.answered(long, "long prompts")))
    return True


async def _block(
    server: Server, how: Mapping, beside: bool, seed: str, vocabulary, left_s: float
) -> tuple[list[Sample], list[Sample]]:
    """The samples of the users, and of the long prompts, of which none is sent after the users' last answer."""
    users, done = how["users"], asyncio.Event()
    short = workload.prompts(users * how["requests"], how["input_tokens"], seed=seed, vocabulary=vocabulary)
    long = workload.prompts(how["most_long"], how["long_tokens"], seed=f"long {seed}", vocabulary=vocabulary) if beside else []

    async def decoding() -> list[Sample]:
        try:
            asked = {"users": users, "output_tokens": how["output_tokens"], "timeout_s": left_s}
            return await client.closed_loop(server.endpoint, short, **asked)
        finally:
            done.set()

    rest = {"every_s": how["every_s"], "until": done, "output_tokens": how["long_output_tokens"], "timeout_s": left_s}
    return tuple(await asyncio.gather(decoding(), together.at_intervals(server.endpoint, long, **rest)))


def figures(samples: Sequence[Sample]) -> dict:
    """Of the users in one block: tokens/s, the gaps between their tokens (``gaps`` are how many), TTFT and TPOT; seconds.

    Of the answers that came ``in_one_moment`` nothing is known of the time between their tokens: they have no gaps.
    """
    apart = [sample for sample in samples if sample.tpot_s is not None]
    gaps = [gap for sample in apart for gap in sample.itl_s]
    return {
        "requests": len(samples), "output_tokens": sum(sample.output_tokens or 0 for sample in samples),
        "in_one_moment": len(samples) - len(apart), "output_tokens_per_s": timing.tokens_rate(samples), "gaps": len(gaps),
        "itl_s": spread(gaps), "ttft_s": spread([sample.ttft_s for sample in samples]),
        "tpot_s": spread([sample.tpot_s for sample in apart]),
    }  # fmt: skip


def _firsts(samples: Sequence[Sample]) -> dict:
    """Of the long prompts in one block: each one's TTFT, seconds."""
    return {"requests": len(samples), "ttft_s": [sample.ttft_s for sample in samples]}


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median, 99th and 99.9th percentile and maximum of a block's values, which are not independent; ``None``: none is defined.

    A prompt that is computed in one step lengthens one gap of each user: about one in a hundred, so that it is chance whether the
    99th percentile is such a gap.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    percentiles = {f"p{percent:g}".replace(".", ""): float(np.percentile(known, percent)) for percent in (50, 99, 99.9)}
    return {**percentiles, "max": max(known)}
