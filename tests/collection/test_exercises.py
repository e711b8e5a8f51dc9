"""The exercises: what each notebook has, that both ways are run, and what a learner is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from books import books, markdown
from nbvals import nbval
from offenders import over

from helpers.collection import exercises, notebooks
from helpers.collection.exercises import ExerciseError
from helpers.paths import REPOSITORY as ROOT

LESSONS = [f"{number:02}" for number in range(15)]  # 15 and 16 are for looking up
GAP, CHECK = "answer = ...", 'assert answer is not ..., "write a number in place of the dots"\nassert answer == 4, "two and two"'


def lessons() -> dict[str, dict]:
    """The notebooks that have exercises."""
    return {name: given for name, given in books().items() if name[:2] in LESSONS}


def book(*parts: str, gap: str = GAP, check: str = CHECK) -> nbformat.NotebookNode:
    """A mock of a notebook with one exercise, of which only ``parts`` are left."""
    cells = {
        "exercise-1": nbformat.v4.new_code_cell(gap, id="exercise-1", metadata={"tags": ["exercise", "raises-exception"]}),
        "check-1": nbformat.v4.new_code_cell(check, id="check-1", metadata={"tags": ["exercise-check", "raises-exception"]}),
    }
    metadata = {
        "kernelspec": {"name": "lab", "display_name": "Lab"},
        "collection": {"requires": [], "compare": "lax", "cell_timeout_s": 30},
    }
    return nbformat.v4.new_notebook(cells=[cells[part] for part in parts or cells], metadata=metadata)


def written(folder: Path, notebook: nbformat.NotebookNode, solution: str = "answer = 4", name: str = "42_mock") -> Path:
    """``notebook`` with its solutions beside it, where our pytest takes it for one of the collection."""
    (folder / "nbval-here" / "solutions").mkdir(parents=True, exist_ok=True)
    path = folder / "nbval-here" / f"{name}.ipynb"
    nbformat.write(notebook, path)
    cell = nbformat.v4.new_code_cell(solution, id="exercise-1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path.parent / "solutions" / path.name)
    return path


@over(lessons, "path", "notebook")
def test_two_to_five_in_each_notebook(path, notebook):
    """Each has a kind, a gap, a folded check that may fail, and a solution without a gap."""
    given, answers = exercises.of(notebook, path.name), exercises.solutions(path)

    assert [one.number for one in given] == list(range(1, len(given) + 1)) and 2 <= len(given) <= 5
    assert re.findall(rf"^\*\*(\d)\. (?:{'|'.join(exercises.KINDS)})\.\*\* ", markdown(notebook), re.M) == [
        str(one.number) for one in given
    ]
    assert all("..." in one.gap.source and "exercise" in one.gap.metadata.tags for one in given)
    assert all(notebooks.is_check(one.check) and "raises-exception" in one.check.metadata.tags for one in given)
    assert all(one.check.metadata.jupyter.source_hidden and "hide-input" in one.check.metadata.tags for one in given)
    assert answers.keys() == {one.number for one in given} and not any("..." in answer for answer in answers.values())


def test_every_kind_is_there():
    """Predict, complete, find the fault: each of them several times."""
    text = "\n".join(markdown(given["notebook"]) for given in lessons().values())

    assert all(len(re.findall(rf"^\*\*\d\. {kind}\.\*\* ", text, re.M)) >= 5 for kind in exercises.KINDS)


@over(lessons, "path", "notebook")
def test_a_check_is_not_committed_with_what_it_said(notebook):
    """Nor with an answer."""
    assert not [cell for cell in notebook.cells if notebooks.is_check(cell) and cell.outputs]


BOTH_WAYS = {  # a mock, its solution, and what the run says of it
    "good": (book(), "answer = 4", None),
    "bad": (book(), "answer = 5", "AssertionError: two and two"),
    "always": (book(check="assert True"), "answer = 4", "An exercise that nobody has answered passes: its check cannot fail."),
    "silent": (book(check="assert answer == 4"), "answer = 4", "An untouched exercise gives no hint: AssertionError:"),
    "other": (book(check="wrong"), "wrong = 4", "An untouched exercise gives no hint: NameError: name 'wrong' is not defined"),
}


def test_both_ways_are_run(tmp_path):
    """nbval runs each check untouched, then the solution, and then the check once more; each fault is found, and no other."""
    for name, (notebook, solution, _) in BOTH_WAYS.items():
        written(tmp_path, notebook, solution, name)
    run = nbval(tmp_path / "nbval-here", "-p", "no:cacheprovider", "-vv", "--color=no")

    out = re.sub(r"\x1b\[[\d;]*m", "", run.stdout)

    assert set(re.findall(r"^FAILED (\w+)\.ipynb::", out, re.M)) == BOTH_WAYS.keys() - {"good"}, out
    assert all(said in out for _, _, said in BOTH_WAYS.values() if said), out
    assert re.findall(r"^good\.ipynb::Cell (.*?) PASSED", out, re.M) == ["0", "1", "1, solution", "1, solved"], out


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (("check-1",), "42_mock.ipynb: exercise 1 has lost the cell with the gap: copy it back from the notebook as it"),
        (("exercise-1",), "42_mock.ipynb: exercise 1 has lost the cell that checks: copy it back"),
        ((), "42_mock.ipynb: exercise 1 was deleted: copy it back"),
    ],
)
def test_a_cell_that_was_deleted(tmp_path, left, said):
    """It is named before anything runs."""
    notebook = book(*left) if left else nbformat.v4.new_notebook()

    with pytest.raises(ExerciseError, match=said):
        exercises.check_whole(written(tmp_path, book()), notebook)


@pytest.mark.parametrize(
    ("outputs", "count", "said"),
    [
        ([], 7, None),
        ([], None, "it was not run"),
        ([("AssertionError", "write a number\nin place of the dots")], 7, "write a number in place of the dots"),
        ([("NameError", "name 'record' is not defined")], 7, exercises.NOT_RUN.format(name="record")),
        ([("TypeError", "unsupported operand")], 7, "TypeError: unsupported operand"),
    ],
)
def test_what_a_check_had_to_say(outputs, count, said):
    """In one line; a name that is not there means a restarted kernel."""
    errors = [nbformat.v4.new_output("error", ename=name, evalue=value) for name, value in outputs]

    assert exercises.word(nbformat.v4.new_code_cell("x", outputs=errors, execution_count=count)) == said


@pytest.mark.parametrize(
    ("answer", "code", "said"), [("...", 1, "not yet: write a number in place of the dots"), ("4", 0, "solved")]
)
def test_a_learners_copy(tmp_path, monkeypatch, capsys, answer, code, said):
    """Each exercise has its line; the exit code says whether all are solved."""
    path = written(tmp_path, book(gap=f"answer = {answer}"))
    monkeypatch.setattr(exercises.paths, "notebook", lambda number: path)
    monkeypatch.setattr(sys, "argv", ["exercises", "42"])

    assert exercises.main() == code
    assert capsys.readouterr().out == f"42 exercise 1: {said}\n"


def test_a_notebook_that_is_not_there():
    """One line."""
    command = [sys.executable, "-m", "helpers.collection.exercises", "77"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert (run.returncode, run.stderr) == (1, "no notebook begins with 77: choose from 00 to 14\n")
