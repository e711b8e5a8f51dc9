"""The records replayed as tables like the source document's: medians with their range, machine and date beside them."""

from __future__ import annotations

import pytest

from helpers import paths, records
from helpers.gpu import cases, notebooks
from helpers.gpu.recorded import read, tables

MACHINE = {"cpu": "Some CPU", "cores": 16, "gpus": ["NVIDIA H100"], "gpu_driver": "580.1"}


def _speed(users: int, seconds: list[float], **more) -> list[dict]:
    return [
        {"kind": "speed", "users": users, "repeat": i, "seconds": s, "output_tokens": users * 128, "ttft_s": None, **more}
        for i, s in enumerate(seconds)
    ]


def _level(users: int, rate: float, ttft_s: float) -> dict:
    def spread(value: float) -> dict:
        return {"median": value, "low": 0.9 * value, "high": 1.1 * value}

    return {"kind": "level", "users": users, "output_tokens_per_s": spread(rate), "ttft_s": spread(ttft_s)}


def _life(engine: str, work: str, option: str, rows: list[dict], **more) -> dict:
    return {
        "engine": engine, "work": work, "option": option, "rows": rows, "failed": [], "complete": True,
        "versions": {engine: "1.0"}, "date": "2026-11-25T20:00:00+00:00", **more,
    }  # fmt: skip


def _copying(users: int, rate: float) -> dict:
    return {"kind": "copying", "users": users, "output_tokens_per_s": {"median": rate, "low": rate, "high": rate}}


