"""The record of several GPUs replayed: speed-up with its spread, bytes over the link, goodput, and the calculator's verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers import records
from helpers.gpu import cases
from helpers.gpu.recorded import divided, read, scaled, tables, verdict
from helpers.gpu.recorded.scaled import ONE, TWO
from helpers.lessons.scaling import expected
from helpers.pictures import comparisons

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200", "NVIDIA H200"], "gpu_driver": "580.1"}
SLOTS = ("--max-num-seqs", "128")
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
        "vllm, server, prefix cache, Llama-3.1-8B, DP2": _life(
            "server", 2, [_arrivals(8, 0.5)], (*SLOTS, "--data-parallel-size", "2")
        ),
        "vllm, server, prefix cache, Llama-3.1-8B": _life("server", 1, [_arrivals(4, 1.0)], SLOTS),
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
    assert shown.loc[("vLLM", "DP2", 8), ["goodput, requests/s", "J/token", "slots a copy"]].tolist() == ["4.0", "0.50", 128]


def test_a_step_is_an_answer_without_its_first_token(record):
    """127 steps between."""
    assert verdict.steps(scaled.offline(record, "vllm"))[1].median == pytest.approx(0.9 / 127)


def _divided(way: divided.Way) -> list[divided.Way]:
    """The same on two GPUs."""
    return [one for one in divided.WAYS if (one.engine, one.shape) == (way.engine, way.shape) and one.layout != ONE]


class TestShippedRecord:
    """What this collection's own record says."""

    def test_no_figure_of_an_engine_whose_log_names_multicast(self):
        """Such a life has its reason and no row."""
        for machine in read.machines("scaling"):
            lives = scaled.load(machine)["lives"].values()
            named = [one for one in lives if any("multicast" in line.lower() for line in one["failed"])]
            assert all(one["rows"] == [] for one in named)

    def test_every_row_that_was_not_fitted_is_within_a_quarter(self):
        """Or between repeats that lie as far apart; more rows are checked than were fitted, and none of two GPUs was fitted."""
        found = verdict.verdicts()
        checked = [one for one in found if not one.fitted]
        assert len(checked) > 2 * (len(found) - len(checked)) and {one.way for one in checked} == set(divided.WAYS)
        assert not any(one.fitted for one in found if one.way.layout != ONE)
        off = [one for one in checked if abs(one.error) > LARGEST_ERROR]
        assert len(off) <= 1 and all(one.measured.low < one.expected_s < one.measured.high for one in off)

    @pytest.mark.parametrize("tokens", [2048, 8192])
    @pytest.mark.parametrize("shape", [cases.LLAMA, cases.MOE])
    def test_a_prompts_own_cost_is_needed(self, shape, tokens):
        """Fitted to one prompt of one GPU alone, whichever it is, the worst prompt of two GPUs is farther off."""
        found, way = scaled.load(), divided.Way("vllm", shape)
        rows = [one for one in verdict.verdicts(found) if one.way in _divided(way) and one.what.startswith("a prompt")]
        gpus, costs = verdict.machine(found), verdict.fitted(found, way)
        alone = verdict.prompts(scaled.offline(found, "vllm", shape))[tokens].median
        share = expected.prefill_s(shape, ONE, tokens, gpus) / (alone - costs.step_s)
        by_length = replace(costs, prompt_s=0, compute_share=share)

        def error(one: verdict.Verdict) -> float:
            length = int(one.what.split()[-1].replace(",", ""))
            return expected.prefill_s(shape, one.way.layout, length, gpus, by_length) / one.measured.median - 1

        assert len(rows) == 4 and max(abs(one.error) for one in rows) < max(abs(error(one)) for one in rows)

    def test_the_kv_pools_are_within_a_tenth(self):
        """Of every way that was told its share of the memory; all of them are larger than computed."""
        found = verdict.pools()
        assert {way.layout for way in found} == {ONE, TWO, divided.PIPELINE, divided.EXPERTS}
        assert all(-0.1 < error < 0 for _, error in found.values())

    def test_a_bound_is_below_every_measured_time(self):
        """Else it were none."""
        assert all(one.bound_s < one.measured.median for one in verdict.verdicts())

    def test_the_bound_has_the_direction_of_the_dense_model_on_tp2_only(self):
        """Every row of it is faster both ways; of the other ways the bound has one faster that was slower."""
        found = verdict.changes()
        dense = {key: both for key, both in found.items() if (key[0].shape, key[0].layout) == (cases.LLAMA, TWO)}
        assert dense and all(min(both) > 1 for both in dense.values())
        assert [key[1] for key, (bound, measured) in found.items() if measured < 1 < bound] == ["a prompt of 2,048"]

    def test_a_change_is_against_one_gpu_of_the_same_engine_and_model(self):
        """One GPU is none, nor is a model that no single GPU had."""
        found = verdict.changes()
        assert {way for way, _ in found} == {way for way in divided.WAYS if way.layout != ONE and way.shape != cases.LARGE}
        way = divided.Way("vllm", cases.LLAMA, TWO)
        alone, several = (verdict.prompts(scaled.offline(scaled.load(), "vllm", layout=one))[8192].median for one in (ONE, TWO))
        assert found[way, "a prompt of 8,192"][1] == pytest.approx(alone / several)

    @pytest.mark.parametrize("engine", scaled.ENGINES)
    def test_the_speed_up_is_measured_with_a_spread_below_a_twentieth(self, engine):
        """Of every load."""
        gains = scaled.gains(scaled.load(), engine, TWO).values()
        assert len(gains) == 9 and all(1 < gain.median < 2 and (gain.high - gain.low) / gain.median < 0.05 for gain in gains)

    def test_every_table_is_in_the_text(self):
        """By its name."""
        said = tables.text()
        names = ("speedups", "compared", "divided", "link", "over_nvlink", "verdict", "errors", "goodput", "held")
        assert all(f"\n{name}\n" in said for name in names)

    def test_both_pictures_are_drawn(self):
        """A mark for each load, a line for each layout, the ideal among them."""
        found = scaled.load()
        (axes,) = comparisons.speedups({"vLLM, TP2": scaled.gains(found, "vllm", TWO)}).axes
        assert len(axes.get_xticks()) == 9 and "ideal: 2 GPUs, x 2" in [text.get_text() for text in axes.texts]
        good, each = comparisons.arrivals(scaled.served(found)).axes
        assert [text.get_text() for text in each.get_legend().get_texts()] == ["one GPU", "TP2", "DP2"] and len(good.lines) == 4
