"""``python -m helpers.bench`` as a reader runs it: a process, against a mock server."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from leftovers import wait_until

from helpers.bench import __main__, selftest
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

UNTESTED = ("--no-self-test", "--quiet")
FAST = ("--input-tokens", "8", "--output-tokens", "4", *UNTESTED)
FIGURE = {"median", "low", "high", "interval"}


def command(url: str, *arguments: str) -> list[str]:
    """A small load, unless ``arguments`` bring lengths of their own."""
    usual = UNTESTED if {"--trace", "--requests-file"} & {*arguments} else FAST
    return [sys.executable, "-m", "helpers.bench", "--base-url", url, "--model", "m", *usual, *arguments]


def bench(url: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **env}
    return subprocess.run(command(url, *arguments), capture_output=True, text=True, timeout=60, cwd=REPOSITORY, env=environment)


@pytest.fixture
def here(monkeypatch):
    """The command in this process, for what it says and not for how its process ends: its exit code."""
    monkeypatch.setattr(__main__.cli, "interruptible", lambda: None)  # the signals are those of the tests
    monkeypatch.chdir(REPOSITORY)
    return __main__.main


def test_the_json_has_the_promised_fields(tmp_path):
    """Two numbers of users: levels with figures and percentiles, the token source, the provenance."""
    file = tmp_path / "figures.json"
    with TruthServer(Script(gap_s=0.002)) as mock:
        run = bench(mock.base_url, "--users", "1,3", "--requests", "6", "--json", str(file))
    found = json.loads(file.read_text())

    assert (run.returncode, run.stderr) == (0, "")
    assert found.keys() == {"levels", "token_source", "provenance"}
    assert [(level["users"], level["requests"], level["repeats"], level["errors"]) for level in found["levels"]] == [
        (1, 6, 3, 0),
        (3, 6, 3, 0),
    ]
    for level in found["levels"]:
        assert level["output_tokens_per_s"].keys() == FIGURE and level["output_tokens_per_s"]["interval"] == "min-max"
        for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
            assert level[name].keys() == FIGURE | {"p50", "p90", "p99", "n"}
        assert (level["ttft_s"]["n"], level["ttft_s"]["p99"], level["label"]) == (18, None, None)
    assert found["token_source"] == "server_usage"
    assert {"date", "machine", "plan", "workload_sha256", "base_url", "model"} <= found["provenance"].keys()


def test_the_table_has_a_line_per_number_of_users():
    """On standard output, and nothing else there."""
    with TruthServer() as mock:
        run = bench(mock.base_url, "--users", "1,2", "--requests", "2")

    notes = ("machine: ", "at 1: ", "at 2: ")
    head, *lines, counted = (line for line in run.stdout.splitlines() if not line.startswith(notes))
    assert head.split()[:3] == ["users", "requests", "errors"]
    assert counted == "tokens counted by: server_usage"
    assert [line.split()[:3] for line in lines] == [["1", "6", "0"], ["2", "6", "0"]]


def test_an_endpoint_that_is_not_there(tmp_path):
    """One line with the address and the reason; exit code 1; no file."""
    run = bench("http://127.0.0.1:9/v1", "--json", str(tmp_path / "figures.json"))

    assert (run.returncode, run.stdout, list(tmp_path.iterdir())) == (1, "", [])
    assert run.stderr.startswith("http://127.0.0.1:9/v1 gives no answer to measure: refused: 127.0.0.1:9 did not take")
    assert run.stderr.count("\n") == 1


def test_an_endpoint_that_sends_a_byte_a_second_is_given_up_in_time():
    """After the --timeout, in one line, with whatever has come."""
    with TruthServer(Script(end="trickle")) as mock:
        run = bench(mock.base_url, "--timeout", "1")

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"{mock.base_url} gives no answer to measure: stalled: no end within 1 s\n"


BAD = [
    (["--repeats", "1"], "1 repeats and 1 warm-ups give no spread"),
    (["--users", "0"], "users=(0,): give numbers of at least 1, like 1,10,100"),
    (["--users", "one"], "--users 'one': give whole numbers with commas, like 1,10,100"),
    (["--output-tokens", "-1"], "output_tokens=-1: must be at least 1"),
    (["--timeout", "0"], "warmups=1, timeout_s=0: give no negative number, and some time"),
    (["--json", "no/such/folder/x.json"], "--json no/such/folder/x.json: its folder does not exist; make it first"),
    (["--json", "x" * 300], f"--json {'x' * 300}: cannot be written (File name too long); give another place"),
    (["--json", "tests"], "--json tests: is a folder; give the name of a file in it"),
    (["--base-url", "localhost:8000"], "base URL 'localhost:8000' is not http(s)://host[:port]/path"),
    (["--api-key", "two words"], "the API key holds a space"),
    (["--rate", "fast"], "--rate 'fast': give numbers with commas, like 0.5,2"),
    (["--rate", "0"], "rates_per_s=(0.0,): give rates above 0, like 0.5,2"),
    (["--slo", "speed=1"], "--slo 'speed=1': give seconds for ttft, answer, tpot, e2e, like ttft=0.2,tpot=0.05"),
    (["--slo", "ttft"], "--slo 'ttft': give seconds for ttft, answer, tpot, e2e, like ttft=0.2,tpot=0.05"),
    (["--input-tokens", "lots"], "--input-tokens 'lots': give a number, or one of uniform:LOW:HIGH, normal:MEAN:SD"),
    (["--turns", "0"], "--turns '0': 0 must be at least 1"),
    (["--turns", "2", "--think", "-1"], "--think '-1': -1 must be at least 0"),
    (["--think", "3"], "--think is between the turns of a conversation: give --turns too"),
    (["--system-tokens", "-5"], "system_tokens=-5: must be at least 0"),
    (["--stretch", "2"], "--stretch and --trace-block are of a trace: give --trace FILE too"),
    (["--trace", "gone.jsonl", "--rate", "5"], "--trace brings its own rate: leave out --rate"),
    (["--trace", "gone.jsonl", "--requests-file", "x"], "--trace and --requests-file: give one of them"),
    (["--requests-file", "gone.json", "--turns", "3"], "--requests-file brings its own turns: leave out --turns"),
    (
        ["--requests-file", "x", "--output-tokens", "normal:9:1"],
        "--output-tokens 'normal:9:1': of a file's requests give one number",
    ),
    (["--slo", "ttft=inf"], "--slo 'ttft=inf': give seconds for ttft, answer, tpot, e2e, like ttft=0.2,tpot=0.05"),
    (["--find", "ttft=-1"], "--find 'ttft=-1': give seconds for ttft, answer, tpot, e2e, like ttft=0.2,tpot=0.05"),
    (["--find", "ttft=1", "--share", "1"], "share=1: must be from 0.5 to below 1; no number of requests shows that all keep"),
    (["--price-per-hour", "0"], "--price-per-hour 0: give what an hour of the machine costs, above 0"),
    (["--tokenizer", "no/such"], "tokenizer 'no/such' cannot be read (FileNotFoundError): give a folder with tokenizer.json"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments)[:40] for arguments, _ in BAD])
def test_bad_arguments_are_one_line_and_nothing_is_sent(here, capsys, arguments, message):
    """Exit code 2; that it is the process's too is seen of a malformed trace."""
    with TruthServer() as mock:
        code = here(command(mock.base_url, *arguments)[3:])
    out, err = capsys.readouterr()

    assert (code, out, mock.received) == (2, "", [])
    assert err.startswith(message) and err.count("\n") == 1


