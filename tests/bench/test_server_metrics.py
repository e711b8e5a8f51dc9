"""The server's own metrics beside the client's figures: a truth server with a mock of an engine's /metrics page."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.bench import measure, page, server_metrics
from helpers.bench.__main__ import as_text, report
from helpers.bench.beside import Beside
from helpers.bench.client import Endpoint
from helpers.bench.find import Search
from helpers.bench.measure import Plan, Sender
from helpers.bench.server_metrics import Looks, Unreadable, Watch
from helpers.bench.timing import Level, Sample
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

SMALL = Plan(users=(4,), requests=4, input_tokens=8, output_tokens=4, settle=False)
SLOW = Script(first_s=0.6, gap_s=0.01)  # the first look at the page is after 0.2 s, or a little later


def first_tokens_s(mock: TruthServer) -> list[float]:
    """How long the server really took for each first token."""
    return [(one.written_ns[0] - one.received_ns) / 1e9 for one in mock.received if one.written_ns]


def vllm_page(mock: TruthServer, *, hits: int = 0, kv: str = "0.25") -> str:
    """What vLLM would say of what the truth server did, between lines that are not read."""
    took = first_tokens_s(mock)
    return f"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {float(mock.at_once)}
vllm:num_requests_waiting{{engine="0",model_name="m"}} 2.0
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 100.0
vllm:kv_cache_usage_perc{{engine="0"}} {kv}
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total{{engine="0"}} {float(hits)}
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.25"}} 1.0
vllm:time_to_first_token_seconds_count{{engine="0"}} {float(len(took))}
vllm:time_to_first_token_seconds_sum{{engine="0"}} {sum(took)!r}
process_resident_memory_bytes 1e9
"""


@contextmanager
def like_vllm(script: Script = SLOW, **how) -> Iterator[TruthServer]:
    """A truth server with that page."""
    with TruthServer(script, metrics=lambda: vllm_page(mock, **how)) as mock:
        yield mock


