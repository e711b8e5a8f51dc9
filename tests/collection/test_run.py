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


@pytest.fixture
def tour(tmp_path, monkeypatch):
    """Gives a function that runs a tour through the notebooks in a folder, on a mock of an idle machine; its exit code."""
    monkeypatch.setattr(run, "TOUR", tmp_path / "tour")
    monkeypatch.setattr(run.paths, "notebooks", lambda: sorted(tmp_path.glob("*.ipynb")))
    monkeypatch.delenv(notebooks.NOT_MADE, raising=False)
    for name in ("slowness", "load_slowness"):
        monkeypatch.setattr(machine, name, lambda: 1.0)
    monkeypatch.setattr(machine, "busy_word", lambda: None)
    monkeypatch.setenv("FRAMEWORKS", "")  # the tour sets it for its kernels: here it must not stay for other tests
    return lambda: run.tour(["transformers"])


def ends(printed: str) -> dict[str, str]:
    """From the summary of a tour: how each notebook ended."""
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    return {line[2:32].strip(): line[32:42].strip() for line in lines}


def test_the_tour_ends_with_what_ran_and_what_did_not(tour, tmp_path, monkeypatch, capsys):
    """Left out is not broken: the code is 0, and each reason stands in the line."""
    notebook(tmp_path / "01_runs.ipynb", "print(1)")
    without(notebook(tmp_path / "02_chosen.ipynb", "print(1)"), "vllm")
    without(notebook(tmp_path / "03_made.ipynb", "print(1)"), "llama-cpp")
    monkeypatch.setenv(notebooks.NOT_MADE, '{"llama-cpp": "there is no C++ compiler"}')
    code, printed = tour(), capsys.readouterr().out

    assert code == 0
    assert ends(printed) == {"01_runs": "ran", "02_chosen": "left out", "03_made": "left out"}
    assert "vllm was not chosen" in printed and "llama-cpp could not be set up: there is no C++ compiler" in printed
    assert "\n1 ran, 2 left out; nothing is broken\n" in printed


def test_what_is_broken_fails_the_tour_and_the_others_run(tour, tmp_path, capsys):
    """It is named in the last line with its error above."""
    notebook(tmp_path / "01_broken.ipynb", "1 / 0")
    notebook(tmp_path / "02_runs.ipynb", "print(1)")
    code, printed = tour(), capsys.readouterr().out

    assert (code, ends(printed)) == (1, {"01_broken": "failed", "02_runs": "ran"})
    assert "ZeroDivisionError" in printed and "\n1 ran, 1 failed; broken: 01_broken\n" in printed


@pytest.mark.parametrize(("word", "end", "code"), [("others use the cores", "too slow", 0), (None, "failed", 1)])
def test_a_slow_machine_is_not_broken_and_a_hang_on_an_idle_one_is(tour, tmp_path, monkeypatch, capsys, word, end, code):
    """With a mock of the machine's word: the same cell, whose time is up."""
    monkeypatch.setattr(machine, "busy_word", lambda: word)
    notebook(tmp_path / "01_long.ipynb", "while True: pass")

    assert (tour(), ends(capsys.readouterr().out)) == (code, {"01_long": end})


def test_minutes_stand_beside_their_forecast():
    """What was said before it began, on this machine."""
    assert str(run.Visit("07", run.RAN, "", 9.04, 7.5)).split() == ["07", "ran", "9.0", "min,", "forecast", "7.5"]


def test_the_minutes_of_a_run_go_into_the_table():
    """Into the row of that notebook, and no other changes."""
    before = run.TABLE.read_text()
    after = run.with_minutes(before, "03_vllm.ipynb", "77")
    changed = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]

    assert changed == ["| [03 vLLM](../notebooks/03_vllm.ipynb) | 77 | CPU or NVIDIA GPU | none |"]


def test_cells_that_are_left_out_are_counted_with_their_reason(monkeypatch):
    """A notebook that ran without its GPU cells did not run whole."""
    monkeypatch.setitem(notebooks.REQUIREMENTS, "gpu", lambda: "no NVIDIA GPU here")
    cells = [nbformat.v4.new_code_cell("x", metadata={"requires": given}) for given in (["gpu"], [], ["gpu"])]

    assert run._cells_left_out(nbformat.v4.new_notebook(cells=cells)) == "without 2 cells: no NVIDIA GPU here"


def without(path, framework: str) -> None:
    """Let the notebook at ``path`` require ``framework``."""
    book = nbformat.read(path, as_version=4)
    book.metadata["collection"]["requires"] = [framework]
    nbformat.write(book, path)


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
