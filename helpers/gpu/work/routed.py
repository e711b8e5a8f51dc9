"""Copies of one model behind sglang-router: arrivals, prompts that begin alike, and one copy killed in the middle.

The router takes prompts as text alone (it refuses token ids with HTTP 422), so that the servers tokenize them; the prompts are
those of the other lives, word for word. llama.cpp's tokenizer cuts the words of a random file into letters: it has no such life.
Which copy answered is what the router counts: ``smg_worker_cb_outcomes_total``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from helpers.bench import checks, client, server_metrics, workload
from helpers.bench.timing import Level
from helpers.gpu import random_model, several
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import arriving, copies, killed, offline, offload
from helpers.lessons.scaling import gateway
from helpers.lessons.scaling.gateway import Router
from helpers.servers import install, metrics
from helpers.servers.serving import Server
from helpers.weights import models

BY_CACHE, IN_TURN = "cache_aware", "round_robin"


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """A copy on each GPU; ``life.given`` says what is asked: ``arrivals``, ``shared``, ``killed``, in this order.

    What was measured before a part that has no time left is kept; killing comes last, as the copy stays dead.
    """
    end, given = time.monotonic() + left_s, life.given
    log.note(router=install.versions_in(gateway.KERNEL, ("sglang-router",)))  # one that is not there is missed before the start
    with copies.started(life, setting, log, left_s) as servers:
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        looks = [several.LogCheck(server.log) for server in servers]
        for server in servers:
            log.row("pool", **vars(metrics.pool(server)))
        whole = _arrivals(servers, given["arrivals"], log, end, vocabulary)
        whole &= _shared(servers, given["shared"], log, end, vocabulary, setting.repeats)
        whole &= killed.run(servers, BY_CACHE, given["killed"], log, end, vocabulary)
        for look in looks:
            look()
    return whole


def _arrivals(servers: Sequence[Server], how: Mapping, log: Log, end: float, vocabulary: Sequence[str]) -> bool:
    """The plan of the lives without a router; beside each rate, how many requests each copy answered, warm-ups too."""
    with gateway.router(servers, BY_CACHE) as router:
        counted = [[0] * len(servers)]

        def beside() -> dict:
            counted.append(answered(router.page(), servers))
            return {"policy": BY_CACHE, "answered": [now - then for then, now in zip(*counted[-2:])]}

        return arriving.run(router.endpoint, lambda: hits(servers), how, log, end, vocabulary, Nvml(), beside)


def hits(servers: Sequence[Server]) -> checks.Hits:
    """What all of them count of their prefix caches; no figure where one of them gives none."""
    each = [metrics.cache_hits(server) for server in servers]
    return checks.Hits(None if any(one.tokens is None for one in each) else sum(one.tokens for one in each), each[0].source)


def answered(page: str, servers: Sequence[Server], outcome: str = "success") -> list[int]:
    """How often the router's call of each of ``servers`` had ``outcome`` ("success", "failure")."""
    rows = server_metrics.rows(page, "smg_worker_cb_outcomes_total")
    counts = {labels["worker"]: round(value) for labels, value in rows if labels["outcome"] == outcome}
    return [counts.get(server.base_url.removesuffix("/v1"), 0) for server in servers]


def _shared(servers: Sequence[Server], how: Mapping, log: Log, end: float, vocabulary: Sequence[str], repeats: int) -> bool:
    """Both policies in turns, a router of each before the same copies; a warm-up first; every turn has beginnings of its own."""
    took_s, policies = 0.0, [BY_CACHE, IN_TURN]
    with ExitStack() as stack:
        routers = {policy: stack.enter_context(gateway.router(servers, policy)) for policy in policies}
        for turn, policy in [*((None, policy) for policy in policies), *offline.turns(policies, repeats)]:
            if time.monotonic() + offline.RESERVE * took_s > end:
                log.row("stopped", reason=f"shared beginnings, turn {turn} {policy}: {arriving.rest(end)}")
                return False
            began = time.monotonic()
            prompts = alike(how, f"{turn} {policy}", vocabulary)
            figures = _turn(routers[policy], servers, prompts, how, max(end - began, 1))
            took_s = max(took_s, time.monotonic() - began)
            if turn is not None:
                log.row("shared", policy=policy, repeat=turn, sizes=dict(how), **figures)
    return True


def alike(how: Mapping, seed: str, vocabulary: Sequence[str]) -> list[workload.Prompt]:
    """``each`` prompts for each of ``groups`` beginnings of ``common_tokens``, with ``own_tokens`` behind; shuffled."""
    begins = workload.prompts(how["groups"], how["common_tokens"], seed=f"begins {seed}", vocabulary=vocabulary)
    ends = workload.prompts(how["groups"] * how["each"], how["own_tokens"], seed=f"ends {seed}", vocabulary=vocabulary)
    made = [offload.longer(begin, end) for begin, end in zip(begins * how["each"], ends)]
    random.Random(seed).shuffle(made)
    return made


def _turn(router: Router, servers: Sequence[Server], prompts: Sequence[workload.Prompt], how: Mapping, left_s: float) -> dict:
    """One load through ``router``: the client's figures, every TTFT, the servers' cached tokens, and who answered."""
    page, before = router.page(), hits(servers)
    sent = client.closed_loop(
        router.endpoint.cached(), prompts, users=how["users"], output_tokens=how["output_tokens"], timeout_s=left_s
    )
    samples = client.run(sent)
    each = [now - then for now, then in zip(answered(router.page(), servers), answered(page, servers))]
    return {
        **Level(how["users"], (tuple(samples),)).to_dict(),
        "ttft_each_s": [round(one.ttft_s, 6) for one in samples if one.error is None and one.ttft_s is not None],
        "all_prompt_tokens": sum(one.prompt_tokens or 0 for one in samples if one.error is None),
        "cached_prompt_tokens": checks.hits_between(before, hits(servers), samples),
        "answered": each,
    }
