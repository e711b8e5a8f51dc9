"""The comparison of load clients: reading their reports, finding their measured requests, keeping what was measured.

The reports in ``tests/peers`` are of real runs (1 stream, 6 requests of 128 tokens), shortened.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helpers import paths
from helpers.bench import timing
from helpers.paths import REPOSITORY
from helpers.studies import peer_clients, peers
from helpers.studies.peer_clients import CLIENTS, Client, Figures, Job, Load, PeerError
from helpers.studies.peers import Run

MS = 1_000_000
REPORTS = Path(__file__).with_name("peers")
SMALL = Load(streams=2, requests=4, tokens=4)
PYTHON = Client("mock", "mock client", "lab", (), lambda python, job: [python, "-c", ""], None, "")


def job(folder: Path, load: Load = Load(1, 6)) -> Job:  # noqa: B008 - frozen
    return Job("http://127.0.0.1:1/v1", folder, load)


def mock_client(code: str) -> Client:
    """A client that runs ``code``; its figures are not read."""
    return replace(PYTHON, command=lambda python, job: [python, "-c", code])


def request(start_ms: float, *written_ms: float, tokens: int | None = None, path="/v1/completions", ended="done") -> dict:
    """A request as the server tells of it, one token per event."""
    written = [round(ms * MS) for ms in written_ms]
    return {
        "path": path, "received_ns": round(start_ms * MS), "written_ns": written,
        "tokens": len(written) if tokens is None else tokens, "ended": ended,
    }  # fmt: skip


def block(start_ms: float, count: int = 2) -> list[dict]:
    return [request(start_ms + i, start_ms + 50, start_ms + 60) for i in range(count)]


TWO = Load(streams=2, requests=2, tokens=2)


@pytest.mark.parametrize(
    ("name", "file", "ttft_ms", "tokens_per_s", "itl_p99_ms", "before"),
    [
        ("ours", "ours.json", 50.454895, 96.919755, None, 14),  # 6 requests are too few for a p99 of ours
        ("vllm", "vllm.json", 51.745238, 96.826400, 10.920194, 1),
        ("vllm-rs", "vllm-rs.json", 50.755920, 96.910736, 10.734758, 1),
        ("inference-perf", "perf-stage_1_lifecycle_metrics.json", 51.013834, 96.655527, 10.743151, 1),
        ("sglang", "sglang.jsonl", 51.539580, 96.791812, 11.186588, 1),
        ("sglang-rust", "sglang-rust.jsonl", 50.619520, 96.930768, 11.197634, 1),
        ("guidellm", "guidellm.json", 50.971985, 96.506846, None, 0),  # its ITL is a mean per request
        ("aiperf", "aiperf/profile_export_aiperf.json", 50.841021, 96.608749, 13.765851, 1),  # of inter-chunk latency
    ],
)
def test_each_report_is_read(tmp_path, name, file, ttft_ms, tokens_per_s, itl_p99_ms, before):
    """Median TTFT, tokens/s and p99 of the pooled gaps, in the units of the comparison; 6 good requests."""
    written = tmp_path / file.replace("sglang-rust", "sglang").replace("vllm-rs", "vllm")
    written.parent.mkdir(exist_ok=True)
    shutil.copy(REPORTS / file, written)
    found = CLIENTS[name].read(job(tmp_path))

    assert found.figures.ttft_ms == pytest.approx(ttft_ms)
    assert found.figures.output_tokens_per_s == pytest.approx(tokens_per_s)
    assert found.figures.itl_p99_ms == (None if itl_p99_ms is None else pytest.approx(itl_p99_ms))
    assert (found.good, found.before) == (6, before)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_without_its_report_is_an_error(tmp_path, name):
    """One line that names the file."""
    with pytest.raises(PeerError, match=r"\.jsonl? cannot be read \(FileNotFoundError\)"):
        CLIENTS[name].read(job(tmp_path))


def test_a_report_of_another_version_is_an_error(tmp_path):
    """The line names what is missing."""
    (tmp_path / "vllm.json").write_text(json.dumps({"median_ttft_ms": 1.0}))

    with pytest.raises(PeerError, match="vllm.json has no output_throughput: it is another version"):
        CLIENTS["vllm"].read(job(tmp_path))


IN_A_FILE = ("guidellm", "inference-perf")  # they take their load so, and no list of options


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in IN_A_FILE])
def test_commands_ask_for_the_load(tmp_path, monkeypatch, name):
    """Requests, streams and tokens stand in each command line (mock tokenizer folder and program)."""
    monkeypatch.setattr(Job, "tokenizer", tmp_path)
    program = tmp_path / "lib" / "python3.11" / "site-packages" / "vllm" / "vllm-rs"
    program.parent.mkdir(parents=True)
    program.touch()
    command = CLIENTS[name].command(f"{tmp_path}/bin/python", job(tmp_path, Load(streams=7, requests=77, tokens=777)))

    assert {"7", "77", "777"} <= set(command)


def test_a_wheel_without_its_program_is_another_version(tmp_path, monkeypatch):
    """One line, before anything is sent."""
    monkeypatch.setattr(Job, "tokenizer", tmp_path)
    with pytest.raises(PeerError, match="^vLLM's wheel has no vllm-rs in .venvs/vllm-rs: it is another version"):
        CLIENTS["vllm-rs"].command(f"{tmp_path}/bin/python", job(tmp_path))


def test_inference_perf_is_asked_in_its_file(tmp_path, monkeypatch):
    """Its first stage is the warm-up, its second the load (mock tokenizer folder)."""
    monkeypatch.setattr(Job, "tokenizer", tmp_path)
    CLIENTS["inference-perf"].command("python", job(tmp_path, Load(streams=7, requests=77, tokens=777)))
    said = json.loads((tmp_path / "inference-perf.json").read_text())

    assert said["load"]["stages"] == [{"num_requests": count, "concurrency_level": 7} for count in (7, 77)]
    assert said["data"]["input_distribution"]["max"] == said["data"]["output_distribution"]["min"] == 777


def test_guidellm_is_asked_in_its_file(tmp_path, monkeypatch):
    """guidellm takes no list of options: the load stands in its configuration (mock tokenizer folder)."""
    monkeypatch.setattr(Job, "tokenizer", tmp_path)
    CLIENTS["guidellm"].command("python", job(tmp_path, Load(streams=7, requests=77, tokens=777)))
    spec = json.loads((tmp_path / "guidellm-config.json").read_text())["spec"]

    assert (spec["profile"]["streams"], spec["constraints"][0]["count"], spec["data"][0]["output_tokens"]) == ([7], 77, 777)


def test_no_proxy_and_no_hub(tmp_path, monkeypatch):
    """A client's environment: offline, telemetry off, temporary files in the run's own folder."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    env = peer_clients.environment(CLIENTS["aiperf"], job(tmp_path))

    assert "HTTPS_PROXY" not in env
    assert (env["HF_HUB_OFFLINE"], env["DO_NOT_TRACK"]) == ("1", "1")
    assert env["TMPDIR"] == env["HOME"] == env["HF_HOME"] == str(tmp_path)


