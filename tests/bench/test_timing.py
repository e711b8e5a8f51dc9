"""The definitions, computed by hand."""

import dataclasses
import json
import random

import numpy as np
import pytest

from helpers.bench.timing import Level, Sample, answers_at_once, figure, met, percentile
from helpers.formatting import told

MS = 1_000_000  # ns

FOUR_TOKENS = Sample(
    sent_ns=1_000 * MS, event_ns=(1_200 * MS, 1_250 * MS, 1_310 * MS, 1_350 * MS), prompt_tokens=7, output_tokens=4
)


def sample(sent_ms: float, *event_ms: float, tokens: int | None = None, error: str | None = None) -> Sample:
    """A request with its stamps in milliseconds and as many tokens as events, unless given."""
    events = tuple(round(ms * MS) for ms in event_ms)
    return Sample(round(sent_ms * MS), events, output_tokens=len(events) if tokens is None else tokens, error=error)


def test_ttft_is_from_send_to_the_first_event_with_text():
    """1200 - 1000 ms."""

    assert FOUR_TOKENS.ttft_s == pytest.approx(0.2)


def test_itl_is_every_gap_between_events():
    """50, 60 and 40 ms."""

    assert FOUR_TOKENS.itl_s == pytest.approx((0.05, 0.06, 0.04))


def test_tpot_is_the_time_after_the_first_token_over_the_tokens_after_it():
    """(1350 - 1200) / 3 ms."""

    assert FOUR_TOKENS.tpot_s == pytest.approx(0.05)


def test_tpot_counts_tokens_and_not_events():
    """Four events that carried seven tokens: 150 ms / 6."""

    assert dataclasses.replace(FOUR_TOKENS, output_tokens=7).tpot_s == pytest.approx(0.025)


def test_e2e_is_from_send_to_the_last_event_with_text():
    """1350 - 1000 ms."""

    assert FOUR_TOKENS.e2e_s == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("request_", "ttft_s", "itl_s", "tpot_s", "e2e_s"),
    [
        (sample(0), None, (), None, None),
        (sample(0, 100), 0.1, (), None, 0.1),
        (sample(0, 100, 100), 0.1, (0.0,), None, 0.1),
        (Sample(0, (100 * MS,), output_tokens=9), 0.1, (), None, 0.1),
        (Sample(0, (100 * MS, 200 * MS), output_tokens=None), 0.1, (0.1,), None, 0.2),
        (Sample(0, (100 * MS, 200 * MS), output_tokens=1), 0.1, (0.1,), None, 0.2),
    ],
    ids=["no event", "one event", "two in one read", "nine tokens in one event", "no count", "two events, one token"],
)
def test_what_is_not_defined_is_none(request_, ttft_s, itl_s, tpot_s, e2e_s):
    """A figure without a definition is None and never 0; a gap of 0 is one."""

    assert (request_.ttft_s, request_.itl_s, request_.tpot_s, request_.e2e_s) == (ttft_s, itl_s, tpot_s, e2e_s)


@pytest.mark.parametrize(
    ("values", "median", "low", "high", "interval"),
    [
        ([4.0], 4, 4, 4, "min-max"),
        ([3, 1, 2], 2, 1, 3, "min-max"),
        ([5, 1, 4, 2, 3], 3, 1, 5, "min-max"),
        ([1, None, 3], 2, 1, 3, "min-max"),
        (range(1, 7), 3.5, 1, 6, "95%"),  # 2 * 1/64 = 3.1 %
        (range(1, 9), 4.5, 1, 8, "95%"),  # one more on each side: 2 * 9/256 = 7.0 %
        (range(1, 10), 5, 2, 8, "95%"),  # 2 * 10/512 = 3.9 %
        (range(1, 12), 6, 2, 10, "95%"),  # 2 * 67/2048 = 6.5 % for the third
        (range(1, 13), 6.5, 3, 10, "95%"),  # 2 * 79/4096 = 3.9 %
    ],
    ids=["1", "3", "5", "None left out", "6", "8", "9", "11", "12"],
)
def test_figure_is_a_median_with_its_interval(values, median, low, high, interval):
    """Min and max below six values; from six, order statistics that cover the median at 95 %."""
    found = figure(values)

    assert (found.median, found.low, found.high, found.interval) == (median, low, high, interval)


@pytest.mark.parametrize("values", [[], [None, None]])
def test_figure_of_nothing_is_none(values):
    """No value, no figure."""

    assert figure(values) is None


