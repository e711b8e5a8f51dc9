"""What a server does beside decoding: the same requests streamed, in one piece, and with other samplers.

llama.cpp's own benchmark chooses no token and sends none; its server does both for every token of every user.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace

from helpers.bench import client, connection, stream, workload
from helpers.gpu import cases, random_model, session
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import offline
from helpers.weights import models

TOKENS = 128  # in, and out


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """Measure how long one server takes for the same answers, asked for in several ways.

    As many users as the largest number in ``setting`` ask at once. The ways are those of ``life`` (names from
    :data:`~helpers.gpu.cases.WAYS`): each is warmed up once and then measured once in every repeat. Each measurement is a
    row ``way`` in ``log``. Returns whether all was measured within ``left_s`` seconds.
    """
    users, end, ways = max(setting.users), time.monotonic() + left_s, life.given["ways"]
    with session.started(life, setting, log, left_s) as server:
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        for turn, way in [*((None, way) for way in ways), *offline.turns(ways, setting.repeats)]:  # first a warm-up of each
            prompts = workload.prompts(users, TOKENS, seed=-1 if turn is None else turn, vocabulary=vocabulary)
            endpoint = replace(server.endpoint, fields=lambda n, way=way: {**server.endpoint.fields(n), **cases.WAYS[way]})
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


def _tokens(answer: connection.Reply) -> int:
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
