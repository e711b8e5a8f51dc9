"""What a server does beside decoding: the same requests streamed, in one piece, and with other samplers.

llama.cpp's own benchmark chooses no token and sends none; its server does both for every token of every user.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from helpers.bench import client, connection, stream, workload
from helpers.bench.timing import figure, told
from helpers.collection.document_figures import users_told
from helpers.gpu import offline, random_model, read, tasks
from helpers.gpu.session import Life, Log
from helpers.gpu.tasks import Setting
from helpers.servers import engines
from helpers.weights import models

TOKENS = 128  # in, and out
WHOLE = {"stream": False, "stream_options": None}
WAYS = {  # a way's request fields, beside those of :class:`helpers.bench.client.Endpoint`
    "streamed": {},
    "in one piece": WHOLE,
    "in one piece, one sampler": {**WHOLE, "samplers": ["top_k"], "top_k": 1},  # instead of llama.cpp's whole chain
    "in one piece, sampled on the GPU": {**WHOLE, "backend_sampling": True},
}


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server; the most users of ``setting`` ask at once, in each of the life's ways (of :data:`WAYS`), in turns."""
    users, end, ways = max(setting.users), time.monotonic() + left_s, life.given["ways"]
    with tasks.started(life, setting, log, left_s) as server:
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        for turn, way in [*((None, way) for way in ways), *offline.turns(ways, setting.repeats)]:  # first a warm-up of each
            prompts = workload.prompts(users, TOKENS, seed=-1 if turn is None else turn, vocabulary=vocabulary)
            endpoint = replace(server.endpoint, fields=lambda n, way=way: {**server.endpoint.fields(n), **WAYS[way]})
            try:
                seconds, tokens = client.run(_at_once(endpoint, prompts, max(end - time.monotonic(), 0)))
            except TimeoutError:
                log.row("stopped", reason="the time was over")
                return False
            if turn is not None:
                log.row("way", way=way, users=users, repeat=turn, seconds=seconds, output_tokens=tokens)
    return True


async def _at_once(endpoint: client.Endpoint, prompts: Sequence[workload.Prompt], timeout_s: float) -> tuple[float, int]:
    """Seconds from the first request to the end of the last answer, and the output tokens of all.

    Raises TimeoutError, :class:`~helpers.bench.client.EndpointError` for what is no answer of :data:`TOKENS` tokens.
    """
    requests, connections = [endpoint.request_bytes(prompt, TOKENS) for prompt in prompts], []
    try:
        async with asyncio.timeout(timeout_s):
            for _ in requests:
                connections.append(await endpoint.connect(timeout_s))
            started = time.perf_counter()
            found = await asyncio.gather(*(one.send(request) for one, request in zip(connections, requests)))
            seconds = time.perf_counter() - started
    finally:
        for one in connections:
            one.close()
    return seconds, sum(_tokens(answer) for answer in found)


def _tokens(answer: connection.Answer) -> int:
    """The output tokens of an answer, streamed or in one piece; :class:`~client.EndpointError` if not :data:`TOKENS`."""
    in_one_piece = "json" in answer.headers.get("content-type", "")
    if answer.status == 200 and answer.whole and not answer.problem and in_one_piece:
        count = json.loads(b"".join(part for _, part in answer.parts)).get("usage", {}).get("completion_tokens")
    else:
        sample = stream.read(answer)
        if sample.error:
            raise client.EndpointError(f"a request for {TOKENS} tokens: {sample.error}")
        count = sample.output_tokens
    if count != TOKENS:
        raise client.EndpointError(f"a request for {TOKENS} tokens: the answer counts {count}")
    return count


def ways(found: Mapping | None = None):
    """Output tokens/s of all users at once in each way and of the engine's own bench; the seconds that all answers took.

    *x* is how many times the rate of the streamed answers.
    """
    found, rows, used = found or read.load("options"), {}, []
    for one in read.lives(found, "streaming"):
        made = [row for row in one["rows"] if row["kind"] == "way"]
        if not made:
            continue
        users, tokens, bench = made[0]["users"], made[0]["output_tokens"], _bench(found, one)
        known = {way: _rate(row for row in made if row["way"] == way) for way in WAYS}
        known["its own bench"] = read.rates(bench).get(users) if bench else None
        streamed = known["streamed"]
        for way, rate in known.items():
            rows[f"{engines.TITLES[one['engine']]}, {way}"] = {
                users_told(users): told(rate, ".0f"),
                f"{tokens:,} tokens, s": f"{tokens / rate['median']:.1f}" if rate else "-",
                "x": f"{rate['median'] / streamed['median']:.2f}" if rate and streamed else "-",
            }
        used += [one, *([bench] if bench else [])]
    return read.frame(rows, {**found, "lives": dict(enumerate(used))})


def _rate(rows: Iterable[Mapping]) -> Mapping | None:
    """Output tokens/s of ``rows``: median, lowest and highest; ``None`` without rows."""
    rate = figure(row["output_tokens"] / row["seconds"] for row in rows)
    return rate and vars(rate)


def _bench(found: Mapping, one: Mapping) -> Mapping | None:
    """The same engine with the same weights through its own benchmark, on the same machine."""
    offline_ones = read.lives(read.beside(found, "speed"), "offline")
    return next((other for other in offline_ones if (other["engine"], other["option"]) == (one["engine"], one["option"])), None)
