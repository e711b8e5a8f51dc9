"""After each test module: no process and no temporary file of its own is left."""

import os
import tempfile
import time
from pathlib import Path

import psutil
import pytest

MARK = "HELPERS_TEST_MODULE"  # in the environment of everything a test module starts
PATIENCE_S = 10


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(request, tmp_path_factory):
    """Fail the module whose tests leave a process running, or a log or half a file behind.

    Processes are told by a mark in their environment, so that one whose parent has died counts
    too, and another pytest at the same time does not. Temporary files go to a folder of the module.
    """
    folder = tmp_path_factory.mktemp("tmp")
    mark = f"{os.getpid()}-{folder.name}-{request.module.__name__}"
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
        deadline = time.monotonic() + PATIENCE_S
        while (processes := left(mark, before)) and time.monotonic() < deadline:
            time.sleep(0.1)
    files = [path.name for path in Path(folder).iterdir() if path.suffix in (".log", ".partial", ".gguf", ".json")]
    assert (processes, files) == ([], []), "left behind by this module"


def left(mark: str, before: set[int] = frozenset()) -> list[str]:
    """The command lines of the processes that carry ``mark``, and of this process's new children."""
    found = {child for child in psutil.Process().children(recursive=True) if child.pid not in before}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.add(process)
        except psutil.Error:
            pass
    return [line for process in found if (line := command(process))]


def command(process: psutil.Process) -> str:
    """A process's command line; empty if it has ended."""
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def wait_until(true, timeout_s: float = 10) -> bool:
    """Whether ``true()`` holds within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()
