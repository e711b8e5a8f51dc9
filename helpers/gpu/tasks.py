"""What is done in a life: prompts through the engine's API, its server under load, llama.cpp's bench, the roof."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TextIO

from helpers import kernels
from helpers.bench import checks, client, measure, selftest, workload
from helpers.bench.timing import Level
from helpers.gpu import random_model, session, several, variants
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log
from helpers.gpu.work import (
    adapters,
    apart,
    arriving,
    constrained,
    conversations,
    mixed,
    offline,
    offload,
    routed,
    side_by_side,
    small_model,
    starts,
    streaming,
)
from helpers.lessons.memory import bandwidth
from helpers.servers import guard, llama_cpp, metrics, serving, tensorrt_llm
from helpers.weights import models, sizes

REQUESTS = {1: 3, 10: 30, 100: 300}  # per repeat of a server
LINKS_S = 120  # the GPUs that do not find each other wait for longer


def run_offline(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """The engine's own API: every number of users, in turns."""
    if life.engine == "llama-cpp":
        return _batched_bench(life, setting, log, left_s)
    if life.engine == "tensorrt-llm" and (reason := tensorrt_llm.missing()):
        log.row("failed", reason=f"not measured here: {reason}")
        return False
    job = {
        "engine": life.engine, "option": life.option, "device": setting.device, "repeats": setting.repeats, "warmups": 1,
        "folder": str(random_model.folder(setting.shape)), "vocabulary": random_model.config(setting.shape)["vocab_size"],
        "input_tokens": 128, "output_tokens": 128, "users": list(setting.users), "tasks": ["speed"], **life.given,
    }  # fmt: skip
    given = {} if life.engine == "transformers" else variants.arguments(life.engine, life.option, session.where(life, setting))
    log.note(arguments=given, versions=session.versions(life.engine))
    return session.run_job(life.engine, {**job, "arguments": given}, log, left_s)