LIVES = {
    "speed": [
        _life("vllm", "offline", "as it comes", _speed(1, [1.0, 0.8, 1.28]) + _speed(100, [2.0, 2.0, 2.0])),
        _life("vllm", "server", "prefix cache", [_level(1, 100, 0.02), _level(100, 6000, 0.3), {"kind": "prefix", "prefix": "common", "level": _level(100, 900, 0.1), "cached_prompt_tokens": [99000, None, 99000]}]),  # noqa: E501
        _life("llama-cpp", "offline", "q4_0", _speed(1, [2.0, 2.0, 2.0], prefill_s=1.0, decode_s=0.5) + [{"kind": "first token", "users": 1, "repeat": 0, "seconds": 0.05}]),  # noqa: E501
        _life("sglang", "offline", "as it comes", [], complete=False) | {"failed": ["failed: ImportError: no module"]},
    ],
    "memory": [
        _life("machine", "roof", "as it comes", [{"kind": "roof", "device": "NVIDIA H100", "bandwidth_bytes_per_s": 3e12, "flops_per_s": 8e14, "bandwidth_kernels": {}, "flops_kernels": {}, "threads": None, "load_average": 0.1, "array_bytes": 1}]),  # noqa: E501
        _life("transformers", "memory", "as it comes", [
            {"kind": "peak", "users": 1, "peak_bytes": 14 * 2**30, "weights_bytes": 12 * 2**30},
            {"kind": "probe", "users": 84, "fits": False, "peak_bytes": None, "reserved_bytes": 78 * 2**30, "reason": "CUDA out of memory. Of the allocated memory 48.13 GiB is allocated by PyTorch, and"},  # noqa: E501
            {"kind": "probe", "users": 80, "fits": True, "peak_bytes": 50 * 2**30, "reserved_bytes": 75 * 2**30},
            {"kind": "most users", "fits": 80, "fails": 84},
        ], peak_device_bytes=70 * 2**30),
        _life("llama-cpp", "pool", "q4_0", [{"kind": "pool", "tokens": 2048, "bytes": 2**30, "bytes_per_token": 524288.0, "weights_gib": None}]),  # noqa: E501
    ],
    "options": [
        _life("vllm", "offline", "fp8 weights", [{"kind": "holds", "pool_tokens": 2000}, *_speed(1, [0.5, 0.5, 0.5])]),
        _life("vllm", "real", "plain", [_copying(1, 400), {"kind": "json", "asked": 12, "free": {"cut off": 12}, "constrained": {"valid": 11, "cut off": 1}, "time_per_token_ratio": None, "tpot_s": {"free": 0.001, "constrained": None}}], model="Small"),  # noqa: E501
        _life("vllm", "real", "n-gram drafts", [_copying(1, 800), _copying(16, 900)], model="Small"),
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Records that this test makes, of one machine and one day."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    for run, lives in LIVES.items():
        source = {"machine": MACHINE, "date": "2026-11-25", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
        found = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": {str(i): one for i, one in enumerate(lives)}}
        records.write_json(tmp_path / "nvidia-h100-16-cores" / f"gpu-{run}.2026-11-25.json", found)
    return tmp_path


def test_throughput_is_tokens_of_all_users_per_second_with_its_range():
    """Offline from the repeats, of the server from its levels; a life without rows has no line."""
    shown = tables.throughput()
    assert list(shown.index) == ["vLLM, offline", "vLLM, server", "llama.cpp Q4_0, offline"]
    assert shown.loc["vLLM, offline", "1 user"] == "128 (100 to 160)"
    assert shown.loc["vLLM, server", "100 users"] == "6000 (5400 to 6600)"
    assert shown.loc["llama.cpp Q4_0, offline", "100 users"] == "-"


def test_a_table_says_where_and_when_it_was_measured():
    """Machine, driver, date, weights and versions."""
    line = tables.throughput().attrs["recorded"]
    assert line.startswith("recorded on NVIDIA H100, driver 580.1, 2026-11-25; random, shape of Llama-2-7B, llama-cpp 1.0")


def test_ttft_is_the_servers_and_offline_that_of_one_token_alone():
    """Milliseconds, at a single user and under load."""
    shown = tables.ttft()
    assert shown.loc["vLLM, server", "1 user"] == "20.0 (18.0 to 22.0)"
    assert shown.loc["llama.cpp Q4_0, offline", "1 user"] == "50.0"  # measured once: no spread


def test_llama_cpps_decoding_is_told_apart():
    """Tokens over the time without the prompt."""
    assert read.decode_rates(LIVES["speed"][2])[1]["median"] == 256
    assert read.decode_rates(LIVES["speed"][0]) == {}


def test_the_servers_share_of_offline_and_the_spread_can_be_asked():
    """What the acceptance of the figures is decided by."""
    found = read.load("speed")
    assert read.spread(LIVES["speed"][0]) == pytest.approx(60 / 128)
    assert read.server_share(found, "vllm", 100) == pytest.approx(6000 / 6400)
    assert read.server_share(found, "sglang", 100) is None


def test_memory_has_weights_pool_and_what_does_not_fit():
    """GiB; a figure that is not there is a dash."""
    shown = tables.memory_use()
    assert shown.loc["HF Transformers, static batch", "weights, GiB"] == "12.00"
    assert shown.loc["HF Transformers, static batch", "most users"] == "80 fit, 84 do not"
    assert shown.loc["llama.cpp Q4_0, pool", ["KV pool, GiB", "KiB a token", "peak at 1, GiB"]].tolist() == ["1.00", "512.0", "-"]


def test_the_prefix_table_counts_cached_tokens_where_they_are_told():
    """A repeat whose count is not known is left out of the median."""
    shown = tables.prefix()
    assert shown.loc[("vLLM, server", "on", "common"), "cached prompt tokens"] == "99,000"


def test_the_gain_from_a_common_prefix_needs_both_sides():
    """A server that was asked with a common prefix only has none."""
    own = {"kind": "prefix", "prefix": "own", "level": _level(100, 300, 0.1), "cached_prompt_tokens": [0]}
    both = LIVES["speed"][1] | {"rows": [*LIVES["speed"][1]["rows"], own]}
    assert read.prefix_gains({"lives": {"1": both}}) == {"vLLM, server": pytest.approx(3)}
    assert read.prefix_gains({"lives": {"1": LIVES["speed"][1]}}) == {}


def test_first_tokens_with_a_common_prefix_stand_beside_those_with_their_own():
    """A server that was asked with one of the two only is left out."""
    own = {"kind": "prefix", "prefix": "own", "level": _level(100, 300, 0.4), "cached_prompt_tokens": [0]}
    both = LIVES["speed"][1] | {"rows": [*LIVES["speed"][1]["rows"], own]}
    found = read.prefix_firsts({"lives": {"1": both}})

    assert found["vLLM, server"]["own"]["median"] == 0.4 and set(found["vLLM, server"]) == {"common", "own"}
    assert read.prefix_firsts({"lives": {"1": LIVES["speed"][1]}}) == {}


def test_two_loads_tell_what_an_input_and_an_output_token_take():
    """1 ms for each of 10 tokens in and 4 ms for each of 10 out: 50 ms a request; with 100 in 140 ms. One load is not enough."""

    def load(tokens_in: int, seconds: float) -> dict:
        rate = {"median": 10 / seconds}
        return {"users": 100, "prompt_tokens": [tokens_in], "output_tokens": [10], "output_tokens_per_s": rate}

    short, own = {"kind": "level", **load(10, 0.05)}, {"kind": "prefix", "prefix": "own", "level": load(100, 0.14)}
    common = {"kind": "prefix", "prefix": "common", "level": load(100, 0.01)}
    of = lambda rows: {"lives": {"1": {"engine": "vllm", "work": "server", "option": "prefix cache", "rows": rows}}}  # noqa: E731

    assert read.token_seconds(100, of([short, own, common])) == {"vllm": (pytest.approx(0.001), pytest.approx(0.004))}
    assert read.token_seconds(100, of([short, common])) == {}


def test_an_option_is_held_against_the_engine_as_it_comes():
    """Twice the rate is x 2."""
    assert tables.changed().loc["vLLM, offline, fp8 weights", "x at 1"] == "2.00"


def test_the_engine_as_it_comes_stands_beside_its_options():
    """First, with how many tokens each has room for."""
    shown = tables.changed()
    assert list(shown.index) == ["vLLM, offline, as it comes", "vLLM, offline, fp8 weights"]
    assert list(shown["KV pool, tokens"]) == ["-", "2,000"]


def test_drafts_stand_beside_no_drafts_and_the_model_is_the_real_one():
    """The random weights of the other lives are not told of here."""
    shown = tables.copying()
    assert shown.loc["vLLM, no drafts"].tolist() == ["400 (400 to 400)", "-"]
    assert shown.loc["vLLM, n-gram drafts", "16 users"] == "900 (900 to 900)"
    assert "; Small, vllm 1.0" in shown.attrs["recorded"] and "random" not in shown.attrs["recorded"]


def test_answers_have_valid_ones_and_a_dash_where_no_time_is_known():
    """An outcome that did not come is 0."""
    row = tables.answers().loc["vLLM"]
    assert row[["asked", "valid, free", "valid, constrained"]].tolist() == [12, 0, 11]
    assert row[["TPOT free, ms", "TPOT constrained, ms", "constrained / free"]].tolist() == ["1.00", "-", "-"]


def test_a_figure_has_each_frameworks_server_and_a_static_batch_of_what_was_not_served():
    """In the shape that the figures of the other records have; what has no first token has none."""
    levels = read.levels()
    assert [level["users"] for level in levels["vllm"]] == [1, 100]
    assert levels["vllm"][1]["ttft_s"]["median"] == 0.3
    assert levels.keys() == {"vllm"}  # this record has no server of llama.cpp


def test_shares_of_the_roof_use_the_measured_bandwidth():
    """7B in bf16 without the input embedding: 13.2 GB a step, so 3 TB/s allow 225 tokens/s at one user."""
    shown = tables.shares()
    assert shown.loc["vLLM, offline", "1 user"] == "57 %"
    assert shown.attrs["recorded"].endswith("roof 3,000 GB/s")


def test_the_newest_whole_record_is_taken(folder):
    """Of the machines with every run the one that was measured last; one that is not done yet gets in nobody's way."""
    source = {"machine": MACHINE | {"gpus": ["NVIDIA H200"]}, "date": "2026-11-26", "weights": "w", "shape": "Llama-2-7B"}
    newer = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": {}}
    records.write_json(folder / "nvidia-h200-16-cores" / "gpu-speed.2026-11-26.json", newer)
    assert read.machines() == ["nvidia-h200-16-cores", "nvidia-h100-16-cores"]
    assert read.load("speed")["provenance"]["machine"]["gpus"] == ["NVIDIA H100"]
    for run in ("memory", "options"):
        records.write_json(folder / "nvidia-h200-16-cores" / f"gpu-{run}.2026-11-24.json", newer)
    assert read.load("speed")["provenance"]["machine"]["gpus"] == ["NVIDIA H200"]
    assert set(read.RUNS) < set(cases.RUNS)  # those of the document's tables
    assert read.load("speed", "nvidia-h100-16-cores")["lives"]


def test_without_a_record_the_next_step_is_said(folder):
    """One line."""
    for file in folder.glob("*/*.json"):
        file.unlink()
    with pytest.raises(records.RecordError, match="no record of a GPU run 'speed' is here: make one with `nox -s gpu -- speed`"):
        read.load("speed")


def test_all_tables_as_text_name_what_failed():
    """A crash is a line there too."""
    said = tables.text()
    assert "3: failed: ImportError: no module" in said and "throughput" in said


REPORT = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"><skipped message="no NVIDIA GPU here"/></testcase>
<testcase name="c"><failure message="#x1B[91mCell failed#x1B[0m: was asked for with -m and cannot run"/></testcase>
</testsuite></testsuites>"""


def test_a_notebooks_report_counts_cells_and_gives_the_reasons():
    """What failed and what was skipped, once each."""
    assert notebooks.read(REPORT) == {
        "cells": 3, "failed": 1, "skipped": 1,
        "reasons": ["Cell failed: was asked for with -m and cannot run", "no NVIDIA GPU here"],
    }  # fmt: skip


def test_notebooks_without_a_gpu_are_not_run_at_all(monkeypatch, tmp_path):
    """One line, nothing started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(notebooks.device.DeviceError, match="^no NVIDIA GPU here"):
        notebooks.run(60)


def test_where_memory_ran_out_is_told_by_what_pytorch_held():
    """By the number of users; of the batch that failed, what its message says."""
    shown = tables.search()
    assert shown.loc["HF Transformers, static batch, 80 users"].tolist() == ["yes", "50.0", "75.0"]
    assert shown.loc["HF Transformers, static batch, 84 users"].tolist() == ["no", "48.1", "78.0"]
    assert list(shown.index)[-1].endswith("84 users") and "transformers 1.0" in shown.attrs["recorded"]
    assert tables.search(option="expandable segments").empty


def test_options_stand_beside_the_engine_with_the_same_context():
    """And a server beside the server, by what was changed."""
    lives = [
        _life("vllm", "offline", "fp8 weights", _speed(1, [0.5, 0.5, 0.5])),
        _life("vllm", "offline", "short context", _speed(1, [0.75, 0.75, 0.75])),
        _life("llama-cpp", "server", "q4_0, sampled on the GPU", [_level(100, 900, 0.1)]),
        _life("transformers", "offline", "static cache, compiled", [{"kind": "holds", "weights_bytes": 1}, *_speed(1, [1])]),
    ]
    server = _life("llama-cpp", "server", "q4_0", [_level(1, 100, 0.1), _level(100, 1000, 0.1)])
    plain = {**read.load("speed"), "lives": {**read.load("speed")["lives"], "server": server}}
    options = {**read.load("options"), "lives": dict(enumerate(lives))}
    shown = tables.changed(options, plain, works=("offline", "server"))
    assert list(tables.changed(options, plain).index) == list(shown.index)[:3]
    assert list(shown.index) == [
        "HF Transformers, static cache, compiled", "vLLM, offline, as it comes, short context", "vLLM, offline, fp8 weights",
        "llama.cpp Q4_0, server, as it comes", "llama.cpp Q4_0, server, sampled on the GPU",
    ]  # fmt: skip
    assert shown.loc["vLLM, offline, fp8 weights", "x at 1"] == "1.50"
    assert shown.loc["llama.cpp Q4_0, server, sampled on the GPU", "x at 100"] == "0.90"


def test_the_notebooks_that_ran_there_are_a_table():
    """Each with its result, its cells and its seconds, as recorded; the versions beside it."""
    source = {"gpu": "GPU", "date": "2026-11-26T08:00", "versions": {"vllm": {"vllm": "2"}}}
    cut = {"result": "cut off", "cells": 0, "seconds": 332.4}
    shown = tables.notebooks(
        {"provenance": source, "notebooks": {"01_a_b": {"result": "passed", "cells": 3, "seconds": 1.6}, "02_c": cut}}
    )
    assert shown.loc["01 a b"].tolist() == ["passed", 3, "2"] and shown.loc["02 c"].tolist() == ["cut off", "-", "332"]
    assert shown.attrs["recorded"] == "run on GPU, 2026-11-26; vllm 2"


def test_a_notebook_is_not_run_again_while_its_code_is_what_passed(monkeypatch):
    """Another code, another machine or another version and it is run again; what did not pass always is."""
    known = paths.notebook("01")
    machine = {"cpu": "a", "cores": 2, "gpus": ["b"], "gpu_driver": "1", "system": "Linux", "memory_gib": 3.0}
    passed = {"result": "passed", "code_sha256": notebooks.digest(known)}
    record = {"provenance": {"machine": machine, "versions": {}}, "notebooks": {known.stem: passed}}
    monkeypatch.setattr(notebooks.records, "kept", lambda name: record)
    monkeypatch.setattr(notebooks.records, "load", lambda name, machine: {**record, "notebooks": {}})
    now = {"machine": machine | {"memory_gib": 4.0}, "versions": {}}
    assert notebooks._passed(now) == {known.stem: passed}
    assert notebooks._passed(now | {"machine": machine | {"cores": 4}}) == {}
    assert notebooks._passed(now | {"versions": {"vllm": {"vllm": "2"}}}) == {}
    passed["code_sha256"] = "another"
    assert notebooks._passed(now) == {}
    record["notebooks"][known.stem] = {"result": "failed", "code_sha256": notebooks.digest(known)}
    assert notebooks._passed(now) == {}


def test_a_gain_is_over_the_same_engine_with_as_short_a_context():
    """Rate over rate for each number of users; an engine that was not measured as it comes is left out."""
    lives = [
        _life("vllm", "offline", cases.SHORT, _speed(1, [1.0, 1.0, 1.0]) + _speed(100, [2.0, 2.0, 2.0])),
        _life("vllm", "offline", "fp8 weights", _speed(1, [0.5, 0.5, 0.5]) + _speed(100, [1.6, 1.6, 1.6])),
        _life("sglang", "offline", "fp8 weights", _speed(1, [0.5, 0.5, 0.5])),
    ]
    gains = read.gains({"lives": {str(number): life for number, life in enumerate(lives)}}, "fp8 weights")

    assert gains == {"vLLM, fp8 weights": {1: pytest.approx(2.0), 100: pytest.approx(1.25)}}
