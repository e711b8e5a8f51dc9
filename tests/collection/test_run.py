"""Notebooks that are run: how long a cell may take, and how the run ends when it is told to."""

import os
import signal
import subprocess
import sys

import nbformat
import pytest
from leftovers import wait_until

from helpers import machine
from helpers.collection import notebooks, run

pytestmark = pytest.mark.engine  # they need the lab's kernel


def notebook(path, *cells: str, cell_timeout_s: int = 1):
    """A notebook of the lab's kernel at ``path``."""
    metadata = {
        "collection": {"requires": [], "compare": "lax", "cell_timeout_s": cell_timeout_s},
        "kernelspec": {"display_name": "Lab", "language": "python", "name": "lab"},
    }
    made = nbformat.v4.new_notebook(metadata=metadata, cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(made, path)
    return path


def test_a_cell_has_as_many_times_longer_as_the_machine_is_slower(tmp_path, monkeypatch):
    """With a mock of a machine five times slower: three seconds where one is allowed on an idle one."""
    monkeypatch.setattr(machine, "slowness", lambda: 5.0)
    done = run.execute(notebook(tmp_path / "slow.ipynb", "import time; time.sleep(3); print('done')"))

    assert done.cells[0].outputs[0].text == "done\n"


def test_a_hang_ends_and_says_what_else_runs(tmp_path, monkeypatch):
    """With a mock of a machine that others use: one line."""
    for name in ("slowness", "load_slowness"):
        monkeypatch.setattr(machine, name, lambda: 1.0)
    monkeypatch.setattr(machine, "busy_word", lambda: "other programs use 90% of the cores")
    with pytest.raises(notebooks.NotebookError) as caught:
        run.execute(notebook(tmp_path / "hangs.ipynb", "while True: pass"))

    assert str(caught.value) == (
        "hangs.ipynb failed: A cell timed out while it was being executed, after 2 seconds.; other programs use 90% of the cores"
    )


@pytest.mark.parametrize(("slowness", "seconds"), [(1.0, 1200), (1.5, 1500), (machine.MOST_SLOWNESS, 6600)])
def test_the_budget_of_ten_minutes(monkeypatch, slowness, seconds):
    """Twice on an idle machine, two and a half times where others take a third, and never for ever."""
    monkeypatch.setattr(machine, "slowness", lambda: slowness)
    monkeypatch.setattr(machine, "load_slowness", lambda: 1.0)

    assert notebooks.Budget().seconds(600) == seconds


def test_what_came_during_the_run_counts_too(monkeypatch):
    """The load of the last minute is asked at each cell."""
    monkeypatch.setattr(machine, "slowness", lambda: 1.0)
    budget = notebooks.Budget()
    monkeypatch.setattr(machine, "load_slowness", lambda: 3.0)

    assert budget.seconds(600) == 2400


COMMAND = """
import sys
from pathlib import Path
from helpers import cli, paths
from helpers.collection import run
folder = Path(sys.argv[1])
paths.notebooks, run.TOUR = lambda: [folder / "first.ipynb", folder / "second.ipynb"], folder / "tour"
sys.exit(cli.finish(lambda: run.tour([]), stopped="what had run is kept"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_stops(tmp_path, number):
    """In a cell: one line, no traceback, and no other notebook is begun; the kernel is gone."""
    marks = tmp_path / "pid", tmp_path / "begun"
    notebook(tmp_path / "first.ipynb", f"import os, time; open({str(marks[0])!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    notebook(tmp_path / "second.ipynb", f"open({str(marks[1])!r}, 'w')")
    started = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: marks[0].exists() and marks[0].read_text(), 60)
    started.send_signal(number)
    _, said = started.communicate(timeout=60)

    assert (started.returncode, said, marks[1].exists()) == (130, "stopped; what had run is kept\n", False)
    assert wait_until(lambda: not os.path.exists(f"/proc/{marks[0].read_text()}"))
