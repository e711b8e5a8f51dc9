"""The questions' record replayed: a row for each planned life, ratios repeat by repeat, and what is missing is said."""

from __future__ import annotations

import pytest

from helpers import records
from helpers.gpu import cases
from helpers.gpu.cases import LLAMA
from helpers.gpu.recorded import asked, tables
from helpers.gpu.work import mixed, offload
from helpers.pictures import comparisons

MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200", "NVIDIA H200"], "gpu_driver": "580.1"}
SHAPE = f", {LLAMA}"


def _life(engine: str, work: str, option: str, rows: list[dict], **more) -> dict:
    return {
        "engine": engine, "work": work, "option": option, "shape": LLAMA, "gpus": 1, "rows": rows, "failed": [], "complete": True,
        "versions": {engine: "1.0"}, "date": "2026-11-30T02:00:00+00:00", **more,
    }  # fmt: skip


def _users(way: str, repeat: int, p99_s: float | None, tpot_s: float | None = 0.01) -> dict:
    itl = {"p50": 0.01, "p99": p99_s, "p999": 2 * p99_s, "max": 3 * p99_s} if p99_s else None
    return {
        "kind": "users", "way": way, "repeat": repeat, "output_tokens_per_s": 3000.0 + repeat, "itl_s": itl,
        "tpot_s": tpot_s and {"p50": tpot_s, "p99": tpot_s, "p999": tpot_s, "max": tpot_s},
    }  # fmt: skip


def _long(repeat: int, *ttft_s: float) -> dict:
    return {"kind": "long prompts", "repeat": repeat, "requests": len(ttft_s), "ttft_s": list(ttft_s)}


def _block(count: int, repeat: int, rate: float) -> dict:
    return {
        "kind": "block", "adapters": count, "repeat": repeat, "requests": 96, "output_tokens": [128], "joules": 96 * 128 * 0.5,
        "output_tokens_per_s": {"median": rate, "low": rate, "high": rate},
    }  # fmt: skip


def _answer(when: str, repeat: int, ttft_s: float, cached: int | None) -> dict:
    return {"kind": "answer", "when": when, "repeat": repeat, "ttft_s": ttft_s, "cached_tokens": cached, "prompt_tokens": 8216}


def _start(way: str, ready_s: float, **phases_s: float) -> dict:
    told = {"phases_s": phases_s} if phases_s else {}
    return {"kind": "start", "way": way, "ready_s": ready_s, "first_answer_s": ready_s + 0.5, "ttft_s": [0.3, 0.1, 0.02], **told}


