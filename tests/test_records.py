"""Records: whole, versioned, and naming nobody."""

import getpass
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from helpers import machine, paths, records
from helpers.servers import engines, install


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Records of these tests go to a folder of their own."""
    monkeypatch.setattr(records, "FOLDER", tmp_path / "measurements")
    return tmp_path / "measurements"


def test_what_is_saved_is_loaded(folder):
    """The same data, with the format's version, under its day."""
    path = records.save("speed", {"levels": [1, 2.5, None, "x"]})

    assert records.load("speed") == {"version": 2, "levels": [1, 2.5, None, "x"]}
    assert path.parent == folder / machine.name()
    assert re.fullmatch(r"speed\.\d{4}-\d\d-\d\d\.json", path.name)


def test_a_record_is_never_overwritten(folder):
    """Eleven on one day: all are there, and the newest is loaded; one of an older day is older."""
    records.write_json(folder / machine.name() / "speed.2020-01-01.json", {"version": 2, "n": -1})
    paths = [records.save("speed", {"n": n}) for n in range(11)]

    assert len(set(paths)) == 11 and all(json.loads(path.read_text())["n"] == n for n, path in enumerate(paths))
    assert records.load("speed")["n"] == 10


def test_a_file_is_replaced_only_when_told():
    """As `--json` does."""
    path = records.write_json(records.FOLDER / "x.json", {"n": 1})

    with pytest.raises(records.RecordError, match="^x.json exists already: records are not overwritten; remove it first"):
        records.write_json(path, {"n": 2})
    records.write_json(path, {"n": 3}, replace=True)
    assert json.loads(path.read_text()) == {"n": 3}


def test_a_draft_is_kept_until_the_record_is_saved():
    """It is no record, it can be replaced, and it goes when the record is there."""
    assert records.kept("speed") is None
    records.keep("speed", {"n": 1})
    records.keep("speed", {"n": 2})

    assert records.kept("speed") == {"version": 2, "n": 2}
    with pytest.raises(records.RecordError):
        records.load("speed")
    records.save("speed", {"n": 3})
    assert records.kept("speed") is None


def made_by(machine: str, *users: int, rate: int = 1) -> dict:
    source = {"machine": machine, "versions": {"a": "1"}, "date": machine}
    return {"provenance": source, "engines": {"a": [{"users": n, "rate": rate} for n in users]}}


def test_a_run_goes_on_with_what_was_made_alike(capsys):
    """The draft first; the finished record only where the run says so; what differs is named and left."""
    assert records.resume("speed", {"model": "a"}, records.difference) is None
    records.save("speed", {"n": 1, "provenance": {"model": "a"}})
    assert records.resume("speed", {"model": "a"}, records.difference) is None
    assert records.resume("speed", {"model": "a"}, records.difference, finished=True)["n"] == 1
    records.keep("speed", {"n": 2, "provenance": {"model": "b"}})
    assert records.resume("speed", {"model": "b"}, records.difference)["n"] == 2
    assert records.resume("speed", {"model": "a"}, records.difference, finished=True)["n"] == 1
    assert capsys.readouterr().out == 'the draft of an earlier run is not used: different model: "b" and "a"\n'


def test_records_of_one_machine_are_merged():
    """The levels of both, in order; what both have is the second one's."""
    found = records.merge(made_by("m", 1, 100), made_by("m", 10, 100, rate=2))

    assert found["engines"]["a"] == [{"users": 1, "rate": 1}, {"users": 10, "rate": 2}, {"users": 100, "rate": 2}]


def test_records_of_different_machines_are_not_merged():
    """Nor of different versions."""
    with pytest.raises(records.RecordError, match='^records of different machine: "m" and "n" are not merged; keep them apart$'):
        records.merge(made_by("m", 1), made_by("n", 10))
    other = made_by("m", 10)
    other["provenance"]["versions"] = {"a": "2"}
    with pytest.raises(records.RecordError, match="^records of different versions: .* are not merged; "):
        records.merge(made_by("m", 1), other)


@pytest.mark.parametrize(("version", "named"), [("1", "1"), ("null", "None")])
def test_another_format_is_refused(folder, version, named):
    """The error names both formats."""
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "old.2026-01-01.json").write_text(f'{{"version": {version}}}')

    with pytest.raises(records.RecordError, match=f"^record old.2026-01-01.json has format {named}, this code reads 2$"):
        records.load("old")


