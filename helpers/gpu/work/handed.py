"""One request at one server, or its prefill at one and its decoding at another: the same clock and connections for both.

There is no router: the client itself asks both servers, as each engine's router would. vLLM's prefill answers first, and says
where its KV cache lies; the decoding server fetches it from there (``docs/features/nixl_connector_usage.md`` of its sources).
SGLang's two servers are asked at the same moment and find each other by a number, the *room* (``sglang_router``).
Answers are read after the load has ended, so that nobody waits for the reading.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from helpers.bench import client, connection, stream
from helpers.bench.client import Endpoint
from helpers.bench.connection import Connection, Reply
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt, arrivals
from helpers.gpu.work.together import Send, queued, spaced

AT_ONCE = {"stream": False, "stream_options": None}  # an answer in one piece
TO_BE_FETCHED = {  # vLLM: the prefill's request; the empty fields are the answer's to fill
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
    "remote_host": None, "remote_port": None,
}  # fmt: skip
ROOMS = 2**63  # SGLang's rooms are numbers below


@dataclass(frozen=True)
class Heard:
    """What came back of one request: the stream, and the prefill's own answer if another server gave it."""

    answer: Reply
    prefill: Reply | None = None
    due_ns: int | None = None  # when it was due, in an open loop
    refused: str | None = None  # why the prefill is none

    def sample(self) -> Sample:
        """As the user sees it: the clock starts with the first request that is sent for it."""
        sample = stream.read(self.answer, self.due_ns)
        sample = replace(sample, error=self.refused) if self.refused else sample
        if self.prefill is None:
            return sample
        first = min(self.prefill, self.answer, key=lambda reply: reply.sent_ns)
        return replace(sample, sent_ns=first.sent_ns, written_ns=first.written_ns)

    @property
    def prefilled_s(self) -> float | None:
        """The prefill's request sent to its answer, seconds."""
        return (self.prefill.stamps_ns[-1] - self.prefill.sent_ns) / 1e9 if self.prefill and self.prefill.stamps_ns else None

    @property
    def between_s(self) -> float | None:
        """The prefill's answer to the decoding request: this client's own part, seconds; below 0 where both were sent at once."""
        return (self.answer.sent_ns - self.prefill.stamps_ns[-1]) / 1e9 if self.prefilled_s is not None else None


Ask = Callable[[int, Prompt, int | None], Awaitable[Heard]]  # the request's number, its prompt, and when it is due


def together(endpoints: Sequence[Endpoint], output_tokens: int, timeout_s: float) -> Ask:
    """Every request whole at one of ``endpoints``, in turn."""

    async def ask(number: int, prompt: Prompt, due_ns: int | None = None) -> Heard:
        endpoint = endpoints[number % len(endpoints)]
        wire = endpoint.request_bytes(prompt, output_tokens)
        async with _ready([endpoint], due_ns, timeout_s) as found:
            return Heard(found if isinstance(found, Reply) else await _sent(found[0], wire, timeout_s), due_ns=due_ns)

    return ask


def fetched(first: Endpoint, second: Endpoint, output_tokens: int, timeout_s: float) -> Ask:
    """vLLM: prefill at ``first``, then decoding at ``second``, which is told where the KV cache lies."""
    prefill = with_fields(first, {**AT_ONCE, "kv_transfer_params": TO_BE_FETCHED})

    async def ask(number: int, prompt: Prompt, due_ns: int | None = None) -> Heard:
        wire = prefill.request_bytes(prompt, 1)
        async with _ready([first, second], due_ns, timeout_s) as found:
            if isinstance(found, Reply):
                return Heard(found, due_ns=due_ns)
            said = await _sent(found[0], wire, timeout_s)
            if not (where := _told(said)):
                return Heard(said, due_ns=due_ns, refused=_refusal(said))
            decode = with_fields(second, {"kv_transfer_params": where})
            return Heard(await _sent(found[1], decode.request_bytes(prompt, output_tokens), timeout_s), said, due_ns)

    return ask


