"""Run the numbered notebooks: the tour, a replay of them without any engine, and their committed outputs anew.

python -m helpers.collection.run tour|comparison|replay|outputs [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from helpers import cli, kernels, machine, paths
from helpers.collection import notebooks, recorded, replay, timetable
from helpers.weights import models

TOUR = paths.REPOSITORY / "tour"
TABLE = paths.REPOSITORY / "docs" / "notebooks.md"  # has the minutes of each notebook
REPLAYED = paths.REPOSITORY / "replay"


COMPARISON = ("00", "07")  # what a tour is for: they run first


MINUTES = re.compile(r"(\|\s*\**Minutes\**\s*\|\s*)[^|]*?(\s*\|)")


SLOW = 1.5  # times; from here on a cell whose time was up is the machine's fault


class TooSlow(notebooks.NotebookError):
    """A notebook whose cell took longer than it may, on a machine that is slow: nothing in it need be broken."""


RAN, LEFT_OUT, STOPPED, FAILED = "ran", "left out", "too slow", "failed"  # how a visit of the tour ends


@dataclass(frozen=True)
class Visit:
    """What became of a notebook in a tour: the reason where it did not run whole, its minutes and those forecast before."""

    name: str
    end: str
    why: str = ""
    minutes: float | None = None
    forecast_minutes: float | None = None

    def __str__(self) -> str:
        forecast = f", forecast {self.forecast_minutes:.1f}" if self.forecast_minutes is not None else ""
        took = f"{self.minutes:.1f} min{forecast}" if self.minutes is not None else ""
        return f"  {self.name:30}{self.end:10}{'; '.join(filter(None, (took, self.why)))}"


def execute(path: Path, on_cell: Callable[[int], None] = lambda index: None) -> nbformat.NotebookNode:
    """Run the notebook at ``path`` in its kernel and return it with new outputs.

    Cells whose ``requires`` are not met are skipped and say why. Raises
    :class:`NotebookError` with the first failing cell's last line, :class:`TooSlow` where a cell's time
    was up on a machine that is slow now.
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
    env = os.environ | {replay.NOTEBOOK: str(path)}
    with tempfile.TemporaryFile("w+") as log:  # what engines say on their way out is not for the terminal
        try:
            client.execute(stdout=log, stderr=log, env=env)
        except CellExecutionError as error:
            raise notebooks.NotebookError(f"{path.name} failed: {error.ename}: {error.evalue}") from None
        except CellTimeoutError as error:
            busy, said = machine.busy_word(), f"{path.name} failed: {str(error).splitlines()[0]}"
            if busy or machine.slowness() >= SLOW:
                raise TooSlow(f"{said}; {busy or 'this machine is slow now'}") from None
            raise notebooks.NotebookError(f"{said}; other programs do not use the cores now") from None
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


def tour(frameworks: list[str], only: tuple[str, ...] = ("",), folder: Path | None = None) -> int:
    """Run every notebook that can run here, or those that begin with ``only``, into ``tour/``; print the comparison.

    Ends with what ran, what did not and why. Returns 1 if something is broken: neither a notebook that is left out nor a
    slow machine is.
    """
    os.environ["FRAMEWORKS"], folder = ",".join(frameworks), folder or TOUR
    folder.mkdir(exist_ok=True)
    order = sorted(paths.notebooks(), key=lambda p: (not p.name.startswith(COMPARISON), p.name))
    visits: list[Visit] = []
    try:
        for path in order:
            if path.name.startswith(only):
                visits.append(_visit(path, folder))
    finally:
        print(summary(visits), flush=True)
    print(f"\nThe executed notebooks lie in {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}.")
    return int(any(visit.end == FAILED for visit in visits))


def summary(visits: Sequence[Visit]) -> str:
    """A line for each notebook in their order, then how many ended how; what is broken last."""
    counted = Counter(visit.end for visit in visits)
    last = (
        ", ".join(f"{counted[end]} {end}" for end in (RAN, LEFT_OUT, STOPPED, FAILED) if counted[end]) or "no notebook was begun"
    )
    broken = (
        f"broken: {', '.join(visit.name for visit in visits if visit.end == FAILED)}" if counted[FAILED] else "nothing is broken"
    )
    return "\n".join(["", *map(str, sorted(visits, key=lambda visit: visit.name)), f"{last}; {broken}"])