@pytest.mark.parametrize("count", [6, 9, 12, 20])
def test_the_interval_covers_the_median_in_95_of_100_experiments(count):
    """Drawn 2000 times from a skewed distribution whose median is ln 2."""
    draws = np.random.default_rng(0).exponential(size=(2000, count))
    covered = [found.low <= np.log(2) <= found.high for found in map(figure, draws)]

    assert np.mean(covered) > 0.94


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(0, 50, None), (3, 50, 2.0), (44, 90, None), (45, 90, 40.6), (459, 99, None), (460, 99, 455.41)],
)
def test_percentiles_need_enough_requests(count, percent, expected):
    """Of 1, 2, ..., n: p90 only from 45, p99 only from 460, position 1 + 0.99 * 459."""

    assert percentile(list(range(1, count + 1)), percent) == (None if expected is None else pytest.approx(expected))


def test_throughput_is_tokens_of_all_users_over_first_send_to_last_token():
    """Two requests that overlap: 5 tokens in 500 ms."""
    level = Level(2, ((sample(0, 100, 200, 300), sample(100, 400, 500)),))

    assert level.output_tokens_per_s.median == pytest.approx(10)


def test_throughput_has_one_value_per_repeat():
    """Blocks of 2 tokens in 200, 100 and 400 ms: 20, 10 and 5 in order."""
    level = Level(1, ((sample(0, 50, 100),), (sample(0, 100, 200),), (sample(0, 100, 400),)))
    found = level.output_tokens_per_s

    assert (found.low, found.median, found.high) == pytest.approx((5, 10, 20))


def test_throughput_is_none_where_tokens_are_not_counted():
    """One request without a count: the rate of its block is not known."""
    uncounted = Sample(0, (100 * MS, 200 * MS), output_tokens=None)

    assert Level(2, ((sample(0, 100, 200), uncounted),)).output_tokens_per_s is None


def test_failed_requests_count_in_no_figure():
    """A failed request with early and late stamps changes neither throughput nor latency."""
    good, failed = sample(0, 100, 200), sample(0, 1, 9_999, error="reset: the connection broke")
    with_failure, without = Level(2, ((good, failed),)), Level(2, ((good,),))

    assert with_failure.output_tokens_per_s == without.output_tokens_per_s
    assert with_failure.latency("ttft_s") == without.latency("ttft_s")
    assert with_failure.error_kinds == {"reset": 1}


def test_a_level_of_failures_has_no_figure():
    """Nothing succeeded: every figure is None and the errors are counted by kind."""
    level = Level(1, ((sample(0, error="refused: a"), sample(0, error="HTTP 500: b")), (sample(0, error="refused: c"),)))
    found = level.to_dict()

    assert found["output_tokens_per_s"] is found["ttft_s"] is found["itl_s"] is found["tpot_s"] is found["e2e_s"] is None
    assert (found["errors"], found["error_kinds"]) == (3, {"refused": 2, "HTTP 500": 1})


def test_latency_spreads_over_repeats_and_has_percentiles_over_requests():
    """TTFT 10, 30 and 20 ms in one repeat, 40 ms in the other: medians 20 and 40, p50 of all 25."""
    level = Level(1, ((sample(0, 10), sample(0, 30), sample(0, 20)), (sample(0, 40),)))
    found = level.latency("ttft_s")

    assert found == {
        "median": pytest.approx(0.03), "low": pytest.approx(0.02), "high": pytest.approx(0.04), "interval": "min-max",
        "p50": pytest.approx(0.025), "p90": None, "p99": None, "n": 4,
    }  # fmt: skip


def test_answers_at_once_are_counted_as_one_would_by_hand():
    """For each answer's first token the answers between their first and last; two that touch are at once."""
    draw = random.Random(0)
    spans = [sorted(draw.choices(range(50), k=2)) for _ in range(40)] + [[5, 5]]
    block = [Sample(0, tuple(span)) for span in spans] + [Sample(0)]

    assert answers_at_once(block) == max(sum(a <= begin <= b for a, b in spans) for begin, _ in spans)
    assert answers_at_once([Sample(0, (1, 5)), Sample(0, (5, 9)), Sample(0, (10, 12))]) == 2
    assert answers_at_once([Sample(0)]) == 0


def test_itl_pools_all_gaps():
    """Two requests of three tokens have four gaps."""
    level = Level(1, ((sample(0, 10, 20, 40), sample(0, 10, 40, 80)),))

    assert level.latency("itl_s")["n"] == 4
    assert level.latency("itl_s")["median"] == pytest.approx(0.025)


