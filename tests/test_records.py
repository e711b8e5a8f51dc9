"""Records: whole, versioned, and naming nobody."""

import getpass
import json
import os
import re
import socket
from pathlib import Path

import pytest

from helpers import engines, records


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Records of these tests go to a folder of their own."""
    monkeypatch.setattr(records, "FOLDER", tmp_path / "measurements")
    return tmp_path / "measurements"


def test_what_is_saved_is_loaded(folder):
    """The same data, with the format's version."""
    path = records.save("speed", {"levels": [1, 2.5, None, "x"]})

    assert records.load("speed") == {"version": 1, "levels": [1, 2.5, None, "x"]}
    assert path == folder / records.machine_name() / "speed.json"


def test_a_record_is_not_overwritten():
    """The second save is refused and the first stays; ``replace`` replaces it."""
    records.save("speed", {"n": 1})

    with pytest.raises(records.RecordError, match="^speed.json exists already: records are not overwritten; remove it first"):
        records.save("speed", {"n": 2})
    assert records.load("speed")["n"] == 1
    records.save("speed", {"n": 3}, replace=True)
    assert records.load("speed")["n"] == 3


@pytest.mark.parametrize(("version", "named"), [("2", "2"), ("null", "None")])
def test_another_format_is_refused(folder, version, named):
    """The error names both formats."""
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "old.json").write_text(f'{{"version": {version}}}')

    with pytest.raises(records.RecordError, match=f"^record 'old' has format {named}, this code reads 1$"):
        records.load("old")


def test_what_is_no_json_is_refused(folder):
    """A file cut in the middle: one line, with the next step."""
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "cut.json").write_text('{"version": 1, "lev')

    with pytest.raises(records.RecordError, match="^record 'cut' of m is not JSON: remove it and make it again$"):
        records.load("cut")


def test_a_missing_record_says_what_there_is(folder):
    """None, or several machines that have it."""
    with pytest.raises(records.RecordError, match="^no single record 'x': machines that have it: none; name one$"):
        records.load("x")
    for machine in ("a", "b"):
        records.write_json(folder / machine / "x.json", {"version": 1})
    with pytest.raises(records.RecordError, match="machines that have it: a, b; name one$"):
        records.load("x")
    assert records.load("x", "a") == {"version": 1}


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
    assert {"cpu", "cores", "memory_gib", "gpus", "system", "python"} == set(found["machine"])
    assert not re.search(r"(/home/|/root|/Users/|/tmp/)", text)
    assert str(Path.home()) not in text
    for name in {getpass.getuser(), socket.gethostname()} - {"root"}:
        assert not re.search(rf"\b{re.escape(name)}\b", text), name


def test_the_cores_are_those_this_process_may_use():
    """Not those of the machine."""

    assert records.machine()["cores"] == engines.cores() == len(os.sched_getaffinity(0))


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

    assert records.machine_name({"cpu": cpu, "gpus": gpus, "cores": cores}) == name


def test_describe_is_one_line():
    """Processor, cores, day and versions."""
    source = {
        "machine": {"cpu": "AMD EPYC", "cores": 2},
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"llama-cpp": {"xllamacpp": "1.0"}},
    }

    assert records.describe({"provenance": source}) == "recorded on AMD EPYC, 2 cores, 2026-01-02; xllamacpp 1.0"


@pytest.mark.slow
def test_versions_are_asked_of_the_engines_own_interpreter():
    """The lab has no torch; Transformers' environment has."""

    assert re.match(r"\d+\.\d+", records.versions(engines.get("transformers"))["torch"])
