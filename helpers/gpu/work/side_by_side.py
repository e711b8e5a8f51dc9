"""A real, small model with drafts and without, in turns: two servers of one engine on one GPU at the same time.

Two lives, one after the other, may have had different neighbours on the host. Here blocks of the two alternate within seconds, so
that what slows the host slows both. While one answers, the processes of the other are stopped; it only holds memory.

vLLM and llama.cpp look a draft up in the request's own text. SGLang looks it up in a tree of all text that it has served: a task
that it has answered before is drafted from that answer. SGLang counts the steps with drafts, not the drafted tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

from helpers.bench import client, timing, workload
from helpers.bench.timing import Sample
from helpers.gpu import session, variants
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting, versions
from helpers.gpu.work import offline, small_model, together
from helpers.lessons.speculation import speculative
from helpers.servers import flags, metrics, serving
from helpers.servers.serving import Server
from helpers.weights import models

PLAIN, DRAFTS = "no drafts", "n-gram drafts"
SHARE = 0.4  # of the GPU's memory may each take
SGLANG = {  # as many drafts a step as the others get: one chain of them, and the token before it
    "speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": small_model.DRAFT_TOKENS + 1,
    "speculative_ngram_max_bfs_breadth": 1,
}  # fmt: skip
COUNTED = {  # what the engines count since their start, by the names of their /metrics
    "vllm": {
        "tokens": "vllm:generation_tokens_total", "drafted": "vllm:spec_decode_num_draft_tokens_total",
        "accepted": "vllm:spec_decode_num_accepted_tokens_total",
    },
    "llama-cpp": {
        "tokens": "llamacpp:tokens_predicted_total", "drafted": "llamacpp:spec_decode_num_draft_tokens_total",
        "accepted": "llamacpp:spec_decode_num_accepted_tokens_total",
    },
    "sglang": {"tokens": "sglang:generation_tokens_total", "draft_steps": "sglang:spec_verify_calls_total"},
}  # fmt: skip


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """Both servers of ``life.engine``; blocks of :func:`~helpers.lessons.speculation.speculative.copying` in turns.

    ``life.given`` has ``users``, ``tasks_per_user``, ``least_tasks`` of a block, and ``blocks`` of each way after a warm-up.
    Every block is a row.
    """
    end, given = time.monotonic() + left_s, life.given
    with _both(life, setting, left_s) as servers:
        log.note(
            arguments=list(servers[PLAIN].arguments), drafts=drafting(life.engine), versions=versions(life.engine),
            model=models.resolve().name,
        )  # fmt: skip
        for way, server in servers.items():
            log.row("loaded", way=way, seconds=server.startup_s)
        for users in given["users"]:
            tasks = max(users * given["tasks_per_user"], given["least_tasks"])
            if not _blocks(servers, users, tasks, given["blocks"], log, end):
                return False
    return True


def drafting(engine: str) -> list[str]:
    """The options that make ``engine``'s server draft, up to :data:`small_model.DRAFT_TOKENS` tokens a step."""
    if engine == "sglang":
        return flags.words(SGLANG)
    return list(speculative.arguments(engine, small_model.DRAFT_TOKENS))


@contextmanager
def _both(life: Life, setting: Setting, left_s: float) -> Iterator[dict[str, Server]]:
    """The two servers by their ways, started together, each stopped but inside its ``awake()``."""
    slots = max(life.given["users"])
    told = variants.Setup(
        setting.gpu, small_model.CONTEXT, slots, small_model.kv_bytes(), random=False, share=SHARE,
        pool=slots * small_model.CONTEXT if setting.gpu else 0,
    )  # fmt: skip
    plain = small_model.plain(life.engine, told)
    several = {PLAIN: plain, DRAFTS: session.with_options(plain, drafting(life.engine))}
    with serving.at_once(several, slots=slots, context=small_model.CONTEXT, timeout_s=left_s) as servers:
        for server in servers.values():
            server.suspend()
        yield servers


def _blocks(servers: Mapping[str, Server], users: int, tasks: int, blocks: int, log: Log, end: float) -> bool:
    """A warm-up of each way, then the blocks in turns; whether there was time for all of them."""
    took_s, texts = 0.0, {}
    for turn, way in [*((None, way) for way in servers), *offline.turns(list(servers), blocks)]:
        if time.monotonic() + offline.RESERVE * took_s > end:
            log.row("stopped", reason=f"{users} users, block {turn} {way}: {end - time.monotonic():.0f} s were left")
            return False
        began = time.monotonic()
        samples, counts = _block(servers[way], users, tasks, end)
        took_s = max(took_s, time.monotonic() - began)
        if turn is None:
            texts[way] = [sample.text for sample in samples]
        else:
            log.row("block", way=way, users=users, repeat=turn, counts=counts, **_figures(samples))
    same = sum(one == other for one, other in zip(*texts.values()))
    log.row("same answers", users=users, same=same, of=tasks)
    return True


def _block(server: Server, users: int, tasks: int, end: float) -> tuple[list[Sample], dict | None]:
    """One block of ``server``, awake for as long as it takes, and what it counted."""
    endpoint = replace(server.endpoint, route="chat", token_ids=False, fields=lambda tokens: {})
    asked = [(endpoint, workload.Prompt(speculative.copying(number))) for number in range(tasks)]
    left = max(end - time.monotonic(), 1)
    with server.awake():
        before = counted(server)
        sent = together.by_users(asked, users=users, output_tokens=small_model.ANSWER_TOKENS, timeout_s=left)
        samples = together.answered(client.run(sent), f"copying, {users} users")
        after = counted(server)
    return samples, rates({name: after[name] - before[name] for name in after if name in before}, len(samples))


def _figures(samples: Sequence[Sample]) -> dict:
    """What is kept of a block: seconds, tokens, tokens/s, and the medians of TTFT and TPOT."""
    _, seconds = timing.span_s(samples)
    of = {name: [getattr(one, name) for one in samples if getattr(one, name) is not None] for name in ("ttft_s", "tpot_s")}
    return {
        "requests": len(samples), "seconds": seconds, "output_tokens": sum(one.output_tokens or 0 for one in samples),
        "output_tokens_per_s": timing.tokens_rate(samples), **{name: median(found) for name, found in of.items() if found},
    }  # fmt: skip


def counted(server: Server) -> dict[str, float]:
    """What ``server`` has counted since its start, by the names of :data:`COUNTED`; without drafts the tokens alone."""
    try:
        page = metrics.metrics_page(server)
    except metrics.Unreadable:
        return {}
    found = {name: metrics.rows(page, metric) for name, metric in COUNTED[server.engine.kernel].items()}
    return {name: sum(value for _, value in several) for name, several in found.items() if several}


def rates(grown: Mapping[str, float], requests: int) -> dict | None:
    """``grown`` counts of one block with the tokens of a step, and the accepted share of what was drafted, if both are counted.

    Each request has a step that has no draft: its prefill.
    """
    if grown.get("draft_steps"):
        return {**grown, "tokens_per_step": grown["tokens"] / (grown["draft_steps"] + requests)}
    if not grown.get("drafted"):
        return None
    counts = speculative.Counts(round(grown["tokens"]), round(grown["drafted"]), round(grown["accepted"]))
    return {**grown, "acceptance": counts.acceptance, "tokens_per_step": counts.tokens_per_step}
