"""sglang-router before two servers: a beginning goes where it is in the cache, and nothing is left."""

import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from helpers.bench import client, workload
from helpers.lessons.scaling import gateway
from helpers.servers import serving
from helpers.weights import models

BEGIN_TOKENS, END_TOKENS = 64, 8


@pytest.fixture(scope="module")
def two():
    """Two servers of llama.cpp with one place each."""
    with ExitStack() as stack:
        how = {"slots": 1, "context": 256, "extra": ("--threads", "1")}
        yield [stack.enter_context(serving.serve("llama-cpp", **how)) for _ in range(2)]


def asked(count: int, seed: str) -> list[workload.Prompt]:
    """``count`` prompts that begin alike and end each in its own way."""
    vocabulary = models.vocabulary()
    (begin,) = workload.prompts(1, BEGIN_TOKENS, seed=f"{seed}, begin", vocabulary=vocabulary)
    ends = workload.prompts(count, END_TOKENS, seed=f"{seed}, ends", vocabulary=vocabulary)
    return [workload.Prompt(begin.text + end.text) for end in ends]


def sent(endpoint, prompts) -> list:
    return client.run(client.closed_loop(endpoint.cached(), prompts, users=1, output_tokens=2))


@pytest.mark.engine
def test_what_begins_alike_goes_to_one_server(two):
    """Round robin computes the beginning on both; where the cache decides, once."""
    computed = {}
    for policy in ("round_robin", "cache_aware"):
        with gateway.gateway(two, policy) as endpoint:
            samples = sent(endpoint, asked(6, policy))
        assert not any(sample.error for sample in samples)
        computed[policy] = sum((sample.cached_tokens or 0) < BEGIN_TOKENS / 2 for sample in samples)

    assert computed == {"round_robin": 2, "cache_aware": 1}


@pytest.mark.engine
def test_it_listens_on_loopback_only_and_leaves_nothing(two):
    """Its metrics too."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with gateway.gateway(two, "random"):
        family = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
        opened = {at.laddr.ip for process in family for at in process.net_connections("tcp") if at.status == psutil.CONN_LISTEN}

    assert opened == {serving.HOST}
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_a_policy_that_it_has_not_starts_nothing():
    """One line, with those there are."""
    with pytest.raises(ValueError, match="^policy='nearest' over 0 servers: give a server or more, and one of cache_aware, "):
        with gateway.gateway([], "nearest"):
            pass


@pytest.mark.engine
def test_a_router_that_ends_says_why_and_keeps_its_log(two, monkeypatch):
    """A mock of it, which ends at once."""
    monkeypatch.setattr(gateway, "_command", lambda *asked: [sys.executable, "-c", "raise SystemExit('no such worker')"])
    with pytest.raises(serving.ServerError, match="^sglang-router ended before it answered: no such worker; its log: ") as said:
        with gateway.gateway(two, "random"):
            pass
    log = Path(str(said.value).rpartition(" ")[2])

    assert log.exists()
    log.unlink()
