"""Servers under arrivals, simulated: what stands where, what was fitted, and how far off the record that is here is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.gpu.recorded import parted, queued, scaled
from helpers.gpu.recorded.queued import Handing, Load, Waits
from helpers.lessons.scaling.simulated import Answer

LOAD = Load("vllm", "TP2", 16, Waits(0.04, 0.010, 0.9), Waits(0.05, 0.012, 1.0))


@pytest.fixture(scope="module")
def record():
    return scaled.load()


@pytest.fixture(scope="module")
def loads(record) -> list[Load]:
    return queued.loads(record)


def test_waits_are_medians_with_what_comes_besides():
    """Which counts to the limit of the first token, too."""
    given = [Answer(0, (ttft_s, ttft_s + 0.01)) for ttft_s in (0.1, 0.2, 0.498)]

    assert queued.Waits.of(given, 0) == Waits(0.2, pytest.approx(0.01), 1)
    assert queued.Waits.of(given, 0.01) == Waits(pytest.approx(0.21), pytest.approx(0.01), pytest.approx(2 / 3))


def test_an_error_is_what_was_simulated_over_what_was_measured():
    """A TTFT that a cost was fitted to has none in the count, and no mark in the picture."""
    fitted = replace(LOAD, fitted=True)

    assert LOAD.error("ttft_s") == pytest.approx(0.25)
    assert queued.within([LOAD, fitted], "tpot_s", 0.21) == (2, 2)
    assert queued.within([LOAD, fitted], "ttft_s", 0.21) == (0, 1)
    assert queued.pairs([LOAD, fitted], "ttft_s") == {"TP2": [(pytest.approx(50), pytest.approx(40))]}


def test_the_table_has_both_and_says_what_was_fitted():
    """A share that was not counted is no share."""
    shown = queued.table([replace(LOAD, fitted=True), replace(LOAD, rate_per_s=32, measured=Waits(0.04, 0.010, None))])

    assert list(shown.index) == [("vLLM", "TP2", "16/s"), ("vLLM", "TP2", "32/s")]
    assert list(shown["error"]) == ["+20%", "+20%"] and list(shown["error "]) == ["fitted", "+25%"]
    assert list(shown["simulated  "]) == ["100%", "-"]


def test_handing_over_is_fitted_to_the_blocks_with_long_prompts(record):
    """Not to the arrivals that it is used for: with other figures of these it stays as it was."""
    fitted = Handing.fitted(record, "vllm")
    lives = {key: {**one, "rows": [_tenfold(row) for row in one["rows"]]} for key, one in record["lives"].items()}

    assert Handing.fitted({**record, "lives": lives}, "vllm") == fitted
    assert 1 < fitted.pieces <= 2  # pages of 16 tokens in each of 32 layers: two pieces for a token, unless some lie together
    assert fitted.seconds(2048) > 10 * 2048 * queued.token_bytes() / scaled.link_bytes_per_s()
    assert Handing.fitted(record, "sglang") is None


def _tenfold(row: dict) -> dict:
    if row["kind"] != "moved" or "rate_per_s" not in row:
        return row
    return {**row, "counted": {name: 10 * value for name, value in row["counted"].items()}}


def test_every_recorded_rate_is_there_once(record, loads):
    """Of one GPU, of two as one server, of copies, and of prefill apart; one TTFT of each engine was fitted to."""
    names = [(one.engine, one.way, one.rate_per_s) for one in loads]

    assert len(set(names)) == len(names)
    assert {one.way for one in loads} == {"one GPU", "TP2", "DP2", "2 copies, router", *parted.WAYS}
    assert [(one.engine, one.way) for one in loads if one.fitted] == [("vllm", "one GPU"), ("sglang", "one GPU")]
    assert all(one.error("ttft_s") == pytest.approx(0) for one in loads if one.fitted)


def test_steps_on_one_gpu_tell_what_tokens_wait_under_load(loads):
    """TPOT: nearly every rate within a quarter, and none further off than 35 %."""
    near, of = queued.within(loads, "tpot_s")

    assert near >= 0.85 * of
    assert queued.within(loads, "tpot_s", 0.35) == (of, of)
