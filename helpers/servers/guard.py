"""A command of which nothing is left when it should have ended: :func:`guarded`, and the program that sees to it.

``python -m helpers.servers.guard PARENT LOG -- COMMAND ...`` ends COMMAND and everything it started
when it is told to (SIGTERM), when COMMAND itself ends, or when the process PARENT is gone,
killed or not. On Linux, processes that leave their parent stay within its reach
(``PR_SET_CHILD_SUBREAPER``). LOG, the command's log file, is deleted if PARENT is gone, and
with it the file in which the command's processes met (:func:`store`).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
GRACE_S = 5
STOP_TIMEOUT_S = 12  # the guard takes 5 s to be gentle
ELSEWHERE = re.compile(r"See root cause above|^raise ")  # vLLM's last line, and the code that says it
COLOUR = re.compile(r"(?:\x1b|#x1B)\[[0-9;?]*[A-Za-z]")  # the second is how JUnit's file writes the first


@dataclass
class Guarded:
    """A command that runs under guard. Its log is removed at the end of the block, unless ``keep_log`` is set."""

    process: subprocess.Popen
    log: Path
    keep_log: bool = False

    def reason(self) -> str:
        """Why it failed, as its log says it (:func:`reason`)."""
        return reason(self.log)


@contextmanager
def guarded(
    command: Sequence[str], env: Mapping[str, str], *, name: str, meets_by: str | None = None, cwd: Path | None = None
) -> Iterator[Guarded]:
    """Run ``command`` with the variables ``env`` for the length of a ``with`` block; then none of its processes is left.

    What it prints goes to a log ``name-*.log``. ``meets_by`` is the variable that names the file in which its processes meet,
    for a command that would open a port for that.
    """
    handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log")
    log = Path(path)
    env = {**env, "PYTHONUNBUFFERED": "1", **({meets_by: store(log).as_uri()} if meets_by else {})}
    env.pop("PYTEST_CURRENT_TEST", None)  # engines that redirect their output fail where it stands
    running = None
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "helpers.servers.guard", str(os.getpid()), path, "--", *command],
            stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True, env=env, cwd=cwd,
        )  # fmt: skip
        running = Guarded(process, log)
        yield running
    finally:
        os.close(handle)
        if running:
            end(running.process)
        if not (running and running.keep_log):
            log.unlink(missing_ok=True)
        store(log).unlink(missing_ok=True)


def end(process: subprocess.Popen) -> None:
    """Ask ``process`` to end; what is left of it and its children after ``STOP_TIMEOUT_S`` is killed."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:  # the guard itself hangs
        for member in [*psutil.Process(process.pid).children(recursive=True), process]:
            member.kill()
        process.wait()


def reason(log: Path) -> str:
    """The log's last line that says an error, else its last line, without colours.

    What pydantic refuses is on the line below its own: both are taken. A line that only says where the error stands is none.
    """
    text = COLOUR.sub("", log.read_text(errors="replace"))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for line, below in zip(lines, lines[1:]):
        if "validation error for" in line:
            return f"{line}: {below}"[:300]
    said = [line for line in lines if re.search("error|exception", line, re.IGNORECASE) and not ELSEWHERE.search(line)]
    return (said or lines or ["it wrote nothing"])[-1][:300]


def without_folders(part: str) -> str:
    """A part of a command without the folders in it, which are this machine's own; JSON keeps its form."""
    if '"' in part:
        return re.sub(f'"[^"]*{re.escape(os.sep)}', '"', part)
    name, equals, path = part.partition("=") if re.match(r"\w+=", part) else ("", "", part)  # an adapter: NAME=FOLDER
    return name + equals + Path(path).name if os.sep in path else part


def main(parent: int, log: Path, command: list[str]) -> int:
    """Run ``command`` under guard; returns its exit code."""
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.append(True))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 127
    while child.poll() is None and not stopping and os.getppid() == parent:
        time.sleep(0.1)
    end_descendants()
    if os.getppid() != parent:
        log.unlink(missing_ok=True)
        store(log).unlink(missing_ok=True)
    return child.wait()


def store(log: Path) -> Path:
    """The file beside ``log`` in which processes that use torch.distributed meet, where they would open a port."""
    return log.with_suffix(".store")


def end_descendants() -> None:
    """Ask every descendant to end; after ``GRACE_S`` seconds, make it."""
    family = psutil.Process().children(recursive=True)
    for process in family:
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)  # a suspended process cannot end
    psutil.wait_procs(family, timeout=GRACE_S)
    while family := psutil.Process().children(recursive=True):
        for process in family:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(family, timeout=1)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[sys.argv.index("--") + 1 :]))
