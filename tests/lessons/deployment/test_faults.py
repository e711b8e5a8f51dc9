"""The proxy that breaks a real server, with llama.cpp behind it."""

import threading
import time

import httpx
import pytest

from helpers.lessons.deployment import faults
from helpers.lessons.deployment.faults import Fault
from helpers.servers import serving

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def server():
    with serving.serve("llama-cpp", slots=2, context=256, extra=("--threads", "1")) as running:
        yield running


@pytest.fixture
def remote(server):
    with faults.proxy(server.base_url) as proxy:
        yield proxy


def ask(base_url: str, text: str = "Say hello.", tokens: int = 4, timeout_s: float = 30, **more) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0, **more}
    return httpx.post(f"{base_url}/chat/completions", json=body, timeout=timeout_s, trust_env=False)


def settled(remote, count: int) -> list[str]:
    """The outcomes of ``count`` requests, once none is under way."""
    deadline = time.monotonic() + 10
    while "under way" in (found := [got.outcome for got in remote.received]) or len(found) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_a_healthy_proxy_changes_no_answer(remote, server):
    """The text that comes through is the engine's own."""
    texts = [ask(url).json()["choices"][0]["message"]["content"] for url in (remote.base_url, server.base_url)]

    assert texts[0] == texts[1]
    assert settled(remote, 1) == ["answered"]


def test_it_passes_a_stream_through(remote):
    """Server-sent events come to their end."""

    assert ask(remote.base_url, stream=True).text.rstrip().endswith("data: [DONE]")


def test_it_keeps_what_it_received(remote):
    """Path and body of every request, whatever became of it."""
    remote.set(Fault("overloaded"))
    ask(remote.base_url, "my own words")

    assert [got.path for got in remote.received] == ["/v1/chat/completions"]
    assert "my own words" in remote.received[0].text


def test_killed_resets_what_is_under_way_and_refuses_the_rest(remote):
    """A request in mid-answer is broken off, a new one finds no listener, and later all is well again."""
    errors: list[Exception] = []

    def under_way() -> None:
        try:
            ask(remote.base_url, tokens=200)
        except httpx.HTTPError as error:
            errors.append(error)

    client = threading.Thread(target=under_way)
    client.start()
    while not remote.received:
        time.sleep(0.01)
    remote.set(Fault("killed"))
    client.join()
    with pytest.raises(httpx.ConnectError):
        ask(remote.base_url)
    remote.set(faults.HEALTHY)

    assert [type(error) for error in errors] in ([httpx.ReadError], [httpx.RemoteProtocolError])
    assert ask(remote.base_url).status_code == 200
    assert settled(remote, 2) == ["reset", "answered"]


def test_stalled_accepts_and_never_answers(remote):
    """The client's own time-out ends it."""
    remote.set(Fault("stalled"))

    with pytest.raises(httpx.ReadTimeout):
        ask(remote.base_url, timeout_s=0.3)
    assert settled(remote, 1) == ["stalled"]


def test_overloaded_answers_503_late(remote):
    """Not before its delay."""
    remote.set(Fault("overloaded", delay_s=0.2))
    started = time.monotonic()

    assert ask(remote.base_url).status_code == 503
    assert time.monotonic() - started >= 0.2


def test_limited_answers_429_beyond_its_window(remote):
    """Two requests pass, the third is told how long to wait."""
    remote.set(Fault("limited", per_window=2, window_s=60))
    answers = [ask(remote.base_url) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "60"


def test_the_limit_is_per_window(remote):
    """After the window the next request passes."""
    remote.set(Fault("limited", per_window=1, window_s=0.3))
    first = [ask(remote.base_url, tokens=1).status_code, ask(remote.base_url, tokens=1).status_code]
    time.sleep(0.4)

    assert first[0] == 200
    assert ask(remote.base_url, tokens=1).status_code == 200


def test_a_fault_begins_with_the_request_it_was_set_for(remote):
    """After two requests: the first passes, the second meets it."""
    remote.after(2, Fault("overloaded"))

    assert [ask(remote.base_url, tokens=1).status_code for _ in range(3)] == [200, 503, 503]


def test_a_server_that_is_really_killed_behind_it_is_a_502(remote):
    """Nothing listens there any more: the proxy says so and lives on."""
    with serving.serve("llama-cpp", slots=1, context=128, extra=("--threads", "1")) as doomed:
        with faults.proxy(doomed.base_url) as proxy:
            for process in doomed.processes():
                process.kill()
            doomed.process.wait()

            assert ask(proxy.base_url).status_code == 502
            assert settled(proxy, 1) == ["no upstream"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"kind": "tired"}, "no fault is called 'tired': choose one of healthy, killed"),
        ({"kind": "overloaded", "delay_s": -1}, "are not negative"),
        ({"kind": "limited", "window_s": 0}, "a window has a length"),
    ],
)
def test_a_fault_that_is_none_is_refused(made, message):
    """Bad arguments break nothing."""
    with pytest.raises(ValueError, match=message):
        Fault(**made)


def test_a_fault_after_no_request_is_refused(remote):
    """It begins with a request, or now."""
    with pytest.raises(ValueError, match="after=0"):
        remote.after(0, Fault("killed"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
        (b"", False),
    ],
)
def test_an_answer_is_whole_when_its_head_says_so(reply, expected):
    """By its length, or by the empty chunk at its end."""

    assert faults.whole(reply) == expected


def test_nothing_is_left_when_the_block_ends(server):
    """Neither thread nor port, also with a stalled request still open."""
    with faults.proxy(server.base_url) as proxy:
        proxy.set(Fault("stalled"))
        with pytest.raises(httpx.ReadTimeout):
            ask(proxy.base_url, timeout_s=0.2)

    assert not [thread for thread in threading.enumerate() if thread.name == "faults"]
    with pytest.raises(httpx.ConnectError):
        ask(proxy.base_url)


def test_a_server_that_is_killed_is_not_taken_for_a_client_that_left():
    """SIGKILL in mid-answer: what came is no answer, and it is the server that has ended."""
    with serving.serve("llama-cpp", slots=1, context=512) as doomed, faults.proxy(doomed.base_url) as proxy:
        endless = {"tokens": 400, "stream": True, "ignore_eos": True}
        client = threading.Thread(target=lambda: pytest.raises(httpx.HTTPError, ask, proxy.base_url, **endless))
        client.start()
        while not proxy.received:
            time.sleep(0.01)
        time.sleep(0.5)
        for process in doomed.processes():
            process.kill()
        client.join()
        ended = settled(proxy, 1)

    assert ended == ["server ended"]