def test_a_table_that_cannot_be_printed_costs_no_figure(tmp_path):
    """Standard output is a full disk: one line, exit code 1, and the JSON is whole."""
    file = tmp_path / "figures.json"
    with TruthServer() as mock, open("/dev/full", "w") as full:
        asked = command(mock.base_url, "--users", "1", "--requests", "1", "--json", str(file))
        run = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, cwd=REPOSITORY)

    assert (run.returncode, run.stderr) == (1, "standard output could not be written (No space left on device)\n")
    assert json.loads(file.read_text())["levels"][0]["output_tokens_per_s"]


def test_figures_that_cannot_be_written_any_more_are_in_the_table(tmp_path, here, monkeypatch, capsys):
    """A mock of a disk that is full when all is measured: said, and the table follows."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(__main__.records, "write_json", full)
    with TruthServer() as mock:
        asked = command(mock.base_url, "--users", "1", "--requests", "1", "--json", str(tmp_path / "x.json"))
        code = here(asked[3:])
    out, err = capsys.readouterr()

    assert code == 1 and out.startswith(" users")
    said = f"--json {tmp_path}/x.json: could not be written (No space left on device); the table has the figures"
    assert err.splitlines()[-1] == said


def limited(files: str, *arguments: str) -> subprocess.CompletedProcess:
    """A Python that may have so many ``files`` open."""
    under = ["bash", "-c", f'ulimit {files} && exec "$@"', "bash", sys.executable, *arguments]
    return subprocess.run(under, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)


def test_more_users_than_files_may_be_open_are_refused_before_anything_starts():
    """One line, and what to do."""
    refused = limited("-n 300", "-m", "helpers.bench", "--self-test", "--users", "400")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "400 connections need 500 open files, and this system allows 300: ask for fewer users, or raise its limit (ulimit -Hn)\n"
    )


def test_the_limit_of_a_shell_is_raised_where_the_system_lets_it_be():
    """From the usual soft limit to what the users need."""
    code = "import resource; from helpers.bench import connection; connection.room_for(60)"
    raised = limited("-Sn 64", "-c", f"{code}; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])")

    assert (raised.returncode, raised.stdout, raised.stderr) == (0, "160\n", "")


def test_a_single_run_can_be_had_and_is_labelled(tmp_path):
    """The label stands in the table and in the JSON."""
    file = tmp_path / "figures.json"
    with TruthServer() as mock:
        run = bench(mock.base_url, "--users", "1", "--repeats", "1", "--warmups", "0", "--allow-few", "--json", str(file))

    label = "not a measurement: 1 repeats after 0 warm-ups"
    assert (run.returncode, json.loads(file.read_text())["levels"][0]["label"]) == (0, label)
    assert run.stdout.splitlines()[1].endswith(label)


def test_the_key_is_printed_nowhere(tmp_path):
    """Not by its option, not from the environment, not from the address."""
    file = tmp_path / "figures.json"
    with TruthServer() as mock:
        url = mock.base_url.replace("://", "://user:pass-word@")
        run = bench(url, "--users", "1", "--requests", "1", "--json", str(file), OPENAI_API_KEY="sk-secret")

        assert mock.received[0].headers["authorization"] == "Bearer sk-secret"
    said = run.stdout + run.stderr + file.read_text()
    assert run.returncode == 0 and "sk-secret" not in said and "pass-word" not in said


def test_a_server_that_refuses_ignore_eos_is_asked_without():
    """Strict servers answer 400 to a field they do not know."""

    def strict(number: int, body: dict) -> Script:
        return Script(status=400, answer={"error": "extra field"}) if "ignore_eos" in body else Script()

    with TruthServer(strict) as mock:
        run = bench(mock.base_url, "--users", "1", "--requests", "1")

    assert run.returncode == 0 and "ignore_eos" not in mock.received[-1].body


def test_goodput_counts_the_requests_within_the_limits(tmp_path):
    """Every second answer begins after 0.15 s: with a limit of 0.1 s half of the requests are good."""
    file = tmp_path / "figures.json"
    with TruthServer(lambda number, body: Script(first_s=0.15 * (number % 2))) as mock:
        run = bench(mock.base_url, "--users", "1", "--requests", "4", "--slo", "ttft=0.1,tpot=5", "--json", str(file))
    (level,) = json.loads(file.read_text())["levels"]

    per_request = level["output_tokens_per_s"]["median"] / 4
    assert run.returncode == 0 and "goodput, requests/s" in run.stdout
    assert level["slo"] == {"ttft_s": 0.1, "tpot_s": 5.0}
    assert level["goodput_requests_per_s"]["median"] == pytest.approx(per_request / 2, rel=0.2)


def test_the_most_users_that_keep_limits_are_found(tmp_path):
    """A server with room for two: the table of what was tried, and the result with its interval, in words and in the JSON."""
    file = tmp_path / "figures.json"
    asked = ("--find", "ttft=0.1", "--share", "0.9", "--users", "1,8", "--json", str(file))
    with TruthServer(lambda number, body: Script(first_s=0.02 if mock.at_once <= 2 else 0.15)) as mock:
        run = bench(mock.base_url, *asked)
    found = json.loads(file.read_text())

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith("2 users keep ttft <= 0.1 s for 90 % of the requests (")
    assert (found["found"]["keeps"], found["found"]["exceeds"], found["found"]["share"]) == (2, 3, 0.9)
    assert {level["users"] for level in found["levels"]} >= {1, 2, 3} and found["levels"][0]["slo"] == {"ttft_s": 0.1}


def test_a_price_per_hour_gives_prices_per_million_tokens(tmp_path):
    """Input and output apart, in the table and in the JSON; together they are the machine's cost."""
    file = tmp_path / "figures.json"
    with TruthServer(Script(first_s=0.05, gap_s=0.02)) as mock:
        run = bench(mock.base_url, "--users", "1", "--requests", "2", "--price-per-hour", "3.6", "--json", str(file))
    (level,) = json.loads(file.read_text())["levels"]
    prices = level["price"]["per_million_tokens"]

    assert run.returncode == 0 and "at 1: 3.6 per hour: " in run.stdout
    assert prices["output_alone"]["median"] == pytest.approx(1000 / level["output_tokens_per_s"]["median"])
    together = 8 * prices["input"]["median"] + 4 * prices["output"]["median"]  # tokens in and out of each request
    assert together == pytest.approx(4 * prices["output_alone"]["median"], rel=0.05)


