"""Each engine's server, started once: it does the asked work on loopback, says what it holds, and leaves nothing."""

from dataclasses import dataclass

import psutil
import pytest

from helpers.bench import checks, client, workload
from helpers.bench.checks import Hits
from helpers.bench.timing import Sample
from helpers.servers import engines, metrics, serving
from helpers.servers.metrics import Pool
from helpers.weights import models, sizes

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Seen:
    """What was read from a server before, between and after two requests with one prompt, and when it was gone."""

    pool: Pool
    samples: list[Sample]
    hits: list[Hits]
    gib: float | None  # SGLang's other word for the pool's size
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
    with serving.serve(request.param, slots=2, context=256) as server:
        endpoint = server.endpoint.cached()
        client.run(client.request(endpoint, other, 8))
        samples, hits = [], [metrics.cache_hits(server)]
        for _ in range(2):
            samples.append(client.run(client.request(endpoint, prompt, 8)))
            hits.append(metrics.cache_hits(server))
        gib = metrics.sglang_gib(metrics.sglang_loads(server)) if request.param == "sglang" else None
        pool, family = metrics.pool(server), server.processes()
        listening = addresses(family)
    return Seen(pool, samples, hits, gib, listening, [process for process in family if process.is_running()])


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
    assert seen.pool.tokens >= 2 * 256
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
