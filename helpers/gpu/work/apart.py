"""Prefill and decoding apart, each on a GPU of its own, against the same two GPUs that do both: who waits for whom.

Two servers of one model, a GPU each. Together: every request is done by one of them, in turn. Apart: the first does every
prefill, the second every decoding, and the KV cache of each prompt moves from GPU to GPU over NIXL. The load is the same, in
turns: users that decode beside long prompts, then requests that arrive at random. vLLM's servers can do both ways in one start;
SGLang's are started for one of them.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from helpers.bench import client, workload
from helpers.bench.client import EndpointError
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt
from helpers.gpu import random_model, session, several
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import copies, handed, mixed, offline, together
from helpers.gpu.work.handed import Ask, Heard
from helpers.servers import flags, install, metrics, serving
from helpers.servers.serving import Server
from helpers.weights import models

TOGETHER, APART = "together", "apart"
COUNTED = "vllm:nixl_"  # how the names of vLLM's counters of its transfers begin
FETCHED = "vllm:nixl_xfer_time_seconds_count"
TRANSPORTS = {  # of an option: what UCX may take; a GPU's memory to another's needs cuda_ipc, NIXL wants cuda_copy in any case
    **dict.fromkeys(("NIXL", "NIXL, written by the prefill", "NIXL, pages of 64"), "cuda_ipc,cuda_copy,sm,tcp,self"),
    "NIXL, through the machine's memory": "cuda_copy,sm,tcp,self",
}
UCX = {
    "UCX_NET_DEVICES": "lo",  # nothing listens beyond this machine
    "UCX_CUDA_IPC_ENABLE_GET_ZCOPY": "on",  # by itself it reads over cuda_ipc only where it sees the links, else over TCP
    "UCX_PROTO_INFO": "y",  # says in the log over what it moves bytes
}
MOVES = re.compile(r"remote memory (?:read|write) by .*?(?=\s*\|)")
OVER = re.compile(r"\|\s*(\d+\.\.\w+|\d+)\s*\|\s*(.*?)\s*\|\s*(.*?)\s*\|")
ASKED = {"prompts": 4, "output_tokens": 32}  # for the comparison of answers
STALLED_S = 60  # a request that takes longer will not end
PAUSE_S = 0.5  # so that counters that follow an answer are there


class NoNixl(ValueError):
    """An engine without NIXL: what is missing, and where it would be."""


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """Two servers at once, then the ways in turns; a row for each block, and for what was moved in it.

    ``life.given`` has ``ways``; of the users ``users``, ``requests`` (of each in a block), ``input_tokens``, ``output_tokens``,
    ``long_tokens``, ``long_output_tokens``, ``every_s``, ``most_long``; and ``arrivals`` with ``input_tokens``,
    ``output_tokens``, ``rates_per_s``, ``seconds``. Left out, in one line, where the engine has no NIXL.
    """
    end, how = time.monotonic() + left_s, life.given
    if len(setting.gpus) != 2:
        raise ValueError(f"prefill and decoding apart on {len(setting.gpus)} GPUs: give it two, one for each")
    check_nixl(life.engine, how["ways"])
    roles = Roles.of(life, setting)
    own = replace(setting, users=(how["users"] + how["most_long"],))
    with copies.started(life, own, log, left_s, extra=roles.extra, variables=roles.variables) as servers:
        log.note(nixl=install.versions_in(life.engine, ("nixl", "nixl-cu13")))
        vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
        load = Load(servers, roles, vocabulary, log, end)
        try:
            whole = load.blocks(how, setting.repeats) and load.arrivals(how)
        except EndpointError:
            for server in servers:
                session.collect(life.key, server.log)
            raise
        finally:
            for number, server in enumerate(servers):
                several.LogCheck(server.log)()
                log.row("transport", copy=number, ucx=transports_in(server.log.read_text(errors="replace")))
        return whole and not load.unmoved


def check_nixl(engine: str, ways: Sequence[str]) -> None:
    """:class:`NoNixl`, before anything starts, if the KV cache is to move and ``engine``'s kernel has no NIXL."""
    if APART in ways and "nixl" not in install.versions_in(engine, ("nixl",)):
        raise NoNixl(f"left out: nixl is not installed in the kernel {engine}: install nixl and nixl-cu13 beside it")


