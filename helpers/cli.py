"""How a command line program of ours ends."""

from __future__ import annotations

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
