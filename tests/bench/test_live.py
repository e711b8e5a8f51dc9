"""What is shown while it measures: counts, a terminal, a log, and that the client's error does not move for it."""

import io
import os
import pty
import re
import statistics
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from helpers.bench import client, live, measure, selftest, server_metrics, workload
from helpers.bench.client import Endpoint
from helpers.bench.connection import Reply
from helpers.bench.distributions import Distribution
from helpers.bench.live import Block, View
from helpers.bench.measure import Plan
from helpers.bench.server_metrics import Watch
from helpers.bench.synthetic import Synthetic
from helpers.bench.timing import Sample
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

SLOW = Script(first_s=0.04, gap_s=0.02)  # an answer of four tokens takes a tenth of a second


class Stream(io.StringIO):
    """A mock of a terminal, or of a log; it knows which threads wrote."""

    def __init__(self, terminal: bool = False):
        super().__init__()
        self.terminal, self.threads = terminal, set()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.threads.add(threading.current_thread().name)
        return super().write(text)


@pytest.fixture
def often(monkeypatch) -> None:
    """Short blocks are looked at too, and follow each other closely."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(client, "CONNECT_AHEAD_S", 0.05)


def test_a_block_counts_what_has_come():
    """Two are done, one of them failed; one is under way with three pieces; the median is of what succeeded."""
    block, under_way = Block("10 users, repeat 1 of 3", 8), Reply(time.perf_counter_ns() - 10**9, parts=[(0, b"x")] * 3)
    for reply in (Reply(under_way.sent_ns, over=True), under_way):
        block.sent(reply)
    block.ended(Sample(0, (250_000_000, 300_000_000), output_tokens=7))
    block.ended(Sample(0, error="stalled: no end within 1 s"))
    block.count()

    assert (block.done, block.failed, block.under_way) == (2, 1, [under_way])
    assert block.tokens_per_s() == pytest.approx(10, rel=0.2)  # seven and three in a second
    said = "10 users, repeat 1 of 3: 2 of 8 done, 1 under way, TTFT 0.250 s, "
    assert str(block).startswith(said) and str(block).endswith(" tokens/s, 1 failed")


def test_nothing_is_kept_of_what_is_over():
    """An answer's bytes are let go as soon as it has ended."""
    block, reply = Block("x", 1), Reply(1)
    block.sent(reply)
    block.count()
    reply.over = True
    block.count()

    assert block.under_way == []


def test_a_block_without_anything_has_no_figures():
    """Neither a time nor a rate, and not 0."""

    assert str(Block("1 user, warm-up 1", 4)) == "1 user, warm-up 1: 0 of 4 done, 0 under way"


def test_every_answer_is_over_however_it_ends(often):
    """Done, cut, reset: none stays under way for ever."""
    ends = ("done", "cut", "reset", "close")
    with TruthServer(lambda number, body: Script(end=ends[number % 4])) as mock:
        replies: list[Reply] = []
        prompts = [workload.Prompt(f"word{n}") for n in range(8)]
        sending = client.closed_loop(Endpoint(mock.base_url, "m"), prompts, users=1, output_tokens=4, on_send=replies.append)
        samples = client.run(sending)

    assert len(samples) == 8 and len(replies) >= 8 and all(reply.over for reply in replies)


PLANS = {
    "closed loop": Plan(users=(2,), requests=4, input_tokens=8, output_tokens=4, settle=False),
    "open loop": Plan(rates_per_s=(50.0,), requests=4, input_tokens=8, output_tokens=4, settle=False),
}


@pytest.mark.parametrize("kind", ["closed loop", "open loop"])
def test_a_line_says_the_load_the_repeat_and_the_state(often, kind):
    """Of each warm-up and each repeat; requests under way are seen too."""
    log = Stream()
    with TruthServer(SLOW) as mock:
        measure.measure(Endpoint(mock.base_url, "m"), PLANS[kind], progress=View(plain_every_s=0, stream=log))
    said = log.getvalue()
    load = "2 users" if kind == "closed loop" else "50 requests/s"

    assert re.search(rf"^{load}, warm-up 1: \d of 4 done, [1-4] under way", said, re.M)
    assert re.search(rf"^{load}, repeat 3 of 3: [1-4] of 4 done, \d under way, TTFT 0\.\d{{3}} s, \d+ tokens/s$", said, re.M)


def test_turns_of_conversations_are_counted_one_by_one(often):
    """Two talks of two turns are four requests."""
    log, (eight, four, two) = Stream(), (Distribution("fixed", (number,)) for number in (8, 4, 2))
    plan = replace(PLANS["closed loop"], requests=2, source=Synthetic(eight, four, turns=two))
    with TruthServer(SLOW) as mock:
        measure.measure(Endpoint(mock.base_url, "m"), plan, progress=View(plain_every_s=0, stream=log))

    assert re.search(r"^2 users, repeat 1 of 3: [1-4] of 4 done", log.getvalue(), re.M)


def test_the_event_loop_writes_nothing(often):
    """On a terminal as in a log, it is the thread that waits."""
    for stream in (Stream(terminal=True), Stream()):
        with TruthServer(SLOW) as mock:
            measure.measure(Endpoint(mock.base_url, "m"), PLANS["closed loop"], progress=View(plain_every_s=0, stream=stream))
        assert stream.threads == {threading.current_thread().name}


