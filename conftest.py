"""How pytest and nbval run this collection: needs, strictness and time-outs from notebook metadata."""

from __future__ import annotations

import os
from collections import Counter

import answered  # tests/
import lanes  # tests/
import nbformat
import pytest

from helpers import paths
from helpers.collection import notebooks

SLOWEST = 10
os.environ.setdefault("JUPYTER_PATH", str(paths.REPOSITORY / ".jupyter"))


def _is_cell(item: pytest.Item) -> bool:
    return hasattr(item, "cell") and hasattr(item.parent, "nb")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every cell its notebook's settings; skip, before a kernel starts, what cannot run here.

    A requirement becomes a marker, so that ``-m gpu`` selects; what was selected so and still
    has to be skipped is a failure (see :func:`pytest_runtest_setup`).
    """
    for item in filter(_is_cell, items):
        wanted = notebooks.settings(item.parent.nb, item.path.name)
        requires = [*wanted.requires, *item.cell.metadata.get("requires", [])]
        for value in requires:
            item.add_marker(value)
        if wanted.compare == "strict" and "nbval-ignore-output" not in item.cell.metadata.get("tags", []):
            item.options["check"] = True
        item.cell_timeout_s = wanted.cell_timeout_s
        item.unmet = notebooks.unmet(requires)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        lanes.keep_to(config.workerinput["workerid"], config.workerinput["workercount"])
    for value in notebooks.REQUIREMENTS:
        config.addinivalue_line("markers", f"{value}: a notebook or cell that needs it")
    answered.both_ways()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip with the reason, or fail if the run was asked for exactly this kind of cell."""
    if not _is_cell(item):
        return
    if not hasattr(item.parent, "budget"):
        item.parent.budget = notebooks.Budget()
    item.config.option.nbval_cell_timeout = item.parent.budget.seconds(item.cell_timeout_s)
    if item.unmet is None:
        return
    promised = item.config.option.markexpr
    if promised and any(marker.name in promised.split() for marker in item.iter_markers()):
        pytest.fail(f"{item.path.name} was asked for with -m {promised!r} and cannot run: {item.unmet}", pytrace=False)
    pytest.skip(item.unmet)


def pytest_ignore_collect(collection_path, config):
    """Only the numbered notebooks are tests; solutions, scratch notebooks and tour results are not."""
    if collection_path.suffix == ".ipynb":
        here = "nbval-here" in str(collection_path) and collection_path.parent.name != "solutions"
        return collection_path not in paths.notebooks() and not here
    return None


def pytest_terminal_summary(terminalreporter) -> None:
    """The slowest steps: a notebook with all its cells is one, and so is a test module with its fixtures."""
    took_s: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                took_s[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section(f"slowest {SLOWEST} steps")
    for name, seconds in took_s.most_common(SLOWEST):
        terminalreporter.write_line(f"{seconds:7.1f} s  {name}")


def read(path) -> nbformat.NotebookNode:
    """A notebook, as nbformat 4."""
    return nbformat.read(path, as_version=4)
