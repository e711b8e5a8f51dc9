"""LoRA adapters: what it costs to hold some of them ready, and to answer with them, beside the model alone.

A server that holds N adapters answers blocks of the same load in turns: with the model alone, and with its users spread over 1, 8
and so on of them. What holding costs shows at its start and in its KV pool, beside a server without adapters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from helpers.bench import client, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level, Sample
from helpers.gpu import random_files, random_model, session
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import offline, together
from helpers.servers import flags, metrics
from helpers.servers.serving import Server
from helpers.weights import models


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server with the adapters of ``life.given``; a row for each block, and one for its pool.

    ``life.given`` has ``adapters`` (held), ``used`` (how many of them the users of a block are spread over, 0: none), ``users``,
    ``requests`` of each user in a block, ``input_tokens`` and ``output_tokens``.
    """
    end, how, nvml = time.monotonic() + left_s, life.given, Nvml()
    made = random_files.adapters(setting.shape, how["adapters"])
    log.row("adapters", held=len(made), rank=random_files.RANK, modules=list(random_files.LINEAR), bytes_each=_bytes(made))
    own = replace(setting, users=(how["users"],))
    with session.started(life, own, log, left_s, extra=told(life.engine, made)) as server:
        log.row("pool", **vars(metrics.pool(server)))
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        took_s, used = 0.0, [count for count in how["used"] if count <= len(made)]
        for turn, count in [*((None, count) for count in used), *offline.turns(used, setting.repeats)]:
            if time.monotonic() + offline.RESERVE * took_s > end:
                log.row("stopped", reason=f"block {turn} of {count} adapters: {end - time.monotonic():.0f} s were left")
                return False
            began = time.monotonic()
            prompts = workload.prompts(
                how["users"] * how["requests"], how["input_tokens"], seed=f"{count} {turn}", vocabulary=vocabulary
            )
            before = nvml.joules()
            samples = _block(server, prompts, count, how, max(end - began, 1))
            joules, took_s = nvml.joules_since(before), max(took_s, time.monotonic() - began)
            if turn is not None:
                log.row("block", adapters=count, repeat=turn, joules=joules, **Level(how["users"], (tuple(samples),)).to_dict())
    return True


def told(engine: str, made: Sequence[Path]) -> tuple[str, ...]:
    """The server's option that names the adapters and their folders; nothing without any."""
    named = [f"{name(number)}={folder}" for number, folder in enumerate(made)]
    return (f"--{flags.FLAGS[engine]['adapters'].replace('_', '-')}", *named) if named else ()


def name(number: int) -> str:
    """What the adapter ``number`` is called."""
    return f"adapter-{number}"


def endpoints(server: Server, count: int) -> list[Endpoint]:
    """That of the model alone, or those of ``count`` adapters: SGLang wants the model's name before the adapter's."""
    base, before = server.endpoint, f"{server.endpoint.model}:" if server.engine.kernel == "sglang" else ""
    return [replace(base, model=before + name(number)) for number in range(count)] or [base]


def _block(server: Server, prompts: Sequence[workload.Prompt], count: int, how, left_s: float) -> list[Sample]:
    """The requests in turn to each adapter, so that at any time all of them are asked."""
    each = endpoints(server, count)
    asked = [(each[number % len(each)], prompt) for number, prompt in enumerate(prompts)]
    sent = together.by_users(asked, users=how["users"], output_tokens=how["output_tokens"], timeout_s=left_s)
    return together.answered(client.run(sent), f"{how['users']} users, {count} adapters")


def _bytes(made: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in made[0].glob("*.safetensors")) if made else 0
