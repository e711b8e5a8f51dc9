"""Engines and layouts side by side, replayed from a record: rates, factors, joules, memory and bytes over the link."""

from __future__ import annotations

import pytest

from helpers.gpu.cases import LARGE, LLAMA, MOE, Life
from helpers.gpu.recorded import divided, scaled
from helpers.gpu.recorded.divided import EXPERTS, FP8, LOADS, PIPELINE, Way
from helpers.gpu.recorded.scaled import ONE, TWO
from helpers.pictures import comparisons

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200", "NVIDIA H200"], "gpu_driver": "580.1"}


def _life(way: Way, seconds: float, joules: float, nvlink_bytes: int = 0) -> tuple[str, dict]:
    """One user's 128 tokens in ``seconds``, and a prompt of 8,192 in as many."""
    gpus = way.layout.gpus
    prompt = {"kind": "prefill", "users": 1, "repeat": 0, "input_tokens": 8192, "output_tokens": 1, "seconds": seconds}
    rows = [
        {"kind": "holds", "pool_tokens": 1000 * gpus},
        {"kind": "speed", "users": 1, "repeat": 0, "seconds": seconds, "output_tokens": 128, "joules": joules},
        prompt | {"joules": 9, "nvlink_bytes": nvlink_bytes},
    ]
    life = {
        "engine": way.engine, "work": "offline", "option": way.option, "shape": way.shape, "gpus": gpus, "rows": rows,
        "failed": [], "versions": {way.engine: "1.0"}, "date": "2026-11-30T02:00:00+00:00", "each_peak_bytes": [2**30] * gpus,
    }  # fmt: skip
    return Life(way.engine, "offline", way.option, 0, shape=way.shape, layout=way.layout).key, life


@pytest.fixture
def record():
    """Two engines on one GPU and with TP2, a pipeline, and a large model that no single GPU had."""
    made = (
        _life(Way("vllm", LLAMA), 1.0, 128), _life(Way("vllm", LLAMA, TWO), 0.5, 256, 8192 * 2**20),
        _life(Way("sglang", LLAMA), 0.8, 128), _life(Way("sglang", LLAMA, TWO), 0.4, 64),
        _life(Way("vllm", LLAMA, PIPELINE), 1.25, 256, 2 * 8192 * 8192), _life(Way("vllm", LARGE, TWO, FP8), 2.0, 1280),
    )  # fmt: skip
    return {"provenance": {"machine": MACHINE, "date": "2026-11-30", "weights": "w"}, "lives": dict(made)}


def test_engines_stand_side_by_side_by_load(record):
    """Rate, times one GPU, joules likewise, and one engine over the other; of a prompt no joules."""
    shown = divided.compared(record)
    assert shown.loc["128/128, 1 user"].tolist() == [
        "256", "2.00 (2.00 to 2.00)", "2.00", "320", "2.00 (2.00 to 2.00)", "0.50", "1.25"
    ]  # fmt: skip
    assert shown.loc["prompt of 8,192", "vLLM, J/token, x"] == "-" and list(shown.columns)[-1] == "SGLang / vLLM"


def test_with_one_engine_alone_nothing_is_compared(record):
    """Its own figures stay."""
    del record["lives"]["sglang, offline, as it comes, Llama-3.1-8B, TP2"]
    assert divided.faster(record) == {} and list(divided.compared(record).columns)[0] == "vLLM, TP2"


def test_a_way_has_its_rates_its_factors_its_joules_and_its_memory(record):
    """One GPU has no factor; bytes are those counted over those computed."""
    shown = divided.divided(record).drop(columns=list(LOADS[-1:]))
    assert shown.loc[("vLLM", LLAMA, "one GPU")].tolist() == ["128 (128 to 128)", "1.00", "1", "1,000", "-"]
    assert shown.loc[("vLLM", LLAMA, "TP2")].tolist() == ["256, 2.00x (2.00 to 2.00)", "2.00", "1, 1", "2,000", "1.00"]
    assert shown.loc[("vLLM", LLAMA, "PP2"), ["128/128, 1 user", "NVLink, x"]].tolist() == ["102, 0.80x (0.80 to 0.80)", "2.00"]


def test_a_gain_has_the_range_of_its_farthest_repeats(record):
    """A slow repeat is seen in the table, on one GPU in the rate and on two in the factor."""
    alone, several = (scaled.offline(record, "vllm", layout=layout)["rows"] for layout in (ONE, TWO))
    alone.append({"kind": "speed", "users": 1, "repeat": 1, "seconds": 2.0, "output_tokens": 128})
    several.append({"kind": "speed", "users": 1, "repeat": 1, "seconds": 1.0, "output_tokens": 128})
    shown = divided.divided(record)["128/128, 1 user"]
    assert shown["vLLM", LLAMA, "one GPU"] == "96 (64 to 128)"
    assert shown["vLLM", LLAMA, "TP2"] == "192, 2.00x (1.00 to 4.00)"


def test_a_model_that_no_single_gpu_had_has_no_factor(record):
    """And its name says that its weights are FP8."""
    shown = divided.divided(record)
    assert shown.loc[("vLLM", "Llama-3.1-70B, FP8", "TP2"), "128/128, 1 user"] == "64 (64 to 64)"


def test_what_was_not_measured_has_no_row(record):
    """No experts in this record."""
    assert {way.shape for way, _ in divided.lives(record)} == {LLAMA, LARGE}


class TestShippedRecord:
    """What this collection's own record says, and notebook 13 with it."""

    def test_every_way_has_figures(self):
        """None is named that was not run."""
        assert [way for way, _ in divided.lives(scaled.load())] == list(divided.WAYS)

    def test_every_load_of_the_table_is_there(self):
        """Of each way."""
        shown = divided.divided()
        assert set(LOADS) < set(shown.columns) and not (shown[list(LOADS)] == "-").any(axis=None)

    def test_both_engines_have_every_load(self):
        """Nine of them, each with a rate on either side."""
        assert divided.compared().shape == (9, 7) and "-" not in divided.compared()["SGLang / vLLM"].tolist()

    def test_experts_in_a_tp_group_sent_what_tp_sent(self):
        """To a thousandth, in the longest prompt: the calculator counts no exchange there."""
        found = scaled.load()
        tp, ep = (scaled.sent(scaled.offline(found, "vllm", MOE, way), MOE, way)[LOADS[-1]] for way in (TWO, EXPERTS))
        assert ep[0] == pytest.approx(tp[0], rel=0.001) and ep[0] == pytest.approx(ep[1], rel=0.05)

    def test_a_pipeline_sent_two_vectors_for_a_token(self):
        """vLLM hands over the hidden vector and the residual; the calculator has one."""
        counted, computed = scaled.sent(scaled.offline(scaled.load(), "vllm", LLAMA, PIPELINE), LLAMA, PIPELINE)[LOADS[-1]]
        assert counted == pytest.approx(2 * computed, rel=0.01)

    def test_the_picture_of_layouts_has_a_mark_for_each(self):
        """Over the loads that all have; one GPU is the line at 1."""
        found = scaled.load()
        drawn = {f"{way.shape}, {way.layout}": divided.gains(found, way) for way in divided.WAYS if divided.gains(found, way)}
        (axes,) = comparisons.speedups(drawn).axes
        assert len(axes.get_xticks()) == len(LOADS) and len(axes.get_legend().get_texts()) == len(drawn)

    def test_one_gpu_alone_has_no_gain(self):
        """Nor a model that one GPU did not have."""
        assert divided.gains(scaled.load(), Way("vllm", LLAMA, ONE)) == divided.gains(scaled.load(), divided.WAYS[-1]) == {}
