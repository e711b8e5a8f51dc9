"""Drafts beside their baseline: what is counted of a block, and blocks of two real servers in turns."""

from __future__ import annotations

import pytest

from helpers.gpu import cases, session, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.work import side_by_side


def test_counts_become_rates():
    """Accepted of drafted and tokens of a step; without drafts, nothing."""
    assert side_by_side.rates({"tokens": 100, "drafted": 80, "accepted": 60}, 4)["acceptance"] == 0.75
    assert side_by_side.rates({"tokens": 100, "drafted": 80, "accepted": 60}, 4)["tokens_per_step"] == 2.5
    assert side_by_side.rates({"tokens": 100, "drafted": 0, "accepted": 0}, 4) is None
    assert side_by_side.rates({}, 4) is None


def test_an_engine_that_counts_steps_has_no_acceptance():
    """SGLang's: each request has one step more, its prefill."""
    assert side_by_side.rates({"tokens": 100, "draft_steps": 36}, 4) == {"tokens": 100, "draft_steps": 36, "tokens_per_step": 2.5}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama-cpp"])
def test_each_engine_drafts_as_many_tokens(engine):
    """Four for a step, each in its own words."""
    told = " ".join(side_by_side.drafting(engine))
    assert {"vllm": '"num_speculative_tokens": 4', "sglang": "--speculative-num-draft-tokens 5", "llama-cpp": "size-m 4"}[
        engine
    ] in told


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_two_engines_on_one_gpu_are_told_how_much_each_may_take(engine):
    """A pool of so many tokens; vLLM also asks for less of the memory to be free."""
    given = variants.arguments(engine, cases.PLAIN, variants.Setup(True, 2048, 64, 1000, share=0.4, pool=4096))
    wanted = {"vllm": {"gpu_memory_utilization": 0.4, "kv_cache_memory_bytes": 4096000}, "sglang": {"max_total_tokens": 4096}}
    assert wanted[engine].items() <= given.items()


def test_a_block_is_long_enough_to_be_timed():
    """As many tasks for each of 16 users as in the older lives; llama.cpp, which is the slowest with many users, has fewer."""
    tasks_of = {life.engine: life.given["tasks_per_user"] for life in cases.questions() if life.work == "in turns"}
    (older,) = {life.given["tasks_per_user"] for life in cases.options() if life.option == "n-gram drafts"}
    assert tasks_of == {"vllm": older, "sglang": older, "llama-cpp": 2}


@pytest.mark.engine
def test_two_servers_answer_in_turns_and_none_is_left():
    """llama.cpp's real servers: every block of both ways, in turns; drafts are counted, and how many answers were the same."""
    life, kept = cases.rehearsed(Life("llama-cpp", "in turns", "n-gram drafts", 1, cases.TURNS)), {}
    assert tasks.WORKS["in turns"](life, session.Setting("tiny", "cpu", (1,), 3), session.Log(life, kept.update), 200)
    blocks = [row for row in kept["rows"] if row["kind"] == "block"]
    assert [row["way"] for row in blocks if row["users"] == 1] == ["no drafts", "n-gram drafts", "n-gram drafts", "no drafts"]
    assert all(row["output_tokens_per_s"] > 0 for row in blocks)
    counted = {row["way"]: row["counts"] for row in blocks}
    assert counted["no drafts"] is None and 0 < counted["n-gram drafts"]["acceptance"] <= 1
    same = [row["same"] for row in kept["rows"] if row["kind"] == "same answers"]
    assert len(same) == 2 and all(0 <= count <= 2 for count in same)  # another batch may turn a near tie


@pytest.mark.engine
def test_when_the_time_is_over_the_blocks_so_far_are_kept(monkeypatch):
    """The life is stopped, not failed: the next run goes on with it."""
    monkeypatch.setattr(side_by_side.offline, "RESERVE", 1e9)
    life, kept = cases.rehearsed(Life("llama-cpp", "in turns", "n-gram drafts", 1, cases.TURNS)), {}
    assert not tasks.WORKS["in turns"](life, session.Setting("tiny", "cpu", (1,), 3), session.Log(life, kept.update), 200)
    (line,) = kept["failed"]
    assert line.startswith("stopped: 1 users, block None n-gram drafts: ")
