"""Prefill and decoding apart: what each server is asked, what is kept of a block, and whether anything was moved."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from helpers.bench import client, workload
from helpers.bench.client import Endpoint
from helpers.bench.connection import Reply
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.gpu import cases, session, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.work import apart, copies, handed
from helpers.gpu.work.handed import Heard
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import install

MS = 10**6
PROMPTS = [workload.Prompt(f" word {number}", (number, 7)) for number in range(4)]
WHERE = {"remote_engine_id": "one", "remote_block_ids": [[3, 4]], "do_remote_prefill": True}
NIXL = Life("vllm", "apart", "NIXL", 1, cases.PREFILLS, cases.LLAMA, Layout(dp=2))
TWO = session.Setting("tiny", "cpu", (1,), 1, ("0", "1"))


def endpoint(server: TruthServer) -> Endpoint:
    return Endpoint(server.base_url, "m", token_ids=True)


def asked(first: TruthServer, second: TruthServer, prompts=PROMPTS[:1], **how) -> list[Heard]:
    """What is heard of ``prompts`` that are handed on as vLLM does, one after the other."""
    ask = handed.fetched(endpoint(first), endpoint(second), how.get("output_tokens", 3), how.get("timeout_s", 10))
    return client.run(handed.by_users(ask, prompts, 1))


def mock_prefill(**script) -> TruthServer:
    """A server that says of every prompt that its KV cache lies at :data:`WHERE`."""
    return TruthServer(Script(answer={"choices": [], "kv_transfer_params": WHERE}, **script), keep_bodies=True)


def test_vllm_prefills_one_token_in_one_piece_and_decodes_where_it_is_told_the_cache_lies():
    """The same prompt for both; the second request has what the first answer said, and streams."""
    with mock_prefill() as first, TruthServer(keep_bodies=True) as second:
        (heard,) = asked(first, second)
        prefill, decode = first.received[0].body, second.received[0].body
    assert (prefill["max_tokens"], prefill["stream"]) == (1, False) and prefill["kv_transfer_params"]["do_remote_decode"]
    assert (decode["max_tokens"], decode["stream"]) == (3, True) and decode["kv_transfer_params"] == WHERE
    assert prefill["prompt"] == decode["prompt"] == [0, 7] and heard.sample().output_tokens == 3


def test_the_clock_starts_with_the_first_of_the_two_requests():
    """The first takes 200 ms: they are in the TTFT, and this client's own part is told apart from them."""
    with TruthServer(Script(first_s=0.2)) as slow:
        whole = client.run(handed.by_users(handed.together([endpoint(slow)], 3, 10), PROMPTS[:1], 1))[0].sample()
        assert whole.ttft_s >= 0.2
    first = Reply(100 * MS, status=200, stamps_ns=[300 * MS], written_ns=101 * MS)
    heard = Heard(Reply(310 * MS, stamps_ns=[350 * MS]), first)
    assert (heard.prefilled_s, heard.between_s) == (pytest.approx(0.2), pytest.approx(0.01))
    assert heard.sample().sent_ns == 100 * MS and heard.sample().send_s == pytest.approx(0.001)


def test_sglang_asks_both_at_once_and_they_meet_in_the_same_room():
    """The second request is on its way before the first has its answer; every request has a room of its own."""
    with TruthServer(Script(first_s=0.2), keep_bodies=True) as first, TruthServer(keep_bodies=True) as second:
        ask = handed.met(endpoint(first), endpoint(second), 8998, 3, 10)
        found = client.run(handed.by_users(ask, PROMPTS[:2], 2))
        rooms = [sorted(one.body["bootstrap_room"] for one in server.received) for server in (first, second)]
        ports = {one.body["bootstrap_port"] for server in (first, second) for one in server.received}
    assert rooms[0] == rooms[1] and len(set(rooms[0])) == 2 and ports == {8998}
    assert all(heard.between_s < 0 for heard in found) and not any(heard.sample().error for heard in found)


