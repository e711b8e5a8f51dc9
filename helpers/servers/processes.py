"""A process that was started under :mod:`guard`: ended for sure, its log's reason, its command without folders."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import psutil

STOP_TIMEOUT_S = 12  # the guard takes 5 s to be gentle
COLOUR = re.compile(r"(?:\x1b|#x1B)\[[0-9;?]*[A-Za-z]")  # the second is how JUnit's file writes the first


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

    What pydantic refuses is on the line below its own: both are taken.
    """
    text = COLOUR.sub("", log.read_text(errors="replace"))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for line, below in zip(lines, lines[1:]):
        if "validation error for" in line:
            return f"{line}: {below}"[:300]
    said = [line for line in lines if re.search("error|exception", line, re.IGNORECASE)]
    return (said or lines or ["it wrote nothing"])[-1][:300]


def without_folders(part: str) -> str:
    """A part of a command without the folders in it, which are this machine's own; JSON keeps its form."""
    if '"' in part:
        return re.sub(f'"[^"]*{re.escape(os.sep)}', '"', part)
    return Path(part).name if os.sep in part else part