@dataclass(frozen=True)
class Roles:
    """What each of the two servers is told beside the life's option, and where SGLang's prefill is met."""

    engine: str
    extra: tuple[tuple[str, ...], ...] = ()
    variables: tuple[Mapping[str, str], ...] = ()
    port: int | None = None

    @classmethod
    def of(cls, life: Life, setting: Setting) -> Roles:
        """Those of ``life``; the ports are free now."""
        if APART not in life.given["ways"]:
            return cls(life.engine)
        ucx = {**UCX, "UCX_TLS": TRANSPORTS[life.option]} if setting.gpu else {"UCX_NET_DEVICES": "lo", "UCX_PROTO_INFO": "y"}
        ports = [serving.free_port()]
        ports.append(serving.free_port(ports))
        if life.engine == "vllm":
            here = [{"VLLM_NIXL_SIDE_CHANNEL_HOST": serving.HOST, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)} for port in ports]
            return cls(life.engine, variables=tuple({**ucx, **one} for one in here))
        told = [flags.options(life.engine, role=role, role_port=ports[0]) for role in ("prefill", "decode")]
        here = {**ucx, "SGLANG_HOST_IP": serving.HOST}  # where the two meet; else it takes the address of a network card
        return cls(life.engine, tuple(map(tuple, told)), (here, here), ports[0])

    def ask(self, way: str, servers: Sequence[Server], output_tokens: int, timeout_s: float) -> Ask:
        """How a request is asked for, either way."""
        endpoints = [server.endpoint for server in servers]
        if way == TOGETHER:
            return handed.together(endpoints, output_tokens, timeout_s)
        if self.engine == "vllm":
            return handed.fetched(*endpoints, output_tokens, timeout_s)
        return handed.met(*endpoints, self.port, output_tokens, timeout_s)


class Load:
    """The blocks of a life on its two servers, each with its rows."""

    def __init__(self, servers: Sequence[Server], roles: Roles, vocabulary, log: Log, end: float):
        self.servers, self.roles, self.vocabulary, self.log, self.end = servers, roles, vocabulary, log, end
        self.took_s, self.unmoved = 0.0, False

    def blocks(self, how: Mapping, repeats: int) -> bool:
        """A short warm-up of each way, the comparison of answers, then users beside long prompts in turns."""
        ways = how["ways"]
        for way in ways:
            self._mixed(way, None, {**how, "requests": 1})
        if ways == [TOGETHER, APART]:
            self.log.row("same answers", **self.compared(how["input_tokens"]))
        for turn, way in offline.turns(ways, repeats):
            if not self._is_time(self.took_s, f"block {turn} {way}"):
                return False
            began = time.monotonic()
            self._mixed(way, turn, how)
            self.took_s = max(self.took_s, time.monotonic() - began)
        return True

    def arrivals(self, how: Mapping) -> bool:
        """Requests at random moments, the same ones for each way."""
        load = how["arrivals"]
        for number, rate in enumerate(load["rates_per_s"]):
            for way in how["ways"] if number % 2 == 0 else how["ways"][::-1]:
                if not self._is_time(load["seconds"], f"{rate} requests/s {way}"):
                    return False
                prompts = self._prompts(max(round(rate * load["seconds"]), 10), load["input_tokens"], f"{rate} {way}")
                ask = self._ask(way, load["output_tokens"])
                self._measured(way, handed.arriving(ask, prompts, rate, number), "arrivals", rate_per_s=rate)
        return True

    def compared(self, input_tokens: int) -> dict:
        """How many answers are the same, handed on and whole from the first server, which prefills them anew; all are greedy.

        ``distinct``: how many of them differ from each other, as answers that are all alike say nothing. A batch of another
        size rounds otherwise, so that a greedy choice between two near tokens may differ: ``alike_tokens`` are those before it.
        """
        prompts, count = self._prompts(ASKED["prompts"], input_tokens, "compared"), ASKED["output_tokens"]
        anew = handed.with_fields(self.servers[0].endpoint, {"cache_salt": "anew"})  # finds nothing in its prefix cache
        asks = [self._ask(APART, count), handed.together([anew], count, self._patience_s)]
        found = [_answered(client.run(handed.by_users(ask, prompts, 1)), "compared answers") for ask in asks]
        pairs = [(one.pieces, other.pieces) for one, other in zip(*found)]
        return {
            "requests": len(pairs), "same": sum(list(one) == list(other) for one, other in pairs),
            "alike_tokens": [alike(one, other) for one, other in pairs], "output_tokens": count,
            "distinct": len({sample.text for sample in found[1]}),
        }  # fmt: skip

    def _mixed(self, way: str, turn: int | None, how: Mapping) -> None:
        name = f"{way} {turn}"
        short = self._prompts(how["users"] * how["requests"], how["input_tokens"], name)
        long = self._prompts(how["most_long"], how["long_tokens"], f"long {name}")
        asks = self._ask(way, how["output_tokens"]), self._ask(way, how["long_output_tokens"])
        block = _block(asks, short, long, how["users"], how["every_s"])
        self._measured(way, block, "users", keep=turn is not None, repeat=turn)

    def _measured(self, way: str, block, kind: str, keep: bool = True, **about) -> None:
        """Run ``block``; a row of its samples, one of its long prompts if it had any, and one of what was moved."""
        before = [counted(server) for server in self.servers]
        short, long = _two(client.run(block))
        samples, others = _answered(short, f"{kind} {way}"), _answered(long, f"long prompts {way}")
        if not keep:
            return
        self.log.row(kind, way=way, **about, **mixed.figures(samples), **_steps(short), **_late(samples))
        if others:
            firsts = [sample.ttft_s for sample in others]
            self.log.row("long prompts", way=way, **about, requests=len(others), ttft_s=firsts, **_steps(long))
        self._moved(way, before, len(samples) + len(others), about)

    def _moved(self, way: str, before: Sequence[Mapping], requests: int, about: Mapping) -> None:
        """What the servers have counted of their transfers since ``before``; apart, one for each request at the least."""
        time.sleep(PAUSE_S)
        after = [counted(server) for server in self.servers]
        if not any(after):
            return  # an engine that does not count them
        found = {name: sum(one.get(name, 0) - was.get(name, 0) for one, was in zip(after, before)) for name in after[0]}
        self.log.row("moved", way=way, **about, requests=requests, counted=found)
        if way == APART and found.get(FETCHED, 0) < requests:
            self.unmoved = True
            self.log.row("failed", reason=f"{way} {about}: {requests} requests, and {found.get(FETCHED, 0):.0f} transfers of KV")

    def _ask(self, way: str, output_tokens: int) -> Ask:
        return self.roles.ask(way, self.servers, output_tokens, self._patience_s)

    def _prompts(self, count: int, tokens: int, seed: str) -> list[Prompt]:
        return workload.prompts(count, tokens, seed=seed, vocabulary=self.vocabulary)

    @property
    def _patience_s(self) -> float:
        return min(max(self.end - time.monotonic(), 1), STALLED_S)

    def _is_time(self, needed_s: float, what: str) -> bool:
        left_s = self.end - time.monotonic()
        if left_s < offline.RESERVE * needed_s:
            self.log.row("stopped", reason=f"{what}: {left_s:.0f} s were left")
            return False
        return True


