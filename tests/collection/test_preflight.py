"""The pre-flight: what it finds, what it says to do, and what it forecasts. The compiler, ports and pip are real ones."""

import subprocess
import sys
import zipfile

import pytest
from offenders import over

from helpers import machine, paths
from helpers.collection import preflight, timetable
from helpers.collection.preflight import BROKEN, GOOD, LESS, Finding, Part

LLAMA = Part("llama.cpp", 0.4, 6, compiled=True)
LAB = Part("Lab", 0.5, 1)


def test_it_needs_nothing_but_python():
    """No installed package is in sight (-S), as before the set-up."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from helpers.collection import preflight; preflight.forecast([], None, 1)"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(paths.REPOSITORY)], capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(("version", "state"), [((3, 10, 2), BROKEN), ((3, 11, 7), GOOD), ((3, 12, 0), GOOD), ((3, 14, 1), LESS)])
def test_a_python_that_is_too_old_is_broken_and_one_not_tried_is_less(version, state):
    """3.11 and 3.12 were tried."""
    assert preflight.python(version).state == state


@pytest.fixture
def compilers(tmp_path, monkeypatch):
    """Gives a mock of a compiler that does what the text of a shell program says."""

    def made(does: str) -> None:
        file = tmp_path / "mock-c++"
        file.write_text(f"#!/bin/sh\n{does}\n")
        file.chmod(0o755)
        monkeypatch.setenv("CXX", str(file))

    return made


def test_a_compiler_has_to_compile(compilers):
    """One that is there and fails: its own first error stands in the line."""
    compilers("echo 'small.cpp:1: fatal error: thread: no such file' >&2; exit 1")
    found = preflight.compiler([LLAMA])

    assert found.state == LESS
    assert "(small.cpp:1: fatal error: thread: no such file), llama.cpp will be left out; install one" in str(found)


def test_no_compiler_leaves_out_what_is_compiled(monkeypatch):
    """Nothing is broken by it, and nothing is said where nothing is to be compiled."""
    monkeypatch.setenv("CXX", "/no/such/c++")

    assert preflight.compiler([LLAMA]) == Finding(
        "compiler", LESS, "there is no C++ compiler, llama.cpp will be left out", preflight.GET_COMPILER
    )
    assert preflight.compiler([LAB]).state == GOOD


@pytest.mark.skipif(not preflight.compiler_command(), reason="no C++ compiler here")
def test_this_machines_compiler_compiles():
    """The small program is one that a compiler takes."""
    assert preflight.compiler([LLAMA]).state == GOOD


def test_what_does_not_fit_the_disk_is_broken(tmp_path):
    """A million gigabytes: the line has what is free and what to do; folders that are not there yet are looked at above."""
    found = preflight.disk([Part("all", 1e6, 1)], tmp_path, tmp_path / "cache" / "of mine")

    assert found.state == BROKEN and "GB free, 1000000.0 GB will be used; free some, or take less" in str(found)
    assert preflight.disk([], tmp_path, tmp_path / "cache" / "of mine").state == GOOD


@pytest.mark.parametrize(
    ("which", "remedy"), [("here", "copy the collection to a folder of yours"), ("cache", "set XDG_CACHE_HOME")]
)
def test_a_folder_without_permission_is_broken(tmp_path, monkeypatch, which, remedy):
    """With a mock of the permission, as root has every one."""
    monkeypatch.setattr(preflight.os, "access", lambda folder, _: folder != tmp_path / which)
    for name in ("here", "cache"):
        (tmp_path / name).mkdir()
    found = preflight.disk([], tmp_path / "here", tmp_path / "cache")

    assert found.state == BROKEN and f"{which} cannot be written to" in found.says and remedy in found.remedy


def meminfo(folder, total_gib, free_gib):
    """A mock of Linux's file."""
    file = folder / "meminfo"
    file.write_text(f"MemTotal: {total_gib * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {free_gib * 2**20} kB\nHugePages_Total: 0\n")
    return file


