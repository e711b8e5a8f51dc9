"""The load client against a server whose timing is scripted: stamps, counts, and every bad answer."""

import asyncio
import gzip
import json
import re
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations, permutations

import pytest
from leftovers import wait_until

from helpers.bench import client, connection, stream, workload
from helpers.bench.client import Endpoint
from helpers.bench.timing import Level
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer

PROMPT = workload.prompts(1, 8, seed=0)[0]


def ask(mock: TruthServer, output_tokens: int = 4, *, timeout_s: float = 20, **settings) -> client.Sample:
    endpoint = Endpoint(mock.base_url, "m", **settings)
    return client.run(client.request(endpoint, PROMPT, output_tokens, timeout_s=timeout_s))


def answered(script: Script, output_tokens: int = 4, **settings) -> client.Sample:
    """The sample of one request to a server that does as ``script`` says."""
    with TruthServer(script) as mock:
        return ask(mock, output_tokens, **settings)


def test_a_request_is_greedy_streamed_and_counted():
    """What is sent: temperature 0, a stream, the server's own count, and the engine's own fields."""
    with TruthServer() as mock:
        ask(mock, fields=lambda output_tokens: {"ignore_eos": True, "min_tokens": output_tokens})
        body = mock.received[0].body

    assert mock.received[0].path == "/v1/completions"
    assert body == {
        "model": "m", "prompt": PROMPT.text, "max_tokens": 4, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True, "min_tokens": 4,
    }  # fmt: skip


def test_chat_is_another_route_with_the_same_words():
    """One message of the user, the text of the prompt."""
    with TruthServer() as mock:
        sample = ask(mock, route="chat")

    assert mock.received[0].path == "/v1/chat/completions"
    assert mock.received[0].body["messages"] == [{"role": "user", "content": PROMPT.text}]
    assert (sample.error, sample.output_tokens) == (None, 4)


