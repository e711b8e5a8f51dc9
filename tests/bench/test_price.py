"""Prices per million tokens, computed by hand."""

import pytest

from helpers.bench import price
from helpers.bench.timing import Level, Sample

S = 1_000_000_000  # ns


def answer(
    sent_s: float, first_s: float, last_s: float, *, given: int = 100, made: int = 10, source: str = "server_usage"
) -> Sample:
    stamps = (round(first_s * S), round(last_s * S))
    return Sample(round(sent_s * S), stamps, prompt_tokens=given, output_tokens=made, token_source=source)


def test_the_machines_time_is_split_at_the_first_token():
    """2 s at 3,600 an hour cost 2; a quarter of the request's time is before its first token: 0.5 for 100 tokens, 1.5 for 10."""
    found = price.of_block([answer(0, 0.5, 2)], 3600)

    assert found["output_alone"] == pytest.approx(2 / 10 * 1e6)
    assert found["input"] == pytest.approx(0.5 / 100 * 1e6) and found["output"] == pytest.approx(1.5 / 10 * 1e6)


def test_requests_at_once_share_the_machine():
    """Two requests in the same 2 s: half the price of one, and both prices together are the machine's cost."""
    found = price.of_block([answer(0, 0.5, 2), answer(0, 1, 2, given=300, made=30)], 3600)

    assert found["output_alone"] == pytest.approx(2 / 40 * 1e6)
    assert found["input"] * 400 + found["output"] * 40 == pytest.approx(2e6)


@pytest.mark.parametrize(
    "block",
    [
        [answer(0, 1, 2, source="events")],
        [Sample(0, (S, 2 * S), output_tokens=5, token_source="server_usage")],
        [Sample(0, error="reset: x")],
    ],
    ids=["events are counted", "prompts are not counted", "nothing succeeded"],
)
def test_what_is_not_counted_has_no_price(block):
    """None, and never 0."""

    assert price.of_block(block, 1) is None
    assert price.per_million(Level(1, (tuple(block),)), 1) is None
    assert price.line(Level(1, (tuple(block),)), 1).startswith("no price: ")


def test_a_level_has_prices_with_their_spread():
    """Two repeats of 2 and 4 s."""
    level = Level(1, ((answer(0, 1, 2),), (answer(0, 1, 4),)))
    found = price.per_million(level, 3600)

    alone = found["per_million_tokens"]["output_alone"]
    assert (found["per_hour"], alone["low"], alone["high"]) == (3600, pytest.approx(2e5), pytest.approx(4e5))
    assert price.line(level, 3600).startswith("3600 per hour: 3e+05 (2e+05 to 4e+05) per million output tokens; or ")


@pytest.mark.parametrize("per_hour", [0, -1, float("inf"), float("nan")])
def test_what_is_no_price_is_refused(per_hour):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="^--price-per-hour .*: give what an hour of the machine costs, above 0$"):
        price.check(per_hour)
