"""What a server does beside decoding: the same requests streamed, in one piece, and with less to choose from.

An engine's own benchmark chooses no token and hands none to anybody; its server chooses each from the whole
vocabulary and hands it to a connection of its own. Where the two differ, this says how much is due to what.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from helpers import client, engines, models, wire, workload
from helpers.answers import read
from helpers.gpu import offline, replay, weights, work
from helpers.gpu.life import Life, Log
from helpers.gpu.work import Setting
from helpers.guide import users_told
from helpers.timing import figure, told

TOKENS = 128  # in, and out
WHOLE = {"stream": False, "stream_options": None}
WAYS = {  # a way's request fields, beside those of :class:`helpers.client.Endpoint`
    "streamed": {},
    "in one piece": WHOLE,
    "in one piece, one sampler": {**WHOLE, "samplers": ["top_k"], "top_k": 1},  # instead of llama.cpp's whole chain
    "in one piece, sampled on the GPU": {**WHOLE, "backend_sampling": True},
}


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server; the most users of ``setting`` ask at once, in each of the life's ways (of :data:`WAYS`), in turns."""
    users, end, ways = max(setting.users), time.monotonic() + left_s, life.given["ways"]
    with work.started(life, setting, log, left_s) as server:
        vocabulary = models.vocabulary(weights.model(setting.shape, "safetensors"))
        for turn, way in [*((None, way) for way in ways), *offline.turns(ways, setting.repeats)]:  # first a warm-up of each
            if (left := end - time.monotonic()) <= 0:
                log.row("stopped", reason="the time was over")
                return False
            prompts = workload.prompts(users, TOKENS, seed=turn or 0, vocabulary=vocabulary)
            endpoint = replace(server.endpoint, fields=lambda n, way=way: {**server.endpoint.fields(n), **WAYS[way]})
            seconds, tokens = client.run(_at_once(endpoint, prompts, left))
            if turn is not None:
                log.row("way", way=way, users=users, repeat=turn, seconds=seconds, output_tokens=tokens)
    return True


async def _at_once(endpoint: client.Endpoint, prompts: Sequence[workload.Prompt], timeout_s: float) -> tuple[float, int]:
    """Seconds from the first request to the end of the last answer, and the output tokens of all."""
    requests = [endpoint.request_bytes(prompt, TOKENS) for prompt in prompts]
    connections = [await endpoint.connect(timeout_s) for _ in requests]
    try:
        async with asyncio.timeout(timeout_s):
            started = time.perf_counter()
            found = await asyncio.gather(*(one.send(request) for one, request in zip(connections, requests)))
            seconds = time.perf_counter() - started
    finally:
        for one in connections:
            one.close()
    return seconds, sum(_tokens(answer) for answer in found)


def _tokens(answer: wire.Answer) -> int:
    """The output tokens of an answer, streamed or in one piece; :class:`~helpers.client.EndpointError` if it is no answer."""
    if answer.status == 200 and "json" in answer.headers.get("content-type", ""):
        return json.loads(b"".join(part for _, part in answer.parts))["usage"]["completion_tokens"]
    sample = read(answer)
    if sample.error:
        raise client.EndpointError(f"a request for {TOKENS} tokens: {sample.error}")
    return sample.output_tokens


def ways(found: Mapping | None = None):
    """Output tokens/s of all users at once in each way and of the engine's own bench; the seconds that all answers took.

    *x* is how many times the rate of the streamed answers.
    """
    import pandas as pd

    found = found or replay.load("options")
    rows = {}
    for one in replay.lives(found, "streaming"):
        made, title = [row for row in one["rows"] if row["kind"] == "way"], engines.TITLES[one["engine"]]
        users, tokens = made[0]["users"], made[0]["output_tokens"]
        rates = {way: figure(row["output_tokens"] / row["seconds"] for row in made if row["way"] == way) for way in WAYS}
        known = {way: vars(rate) for way, rate in rates.items()} | {"its own bench": _bench(found, one, users)}
        for way, rate in known.items():
            rows[f"{title}, {way}"] = {
                users_told(users): told(rate, ".0f"),
                f"{tokens:,} tokens, s": f"{tokens / rate['median']:.1f}" if rate else "-",
                "x": f"{rate['median'] / known['streamed']['median']:.2f}" if rate else "-",
            }
    shown = pd.DataFrame.from_dict(rows, orient="index")
    shown.attrs["recorded"] = replay.recorded(found, works=("streaming",))
    return shown


def _bench(found: Mapping, one: Mapping, users: int) -> Mapping | None:
    """The rate of the same engine with the same weights through its own benchmark, on the same machine."""
    alike = (
        other for other in replay.lives(replay.beside(found, "speed"), "offline")
        if (other["engine"], other["option"]) == (one["engine"], one["option"])
    )  # fmt: skip
    return next((replay.rates(other).get(users) for other in alike), None)
