"""Run the numbered notebooks: the tour, and their committed outputs anew.

python -m helpers.collection.run tour|comparison|outputs [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat

from helpers import cli, machine, paths
from helpers.collection import notebooks
from helpers.weights import models

TOUR = paths.REPOSITORY / "tour"


COMPARISON = ("00", "07")  # what a tour is for: they run first


MINUTES = re.compile(r"(\|\s*\**Minutes\**\s*\|\s*)[^|]*?(\s*\|)")


def execute(path: Path, on_cell: Callable[[int], None] = lambda index: None) -> nbformat.NotebookNode:
    """Run the notebook at ``path`` in its kernel and return it with new outputs.

    Cells whose ``requires`` are not met are skipped and say why. Raises
    :class:`NotebookError` with the first failing cell's last line.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    wanted = notebooks.settings(notebook, path.name)
    skipped = {i: reason for i, c in enumerate(notebook.cells) if (reason := notebooks.unmet(c.metadata.get("requires", [])))}
    for i in skipped:
        notebook.cells[i].metadata["tags"] = [*notebook.cells[i].metadata.get("tags", []), "skip-execution"]
    budget = notebooks.Budget()
    client = NotebookClient(
        notebook, timeout_func=lambda cell: budget.seconds(wanted.cell_timeout_s),
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_complete=lambda cell, cell_index: on_cell(cell_index),
    )  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:  # what engines say on their way out is not for the terminal
        try:
            client.execute(stdout=log, stderr=log)
        except CellExecutionError as error:
            raise notebooks.NotebookError(f"{path.name} failed: {error.ename}: {error.evalue}") from None
        except CellTimeoutError as error:
            word = machine.busy_word() or "other programs do not use the cores now"
            raise notebooks.NotebookError(f"{path.name} failed: {str(error).splitlines()[0]}; {word}") from None
        except (DeadKernelError, AssertionError):
            if hasattr(client, "_async_cleanup_kernel_future"):  # nbclient has taken a signal for itself and ended the kernel
                raise KeyboardInterrupt from None
            log.seek(0)
            last = (log.read().strip().splitlines() or ["it wrote nothing"])[-1]
            raise notebooks.NotebookError(f"{path.name} failed: its kernel died; the last line of its log: {last}") from None
    for i, reason in skipped.items():
        notebook.cells[i].metadata["tags"].remove("skip-execution")
        notebook.cells[i].outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"skipped here: {reason}\n")]
    return notebook


def tour(frameworks: list[str], only: tuple[str, ...] = ("",)) -> int:
    """Run every notebook that can run here, or those that begin with ``only``, into ``tour/``; print the comparison."""
    os.environ["FRAMEWORKS"] = ",".join(frameworks)
    TOUR.mkdir(exist_ok=True)
    order = sorted(paths.notebooks(), key=lambda p: (not p.name.startswith(COMPARISON), p.name))
    failed = 0
    for path in order:
        if path.name.startswith(only):
            failed += not _visit(path)
    print(f"\nThe executed notebooks lie in {TOUR.relative_to(Path.cwd()) if TOUR.is_relative_to(Path.cwd()) else TOUR}.")
    return 1 if failed else 0


def _visit(path: Path) -> bool:
    notebook = nbformat.read(path, as_version=4)
    if reason := notebooks.unmet(notebooks.settings(notebook, path.name).requires):
        print(f"{path.stem}: left out, {reason}", flush=True)
        return True
    if word := machine.busy_word():
        print(f"{path.stem}: {word}", flush=True)
    started = time.monotonic()
    try:
        done = _execute_with_bar(path)
    except notebooks.NotebookError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    paths.write(TOUR / path.name, nbformat.writes(done))
    paths.write(TOUR / f"{path.stem}.html", _html(done))
    print(f"{path.stem}: ran in {time.monotonic() - started:.0f} s", flush=True)
    for cell in done.cells:
        if "comparison" in cell.metadata.get("tags", []):
            print("\n" + "\n".join(notebooks.plain(output) for output in cell.outputs) + "\n", flush=True)
    return True


def _execute_with_bar(path: Path) -> nbformat.NotebookNode:
    from tqdm import tqdm

    cells = len(nbformat.read(path, as_version=4).cells)
    with tqdm(total=cells, desc=path.stem, unit="cell", leave=False, disable=None) as bar:
        try:
            return execute(path, on_cell=lambda index: bar.update(index + 1 - bar.n))
        finally:
            cli.interruptible()  # nbclient has set its own handlers, and then none


def _html(notebook: nbformat.NotebookNode) -> str:
    from nbconvert import HTMLExporter

    return HTMLExporter(embed_images=True).from_notebook_node(notebook)[0]


def comparison(frameworks: list[str]) -> int:
    """The part of the tour that can be shown before large frameworks are installed."""
    return tour(frameworks, COMPARISON)


def outputs(names: list[str]) -> int:
    """Execute the notebooks (or those whose file name starts with one of ``names``) and rewrite them."""
    chosen = [path for path in paths.notebooks() if not names or path.name.startswith(tuple(names))]
    if not chosen:
        raise notebooks.NotebookError(f"no notebook begins with {' or '.join(names)}")
    for path in chosen:
        if reason := notebooks.unmet(notebooks.settings(nbformat.read(path, as_version=4), path.name).requires):
            raise notebooks.NotebookError(f"{path.name} cannot be run here: {reason}; nothing was rewritten")
    for path in chosen:
        started = time.monotonic()
        done = _execute_with_bar(path)
        if found := notebooks.leaks(done):
            raise notebooks.NotebookError(
                f"{path.name} prints {', '.join(found)}: an output names this machine; it was not rewritten"
            )
        if found := notebooks.refuted(notebooks.ran_claims(done)):
            raise notebooks.NotebookError(f"{path.name}: a claim does not hold here, nothing was rewritten: {found[0].source}")
        minutes = f"{max((time.monotonic() - started) / 60, 1):.0f}"
        for cell in done.cells:
            if cell.cell_type == "markdown":
                cell.source = MINUTES.sub(rf"\g<1>{minutes}\g<2>", cell.source)
        paths.write(path, notebooks.canonical(done))
        readme = paths.REPOSITORY / "README.md"
        paths.write(readme, re.sub(rf"(\(notebooks/{path.name}\) \| )\d+", rf"\g<1>{minutes}", readme.read_text()))
        print(f"{path.name}: rewritten, {time.monotonic() - started:.0f} s", flush=True)
    return 0


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Run the numbered notebooks.")
    parser.add_argument("what", choices=("tour", "comparison", "outputs"))
    parser.add_argument("names", nargs="*", help="frameworks for tour, notebook numbers for outputs")
    options = parser.parse_args()
    os.environ.setdefault("JUPYTER_PATH", str(paths.REPOSITORY / ".jupyter"))
    asked = {"tour": tour, "comparison": comparison, "outputs": outputs}[options.what]

    def program() -> int:
        models.check_hub(models.resolve())  # a bad MODEL fails here, and not in every notebook
        return asked(options.names)

    return cli.finish(program, notebooks.NotebookError, models.ModelError, stopped="what had run is kept")


if __name__ == "__main__":
    sys.exit(main())
