"""The runs: rows are kept at once, what is recorded is not measured again, a crash costs one line."""

from __future__ import annotations

import json
import sys

import pytest

from helpers import paths, records
from helpers.gpu import cases, runs, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.recorded import tables
from helpers.gpu.session import Setting

TINY = Setting("tiny", "cpu", (1, 2), 3)
LIVES = [Life("vllm", "offline", "as it comes", 1), Life("sglang", "offline", "as it comes", 1), Life("machine", "roof", "as it comes", 1)]  # noqa: E501  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Records of the test's own, and mock works that need no engine."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setitem(cases.RUNS, "speed", lambda: LIVES)
    monkeypatch.setattr(session, "versions", lambda engine: {engine: "1.0"})
    return tmp_path


@pytest.fixture
def works(monkeypatch):
    """Mock works: each life that ran, and what it should do instead of succeeding."""
    ran: list[str] = []
    instead: dict[str, object] = {}

    def mock(one, setting, log, left_s):
        ran.append(one.key)
        log.row("speed", users=1, repeat=0, seconds=1.0, output_tokens=128, ttft_s=None)
        if one.engine != "machine":
            log.note(versions=session.versions(one.engine))
        if error := instead.get(one.engine):
            raise error
        return True

    for name in ("offline", "roof"):
        monkeypatch.setitem(tasks.WORKS, name, mock)
    mock.ran, mock.instead = ran, instead
    return mock


def test_a_whole_run_is_saved_and_its_draft_is_gone(works, folder):
    """Every life is in the record, which says what was measured."""
    found = runs.run("speed", TINY)
    assert [one["complete"] for one in found["lives"].values()] == [True] * 3
    (file,) = folder.glob("*/*.json")
    saved = json.loads(file.read_text())
    assert file.name.startswith("rehearsal-speed.") and saved["provenance"]["weights"] == "random, shape of tiny"
    assert saved["lives"].keys() == {one.key for one in LIVES}
    assert not list(folder.glob("*/.*.draft"))


def test_every_life_says_how_many_gpus_it_had(works):
    """Those without a shape too: of a machine with several, a table says that one was used."""
    assert [one["gpus"] for one in runs.run("speed", TINY)["lives"].values()] == [1, 1, 1]


def test_what_is_recorded_is_not_measured_again(works):
    """A second run starts nothing."""
    runs.run("speed", TINY)
    works.ran.clear()
    runs.run("speed", TINY)
    assert works.ran == []


def test_a_new_version_is_measured_again(works, monkeypatch):
    """Only the engines whose versions changed; the machine's own figures have none."""
    runs.run("speed", TINY)
    works.ran.clear()
    monkeypatch.setattr(session, "versions", lambda engine: {engine: "2.0" if engine == "vllm" else "1.0"})
    runs.run("speed", TINY)
    assert works.ran == ["vllm, offline, as it comes"]


def test_the_lives_of_an_engine_that_is_not_here_are_kept(monkeypatch):
    """They name their versions, and nothing here could measure them again; an engine of another version measures anew."""
    known = (("vllm", "1.0"),)
    monkeypatch.setattr(session, "versions", lambda engine: {})
    assert runs._same_versions("vllm", known)
    monkeypatch.setattr(session, "versions", lambda engine: {"vllm": "2.0"})
    assert not runs._same_versions("vllm", known)


