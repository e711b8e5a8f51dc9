"""Several GPUs: what an engine is told, what is switched off, and a log that names multicast is the end of its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from helpers import machine, records
from helpers.gpu import cases, device, runs, session, several, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.session import Setting
from helpers.lessons.scaling.parallelism import Layout

TWO = Setting("tiny", "cpu", (1, 2), 3, ("0", "1"))
LIVES = [
    Life("vllm", "offline", "as it comes", 1, {}, "Llama-3.1-8B"),
    Life("vllm", "offline", "as it comes", 1, {}, "Llama-3.1-8B", Layout(2)),
    Life("vllm", "offline", "as it comes", 1, {}, "Llama-3.1-8B", Layout(4)),
]


@pytest.mark.parametrize(
    ("engine", "layout", "told"),
    [
        ("vllm", Layout(2), {"tensor_parallel_size": 2}),
        ("vllm", Layout(2, ep=True), {"tensor_parallel_size": 2, "enable_expert_parallel": True}),
        ("vllm", Layout(2, 2), {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}),
        ("vllm", Layout(dp=2), {"data_parallel_size": 2}),
        ("sglang", Layout(4, ep=True), {"tp_size": 4, "ep_size": 4}),
    ],
)
def test_each_engine_is_told_the_layout_and_to_leave_fused_all_reduces(engine, layout, told):
    """The sizes under its own names; what would bring another all-reduce is off."""
    plain = variants.arguments(engine, cases.PLAIN, variants.Setup(True, 288))
    given = variants.arguments(engine, cases.PLAIN, variants.Setup(True, 288, layout=layout))
    assert given == plain | told | several.HOW[engine]


def test_an_option_and_a_layout_that_both_configure_the_compiler_are_put_together():
    """Neither wins over the other."""
    given = variants.arguments("vllm", "no compile", variants.Setup(True, 288, layout=Layout(2)))
    assert given["compilation_config"].keys() == {"mode", "cudagraph_mode", "pass_config"}


def test_one_gpu_is_told_nothing():
    """As before."""
    assert several.arguments("vllm", Layout()) == {}


def test_engines_inherit_what_is_switched_off_and_which_gpus_are_theirs(monkeypatch):
    """And this process has its own environment back."""
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    before = dict(os.environ)
    with several.variables(("1",)):
        assert several.OFF.items() <= os.environ.items() and os.environ[machine.VISIBLE] == "1"
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(several.GUARD)
    assert dict(os.environ) == before


def test_the_call_that_makes_multicast_is_an_error_in_every_process(tmp_path):
    """A stand-in for CUDA's package: its function is there, and is refused."""
    package = tmp_path / "cuda" / "bindings"
    package.mkdir(parents=True)
    (package / "driver.py").write_text("def cuMulticastCreate(what): return 'made'\n")
    code = "from cuda.bindings import driver; driver.cuMulticastCreate(0)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(several.GUARD), str(tmp_path)])}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode and ran.stderr.strip().splitlines()[-1].startswith("RuntimeError: NVLink multicast is not used here")


def test_what_asks_for_multicast_without_a_switch_is_taken_out(tmp_path):
    """A stand-in for SGLang's module: its other functions are as they were."""
    name = "sglang.srt.distributed.device_communicators.triton_symm_mem_ag"
    *folders, file = name.split(".")
    package = tmp_path.joinpath(*folders)
    package.mkdir(parents=True)
    (package / f"{file}.py").write_text("def create_state(): return 'made'\ndef other(): return create_state()\n")
    code = f"from {name} import other; other()"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(several.GUARD), str(tmp_path)])}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.stderr.strip().splitlines()[-1] == "RuntimeError: it is taken out here"
    assert not several.NAMED.search(ran.stderr.strip().splitlines()[-1])  # its own warning would name it, and refuse the life


def test_a_log_is_read_on_and_a_name_in_it_is_an_error(tmp_path):
    """Line by line, also one that is written in two parts."""
    log = tmp_path / "log"
    log.write_text("INFO Using ['CUSTOM', 'PYNCCL'] all-reduce backends (in dispatch order)\nbackend=mn")
    check = several.LogCheck(log)
    check()
    assert check.said == ["Using ['CUSTOM', 'PYNCCL'] all-reduce backends"]
    with log.open("a") as file:
        file.write("nvl workspace\n")
    with pytest.raises(
        several.Multicast, match="^its log names NVLink multicast, which is not used here: backend=mnnvl workspace"
    ):
        check()


