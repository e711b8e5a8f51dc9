"""The exercises of the notebooks, and what becomes of a learner's answers: ``python -m helpers.collection.exercises 07``.

An exercise is two code cells at the end of a notebook, in its own kernel: one with a gap (tag ``exercise``, id
``exercise-1``) and one that checks (tag ``exercise-check``, id ``check-1``), collapsed, with plain asserts. Untouched, the
check fails with a hint. ``notebooks/solutions/`` has a notebook of the same name whose cells, with the ids of the gaps, pass.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers import cli, paths
from helpers.collection import notebooks, run

KINDS = ("Predict", "Complete", "Find the fault")
NOT_RUN = "{name} is not there: a cell above was deleted, or not run since the kernel started; run all cells from the top"


class ExerciseError(notebooks.NotebookError):
    """A learner's notebook, or a solution, that lacks a part: which, and where to get it."""


@dataclass(frozen=True)
class Exercise:
    """The cell with the gap and the one that checks it, of one exercise of a notebook."""

    number: int
    gap: nbformat.NotebookNode
    check: nbformat.NotebookNode


def numbers(notebook: nbformat.NotebookNode) -> list[int]:
    """The numbers of the exercises that ``notebook`` has a part of, in order."""
    found = {int(match[1]) for cell in notebook.cells if (match := re.fullmatch(r"(?:exercise|check)-(\d+)", cell.get("id", "")))}
    return sorted(found)


def of(notebook: nbformat.NotebookNode, name: str) -> list[Exercise]:
    """The exercises of ``notebook``, which is called ``name``; :class:`ExerciseError` for one without gap or check."""
    by_id = {cell.get("id"): cell for cell in notebook.cells}
    return [Exercise(n, _part(by_id, f"exercise-{n}", name), _part(by_id, f"check-{n}", name)) for n in numbers(notebook)]


def _part(by_id: Mapping[str, nbformat.NotebookNode], wanted: str, name: str) -> nbformat.NotebookNode:
    if wanted not in by_id:
        what = "the cell with the gap" if wanted.startswith("exercise") else "the cell that checks"
        number = wanted.rpartition("-")[2]
        raise ExerciseError(f"{name}: exercise {number} has lost {what}: copy it back from the notebook as it was downloaded")
    return by_id[wanted]


def solutions(path: Path) -> dict[int, str]:
    """The code that fills each gap of the notebook at ``path``, by number; :class:`ExerciseError` if there is none."""
    file = path.parent / "solutions" / path.name
    if not file.exists():
        raise ExerciseError(f"{path.name} has no solutions: there is no solutions/{path.name} beside it")
    cells = nbformat.read(file, as_version=4).cells
    return {number(cell): cell.source for cell in cells if cell.cell_type == "code"}


def number(cell: nbformat.NotebookNode) -> int:
    """The number of the exercise that ``cell`` is a part or a solution of."""
    return int(cell.id.rpartition("-")[2])


def word(check: nbformat.NotebookNode) -> str | None:
    """What the cell that checks had to say when it ran last, in one line; ``None`` if the exercise is solved."""
    error = next((output for output in check.outputs if output.output_type == "error"), None)
    if error is None:
        return None if check.get("execution_count") else "it was not run"
    if error.ename == "NameError":
        return NOT_RUN.format(name=error.evalue.split("'")[1])
    said = " ".join(error.evalue.split())
    return said if error.ename == "AssertionError" else f"{error.ename}: {said}"


def check_whole(path: Path, learners: nbformat.NotebookNode) -> None:
    """:class:`ExerciseError` names the first exercise of which a cell was deleted from ``learners``, which lies at ``path``."""
    if lost := sorted(solutions(path).keys() - set(numbers(learners))):
        raise ExerciseError(f"{path.name}: exercise {lost[0]} was deleted: copy it back from the notebook as it was downloaded")
    of(learners, path.name)


def main() -> int:
    """The command; returns its exit code: 0 if all are solved, else 1."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.exercises", description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="+", metavar="NN", help="notebooks, such as 07; a learner's own copy lies there")
    options = parser.parse_args()

    def program() -> int:
        files = {number: paths.notebook(number) for number in options.numbers}
        if unknown := [number for number, file in files.items() if file is None]:
            raise ExerciseError(f"no notebook begins with {unknown[0]}: choose from 00 to 14")
        return max(_told(number, file) for number, file in files.items())

    return cli.finish(program, notebooks.NotebookError, stopped="nothing is kept")


def _told(number: str, file: Path) -> int:
    """Run the notebook in ``file``, print a line for each of its exercises, and return 1 if one is not solved."""
    notebook = nbformat.read(file, as_version=4)
    if reason := notebooks.unmet(notebooks.settings(notebook, file.name).requires):
        raise ExerciseError(f"{file.name} cannot be run here: {reason}")
    check_whole(file, notebook)
    words = [(one.number, word(one.check)) for one in of(run.execute(file), file.name)]
    for exercise, said in words:
        print(f"{number} exercise {exercise}: {'solved' if said is None else f'not yet: {said}'}", flush=True)
    return int(any(said for _, said in words))


if __name__ == "__main__":
    sys.exit(main())
