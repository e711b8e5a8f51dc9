"""The one test over many: it names each that fails, and passes when none does."""

import pytest
from offenders import offenders, over

NUMBERS = {"one": {"number": 1}, "two": {"number": 2}, "three": {"number": 3}}


def is_even(number: int) -> None:
    assert number % 2 == 0, "is odd"


def test_every_one_that_fails_is_named():
    """With its reason in one line."""
    found = offenders(NUMBERS, lambda given: is_even(**given))

    assert [line.partition(" assert")[0] for line in found] == ["one: AssertionError: is odd", "three: AssertionError: is odd"]


def test_an_error_that_is_no_assertion_counts():
    """A check that breaks has not passed."""
    assert offenders({"x": {"number": None}}, lambda given: is_even(**given))[0].startswith("x: TypeError: ")


@over(lambda: NUMBERS, "number")
def test_a_decorated_check_runs_over_all(number, tmp_path):
    """Its other arguments are fixtures."""
    assert number > 0 and tmp_path.is_dir()


class TestMethods:
    """A check that is a method."""

    @over(lambda: NUMBERS, "number")
    def test_a_decorated_method_runs_over_all(self, number, tmp_path):
        """It has its object and its fixtures."""
        assert isinstance(self, TestMethods) and number > 0 and tmp_path.is_dir()


def test_a_decorated_check_fails_with_all_names():
    """As pytest would call it."""
    with pytest.raises(AssertionError, match="(?s)one: .*three: "):
        over(lambda: NUMBERS, "number")(is_even)()


def test_nothing_to_check_is_a_failure():
    """A list that has become empty is no pass."""
    with pytest.raises(AssertionError, match="there is nothing to check"):
        over(dict, "number")(is_even)()