def test_thoughts_and_events_of_several_tokens_are_said_under_the_table(tmp_path):
    """Two events of thought and two of text, three tokens each: the first answer's time, and what the ITL lies between."""
    file = tmp_path / "figures.json"
    asked = ("--users", "1", "--requests", "2", "--endpoint", "chat", "--output-tokens", "12", "--json", str(file))
    with TruthServer(Script(kinds=("reasoning", "reasoning", "content"), tokens_per_event=3, gap_s=0.01)) as mock:
        run = bench(mock.base_url, *asked)
    (level,) = json.loads(file.read_text())["levels"]
    note = run.stdout.splitlines()[2]

    assert run.returncode == 0
    assert note.startswith("at 1: 12 of reasoning among 24 events; time to first answer, s: 0.0")
    assert (
        "; the server does not count reasoning tokens; ITL is between events of 3.00 tokens; per token by usage, s: 0.00" in note
    )
    assert level["time_to_first_answer_s"]["median"] > level["ttft_s"]["median"]
    assert (level["itl_basis"], level["events_by_kind"]) == ("events of 3.00 tokens", {"reasoning": 12, "text": 12})
    assert level["reasoning_tokens"] is None


def test_answers_in_one_moment_have_no_time_per_token(tmp_path):
    """All twelve tokens in one event: no TPOT instead of 0, and the reason under the table."""
    file = tmp_path / "figures.json"
    asked = ("--users", "1", "--requests", "2", "--output-tokens", "12", "--json", str(file))
    with TruthServer(Script(tokens_per_event=12)) as mock:
        run = bench(mock.base_url, *asked)
    (level,) = json.loads(file.read_text())["levels"]

    assert run.returncode == 0 and level["tpot_s"] is None and level["output_tokens"] == [12]
    assert "; 6 of 6 answers came in one moment and have no TPOT" in run.stdout.splitlines()[2]