def test_another_setting_starts_anew(works):
    """Other numbers of users are another measurement."""
    runs.run("speed", TINY)
    works.ran.clear()
    runs.run("speed", Setting("tiny", "cpu", (1, 4), 3))
    assert len(works.ran) == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("out of\n memory"), "failed: RuntimeError: out of memory"),
        (tasks.serving.ServerError("vLLM's server ended before it answered: why"), "failed: vLLM's server ended before it answered: why"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_crash_of_one_engine_is_one_line_and_loses_nothing_of_the_others(works, error, line, capsys):
    """Its rows up to then are kept, the next engines run, and it is tried again by the next run."""
    works.instead["vllm"] = error
    found = runs.run("speed", TINY)
    assert found["lives"]["vllm, offline, as it comes"]["failed"] == [line]
    assert len(found["lives"]["vllm, offline, as it comes"]["rows"]) == 1
    assert works.ran == [one.key for one in LIVES]
    works.ran.clear()
    works.instead.clear()
    assert runs.run("speed", TINY)["lives"]["vllm, offline, as it comes"]["complete"]
    assert works.ran == ["vllm, offline, as it comes"]


def test_an_interruption_in_the_middle_keeps_what_was_finished(works, folder):
    """The draft has the first life whole and the second one's rows; the next run goes on there."""
    works.instead["sglang"] = KeyboardInterrupt(15)
    with pytest.raises(KeyboardInterrupt):
        runs.run("speed", TINY)
    kept = records.kept("rehearsal-speed")["lives"]
    assert kept["vllm, offline, as it comes"]["complete"] and not kept["sglang, offline, as it comes"]["complete"]
    assert kept["sglang, offline, as it comes"]["failed"] == ["stopped: interrupted"]
    works.ran.clear()
    works.instead.clear()
    runs.run("speed", TINY)
    assert works.ran == ["sglang, offline, as it comes", "machine, roof, as it comes"]


def test_a_budget_that_is_too_short_leaves_lives_for_the_next_run(works, capsys):
    """Nothing is started, nothing is saved, the exit code asks for another run."""
    assert runs.all_of(["speed"], TINY, only=[], budget_s=5, out=None) == 75
    said = capsys.readouterr().out
    assert works.ran == [] and "vllm, offline, as it comes: left for the next run, 0 s are left and it needs 1" in said
    assert "0 of 3 are recorded; run again for: vllm, offline, as it comes; sglang" in said


def test_engines_can_be_chosen_and_the_run_stays_unfinished(works, folder):
    """What was not chosen is still to be done: the record stays a draft, which ``finish`` saves as it is."""
    assert runs.all_of(["speed"], TINY, only=["sglang"], budget_s=1e9, out=None) == 0
    assert works.ran == ["sglang, offline, as it comes"] and not list(folder.glob("*/*.json"))


def test_a_copy_is_written_after_every_row(works, tmp_path):
    """What comes back from a machine that is taken away is what was finished."""
    works.instead["vllm"] = KeyboardInterrupt(15)
    with pytest.raises(KeyboardInterrupt):
        runs.run("speed", TINY, out=tmp_path / "out")
    copy = json.loads((tmp_path / "out" / "rehearsal-speed.json").read_text())
    assert len(copy["lives"]["vllm, offline, as it comes"]["rows"]) == 1


def test_a_worker_that_dies_is_one_line_with_its_last_word(tmp_path, monkeypatch):
    """The job's rows are kept; the reason is the last error it wrote. Nothing of it lives on."""
    log = session.Log(LIVES[0], lambda found: None)
    write = "open(json.load(open(sys.argv[1]))['rows'],'a').write('{\"kind\": \"loaded\"}\\n')"
    code = f"import json,sys; {write}; sys.exit('error: no more')"
    monkeypatch.setattr(session.kernels, "interpreter", lambda kernel: sys.executable)
    monkeypatch.setattr(session, "guarded", _running(code, session.guarded))
    assert session.run_job("lab", {}, log, 30) is False
    assert log.found["rows"] == [{"kind": "loaded"}]
    assert log.found["failed"] == ["failed: it ended by itself: error: no more"]


def test_a_worker_is_ended_when_the_time_is_over(monkeypatch):
    """The time limit in the middle: a line, and the process is gone."""
    log = session.Log(LIVES[0], lambda found: None)
    monkeypatch.setattr(session.kernels, "interpreter", lambda kernel: sys.executable)
    monkeypatch.setattr(session, "guarded", _running("import time; time.sleep(60)", session.guarded))
    assert session.run_job("lab", {}, log, 1) is False
    assert log.found["failed"] == ["stopped: the time was over"]


def _running(code: str, guarded):
    """``life.guarded`` with other code instead of the offline loop."""
    return lambda command, kernel: guarded([command[0], "-c", code, command[-1]], kernel)


BENCH = """#!/bin/sh
echo "some words before"
for users in $(echo "$@" | sed 's/.*-npl \\([0-9,]*\\).*/\\1/' | tr , ' '); do
  echo "{\\"pp\\": 128, \\"tg\\": 128, \\"pl\\": $users, \\"t_pp\\": 0.5, \\"t_tg\\": 1.5, \\"t\\": 2.0}"
done
"""


def test_llama_cpps_bench_gives_rows_like_the_other_engines(tmp_path, monkeypatch):
    """A mock llama-batched-bench: the first of each number of users is the warm-up, prompt and decoding are told apart."""
    _bench(tmp_path, monkeypatch, BENCH)
    log = session.Log(Life("llama-cpp", "offline", "q4_0", 1), lambda found: None)
    assert tasks.run_offline(Life("llama-cpp", "offline", "q4_0", 1), TINY, log, 30)
    rows = [row for row in log.found["rows"] if row["kind"] == "speed"]
    assert [(row["repeat"], row["users"]) for row in rows] == [(0, 1), (0, 2), (1, 2), (1, 1), (2, 1), (2, 2)]
    assert {(row["seconds"], row["prefill_s"], row["decode_s"]) for row in rows} == {(2.0, 0.5, 1.5)}


def test_a_bench_that_fails_is_one_line(tmp_path, monkeypatch):
    """The last error of its log is the reason."""
    _bench(tmp_path, monkeypatch, "#!/bin/sh\necho 'error: failed to load model' >&2; exit 1\n")
    log = session.Log(Life("llama-cpp", "offline", "q4_0", 1), lambda found: None)
    assert not tasks.run_offline(Life("llama-cpp", "offline", "q4_0", 1), TINY, log, 30)
    assert log.found["failed"] == ["failed: llama-batched-bench ended with 1, 8 lines short: error: failed to load model"]


def _bench(tmp_path, monkeypatch, script: str) -> None:
    file = tmp_path / "llama-batched-bench"
    file.write_text(script)
    file.chmod(0o755)
    monkeypatch.setattr(paths, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(tasks.llama_cpp, "named_binaries", lambda: str(tmp_path))
    monkeypatch.setattr(session.kernels, "environment", lambda kernel: {})


def test_tensorrt_llm_that_is_not_there_is_a_line_in_the_record(tmp_path, monkeypatch):
    """Not measured here, and why; two published results that disagree stand beside it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    log = session.Log(Life("tensorrt-llm", "offline", "as it comes", 1), lambda found: None)
    assert not tasks.run_offline(Life("tensorrt-llm", "offline", "as it comes", 1), TINY, log, 30)
    assert log.found["failed"] == ["failed: not measured here: no NVIDIA GPU here"]
    assert len(tables.tensorrt_llm()) == 2 and "not measured here" in tables.tensorrt_llm().attrs["recorded"]


def test_a_reason_has_no_folders_of_this_machine():
    """A record does not say where things lie."""
    said = "/root/x/llama/llama-server: cannot open /usr/lib/libcublas.so.13"
    assert session.without_folders(said) == "llama-server: cannot open libcublas.so.13"
