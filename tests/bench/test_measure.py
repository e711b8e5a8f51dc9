"""Warm-ups, repeats, order, labels: what is really sent, seen by a mock server."""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest

from helpers.bench import checks, client, measure
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.measure import Plan, TooFewRepeats
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer

SMALL = {"input_tokens": 8, "output_tokens": 2}


@pytest.fixture(autouse=True)
def two_warmups(request, monkeypatch):
    """A server without scripted times is never steady: elsewhere than in the tests of that, two warm-ups are enough."""
    if "steady" not in request.node.name:
        monkeypatch.setattr(measure, "STEADY", math.inf)


def endpoint(mock: TruthServer, **settings) -> Endpoint:
    return Endpoint(mock.base_url, "m", **settings)


def prompts(mock: TruthServer) -> list[str]:
    return [request.prompt for request in mock.received]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 2}, "2 repeats and 1 warm-ups give no spread: use at least 3 and 1, or allow_few"),
        ({"warmups": 0}, "3 repeats and 0 warm-ups give no spread: use at least 3 and 1, or allow_few"),
    ],
)
def test_too_few_repeats_are_refused_with_the_remedy(settings, message):
    """A figure without a spread is not made silently."""

    with pytest.raises(TooFewRepeats, match=f"^{message} \\(--allow-few\\) to get a figure that is labelled$"):
        Plan(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_tokens": 0}, "input_tokens=0: must be at least 1"),
        ({"output_tokens": -1}, "output_tokens=-1: must be at least 1"),
        ({"requests": 0}, "requests=0: must be at least 1"),
        ({"requests_per_user": 0}, "requests_per_user=0: must be at least 1"),
        ({"repeats": 0, "allow_few": True}, "repeats=0: must be at least 1"),
        ({"users": ()}, r"users=\(\): give numbers of at least 1, like 1,10,100"),
        ({"users": (1, 0)}, r"users=\(1, 0\): give numbers of at least 1, like 1,10,100"),
        ({"warmups": -1, "allow_few": True}, "warmups=-1, timeout_s=300: give no negative number, and some time"),
        ({"rates_per_s": (2, 0)}, r"rates_per_s=\(2, 0\): give rates above 0, like 0.5,2"),
        ({"timeout_s": 0}, "warmups=1, timeout_s=0: give no negative number, and some time"),
    ],
)
def test_numbers_below_one_are_refused(settings, message):
    """Said before a request is sent, with the name and the value."""

    with pytest.raises(ValueError, match=f"^{message}$"):
        Plan(**settings)


def test_allowed_few_repeats_are_labelled():
    """The level of a single run without warm-up says that it is no measurement."""
    plan = Plan(**SMALL, repeats=1, warmups=0, allow_few=True)
    with TruthServer() as mock:
        (level,) = measure.measure(endpoint(mock), plan)

    assert level.label == "not a measurement: 1 repeats after 0 warm-ups"
    assert level.output_tokens_per_s is not None


def test_as_many_requests_as_planned():
    """A probe, then for each number of users two warm-ups and three repeats of four per user."""
    with TruthServer() as mock:
        one, two = measure.measure(endpoint(mock), Plan(users=(1, 2), **SMALL))

        assert len(mock.received) == 1 + (2 + 3) * 4 * 1 + (2 + 3) * 4 * 2
    assert [len(block) for block in one.blocks] == [4, 4, 4]
    assert [len(block) for block in two.blocks] == [8, 8, 8]


def test_no_prompt_is_sent_twice():
    """Probe, two warm-ups, three repeats, two numbers of users: every prompt is new."""
    with TruthServer() as mock:
        measure.measure(endpoint(mock), Plan(users=(1, 2), warmups=2, **SMALL))

        assert len(set(prompts(mock))) == len(mock.received) == 1 + 5 * 4 + 5 * 8


def test_all_endpoints_get_the_same_prompts_in_turned_order():
    """Two servers: the same requests; who begins changes from repeat to repeat."""
    with TruthServer() as first, TruthServer() as second:
        plan = Plan(requests=1, **SMALL)
        measure.compare({"first": endpoint(first), "second": endpoint(second)}, plan)
        ask = sorted((r.written_ns[0], name) for name, mock in (("1", first), ("2", second)) for r in mock.received)

        assert prompts(first) == prompts(second)
    assert "".join(name for _, name in ask) == "12" + "2112" + "12" + "21" + "12"  # probes, warm-ups, three repeats


def test_the_figure_is_what_the_server_did():
    """Eight users who each get 10 tokens in 0.1 s and 9 gaps of 10 ms: TPOT and TTFT as scripted, or slower."""
    with TruthServer(Script(first_s=0.1, gap_s=0.01)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(users=(8,), requests=8, input_tokens=8, output_tokens=10))
        wrote = [(r.written_ns[-1] - r.written_ns[0]) / 9e9 for r in mock.received[-24:]]

    assert 0.1 <= level.latency("ttft_s")["median"] < 0.2
    assert level.latency("tpot_s")["p50"] == pytest.approx(sorted(wrote)[12], rel=0.3)
    assert 200 < level.output_tokens_per_s.median <= 80 / 0.19


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_the_probe_fits_the_text_to_the_servers_count(extra):
    """A server that adds tokens gets fewer words, so that it counts what was asked for."""
    with TruthServer(Script(extra_prompt_tokens=extra)) as mock:
        target = measure.probe(endpoint(mock), Plan(**SMALL))
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))

    assert target.words == 8 - extra
    assert level.to_dict()["prompt_tokens"] == [8]


