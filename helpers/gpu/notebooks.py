"""The notebooks under nbval on this GPU, one after the other, as a record: notebook, result, seconds, versions.

With ``-m "gpu or not gpu"`` every cell is chosen, and one that needs a GPU and cannot run fails instead of
being skipped (``conftest.py``): a run on a GPU that left out a GPU cell is no success.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers import engines, kernels, notebooks, records
from helpers.gpu import device

NUMBERS = ("01", "02", "03", "04", "05", "07", "08", "09", "10", "11")
NAME = "gpu-notebooks"
ALL_AND_GPU = "gpu or not gpu"
LEAST_S = 60
COLOUR = re.compile(r"(?:\x1b|#x1B)\[[\d;]*m")  # the second is how JUnit's file writes the first


def run(budget_s: float, out: Path | None = None, numbers: Sequence[str] = NUMBERS) -> int:
    """Run what is not recorded as passed yet; 0 if all passed, 1 if one did not, 75 if some are left for another run.

    ``numbers`` are those to run now (of :data:`NUMBERS`, else :class:`ValueError`); the record is whole when all are in it.
    ``out`` gets a copy of the record after each notebook, and what pytest printed of those that did not pass.
    """
    if unknown := set(numbers) - set(NUMBERS):
        raise ValueError(f"--numbers {','.join(sorted(unknown))}: choose from {','.join(NUMBERS)}, those that run on a GPU too")
    found_gpu = device.gpu()
    end = time.monotonic() + budget_s
    found = {"provenance": records.provenance(versions=_versions(), gpu=found_gpu.name), "notebooks": {}}
    found["notebooks"] = _passed(found["provenance"])
    for number in numbers:
        path = notebooks.numbered(number)
        if path is None or path.stem in found["notebooks"]:
            continue
        left_s = end - time.monotonic()
        if left_s < LEAST_S:
            print(f"{path.stem}: left for the next run", flush=True)
            continue
        found["notebooks"][path.stem] = one = check(path, left_s, out)
        records.keep(NAME, found)
        if out:
            records.write_json(out / f"{NAME}.json", {"version": records.SCHEMA_VERSION, **found}, replace=True)
        print(f"{path.stem}: {one['result']}, {one['seconds']:.0f} s; {'; '.join(one['reasons'][:2])}", flush=True)
    return _end(found)


def _passed(source: Mapping) -> dict:
    """What the draft, else the newest record of this machine and these versions has as passed, if its code is still the same."""
    for read in (records.kept, lambda name: records.load(name, records.machine_name())):
        try:
            known = read(NAME)
        except records.RecordError:
            continue
        before = known["provenance"] if known else {}
        if known and before["versions"] == source["versions"] and records.same_machine(before["machine"], source["machine"]):
            return {stem: one for stem, one in known["notebooks"].items() if one["result"] == "passed" and _unchanged(stem, one)}
    return {}


def _unchanged(stem: str, one: Mapping) -> bool:
    path = notebooks.numbered(stem[:2])
    return path is not None and path.stem == stem and one["code_sha256"] == digest(path)


def digest(path: Path) -> str:
    """SHA-256 of a notebook's code: text and outputs may change, what was run may not."""
    import nbformat

    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def _end(found: Mapping) -> int:
    stems = [path.stem for number in NUMBERS if (path := notebooks.numbered(number))]
    results = [found["notebooks"].get(stem, {}).get("result") for stem in stems]
    if None in results:
        return 75
    print(f"saved: {records.save(NAME, dict(found)).name}", flush=True)
    return 0 if set(results) == {"passed"} else 1


def _versions() -> dict:
    return {e.kernel: records.versions(e) for e in engines.ENGINES.values() if kernels.installed(e.kernel)}


def check(path: Path, left_s: float, out: Path | None = None) -> dict:
    """One notebook: ``passed``, ``failed`` or ``cut off``, how many cells did what, the reasons, and which code it was."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-m", ALL_AND_GPU,
            f"--junitxml={report}", str(path),
        ]  # fmt: skip
        env = {**os.environ, "JUPYTER_PATH": str(kernels.REPOSITORY / ".jupyter"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        try:
            ran = subprocess.run(command, cwd=kernels.REPOSITORY, env=env, capture_output=True, text=True, timeout=left_s)
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


def plain(text: str) -> str:
    """The beginning of ``text`` in one line, without a terminal's colours."""
    return " ".join(COLOUR.sub("", text).split())[:300]


def read(report: str) -> dict:
    """Counts and reasons of a JUnit report; a skipped cell's reason is told as a failed one's is."""
    cases = list(xml.fromstring(report).iter("testcase"))
    ended = {kind: [case.find(kind) for case in cases if case.find(kind) is not None] for kind in ("failure", "error", "skipped")}
    reasons = [plain(one.get("message") or one.text or kind) for kind, many in ended.items() for one in many]
    return {
        "cells": len(cases), "failed": len(ended["failure"]) + len(ended["error"]), "skipped": len(ended["skipped"]),
        "reasons": list(dict.fromkeys(reasons)),
    }  # fmt: skip
