"""The truth server keeps its times and tells what it did; the self-test holds the client against it."""

import errno
import json
import os
import socket
import subprocess
import sys

import httpx
import numpy as np
import psutil
import pytest
from leftovers import wait_until

from helpers.bench import client, selftest, truth_server, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level, Sample
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer

BODY = {"model": "m", "prompt": "a b c", "max_tokens": 5}


def post(mock: TruthServer, **more) -> httpx.Response:
    return httpx.post(f"{mock.base_url}/completions", json={**BODY, **more}, trust_env=False)


def test_it_writes_when_it_should():
    """First token after 50 ms, then one every 20 ms: at most a timer's grain early, and the gaps are right on average."""
    with TruthServer(Script(first_s=0.05, gap_s=0.02)) as mock:
        client.run(client.request(Endpoint(mock.base_url, "m"), workload.prompts(1, 8, seed=0)[0], 10))
        (did,) = mock.received

    waits_s = (np.array(did.written_ns) - did.received_ns) / 1e9
    assert (waits_s - (0.05 + 0.02 * np.arange(10)) > -0.002).all()
    assert np.diff(waits_s).mean() == pytest.approx(0.02, rel=0.2)
    assert (did.tokens, did.ended) == (10, "done")


def test_without_files_to_open_it_takes_no_more_and_says_so_once(monkeypatch, capfd):
    """A mock of a system whose files are used up after two connections: one line, and what is open goes on."""
    with TruthServer() as mock:
        monkeypatch.setattr(mock, "_listener", _Full(mock._listener, 2))
        kept = httpx.Client(base_url=mock.base_url, trust_env=False)
        assert kept.post("/completions", json=BODY).status_code == 200
        with socket.create_connection(("127.0.0.1", mock.port)), socket.create_connection(("127.0.0.1", mock.port)):
            wait_until(lambda: mock._listener.fileno() < 0, timeout_s=5)
        assert kept.post("/completions", json=BODY).status_code == 200
        kept.close()

    assert capfd.readouterr().err == "the truth server takes no more than these 2 connections: Too many open files\n"


class _Full:
    """A listener that has no file left after ``room`` connections."""

    def __init__(self, listener: socket.socket, room: int):
        self.listener, self.room = listener, room

    def __getattr__(self, name: str):
        return getattr(self.listener, name)

    def accept(self):
        accepted = self.listener.accept()
        self.room -= 1
        if self.room < 0:
            accepted[0].close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accepted


def test_jitter_is_seeded_and_within_its_limit():
    """Each pause is longer by 0 to 10 ms; the same request number, the same pauses."""
    from helpers.bench import truth_script

    script = Script(first_s=0.05, gap_s=0.02, jitter_s=0.01)
    pauses = [
        [pause for pause, _, events, *_ in truth_script.writes(script, "/v1/completions", {**BODY, "stream": True}, 3) if events]
        for _ in range(2)
    ]

    assert pauses[0] == pauses[1] and len(set(pauses[0])) == 5
    assert 0.05 <= pauses[0][0] <= 0.06 and all(0.02 <= pause <= 0.03 for pause in pauses[0][1:])


@pytest.mark.parametrize(("route", "field"), [("completions", "text"), ("chat/completions", "message")])
def test_not_streamed_it_answers_whole(route, field):
    """All tokens in one JSON, with the usage."""
    prompt = {"prompt": "a b c"} if route == "completions" else {"messages": [{"role": "user", "content": "a b c"}]}
    with TruthServer() as mock:
        answer = httpx.post(f"{mock.base_url}/{route}", json={"max_tokens": 5, **prompt}, trust_env=False).json()

    said = answer["choices"][0][field]
    assert (said if field == "text" else said["content"]) == " word" * 5
    assert answer["usage"]["completion_tokens"] == 5 and answer["usage"]["prompt_tokens"] == 3


def test_other_requests_are_answered_and_not_kept():
    """The list of models; a route that is none."""
    with TruthServer() as mock:
        models = httpx.get(f"{mock.base_url}/models", trust_env=False).json()
        other = httpx.post(f"{mock.base_url}/tokenize", json={}, trust_env=False)

        assert (models["data"][0]["id"], other.status_code, mock.received) == ("truth", 404, [])


def test_in_a_process_of_its_own_it_tells_and_forgets():
    """`GET /truth` has a request's stamps; after a reset it has none; the process ends with the block."""
    with truth_server.process(first_s=0.01, gap_s=0.001) as server:
        child = psutil.Process().children()[-1]
        sample = client.run(client.request(Endpoint(server.base_url, "m"), workload.prompts(1, 8, seed=0)[0], 6))
        (did,) = server.seen()
        server.reset()

        assert server.seen() == []
    assert (did["tokens"], len(did["written_ns"]), did["ended"]) == (6, 6, "done")
    assert did["received_ns"] > sample.sent_ns and not child.is_running()
    json.dumps(did)


def test_a_terminals_ctrl_c_is_not_for_it():
    """It goes to a whole process group: a server that still starts would end with a traceback beside the command's own line."""
    with truth_server.process():
        child = psutil.Process().children()[-1]

        assert os.getpgid(child.pid) != os.getpgid(0)


def seen(late_ns: int) -> selftest.Seen:
    """A client that saw two requests, each ``late_ns`` too late, at 1 ms a token."""
    wrote = [[50_000_000 + i * 1_000_000 for i in range(10)] for _ in range(2)]
    served = [{"received_ns": 0, "written_ns": times, "tokens": 10} for times in wrote]
    return selftest.Seen([Sample(0, tuple(t + late_ns for t in times), output_tokens=10) for times in wrote], served)


def test_the_self_test_finds_a_client_that_is_late():
    """5 ms late: 5 ms of TTFT; and the rate that follows from it."""

    assert (seen(0).ttft_error_s, seen(0).rate_error, seen(0).itl_p99_error) == pytest.approx((0, 0, 0))
    assert seen(5_000_000).ttft_error_s == pytest.approx(0.005)
    assert seen(5_000_000).rate_error == pytest.approx(59 / 64 - 1)


def test_a_level_near_the_ceiling_is_labelled_the_clients_limit():
    """1,000 events/s are near a ceiling of 1,500 and far from one of 100,000."""
    level = Level(1, ((Sample(0, tuple(range(0, 1_000_000_001, 1_000_000)), output_tokens=1001),),))
    near, far = (selftest.SelfTest(1, 0.0, 0.0, 0.0, ceiling, False) for ceiling in (1_500.0, 100_000.0))

    assert near.note(level).label == "near the client's limit: 1,001 of 1,500 events/s"
    assert far.note(level).label is None


def test_a_self_test_of_no_users_is_refused():
    """Before a server is started."""
    with pytest.raises(ValueError, match="^users=0: a load needs at least one user$"):
        selftest.run(0)


def test_whoever_started_it_has_gone_before_it_answered():
    """Nobody reads its address: it ends, and says nothing about that."""
    nobody, address = os.pipe()
    os.close(nobody)
    command = [sys.executable, "-m", "helpers.bench.truth_server"]
    running = subprocess.Popen(command, stdout=address, stderr=subprocess.PIPE, text=True)
    os.close(address)

    assert running.communicate(timeout=60)[1] == "" and running.returncode == 0
