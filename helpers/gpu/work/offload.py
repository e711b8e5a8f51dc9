"""A conversation comes back: its pages are still on the GPU, were kept in the machine's memory, or have to be computed again.

The KV pool is small, so that some other prompts push the conversation's pages out. Without offloading they are lost then; with it
they were copied to the machine's memory before. That it was so, each answer's count of cached prompt tokens says.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from helpers.bench import client, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt
from helpers.gpu import random_model, session
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import offline, together
from helpers.servers import metrics
from helpers.servers.serving import Server
from helpers.weights import models

NEW, HERE, BACK = "new", "still on the GPU", "pushed out, returns"
COUNTERS = {"vllm": "vllm:kv_offload", "sglang": "sglang:cached_tokens"}  # what the engines count of it, by how the names begin
PAUSE_S = 1.0  # so that copies that go on behind an answer have ended


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server with its prefix cache; a warm-up and then turns, each with a conversation of its own. A row for each request.

    ``life.given`` has ``pool`` (tokens), ``tokens`` of a prompt, ``others`` that push it out, and ``output_tokens``.
    """
    end, how = time.monotonic() + left_s, life.given
    with session.started(life, replace(setting, users=(how["slots"],)), log, left_s) as server:
        log.row("pool", **vars(metrics.pool(server)))
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        took_s = 0.0
        for turn in range(-1, setting.repeats):
            if time.monotonic() + offline.RESERVE * took_s > end:
                log.row("stopped", reason=f"turn {turn}: {end - time.monotonic():.0f} s were left")
                return False
            began = time.monotonic()
            for when, sample in _turn(server, how, turn, vocabulary, max(end - began, 1)).items():
                if turn >= 0:
                    log.row("answer", when=when, repeat=turn, **_figures(sample))
            took_s = time.monotonic() - began
        log.row("counted", **counted(server))
    return True


def _turn(server: Server, how: Mapping, turn: int, vocabulary, left_s: float) -> dict[str, Sample]:
    """A conversation's first question, its next one at once, and another one after others have filled the pool."""
    endpoint = server.endpoint.cached()
    first, *others = workload.prompts(1 + how["others"], how["tokens"], seed=f"turn {turn}", vocabulary=vocabulary)
    ends = workload.prompts(2, offline.SUFFIX_TOKENS, seed=f"ends {turn}", vocabulary=vocabulary)
    found = {NEW: _asked(endpoint, [first], how, left_s), HERE: _asked(endpoint, [longer(first, ends[0])], how, left_s)}
    time.sleep(PAUSE_S)
    _asked(endpoint, others, how, left_s)
    time.sleep(PAUSE_S)
    return {**found, BACK: _asked(endpoint, [longer(first, ends[1])], how, left_s)}


def longer(prompt: Prompt, end: Prompt) -> Prompt:
    """``prompt`` gone on with ``end``."""
    return Prompt(prompt.text + end.text, prompt.token_ids + end.token_ids)


def _asked(endpoint: Endpoint, prompts: list[Prompt], how: Mapping, left_s: float) -> Sample:
    """The last of ``prompts``' answers, asked for one after the other."""
    asked = [(endpoint, prompt) for prompt in prompts]
    sent = together.by_users(asked, users=1, output_tokens=how["output_tokens"], timeout_s=left_s)
    return together.answered(client.run(sent), "a conversation")[-1]


def _figures(sample: Sample) -> dict:
    return {name: getattr(sample, name) for name in ("ttft_s", "e2e_s", "prompt_tokens", "cached_tokens", "output_tokens")}


def counted(server: Server) -> dict[str, float]:
    """What the engine has counted of its offloading since its start, by its own names and labels."""
    names = COUNTERS.get(server.engine.kernel)
    found = metrics.beginning(server, names) if names else {}
    return {name: value for name, value in found.items() if "_bucket" not in name}
