"""The client's limits, each part with small numbers, and what the command says of a limit that is not kept."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from leftovers import wait_until

from helpers import paths
from helpers.bench.timing import Sample
from helpers.studies import limits
from helpers.studies.limits import Found, PartError


def test_memory_counts_every_event_and_the_most_that_was_held():
    """Here it is what all tests before it have held."""
    found = limits.memory(requests=6, tokens=50, users=3)

    assert (found.figures["events"], found.figures["errors"]) == (300, 0)
    assert found.figures["peak_bytes"] > 10_000_000
    assert found.said.startswith("6 requests of 50 tokens, 300 events kept, at most ")


def test_events_are_read_on_one_core_and_none_is_lost():
    """Too few a second for the limit, which is said; the cores are given back."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    found = limits.events(users=10, per_s=1_000, seconds=0.5)

    assert (found.figures["sent"], found.figures["lost"], found.figures["errors"]) == (500, 0, 0)
    assert not found.kept and str(found).endswith(" 0 lost, 0 errors: NOT kept")
    assert before is None or os.sched_getaffinity(0) == before


def test_the_wait_before_the_first_event_is_no_part_of_the_rate():
    """Five events in the two seconds after a wait of ten: two a second; none of a single moment."""
    ns = 10**9
    two = [Sample(0, (10 * ns, 11 * ns, 12 * ns)), Sample(0, (10 * ns, 12 * ns))]

    assert limits.events_per_s(two) == 2 and limits.events_per_s(two[:0]) is None
    assert limits.events_per_s([Sample(0, (5, 5))]) is None


def test_streams_have_the_error_of_their_median_ttft():
    """How large it is depends on the machine."""
    found = limits.streams(users=8, tokens=2)

    assert found.figures["errors"] == 0 and abs(found.figures["ttft_error_s"]) < 0.5
    assert found.kept == (abs(found.figures["ttft_error_s"]) <= limits.MOST_TTFT_ERROR_S)


def test_users_are_all_answered_or_refused_in_one_line(monkeypatch):
    """A mock of a system with room for ten."""

    def room_for(users: int) -> None:
        if users > 10:
            raise ValueError(f"{users} connections need more")

    monkeypatch.setattr(limits.connection, "room_for", room_for)
    found = limits.users((8, 40), tokens=2)

    assert found.kept and found.said == "8 of 8 answered whole; 40 connections need more"


def test_the_command_says_each_part_as_it_ends_and_keeps_it(monkeypatch, tmp_path, capsys):
    """Two parts that are mocks, of which one is not kept: exit code 1."""
    parts = {name: Found(name, name == "one", "said", {"n": 1}) for name in ("one", "two")}
    monkeypatch.setattr(limits, "PARTS", parts)
    monkeypatch.setattr(limits, "apart", parts.get)
    monkeypatch.setattr(limits.machine, "busy_word", lambda: None)
    file = tmp_path / "limits.json"

    assert limits.main(["--json", str(file)]) == 1
    assert capsys.readouterr().out == "one: said: kept\ntwo: said: NOT kept\n"
    assert [part["part"] for part in json.loads(file.read_text())["parts"]] == ["one", "two"]


def test_an_unknown_part_is_refused_before_anything_starts(capsys):
    """The names there are."""
    with pytest.raises(SystemExit) as ended:
        limits.main(["speed"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == "no part is called 'speed': choose from memory, events, streams, users\n"


def test_a_part_that_ends_without_a_word_is_an_error():
    """Killed by the system for its memory, say."""
    with pytest.raises(PartError, match="^absent: its process ended with exit code 1; its error stands above$"):
        limits.apart("absent")


def test_ctrl_c_is_one_line(tmp_path):
    """To the whole process group, as a terminal sends it, while the first part is at work."""
    command = [sys.executable, "-m", "helpers.studies.limits", "streams"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": paths.REPOSITORY}
    process = subprocess.Popen(command, start_new_session=True, **how)
    assert wait_until(psutil.Process(process.pid).children, 30)  # the part's
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)

    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "stopped; the parts that had ended are kept with --json"
    assert "Traceback" not in errors