def test_token_ids_are_sent_where_the_server_takes_them():
    """A list of numbers instead of text."""
    prompt = workload.prompts(1, 8, seed=0, vocabulary=[f"Ġword{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600)])[0]
    with TruthServer() as mock:
        client.run(client.request(Endpoint(mock.base_url, "m", token_ids=True), prompt, 4))

    assert mock.received[0].body["prompt"] == list(prompt.token_ids)


def test_the_key_is_sent_and_never_shown():
    """A bearer token in the header; nothing of it in the endpoint's repr."""
    with TruthServer() as mock:
        ask(mock, api_key="sk-secret")
        ask(mock)

    assert [request.headers.get("authorization") for request in mock.received] == ["Bearer sk-secret", None]
    assert "sk-secret" not in repr(Endpoint("http://127.0.0.1:1/v1", "m", api_key="sk-secret"))


def test_stamps_are_those_of_the_servers_writes():
    """TTFT and the gaps are what the server did: later by less than one gap (the server notes a write after it)."""
    with TruthServer(Script(first_s=0.2, gap_s=0.05)) as mock:
        sample = ask(mock, 6)
        wrote = mock.received[0].written_ns

    late_s = [(seen - written) / 1e9 for seen, written in zip(sample.event_ns, wrote)]
    assert len(sample.event_ns) == 6
    assert -0.001 < min(late_s) and max(late_s) < 0.05
    assert sample.ttft_s >= 0.2


def test_an_answer_can_be_looked_at_while_it_comes():
    """Whoever looks sees the pieces so far with their stamps, and the whole answer is what it would have been."""
    replies, looks = [], []

    def look() -> None:
        looks.extend(stream.read(reply) for reply in replies)

    with TruthServer(Script(first_s=0.1, gap_s=0.05)) as mock:
        asked = client.request(Endpoint(mock.base_url, "m"), PROMPT, 8, on_send=replies.append)
        sample = client.run(asked, meanwhile=look, every_s=0.02)

    assert (len(replies), sample.error, len(sample.pieces)) == (1, None, 8)
    assert any(0 < len(seen.pieces) < 8 for seen in looks)
    assert all(seen.event_ns == sample.event_ns[: len(seen.event_ns)] for seen in looks)


def test_a_look_that_fails_ends_the_request():
    """An interrupt that comes while something is shown is one."""

    def look() -> None:
        raise KeyboardInterrupt

    with TruthServer(Script(first_s=5)) as mock:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.run(client.request(Endpoint(mock.base_url, "m"), PROMPT, 8), meanwhile=look, every_s=0.02)

    assert time.monotonic() - started < 5


def test_several_tokens_in_one_write_are_several_events():
    """Four tokens a write: four events with one stamp; the server's count stands."""
    sample = answered(Script(events_per_write=4, gap_s=0.02), 8)

    assert (len(sample.event_ns), len(set(sample.event_ns)), sample.output_tokens) == (8, 2, 8)


def test_without_usage_events_are_counted_and_it_is_said():
    """``token_source`` tells where the number of tokens comes from."""

    assert answered(Script()).token_source == "server_usage"
    sample = answered(Script(usage=False))
    assert (sample.token_source, sample.output_tokens, sample.prompt_tokens) == ("events", 4, None)


def test_role_and_empty_events_are_no_first_token():
    """TTFT is the time of the first event with text."""
    sample = answered(Script(role_first=True, empty_deltas=2, first_s=0.1, gap_s=0.02), route="chat")

    assert (sample.error, len(sample.event_ns), sample.ttft_s >= 0.12) == (None, 4, True)


def test_several_tokens_in_one_event_are_counted_by_the_server():
    """Three tokens an event: 8 tokens in 3 events."""
    sample = answered(Script(tokens_per_event=3), 8)

    assert (len(sample.event_ns), sample.output_tokens, sample.token_source) == (3, 8, "server_usage")
    assert sample.pieces == (" word" * 3, " word" * 3, " word" * 2)


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize(
    "odd",
    [
        {}, {"events_per_write": 5}, {"tokens_per_event": 3}, {"tokens_per_event": 2, "events_per_write": 4},
        {"role_first": True}, {"empty_deltas": 3}, {"usage": False}, {"jitter_s": 0.01}, {"extra_prompt_tokens": 9},
        {"role_first": True, "empty_deltas": 1, "tokens_per_event": 4, "usage": False},
    ],
    ids=str,
)  # fmt: skip
def test_tokens_are_right_to_the_event_for_every_odd_stream(odd, route):
    """As many events with text as the server wrote, and its count where it gives one."""
    with TruthServer(Script(first_s=0.01, gap_s=0.002, **odd)) as mock:
        sample = ask(mock, 17, route=route)
        did = mock.received[0]

    assert sample.error is None
    assert (len(sample.event_ns), sample.text) == (len(did.written_ns), " word" * 17)
    assert sample.output_tokens == (17 if odd.get("usage", True) else len(did.written_ns))


def test_stamps_are_those_of_the_arrival_however_late_the_client_reads():
    """The client sleeps while the tokens come: the stamps are right all the same, and the lag says how late it was."""
    with TruthServer(Script(first_s=0.02)) as mock:

        async def busy() -> client.Sample:
            asking = asyncio.ensure_future(client.request(Endpoint(mock.base_url, "m"), PROMPT, 1))
            await asyncio.sleep(0.01)
            time.sleep(0.2)  # noqa: ASYNC251 - this is the lateness
            return await asking

        sample = client.run(busy())
        wrote_ns = mock.received[0].written_ns[0]

    assert sample.error is None
    assert sample.lag_ns[0] > 100_000_000
    assert abs(sample.event_ns[0] - wrote_ns) < 50_000_000


def test_a_connection_is_kept_and_opened_before_the_clock_starts():
    """Six requests of two users: two connections, both open before the first request is sent."""
    with TruthServer(Script(first_s=0.01)) as mock:
        client.run(client.closed_loop(Endpoint(mock.base_url, "m"), workload.prompts(6, 8, seed=0), users=2, output_tokens=2))

        assert (len(mock.received), mock.accepted) == (6, 2)


def test_a_server_that_closes_gets_a_new_connection():
    """After an answer that ends with the connection, the next request is sent over another one."""
    with TruthServer(lambda number, body: Script(end="close" if number == 0 else "done")) as mock:
        samples = client.run(
            client.closed_loop(Endpoint(mock.base_url, "m"), workload.prompts(3, 8, seed=0), users=1, output_tokens=2)
        )

        assert (len(mock.received), mock.accepted) == (3, 2)
    assert [sample.error is None for sample in samples] == [False, True, True]


def test_an_open_loop_is_poisson_and_seeded():
    """The same seed, the same arrivals; gaps as different as exponential ones are; the wait in the client apart."""

    def due(seed: int) -> list[float]:
        with TruthServer() as mock:
            load = client.open_loop(
                Endpoint(mock.base_url, "m"), workload.prompts(40, 8, seed=0), rate_per_s=1000, seed=seed, output_tokens=1
            )
            samples = sorted(client.run(load), key=lambda sample: sample.scheduled_ns)
        assert all(sample.error is None and sample.queue_s >= 0 for sample in samples)
        return [(b.scheduled_ns - a.scheduled_ns) / 1e9 for a, b in zip(samples, samples[1:])]

    first, again, other = due(1), due(1), due(2)
    assert first == pytest.approx(again, abs=1e-6) and first != pytest.approx(other, abs=1e-6)
    assert 0.5 < statistics.stdev(first) / statistics.mean(first) < 1.6  # 1 for exponential gaps


def test_a_rate_of_none_is_refused():
    """Before a connection is opened."""
    load = client.open_loop(Endpoint("http://127.0.0.1:1/v1", "m"), [PROMPT], rate_per_s=0, seed=0, output_tokens=1)
    with pytest.raises(ValueError, match="^rate_per_s=0: requests arrive at a rate above 0$"):
        client.run(load)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(status=500, answer={"error": "out of blocks"}), "HTTP 500: out of blocks"),
        (Script(status=404, answer={"detail": "no such model"}), "HTTP 404: no such model"),
        (Script(status=429, answer={"error": "slow down"}), "HTTP 429: slow down"),
        (Script(status=400, answer={"error": {"message": "too\n long", "code": 400}}), "HTTP 400: too long"),
        (Script(status=400, answer={"error": {"code": 7}}), r'HTTP 400: \{"error".*7.*'),
        (Script(status=500, answer=["odd"]), r'HTTP 500: \["odd"\]'),
        (Script(answer={"choices": []}), "not a stream: content type 'application/json' instead of text/event-stream"),
        (Script(end="close"), "ended early: the stream stopped without a finish reason"),
        (Script(end="cut"), "ended early: the connection closed in the middle of the answer"),
        (Script(end="silence"), "ended early: the server closed without an answer"),
        (Script(end="reset"), r"reset: the connection broke \(.*\)"),
        (Script(end="stall"), "stalled: no end within 0.2 s"),
        (Script(end="malformed"), "malformed: .*"),
        (Script(end="not an object"), "malformed: .*"),
        (Script(end="odd usage"), "malformed: .*"),
        (Script(end="odd text"), "malformed: .*"),
        (Script(end="not utf-8"), "malformed: .*utf-8.*"),
        (Script(end="trickle"), "stalled: no end within 0.2 s"),
        (Script(end="long line"), "too large: an answer of more than 64 MiB"),
        (Script(end="error"), "server error: .*out of blocks.*"),
    ],
)
def test_a_bad_answer_is_a_sample_with_its_kind(script, error):
    """One line, ``kind: detail``, and no exception: a load goes on after it."""
    sample = answered(script, timeout_s=0.2 if script.end in ("stall", "trickle") else 20)

    assert sample.error is not None and "\n" not in sample.error
    assert re.fullmatch(error, sample.error)


