"""The committed notebooks, for the tests that are over all of them."""

from __future__ import annotations

import functools

import nbformat
from offenders import over

from helpers import paths
from helpers.collection import claims, notebooks

NOTEBOOKS = paths.notebooks()


@functools.cache
def books() -> dict[str, dict]:
    """Every notebook by its name: where it is and what it is."""
    return {path.stem: {"path": path, "notebook": nbformat.read(path, as_version=4)} for path in NOTEBOOKS}


each_notebook = over(books, "path", "notebook")


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def lesson_cells(notebook) -> list:
    """The code cells that teach: without those of the questions and the exercises."""
    return [cell for cell in code_cells(notebook) if not notebooks.is_exercise(cell)]


claim_cells = notebooks.claims


def committed_claims(notebook) -> list:
    """The claim cells that have an output in the committed file, whatever this machine can run."""
    return [cell for cell in claim_cells(notebook) if not claims.NOT_RUN_HERE & set(cell.metadata.get("requires", []))]