async def _block(
    asks: tuple[Ask, Ask], short: Sequence[Prompt], long: Sequence[Prompt], users: int, every_s: float
) -> tuple[list[Heard], list[Heard]]:
    """What the users heard, and the long prompts, of which none is sent after the users' last answer."""
    done = asyncio.Event()

    async def decoding() -> list[Heard]:
        try:
            return await handed.by_users(asks[0], short, users)
        finally:
            done.set()

    return tuple(await asyncio.gather(decoding(), handed.at_intervals(asks[1], long, every_s, done)))


def _two(found: tuple[list[Heard], list[Heard]] | list[Heard]) -> tuple[list[Heard], list[Heard]]:
    return found if isinstance(found, tuple) else (found, [])


def _answered(heard: Sequence[Heard], what: str) -> list[Sample]:
    return together.answered([one.sample() for one in heard], what)


def _steps(heard: Sequence[Heard]) -> dict:
    """Of what was handed on: the prefill's own time, and this client's between the two requests; seconds."""
    handed_on = [one for one in heard if one.prefilled_s is not None]
    if not handed_on:
        return {}
    return {name: mixed.spread([getattr(one, name) for one in handed_on]) for name in ("prefilled_s", "between_s")}


def _late(samples: Sequence[Sample]) -> dict:
    """Of an open loop: how late a request was sent at the most, seconds."""
    late = [sample.queue_s for sample in samples if sample.queue_s is not None]
    return {"latest_s": max(late)} if late else {}


def alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many pieces two answers have in common from their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def counted(server: Server) -> dict[str, float]:
    """What vLLM has counted of its transfers since its start, by its own names, over all labels; empty of other engines."""
    found: dict[str, float] = {}
    for name, value in (metrics.beginning(server, COUNTED) if server.engine.kernel == "vllm" else {}).items():
        name = name.partition("{")[0]
        if not name.endswith(("_bucket", "_created")):
            found[name] = found.get(name, 0) + value
    return found


def transports_in(said: str) -> list[str]:
    """What UCX says in a log of remote reads and writes: of which memory, and over what; each once."""
    found, moves = {}, ""
    for line in said.splitlines():
        if moved := MOVES.search(line):
            moves = moved.group()
        elif moves and (over := OVER.search(line)):
            found[f"{moves}: {', '.join(over.groups())}"] = None
        elif "+--" not in line and not re.search(r"\|\s*Range", line):
            moves = ""
    return list(found)