def test_no_figure_of_an_engine_that_names_it_is_kept(tmp_path, monkeypatch):
    """A job that has given a row before its log says so: the row goes, the reason stays, the process is gone."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setitem(cases.RUNS, "scaling", lambda: LIVES)
    monkeypatch.setattr(session.kernels, "interpreter", lambda kernel: sys.executable)
    write = "open(json.load(open(sys.argv[1]))['rows'],'a').write('{\\\"kind\\\": \\\"loaded\\\"}\\n')"
    code = f"import json,sys,time; {write}; print('MNNVL', flush=True); time.sleep(60)".replace('\\"', '"')
    guarded = session.guarded
    monkeypatch.setattr(session, "guarded", lambda command, kernel: guarded([command[0], "-c", code, command[-1]], kernel))
    monkeypatch.setitem(tasks.WORKS, "offline", lambda one, setting, log, left_s: session.run_job("lab", {}, log, 30))
    found = runs.run("scaling", TWO, lives=[LIVES[1].key])["lives"][LIVES[1].key]
    assert found["rows"] == [] and not found["complete"]
    assert found["failed"] == ["failed: its log names NVLink multicast, which is not used here: MNNVL"]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """The keys of lives that a mock work was asked for, with the GPUs it was given."""
    asked = []
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setitem(cases.RUNS, "scaling", lambda: LIVES)

    def mock(one, setting, log, left_s):
        asked.append((one.layout.gpus, setting.gpus))
        log.row("speed", users=1, repeat=0, seconds=1.0, output_tokens=128, ttft_s=None)
        return True

    monkeypatch.setitem(tasks.WORKS, "offline", mock)
    return asked


def test_a_life_that_needs_more_gpus_than_there_are_is_left_out_and_said(ran, tmp_path, capsys):
    """The others make the record whole."""
    runs.run("scaling", TWO)
    assert ran == [(1, ("0",)), (2, ("0", "1"))]
    assert "TP4: left out, it needs 4 GPUs and 2 can be used here" in capsys.readouterr().out
    (file,) = tmp_path.glob("*/rehearsal-scaling.*.json")
    assert len(json.loads(file.read_text())["lives"]) == 2


def test_lives_are_chosen_by_their_keys_in_the_order_given(ran):
    """And by no other."""
    runs.run("scaling", TWO, lives=[LIVES[1].key, LIVES[0].key])
    assert [gpus for gpus, _ in ran] == [2, 1]
    with pytest.raises(runs.RunError, match="^no life is called 'vllm': choose from vllm, offline, as it comes, Llama-3.1-8B; "):
        runs.check_lives(["scaling"], ["vllm"])


def test_two_runs_on_different_gpus_share_a_draft(ran, monkeypatch):
    """Each keeps its own lives and takes up the other's: none is lost, and the one that ends last saves all."""
    one, other = (session.Setting("tiny", "cpu", (1, 2), 3, (gpu, "9")) for gpu in "01")
    work = tasks.WORKS["offline"]

    def meanwhile(life, setting, log, left_s):
        monkeypatch.setitem(tasks.WORKS, "offline", work)
        runs.run("scaling", other, lives=[LIVES[1].key])
        return work(life, setting, log, left_s)

    monkeypatch.setitem(tasks.WORKS, "offline", meanwhile)
    assert set(runs.run("scaling", one, lives=[LIVES[0].key])["lives"]) == {LIVES[0].key, LIVES[1].key}


def test_a_gpu_that_another_program_uses_is_refused_in_one_line():
    """All wait for the slowest, so none may be at work for somebody else."""
    gib = 2**30
    free, used = (device.Gpu("NVIDIA H200", 9.0, "580.1", 140 * gib, left * gib) for left in (139, 100))
    device.idle([free, free])
    with pytest.raises(device.DeviceError) as refused:
        device.idle([free, used])
    assert str(refused.value) == "GPU 1 of 2 is in use, 40.0 GiB are taken: end that program or leave it out (--gpus)"


@pytest.mark.engine
def test_requests_arrive_at_rising_rates_until_few_keep_the_limits():
    """llama.cpp's real server: a row for each rate with what was kept; a limit that nobody keeps is the end of it."""
    for limit, rates in ((60, [2, 4]), (1e-9, [2])):
        limits = {"ttft_s": limit, "tpot_s": 60}
        how = {**cases.arrivals(1), "input_tokens": 16, "output_tokens": 8, "rates_per_s": [2, 4], "seconds": 1, "limits": limits}
        life = Life("llama-cpp", "server", "q4_0", 1, {"users": [], "arrivals": how})
        log = session.Log(life, lambda found: None)
        assert tasks.run_server(life, Setting("tiny", "cpu", (2,), 3), log, 120)
        rows = [row for row in log.found["rows"] if row["kind"] == "arrivals"]
        assert [row["rate_per_s"] for row in rows] == rates
        assert [row["met"] for row in rows] == [float(limit == 60)] * len(rates)


@pytest.mark.engine
def test_processes_meet_and_reduce_together():
    """Two of them on a CPU, in an engine's interpreter: every size has its time."""
    log = session.Log(Life("machine", "links", cases.PLAIN, 1, layout=Layout(2)), lambda found: None)
    assert session.run_job("transformers", {"gpus": 2, "device": "cpu"}, log, 120, module="helpers.gpu.work.links")
    rows = [row for row in log.found["rows"] if row["kind"] == "all-reduce"]
    assert [row["bytes"] for row in rows] == [8192, 81920] and log.found["rows"][0]["kind"] == "libraries"
    assert all(row["low_s"] <= row["seconds"] <= row["high_s"] and row["bus_bytes_per_s"] > 0 for row in rows)
