"""Warm-ups, repeats, order, labels: what is really sent, seen by a mock server."""

import pytest
from mock_server import MockServer, Script

from helpers import measure
from helpers.client import Endpoint, EndpointError
from helpers.measure import Plan, TooFewRepeats

SMALL = {"input_tokens": 8, "output_tokens": 2}


def endpoint(mock: MockServer, **settings) -> Endpoint:
    return Endpoint(mock.base_url, "m", **settings)


def prompts(mock: MockServer) -> list[str]:
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
    with MockServer() as mock:
        (level,) = measure.measure(endpoint(mock), plan)

    assert level.label == "not a measurement: 1 repeats after 0 warm-ups"
    assert Plan(**SMALL).label is None


def test_as_many_requests_as_planned():
    """A probe, then for each number of users a warm-up and three repeats of four per user."""
    with MockServer() as mock:
        one, two = measure.measure(endpoint(mock), Plan(users=(1, 2), **SMALL))

        assert len(mock.received) == 1 + (1 + 3) * 4 * 1 + (1 + 3) * 4 * 2
    assert [len(block) for block in one.blocks] == [4, 4, 4]
    assert [len(block) for block in two.blocks] == [8, 8, 8]


def test_no_prompt_is_sent_twice():
    """Probe, two warm-ups, three repeats, two numbers of users: every prompt is new."""
    with MockServer() as mock:
        measure.measure(endpoint(mock), Plan(users=(1, 2), warmups=2, **SMALL))

        assert len(set(prompts(mock))) == len(mock.received) == 1 + 5 * 4 + 5 * 8


def test_all_endpoints_get_the_same_prompts_in_turned_order():
    """Two servers: the same requests; who begins changes from repeat to repeat."""
    with MockServer() as first, MockServer() as second:
        plan = Plan(requests=1, **SMALL)
        measure.compare({"first": endpoint(first), "second": endpoint(second)}, plan)
        ask = sorted((r.written_ns[0], name) for name, mock in (("1", first), ("2", second)) for r in mock.received)

        assert prompts(first) == prompts(second)
    assert "".join(name for _, name in ask) == "12" + "21" + "12" + "21" + "12"  # probes, warm-up, three repeats


def test_the_figure_is_what_the_server_did():
    """Eight users who each get 10 tokens in 0.1 s and 9 gaps of 10 ms: TPOT and TTFT as scripted, or slower."""
    with MockServer(Script(first_s=0.1, gap_s=0.01)) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(users=(8,), requests=8, input_tokens=8, output_tokens=10))
        wrote = [(r.written_ns[-1] - r.written_ns[0]) / 9e9 for r in mock.received[-24:]]

    assert 0.1 <= level.latency("ttft_s")["median"] < 0.2
    assert level.latency("tpot_s")["p50"] == pytest.approx(sorted(wrote)[12], rel=0.3)
    assert 200 < level.output_tokens_per_s.median <= 80 / 0.19


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_the_probe_fits_the_text_to_the_servers_count(extra):
    """A server that adds tokens gets fewer words, so that it counts what was asked for."""
    with MockServer(Script(extra_prompt_tokens=extra)) as mock:
        target = measure.probe(endpoint(mock), Plan(**SMALL))
        (level,) = measure.measure(endpoint(mock), Plan(requests=1, **SMALL))

    assert target.words == 8 - extra
    assert level.to_dict()["prompt_tokens"] == [8]


def test_a_template_longer_than_the_prompt_is_an_error():
    """30 tokens of template do not fit in a prompt of 8."""
    with MockServer(Script(extra_prompt_tokens=30)) as mock:
        with pytest.raises(EndpointError, match="counts 38 prompt tokens where 8 were asked for: ask for more$"):
            measure.probe(endpoint(mock), Plan(**SMALL))


def test_a_server_that_does_not_count_is_taken_at_its_word():
    """Without usage the prompt stays as long as asked."""
    with MockServer(Script(usage=False)) as mock:
        assert measure.probe(endpoint(mock), Plan(**SMALL)).words == 8


def test_a_context_too_small_is_said_before_anything_is_sent():
    """8 and 2 tokens do not fit 9."""
    with MockServer() as mock:
        with pytest.raises(EndpointError, match="^8 tokens in and 2 out do not fit the context of 9: ask for fewer, or start"):
            measure.measure(endpoint(mock, context=9), Plan(**SMALL))

        assert mock.received == []


def test_an_endpoint_that_fails_at_once_is_an_error():
    """The probe's failure ends it, in one line with the address."""
    with MockServer(Script(status=500, answer={"error": "no"})) as mock:
        with pytest.raises(EndpointError, match=r'gives no answer to measure: HTTP 500: \{"error": "no"\}$') as caught:
            measure.measure(endpoint(mock), Plan(**SMALL))

        assert str(caught.value).startswith(mock.base_url)


@pytest.mark.parametrize(
    ("requests", "label"),
    [(30, "not a measurement: 1 of 90 requests failed"), (34, None)],  # 1.1 %, 0.98 %
)
def test_more_than_one_in_a_hundred_failed_is_no_figure(requests, label):
    """One failure among 90 labels the level, one among 102 does not; both are counted."""

    def last_fails(number: int, body: dict) -> Script:
        return Script(status=503, answer={}) if number == 1 + 4 * requests - 1 else Script()

    with MockServer(last_fails) as mock:
        (level,) = measure.measure(endpoint(mock), Plan(users=(4,), requests=requests, **SMALL))

    assert (level.label, level.error_kinds) == (label, {"HTTP 503": 1})


def test_the_hash_of_a_plan_is_of_what_is_sent():
    """It changes with the seed and not with the number of warm-ups."""

    assert measure.workload_sha256(Plan(**SMALL)) == measure.workload_sha256(Plan(warmups=4, **SMALL))
    assert measure.workload_sha256(Plan(**SMALL)) != measure.workload_sha256(Plan(seed=1, **SMALL))


def test_levels_come_one_by_one():
    """The first number of users is yielded before the second one's requests are sent."""
    with MockServer() as mock:
        found = measure.levels({"": endpoint(mock)}, Plan(users=(1, 2), **SMALL))
        next(found)

        assert len(mock.received) == 1 + 4 * 4
        found.close()