@contextmanager
def answering(answer) -> Iterator[str]:
    """A server whose every GET is answered by ``answer(handler)``; its base URL."""
    handler = type("Handler", (BaseHTTPRequestHandler,), {"do_GET": answer, "log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def measured() -> tuple[Level, list[float]]:
    """A level of four users with its server's metrics, and the server's true times to first token in the three repeats."""
    with like_vllm() as mock:
        beside = Beside(Endpoint(mock.base_url, "m"))
        found = measure.measure(Endpoint(mock.base_url, "m"), SMALL, watched=beside.repeat)
        return beside.note(found[0]), first_tokens_s(mock)[-12:]


def test_the_servers_own_ttft_stands_beside_ours(measured):
    """Of the three repeats and neither of the probe nor of the warm-up: the histogram's growth; and the difference."""
    level, did = measured
    ttft = level.server_metrics["ttft_s"]

    assert (ttft["server_requests"], ttft["client_requests"]) == (12, 12)
    assert ttft["server"] == pytest.approx(sum(did) / 12)
    assert ttft["client"] == pytest.approx(sum(s.ttft_s for s in level.samples) / 12)
    assert ttft["difference"] == pytest.approx(ttft["client"] - ttft["server"])


def test_the_gauges_are_looked_at_during_the_repeats(measured):
    """Four run and two wait while the requests are under way; a quarter of the KV cache is full."""
    found = measured[0].server_metrics

    assert found["engine"] == "vllm" and found["looks"] >= 3
    assert found["running"]["most"] == 4 and found["waiting"] == {"mean": 2.0, "most": 2.0}
    assert found["kv_used"] == {"mean": 0.25, "most": 0.25} and found["prefix_hit_tokens"] == 0


def test_the_table_the_json_and_the_page_have_them(measured):
    """A note under the table, ``server_metrics`` in the level, a section of the page."""
    level, _ = measured
    source = {"model": "m", "base_url": "u", "endpoint": "chat", "date": "2026-11-30", "instrument": {}, "plan": SMALL.facts()}
    content = json.loads(json.dumps(report([level], {**source, "workload_sha256": "0"})))
    (note,) = (line for line in as_text([level]).splitlines() if "the server's own metrics" in line)
    made = page.html(content, [level], "x")

    assert content["levels"][0]["server_metrics"] == level.server_metrics
    assert note.startswith("at 4: the server's own metrics (vllm): TTFT 0.6")
    assert ", at most 4, waiting 2, at most 2, KV cache used 25.0%, at most 25.0%, 0 prompt tokens from its" in note
    assert "<h2>The server&#x27;s own metrics</h2>" in made and "<td>25.0%, at most 25.0%</td>" in made


def test_a_page_without_them_has_no_such_section():
    """Nothing is said of what is not there."""
    level = Level(1, ((Sample(0, (1,), output_tokens=1, token_source="events"),),))
    source = {"model": "m", "base_url": "u", "endpoint": "chat", "date": "2026-11-30", "instrument": {}, "plan": SMALL.facts()}

    assert "own metrics" not in as_text([level])
    assert "own metrics" not in page.html(report([level], {**source, "workload_sha256": "0"}), [level], "x")


SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0"} 3.0
sglang:num_queue_reqs{model_name="m"} 1.0
sglang:token_usage{model_name="m"} 0.5
sglang:max_total_num_tokens{model_name="m"} 1000.0
sglang:time_to_first_token_seconds_sum{model_name="m"} SUM
sglang:time_to_first_token_seconds_count{model_name="m"} COUNT
"""
LLAMA_CPP = """\
llamacpp:prompt_tokens_total 10
llamacpp:requests_processing 2
llamacpp:requests_deferred 5
"""
BLOCK = (Sample(0, (600_000_000, 700_000_000), output_tokens=2),) * 2


def test_the_names_of_sglang_are_known():
    """A counter with labels that is not on the page yet is 0; two requests in 1 s more; the client was 0.1 s later."""
    before, after = (SGLANG.replace("SUM", total).replace("COUNT", count) for total, count in (("4", "8"), ("5", "10")))
    after += 'sglang:cached_tokens_total{cache_source="device"} 64.0\n'
    found = server_metrics.beside([(BLOCK, Looks(before, after, (before,)))], "sglang")

    assert server_metrics.kernel_of(before) == "sglang"
    assert (found["running"]["most"], found["waiting"]["most"], found["kv_used"]["most"]) == (3, 1, 0.5)
    assert found["prefix_hit_tokens"] == 64
    assert (found["ttft_s"]["server"], found["ttft_s"]["difference"]) == (0.5, pytest.approx(0.1))


def test_what_llama_cpp_does_not_say_is_none():
    """It has neither a time to first token nor, on this page, the use of its cache; None, and not 0."""
    found = server_metrics.beside([(BLOCK, Looks(LLAMA_CPP, LLAMA_CPP, (LLAMA_CPP,)))], "llama-cpp")

    assert server_metrics.kernel_of(LLAMA_CPP) == "llama-cpp"
    assert (found["running"]["most"], found["waiting"]["most"]) == (2, 5)
    assert (found["ttft_s"], found["kv_used"], found["prefix_hit_tokens"]) == (None, None, None)
    assert server_metrics.line(found).endswith("(llama-cpp): running 2, at most 2, waiting 5, at most 5")


def test_two_half_full_caches_are_not_one_full_cache():
    """Engines are summed where they count, and not where they have a share."""
    twice = "".join(f'{name}{{engine="{n}"}} 0.5\n' for n in (0, 1) for name in ("vllm:kv_cache_usage_perc",))

    assert server_metrics.read(twice, "vllm").kv_used == 0.5


def test_a_server_that_was_started_anew_has_no_growth():
    """Its counters are lower than before: no figure, and no negative one."""
    before, after = (SGLANG.replace("SUM", total).replace("COUNT", count) for total, count in (("4", "8"), ("1", "2")))

    assert server_metrics.beside([(BLOCK, Looks(before, after))], "sglang")["ttft_s"] is None


def test_requests_of_others_are_said():
    """The server counts more than the client sent: its mean is not of the same requests."""
    before, after = (SGLANG.replace("SUM", total).replace("COUNT", count) for total, count in (("4", "8"), ("9", "18")))
    found = server_metrics.beside([(BLOCK, Looks(before, after))], "sglang")

    assert "+100.00 ms; it counts 10 requests, the client 2" in server_metrics.line(found)


def test_only_known_lines_are_kept():
    """A page of an engine is large, and one is kept every second."""
    with like_vllm() as mock:
        kept = server_metrics.Page(Endpoint(mock.base_url, "m")).known_lines()

    assert "vllm:time_to_first_token_seconds_sum" in kept
    assert not [line for line in kept.splitlines() if line.startswith(("#", "process")) or "bucket" in line]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda self: self.send_error(404), "/metrics answers HTTP 404"),
        (lambda self: self.send_error(401), "/metrics answers HTTP 401"),
        (lambda self: self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n<html>"), "/metrics has no name that is known here: those of"),
        (lambda self: self.wfile.write(b"no HTTP\r\n\r\n"), "/metrics did not answer ("),
    ],
)
def test_an_endpoint_without_the_page_is_no_error(answer, reason):
    """A word why, for the provenance; the level has nothing."""
    with answering(answer) as url:
        beside = Beside(Endpoint(url, "m"))
        with beside.repeat("", 1):
            pass

    assert beside.facts()["server_metrics"].startswith(f"none: {reason}")
    assert beside.note(Level(1, (BLOCK,))).server_metrics is None


def test_a_page_that_comes_a_byte_a_second_is_given_up_in_time(monkeypatch):
    """Some bytes always come, and never all: the command would wait for hours before it sends the first request."""
    gone = threading.Event()

    def slowly(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while not gone.wait(0.2):
            self.wfile.write(b"#")

    monkeypatch.setattr(server_metrics, "TIMEOUT_S", 1)
    with answering(slowly) as url, pytest.raises(Unreadable, match=r"^/metrics did not answer \(no end within 1 s\)$"):
        try:
            Watch(Endpoint(url, "m"))
        finally:
            gone.set()


def test_a_page_that_goes_away_costs_its_repeat_and_no_more():
    """The second of two repeats has no page at its end: the first one's figures stay, with its own requests."""
    gone = threading.Event()

    def serve(self) -> None:
        if gone.is_set():
            self.send_error(503)
        else:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + SGLANG.replace("SUM", "1").replace("COUNT", "2").encode())

    with answering(serve) as url:
        watch = Watch(Endpoint(url, "m"))
        with watch.repeat(1):
            pass
        with watch.repeat(1):
            gone.set()
    looks = watch.looks[1]

    assert looks[0] is not None and looks[1] is None
    assert watch.of(Level(1, (BLOCK, BLOCK)))["engine"] == "sglang"


def test_the_key_goes_to_the_server_and_to_no_other():
    """The page may ask for it; a redirect to another server is not followed."""
    seen = []

    def other(self) -> None:
        seen.append(self.headers["Authorization"])
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")

    def here(self) -> None:
        seen.append(self.headers["Authorization"])
        self.send_response(307)
        self.send_header("Location", f"{elsewhere.removesuffix('/v1')}/metrics")
        self.end_headers()

    with answering(other) as elsewhere, answering(here) as url, pytest.raises(Unreadable, match="HTTP 307"):
        Watch(Endpoint(url, "m", api_key="sk-secret"))
    assert seen == ["Bearer sk-secret"]


def test_a_redirect_on_the_same_server_is_followed():
    """SGLang's, from /metrics to /metrics/."""

    def serve(self) -> None:
        if self.path.endswith("/"):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + SGLANG.encode())
        else:
            self.send_response(307)
            self.send_header("Location", "/metrics/")
            self.end_headers()

    with answering(serve) as url:
        assert Watch(Endpoint(url, "m")).kernel == "sglang"


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("http://h:1/v1", "http://h:1/metrics"),
        ("http://h:1/v1/", "http://h:1/metrics"),
        ("https://user:word@h/openai/v1", "https://h/openai/metrics"),
        ("http://h:1", "http://h:1/metrics"),
    ],
)
def test_the_page_stands_beside_the_api(base, address):
    """Without a user's name in the address."""

    assert server_metrics.Page(Endpoint(base, "m")).url == address


