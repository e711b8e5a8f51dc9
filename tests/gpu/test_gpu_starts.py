"""Starts with empty caches and with full ones: where an engine keeps what it compiles, and real starts one after the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.bench.timing import Sample
from helpers.gpu import cases, session, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.work import starts
from helpers.servers import engines


@pytest.mark.parametrize("engine", list(starts.FOLDERS))
def test_every_cache_is_in_the_lifes_own_folder(engine, tmp_path):
    """No two variables share one; switched off only where that is asked for."""
    told = starts.variables(engine, tmp_path, starts.COLD)
    assert len(set(told.values())) == len(told) and all(Path(one).parent == tmp_path for one in told.values())
    assert starts.variables(engine, tmp_path, starts.WITHOUT) == told | starts.OFF


def test_variables_win_over_the_kernelspecs():
    """They stand in the command; what follows them is the engine's own."""
    engine = session.with_variables(variants.server("vllm", cases.PLAIN, variants.Setup(True, 288)), {"A": "/b"})
    command = engine.command(engines.Start("python", Path("folder"), 8000, 1, 288, "name", 0))
    assert command[:3] == ["env", "A=/b", "python"]


def test_a_file_can_be_forgotten_and_is_as_it_was(tmp_path):
    """Its pages are dropped, not its bytes."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(10000))
    before = file.read_bytes()
    starts.forget(file)
    assert file.read_bytes() == before


def test_the_first_answer_is_asked_for_at_once():
    """Ready after 20 s, and 0.5 s for its answer; what this process does in between is no part of it."""
    samples = [Sample(0, (ms * 10**6, 500 * 10**6), output_tokens=2) for ms in (300, 100)]
    found = starts.figures(20.0, samples)
    assert found == {"ready_s": 20.0, "first_answer_s": pytest.approx(20.5), "ttft_s": pytest.approx([0.3, 0.1])}


VLLM_LOG = """
INFO 11-30 [gpu_model_runner.py:5150] Model loading took 14.99 GiB memory and 5.250000 seconds
INFO 11-30 [backends.py:399] Compiling a graph for compile range (1, 8192) takes 9.00 s
INFO 11-30 [monitor.py:70] torch.compile took 30.50 s in total
INFO 11-30 [monitor.py:93] Initial profiling/warmup run took 1.00 s
INFO 11-30 [kernel_warmup.py:189] JIT kernel warmup finished in 2.50s.
INFO 11-30 [gpu_model_runner.py:6582] Graph capturing finished in 4 secs, took 0.60 GiB
INFO 11-30 [core.py:403] init engine (profile, create kv cache, warmup model) took 40.00 s (compilation: 30.50 s)
"""
UNCACHED = "INFO torch.compile and initial profiling/warmup run together took 33.25 s in total\n"
SGLANG_LOG = """
[2026-11-30] Load weight end. elapsed=6.50 s, type=LlamaForCausalLM, avail mem=120.00 GB, mem usage=15.00 GB.
[2026-11-30] Capture target decode CUDA graph end. bs=[1, 2], elapsed=3.00 s, mem usage=0.60 GB, avail mem=90.00 GB.
[2026-11-30] Capture target prefill CUDA graph end. elapsed=1.25 s, mem usage=0.60 GB, avail mem=89.00 GB.
"""


@pytest.mark.parametrize(
    ("log", "phases_s"),
    [
        (VLLM_LOG, {"weights": 5.25, "compile": 30.5, "kernels": 2.5, "graphs": 4.0}),
        (UNCACHED, {"compile": 33.25}),
        (SGLANG_LOG, {"weights": 6.5, "graphs": 4.25}),
        ("main: server is listening on http://127.0.0.1:8080", {}),
    ],
    ids=["vllm", "vllm, no compile cache", "sglang", "llama-cpp"],
)
def test_the_log_says_how_long_each_phase_took(log, phases_s):
    """Both captures together; a graph's own compilation, and what contains others, is not added to its whole."""
    assert starts.phases_s(log) == phases_s


@pytest.mark.engine
def test_each_start_is_a_row_with_its_first_answers():
    """llama.cpp's real server, twice: ready before it has answered, and nothing of the caches is left."""
    life, kept = Life("llama-cpp", "start", "q4_0", 1, {"ways": [starts.COLD, starts.WARM]}, cases.LLAMA), {}
    assert tasks.WORKS["start"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 120)
    rows = [row for row in kept["rows"] if row["kind"] == "start"]
    assert [row["way"] for row in rows] == ["cold", "warm"]
    assert all(0 < row["ready_s"] < row["first_answer_s"] and len(row["ttft_s"]) == starts.REQUESTS for row in rows)
    assert all(row["phases_s"] == {} for row in rows)  # llama.cpp's log tells none
    assert not any("gpu-caches-" in part for part in kept["arguments"])