def test_a_containers_limit_counts(tmp_path):
    """It is given no more than that; "max" is no limit."""
    (tmp_path / "limit").write_text(str(4 * 2**30))
    (tmp_path / "none").write_text("max\n")

    assert preflight.memory_gib(meminfo(tmp_path, 64, 32), [str(tmp_path / "limit")]) == (4, 4)
    assert preflight.memory_gib(meminfo(tmp_path, 64, 32), [str(tmp_path / "none"), "/no/such"]) == (64, 32)


@pytest.mark.parametrize(
    ("gib", "heavy", "state", "remedy"),
    [
        ((16, 14), True, GOOD, ""),
        ((8, 7), False, GOOD, ""),
        ((8, 7), True, LESS, "take fewer frameworks: nox -s tour -- transformers llama-cpp"),
        ((4, 3), False, LESS, "take one: nox -s tour -- llama-cpp"),
        ((16, 3), True, LESS, "close other programs"),
        ((None, None), True, LESS, "see that there are 12 GiB"),
    ],
)
def test_memory(monkeypatch, gib, heavy, state, remedy):
    """With a mock of what the system says: too little of it is less, and never broken."""
    monkeypatch.setattr(preflight, "memory_gib", lambda: gib)
    found = preflight.memory(heavy)

    assert (found.state, found.remedy) == (state, remedy)


def test_the_memory_that_is_wanted_is_what_the_set_ups_page_says():
    """Both say the same."""
    said = f"{preflight.LIGHT_GIB} GiB for Transformers and llama.cpp, {preflight.ALL_GIB} GiB for all"

    assert said in (paths.REPOSITORY / "docs" / "setup.md").read_text()


@pytest.mark.parametrize(
    ("busy", "count", "state"), [({}, 2, GOOD), ({"firefox": 0.3}, 2, GOOD), ({"a": 0.9, "b": 0.4}, 2, LESS), ({}, 1, LESS)]
)
def test_cores_and_who_uses_them(monkeypatch, busy, count, state):
    """From a quarter of them on it is less; the programs are named."""
    monkeypatch.setattr(machine, "cores", lambda: count)
    found = preflight.cores(busy)

    assert found.state == state and all(name in found.says for name in busy)


@pytest.mark.parametrize(
    ("gpu", "flags", "state"),
    [(False, ["avx2"], LESS), (False, ["avx2", "avx512bw"], GOOD), (False, ["bf16"], GOOD), (True, ["avx2"], GOOD)],
)
def test_a_processor_without_instructions_for_bf16_is_less(monkeypatch, gpu, flags, state):
    """AVX-512 of x86, BF16 of Arm; a GPU has its own."""
    monkeypatch.setattr(machine, "has_gpu", lambda: gpu)
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)

    assert preflight.processor().state == state


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc here")
def test_a_busy_program_is_found_by_its_name():
    """A real one."""
    spin = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        assert preflight.busiest(0.3).get("sh", 0) > preflight.NOTABLE
    finally:
        spin.kill()
        spin.wait()


def test_ports_of_this_machine_can_be_used(monkeypatch):
    """Really tried; a proxy that would be asked even for 127.0.0.1 is found, and one that would not is fine."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    assert preflight.ports().state == GOOD
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert preflight.ports() == Finding(
        "ports", LESS, "http_proxy sends even 127.0.0.1 to a proxy", "export NO_PROXY=127.0.0.1,localhost"
    )
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert preflight.ports().state == GOOD


def test_without_loopback_nothing_can_be_served(monkeypatch):
    """With a mock of a system that forbids it."""

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight.socket, "create_server", forbidden)

    assert preflight.ports().state == BROKEN and "(Permission denied)" in preflight.ports().says


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """pip's configuration is a folder with one wheel, the mock of an index that answers."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr(
            "thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def test_the_index_that_pip_has_is_asked(wheels):
    """Whatever it is: no host is named; the speed is that of the large package."""
    found, mb_per_s = preflight.index("thing==1.0", "thing==1.0")

    assert found.state == GOOD and found.says.startswith("it answers; ") and mb_per_s > 0