def by_stamps(sample, gaps: int):
    """The TPOT that its stamps give; none where a busy machine read all events in one moment."""
    between_ns = sample.event_ns[-1] - sample.event_ns[0]
    return pytest.approx(between_ns / 1e9 / gaps) if between_ns else None


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "tool_calls", "function_call", "refusal"])
@pytest.mark.parametrize("thought", [10, 12], ids=["and then text", "and nothing else"])
def test_tokens_that_are_no_text_are_tokens(key, thought):
    """A model that thinks for 10 of 12 tokens: its first token is a thought, and the answer is without it."""
    sample = answered(Script(first_s=0.05, gap_s=0.01, reasoning_tokens=thought, reasoning_key=key), 12, route="chat")

    assert (sample.error, sample.output_tokens, len(sample.event_ns)) == (None, 12, 12)
    assert sample.ttft_s == (sample.event_ns[0] - sample.sent_ns) / 1e9 >= 0.05
    assert sample.tpot_s == by_stamps(sample, gaps=11)
    assert sample.text == " word" * (12 - thought)
    assert sample.reasoning == (" word" * thought if key.startswith("reasoning") else "")
    assert sample.refusal == (" word" * thought if key == "refusal" else "")


def test_time_to_first_answer_waits_for_the_text():
    """Three thoughts and then text: the first token is a thought, the answer begins three gaps later."""
    sample = answered(Script(first_s=0.1, gap_s=0.02, kinds=("reasoning",) * 3 + ("content",)), 8, route="chat")

    assert sample.ttft_s == (sample.event_ns[0] - sample.sent_ns) / 1e9
    assert sample.time_to_first_answer_s == (sample.event_ns[3] - sample.sent_ns) / 1e9


