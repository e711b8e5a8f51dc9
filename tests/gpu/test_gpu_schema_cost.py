"""What a JSON schema cost under load, replayed: both ways pair by pair, every answer counted, what is missing is said."""

from __future__ import annotations

import pytest

from helpers import records
from helpers.gpu import cases
from helpers.gpu.recorded import schema_cost, tables
from helpers.gpu.work.constrained import FORCED, FREE

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200"], "gpu_driver": "580.1"}


def _block(way: str, repeat: int, users: int, rate: float, tpot_s: float | None, **outcomes: int) -> dict:
    once = {"median": rate, "low": rate, "high": rate}
    return {
        "kind": "block", "way": way, "repeat": repeat, "users": users, "output_tokens_per_s": once, "ttft_s": {"median": 0.01},
        "tpot_s": tpot_s and {"median": tpot_s}, "outcomes": outcomes, "mean_output_tokens": 128 if way == FREE else 64,
    }  # fmt: skip


def _blocks(users: int, tpot_s: float | None) -> list[dict]:
    """Three of each way; a host that slows down slows both."""
    return [
        row for turn in range(3) for row in (
            _block(FREE, turn, users, 1000 - 200 * turn, tpot_s and tpot_s * (1 + turn), valid=1, **{"not JSON": 13}),
            _block(FORCED, turn, users, 800 - 160 * turn, tpot_s and 1.25 * tpot_s * (1 + turn), valid=12, **{"cut off": 2}),
        )
    ]  # fmt: skip


def _warm_ups(users: int) -> list[dict]:
    first = {FREE: {"city": 0.01, "greeting": 0.012}, FORCED: {"city": 0.5, "greeting": 0.03}}
    return [{"kind": "warm-up", "way": way, "users": users, "seconds": 2.0, "first_s": of} for way, of in first.items()]


def _life(*rows: dict, **more) -> dict:
    return {
        "engine": "vllm", "work": "constrained", "option": "as it comes", "rows": list(rows), "failed": [], "complete": True,
        "versions": {"vllm": "1.0"}, "date": "2026-12-01T02:00:00+00:00", "model": "SmolLM2-135M-Instruct", **more,
    }  # fmt: skip


@pytest.fixture
def found(tmp_path, monkeypatch) -> dict:
    """A record in a folder of this test's own: vLLM with one user and with 16, of whose answers no time is known."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    life = _life(*_warm_ups(1), *_blocks(1, 0.002), *_warm_ups(16), *_blocks(16, None), failed=["stopped: 100 users"])
    source = {"machine": MACHINE, "date": "2026-12-01", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
    record = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": {"vllm, constrained, as it comes": life}}
    records.write_json(tmp_path / "nvidia-h200-32-cores" / "gpu-questions.2026-12-01.json", record)
    return record


def test_both_ways_stand_side_by_side(found):
    """The ratio is the same in each pair, though the times trebled meanwhile."""
    shown = schema_cost.table()

    assert shown.attrs["recorded"].startswith("recorded on NVIDIA H200, driver 580.1, 2026-12-01; SmolLM2-135M-Instruct, ")
    one = shown.loc[("vLLM", "1 user")]
    assert list(one[["tokens/s, free", "x tokens/s", "x TPOT"]]) == [
        "800 (600 to 1,000)", "0.80 (0.80 to 0.80)", "1.25 (1.25 to 1.25)",
    ]  # fmt: skip
    assert (one["TPOT JSON, ms"], one["TTFT free, ms"]) == ("5.00 (2.50 to 7.50)", "10.0 (10.0 to 10.0)")


def test_what_is_not_defined_is_a_dash(found):
    """No time per token, no ratio of it, no point in the picture."""
    assert list(schema_cost.table().loc[("vLLM", "16 users"), ["TPOT free, ms", "x TPOT"]]) == ["-", "-"]
    assert schema_cost.ratios() == {"1 user": {"vLLM": 1.25}}
    assert schema_cost.valid({}) == "-" and schema_cost.share({}) is None


def test_every_answer_is_counted(found):
    """Of all blocks together, in both ways."""
    one = schema_cost.validity().loc[("vLLM", "1 user")]
    assert list(one) == ["3 of 42 (7%)", "36 of 42 (86%)", "6 cut off", "128", "64"]


def test_a_new_schema_is_seen_in_the_first_warm_up(found):
    """With the fewest users; the known ones are those of the blocks."""
    (shown,) = schema_cost.compiled().to_dict("records")
    assert list(shown.values()) == ["2", "11.0 (10.0 to 12.0)", "265.0 (30.0 to 500.0)", "10.0 (10.0 to 10.0)"]


def test_a_record_without_warm_ups_has_no_row_for_them(found):
    """The rest is there all the same."""
    (life,) = found["lives"].values()
    life["rows"] = [row for row in life["rows"] if row["kind"] == "block"]
    for row in life["rows"]:
        del row["mean_output_tokens"]
    assert schema_cost.compiled(found).empty and len(schema_cost.table(found)) == 2
    assert schema_cost.validity(found).loc[("vLLM", "1 user"), "tokens of an answer, free"] == "-"


def test_what_is_missing_is_said(found):
    """A life, the users that were not come to, and why."""
    assert schema_cost.left_out() == [
        "vllm, constrained, as it comes: stopped: 100 users", "vllm, constrained, as it comes: no blocks with 100 users",
        "sglang, constrained, as it comes: planned, not recorded yet",
    ]  # fmt: skip
    assert {life.key for life in cases.questions() if life.work == schema_cost.WORK} >= set(found["lives"])


def test_every_table_is_in_the_text(found):
    """By its name, and what is missing."""
    said = tables.text()
    assert all(f"\n{name}\n" in said for name in ("table", "validity", "compiled"))
    assert "## questions: " in said and "sglang, in turns, n-gram drafts: planned, not recorded yet" in said
