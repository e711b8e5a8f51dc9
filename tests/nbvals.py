"""nbval in a process of its own, on a folder of mock notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.paths import REPOSITORY as ROOT


def nbval(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run nbval on the notebooks in ``folder`` as the collection's own tests do."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "--nbval-lax",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
    ]
    env = {**os.environ, "JUPYTER_PATH": str(ROOT / ".jupyter")}
    return subprocess.run([*command, *arguments, str(folder)], capture_output=True, text=True, env=env, cwd=ROOT, timeout=300)