def test_an_answer_that_only_calls_a_tool_has_no_time_to_first_answer():
    """Not defined, and not 0."""

    assert answered(Script(kinds=("tool_calls",)), 4, route="chat").time_to_first_answer_s is None


NAMES = {"reasoning_content": "reasoning", "reasoning": "reasoning"} | {
    "content": "text", "tool_calls": "tool call", "refusal": "refusal",
}  # fmt: skip
TWINS = ("reasoning_content", "reasoning")  # two names of one thing


@pytest.mark.parametrize("kinds", list(permutations(("reasoning_content", "content", "tool_calls", "refusal"))), ids="-".join)
def test_kinds_are_told_apart_in_every_order(kinds):
    """One token of each kind, whichever comes first; the last kind goes on."""
    sample = answered(Script(kinds=kinds), 6, route="chat")

    assert sample.kinds == tuple(NAMES[kind] for kind in (*kinds, kinds[-1], kinds[-1]))
    assert (sample.error, sample.output_tokens, sample.pieces) == (None, 6, (" word",) * 6)


@pytest.mark.parametrize("mix", [mix for mix in combinations(NAMES, 2) if mix != TWINS], ids="+".join)
@pytest.mark.parametrize("together", [{}, {"tokens_per_event": 3}, {"events_per_write": 2}, {"role_first": True}], ids=str)
def test_two_kinds_in_one_event_are_two_pieces_with_one_stamp(mix, together):
    """As vLLM sends the end of a thought and the beginning of the answer; no token is lost and none is counted twice."""
    sample = answered(Script(gap_s=0.003, kinds=("reasoning", "+".join(mix), "content"), **together), 24, route="chat")
    second = [i for i, ns in enumerate(sample.event_ns) if ns == sample.event_ns[1]][:2]

    assert (sample.error, sample.output_tokens, "".join(sample.pieces)) == (None, 24, " word" * 24)
    assert len(sample.event_ns) == len(sample.pieces) == len(sample.kinds)
    assert {sample.kinds[i] for i in (1, 2)} == {NAMES[kind] for kind in mix} and len(second) == 2


