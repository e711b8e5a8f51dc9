"""Each engine's server, started once: it does the asked work on loopback, says what it holds, and leaves nothing."""

from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from helpers.bench import checks, client, workload
from helpers.bench.beside import Beside
from helpers.bench.checks import Hits
from helpers.bench.timing import Level, Sample
from helpers.lessons.structured import features
from helpers.servers import engines, metrics, serving
from helpers.servers.metrics import Pool
from helpers.weights import models, sizes

pytestmark = pytest.mark.engine

# What lets a server tell a thought and a call from the answer, and the request's field that ends the thought: the default
# model was not trained to. Its tags are no single tokens, which most of vLLM's parsers ask for.
TEMPLATE = str(Path(__file__).with_name("thinking_tools.jinja"))
PARSERS = {
    "llama-cpp-q4_0": (("--chat-template-file", TEMPLATE), {"thinking_budget_tokens": 8}),
    "vllm": (
        ("--chat-template", TEMPLATE, "--reasoning-parser", "olmo3", *engines.get("vllm").tool_flags),
        {"thinking_token_budget": 8},
    ),
}
QUESTION = "How is the weather in Tokyo?"
MUST_CALL = {"tools": [features.TOOL], "tool_choice": "required"}
CALLS = {  # llama.cpp lets a text of any length stand before the call, so there the answer is begun for the model
    "llama-cpp-q4_0": {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "<tool_call>"}]},
    "vllm": PARSERS["vllm"][1],
}


@dataclass(frozen=True)
class Seen:
    """What was read from a server before, between and after two requests with one prompt, and when it was gone.

    ``level`` is a load of four users with the server's metrics beside it; ``thought`` is an answer that begins with a thought
    and ``called`` one that must call a tool, in vLLM after a thought; ``None`` where neither surely comes.
    """

    engine: str
    pool: Pool
    samples: list[Sample]
    hits: list[Hits]
    gib: float | None  # SGLang's other word for the pool's size
    level: Level
    metrics_told: str
    thought: Sample | None
    called: Sample | None
    listening: set[str]
    left: list[psutil.Process]


def addresses(processes: list[psutil.Process]) -> set[str]:
    """The addresses on which any of them listens."""
    ends = [end for process in processes for end in process.net_connections("tcp")]
    return {end.laddr.ip for end in ends if end.status == psutil.CONN_LISTEN}


def own_addresses() -> set[str]:
    """vLLM's and SGLang's processes talk to each other over this machine's own address, on random ports."""
    return {address.address for card in psutil.net_if_addrs().values() for address in card}


@pytest.fixture(scope="module", params=list(engines.ENGINES))
def seen(request) -> Seen:
    """Each engine's server in turn, asked once so that nothing is cold, then twice with one other prompt."""
    other, prompt = workload.prompts(2, 65, seed=7, vocabulary=models.vocabulary())
    extra, budget = PARSERS.get(request.param, ((), None))
    with serving.serve(request.param, slots=2, context=512, extra=extra) as server:
        endpoint = server.endpoint.cached()
        client.run(client.request(endpoint, other, 8))
        samples, hits = [], [metrics.cache_hits(server)]
        for _ in range(2):
            samples.append(client.run(client.request(endpoint, prompt, 8)))
            hits.append(metrics.cache_hits(server))
        gib = metrics.sglang_gib(metrics.sglang_loads(server)) if request.param == "sglang" else None
        level, told = watched(server)
        thought = None if budget is None else ask(server, 24, budget)
        called = ask(server, 160, {**CALLS[request.param], **MUST_CALL}) if request.param in CALLS else None
        pool, family = metrics.pool(server), server.processes()
        listening = addresses(family)
    left = [process for process in family if process.is_running()]
    return Seen(request.param, pool, samples, hits, gib, level, told, thought, called, listening, left)


def ask(server: serving.Server, tokens: int, fields: dict) -> Sample:
    """One chat of at most so many tokens, by the server's own template."""
    endpoint = replace(server.endpoint, route="chat", fields=lambda output_tokens: fields)
    return client.run(client.request(endpoint, workload.Prompt(QUESTION), tokens))


def watched(server: serving.Server) -> tuple[Level, str]:
    """Four users at two slots, two prompts in turns, with the server's page beside it; and what is said of the page."""
    beside, prompts = Beside(server.endpoint), workload.prompts(2, 65, seed=8, vocabulary=models.vocabulary())
    with beside.repeat("", 4):
        samples = client.run(client.closed_loop(server.endpoint.cached(), 4 * prompts, users=4, output_tokens=24))
    return beside.note(Level(4, (tuple(samples),))), beside.facts()["server_metrics"]


def test_it_does_the_asked_work_on_loopback_and_leaves_nothing(seen):
    """Exact lengths from token ids, no other address, every process gone afterwards."""

    assert [(sample.error, sample.prompt_tokens, sample.output_tokens) for sample in seen.samples] == 2 * [(None, 65, 8)]
    assert "127.0.0.1" in seen.listening
    assert seen.listening <= {"127.0.0.1", "::1"} | own_addresses()
    assert seen.left == []