def test_together_each_server_has_every_second_request():
    """Whole, and without a word of another server."""
    with TruthServer(keep_bodies=True) as first, TruthServer(keep_bodies=True) as second:
        ask = handed.together([endpoint(first), endpoint(second)], 3, 10)
        found = client.run(handed.by_users(ask, PROMPTS, 1))
        bodies = [[one.body["prompt"][0] for one in server.received] for server in (first, second)]
        assert bodies == [[0, 2], [1, 3]] and "kv_transfer_params" not in first.received[0].body
    assert [heard.prefilled_s for heard in found] == [None] * 4


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"status": 400}, "^here: 1 of 1 requests failed: prefill: HTTP 400"),
        ({"answer": {"choices": []}}, "does not say where its KV cache lies .*: start the server with a KV connector$"),
    ],
)
def test_a_prefill_that_fails_is_an_error_and_nothing_is_decoded(script, reason):
    """In one line, with what the server said."""
    with TruthServer(Script(**script)) as first, TruthServer() as second:
        found = asked(first, second)
        assert not second.received
    with pytest.raises(client.EndpointError, match=reason):
        apart._answered(found, "here")


def test_a_server_that_is_gone_and_one_that_stalls_are_errors():
    """Not a wait without an end."""
    with mock_prefill() as first:
        with TruthServer() as second:
            gone = endpoint(second)
        ask = handed.fetched(endpoint(first), gone, 3, 10)
        assert "refused" in client.run(handed.by_users(ask, PROMPTS[:1], 1))[0].sample().error
        with TruthServer(Script(end="stall")) as second:
            assert "stalled" in asked(first, second, timeout_s=0.3)[0].sample().error


def test_requests_arrive_at_the_same_moments_for_both_ways():
    """The seed says when; a request knows when it was due."""
    with TruthServer() as server:
        ask = handed.together([endpoint(server)], 3, 10)
        found = [client.run(handed.arriving(ask, PROMPTS, 40, seed=5)) for _ in range(2)]
    dues = [[heard.due_ns - one[0].due_ns for heard in one] for one in found]
    assert dues[0] == pytest.approx(dues[1]) and sorted(dues[0]) == dues[0]
    assert all(heard.sample().queue_s >= 0 for one in found for heard in one)


def test_long_prompts_stop_with_the_users():
    """None is sent after the users' last answer."""

    async def both():
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.25, done.set)
        return await handed.at_intervals(handed.together([endpoint(server)], 3, 10), PROMPTS, 0.1, done)

    with TruthServer(Script(first_s=0.4)) as server:
        assert 2 <= len(client.run(both())) < 4


class MockServers:
    """What :class:`helpers.gpu.work.apart.Load` asks of its servers' counters: the next of ``pages`` each time."""

    def __init__(self, monkeypatch, *pages):
        left = iter(pages)
        monkeypatch.setattr(apart, "counted", lambda server: next(left))
        monkeypatch.setattr(apart, "PAUSE_S", 0)


@pytest.mark.parametrize(("transfers", "unmoved"), [(4, False), (3, True)])
def test_a_block_apart_with_fewer_transfers_than_requests_is_told(monkeypatch, transfers, unmoved):
    """The figures stay, with the counts beside them, and the life is not whole."""
    MockServers(monkeypatch, {apart.FETCHED: 0.0}, {apart.FETCHED: 2.0}, {apart.FETCHED: 0.0}, {apart.FETCHED: 2.0 + transfers})
    kept = {}
    with mock_prefill() as first, TruthServer(Script(gap_s=0.002)) as second:
        log = session.Log(NIXL, kept.update)
        load = apart.Load([first, second], apart.Roles("vllm"), None, log, 1e9)
        ask = handed.fetched(endpoint(first), endpoint(second), 3, 10)
        load._measured(apart.APART, handed.by_users(ask, PROMPTS, 2), "users", repeat=0)
    assert [row["kind"] for row in kept["rows"]] == ["users", "moved"] and load.unmoved is unmoved
    assert kept["rows"][1]["counted"] == {apart.FETCHED: transfers} and kept["rows"][0]["prefilled_s"]["max"] > 0
    assert bool(kept["failed"]) is unmoved


def test_the_log_says_over_what_the_cache_was_moved():
    """UCX's own table; what else it says of its protocols is left."""
    lines = [
        "[1] [vm:1:0]   | d intra-node cfg#1                                               |",
        "[1] [vm:1:0]   | remote memory read by ucp_get*(multi) into cuda/GPU0 memory from cuda |",
        "[1] [vm:1:0]   +--------+-------------+-------------------------------------------+",
        "[1] [vm:1:0]   | Range  | Description |                  Config                   |",
        "[1] [vm:1:0]   +--------+-------------+-------------------------------------------+",
        "[1] [vm:1:0]   | 0..inf | zero-copy   | cuda_ipc/cuda                             |",
        "[1] [vm:1:0]   +--------+-------------+-------------------------------------------+",
        "[1] [vm:1:0]   | active message by ucp_am_send*(egr) from host memory |",
        "[1] [vm:1:0]   |          0 | short              | tcp/lo             |",
    ]
    said = ["remote memory read by ucp_get*(multi) into cuda/GPU0 memory from cuda: 0..inf, zero-copy, cuda_ipc/cuda"]
    assert apart.transports_in("\n".join(lines)) == said