def test_reasoning_under_both_its_names_is_counted_once():
    """Some servers send the old name beside the new one, with the same text."""
    sample = answered(Script(kinds=("reasoning+reasoning_content", "content"), usage=False), 4, route="chat")

    assert sample.reasoning == " word" and sample.kinds == ("reasoning", "text", "text")


@pytest.mark.parametrize("route", ["chat", "completions"])
def test_a_count_in_every_event_says_how_many_tokens_each_had(route):
    """Events of 3, 3 and 2 tokens: a gap is spread over the tokens that ended it."""
    sample = answered(Script(gap_s=0.03, tokens_per_event=3, running_usage=True), 8, route=route)
    one, two = sample.itl_s

    assert (sample.event_tokens, sample.output_tokens) == ((3, 3, 2), 8)
    assert sample.token_itl_s == pytest.approx((one / 3,) * 3 + (two / 2,) * 2)


def test_a_count_at_the_end_gives_the_mean_itl_of_tokens():
    """8 tokens in 4 events: each gap counts half, and ``itl_s`` stays what it is between events."""
    sample = answered(Script(gap_s=0.03, tokens_per_event=2), 8)

    assert sample.event_tokens == ()
    assert sample.token_itl_s == pytest.approx([gap / 2 for gap in sample.itl_s])


def test_more_events_than_tokens_are_seen_too():
    """A server that cuts a token over two events, as half a letter or half a name of a tool, counts four in eight events."""
    sample = answered(Script(gap_s=0.02, counted_tokens=4), 8)

    assert (len(sample.event_ns), sample.output_tokens) == (8, 4)
    assert sample.tpot_s == by_stamps(sample, gaps=3)
    assert sample.token_itl_s == pytest.approx([2 * gap for gap in sample.itl_s])


def test_without_a_count_there_is_no_itl_of_tokens():
    """Events are all that is known."""

    assert answered(Script(gap_s=0.01, usage=False)).token_itl_s == ()


def test_reasoning_tokens_are_the_servers_own_count():
    """``completion_tokens_details`` says how many were thought, and the prompt's details stay the prompt's."""
    usage = (
        '{"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7, "cached_tokens": 1}, '
        '"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}'
    )
    said = f'data: {{"choices": [{{"finish_reason": "stop", "text": "Hi"}}], "usage": {usage}}}\n\ndata: [DONE]\n\n'
    sample = stream.read(reply(said.encode()))

    assert (sample.output_tokens, sample.reasoning_tokens, sample.cached_tokens, sample.prompt_tokens) == (9, 7, 4, 5)


@pytest.mark.parametrize(("delta", "counted"), [({"reasoning": "Hm"}, None), ({"content": "Hi"}, 0)], ids=["thought", "text"])
def test_a_count_of_none_of_a_thought_that_came_is_no_count(delta, counted):
    """vLLM says 0 where its reasoning parser does not count; of an answer without a thought it is right."""
    choice = json.dumps({"choices": [{"delta": delta, "finish_reason": "stop"}]}).encode()
    usage = b'{"choices": [], "usage": {"completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 0}}}'
    sample = stream.read(reply(b"data: %s\n\ndata: %s\n\ndata: [DONE]\n\n" % (choice, usage)))

    assert (sample.error, sample.output_tokens, sample.reasoning_tokens) == (None, 1, counted)
    assert Level(1, ((sample,),)).reasoning_tokens == counted


def test_tokens_that_nobody_knows_give_no_figure():
    """A key of a later day: the server counts twelve tokens and two are seen."""
    sample = answered(Script(reasoning_tokens=10, reasoning_key="thoughts"), 12, route="chat")

    assert sample.error == "unseen: an event carries 'thoughts', whose tokens this client does not know"