def test_conversations_after_a_system_prompt_show_the_expected_and_the_reported_hits(tmp_path):
    """A server that reports no hit: both counts stand under the table, and the plan in the JSON."""
    file = tmp_path / "figures.json"
    asked = ("--users", "2", "--requests", "2", "--system-tokens", "16", "--turns", "2", "--think", "0.01", "--json", str(file))
    with TruthServer() as mock:
        run = bench(mock.base_url, *asked)
    found = json.loads(file.read_text())

    assert run.returncode == 0
    expected = "at 2: a prefix cache without an end would hold 240 of 360 prompt tokens; the server reports 0"
    assert expected in run.stdout.splitlines()
    assert found["levels"][0]["prefix_cache"] == {"prompt_tokens": 360, "expected_low": 240, "expected_high": 240, "reported": 0}
    assert found["provenance"]["plan"]["source"]["turns"] == "2"


def test_a_trace_is_replayed(tmp_path):
    """Four requests in 0.06 s, stretched to twice the time: their rate, the file's name and hash, nothing of its folder."""
    file, trace = tmp_path / "figures.json", tmp_path / "trace.jsonl"
    rows = [{"timestamp": 20 * i, "input_length": 600, "output_length": 3, "hash_ids": [0, i]} for i in range(4)]
    trace.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with TruthServer() as mock:
        run = bench(mock.base_url, "--trace", str(trace), "--stretch", "2", "--json", str(file))
    found = json.loads(file.read_text())
    (level,), source = found["levels"], found["provenance"]["plan"]["source"]

    assert (run.returncode, run.stderr) == (0, "")
    assert (level["requests"], level["rate_per_s"], level["prompt_tokens"]) == (4, pytest.approx(4 / 0.12), [600])
    assert level["prefix_cache"]["expected_high"] == 3 * 3 * 512
    assert (source["kind"], source["file"], source["span_s"]) == ("trace", "trace.jsonl", pytest.approx(0.12))
    assert str(tmp_path) not in json.dumps(found)


