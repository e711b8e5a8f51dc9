"""What the README shows of the records: tables, written between two marks each, and the pictures of the GPU records.

    python -m helpers.collection.readme [NAME ...]

A test holds each against the newest record, so none can grow old unseen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from helpers import cli, formatting, paths, plots, records
from helpers.collection import marked
from helpers.gpu import read, scaled, tables, today
from helpers.pictures import comparisons
from helpers.studies import conformance, peers, standings

FILE = paths.REPOSITORY / "README.md"
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


TABLES: dict[str, Callable[[], str]] = {"gpu": _gpu, "notebooks": _notebooks, "peers": _peers, "conformance": _conformance}


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the table ``name``."""
    return marked.marks(name, "readme")


def written(text: str, name: str) -> str:
    """``text`` with the newest record's table between the marks of ``name``.

    Raises :class:`ValueError` if there is no such table or no place for it, :class:`~helpers.records.RecordError`
    without a record.
    """
    if name not in TABLES:
        raise ValueError(f"the README has no table {name!r}: choose from {', '.join(TABLES)}")
    return marked.written(text, name, "readme", TABLES[name]())


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
    """Write the tables ``names``, or all of them, into the README; with the table of the GPU record go the pictures."""
    text, wanted = FILE.read_text(), names or tuple(TABLES)
    for name in wanted:
        text = written(text, name)
    paths.write(FILE, text)
    if "gpu" in wanted:
        draw_gpu()
        draw_scaling()


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.collection.readme", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TABLES))
    names = parser.parse_args().names
    return cli.finish(lambda: update(*names), ValueError, records.RecordError, stopped="the README is whole")


if __name__ == "__main__":
    sys.exit(main())