def test_tokens_in_no_event_give_no_figure():
    """The server counts four, and no event had any."""
    said = b'data: {"choices": [{"finish_reason": "length", "text": ""}], "usage": {"completion_tokens": 4}}\n\ndata: [DONE]\n\n'

    assert stream.read(reply(said)).error == "unseen: the server counts 4 tokens, and no event carried one that is known"


def reply(body: bytes, status: int = 200, **headers: str) -> connection.Reply:
    """A mock of an answer that came in one read."""
    head = {"content-type": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return connection.Reply(0, status, head, [5], [None], [(0, body)], len(body), whole=True)


def test_an_event_may_stand_on_several_lines():
    """As the standard allows; its stamp is that of the line that completes it."""
    said = b'data: {"choices":\ndata: [{"text": "Hi", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    assert (stream.read(reply(said)).text, stream.read(reply(said)).error) == ("Hi", None)


@contextmanager
def saying(*pieces: bytes, pause_s: float = 0.0) -> Iterator[tuple[Endpoint, list[bytes]]]:
    """A mock of a server that answers one request with these bytes, ``pause_s`` between two pieces, and closes.

    Its endpoint and the requests it got; it ends when the client has gone.
    """
    got: list[bytes] = []

    def answer() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as sock:
                    got.append(_request_at(sock))
                    with suppress(OSError):
                        for piece in pieces:
                            sock.sendall(piece)
                            time.sleep(pause_s)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer)
        server.start()
        try:
            yield Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "m"), got
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes it
            server.join()


def _request_at(sock: socket.socket) -> bytes:
    """All of a request of this client."""
    seen = b""
    while not seen.endswith(b'"include_usage": true}}'):
        seen += sock.recv(1 << 20)
    return seen


EVENTS = b"".join(b'data: {"choices": [{"text": "%d", "finish_reason": null}]}\n\n' % i for i in range(3)) + (
    b'data: {"choices": [{"text": "", "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n'
)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n" % len(EVENTS)


def one_by_one(said: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in said]


def test_a_server_that_sends_byte_by_byte_is_read_as_any_other():
    """A millisecond a byte, head and events: an event's stamp is of the byte that ends its line, some 60 bytes apart."""
    with saying(*one_by_one(OK + b"\r\n" + EVENTS), pause_s=0.001) as (endpoint, _):
        sample = client.run(client.request(endpoint, PROMPT, 3))

    assert (sample.error, sample.text, sample.output_tokens) == (None, "012", 3)
    assert sample.ttft_s > 0.001 * len(OK) and min(sample.itl_s) > 0.03


@pytest.mark.parametrize(("said", "told"), [(b"", "in its head"), (OK + b"\r\n", "in its first event")], ids=["head", "event"])
def test_a_byte_a_second_is_given_up_in_time(said, told):
    """However far the answer is: the bytes that still come do not hold up the load, and what has come is no token."""
    with saying(said, *one_by_one(OK + b"\r\n" + EVENTS if not said else EVENTS)[:3], pause_s=1) as (endpoint, _):
        sample = client.run(client.request(endpoint, PROMPT, 3, timeout_s=1.5))

    assert (sample.error, sample.event_ns) == ("stalled: no end within 1.5 s", ()), told