def test_a_missing_environment_is_told_with_the_next_step(monkeypatch, tmp_path):
    """Nothing is run, and the reason is kept."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)

    assert peer_clients.missing([CLIENTS["ours"], CLIENTS["guidellm"]]) == {
        "guidellm": "the environment .venvs/guidellm is not there: run `nox -s peers`"
    }


def test_the_measured_requests_are_the_last_ones():
    """One warm-up, then two; whatever is no completion does not count, nor does the order of the list."""
    warm_up, other = request(0, 50, 60), request(500, ended="client left", path="/tokenize")

    assert peers.measured([*block(100), other, warm_up], "x", TWO, expected=1) == block(100)


@pytest.mark.parametrize(
    ("seen", "expected", "message"),
    [
        (block(100), 1, "x sent 2 requests where 1 and 2 were expected"),
        (block(100, 4), 1, "x sent 4 requests where 1 and 2 were expected"),
        ([request(0, 50, 200), *block(100)], 1, "x sent measured requests before its warm-up had ended"),
        ([request(0, 50, 60, 70), request(1, 50, 60)], 0, r"x: 1 of its requests did not end with 2 tokens \(one: 3 "),
        ([request(0, 50, 60), request(1, 50, 60, ended="client left")], 0, r"\(one: 2 tokens, client left\)"),
    ],
    ids=["too few", "too many", "overlap", "another length", "cut"],
)  # fmt: skip
def test_requests_that_cannot_be_told_apart_are_an_error(seen, expected, message):
    """Every part of the rule can fail, and says so."""
    with pytest.raises(PeerError, match=message):
        peers.measured(seen, "x", TWO, expected)


def test_true_figures_are_what_the_server_wrote():
    """TTFT 50 and 49 ms; 4 tokens from 100 to 160 ms; too few requests for a p99."""
    found = peers.true_figures(block(100))

    assert found == Figures(pytest.approx(49.5), pytest.approx(4 / 0.060), None)


def test_true_p99_is_there_from_460_requests():
    """Gaps of 10 ms, and of 20 ms in 1 of 10 requests: the 99th percentile is 20 ms."""
    gaps = [20 if i % 10 == 0 else 10 for i in range(timing.requests_for(99))]
    requests = [request(0, 50, 50 + gap) for gap in gaps]

    assert peers.true_figures(requests).itl_p99_ms == pytest.approx(20)
    assert peers.true_figures(requests[1:]).itl_p99_ms is None


def test_errors_are_said_minus_true():
    """TTFT in ms; rate and ITL in % of the truth; what one of them lacks is None."""
    run = Run("vllm", 1, 0, says=Figures(52.0, 99.0, 11.0), truth=Figures(50.0, 100.0, None))

    assert run.errors == {
        "ttft_ms": pytest.approx(2), "output_tokens_per_s_percent": pytest.approx(-1), "itl_p99_percent": None,
    }  # fmt: skip


def test_the_table_has_a_line_per_client_and_its_spread():
    """Three rounds, of which one failed: median and range of the two others, and the failure."""
    true = Figures(50.0, 100.0, 10.0)
    said = [Figures(51.0, 100.0, 11.0), Figures(53.0, 100.0, 11.0)]
    runs = [Run("vllm", 100, i, says=figures, truth=true) for i, figures in enumerate(said)]
    runs.append(Run("vllm", 100, 2, error="vllm bench serve did not end within 5 s: ..."))
    rows = peers.summary(runs)
    line = next(line for line in peers.as_text(rows).splitlines() if "vllm bench serve" in line)

    assert (rows[0]["rounds"], len(rows[0]["failures"]), rows[0]["ttft_ms"]["interval"]) == (2, 1, "min-max")
    assert "+2.0 (+1.0 to +3.0)" in line and "+10.0 (+10.0 to +10.0)" in line and line.endswith("failed 1 times")


def test_the_order_turns_round_from_round_to_round(monkeypatch):
    """Mock runs: a b, b a, a b; what was measured is kept after each round."""
    monkeypatch.setattr(peers, "run", lambda client, load, number: Run(client.name, load.streams, number, error="mock"))
    clients, kept = [replace(PYTHON, name="a"), replace(PYTHON, name="b")], []
    runs = peers.compare(clients, [SMALL], 3, lambda runs: kept.append(len(runs)))

    assert "".join(run.client for run in runs) == "abbaab"
    assert kept == [2, 4, 6]


def test_an_interrupt_keeps_what_was_measured(monkeypatch):
    """Mock runs, the second of which is interrupted."""

    def run(client, load, number):
        if client.name == "b":
            raise KeyboardInterrupt(signal.SIGINT)
        return Run(client.name, load.streams, number, error="mock")

    monkeypatch.setattr(peers, "run", run)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        peers.compare([replace(PYTHON, name="a"), replace(PYTHON, name="b")], [SMALL], 3, lambda runs: kept.append(len(runs)))

    assert kept == [1]


def test_a_client_that_fails_tells_its_last_error(tmp_path):
    """Exit code, and the log's last line that names an error, without colours."""
    code = r"print('\x1b[31mValueError: no such flag\x1b[0m\nbye'); raise SystemExit(3)"

    with pytest.raises(PeerError, match="^mock client ended with exit code 3: ValueError: no such flag$"):
        peers.execute(mock_client(code), job(tmp_path))


