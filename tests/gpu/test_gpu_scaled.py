"""The record of several GPUs replayed: speed-up with its spread, bytes over the link, goodput, and the calculator's verdict."""

from __future__ import annotations

import pytest

from helpers import records
from helpers.gpu import read, scaled, tables, verdict
from helpers.gpu.scaled import ONE, TWO
from helpers.pictures import comparisons

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200", "NVIDIA H200"], "gpu_driver": "580.1"}
LARGEST_ERROR = 0.25  # of what is expected, where it was not fitted


def _life(work: str, gpus: int, rows: list[dict], arguments: tuple[str, ...] = (), **more) -> dict:
    return {
        "engine": "vllm", "work": work, "option": "as it comes", "shape": scaled.LLAMA, "gpus": gpus, "rows": rows, "failed": [],
        "complete": True, "versions": {"vllm": "1.0"}, "date": "2026-11-30T02:00:00+00:00", "arguments": list(arguments),
        "each_peak_bytes": [2**30] * gpus, **more,
    }  # fmt: skip


def _speed(seconds: list[float], **more) -> list[dict]:
    """One user, 128 tokens, and the request of one token beside each."""
    return [
        row for repeat, took in enumerate(seconds) for row in (
            {"kind": "speed", "users": 1, "repeat": repeat, "seconds": took, "output_tokens": 128, "joules": 256.0, **more},
            {"kind": "first token", "users": 1, "repeat": repeat, "seconds": 0.1},
        )
    ]  # fmt: skip


def _arrivals(rate: float, met: float) -> dict:
    def spread(value: float) -> dict:
        return {"median": value, "low": value, "high": value}

    return {
        "kind": "arrivals", "rate_per_s": rate, "met": met, "goodput_requests_per_s": spread(rate * met), "ttft_s": spread(0.1),
        "tpot_s": spread(0.01), "output_tokens_per_s": spread(128 * rate), "requests": 100, "repeats": 1, "output_tokens": [128],
        "answers_at_once": 7, "joules": 6400.0,
    }  # fmt: skip


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A machine with one GPU's figures, TP2's and DP2's."""
    lives = {
        "vllm, offline, as it comes, Llama-3.1-8B": _life("offline", 1, _speed([1.0, 1.1, 1.0])),
        "vllm, offline, as it comes, Llama-3.1-8B, TP2": _life("offline", 2, _speed([0.5, 0.55, 0.6], nvlink_bytes=255 * 2**20)),
        "vllm, server, prefix cache, Llama-3.1-8B, DP2": _life("server", 2, [_arrivals(8, 0.5)], ("--data-parallel-size", "2")),
        "vllm, server, prefix cache, Llama-3.1-8B": _life("server", 1, [_arrivals(4, 1.0)], ("--max-num-seqs", "128")),
    }
    source = {"machine": MACHINE, "date": "2026-11-30", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
    found = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": lives}
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    records.write_json(tmp_path / "nvidia-h200-32-cores" / "gpu-scaling.2026-11-30.json", found)
    return found


def test_a_gain_is_of_the_medians_and_its_spread_of_the_farthest_repeats(record):
    """1.0 s against 0.55 s; from the fastest alone against the slowest together, and the other way round."""
    gain = scaled.gains(record, "vllm", TWO)["128/128, 1 user"]
    assert (gain.median, gain.low, gain.high) == pytest.approx((1 / 0.55, 1 / 0.6, 1.1 / 0.5))
    assert gain.efficiency == pytest.approx(1 / 0.55 / 2)


def test_the_table_has_rates_gain_and_joules(record):
    """A row for each load; which shape it was is said, not that of the run."""
    shown = scaled.speedups()
    assert shown.loc["128/128, 1 user", "x"] == "1.82 (1.67 to 2.20)" and shown.loc["128/128, 1 user", "of ideal"] == "91%"
    assert shown.loc["128/128, 1 user", "J/token, TP2"] == "2.00"
    assert "2 x NVIDIA H200" in shown.attrs["recorded"] and "shape of Llama-3.1-8B" in shown.attrs["recorded"]


def test_without_figures_of_one_gpu_there_is_no_gain(record):
    """Nothing is divided by nothing."""
    del record["lives"]["vllm, offline, as it comes, Llama-3.1-8B"]
    assert scaled.gains(record, "vllm", TWO) == {}


def test_counted_bytes_stand_beside_the_computed_ones(record):
    """255 tokens went through the model, each with 1 MiB of both GPUs."""
    assert scaled.over_nvlink(record).loc["128/128, 1 user"].tolist() == ["255", "255", "1.00"]


def test_layouts_are_named_as_the_server_was_told(record):
    """One GPU first."""
    assert list(scaled.served(record)) == ["one GPU", "DP2"]
    shown = scaled.goodput(record)
    assert shown.loc[("DP2", 8), "goodput, requests/s"] == "4.0" and shown.loc[("DP2", 8), "J/token"] == "0.50"


def test_a_step_is_an_answer_without_its_first_token(record):
    """127 steps between."""
    assert verdict.steps(scaled.offline(record, "vllm"))[1].median == pytest.approx(0.9 / 127)


class TestShippedRecord:
    """What this collection's own record says."""

    def test_no_figure_of_an_engine_whose_log_names_multicast(self):
        """Such a life has its reason and no row."""
        for machine in read.machines("scaling"):
            lives = scaled.load(machine)["lives"].values()
            named = [one for one in lives if any("multicast" in line.lower() for line in one["failed"])]
            assert all(one["rows"] == [] for one in named)

    def test_every_row_that_was_not_fitted_is_within_a_quarter(self):
        """More rows are checked than were fitted, and TP2 was fitted to none."""
        found = verdict.verdicts()
        checked = [one for one in found if not one.fitted]
        assert len(checked) > len(found) - len(checked) and {one.layout for one in checked} == {ONE, TWO}
        assert not any(one.fitted for one in found if one.layout == TWO)
        assert max(abs(one.error) for one in checked) <= LARGEST_ERROR

    def test_a_bound_is_below_every_measured_time(self):
        """Else it were none."""
        assert all(one.bound_s < one.measured_s for one in verdict.verdicts())

    def test_the_speed_up_is_measured_with_a_spread_below_a_twentieth(self):
        """Of every load."""
        gains = scaled.gains(scaled.load(), "vllm", TWO).values()
        assert len(gains) == 9 and all(1 < gain.median < 2 and (gain.high - gain.low) / gain.median < 0.05 for gain in gains)

    def test_every_table_is_in_the_text(self):
        """By its name."""
        said = tables.text()
        assert all(f"\n{name}\n" in said for name in ("speedups", "link", "over_nvlink", "verdict", "goodput", "held"))

    def test_both_pictures_are_drawn(self):
        """A mark for each load, a line for each layout, the ideal among them."""
        found = scaled.load()
        (axes,) = comparisons.speedups({"vLLM, TP2": scaled.gains(found, "vllm", TWO)}).axes
        assert len(axes.get_xticks()) == 9 and "ideal: 2 GPUs, x 2" in [text.get_text() for text in axes.texts]
        good, each = comparisons.arrivals(scaled.served(found)).axes
        assert [text.get_text() for text in each.get_legend().get_texts()] == ["one GPU", "TP2", "DP2"] and len(good.lines) == 4