def test_no_answer_is_broken_and_a_slow_one_is_less(wheels):
    """What pip says stands in the line, and how to go on without an index."""
    nothing, _ = preflight.index("other==1.0", "thing==1.0")
    slow, mb_per_s = preflight.index("thing==1.0", "other==1.0")

    assert nothing.state == BROKEN and "No matching distribution" in nothing.says and "--from FOLDER" in nothing.remedy
    assert (slow.state, mb_per_s) == (LESS, None) and "other==1.0 did not come" in slow.says


def test_the_index_is_not_asked_where_nothing_is_to_be_installed():
    """So a set-up that is there passes without a network."""
    assert preflight.index("thing==1.0", "thing==1.0", "all is there")[0] == Finding("index", GOOD, "not asked: all is there")


@pytest.mark.parametrize(
    ("names", "state"), [(["NVIDIA L4"], GOOD), ([], BROKEN), (["NVIDIA-SMI has failed because ..."], BROKEN)]
)
def test_nvidia_smi_without_a_gpu_is_broken(monkeypatch, names, state):
    """With a mock of it: the builds for a GPU would be installed where there is none."""
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(machine, "gpus", lambda field: names if field == "name" else ["580.1"])

    assert preflight.gpu().state == state


def test_no_gpu_is_good(monkeypatch):
    """The collection is made for that."""
    monkeypatch.setattr(machine, "has_gpu", lambda: False)

    assert preflight.gpu().state == GOOD


def test_the_forecast_of_the_set_up():
    """Twice as slow: twice the minutes; a compilation on four cores: half; a slow network: what its bytes need at most."""
    assert preflight.setup_minutes([LAB, LLAMA], 2.0, 4, None) == {"Lab": 2, "llama.cpp": 6}
    assert preflight.setup_minutes([Part("vLLM", 2.4, 1)], 1.0, 2, mb_per_s=4) == {"vLLM": 10}


def test_the_forecast_is_the_sum_of_its_parts(monkeypatch):
    """With the slowness that the one probe finds."""
    monkeypatch.setattr(machine, "usual_slowness", lambda: 1.5)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    head, setup, *ways = preflight.forecast([LAB, LLAMA], None)

    assert "1.5 times as slow" in head
    assert setup.split() == ["set-up", "11", "(Lab", "2,", "llama.cpp", "9)"]
    assert [line.split("(")[0].split() for line in ways] == [[*way.name.split(), str(way.minutes)] for way in timetable.ways(1.5)]


def test_a_path_that_takes_too_long_here_is_said():
    """On a machine ten times slower, and not on one like that of the minutes."""
    slow, usual = (preflight._path_line(timetable.ways(times)[0]) for times in (10, 1))

    assert "more than its 90: leave notebooks out" in slow and "leave" not in usual


def test_only_what_is_broken_fails():
    """Slower, or with less of it, is no failure."""
    good, less, broken = (Finding(state, state, "x", "do this") for state in (GOOD, LESS, BROKEN))

    assert preflight.verdict([good, less]) == ("nothing is broken, less than wanted: less", False)
    assert preflight.verdict([good, less, broken]) == ("broken: broken; what to do stands behind it", True)


def every_remedy():
    """Findings of every kind that are not good."""
    return {
        "python": {"finding": preflight.python((3, 9, 0))}, "new python": {"finding": preflight.python((3, 19, 0))},
        "memory": {"finding": preflight.memory(heavy=True)}, "cores": {"finding": preflight.cores({"x": 99.0})},
        "disk": {"finding": preflight.disk([Part("x", 1e9, 1)], paths.REPOSITORY, paths.REPOSITORY)},
    }  # fmt: skip


@over(every_remedy, "finding")
def test_what_is_not_good_has_a_remedy_in_one_line(finding):
    """And what is good has none."""
    assert bool(finding.remedy) == (finding.state != GOOD)
    assert "\n" not in str(finding)