def test_a_template_longer_than_the_prompt_is_an_error():
    """30 tokens of template do not fit in a prompt of 8."""
    with TruthServer(Script(extra_prompt_tokens=30)) as mock:
        with pytest.raises(EndpointError, match="counts 38 prompt tokens where 8 were asked for: ask for more$"):
            measure.probe(endpoint(mock), Plan(**SMALL))


def test_a_server_that_does_not_count_is_taken_at_its_word():
    """Without usage the prompt stays as long as asked."""
    with TruthServer(Script(usage=False)) as mock:
        assert measure.probe(endpoint(mock), Plan(**SMALL)).words == 8


def test_a_context_too_small_is_said_before_anything_is_sent():
    """8 and 2 tokens do not fit 9."""
    with TruthServer() as mock:
        with pytest.raises(EndpointError, match="^8 tokens in and 2 out do not fit the context of 9: ask for fewer, or start"):
            measure.measure(endpoint(mock, context=9), Plan(**SMALL))

        assert mock.received == []


def test_an_endpoint_that_fails_at_once_is_an_error():
    """The probe's failure ends it, in one line with the address."""
    with TruthServer(Script(status=500, answer={"error": "no"})) as mock:
        with pytest.raises(EndpointError, match="gives no answer to measure: HTTP 500: no$") as caught:
            measure.measure(endpoint(mock), Plan(**SMALL))

        assert str(caught.value).startswith(mock.base_url)


@pytest.mark.parametrize(
    ("requests", "label"),
    [(30, "not a measurement: 1 of 90 requests failed, 1 with 'HTTP 503: {}'"), (34, None)],  # 1.1 %, 0.98 %
)
def test_more_than_one_in_a_hundred_failed_is_no_figure(requests, label):
    """One failure among 90 refuses the level its figures, one among 102 does not; both are counted."""

    def last_fails(number: int, body: dict) -> Script:
        return Script(status=503, answer={}) if number == 1 + 5 * requests - 1 else Script()

    with TruthServer(last_fails) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(users=(4,), requests=requests, **SMALL))

    assert (level.refused, level.error_kinds) == (label, {"HTTP 503": 1})
    assert (level.output_tokens_per_s is None, level.latency("ttft_s") is None) == (label is not None,) * 2
    assert level.to_dict()["label"] == label
    assert level.to_dict()["failures"] == {"HTTP 503: {}": 1}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([], False),
        ([10], False),
        ([10, 20], False),
        ([10, 20, 21], True),
        ([20, 10], True),
        ([10, None], True),
        ([None, 10], True),
    ],
)
def test_steady_is_hardly_faster_than_the_last_time(rates, expected):
    """One warm-up says nothing; a slower one is steady; a failed one is no reason to go on."""

    assert measure.steady(rates) == expected


def test_warm_ups_go_on_until_steady():
    """A server that answers its first requests ever faster: warm-ups as long as it does, and no label."""

    def wakes(number: int, body: dict) -> Script:
        return Script(first_s=(0.0, 0.6, 0.45, 0.32, 0.2)[min(number, 4)])  # the first is the probe

    with TruthServer(wakes) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))

    assert level.warmups in (5, 6) and level.label is None  # the sixth if the machine was not steady itself


def test_a_server_long_at_work_needs_no_more_than_the_asked_warm_up():
    """Not settled: one warm-up, three repeats, no label."""
    with TruthServer(lambda number, body: Script(first_s=0.2 / 1.5**number)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, settle=False, **SMALL))

    assert (level.warmups, level.label) == (1, None)


def test_a_server_that_is_never_steady_is_labelled(monkeypatch):
    """Still faster each time, whatever this machine does meanwhile: six warm-ups and no more, and the level says so."""
    monkeypatch.setattr(measure, "steady", lambda rates: False)
    with TruthServer(Script()) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))

    assert (level.warmups, level.label) == (6, "not steady: still faster after 6 warm-ups")


def test_a_warm_prefix_cache_is_refused_unless_asked_for():
    """The server says that it took 3 of 8 prompt tokens from its cache: no figure, or one with a label."""
    with TruthServer(Script(cached_tokens=3)) as mock:
        (refused,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))
        (allowed,) = measure.measure(endpoint(mock), Plan(requests=1, allow_cached=True, **SMALL))

    assert refused.refused == (
        "not a measurement: prefix cache: 3 of 3 answers report 9 cached prompt tokens, 0 are allowed; "
        "send new prompts, or allow it with allow_cached (--allow-cached)"
    )
    held = "a prefix cache held 9 of 24 prompt tokens, as allowed"
    assert (refused.output_tokens_per_s, allowed.refused, allowed.label) == (None, None, held)
    assert allowed.output_tokens_per_s is not None