def _batched_bench(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """llama.cpp's own benchmark, one load of the model: a warm-up of each number of users, then the turns."""
    folder = llama_cpp.named_binaries()
    if not folder:
        log.row("failed", reason=f"no llama-batched-bench: set {llama_cpp.BINARIES} to the folder with llama.cpp's binaries")
        return False
    file = random_model.gguf_file(setting.shape, life.option)
    tokens_in, tokens_out = 128, 128
    turns = offline.turns(list(setting.users), setting.repeats)
    order = [*setting.users, *(users for _, users in turns)]
    command = variants.batched_bench(folder, file, tokens_in, tokens_out, order, setting.gpu)
    log.note(arguments=[guard.without_folders(part) for part in command[1:]], versions=session.versions("llama-cpp"))
    log.row("weights", bytes=sizes.stored_bytes(file), source="the tensors of the GGUF file")
    numbered = iter([(None, users) for users in setting.users] + turns)
    with session.guarded(command, "llama-cpp") as running, running.log.open() as lines:
        return _follow_bench(running, lines, numbered, log, time.monotonic() + left_s)


def _follow_bench(running: guard.Guarded, lines: TextIO, numbered: Iterator, log: Log, end: float) -> bool:
    """One row for each line of JSON; the first of each number of users was the warm-up."""
    rest = ""
    while True:
        ended = running.process.poll() is not None
        rest += lines.read()
        *whole, rest = rest.split("\n")
        for said in (json.loads(line) for line in whole if line.startswith("{") and '"t_pp"' in line):
            turn, users = next(numbered)
            if users != said["pl"]:
                raise RuntimeError(f"llama-batched-bench answers for {said['pl']} users where {users} were next")
            if turn is not None:
                log.row(
                    "speed", users=users, repeat=turn, seconds=said["t"], output_tokens=users * said["tg"],
                    ttft_s=None, prefill_s=said["t_pp"], decode_s=said["t_tg"],
                )  # fmt: skip
                log.row("first token", users=users, repeat=turn, seconds=said["t_pp"])
        if ended:
            missing = sum(1 for _ in numbered)
            if running.process.returncode or missing:
                ended_with = f"llama-batched-bench ended with {running.process.returncode}, {missing} lines short"
                log.row("failed", reason=f"{ended_with}: {running.reason()}")
            return not running.process.returncode and not missing
        if time.monotonic() > end:
            log.row("stopped", reason="the time was over")
            return False
        time.sleep(0.1)


def run_server(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """The engine's server under load, measured by our client; each number of users is kept as it is done."""
    end, nvml = time.monotonic() + left_s, Nvml()
    with session.started(life, setting, log, left_s) as server:
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        took_s, check, hits = 0.0, several.LogCheck(server.log), partial(metrics.cache_hits, server)
        for users in life.given.get("users", setting.users):
            if time.monotonic() + 2 * took_s > end:
                log.row("stopped", reason=f"{users} users were left out: {arriving.rest(end)}")
                return False
            began = time.monotonic()
            plan = measure.Plan(
                (users,), requests=REQUESTS.get(users, 3 * users), repeats=setting.repeats, seed=users,
                timeout_s=max(end - began, 1), allow_few=setting.repeats < 3,
            )  # fmt: skip
            level, joules = arriving.level(server.endpoint, hits, plan, vocabulary, nvml)
            check()
            log.row("level", **level.to_dict(), joules=joules)
            took_s = time.monotonic() - began
        log.row("pool", **_pool(server))
        how = life.given.get("arrivals")
        whole = how is None or arriving.run(server.endpoint, hits, how, log, end, vocabulary, nvml)
        check()
        return whole and ("prefix" not in life.given or _prefix(server, life, setting, log, end))


def _pool(server: serving.Server) -> dict:
    """The KV pool as the engine says it, held against the formula; and its weights, from its log."""
    found = metrics.pool(server)
    text = server.log.read_text(errors="replace")
    if found.bytes is None and (said := re.findall(r"#tokens: (\d+), K size: ([\d.]+) GB, V size: ([\d.]+) GB", text)):
        tokens, keys, values = said[-1]
        held = round((float(keys) + float(values)) * 2**30)
        found = replace(found, tokens=int(tokens), bytes=held, source="the log's GB, two decimals")
    weights_said = re.findall(r"Model loading took ([\d.]+) GiB|Load weight end.*?mem usage=([\d.]+) GB", text)
    gib = float(max(weights_said[-1])) if weights_said else None
    return {
        "tokens": found.tokens, "bytes": found.bytes, "source": found.source, "bytes_per_token": found.bytes_per_token,
        "weights_gib": gib,
    }  # fmt: skip


def run_prefix(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """A server for the common prefix alone."""
    end = time.monotonic() + left_s
    with session.started(life, setting, log, left_s) as server:
        return _prefix(server, life, setting, log, end)


def _prefix(server: serving.Server, life: Life, setting: session.Setting, log: Log, end: float) -> bool:
    """All users at once, with one long prefix in common and with nothing in common, in turns."""
    users, how = max(setting.users), life.given["prefix"]
    vocabulary, endpoint = models.vocabulary(random_model.model(setting.shape, "safetensors")), server.endpoint.cached()
    blocks: dict[str, list] = {"common": [], "own": []}
    hits: dict[str, list] = {"common": [], "own": []}
    for turn in range(-1, setting.repeats):  # the first is a warm-up
        for kind in ("common", "own")[:: 1 if turn % 2 == 0 else -1]:
            before, left = metrics.cache_hits(server), max(end - time.monotonic(), 1)
            sent = shared(users, how["input_tokens"], kind == "common", turn, vocabulary)
            asked = client.closed_loop(endpoint, sent, users=users, output_tokens=how["output_tokens"], timeout_s=left)
            samples = tuple(client.run(asked))
            if turn >= 0:
                blocks[kind].append(samples)
                hits[kind].append(checks.hits_between(before, metrics.cache_hits(server), samples))
            if time.monotonic() > end:
                log.row("stopped", reason="the time was over")
                return False
    for kind, found in blocks.items():
        log.row("prefix", prefix=kind, cached_prompt_tokens=hits[kind], level=Level(users, tuple(found)).to_dict(), sizes=how)
    log.row("device", bytes=Nvml().used_bytes(), how="NVML, the whole device", when="after the prefixes")
    return True


def shared(users: int, tokens: int, common: bool, turn: int, vocabulary) -> list[workload.Prompt]:
    """One prompt of ``tokens`` tokens for each of ``users``.

    ``common``: all begin with the same prefix and end with some words of their own; else they have nothing in common.
    """
    if not common:
        return workload.prompts(users, tokens, seed=f"own, turn {turn}", vocabulary=vocabulary)
    (prefix,) = workload.prompts(1, tokens - offline.SUFFIX_TOKENS, seed=f"prefix, turn {turn}", vocabulary=vocabulary)
    ends = workload.prompts(users, offline.SUFFIX_TOKENS, seed=f"ends, turn {turn}", vocabulary=vocabulary)
    return [offload.longer(prefix, one) for one in ends]


def run_roof(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """Bandwidth and FLOP/s of this machine, in Transformers' interpreter: the roof of every share."""
    log.row("roof", **bandwidth.measure(setting.device, kernel="transformers").to_dict())
    return True


def run_instrument(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """The client's own error and ceiling on this machine."""
    for users in setting.users:
        log.row("instrument", **vars(selftest.run(users)))
    return True


def run_links(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """All-reduces and copies between the GPUs, in the interpreter of the first engine that is there and has torch."""
    kernel = next((name for name in ("vllm", "sglang", "transformers") if kernels.installed(name)), "vllm")
    job = {"gpus": life.layout.gpus, "device": setting.device}
    return session.run_job(kernel, job, log, min(left_s, LINKS_S), module="helpers.gpu.work.links")


def run_pool(life: Life, setting: session.Setting, log: Log, left_s: float) -> bool:
    """What a server holds once it is ready, and no load."""
    with session.started(life, setting, log, left_s) as server:
        log.row("pool", **_pool(server))
    return True


WORKS = {
    "offline": run_offline, "memory": run_offline, "server": run_server, "prefix": run_prefix, "pool": run_pool,
    "roof": run_roof, "links": run_links, "instrument": run_instrument, "real": small_model.run, "streaming": streaming.run,
    "in turns": side_by_side.run, "constrained": constrained.run, "mixed": mixed.run, "adapters": adapters.run,
    "offload": offload.run, "start": starts.run, "arrivals": run_server, "conversations": conversations.run,
    "routed": routed.run, "apart": apart.run,
}  # fmt: skip
