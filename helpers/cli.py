"""How a command line program of ours ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def interruptible() -> None:
    """Let SIGTERM end this process as SIGINT does, by ``KeyboardInterrupt``, whose argument is the signal's number.

    Also where a shell has set SIGINT to be ignored, as for a command in the background.
    """

    def stop(number: int, _frame) -> None:
        raise KeyboardInterrupt(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def say(text: str) -> bool:
    """Print ``text``; whether it could be printed. A closed pipe or a full disk is one line on standard error."""
    try:
        print(text, flush=True)
        return True
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        print(f"standard output could not be written ({error.strerror})", file=sys.stderr)
        return False


def finish(program: Callable[[], int | None], *errors: type[Exception], stopped: str) -> int:
    """Run ``program`` to the exit code of a command: its own (``None`` is 0), 1 after one of ``errors``, 128 + a signal's number.

    An error is one line on standard error; ``stopped`` says there what is kept after SIGTERM or SIGINT.
    """
    interruptible()
    try:
        return program() or 0
    except errors as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"stopped; {stopped}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
