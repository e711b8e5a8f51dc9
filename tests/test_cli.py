"""How a command ends: its exit code, and one line that says why."""

import signal

import pytest

from helpers import cli


@pytest.fixture(autouse=True)
def signals():
    """The handlers of this process as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (75, 75)])
def test_a_program_ends_with_its_own_code(returned, code):
    """``None`` is 0."""
    assert cli.finish(lambda: returned, stopped="") == code


def test_an_expected_error_is_one_line(capsys):
    """Its text on standard error, and 1."""

    def program():
        raise ValueError("--users 0: give 1 or more")

    assert cli.finish(program, ValueError, stopped="") == 1
    assert capsys.readouterr().err == "--users 0: give 1 or more\n"


def test_an_unexpected_error_is_not_hidden():
    """Only what is named is a line."""
    with pytest.raises(ZeroDivisionError):
        cli.finish(lambda: 1 / 0, ValueError, stopped="")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_says_what_is_kept(capsys, number):
    """SIGTERM as SIGINT: 128 and the signal's number."""

    def program():
        signal.raise_signal(number)

    assert cli.finish(program, stopped="what was measured is kept") == 128 + number
    assert capsys.readouterr().err == "stopped; what was measured is kept\n"
