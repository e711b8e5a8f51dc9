"""How a command line program of ours ends."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EPIPE)


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
        print(unwritten(error), file=sys.stderr)
        return False


def unwritten(error: OSError) -> str:
    """What could not be written and why, in one line; after standard output nothing more is written there."""
    if error.filename:
        return f"{error.filename} could not be written ({error.strerror})"
    with suppress(OSError, ValueError):  # a stream that is no file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
    return f"standard output could not be written ({error.strerror})"


def finish(program: Callable[[], int | None], *errors: type[Exception], stopped: str) -> int:
    """Run ``program`` to the exit code of a command: its own (``None`` is 0), 1 after one of ``errors``, 128 + a signal's number.

    An error is one line on standard error, a file or a standard output that cannot be written too; ``stopped`` says
    there what is kept, also after SIGTERM or SIGINT.
    """
    interruptible()
    try:
        code = program() or 0
        sys.stdout.flush()  # what cannot be written is noticed here, and not when Python ends
        return code
    except errors as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"{unwritten(error)}; {stopped}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"stopped; {stopped}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