def test_what_is_no_json_is_refused(folder):
    """A file cut in the middle: one line, with the next step."""
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "cut.2026-01-01.json").write_text('{"version": 2, "lev')

    with pytest.raises(records.RecordError, match="^record cut.2026-01-01.json of m is not JSON: remove it"):
        records.load("cut")


def test_a_missing_record_says_what_there_is(folder):
    """None, or several machines that have it."""
    with pytest.raises(records.RecordError, match="^no single record 'x': machines that have it: none; name one$"):
        records.load("x")
    for name in ("a", "b"):
        records.write_json(folder / name / "x.2026-01-01.json", {"version": 2})
    with pytest.raises(records.RecordError, match="machines that have it: a, b; name one$"):
        records.load("x")
    assert records.load("x", "a") == {"version": 2}


def test_what_json_cannot_say_becomes_null(tmp_path):
    """NaN and the infinities, however deep."""
    path = records.write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), (1.5, -float("inf"))]})

    assert json.loads(path.read_text()) == {"a": None, "b": [None, [1.5, None]]}


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    """A value that is no JSON: the old file stays and no half file is left."""
    path = records.write_json(tmp_path / "x.json", {"n": 1})

    with pytest.raises(TypeError):
        records.write_json(path, {"n": {1, 2}}, replace=True)
    assert json.loads(path.read_text()) == {"n": 1}
    assert list(tmp_path.glob("*.json")) == [path] and not list(tmp_path.glob(".*"))


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    """With a mock of a disk that fails at the rename."""

    def mock_replace(source, target):
        raise OSError("no space left on device")

    path = records.write_json(tmp_path / "x.json", {"n": 1})
    monkeypatch.setattr(os, "replace", mock_replace)

    with pytest.raises(OSError, match="no space"):
        records.write_json(path, {"n": 2}, replace=True)
    assert json.loads(path.read_text()) == {"n": 1}
    assert not list(tmp_path.glob(".*"))


def test_provenance_names_the_machine_and_nobody():
    """Hardware, versions and date; no home folder, user or host name, no path."""
    found = records.provenance(model="m")
    text = json.dumps(found)

    assert {"date", "machine", "load_average", "helpers", "model"} <= set(found)
    assert set(found["machine"]) == {
        "cpu", "cores", "memory_gib", "cpu_flags", "gpus", "gpu_driver", "system", "python",
    }  # fmt: skip
    assert not re.search(r"(/home/|/root|/Users/|/tmp/)", text)
    assert str(Path.home()) not in text
    for name in {getpass.getuser(), socket.gethostname()} - {"root"}:
        assert not re.search(rf"\b{re.escape(name)}\b", text), name


def test_the_cores_are_those_this_process_may_use():
    """Not those of the machine."""

    assert machine.facts()["cores"] == machine.cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpu", "gpus", "cores", "name"),
    [
        ("AMD EPYC", [], 2, "amd-epyc-2-cores"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", [], 16, "intel-r-xeon-r-platinum-8481c-cpu-2-70ghz-16-cores"),
        ("AMD EPYC", ["NVIDIA H200", "NVIDIA H200"], 16, "nvidia-h200-16-cores"),
    ],
)
def test_machine_name_is_a_folder_name(cpu, gpus, cores, name):
    """The GPU if there is one, else the processor, and the cores."""

    assert machine.name({"cpu": cpu, "gpus": gpus, "cores": cores}) == name


def test_describe_is_one_line():
    """Processor, cores, day and versions."""
    source = {
        "machine": {"cpu": "AMD EPYC", "cores": 2},
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"llama-cpp": {"xllamacpp": "1.0"}},
    }

    assert records.describe({"provenance": source}) == "recorded on AMD EPYC, 2 cores, 2026-01-02; xllamacpp 1.0"


@pytest.mark.engine
def test_versions_are_asked_of_the_engines_own_interpreter():
    """The lab has no torch; Transformers' environment has."""

    assert re.match(r"\d+\.\d+", install.versions(engines.get("transformers"))["torch"])


def test_versions_are_found_where_the_kernels_variables_say(tmp_path, monkeypatch):
    """A package in a folder of its own, as on a machine where all engines share an interpreter."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "none"))
    (tmp_path / "site" / "brought-1.2.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "brought-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.2\n")
    install.kernelspec("vllm", "vLLM", sys.executable, env={"PYTHONPATH": str(tmp_path / "site")})

    assert install.versions_in("vllm", ("brought", "never-heard-of")) == {"brought": "1.2"}