@pytest.mark.parametrize(
    ("setting", "there", "reason"),
    [
        (replace(TWO, gpus=("0",)), {"nixl": "1.5.1"}, "^prefill and decoding apart on 1 GPUs: give it two, one for each$"),
        (TWO, {}, "^left out: nixl is not installed in the kernel vllm: install nixl and nixl-cu13 beside it$"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(monkeypatch, setting, there, reason):
    """In one line."""
    monkeypatch.setattr(install, "versions_in", lambda kernel, packages: there)
    monkeypatch.setattr(copies, "started", lambda *given, **more: pytest.fail("something was started"))
    with pytest.raises(ValueError, match=reason):
        apart.run(NIXL, setting, session.Log(NIXL, lambda kept: None), 100)


def test_sglang_together_needs_no_nixl(monkeypatch):
    """Its servers are started as they always are."""
    monkeypatch.setattr(install, "versions_in", lambda kernel, packages: pytest.fail("it was asked for"))
    apart.check_nixl("sglang", ["together"])
    assert apart.Roles.of(replace(NIXL, engine="sglang", given={"ways": ["together"]}), TWO) == apart.Roles("sglang")


def test_each_server_has_ports_of_its_own_and_listens_on_this_machine_alone():
    """vLLM's by variables, SGLang's by options; on a GPU UCX is told what to take."""
    gpu = replace(TWO, device="cuda")
    one, two = apart.Roles.of(NIXL, gpu).variables
    port = "VLLM_NIXL_SIDE_CHANNEL_PORT"
    assert one[port] != two[port] and {name: one[name] for name in one if name != port} == {n: two[n] for n in two if n != port}
    assert one["UCX_NET_DEVICES"] == "lo" and one["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1" and "cuda_ipc" in one["UCX_TLS"]
    roles = apart.Roles.of(replace(NIXL, engine="sglang", given={"ways": ["apart"]}), gpu)
    assert [extra[1] for extra in roles.extra] == ["prefill", "decode"] and str(roles.port) in roles.extra[0]


def test_every_life_apart_has_its_transports_and_moves_its_pages_over_nixl():
    """One that goes through the machine's memory is told not to take the other way."""
    lives = [life for life in cases.scaling() if life.work == "apart"]
    assert {life.layout.gpus for life in lives} == {2} and lives[0].key == "vllm, apart, NIXL, Llama-3.1-8B, DP2"
    for life in lives:
        arguments = variants.arguments(
            life.engine, life.option, variants.Setup(True, 8480, kv_bytes_per_token=131072, pool=2**18)
        )
        if life.engine == "vllm":
            assert "Nixl" in arguments["kv_transfer_config"]["kv_connector"] and life.option in apart.TRANSPORTS
            assert arguments["kv_cache_memory_bytes"] == 2**35 and "data_parallel_size" not in arguments
    around = "NIXL, through the machine's memory"
    assert "cuda_ipc" not in apart.TRANSPORTS[around] and "cuda_copy" in apart.TRANSPORTS[around]


def test_answers_are_alike_up_to_their_first_difference():
    """Also where one is shorter."""
    assert [apart.alike("abcd", "abxd"), apart.alike("ab", "abc"), apart.alike("", "a")] == [2, 2, 0]


@pytest.mark.skipif(os.environ.get("REHEARSE") != "1", reason="no vLLM rehearses a GPU's work unless REHEARSE=1 is set")
@pytest.mark.engine
def test_the_cache_moves_between_two_real_servers():
    """vLLM's, on a CPU, with nixl beside them: the same answers, and a transfer for each request."""
    life, kept = cases.rehearsed(NIXL), {}
    assert tasks.WORKS["apart"](life, TWO, session.Log(life, kept.update), 280)
    (same,) = (row for row in kept["rows"] if row["kind"] == "same answers")
    assert same["same"] == same["requests"] and same["distinct"] > 1
    moved = {row["way"]: row for row in kept["rows"] if row["kind"] == "moved"}
    assert moved["apart"]["counted"][apart.FETCHED] >= moved["apart"]["requests"]
    assert moved["together"]["counted"][apart.FETCHED] == 0