WHOLE = [
    _users(mixed.ALONE, 0, 0.01), _users(mixed.BESIDE, 0, 0.2, 0.02), _long(0, 0.3, 0.5, 0.4),
    _users(mixed.ALONE, 1, 0.02), _users(mixed.BESIDE, 1, 0.2, None), _long(1, 0.6),
    _users(mixed.ALONE, 2, 0.01),  # its other block was left out
]  # fmt: skip
HELD = [
    {"kind": "adapters", "held": 32, "bytes_each": 80 * 2**20}, {"kind": "loaded", "seconds": 91.4},
    {"kind": "pool", "tokens": 800_000},
    *(_block(count, repeat, rate) for repeat, rates in enumerate([(1000, 800, 500), (1100, 880, 550)])
      for count, rate in zip((0, 1, 32), rates)),
]  # fmt: skip
LIVES = {
    f"vllm, mixed, whole prompts{SHAPE}": _life("vllm", "mixed", "whole prompts", WHOLE, chunks=["whole: 8480"]),
    f"vllm, mixed, chunks of 1024{SHAPE}": _life("vllm", "mixed", "chunks of 1024", [], failed=["failed: no room"], complete=False),  # noqa: E501
    f"sglang, mixed, as it comes{SHAPE}": _life("sglang", "mixed", "as it comes", [_users(mixed.ALONE, 0, None)], complete=False, failed=["stopped: 0 s were left"]),  # noqa: E501
    f"vllm, adapters, 32 adapters{SHAPE}": _life("vllm", "adapters", "32 adapters", HELD),
    f"sglang, adapters, 32 adapters{SHAPE}": _life("sglang", "adapters", "32 adapters", HELD[:1], failed=["failed: no driver"], complete=False),  # noqa: E501
    f"vllm, adapters, as it comes{SHAPE}": _life("vllm", "adapters", "as it comes", [_block(0, 0, 1250), _block(0, 1, 1000)]),
    f"vllm, offload, offload{SHAPE}": _life("vllm", "offload", "offload", [
        _answer(when, repeat, ttft_s, cached) for repeat in range(2)
        for when, ttft_s, cached in (
            (offload.NEW, 0.2, None), (offload.HERE, 0.01, 8192), (offload.BACK, 0.05, 8176 + 16 * repeat)
        )
    ]),
    f"vllm, start, as it comes{SHAPE}": _life("vllm", "start", "as it comes", [
        _start("cold", 80.0, weights=5.0, compile=30.5, graphs=4.0), _start("warm", 45.0, weights=5.0, compile=3.0, graphs=4.0),
    ]),
    f"llama-cpp, start, q4_0{SHAPE}": _life("llama-cpp", "start", "q4_0", [_start("cold", 3.0), _start("warm", 1.0)]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where this test's record is."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    source = {"machine": MACHINE, "date": "2026-11-30", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
    found = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": LIVES}
    records.write_json(tmp_path / "nvidia-h200-32-cores" / "gpu-questions.2026-11-30.json", found)
    return tmp_path


@pytest.fixture
def found(folder) -> dict:
    """The record, loaded."""
    return asked.load()


@pytest.mark.parametrize("work", ["mixed", "adapters", "offload", "start"])
def test_every_stand_in_is_a_life_that_is_planned(work):
    """Else a table would leave it out, and these tests would prove nothing."""
    planned = {life.key for life in cases.questions() if life.work == work}
    assert planned & set(LIVES) == {key for key, one in LIVES.items() if one["work"] == work} != set()


def test_without_a_record_it_is_said_how_to_make_one(tmp_path, monkeypatch):
    """In one line."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    with pytest.raises(records.RecordError, match="nox -s gpu -- questions"):
        asked.load()


def test_the_users_beside_are_over_the_users_alone_of_the_same_repeat(found):
    """20 and 10 times, not 0.2 s over the median of all; a block without the other has no ratio."""
    row = asked.mixed(found).loc["vLLM, whole prompts"]
    assert row["x ITL p99"] == "15.0 (10.0 to 20.0)" and row["repeats"] == "3"
    assert row["ITL p99 alone, ms"] == "10.0 (10.0 to 20.0)" and row["ITL p99.9 beside, ms"] == "400 (400 to 400)"


def test_what_is_not_defined_is_no_number(found):
    """A block in which no answer has a TPOT: the other block's, measured once, has no spread."""
    row = asked.mixed(found).loc["vLLM, whole prompts"]
    assert row["TPOT beside, ms"] == "20.00" and row["long prompts' TTFT, ms"] == "500 (400 to 600)"
    assert asked.mixed(found).loc["SGLang, as it comes", ["ITL p99 alone, ms", "x ITL p99"]].tolist() == ["-", "-"]


@pytest.mark.parametrize("make", [asked.mixed, asked.adapters, asked.holding, asked.returning])
def test_a_table_has_the_lives_with_figures_and_no_empty_column(found, make):
    """Those of one framework together."""
    shown = make(found)
    assert len(shown) and (shown["repeats"] != asked.NOT).all()
    assert (shown != "-").any().all()
    engines = [name.partition(",")[0] for name in shown.index]
    assert engines == sorted(engines, key=["vLLM", "SGLang"].index) and "NVIDIA H200" in shown.attrs["recorded"]


def test_what_is_missing_is_said_with_its_reason(found):
    """What failed, what was cut off, and what was never begun; a whole life has no line."""
    said = asked.left_out("mixed", found)
    assert "vLLM, chunks of 1024: not measured (failed: no room)" in said
    assert "SGLang, as it comes: not all of it (stopped: 0 s were left)" in said
    (never,) = [line for line in said if line.startswith("not measured: ")]
    assert "SGLang, whole prompts" in never and "vLLM, whole prompts" not in never and "no room" not in never
    said = asked.left_out("adapters", found)
    assert "SGLang, 8 held" in said[-1] and said[-1].startswith("not measured: ")
    assert "SGLang, 32 held: not measured (failed: no driver)" in said  # though it has a row: what it was to hold


def test_adapters_used_are_over_the_model_alone_and_held_over_a_server_without(found):
    """0.8 and 0.5 in each repeat; 1,050 over 1,125 of the medians, 1,000 over 1,250 and 1,100 over 1,000 of the farthest."""
    shown = asked.adapters(found)
    row = shown.loc["vLLM, 32 held"]
    assert row[["x 1 used", "x 32 used"]].tolist() == ["0.80 (0.80 to 0.80)", "0.50 (0.50 to 0.50)"]
    assert "x 8 used" not in shown  # no life has it
    assert row["x none held"] == "0.93 (0.80 to 1.10)" and shown.loc["vLLM, none held", "x none held"] == "-"


def test_what_holding_takes(found):
    """Half a joule a token in each block; a server without adapters has used none."""
    shown = asked.holding(found)
    assert shown.loc["vLLM, 32 held"].tolist() == ["2", "91", "800,000", "80", "0.5 (0.5 to 0.5)", "0.5 (0.5 to 0.5)"]
    assert shown.loc["vLLM, none held", ["start, s", "J/token, most used"]].tolist() == ["-", "-"]


def test_a_conversation_returns_sooner_and_the_server_counted_what_was_cached(found):
    """0.2 s against 0.05 s; counts that agree have no spread, those that do not have one."""
    row = asked.returning(found).loc["vLLM, offload"]
    assert row["x returns"] == "4.0 (4.0 to 4.0)" and row["TTFT still on the GPU, ms"] == "10 (10 to 10)"
    assert row["cached, still on the GPU"] == "8,192" and row["cached, returns"] == "8,184 (8,176 to 8,192)"


def test_a_server_that_does_not_count_is_not_said_to_have_cached_nothing(found):
    """ "not told" is not 0."""
    for row in found["lives"][f"vllm, offload, offload{SHAPE}"]["rows"]:
        row["cached_tokens"] = None
    assert asked.returning(found).loc["vLLM, offload", "cached, returns"] == "not told"


def test_each_start_has_the_phases_that_its_log_tells_and_the_rest(found):
    """40.5 s of 80 are not in the log's phases; llama.cpp's log tells none; a way that was not measured is said."""
    shown = asked.starts(found)
    assert shown.loc["vLLM, cold", ["ready, s", "compile, s", "rest, s"]].tolist() == ["80.0", "30.5", "40.5"]
    assert shown.loc["llama.cpp Q4_0, warm", ["weights, s", "rest, s"]].tolist() == ["-", "1.0"]
    assert shown.loc["vLLM, no compile cache", "ready, s"] == shown.loc["SGLang, cold", "ready, s"] == asked.NOT
    assert "SGLang" in asked.left_out("start", found)[-1].removeprefix("not measured: ").split("; ")


def test_titles_say_what_the_record_has(found):
    """Computed; without lives they say that there are none."""
    longest = "p99.9 is up to 400 ms (vLLM, whole prompts)"
    assert asked.gaps_finding(found).endswith(f"is 15.0 times that alone (vLLM, whole prompts); {longest}")
    ready = "From the command to a server that is ready: vLLM 80 s cold, 45 s warm; llama.cpp Q4_0 3 s cold, 1 s warm"
    assert asked.starts_finding(found) == ready
    nothing = {**found, "lives": {}}
    assert asked.gaps_finding(nothing) == "no mixed load is recorded" and asked.starts_finding(nothing) == "no start is recorded"
    assert asked.gaps(nothing) == asked.bars(nothing) == {}


def test_the_gaps_are_drawn_on_a_logarithmic_axis(found):
    """A row for each life with figures; p99 alone and beside, and p99.9."""
    (axes,) = comparisons.gaps(asked.gaps(found), "gap, ms", asked.gaps_finding(found)).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["vLLM, whole prompts"] and axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(asked.MARKS)


def test_a_bar_is_as_long_as_its_start_took(found):
    """Its parts add up, each with a colour of its own; llama.cpp has nothing but the rest."""
    (axes,) = comparisons.parts(asked.bars(found), "seconds", asked.starts_finding(found)).axes
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*axes.containers)]
    assert ends == pytest.approx([80, 45, 3, 1]) and asked.bars(found)["llama.cpp Q4_0, cold"]["weights"] == 0
    assert len({row[0].get_facecolor() for row in axes.containers}) == len(axes.containers) == 4


def test_every_table_is_in_the_text(folder):
    """By its name, with what is missing."""
    said = tables.text()
    assert all(f"\n{name}\n" in said for name in ("mixed", "adapters", "holding", "returning", "starts"))
    assert "## questions: recorded on one of 2 x NVIDIA H200" in said and "SGLang, 32 held: not measured" in said