def test_the_pool_is_what_the_formula_says(seen):
    """Within 2 %, it holds what was asked for; a formula that is 5 % off, or without GQA, is found."""
    formula = sizes.kv_bytes_per_token(models.shape())
    verdict = metrics.check_pool(seen.pool, formula)

    assert verdict.good is True, verdict.line
    assert seen.pool.tokens >= 2 * 512
    assert seen.gib is None or seen.gib * 2**30 == pytest.approx(seen.pool.bytes, abs=0.0006 * 2**30)
    assert [metrics.check_pool(seen.pool, round(formula * wrong)).good for wrong in (0.95, 1.05, 3)] == [False] * 3


def test_a_warm_prefix_is_counted_and_a_cold_one_is_not(seen):
    """One prompt of 65 tokens twice: nothing, then its whole blocks of 32, at least one."""
    start, cold, warm = (hits.tokens for hits in seen.hits)

    assert [sample.error for sample in seen.samples] == [None, None]
    assert (start, cold) == (0, 0), seen.hits
    assert 32 <= warm <= 64, seen.hits
    assert checks.problems(seen.samples[:1], input_tokens=65, output_tokens=8, cache_hits=cold) == []
    assert len(checks.problems(seen.samples[1:], input_tokens=65, output_tokens=8, cache_hits=warm)) == 1


def test_its_own_metrics_stand_beside_the_clients(seen):
    """Queue, KV use, prefix hits and its own TTFT under their names of today; what an engine does not say is None."""
    found, kernel = seen.level.server_metrics, engines.get(seen.engine).kernel
    if kernel == "transformers":
        assert found is None and seen.metrics_told.startswith("none: /metrics ")
        return
    own = {name for name in ("kv_used", "ttft_s") if found[name] is not None}

    assert (seen.level.failures.total(), seen.metrics_told) == (0, f"of {kernel}, from /metrics")
    assert own == (set() if kernel == "llama-cpp" else {"kv_used", "ttft_s"}), found
    assert found["looks"] >= 1 and None not in (found["running"], found["waiting"], found["prefix_hit_tokens"]), found
    if kernel == "sglang":  # its gauges are of the last prefill or of every 40th step
        return
    assert 1 <= found["running"]["most"] <= 2 and found["waiting"]["most"] <= 2, found


def test_vllms_own_figures_are_those_of_the_clients_requests(seen):
    """It counts as many, has its first tokens before the client has them, and uses its cache."""
    if seen.engine != "vllm":
        pytest.skip("what another engine says of itself is looked at in the test before")
    found, ttft = seen.level.server_metrics, seen.level.server_metrics["ttft_s"]

    assert (ttft["server_requests"], ttft["client_requests"]) == (8, 8) and 0 < ttft["server"] < 1.5 * ttft["client"], found
    assert 0 < found["kv_used"]["most"] <= 1 and found["prefix_hit_tokens"] >= 32, found


def test_thought_and_answer_are_told_apart(seen):
    """The first token is a thought, and TTFT waits for no other; the first answer is the first text."""
    if seen.thought is None:
        pytest.skip("its server is not started with a reasoning parser: vLLM's and one of llama.cpp's are")
    thought, first_text = seen.thought, seen.thought.piece_kinds.index("text")

    assert thought.error is None and {*thought.piece_kinds[:first_text]} == {"reasoning"}
    assert {*thought.piece_kinds[first_text:]} == {"text"} and thought.reasoning and thought.text
    assert thought.ttft_s == (thought.event_ns[0] - thought.sent_ns) / 1e9
    assert thought.time_to_first_answer_s == (thought.event_ns[first_text] - thought.sent_ns) / 1e9 > thought.ttft_s
    assert thought.token_source == "server_usage" and len(thought.event_ns) <= thought.output_tokens <= 24


def test_a_call_without_an_answer(seen):
    """The call's pieces follow those of the thought, if there is one; there is no time to first answer, and more tokens than
    pieces: the tags and the call's frame are counted, and no event carries them."""
    if seen.called is None:
        pytest.skip("its server is not asked for a call: vLLM's and one of llama.cpp's are")
    called = seen.called
    first_call = called.kinds.index("tool call")

    assert called.error is None and {*called.kinds[first_call:]} == {"tool call"}
    assert {*called.kinds[:first_call]} == ({"reasoning"} if seen.engine == "vllm" else set())
    assert called.ttft_s == (called.event_ns[0] - called.sent_ns) / 1e9 and called.time_to_first_answer_s is None
    assert called.text == "" and "".join(called.pieces[first_call:]).startswith("weather{")
    assert called.token_source == "server_usage" and len(called.event_ns) < called.output_tokens