def test_a_client_that_hangs_is_ended_with_its_children(tmp_path):
    """The time limit is told in one line, and no process is left."""
    code = "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
    code += "print(c.pid, flush=True); time.sleep(99)"
    with pytest.raises(PeerError, match="^mock client did not end within 2 s: ") as caught:
        peers.execute(mock_client(code), job(tmp_path), timeout_s=2)

    assert not psutil.pid_exists(int(str(caught.value).rpartition(": ")[2]))


def test_our_client_is_held_against_the_truth():
    """The real thing, small: our client as a process, the server as another; all its requests are told apart."""
    found = peers.run(CLIENTS["ours"], SMALL, 0)

    assert (found.error, found.client, found.streams) == (None, "ours", 2)
    assert found.unmeasured >= 2 + SMALL.requests
    assert found.errors["ttft_ms"] is not None and found.errors["itl_p99_percent"] is None
    assert found.errors["output_tokens_per_s_percent"] is not None


def test_a_client_that_says_more_than_it_sent_is_an_error():
    """Our client, whose report is made to claim one good request too many (mock reading)."""
    ours = CLIENTS["ours"]

    def read(job):
        report = ours.read(job)
        return replace(report, good=report.good + 1)

    assert peers.run(replace(ours, read=read), SMALL, 0).error == "helpers.bench counts 5 good requests of 4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "ours,curl"], "--clients curl: choose from ours, vllm"),
        (["--streams", "2"], "--streams 2: choose from 1, 100"),
        (["--rounds", "0"], "--rounds 0: must be at least 1"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, message):
    """Exit code 2, and nothing is started."""
    with pytest.raises(SystemExit) as ended:
        peers.main(arguments)

    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(message) and said.count("\n") == 1


def test_stopped_in_the_middle_nothing_is_left(tmp_path):
    """The command with our client at 1 stream, ended while it runs: exit code 143, no folder, no process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.studies.peers", "--clients", "ours", "--streams", "1",
         "--json", str(tmp_path / "r.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert _soon(lambda: len(psutil.Process(process.pid).children(recursive=True)) >= 3)  # server, guard, client
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (143, "stopped; the runs that had ended are kept\n")
    assert list(tmp_path.iterdir()) == []
    assert _soon(lambda: not any(member.is_running() for member in family))


def _soon(true, timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def small_record() -> dict:
    """A record of two good rounds of one client."""
    true = Figures(50.0, 100.0, None)
    runs = [Run("vllm", 100, i, says=Figures(50.0 + i, 99.0, None), truth=true) for i in range(2)]
    machine = {"cpu": "a CPU", "cores": 2}
    provenance = {"machine": machine, "date": "2026-01-02T00:00:00", "versions": {"vllm": {"vllm": "1.0"}}}
    return {"summary": peers.summary(runs), "clients": {"vllm": {"title": "a title"}}, "provenance": provenance}