def test_p99_is_there_from_460_requests():
    """459 requests give none, 460 give one."""
    requests = [sample(0, 1 + i) for i in range(460)]

    assert Level(1, (tuple(requests[:459]),)).latency("ttft_s")["p99"] is None
    assert Level(1, (tuple(requests),)).latency("ttft_s")["p99"] == pytest.approx(0.45541)


def of_kinds(*kinds: str, tokens: int | None = None, source: str | None = "server_usage") -> Sample:
    """An event of each kind, 100 ms apart."""
    stamps = tuple(100 * MS * (i + 1) for i in range(len(kinds)))
    return Sample(0, stamps, kinds=kinds, output_tokens=len(kinds) if tokens is None else tokens, token_source=source)


def test_time_to_first_answer_is_to_the_first_text():
    """The third of four events: 300 ms; the first token came after 100."""
    one = of_kinds("reasoning", "tool call", "text", "text")

    assert (one.ttft_s, one.time_to_first_answer_s) == pytest.approx((0.1, 0.3))
    assert (FOUR_TOKENS.ttft_s, of_kinds("reasoning").time_to_first_answer_s) == (FOUR_TOKENS.time_to_first_answer_s, None)


def test_an_answer_without_text_keeps_no_limit_of_the_first_answer():
    """A TPOT that is not defined keeps its limit; an answer that never came does not."""

    assert met(of_kinds("text"), {"time_to_first_answer_s": 0.1, "tpot_s": 0.05})
    assert not met(of_kinds("reasoning"), {"time_to_first_answer_s": 100})


def test_the_gaps_of_events_that_lack_a_token_go_to_the_next():
    """Counted along: 1, 0, 2 tokens; the third event's gap is 100 ms and the one before it 100 ms, spread over two tokens."""
    one = dataclasses.replace(of_kinds("text", "text", "text", tokens=3), event_tokens=(1, 0, 2))

    assert one.token_itl_s == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("tokens", "source", "basis"),
    [
        (4, "server_usage", "tokens"),
        (12, "server_usage", "events of 3.00 tokens"),
        (2, "server_usage", "events of 0.50 tokens"),
        (4, "events", "events; the server does not count tokens"),
    ],
)
def test_a_level_says_what_its_itl_lies_between(tokens, source, basis):
    """Tokens where the server's count is that of the events, else events, with how many tokens each had."""
    level = Level(1, ((of_kinds("text", "text", "text", "text", tokens=tokens, source=source),),))

    assert level.to_dict()["itl_basis"] == level.itl_basis == basis
    assert (level.to_dict()["token_itl_s"] is None) == (source == "events")


def test_a_level_counts_its_events_by_kind():
    """Two answers: what was thought, said and called."""
    level = Level(1, ((of_kinds("reasoning", "text"), of_kinds("text", "tool call")),))

    assert level.to_dict()["events_by_kind"] == {"reasoning": 1, "text": 2, "tool call": 1}


def test_to_dict_is_the_documented_json():
    """The keys of a level, of a figure and of a latency; all of it JSON without NaN."""
    found = json.loads(json.dumps(Level(1, ((FOUR_TOKENS,), (FOUR_TOKENS,)), "a label").to_dict(), allow_nan=False))
    spread = {"median", "low", "high", "interval"}

    assert set(found) >= {"users", "requests", "repeats", "errors", "output_tokens_per_s", "ttft_s", "itl_s", "tpot_s", "e2e_s"}
    assert (found["users"], found["requests"], found["repeats"], found["errors"]) == (1, 1, 2, 0)
    assert (found["prompt_tokens"], found["output_tokens"], found["tokens_per_event"]) == ([7], [4], 1.0)
    assert set(found["output_tokens_per_s"]) == spread
    assert all(set(found[name]) == spread | {"p50", "p90", "p99", "n"} for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s"))
    assert found["label"] == "a label"


def test_a_figure_is_told_with_its_spread():
    """Lowest and highest beside the median; what was measured once has none, and what is not defined is no 0."""
    of_three = {"median": 1.04, "low": 1.0, "high": 1.26}

    assert told(of_three, ".1f") == "1.0 (1.0 to 1.3)"
    assert told(of_three | {"repeats": 1}, ".0f", 1000) == "1040"
    assert told(None) == "-"
