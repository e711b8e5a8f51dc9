"""How long each notebook takes to read, and to run on this machine as it is now."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import nbformat

from helpers import machine, paths
from helpers.collection import notebooks

if TYPE_CHECKING:
    import pandas as pd


def table(slowness: float | None = None) -> pd.DataFrame:
    """A pandas table with a row for each notebook: minutes to read, minutes to run here, or why it cannot run.

    The minutes of its last run, on two idle cores, times ``slowness``: by default what :func:`helpers.machine.slowness`
    finds now, which takes less than a second. A forecast, no measurement: an engine may gain or lose more than the probe.
    """
    import pandas as pd

    times = machine.slowness() if slowness is None else slowness
    rows = {path.stem: _row(nbformat.read(path, as_version=4), path.name, times) for path in paths.notebooks()}
    return pd.DataFrame(rows).T


def _row(notebook: nbformat.NotebookNode, name: str, times: float) -> dict[str, object]:
    said = notebooks.facts(notebook)
    why_not = notebooks.unmet(notebooks.settings(notebook, name).requires)
    run = why_not or math.ceil(int(said["Minutes"]) * times)
    return {"minutes to read": said.get("Minutes to read", ""), "minutes to run here": run}