def met(first: Endpoint, second: Endpoint, port: int, output_tokens: int, timeout_s: float) -> Ask:
    """SGLang: both are asked at once and meet in a room of their own at ``port`` of the first, which prefills."""

    async def ask(number: int, prompt: Prompt, due_ns: int | None = None) -> Heard:
        room = {
            "bootstrap_host": urlsplit(first.base_url).hostname,
            "bootstrap_port": port,
            "bootstrap_room": random.randrange(ROOMS),
        }
        wires = [
            with_fields(first, {**AT_ONCE, **room}).request_bytes(prompt, output_tokens),
            with_fields(second, room).request_bytes(prompt, output_tokens),
        ]
        async with _ready([first, second], due_ns, timeout_s) as found:
            if isinstance(found, Reply):
                return Heard(found, due_ns=due_ns)
            said, answer = await asyncio.gather(*(_sent(one, wire, timeout_s) for one, wire in zip(found, wires)))
            return Heard(answer, said, due_ns, _refusal(said) if said.status != 200 or said.problem else None)

    return ask


def with_fields(endpoint: Endpoint, more: Mapping) -> Endpoint:
    """``endpoint`` whose requests have ``more`` fields."""
    return replace(endpoint, fields=lambda output_tokens: {**endpoint.fields(output_tokens), **more})


async def by_users(ask: Ask, prompts: Sequence[Prompt], users: int) -> list[Heard]:
    """``users`` users, each taking the next prompt when its last answer has ended; in the order of ``prompts``."""
    connection.room_for(2 * users)
    return await queued(_each(ask, prompts), users)


async def at_intervals(ask: Ask, prompts: Sequence[Prompt], every_s: float, until: asyncio.Event) -> list[Heard]:
    """One of ``prompts`` every ``every_s`` seconds, however busy the servers are, until ``until`` is set; all are awaited."""
    return await spaced(_each(ask, prompts), every_s, until)


def _each(ask: Ask, prompts: Sequence[Prompt]) -> list[Send[Heard]]:
    return [partial(ask, number, prompt, None) for number, prompt in enumerate(prompts)]


async def arriving(ask: Ask, prompts: Sequence[Prompt], rate_per_s: float, seed: int) -> list[Heard]:
    """Requests that arrive at random, a Poisson process, seeded: the same moments for the same seed."""
    connection.room_for(2 * len(prompts))
    start_ns = time.perf_counter_ns() + int(client.CONNECT_AHEAD_S * 1e9)
    due_ns = [start_ns + int(at_s * 1e9) for at_s in arrivals(len(prompts), rate_per_s, seed)]
    return await asyncio.gather(*(ask(number, prompt, at) for number, (prompt, at) in enumerate(zip(prompts, due_ns))))


@asynccontextmanager
async def _ready(endpoints: Sequence[Endpoint], due_ns: int | None, timeout_s: float) -> AsyncIterator[list[Connection] | Reply]:
    """A connection to each, opened before the request is due and closed with the block; a refusal where there is none."""
    opened: list[Connection] = []
    try:
        if due_ns is not None:
            await _until(due_ns - int(client.CONNECT_AHEAD_S * 1e9))
        try:
            for endpoint in endpoints:
                opened.append(await endpoint.connect(timeout_s))
        except connection.Refused as error:
            yield Reply(time.perf_counter_ns(), problem=f"refused: {error}")
            return
        if due_ns is not None:
            await _until(due_ns)
        yield opened
    finally:
        for one in opened:
            one.close()


async def _until(at_ns: int) -> None:
    await asyncio.sleep(max(at_ns - time.perf_counter_ns(), 0) / 1e9)


async def _sent(one: Connection, wire: bytes, timeout_s: float) -> Reply:
    answer = one.send(wire)
    try:
        return await asyncio.wait_for(asyncio.shield(answer), timeout_s)
    except TimeoutError:
        return one.give_up(f"stalled: no end within {timeout_s:g} s")


def _told(said: Reply) -> Mapping | None:
    """What the prefill's answer says of its KV cache; ``None`` if it is no such answer."""
    if said.status != 200 or said.problem or not said.whole:
        return None
    try:
        return json.loads(b"".join(part for _, part in said.parts)).get("kv_transfer_params")
    except (ValueError, AttributeError):
        return None


def _refusal(said: Reply) -> str:
    """Why a prefill's answer is none."""
    if said.problem or said.status != 200:
        return f"prefill: {stream.read(said).error}"
    return "prefill: its answer does not say where its KV cache lies (kv_transfer_params): start the server with a KV connector"
