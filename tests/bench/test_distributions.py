"""Lengths and pauses that are drawn: what is understood, what is refused, and that the seed decides."""

import random
import statistics

import pytest

from helpers.bench import distributions


def drawn(text: str, count: int = 4000, **options) -> list[float]:
    source, found = random.Random(1), distributions.parse("--x", text, **options)
    return [found.draw(source) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        ("128", 128, 0),
        ("uniform:64:256", 160, 192 / 12**0.5),
        ("normal:128:16", 128, 16),
        ("lognormal:128:0.5", 128 * 1.1331, 77.3),  # median * exp(s^2 / 2), mean * sqrt(exp(s^2) - 1)
        ("exponential:5", 5, 5),
    ],
)
def test_mean_and_spread_are_those_of_the_distribution(text, mean, deviation):
    """Of 4,000 draws, within a few hundredths."""
    values = drawn(text, least=0)

    assert statistics.mean(values) == pytest.approx(mean, rel=0.06)
    assert statistics.pstdev(values) == pytest.approx(deviation, rel=0.1)
    assert distributions.parse("--x", text, least=0).mean == pytest.approx(mean, rel=1e-3)


def test_nothing_below_the_least_is_drawn():
    """A length of no token and a pause before the past are none."""

    assert min(drawn("normal:2:5")) == 1
    assert min(drawn("normal:0:5", least=0)) == 0


def test_the_seed_decides_and_the_text_comes_back():
    """Twice the same; ``str`` is what was asked."""

    assert drawn("normal:128:16", 5) == drawn("normal:128:16", 5)
    assert [str(distributions.parse("--x", text)) for text in ("128", "uniform:64:256")] == ["128", "uniform:64:256"]


KNOWN = "give a number, or one of uniform:LOW:HIGH, normal:MEAN:SD, lognormal:MEDIAN:SIGMA, exponential:MEAN"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("many", KNOWN),
        ("zipf:2", KNOWN),
        ("normal:128", KNOWN),
        ("uniform:1:2:3", KNOWN),
        ("normal:nan:1", KNOWN),
        ("", KNOWN),
        ("0", "0 must be at least 1"),
        ("-3", "-3 must be at least 1"),
        ("uniform:9:3", "the highest, 3, is below the lowest, 9"),
        ("normal:5:-1", "a spread of -1: must be at least 0"),
        ("exponential:0", "0 must be above 0"),
    ],
)
def test_what_is_no_distribution_is_refused_in_one_line(text, reason):
    """With the option's name and what there is."""
    with pytest.raises(ValueError) as caught:
        distributions.parse("--x", text)

    assert str(caught.value) == f"--x {text!r}: {reason}"