def test_a_redirect_names_the_address_and_is_not_followed():
    """A benchmark of another address than the one that was given would be nobody's."""
    with saying(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:9/v1/\r\nContent-Length: 0\r\n\r\n") as (endpoint, got):
        sample = client.run(client.request(endpoint, PROMPT, 3))

    assert sample.error == "HTTP 307: redirected to http://127.0.0.1:9/v1/; give that address"
    assert len(got) == 1


def test_a_compressed_answer_is_no_figure_and_was_not_asked_for():
    """It hides when a token came; the request has no word of an encoding."""
    packed = gzip.compress(EVENTS)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with saying(head % len(packed) + packed) as (endpoint, got):
        sample = client.run(client.request(endpoint, PROMPT, 3))

    assert sample.error == "compressed: the server sends gzip, which was not asked for and hides when a token came"
    assert b"ncoding" not in got[0]


@pytest.mark.parametrize("cut", [30, len(OK) - 3, len(OK) + 2, len(OK) + 40, len(OK) + len(EVENTS) - 9])
def test_wherever_a_server_closes_the_answer_has_ended_early(cut):
    """In its head, before its first event, in one, and before the last."""
    with saying((OK + b"\r\n" + EVENTS)[:cut]) as (endpoint, _):
        sample = client.run(client.request(endpoint, PROMPT, 3))

    assert sample.error.startswith("ended early: the "), sample.error


@pytest.mark.parametrize("status", [429, 503])
def test_when_to_come_again_is_told_and_not_waited_for(status):
    """Each request is sent once: one that waited for its Retry-After would be measured under another load."""
    body = b'{"error": {"message": "slow down"}}'
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nRetry-After: 60\r\nContent-Length: %d\r\nConnection: close"
    with saying(head % (status, len(body)) + b"\r\n\r\n" + body) as (endpoint, got):
        samples = client.run(client.closed_loop(endpoint, workload.prompts(6, 8, seed=0), users=2, output_tokens=3))

    assert [sample.error for sample in samples] == 6 * [f"HTTP {status}: slow down; Retry-After: 60"]
    assert len(got) == 6 and (samples[-1].sent_ns - samples[0].sent_ns) / 1e9 < 60


@pytest.mark.parametrize("step_s", [5, -5])
def test_a_clock_that_is_set_meanwhile_gives_no_impossible_figure(step_s, monkeypatch):
    """A mock of the system's stamps, whose clock jumps after the first: times stay in order, and the lag is unknown."""
    real, reads = connection.read_stamped, []

    def stepped(sock):
        data, stamp_ns, lag_ns = real(sock)
        reads.append(data)
        jump_ns = 0 if len(reads) < 3 or lag_ns is None else int(step_s * 1e9)
        return (data, stamp_ns, None) if jump_ns < 0 else (data, stamp_ns - jump_ns, lag_ns and lag_ns + jump_ns)

    with TruthServer(Script(first_s=0.05, gap_s=0.02)) as mock:
        monkeypatch.setattr(connection, "read_stamped", stepped)
        sample = ask(mock, 8)

    assert 0.04 < sample.ttft_s < 0.5 and min(sample.itl_s) >= 0
    assert sample.lag_ns is None


def test_the_time_to_send_a_long_prompt_is_told_apart():
    """A mock of a server that reads nothing for 0.2 s: a prompt larger than the sockets' buffers waits, a short one does not."""
    said = b'data: {"choices": [{"text": "Hi", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(said)

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as sock:
            time.sleep(0.2)
            seen = b""
            while not seen.endswith(b'"include_usage": true}}'):
                seen = seen[-100:] + sock.recv(1 << 20)
            sock.sendall(head + said)

    def asked(words: int) -> client.Sample:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            server = threading.Thread(target=answer, args=(listener,))
            server.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            sample = client.run(client.request(Endpoint(url, "m"), workload.Prompt(" word" * words), 1))
            server.join()
        return sample

    long, short = asked(2_000_000), asked(8)

    assert (long.error, short.error) == (None, None)
    assert 0.1 < long.send_s < long.ttft_s
    assert short.send_s < 0.1 < short.ttft_s


def test_nobody_listens():
    """A refused connection names the address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    sample = client.run(client.request(Endpoint(f"http://127.0.0.1:{port}/v1", "m"), PROMPT, 4))

    assert sample.error.startswith(f"refused: 127.0.0.1:{port} did not take a connection (")


def test_a_host_that_does_not_exist():
    """The same kind of error, with the resolver's reason."""
    sample = client.run(client.request(Endpoint("http://no-such-host.invalid:1/v1", "m"), PROMPT, 4))

    assert sample.error.startswith("refused: no-such-host.invalid:1 did not take a connection (")


def test_what_cannot_fit_is_not_sent():
    """8 tokens in and 4 out, and a context of 11."""
    with TruthServer() as mock:
        sample = ask(mock, context=11)

    assert sample.error == "too long: 12 tokens in and out, and the context is 11; ask for fewer"
    assert mock.received == []


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://a/v1", "http://", "http://a:99999/v1", "http://a b/v1", "http://[::1/v1"]
)
def test_a_bad_address_is_refused_before_anything_is_sent(url):
    """The message shows a good one."""
    with pytest.raises(ValueError, match=r"give one like http://127.0.0.1:8000/v1$"):
        Endpoint(url, "m")


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_bad_key_is_refused_and_not_repeated(key):
    """It would break the request's head; the message does not show it."""
    with pytest.raises(ValueError, match="^the API key holds") as caught:
        Endpoint("http://127.0.0.1:1/v1", "m", api_key=key)

    assert key not in str(caught.value)