def test_a_search_has_them_at_every_load():
    """Each load that was tried has its own repeats' figures."""
    with like_vllm(Script(first_s=0.02)) as mock:
        endpoint = Endpoint(mock.base_url, "m")
        beside, plan = Beside(endpoint), Plan(input_tokens=8, output_tokens=2)
        sender = Sender(measure.probe(endpoint, plan), plan, "users", None, watched=beside.repeat)
        search = Search(sender, {"ttft_s": 60}, 0.9, 1, 2)
        search.run()
        levels = list(map(beside.note, sender.levels(search.blocks)))

    assert [level.users for level in levels] == [1, 2]
    for level in levels:
        ttft = level.server_metrics["ttft_s"]
        assert ttft["server_requests"] == ttft["client_requests"] == len(level.samples)


def command(mock: TruthServer, *arguments: str) -> subprocess.CompletedProcess:
    small = ["--users", "2", "--requests", "4", "--input-tokens", "8", "--output-tokens", "4", "--no-self-test"]
    asked = [sys.executable, "-m", "helpers.bench", "--base-url", mock.base_url, "--model", "m", *small, *arguments]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)


def test_the_command_reads_the_page(tmp_path):
    """The note, the level's figures, and where they come from."""
    file = tmp_path / "figures.json"
    with like_vllm(Script(first_s=0.1)) as mock:
        done = command(mock, "--json", str(file))
    found = json.loads(file.read_text())

    assert done.returncode == 0 and "at 2: the server's own metrics (vllm): TTFT 0.1" in done.stdout
    assert found["levels"][0]["server_metrics"]["ttft_s"]["server_requests"] == 12  # four in each of three repeats
    assert found["provenance"]["server_metrics"] == "of vllm, from /metrics"


def test_the_command_leaves_the_page_alone_where_it_is_told_to(tmp_path):
    """Not one look."""
    file, looks = tmp_path / "figures.json", []
    with TruthServer(metrics=lambda: looks.append(1) or "") as mock:
        done = command(mock, "--no-server-metrics", "--json", str(file))
    found = json.loads(file.read_text())

    assert (done.returncode, done.stderr, looks) == (0, "", [])
    assert found["levels"][0]["server_metrics"] is None
    assert found["provenance"]["server_metrics"] == "not read: the run was asked to leave them out"
