"""The notebooks under nbval on this GPU, one after the other, as a record: notebook, result, seconds, versions.

With ``-m "gpu or not gpu"`` every cell is chosen, and one that needs a GPU and cannot run fails instead of
being skipped (``conftest.py``): a run on a GPU that left out a GPU cell is no success.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from helpers import kernels, machine, paths, records
from helpers.gpu import device
from helpers.servers import engines, guard, install

NUMBERS = ("01", "02", "03", "04", "05", "07", "08", "09", "10", "11")
NAME = "gpu-notebooks"
ALL_AND_GPU = "gpu or not gpu"
LEAST_S = 60


def run(budget_s: float, out: Path | None = None, numbers: Sequence[str] = ()) -> int:
    """Run what is not recorded as passed yet; 0 if all passed, 1 if one did not, 75 if some are left for another run.

    ``numbers`` are those to run now (some of :data:`NUMBERS`, else :class:`ValueError`), or none: all of them. The record
    is whole when all are in it.
    ``out`` gets a copy of the record after each notebook, and what pytest printed of those that did not pass.
    """
    if unknown := set(numbers) - set(NUMBERS):
        raise ValueError(f"--numbers {','.join(sorted(unknown))}: choose from {','.join(NUMBERS)}, those that run on a GPU too")
    found_gpu = device.gpu()
    end = time.monotonic() + budget_s
    found = {"provenance": records.provenance(versions=_versions(), gpu=found_gpu.name), "notebooks": {}}
    found["notebooks"] = _passed(found["provenance"])
    for stem, path in _paths(numbers or NUMBERS).items():
        if stem in found["notebooks"]:
            continue
        left_s = end - time.monotonic()
        if left_s < LEAST_S:
            print(f"{stem}: left for the next run", flush=True)
            continue
        found["notebooks"][stem] = one = check(path, left_s, out)
        records.keep(NAME, found, out)
        print(f"{stem}: {one['result']}, {one['seconds']:.0f} s; {'; '.join(one['reasons'][:2])}", flush=True)
    return _end(found)


def _passed(source: Mapping) -> dict:
    """What the draft, else the newest record of this machine and these versions has as passed, if its code is still the same."""
    known = records.resume(NAME, source, _differ, finished=True) or {"notebooks": {}}
    codes = {stem: digest(path) for stem, path in _paths().items()}
    passed = {stem: one for stem, one in known["notebooks"].items() if one["result"] == "passed"}
    return {stem: passed[stem] for stem, code in codes.items() if passed.get(stem, {}).get("code_sha256") == code}


def _differ(known: Mapping, source: Mapping) -> str | None:
    if not machine.same(known["machine"], source["machine"]):
        return "it was made on another machine"
    return records.difference(known, source, ("versions",))


def _paths(numbers: Sequence[str] = NUMBERS) -> dict[str, Path]:
    """The notebooks with these numbers that are there, by their names."""
    return {path.stem: path for number in numbers if (path := paths.notebook(number))}


def digest(path: Path) -> str:
    """SHA-256 of a notebook's code: text and outputs may change, what was run may not."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def _end(found: Mapping) -> int:
    results = [found["notebooks"].get(stem, {}).get("result") for stem in _paths()]
    if None in results:
        return 75
    print(f"saved: {records.save(NAME, dict(found)).name}", flush=True)
    return 0 if set(results) == {"passed"} else 1


def _versions() -> dict:
    return {e.kernel: install.versions(e) for e in engines.ENGINES.values() if kernels.installed(e.kernel)}


def check(path: Path, left_s: float, out: Path | None = None) -> dict:
    """One notebook: ``passed``, ``failed`` or ``cut off``, how many cells did what, the reasons, and which code it was."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-m", ALL_AND_GPU,
            f"--junitxml={report}", str(path),
        ]  # fmt: skip
        env = {**os.environ, "JUPYTER_PATH": str(paths.REPOSITORY / ".jupyter"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        try:
            ran = subprocess.run(command, cwd=paths.REPOSITORY, env=env, capture_output=True, text=True, timeout=left_s)
            cells = read(report.read_text()) if report.exists() else {"cells": 0, "reasons": [_last(ran.stdout + ran.stderr)]}
            result = "passed" if ran.returncode == 0 and cells["cells"] else "failed"
            if out and result == "failed":
                (out / f"{path.stem}.txt").write_text(ran.stdout + ran.stderr)
        except subprocess.TimeoutExpired:
            cells, result = {"cells": 0, "reasons": [f"not done within {left_s:.0f} s"]}, "cut off"
    seconds = round(time.monotonic() - started, 1)
    return {"result": result, "seconds": seconds, **cells, "code_sha256": digest(path)}


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["pytest said nothing"])[-1][:300]


def _plain(text: str) -> str:
    """The beginning of ``text`` in one line, without a terminal's colours."""
    return " ".join(guard.COLOUR.sub("", text).split())[:300]


def read(report: str) -> dict:
    """Counts and reasons of a JUnit report; a skipped cell's reason is told as a failed one's is."""
    cases = list(xml.fromstring(report).iter("testcase"))
    ended = {kind: [case.find(kind) for case in cases if case.find(kind) is not None] for kind in ("failure", "error", "skipped")}
    reasons = [_plain(one.get("message") or one.text or kind) for kind, many in ended.items() for one in many]
    return {
        "cells": len(cases), "failed": len(ended["failure"]) + len(ended["error"]), "skipped": len(ended["skipped"]),
        "reasons": list(dict.fromkeys(reasons)),
    }  # fmt: skip
