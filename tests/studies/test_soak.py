"""A minute of the soak: a real server, every fault, and what a lost request or a leak would look like."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from helpers.bench.client import Endpoint
from helpers.bench.timing import Sample
from helpers.servers import serving
from helpers.studies import soak
from helpers.studies.soak import Round, Side

SIDE = Side(100 * 2**20, 20)
GOOD = Round(0, "429", 24, {"whole": 20, "status": 4}, {"whole": 20, "status": 4}, SIDE, SIDE, fresh=False)


class MockServed:
    """A server without an engine in the place of llama.cpp's: the truth server, killed and started again at one port."""

    def __init__(self, model):
        self.port, self.running = serving.free_port(), None
        self.server = SimpleNamespace(base_url=f"http://127.0.0.1:{self.port}/v1")
        self.server.endpoint = Endpoint(self.server.base_url, "mock")
        self.life = SimpleNamespace(close=self.kill)
        self.start()

    def start(self):
        self.kill()
        command = [
            sys.executable,
            "-m",
            "helpers.bench.truth_server",
            "--port",
            str(self.port),
            "--first",
            "0.05",
            "--gap",
            "0.01",
        ]
        self.running = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.running.stdout.readline()

    def kill(self):
        if self.running:
            self.running.kill()
            self.running.wait()
            self.running.stdout.close()
            self.running = None

    def holds(self):
        return soak._side([psutil.Process(self.running.pid)])


@pytest.mark.parametrize(("unasked", "lost"), [(0, 1), (1, 0), (2, 0)])
def test_a_request_into_a_connection_that_was_cut_before_it_is_accounted_for(unasked, lost):
    """As many may be missing at the proxy as it reset connections without a request; others are lost."""
    cut = replace(GOOD, fault="cut", client={"whole": 20, "broken": 4}, proxy={"whole": 20, "broken": 3}, unasked=unasked)
    assert len(soak.problems([cut])) == lost


def test_no_other_end_is_excused_by_a_connection_that_was_cut():
    """A status that only the client saw, and an end that only the proxy saw."""
    status = replace(GOOD, proxy={"whole": 20, "status": 3}, unasked=5)
    other = replace(GOOD, proxy={"whole": 20, "status": 4, "broken": 1}, unasked=5)
    assert len(soak.problems([status])) == len(soak.problems([other])) == 1


def test_the_command_with_a_server_that_is_a_mock(monkeypatch, tmp_path, capsys):
    """Client, proxy, faults and accounting are the real ones; every round is kept as it ends, from the first one on."""
    monkeypatch.setattr(soak, "Served", MockServed)
    monkeypatch.setattr(soak.models, "vocabulary", lambda _: None)  # prompts are plain words
    monkeypatch.setattr(soak, "SHORT_TIMEOUT_S", 0.4)
    monkeypatch.setattr(soak, "FAULT_S", 0.6)
    written = tmp_path / "soak.json"
    code = soak.main(["--minutes", "0.001", "--json", str(written)])

    out, kept = capsys.readouterr().out, json.loads(written.read_text())
    assert (code, kept["problems"]) == (0, []), out
    assert [one["fault"] for one in kept["rounds"]] == list(soak.FAULTS)
    assert kept["rounds"][3]["client"]["broken"] and kept["rounds"][4]["client"]["broken"], out
    assert out.splitlines()[-1] == "75 requests accounted for; memory and descriptors level"


def test_ctrl_c_under_load_is_one_line(monkeypatch, capsys, caplog):
    """SIGINT when requests are under way at the client and in the proxy: nothing is printed of what they were cut off in."""
    monkeypatch.setattr(soak, "Served", MockServed)
    monkeypatch.setattr(soak.models, "vocabulary", lambda _: None)
    monkeypatch.setattr(soak, "begin", lambda *_: os.kill(os.getpid(), signal.SIGINT))

    code, said = soak.main(["--minutes", "1"]), capsys.readouterr()
    assert (code, said.out, said.err) == (130, "", "stopped; the rounds that had ended are kept with --json\n")
    assert caplog.messages == []  # asyncio's words of a task that was cancelled


@pytest.mark.engine
def test_every_request_is_accounted_for_and_nothing_grows():
    """llama.cpp's server under mixed load: 429, a stall, a cut and a kill, each seen by the client as what it was."""
    rounds = soak.soak(20)

    assert soak.problems(rounds) == [], "\n".join(map(str, rounds))
    assert {one.fault for one in rounds} == set(soak.FAULTS)
    told = {name: sum((Counter(one.client) for one in rounds if one.fault == name), Counter()) for name in soak.FAULTS}
    assert set(told["none"]) == {"whole"}
    assert told["429"]["status"] and told["stall"]["stalled"] and told["cut"]["broken"] and told["kill"]["broken"]
    assert told["429"]["whole"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, "whole"), ("HTTP 429: slow down", "status"), ("stalled: no end within 2 s", "stalled"),
        ("refused: Connection refused", "refused"), ("broken: the connection was reset", "broken"), ("cut: x", "broken"),
    ],
)  # fmt: skip
def test_how_a_request_ended(error, kind):
    """By the word that the client's error begins with."""
    assert soak.kind(Sample(0, error=error)) == kind


def test_a_good_run_has_no_problem():
    """Refused requests never came to the proxy."""
    refused = replace(GOOD, client={"whole": 20, "status": 2, "refused": 2}, proxy={"whole": 20, "status": 2})

    assert soak.problems([GOOD, refused] * 3) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (replace(GOOD, client={"whole": 20, "status": 3}), "24 requests were sent, 23 have an end"),
        (
            replace(GOOD, proxy={"whole": 21, "status": 3}),
            "the client says {'whole': 20, 'status': 4}, the proxy saw {'whole': 21,",
        ),
        (replace(GOOD, fault="none"), "nothing was broken, and {'whole': 20, 'status': 4}"),
    ],
)
def test_a_request_that_is_not_accounted_for(bad, said):
    """Lost, taken for another, or failed for no reason."""
    assert any(said in line for line in soak.problems([GOOD, bad, GOOD]))


@pytest.mark.parametrize(("side", "name"), [("here", "here"), ("server", "server")])
def test_a_leak_is_seen(side, name):
    """A megabyte and a descriptor a round, over sixty rounds; a single round that holds more is none."""
    growing = [replace(GOOD, **{side: Side(SIDE.rss_bytes + n * 2**20, 20 + n)}) for n in range(60)]
    once = [GOOD] * 30 + [replace(GOOD, **{side: Side(2 * SIDE.rss_bytes, 99)})] + [GOOD] * 30

    assert [line.partition(" grew")[0] for line in soak.problems(growing)] == [f"{name}: RSS, bytes", f"{name}: descriptors"]
    assert soak.problems(once) == []


def test_what_a_start_leaves_is_no_growth():
    """A server that has just been started holds less than one that has worked."""
    fresh = replace(GOOD, server=Side(2**20, 1), fresh=True)

    assert soak.problems([fresh, *[GOOD] * 8]) == []
