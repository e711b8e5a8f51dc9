"""Long prompts among users that decode: what is kept of a block, and what an engine is told of chunks."""

from __future__ import annotations

import pytest

from helpers.bench.timing import Sample
from helpers.gpu import cases, session, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.work import mixed

MS = 10**6


def sample(*at_ms: int) -> Sample:
    return Sample(0, tuple(ms * MS for ms in at_ms), output_tokens=len(at_ms), token_source="server_usage")


def test_the_gaps_of_all_users_are_pooled():
    """Four gaps of 10 ms and one of 300: it is the maximum, and hardly moves the median."""
    found = mixed.figures([sample(100, 110, 120, 130), sample(100, 110, 410)])
    assert found["gaps"] == 5 and found["itl_s"]["max"] == pytest.approx(0.3) and found["itl_s"]["p50"] == pytest.approx(0.01)
    assert found["ttft_s"]["max"] == pytest.approx(0.1) and found["requests"] == 2


def test_one_gap_in_two_hundred_is_beyond_the_99th_percentile_only():
    """A stall that each answer of 256 tokens has once hardly moves p99; p99.9 has it."""
    found = mixed.figures([sample(*range(10, 2010, 10), 2300)])
    assert found["itl_s"]["p99"] == pytest.approx(0.01) and found["itl_s"]["p999"] > 0.2 and found["output_tokens"] == 201


def test_an_answer_in_one_moment_has_no_tpot_and_no_gaps():
    """It does not end the life, and its gaps are unknown, not 0; without any other answer nothing is known of them."""
    found = mixed.figures([sample(100, 100), sample(100, 110)])
    assert found["tpot_s"]["max"] == found["itl_s"]["p50"] == pytest.approx(0.01)
    assert (found["gaps"], found["in_one_moment"]) == (1, 1)
    alone = mixed.figures([sample(100, 100)])
    assert alone["tpot_s"] is alone["itl_s"] is None and alone["ttft_s"]["p50"] == pytest.approx(0.1)


def test_whole_prompts_are_asked_for_and_chunks_are_cut():
    """Each engine in its own words."""
    setup = variants.Setup(True, 8480)
    vllm = [variants.arguments("vllm", option, setup) for option in ("whole prompts", "chunks of 1024")]
    assert vllm[0]["enable_chunked_prefill"] is False and vllm[1]["max_num_batched_tokens"] == 1024
    sglang = variants.arguments("sglang", "chunks of 1024, mixed", setup)
    assert sglang["chunked_prefill_size"] == 1024 and sglang["enable_mixed_chunk"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("INFO Chunked prefill is enabled with max_num_batched_tokens=8192.", "Chunked prefill is enabled with max_num_batched_tokens=8192"),  # noqa: E501
        ("max_total_num_tokens=9, chunked_prefill_size=None, max_prefill_tokens=16384, x", "chunked_prefill_size=None, max_prefill_tokens=16384"),  # noqa: E501
    ],
)  # fmt: skip
def test_the_log_says_the_chunks(line, said):
    """What the engine took, beside what it was told."""
    assert mixed.SAID.findall(line) == [said]


@pytest.mark.engine
def test_both_kinds_of_requests_are_answered_in_turns():
    """llama.cpp's real server: a row for the users of each block, and one more for its long prompts."""
    how = {
        "context": 512, "users": 2, "requests": 1, "input_tokens": 16, "output_tokens": 24, "long_tokens": 64,
        "long_output_tokens": 4, "every_s": 0.05, "most_long": 8,
    }  # fmt: skip
    life, kept = Life("llama-cpp", "mixed", "q4_0", 1, how, cases.LLAMA), {}
    assert tasks.WORKS["mixed"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 120)
    rows = [row for row in kept["rows"] if row["kind"] in ("users", "long prompts")]
    assert [(row["kind"], row.get("way")) for row in rows] == [
        ("users", "alone"), ("users", "beside long prompts"), ("long prompts", None)
    ]  # fmt: skip
    assert (
        rows[0]["gaps"] == 2 * 23
        and rows[0]["output_tokens"] == 2 * 24
        and "joules" in rows[0]
        and rows[2]["requests"] >= 1
        and min(rows[2]["ttft_s"]) > 0
    )
