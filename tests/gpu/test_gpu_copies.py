"""Copies of one model: each on its own GPU, started together, and nothing of them left."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helpers import machine
from helpers.gpu import cases, session
from helpers.gpu.cases import Life
from helpers.gpu.session import Setting
from helpers.gpu.work import copies
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import serving
from helpers.servers.engine import Start

TWO = Setting("tiny", "cpu", (1, 2), 3, ("0", "1"))


def started(monkeypatch, setting: Setting, **more) -> list[list[str]]:
    """The commands of vLLM's copies, of which none is run."""
    commands = []

    @contextmanager
    def mock_at_once(engines, model, **how):
        for engine in engines.values():
            commands.append(engine.command(Start("python", model.path, 1, how["slots"], how["context"], "m", 1)))
        yield {}

    monkeypatch.setattr(serving, "at_once", mock_at_once)
    monkeypatch.setattr(session, "note_start", lambda *given: None)
    life = Life("vllm", "routed", "prefix cache", 1, {}, "tiny", Layout(dp=2))
    with copies.started(life, setting, session.Log(life, lambda kept: None), 10, **more):
        return commands


def test_each_copy_has_a_gpu_of_its_own_and_is_told_of_no_other(monkeypatch):
    """The layout of the life is theirs together: none of them divides anything itself."""
    one, two = started(monkeypatch, replace(TWO, device="cuda"))
    assert [command[:2] for command in (one, two)] == [["env", f"{machine.VISIBLE}={gpu}"] for gpu in "01"]
    assert not any("parallel" in word for word in one + two)


def test_a_rehearsal_only_counts_the_gpus_and_each_copy_may_be_told_something(monkeypatch):
    """Options at the end, variables before the command."""
    one, two = started(monkeypatch, TWO, extra=[("--a",), ("--b",)], variables=[{"X": "1"}, {}])
    assert (one[-1], two[-1]) == ("--a", "--b") and one[:2] == ["env", "X=1"] and two[0] != "env"
    with pytest.raises(ValueError, match="^options of 1 and variables of 0 copies on 2 GPUs: give each its own$"):
        started(monkeypatch, TWO, extra=[("--a",)])


@pytest.mark.engine
def test_two_servers_answer_and_nothing_of_them_is_left():
    """llama.cpp's real one: a row of each, and what both hold."""
    life, kept = Life("llama-cpp", "routed", "q4_0", 1, {}, "tiny", Layout(dp=2)), {}
    with copies.started(life, TWO, session.Log(life, kept.update), 120) as servers:
        assert len({server.base_url for server in servers}) == 2
        family = [process for server in servers for process in server.processes()]
    assert [(row["kind"], row.get("copy")) for row in kept["rows"]] == [("loaded", 0), ("loaded", 1), ("device", None)]
    assert kept["arguments"] and kept["versions"] and psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.engine
def test_a_copy_that_fails_ends_the_others():
    """An option that the second does not know: its reason is given, and the first is gone."""
    life, before = Life("llama-cpp", "routed", "q4_0", 1, {}, cases.LLAMA), set(psutil.Process().children(recursive=True))
    with pytest.raises(serving.ServerError, match="no-such-option") as said:
        with copies.started(life, TWO, session.Log(life, lambda kept: None), 120, extra=[(), ("--no-such-option", "1")]):
            pass
    Path(str(said.value).rpartition(" ")[2]).unlink()  # the log of the one that failed is kept, the other's is not
    left = [one for one in psutil.Process().children(recursive=True) if one not in before]
    assert psutil.wait_procs(left, timeout=5)[1] == []