def test_a_file_of_conversations_is_sent(tmp_path):
    """As messages on the chat route."""
    file = tmp_path / "talks.json"
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Bye"}]
    file.write_text(json.dumps([{"id": "1", "conversations": said}]))
    with TruthServer() as mock:
        run = bench(mock.base_url, "--requests-file", str(file), "--users", "1", "--requests", "1", "--endpoint", "chat")
        last = mock.received[-1].body["messages"]

    assert (run.returncode, run.stderr) == (0, "")
    assert last == [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), ("Hi", "Hello.", "Bye"))]


def test_a_malformed_trace_names_its_line_and_nothing_is_sent(tmp_path):
    """Exit code 2."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 5, "output_length": 3}\n{"timestamp": 0, "input_length": 5}\n')
    with TruthServer() as mock:
        run = bench(mock.base_url, "--trace", str(trace))

    assert (run.returncode, run.stdout, mock.received) == (2, "", [])
    assert run.stderr == f"{trace}, line 2: the field 'output_length' is missing\n"


def test_an_open_loop_has_rates_instead_of_users(tmp_path):
    """100 requests/s: the level has the rate, the wait in the client, and no number of users."""
    file = tmp_path / "figures.json"
    with TruthServer() as mock:
        run = bench(mock.base_url, "--rate", "100", "--requests", "10", "--json", str(file))
    (level,) = json.loads(file.read_text())["levels"]

    assert (run.returncode, level["users"], level["rate_per_s"], level["requests"]) == (0, None, 100.0, 10)
    assert level["queue_s"]["n"] == 30
    assert run.stdout.splitlines()[0].split()[0] == "rate/s"


def test_a_tokenizer_gives_prompts_of_its_words(tmp_path):
    """A file with four words: the prompt has no other."""
    words = {"\u0120one": 0, "\u0120two": 1, "\u0120three": 2, "x": 3, **{f"\u0120w{chr(97 + i)}": 4 + i for i in range(20)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    with TruthServer() as mock:
        run = bench(mock.base_url, "--users", "1", "--requests", "2", "--tokenizer", str(tmp_path))
        said = {word for request in mock.received for word in request.prompt.split()}

    assert run.returncode == 0
    assert said <= {entry[1:] for entry in words if entry[0] == "\u0120"}


def test_the_client_measures_itself_first(tmp_path):
    """Its error and its ceiling are printed, and stand in the provenance."""
    file = tmp_path / "figures.json"
    with TruthServer() as mock:
        asked = [part for part in command(mock.base_url, "--users", "2", "--json", str(file)) if part != "--no-self-test"]
        run = subprocess.run(asked, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    tested = json.loads(file.read_text())["provenance"]["instrument"]["2"]

    assert run.returncode == 0
    error = r"TTFT [+-]\d+\.\d\d ms, tokens/s .* %, ITL p99 .* %"
    assert re.fullmatch(rf"instrument at 2 users: {error}; ceiling (at least )?[\d,]+ events/s\n", run.stderr)
    assert tested["users"] == 2 and tested["ceiling_events_per_s"] > 0


def test_the_self_test_needs_no_endpoint(here, monkeypatch, capsys):
    """A short one: what it says is looked at, and not how good it is. An endpoint is missed where there is no self-test."""
    monkeypatch.setattr(selftest, "TOKENS", 8)
    monkeypatch.setattr(selftest, "CEILING_RATES", (10_000,))
    monkeypatch.setattr(selftest, "CEILING_S", 0.1)

    code, out, err = here(["--self-test", "--users", "1"]), *capsys.readouterr()
    assert (code, err) == (0, "") and out.startswith("instrument at 1 user: TTFT ")
    code, out, err = here([]), *capsys.readouterr()
    assert (code, out) == (2, "") and err.startswith("--base-url and --model are missing: give the address")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_it_keeps_what_was_measured(tmp_path, number, code):
    """The first number of users is done, the second stalls: the file has the first, and nothing lies beside it."""
    file = tmp_path / "figures.json"
    with TruthServer(lambda n, body: Script(first_s=0.05) if mock.at_once < 2 else Script(end="stall")) as mock:
        process = subprocess.Popen(
            command(mock.base_url, "--users", "1,2", "--requests", "2", "--json", str(file)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        assert wait_until(lambda: mock.most_at_once == 2, 30)
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)

        assert wait_until(lambda: mock.at_once == 0)
    assert (process.returncode, [path.name for path in tmp_path.iterdir()]) == (code, ["figures.json"])
    assert [level["users"] for level in json.loads(file.read_text())["levels"]] == [1]
    assert errors == "stopped: 1 of 2 numbers of users were measured and are kept\n"


def test_a_search_that_is_stopped_keeps_what_it_tried(tmp_path):
    """One user is tried, two stall: the file has the one, and no result is claimed."""
    file = tmp_path / "figures.json"
    with TruthServer(lambda number, body: Script() if mock.at_once < 2 else Script(end="stall")) as mock:
        asked = command(mock.base_url, "--find", "ttft=5", "--share", "0.9", "--json", str(file))
        process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert wait_until(lambda: mock.at_once == 2, 30)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    found = json.loads(file.read_text())

    assert (process.returncode, errors) == (130, "stopped: 1 numbers of users were measured and are kept\n")
    assert [level["users"] for level in found["levels"]] == [1] and "found" not in found
    assert "keep ttft" not in output


def test_stopped_before_anything_was_measured_it_writes_nothing(tmp_path):
    """The probe stalls: no file, no table, the signal's exit code, at once."""
    file = Path(tmp_path / "figures.json")
    with TruthServer(Script(end="stall")) as mock:
        process = subprocess.Popen(
            command(mock.base_url, "--json", str(file)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        assert wait_until(lambda: mock.at_once == 1, 30)
        sent = time.monotonic()
        process.terminate()
        output, errors = process.communicate(timeout=20)

    assert (process.returncode, output, file.exists(), time.monotonic() - sent < 10) == (143, "", False, True)
    assert errors == "stopped: 0 of 3 numbers of users were measured and are kept\n"
