"""Requests of several kinds at once: each goes to its own endpoint, and comes back in its own place."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from helpers.bench import client, workload
from helpers.bench.client import Endpoint
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.gpu.work import together

PROMPTS = [workload.Prompt(f" word {number}") for number in range(6)]


def test_every_request_has_its_own_endpoint_and_its_own_place():
    """Two models on one server; the first answer is the slowest, and still the first sample."""

    def script(number, body):
        return Script(gap_s=0.05 if "word 0" in body["prompt"] else 0, tokens=3 if body["model"] == "one" else 5)

    with TruthServer(script) as server:
        ends = [Endpoint(server.base_url, name) for name in ("one", "other")]
        asked = [(ends[number % 2], prompt) for number, prompt in enumerate(PROMPTS)]
        samples = client.run(together.by_users(asked, users=2, output_tokens=3, timeout_s=10))
        assert [sample.output_tokens for sample in samples] == [3, 5] * 3
        assert server.most_at_once == 2


def test_requests_come_at_intervals_until_they_are_told_to_stop():
    """However long an answer takes: the second is sent while the first is under way; those under way are waited for."""

    async def both():
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(0.25, until.set)
        how = {"every_s": 0.1, "until": until, "output_tokens": 3, "timeout_s": 10}
        return await together.at_intervals(Endpoint(server.base_url, "one"), PROMPTS, **how)

    with TruthServer(Script(first_s=0.4)) as server:
        samples = client.run(both())
        assert 2 <= len(samples) < len(PROMPTS) and server.most_at_once == len(samples)
        assert not [sample.error for sample in samples if sample.error]


def test_a_request_that_failed_is_an_error_with_its_reason():
    """The first of them, and how many."""
    with TruthServer(lambda number, body: Script(status=400 if number else 200)) as server:
        end = Endpoint(server.base_url, "one")
        asked = [(replace(end), prompt) for prompt in PROMPTS[:3]]
        samples = client.run(together.by_users(asked, users=1, output_tokens=3, timeout_s=10))
    with pytest.raises(client.EndpointError, match=r"^here: 2 of 3 requests failed: HTTP 400"):
        together.answered(samples, "here")
