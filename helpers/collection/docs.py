"""What the pages of ``docs/`` show of the records: tables, between two marks each, and the pictures of the GPU records.

    python -m helpers.collection.docs [NAME ...]

A test holds each against the newest record, so none can grow old unseen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers import cli, formatting, paths, plots, records
from helpers.collection import marked
from helpers.gpu.recorded import read, scaled, tables, today
from helpers.pictures import comparisons
from helpers.studies import conformance, peers, standings

FOLDER = paths.REPOSITORY / "docs"
PICTURE = paths.REPOSITORY / "vis" / "throughput_gpu.png"
SCALING = paths.REPOSITORY / "vis" / "scaling_gpu.png"


def _recorded(frame) -> str:
    """A table of a GPU record, below its line."""
    return f"{frame.attrs['recorded']}:\n\n{formatting.markdown(frame)}"


def _gpu() -> str:
    return _recorded(today.throughput())


def _notebooks() -> str:
    return _recorded(tables.notebooks())


def _peers() -> str:
    found = records.load(peers.NAME)
    return f"{records.describe(found)}:\n\n{formatting.markdown(peers.every(found))}"


def _conformance() -> str:
    found = records.load(conformance.NAME)
    shown = f"{records.describe(found)}:\n\n{formatting.markdown(conformance.table(found['cells'], records.on_gpu(found)))}"
    return "\n\n".join(filter(None, (shown, conformance.wheel(found))))


@dataclass(frozen=True)
class Table:
    """A table: the page of ``docs/`` that it stands in, and what makes it of the newest record."""

    page: str
    make: Callable[[], str]

    @property
    def file(self) -> Path:
        """The page's file."""
        return FOLDER / self.page


TABLES = {
    "gpu": Table("gpu.md", _gpu),
    "notebooks": Table("gpu.md", _notebooks),
    "peers": Table("clients.md", _peers),
    "conformance": Table("features.md", _conformance),
}


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the table ``name``."""
    return marked.marks(name, "docs")


def written(text: str, name: str) -> str:
    """``text`` of a page with the newest record's table between the marks of ``name``.

    Raises :class:`ValueError` if the page has no place for it, :class:`~helpers.records.RecordError` without a record.
    """
    return marked.written(text, name, "docs", TABLES[name].make(), TABLES[name].page)


def draw_gpu() -> None:
    """Draw the newest record of today's engines on one GPU: what each serves, and the wait for the first token."""
    found = today.load()
    notes = [read.recorded(found)]
    plots.save(plots.by_users(found["engines"], title=standings.headline(found), notes=notes, gpu=True), PICTURE)


def draw_scaling() -> None:
    """Draw the newest record of several GPUs: what tensor parallelism brought under each load."""
    found = scaled.load()
    gains = {"vLLM, TP2": scaled.gains(found, "vllm", scaled.TWO)}
    plots.save(comparisons.speedups(gains, title=scaled.speedups(found).attrs["recorded"]), SCALING)


def update(*names: str) -> None:
    """Write the tables ``names``, or all of them, into their pages; with the table of the GPU record go the pictures.

    Raises :class:`ValueError` for a name that is no table's, before anything is written, and the errors of :func:`written`.
    """
    wanted = names or tuple(TABLES)
    check(wanted)
    for name in wanted:
        file = TABLES[name].file
        paths.write(file, written(file.read_text(), name))
    if "gpu" in wanted:
        draw_gpu()
        draw_scaling()


def check(names: Iterable[str]) -> None:
    """Raise :class:`ValueError` for the first of ``names`` that is no table's."""
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"no page has a table {unknown[0]!r}: choose from {', '.join(TABLES)}")


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.docs", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TABLES))
    names = parser.parse_args().names
    return cli.finish(lambda: update(*names), ValueError, records.RecordError, stopped="every page is whole")


if __name__ == "__main__":
    sys.exit(main())