def test_a_hit_that_changes_no_figure_is_noted():
    """One of 1,200 prompt tokens, by chance: the level has its figures and says so."""
    plan = Plan(requests=2, **{**SMALL, "input_tokens": 200})
    with TruthServer(lambda number, body: Script(cached_tokens=int(number == 5))) as mock:
        (level,) = measure.measure(endpoint(mock), plan)

    assert (level.refused, level.label) == (None, "a prefix cache held 1 of 1200 prompt tokens, by chance")
    assert level.output_tokens_per_s is not None


def test_no_two_turns_of_a_run_begin_alike():
    """Under every load, warm-ups and copies of an endpoint included, as long as there are words."""
    vocabulary = [f"\u0120{a}{b}{c}" for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghij"]
    plan = Plan(users=(1, 3, 10), requests_per_user=2, **SMALL)
    turns = [(load, turn, copy) for load in plan.loads for turn in range(-6, plan.repeats) for copy in (0, 1)]
    firsts = [p.token_ids[0] for load, turn, copy in turns for p in plan.prompts(load, turn, 8, vocabulary, copy)]

    assert len(firsts) == len(set(firsts)) == 2 * 9 * 2 * 14
    assert plan.prompts(3, 0, 8, vocabulary) == plan.prompts(3, 0, 8, vocabulary)


def test_hits_that_only_the_engine_counts_are_refused_too():
    """The answers report none, the engine's counter grows by 7 during the repeats."""
    total = iter((100, 107))
    with TruthServer() as mock:
        options = {"hits": lambda name: checks.Hits(next(total), "a counter")}
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL), **options)

    assert level.refused.startswith("not a measurement: prefix cache: the engine counted 7 cached prompt tokens")


def test_what_the_server_does_not_report_is_said_to_be_unproven():
    """Without usage: events were counted, and nobody knows of the cache."""
    with TruthServer(Script(usage=False)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))

    assert [line.partition(":")[0] for line in level.unproven] == ["output length", "prompt length", "prefix cache"]


def test_answers_of_another_length_are_said():
    """One of six stops at the first token."""
    with TruthServer(lambda number, body: Script(tokens=1 if number == 5 else None)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(requests=2, **SMALL))

    assert level.label == "output length: 1 of 6 answers have 1 tokens, 2 were asked for"


def test_an_engine_against_itself_gets_other_prompts_each_time():
    """An A/A run: the same endpoint under two names; no prompt comes twice, or its prefix cache would help the second."""
    with TruthServer() as mock:
        same = endpoint(mock)
        found = measure.compare({"A": same, "again": replace(same)}, Plan(requests=2, **SMALL))

        measured = prompts(mock)[2:]  # the probes
        assert len(set(measured)) == len(measured) == 2 * (2 + 3) * 2
    assert found.keys() == {"A", "again"}


def test_an_open_loop_sends_at_its_rate_however_slow_the_server(monkeypatch):
    """200 requests/s to a server that takes 0.1 s: many at once, and no wait in the client."""
    monkeypatch.setattr(client, "CONNECT_AHEAD_S", 0.05)
    with TruthServer(Script(first_s=0.1)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(rates_per_s=(200.0,), requests=20, **SMALL))

        assert mock.most_at_once > 4
    assert (level.users, level.rate_per_s, len(level.blocks[0])) == (None, 200.0, 20)
    assert 0 <= level.latency("queue_s")["median"] < level.latency("ttft_s")["median"]


def test_the_hash_of_a_plan_is_of_what_is_sent():
    """It changes with the seed and not with the number of warm-ups."""

    assert measure.workload_sha256(Plan(**SMALL)) == measure.workload_sha256(Plan(warmups=4, **SMALL))
    assert measure.workload_sha256(Plan(**SMALL)) != measure.workload_sha256(Plan(seed=1, **SMALL))


def test_levels_come_one_by_one():
    """The first number of users is yielded before the second one's requests are sent."""
    with TruthServer() as mock:
        found = measure.levels({"": endpoint(mock)}, Plan(users=(1, 2), **SMALL))
        next(found)

        assert len(mock.received) == 1 + 5 * 4
        found.close()


def test_everything_is_sent_while_its_endpoint_is_awake():
    """Probe, warm-up and repeats: each inside the context of its name, one at a time."""
    awake, seen = [], []

    @contextmanager
    def only(name: str):
        awake.append(name)
        yield
        awake.remove(name)

    def script(name: str):
        return lambda number, body: seen.append((name, list(awake))) or Script()

    with TruthServer(script("a")) as first, TruthServer(script("b")) as second:
        measure.compare({"a": endpoint(first), "b": endpoint(second)}, Plan(requests=1, **SMALL), awake=only)

    assert len(seen) == 2 * 6 and all(on == [name] for name, on in seen)
