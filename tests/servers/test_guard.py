"""One guarded process: what it is started with, and what is left of it."""

import json
import os
import sys

import psutil
import pytest

from helpers.servers import guard

SAYS_ITS_VARIABLES = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]


def test_its_processes_meet_in_a_file_and_its_output_comes_at_once(monkeypatch):
    """No port is opened for them; pytest's own variable does not reach an engine."""
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "this one")
    with guard.guarded(SAYS_ITS_VARIABLES, dict(os.environ), name="mock", meets_by="MEET_AT") as running:
        running.process.wait(30)
        said = json.loads(running.log.read_text())

    assert said["MEET_AT"] == running.log.with_suffix(".store").as_uri()
    assert said["PYTHONUNBUFFERED"] == "1" and "PYTEST_CURRENT_TEST" not in said


@pytest.mark.parametrize("keep", [True, False])
def test_its_log_goes_unless_it_is_kept(keep):
    """Whatever ends the block."""
    with pytest.raises(ZeroDivisionError):
        with guard.guarded([sys.executable, "-c", "import time; time.sleep(99)"], dict(os.environ), name="mock") as running:
            running.keep_log = keep
            raise ZeroDivisionError

    assert running.log.exists() is keep
    running.log.unlink(missing_ok=True)
    assert not psutil.pid_exists(running.process.pid)


def test_a_command_that_does_not_exist_is_one_line():
    """As the guard says it."""
    with guard.guarded(["/no/such/engine"], dict(os.environ), name="mock") as running:
        assert running.process.wait(30) == 127
        assert running.reason() == "/no/such/engine cannot be run: No such file or directory"


def test_a_line_that_points_elsewhere_is_no_reason(tmp_path):
    """vLLM's last line names none; what it points at does."""
    log = tmp_path / "log"
    log.write_text(
        "RuntimeError: Worker failed with error 'no room in /dev/shm'\n    raise RuntimeError(\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    )
    assert guard.reason(log) == "RuntimeError: Worker failed with error 'no room in /dev/shm'"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("/a/python", "python"),
        ("name=/a/b", "name=b"),
        ('{"model": "/a/b", "n": 3}', '{"model": "b", "n": 3}'),
        ("--max-num-seqs", "--max-num-seqs"),
        ("a=b", "a=b"),
    ],
)
def test_a_command_is_told_without_folders(part, told):
    """An adapter keeps its name before its folder's, and JSON its form."""

    assert guard.without_folders(part) == told