def _visit(path: Path, folder: Path) -> Visit:
    notebook = nbformat.read(path, as_version=4)
    if reason := notebooks.unmet(notebooks.settings(notebook, path.name).requires):
        print(f"{path.stem}: left out, {reason}", flush=True)
        return Visit(path.stem, LEFT_OUT, reason)
    if not kernels.replaying() and (word := machine.busy_word()):
        print(f"{path.stem}: {word}", flush=True)
    forecast, started = _forecast_minutes(notebook), time.monotonic()
    try:
        done = _execute_with_bar(path)
    except notebooks.NotebookError as error:
        print(error, file=sys.stderr, flush=True)
        why = str(error).removeprefix(f"{path.name} failed: ")
        end = STOPPED if isinstance(error, TooSlow) else FAILED
        return Visit(path.stem, end, why, (time.monotonic() - started) / 60, forecast)
    took_s = time.monotonic() - started
    paths.write(folder / path.name, nbformat.writes(done))
    paths.write(folder / f"{path.stem}.html", _html(done))
    print(f"{path.stem}: ran in {took_s:.0f} s", flush=True)
    for cell in done.cells:
        if "comparison" in cell.metadata.get("tags", []):
            print("\n" + "\n".join(notebooks.plain(output) for output in cell.outputs) + "\n", flush=True)
    return Visit(path.stem, RAN, _cells_left_out(done), took_s / 60, forecast)


def _forecast_minutes(notebook: nbformat.NotebookNode) -> float | None:
    """What its row "Minutes" says, times how slow this machine is now; ``None`` without that row, and in a replay."""
    if kernels.replaying():
        return None
    said = notebooks.facts(notebook).get("Minutes")
    return int(said) * machine.slowness() if said else None


def _cells_left_out(done: nbformat.NotebookNode) -> str:
    """How many cells were left out, for which reason; nothing if none was. In a replay: how many are as recorded."""
    if kernels.replaying():
        code = [cell for cell in done.cells if cell.cell_type == "code"]
        return f"{len(code) - len(replay.shown(code))} of {len(code)} cells ran, the others are as recorded"
    reasons = Counter(filter(None, (notebooks.unmet(cell.metadata.get("requires", [])) for cell in done.cells)))
    return ", ".join(f"without {count} cell{'s' * (count > 1)}: {reason}" for reason, count in reasons.items())


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


def replayed(names: list[str]) -> int:
    """Run the notebooks (or those whose file name starts with one of ``names``) without any engine, into ``replay/``."""
    os.environ |= {kernels.REPLAY: "1", "JUPYTER_PATH": str(replay.kernelspecs())}
    return tour([], tuple(names) or ("",), REPLAYED)


def outputs(names: list[str]) -> int:
    """Execute the notebooks (or those whose file name starts with one of ``names``) and rewrite them."""
    chosen = [path for path in paths.notebooks() if not names or path.name.startswith(tuple(names))]
    if not chosen:
        raise notebooks.NotebookError(f"no notebook begins with {' or '.join(names)}")
    if kernels.replaying():
        raise notebooks.NotebookError(f"a replay measures nothing: unset {kernels.REPLAY}; nothing was rewritten")
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
        notebooks.canonical(done)  # first in the form that is committed: that is what is noted
        recorded.stamp(done, "{cpu}, {cores} cores".format_map(machine.facts()), datetime.now(UTC).date().isoformat())
        paths.write(path, notebooks.canonical(done))
        paths.write(TABLE, with_minutes(TABLE.read_text(), path.name, minutes))
        timetable.write()
        print(f"{path.name}: rewritten, {time.monotonic() - started:.0f} s", flush=True)
    return 0


def with_minutes(text: str, notebook: str, minutes: str) -> str:
    """``text`` of the table of the notebooks with the ``minutes`` that the one in the file ``notebook`` took."""
    return re.sub(rf"(/{re.escape(notebook)}\) \| )\d+", rf"\g<1>{minutes}", text)


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Run the numbered notebooks.")
    parser.add_argument("what", choices=("tour", "comparison", "replay", "outputs"))
    parser.add_argument("names", nargs="*", help="frameworks for tour, notebook numbers for replay and outputs")
    options = parser.parse_args()
    os.environ.setdefault("JUPYTER_PATH", str(paths.REPOSITORY / ".jupyter"))
    asked = {"tour": tour, "comparison": comparison, "replay": replayed, "outputs": outputs}[options.what]

    def program() -> int:
        models.check_hub(models.resolve())  # a bad MODEL fails here, and not in every notebook
        return asked(options.names)

    return cli.finish(program, notebooks.NotebookError, models.ModelError, stopped="what had run is kept")


if __name__ == "__main__":
    sys.exit(main())
