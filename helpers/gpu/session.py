"""One start of one engine: what it did, kept row by row, and its processes ended.

A life that fails or is cut off leaves the rows it had and one line with the reason.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers import kernels
from helpers.gpu import device
from helpers.servers import guard, processes

SETTLED_BYTES = 2**30  # a GPU that holds no more than this above the level before is free again
SETTLE_S = 15
FOLDERS = re.compile(r"/(?:[\w.+-]+/)+")
TAIL_CHARACTERS = 6000
logs: Path | None = None  # where the ends of engines' logs are collected, if anywhere


def without_folders(text: str) -> str:
    """``text`` in one line, without the folders of this machine: no record has them."""
    return FOLDERS.sub("", " ".join(text.split()))[:300]


def collect(title: str, log: Path) -> None:
    """Add the end of ``log`` to the collected ones: it is gone when the process is."""
    if logs is not None and log.exists():
        with logs.open("a") as file:
            file.write(f"\n##### {title}\n{log.read_text(errors='replace')[-TAIL_CHARACTERS:]}\n")


@dataclass(frozen=True)
class Life:
    """``work`` names a function of :mod:`helpers.gpu.tasks`; ``least_s`` must be left, or it is not started."""

    engine: str
    work: str
    option: str
    least_s: float
    given: Mapping = field(default_factory=dict)  # more for the work: lengths, users, tasks

    @property
    def key(self) -> str:
        return f"{self.engine}, {self.work}, {self.option}"


class Log:
    """What is kept of a life while it runs: ``keep`` is called after every row."""

    def __init__(self, life: Life, keep: Callable[[dict], None]):
        self.found: dict = {
            "engine": life.engine, "work": life.work, "option": life.option, "given": dict(life.given),
            "rows": [], "failed": [], "complete": False,
        }  # fmt: skip
        self._keep = keep

    def row(self, kind: str, **fields) -> None:
        """Keep a figure, or a reason why there is none (``failed``, ``stopped``)."""
        if kind in ("failed", "stopped"):
            self.found["failed"].append(f"{kind}: {without_folders(fields['reason'])}")
        else:
            self.found["rows"].append({"kind": kind, **fields})
        self._keep(self.found)

    def note(self, **fields) -> None:
        """Keep something about the life itself: its arguments, its versions."""
        self.found.update(fields)
        self._keep(self.found)


def environment(kernel: str, log: Path) -> dict[str, str]:
    """What an engine's process is started with: its kernelspec's variables, and a file where its processes meet."""
    env = kernels.process_environment(kernel) | {"PYTHONUNBUFFERED": "1"}
    env["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] = guard.store(log).as_uri()
    here = str(kernels.REPOSITORY)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), here)))
    env.pop("PYTEST_CURRENT_TEST", None)
    return env


@contextmanager
def guarded(command: list[str], kernel: str) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Run ``command`` in ``kernel``'s environment under the guard; nothing of it is left when the block ends."""
    handle, name = tempfile.mkstemp(prefix="gpu-", suffix=".log")
    log = Path(name)
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.servers.guard", str(os.getpid()), name, "--", *command],
        stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True, env=environment(kernel, log),
        cwd=kernels.REPOSITORY,
    )  # fmt: skip
    try:
        yield process, log
    finally:
        os.close(handle)
        processes.end(process)
        collect(" ".join(command[1:4]), log)
        log.unlink(missing_ok=True)
        guard.store(log).unlink(missing_ok=True)


def run_job(kernel: str, job: dict, log: Log, left_s: float) -> bool:
    """Run ``helpers.gpu.offline`` on ``job``, its rows into ``log``; whether it came to its end within ``left_s``."""
    with tempfile.TemporaryDirectory(prefix="gpu-job-") as folder:
        rows, file = Path(folder) / "rows", Path(folder) / "job.json"
        rows.touch()
        file.write_text(json.dumps({**job, "rows": str(rows), "left_s": left_s}))
        command = [kernels.interpreter(kernel), "-m", "helpers.gpu.offline", str(file)]
        with guarded(command, kernel) as (process, output):
            return _follow(process, rows, output, log, time.monotonic() + left_s)


def _follow(process: subprocess.Popen, rows: Path, output: Path, log: Log, end: float) -> bool:
    """Take up each line as it is written, until the job says it is done, ends by itself, or the time is over."""
    done = False
    with rows.open() as lines:
        while True:
            ended = process.poll() is not None
            while line := lines.readline():
                row = json.loads(line)
                done |= row["kind"] in ("done", "failed")
                if row["kind"] != "done":
                    log.row(**row)
            if done:
                return row["kind"] == "done"
            if ended:
                log.row("failed", reason=f"it ended by itself: {processes.reason(output)}")
                return False
            if time.monotonic() > end:
                log.row("stopped", reason="the time was over")
                return False
            time.sleep(0.1)


def settle(nvml: device.Nvml, level_bytes: int | None) -> None:
    """Wait until the GPU has given back what an engine held; some seconds at the most."""
    end = time.monotonic() + SETTLE_S
    while level_bytes is not None and nvml.used_bytes() > level_bytes + SETTLED_BYTES and time.monotonic() < end:
        time.sleep(0.2)