@pytest.mark.parametrize(("users", "most"), [(1, 1), (5, 5), (40, 12)])
def test_a_closed_loop_has_so_many_requests_at_once(users, most):
    """Never more than users, and as many as there are prompts."""
    prompts, seen = workload.prompts(12, 8, seed=0), []
    with TruthServer(Script(first_s=0.05)) as mock:
        endpoint = Endpoint(mock.base_url, "m")
        samples = client.run(client.closed_loop(endpoint, prompts, users=users, output_tokens=2, on_sample=seen.append))

    assert (len(samples), seen, mock.most_at_once) == (12, samples, most)


def test_a_load_without_users_is_refused():
    """Before a connection is opened."""
    with pytest.raises(ValueError, match="^users=0: a load needs at least one user$"):
        client.run(client.closed_loop(Endpoint("http://127.0.0.1:1/v1", "m"), [PROMPT], users=0, output_tokens=2))


def test_answers_that_wait_to_be_read_do_not_fill_the_memory(monkeypatch):
    """Ten answers have ended at once and the memory is for four: six are read in the first turn, and then one in each."""
    said = b'data: {"choices": [{"text": "Hi", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    monkeypatch.setattr(client, "MOST_WAITING_BYTES", 4 * len(said))

    async def read() -> list[int]:
        reader, read = client._Reader(lambda sample: None), []
        for _ in range(10):
            reader.put(reply(said))
        task = asyncio.create_task(reader.work())
        for _ in range(4):
            await asyncio.sleep(0)
            read.append(len(reader.samples))
        task.cancel()
        return read

    assert client.run(read()) == [6, 7, 8, 9]


def test_a_failed_request_does_not_end_the_load():
    """One of six gets a 503; the others are measured."""
    with TruthServer(lambda number, body: Script(status=503, answer={}) if number == 2 else Script()) as mock:
        prompts = workload.prompts(6, 8, seed=0)
        samples = client.run(client.closed_loop(Endpoint(mock.base_url, "m"), prompts, users=2, output_tokens=2))

    assert sorted(sample.error or "" for sample in samples) == [""] * 5 + ["HTTP 503: {}"]


def test_cancelling_closes_every_connection():
    """The server sees its clients go."""
    with TruthServer(Script(end="stall")) as mock:

        async def cancelled() -> None:
            load = client.closed_loop(Endpoint(mock.base_url, "m"), workload.prompts(3, 8, seed=0), users=3, output_tokens=2)
            task = asyncio.create_task(load)
            while mock.at_once < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        client.run(cancelled())

        assert wait_until(lambda: mock.at_once == 0)
        assert [request.ended for request in mock.received] == ["client left"] * 3


def test_run_works_inside_a_running_loop():
    """As in a notebook's kernel."""
    with TruthServer() as mock:

        async def cell() -> client.Sample:
            return ask(mock)

        assert asyncio.run(cell()).error is None
