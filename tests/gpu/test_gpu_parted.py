"""GPUs apart against the same ones together, replayed: waits by way, each rate, and what was moved."""

from __future__ import annotations

import pytest

from helpers.gpu.recorded import parted, read

WAITS = {"p50": 0.1, "p99": 0.2, "p999": 0.3, "max": 0.4}


def _row(kind: str, way: str, **more) -> dict:
    return {
        "kind": kind, "way": way, "ttft_s": WAITS, "tpot_s": {**WAITS, "p50": 0.005}, "itl_s": WAITS,
        "output_tokens_per_s": 1000.0, **more,
    }  # fmt: skip


@pytest.fixture
def found():
    counted = {parted.TRANSFERS: 2.0, parted.PIECES: 6000.0, parted.SECONDS: 0.1, parted.BYTES: 2.0 * 2**28}
    rows = [
        _row("users", "together"), _row("users", "apart", tpot_s=None), {"kind": "same answers", "same": 3, "requests": 4},
        {"kind": "long prompts", "way": "apart", "ttft_s": [0.5, 0.7, 0.6]},
        _row("arrivals", "apart", rate_per_s=16, prefilled_s=WAITS), _row("arrivals", "together", rate_per_s=16),
        _row("arrivals", "together", rate_per_s=8), {"kind": "moved", "way": "together", "counted": {parted.TRANSFERS: 0.0}},
        {"kind": "moved", "way": "apart", "counted": counted},
    ]  # fmt: skip
    machine = {"gpus": ["NVIDIA H200"] * 2, "cpu": "a CPU", "cores": 32, "gpu_driver": None}
    life = {"engine": "vllm", "work": "apart", "option": "NIXL", "rows": rows, "gpus": 2, "shape": "Llama-3.1-8B"}
    return {"provenance": {"machine": machine, "date": "2026-12-01", "weights": "random"}, "lives": {"one": life}}


def test_users_beside_long_prompts_have_a_row_for_each_way(found):
    """What is undefined has no figure; long prompts that were not recorded neither."""
    shown = parted.beside_long_prompts(found)
    assert list(shown.index) == [("vLLM", "together"), ("vLLM", "apart")]
    assert list(shown["TPOT p50, ms"]) == ["5.00", "-"]
    assert list(shown["long prompts' TTFT, ms"]) == ["-", "600"]


def test_rates_stand_in_their_order_with_both_ways(found):
    """Each was sent once, so that there is no range; only GPUs apart have a prefill that answered."""
    shown = parted.arrivals(found)
    assert list(shown.index) == [("vLLM", "8/s", "together"), ("vLLM", "16/s", "together"), ("vLLM", "16/s", "apart")]
    assert list(shown["until prefilled p50, ms"]) == ["-", "-", "100"]
    assert set(shown["TTFT p99, ms"]) == {"200"}


def test_what_was_moved_is_what_the_engine_counted(found):
    """Nothing where nothing was moved."""
    assert parted.moved(found) == [
        "vLLM, apart: 2 transfers, 256 MiB in 3,000 pieces and 50 ms each in the mean; the link alone takes 0.6 ms",
        "greedy answers the same both ways: 3 of 4",
    ]


def test_the_record_that_is_here_has_them():
    """Both ways, beside long prompts and at every rate; the copies moved what they were asked for."""
    shipped = parted.load()
    assert {way for _, way in parted.beside_long_prompts(shipped).index} == set(parted.WAYS)
    assert read.recorded(shipped, works=("apart",)).startswith("recorded on 2 x NVIDIA H200")
    assert any("transfers" in line for line in parted.moved(shipped))
