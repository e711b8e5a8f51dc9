"""Each exercise both ways, in its notebook's own kernel: untouched it fails with a hint, with its solution it passes.

nbval runs a notebook's cells in order. Behind the cell that checks an exercise come two more: the solution of the gap, and the
check once more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import nbformat
from nbval.plugin import IPyNbCell, IPyNbFile

from helpers.collection import exercises, notebooks

HINT_WORDS = 4  # at least: "write a number", and where


class Untouched(IPyNbCell):
    """The check of an exercise that nobody has answered: it must fail, in words."""

    def runtest(self) -> None:
        super().runtest()
        errors = [output for output in self.test_outputs if output.output_type == "error"]
        if not errors:
            self.raise_cell_error("An exercise that nobody has answered passes: its check cannot fail.")
        (error,) = errors
        if error.ename != "AssertionError" or len(error.evalue.split()) < HINT_WORDS:
            self.raise_cell_error(f"An untouched exercise gives no hint: {error.ename}: {error.evalue}")


def both_ways() -> None:
    """Let nbval collect every exercise untouched and solved."""
    if not hasattr(IPyNbFile.collect, "both_ways"):
        IPyNbFile.collect = _twice(IPyNbFile.collect)


def _twice(collect: Callable[[IPyNbFile], Iterator[IPyNbCell]]) -> Callable[[IPyNbFile], Iterator[IPyNbCell]]:
    def collected(self: IPyNbFile) -> Iterator[IPyNbCell]:
        for item in collect(self):
            if not notebooks.is_check(item.cell):
                yield item
                continue
            yield _item(Untouched, self, item, item.name, item.cell.source, check_exception=True)
            answer = exercises.solutions(self.path)[exercises.number(item.cell)]
            yield _item(IPyNbCell, self, item, f"{item.name}, solution", answer)
            yield _item(IPyNbCell, self, item, f"{item.name}, solved", item.cell.source)

    collected.both_ways = True
    return collected


def _item(kind: type[IPyNbCell], file: IPyNbFile, item: IPyNbCell, name: str, source: str, **options: bool) -> IPyNbCell:
    """Code to be run where ``item`` is, and for the same reasons left out; its output is compared with nothing."""
    needs = {key: value for key, value in item.cell.metadata.items() if key == "requires"}
    cell = nbformat.v4.new_code_cell(source, metadata=needs)
    return kind.from_parent(file, name=name, cell_num=item.cell_num, cell=cell, options=defaultdict(bool, options))
