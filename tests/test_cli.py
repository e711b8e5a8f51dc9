"""How a command ends: its exit code, and one line that says why."""

import errno
import signal
import subprocess
import sys

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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/README.md"), "/x/README.md could not be written (No space"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "standard output could not be written (Broken pipe)"),
    ],
)
def test_what_cannot_be_written_is_one_line(capsys, error, said):
    """A full disk, a closed pipe: what, why, and what is kept."""

    def program():
        raise error

    assert cli.finish(program, stopped="what had run is kept") == 1
    err = capsys.readouterr().err
    assert err.startswith(said) and err.endswith("; what had run is kept\n") and err.count("\n") == 1


def test_another_fault_of_the_system_is_not_hidden():
    """A connection that is refused is no full disk."""
    with pytest.raises(ConnectionRefusedError):
        cli.finish(lambda: open_nothing(), stopped="")


def open_nothing():
    raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize("module", ["helpers.collection.run", "helpers.collection.docs"])
def test_output_that_nobody_takes_is_noticed_before_python_ends(module):
    """Standard output is a full disk, as the commands of the collection meet it: one line and 1, not 120."""
    code = f"import sys; from helpers import cli; import {module}; sys.exit(cli.finish(lambda: print('x'), stopped='kept'))"
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)

    assert (run.returncode, run.stderr) == (1, "standard output could not be written (No space left on device); kept\n")
