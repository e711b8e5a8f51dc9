"""The quick tier: tests that need no engine. Kernels and model files are out of their sight, so that each proves it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from helpers import kernels


def hide(config: pytest.Config) -> None:
    """From now on the lab is the only kernel, and the cache of model files is an empty folder."""
    folder = Path(tempfile.mkdtemp(prefix="quick-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    if lab := _lab():
        shutil.copytree(lab, folder / "kernels" / "lab")
    usual = kernels.specs

    def specs():
        """Jupyter's kernelspecs without the repository's own but the lab; a test's own repository is seen as ever."""
        manager = usual()
        own = str(kernels.paths.REPOSITORY / ".jupyter" / "kernels")
        hides = own == str(HERE / ".jupyter" / "kernels")
        manager.kernel_dirs = [str(folder / "kernels"), *manager.kernel_dirs[1:]] if hides else manager.kernel_dirs
        manager.kernel_dirs = [one for one in manager.kernel_dirs if not (hides and one == own)]
        return manager

    kernels.specs = specs


HERE = kernels.paths.REPOSITORY


def _lab() -> str | None:
    """The folder of the lab's kernelspec, if it is installed."""
    found = HERE / ".jupyter" / "kernels" / "lab"
    return str(found) if found.exists() else None