def test_a_log_gets_no_line_before_its_time(often):
    """A run of nearly a second that is looked at all the time, and a line every quarter of one: few, and none at its start."""
    every_s, log, begun = 0.25, Stream(), time.monotonic()
    view = View(plain_every_s=every_s, stream=log)
    with TruthServer(SLOW) as mock:
        measure.measure(Endpoint(mock.base_url, "m"), PLANS["closed loop"], progress=view)
    lines = log.getvalue().splitlines()

    assert 1 <= len(lines) <= (time.monotonic() - begun) / every_s


def test_without_a_terminal_a_caller_of_the_library_sees_nothing(capfd):
    """As in a notebook; lines in a log are the command's."""
    with TruthServer() as mock:
        measure.measure(Endpoint(mock.base_url, "m"), PLANS["closed loop"])

    assert capfd.readouterr() == ("", "")
    assert live.view(False).plain_every_s is None and live.view(True).plain_every_s is None


def test_a_log_that_cannot_be_written_ends_nothing(often):
    """A closed pipe: the figures come all the same."""

    class Broken(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with TruthServer(SLOW) as mock:
        view = View(plain_every_s=0, stream=Broken())
        (level,) = measure.measure(Endpoint(mock.base_url, "m"), PLANS["closed loop"], progress=view)

    assert len(level.samples) == 12


def on_a_terminal(mock: TruthServer, *arguments: str) -> tuple[int, str]:
    """The command with its standard error on a terminal of 120 columns; exit code and what the terminal got."""
    small = ["--users", "2", "--requests", "4", "--input-tokens", "8", "--output-tokens", "4", "--no-self-test"]
    ours, its = pty.openpty()
    asked = [sys.executable, "-m", "helpers.bench", "--base-url", mock.base_url, "--model", "m", *small, *arguments]
    termios.tcsetwinsize(its, (40, 120))
    running = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=its, cwd=REPOSITORY)
    os.close(its)
    got = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other side has closed
            break
        if not part:
            break
        got += part
    os.close(ours)
    running.stdout.close()
    return running.wait(60), got.decode()


def test_on_a_terminal_one_line_is_updated_and_goes_away():
    """The load, the repeat, requests done and under way, TTFT and tokens/s so far; no line is left."""
    looked_at = range(2, 6)  # the first warm-up, after two probes: its answers take longer than it is until the next look
    with TruthServer(lambda number, body: Script(first_s=0.6, gap_s=0.1) if number in looked_at else Script()) as mock:
        code, shown = on_a_terminal(mock)

    assert code == 0 and "\n" not in shown.replace("\r\n", "\n").rstrip("\n")
    assert "2 users, warm-up 1 |" in shown and "2 users, repeat 3 of 3 |" in shown
    assert re.search(r"2 of 4 \[\d\d:\d\d\], [012] under way, TTFT 0\.6\d\d s, \d+ tokens/s", shown)
    assert shown.rsplit("\r", 2)[-2].strip() == ""


def test_quiet_shows_nothing_on_a_terminal_either():
    """Not a character."""
    with TruthServer(SLOW) as mock:
        assert on_a_terminal(mock, "--quiet") == (0, "")


def test_a_failure_is_shown(often):
    """While it goes on."""
    log = Stream()
    with TruthServer(lambda number, body: Script(gap_s=0.03, end="cut" if number > 0 else "done")) as mock:
        measure.measure(Endpoint(mock.base_url, "m"), PLANS["closed loop"], progress=View(plain_every_s=0, stream=log))

    assert re.search(r", [1-4] failed$", log.getvalue(), re.M)


@contextmanager
def a_large_page(folder):
    """A server, in a process of its own, of a mock page as large as an engine's; its base URL."""
    lines = [f'vllm:request_time_seconds_bucket{{engine="0",le="{n}",model_name="m"}} {n}.0' for n in range(1500)]
    (folder / "metrics").write_text("\n".join([*lines, 'vllm:num_requests_running{engine="0"} 3.0\n']))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = re.search(r"port (\d+)", running.stdout.readline())[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        running.terminate()
        running.wait()
        running.stdout.close()


def test_the_clients_error_does_not_move(tmp_path, monkeypatch):
    """Against the truth, in turns without and with a terminal and a page of metrics, both looked at ten times as often.

    What it is held against is what the self-test lets a client be off by: a share of the scripted time and of the rate.
    """
    without, beside = [], []
    with a_large_page(tmp_path) as url:
        watch = Watch(Endpoint(url, "m"))
        for _ in range(2):
            without.append(selftest.load(20, 20, selftest.TOKENS))
            with monkeypatch.context() as often:
                often.setattr(live, "EVERY_S", live.EVERY_S / 10)
                often.setattr(server_metrics, "EVERY_S", server_metrics.EVERY_S / 10)
                terminal = Stream(terminal=True)
                with watch.repeat(20):
                    beside.append(selftest.load(20, 20, selftest.TOKENS, progress=View(stream=terminal)))
            assert "20 users" in terminal.getvalue() and len(watch.looks[20][-1].during) >= 5
    ttft = [statistics.median(abs(seen.ttft_error_s) for seen in several) for several in (without, beside)]
    rate = [statistics.median(abs(seen.rate_error) for seen in several) for several in (without, beside)]

    assert ttft[1] <= ttft[0] + selftest.MOST_ERROR * selftest.FIRST_S
    assert rate[1] <= rate[0] + selftest.MOST_ERROR
