"""What was measured on two days: pairs by life and load, whether ranges meet, and how far medians are apart."""

from __future__ import annotations

import pytest

from helpers.gpu import cases
from helpers.gpu.recorded import read, repeated

KEY = "vllm, offline, as it comes, Llama-3.1-8B"


def _found(*seconds: float) -> dict:
    rows = [{"kind": "speed", "users": 1, "repeat": n, "seconds": s, "output_tokens": 120} for n, s in enumerate(seconds)]
    life = {"engine": "vllm", "work": "offline", "option": "as it comes", "rows": rows, "gpus": 1, "shape": "Llama-3.1-8B"}
    machine = {"gpus": ["NVIDIA H200"], "cpu": "a CPU", "cores": 32, "gpu_driver": None}
    return {"provenance": {"machine": machine, "date": "2026-12-01", "weights": "random"}, "lives": {KEY: life}}


@pytest.fixture
def first_day(monkeypatch):
    monkeypatch.setattr(read, "beside", lambda found, run: _found(1.0, 1.2) if run == "scaling" else {**found, "lives": {}})


@pytest.mark.parametrize(("seconds", "meets"), [((1.1, 1.3), True), ((0.5, 0.6), False)])
def test_ranges_meet_where_they_share_a_value(first_day, seconds, meets):
    """100 to 120 tokens/s on the first day."""
    (pair,) = repeated.pairs(_found(*seconds))
    assert (pair.life, pair.load, pair.meets) == ("vLLM, offline", "128/128, 1 user", meets)


def test_the_finding_counts_what_meets_and_names_what_is_farthest(first_day):
    """One figure, twice as fast."""
    assert "of 1 figures the ranges of 0 meet" in repeated.finding(_found(0.5, 0.6))
    assert "+100.0% (vLLM, offline, 128/128, 1 user)" in repeated.finding(_found(0.5, 0.6))
    assert repeated.table(_found(0.5, 0.6)).loc[("vLLM, offline", "128/128, 1 user"), "ranges meet"] == "no"


def test_what_was_measured_once_is_no_pair(monkeypatch):
    """No life of the first day has this name."""
    monkeypatch.setattr(read, "beside", lambda found, run: {**found, "lives": {}})
    assert repeated.finding(_found(1.0)) == "nothing was measured twice"


def test_the_run_takes_one_figure_in_five_again():
    """Of the loads that today's and the scaling run measure on one GPU and on two."""
    first = {one.key: one for run in (cases.today, cases.scaling) for one in run() if one.layout.gpus <= 2}
    chosen = cases.again()
    assert all(one.key in first and one.given == first[one.key].given for one in chosen)
    offline = [one for one in first.values() if one.work == "offline"]
    assert 5 * len(chosen) >= len(offline)
