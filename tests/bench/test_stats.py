"""Which differences are real: against drawn numbers whose truth is known."""

import numpy as np
import pytest

from helpers.bench import stats
from helpers.bench.timing import Level, Sample

MS = 1_000_000


def test_below_six_repeats_nothing_is_said():
    """A ratio, no interval, no verdict."""
    found = stats.difference([20, 22, 21], [10, 11, 10], names=("x", "y"))

    assert (found.real, found.low, found.repeats) == (None, None, 3)
    assert str(found) == "x / y = 2.03: 3 repeats are too few to say, 6 are needed"


def test_a_clear_difference_is_real():
    """Twice as fast, with 5 % of noise in each block."""
    noise = np.random.default_rng(0).normal(1, 0.05, size=(2, 8))
    found = stats.difference(200 * noise[0], 100 * noise[1], names=("x", "y"))

    assert found.real and 1.6 < found.low < found.ratio < found.high < 2.6
    assert str(found).endswith("): real")


def test_what_slows_both_is_no_difference():
    """The machine gets slower from block to block: the pairs are alike, the spread of each is large."""
    machine = np.array([100, 90, 60, 50, 40, 30])
    wobble = np.random.default_rng(1).normal(1, 0.01, size=(2, 6))
    found = stats.difference(1.1 * machine * wobble[0], machine * wobble[1])

    assert found.real and found.ratio == pytest.approx(1.1, rel=0.02)


@pytest.mark.parametrize("repeats", [6, 12])
def test_the_same_twice_is_called_real_in_about_one_of_twenty(repeats):
    """400 A/A comparisons without a floor: between 1 % and 9 % are called real, with few repeats too."""
    draw = np.random.default_rng(2)
    wrong = [stats.difference(*draw.lognormal(0, 0.1, size=(2, repeats))).real for _ in range(400)]

    assert 0.01 < np.mean(wrong) < 0.09


def test_a_difference_within_the_noise_floor_is_not_real():
    """Exactly 2 % in every block, and an engine that differs from itself by 3 %."""
    found = stats.difference([102] * 6, [100] * 6, floor=0.03)

    assert (found.low, found.high) == (pytest.approx(1.02), pytest.approx(1.02))
    assert not found.real and stats.difference([102] * 6, [100] * 6, floor=0.01).real


def test_more_comparisons_widen_each_interval():
    """Ten at once: each has to be surer."""
    values = np.random.default_rng(3).lognormal(0, 0.1, size=(2, 12))
    one, ten = (stats.difference(*values, comparisons=n) for n in (1, 10))

    assert ten.low < one.low < one.high < ten.high


def test_blocks_without_a_value_are_left_out_in_pairs():
    """A block that failed on one side says nothing of the other."""
    found = stats.difference([1, None, 3, 4], [2, 4, None, 8])

    assert (found.repeats, found.ratio) == (2, pytest.approx(0.5))
    assert stats.difference([None, 1], [1, None]) is None


def level(*milliseconds: int) -> Level:
    """Blocks of one request with ten tokens that took so long."""
    return Level(1, tuple((Sample(0, (MS, ms * MS), output_tokens=10),) for ms in milliseconds))


def test_compare_takes_every_pair_at_every_load():
    """Three engines at one number of users: three pairs."""
    found = stats.compare({"a": [level(*range(100, 106))], "b": [level(*range(200, 212, 2))], "c": [level(*range(100, 106))]})

    assert [(d.a, d.b, d.real) for d in found[1]] == [("a", "b", True), ("a", "c", False), ("b", "c", True)]


def test_the_noise_floor_is_how_far_an_engine_was_from_itself():
    """Blocks that differ by up to 4 %: a floor of a few per cent; three blocks give none."""
    once, again = level(100, 102, 100, 104, 100, 101), level(102, 100, 101, 100, 103, 100)

    assert 0 < stats.noise_floor([once], [again]) < 0.05
    assert stats.noise_floor([level(100, 101, 102)], [level(100, 101, 102)]) is None
