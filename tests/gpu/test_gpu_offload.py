"""A conversation that comes back: others have filled the pool meanwhile, and each answer says what was cached."""

from __future__ import annotations

import os

import pytest

from helpers.bench import workload
from helpers.gpu import cases, session, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.work import offload
from helpers.weights import sizes


def test_the_others_are_more_than_the_pool_and_the_machine_keeps_them_all():
    """Else the pages would not be pushed out, or not be there when the conversation returns."""
    how = cases.RETURNS
    assert how["tokens"] < how["pool"] < how["others"] * how["tokens"]
    bytes_each = 131072  # of a token of Llama-3.1-8B
    assert (1 + how["others"]) * how["tokens"] * bytes_each < variants.OFFLOAD_GIB * 10**9 < 2 * 16 * sizes.GIB


@pytest.mark.parametrize(
    ("engine", "given"),
    [
        ("vllm", {"enable_prefix_caching": True, "kv_offloading_size": 8, "kv_cache_memory_bytes": 4096 * 131072}),
        (
            "sglang",
            {"enable_hierarchical_cache": True, "disable_radix_cache": False, "hicache_size": 8, "max_total_tokens": 4096},
        ),
    ],
)
def test_each_engine_is_told_a_small_pool_and_a_place_beside_it(engine, given):
    """Its own words for both, on a GPU too."""
    setup = variants.Setup(True, 2048, kv_bytes_per_token=131072, pool=4096)
    assert given.items() <= variants.arguments(engine, "offload", setup).items()


def test_a_conversation_goes_on_where_it_was():
    """The text and the tokens of both."""
    first, end = (workload.Prompt(f" {word}", (number,)) for number, word in enumerate(("one", "two")))
    assert offload.longer(first, end) == workload.Prompt(" one two", (0, 1))


@pytest.mark.skipif(os.environ.get("REHEARSE") != "1", reason="no vLLM rehearses a GPU's work unless REHEARSE=1 is set")
@pytest.mark.engine
def test_what_is_cached_is_said_and_what_was_pushed_out_is_not():
    """vLLM's real server on a CPU, without offloading: all but the end is cached at once, and little later."""
    life, kept = cases.rehearsed(Life("vllm", "offload", "prefix cache", 1, cases.RETURNS, cases.LLAMA)), {}
    assert tasks.WORKS["offload"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 200)
    found = {row["when"]: row["cached_tokens"] or 0 for row in kept["rows"] if row["kind"] == "answer"}
    assert list(found) == [offload.NEW, offload.HERE, offload.BACK]
    assert found[offload.NEW] == 0 and found[offload.HERE] >= 224 > found[offload.BACK]
