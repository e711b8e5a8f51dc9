"""Starts with empty caches and with full ones: where an engine keeps what it compiles, and real starts one after the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.bench.timing import Sample
from helpers.gpu import cases, session, starts, tasks, variants
from helpers.gpu.cases import Life
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


@pytest.mark.engine
def test_each_start_is_a_row_with_its_first_answers():
    """llama.cpp's real server, twice: ready before it has answered, and nothing of the caches is left."""
    life, kept = Life("llama-cpp", "start", "q4_0", 1, {"ways": [starts.COLD, starts.WARM]}, cases.LLAMA), {}
    assert tasks.WORKS["start"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 120)
    rows = [row for row in kept["rows"] if row["kind"] == "start"]
    assert [row["way"] for row in rows] == ["cold", "warm"]
    assert all(0 < row["ready_s"] < row["first_answer_s"] and len(row["ttft_s"]) == starts.REQUESTS for row in rows)
    assert not any("gpu-caches-" in part for part in kept["arguments"])
