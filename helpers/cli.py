"""How a command line program of ours ends."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """Let SIGTERM end this process as SIGINT does, by ``KeyboardInterrupt``, whose argument is the signal's number.

    Also where a shell has set SIGINT to be ignored, as for a command in the background.
    """

    def stop(number: int, _frame) -> None:
        raise KeyboardInterrupt(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
