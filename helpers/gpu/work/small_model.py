"""A real, small model (SmolLM2) on the GPU: decoding plainly and with drafts, free answers and JSON ones.

Acceptance of drafts and the validity of JSON depend on the values of the weights, so random ones would say
nothing of either.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

from helpers.bench import client, workload
from helpers.bench.timing import figure
from helpers.gpu import cases, variants
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting, versions
from helpers.lessons.speculation import speculative
from helpers.lessons.speculation.drafts import DraftError
from helpers.lessons.structured import questions, schemas
from helpers.servers import metrics, serving
from helpers.servers.engine import Engine
from helpers.weights import models

CONTEXT = 2048
DRAFT_TOKENS = 4
ANSWER_TOKENS = 128
USERS = (1, 16)
CASES = 12


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server of ``life.engine``; with option "n-gram drafts" it drafts."""
    end = time.monotonic() + left_s
    slots = max(USERS)
    told = variants.Setup(setting.gpu, CONTEXT, slots, kv_bytes(), random=False)
    engine = plain(life.engine, told)
    drafting = life.option == "n-gram drafts"
    extra = speculative.arguments(life.engine, DRAFT_TOKENS) if drafting else ()
    with serving.serve(engine, slots=slots, context=CONTEXT, timeout_s=left_s, extra=extra) as server:
        log.note(arguments=list(server.arguments), versions=versions(life.engine), model=models.resolve().name)
        log.row("loaded", seconds=server.startup_s)
        for users in USERS:
            _copying(server, users, life.given["tasks_per_user"], setting.repeats, log, end)
        if not drafting:
            _json(server, log)
    return True


def plain(engine: str, told: variants.Setup) -> Engine:
    """``engine`` as it comes."""
    return variants.server(engine, cases.PLAIN if engine != "llama-cpp" else "q4_0", told)


def kv_bytes() -> int:
    """Bytes that a token of the small model takes in the KV cache."""
    from helpers.weights import sizes

    return sizes.kv_bytes_per_token(models.shape())


def _copying(server: serving.Server, users: int, tasks_per_user: int, repeats: int, log: Log, end: float) -> None:
    """Tasks whose answers stand in their prompts: seconds and tokens of each repeat, ``users`` at once."""
    endpoint = replace(server.endpoint, route="chat", token_ids=False, fields=lambda tokens: {})
    tasks = [workload.Prompt(speculative.copying(number)) for number in range(users * tasks_per_user)]
    seconds, tokens = [], []
    for turn in range(-1, repeats):  # the first is a warm-up
        started = time.perf_counter()
        left = max(end - time.monotonic(), 1)
        asked = client.closed_loop(endpoint, tasks, users=users, output_tokens=ANSWER_TOKENS, timeout_s=left)
        samples = client.run(asked)
        if failed := [sample.error for sample in samples if sample.error]:
            log.row("failed", reason=f"copying, {users} users: {failed[0]}"[:300])
            return
        if turn >= 0:
            seconds.append(time.perf_counter() - started)
            tokens.append(sum(sample.output_tokens or 0 for sample in samples))
    rate = figure(count / took for count, took in zip(tokens, seconds))
    log.row("copying", users=users, seconds=seconds, output_tokens=tokens, output_tokens_per_s=vars(rate), counts=_counts(server))


def _counts(server: serving.Server) -> Mapping | None:
    """What vLLM counts of its drafts since its start; llama.cpp says it in each reply only."""
    if server.engine.name != "vllm":
        return None
    try:
        counts = speculative.from_vllm(metrics.metrics_page(server))
    except (DraftError, metrics.Unreadable):
        return None
    return {**vars(counts), "acceptance": counts.acceptance, "tokens_per_step": counts.tokens_per_step}


def _json(server: serving.Server, log: Log) -> None:
    """Each prompt free and with its schema: outcomes, and the time per token of both."""
    free, forced = questions.both_ways(server, schemas.cases()[:CASES])
    log.row(
        "json", asked=len(forced), free=questions.counts(free), constrained=questions.counts(forced),
        time_per_token_ratio=questions.overhead(free, forced),
        tpot_s={name: _median(answers) for name, answers in (("free", free), ("constrained", forced))},
    )  # fmt: skip


def _median(answers) -> float | None:
    known = [answer.tpot_s for answer in answers if answer.tpot_s is not None]
    return statistics.median(known) if known else None
