"""The quick tier: tests that need no engine. Kernels and model files are out of their sight, so that each proves it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from helpers import kernels, paths
from helpers.collection import notebooks
from helpers.weights import models

HERE = paths.REPOSITORY  # a test may point `paths.REPOSITORY` at a folder of its own; what it finds there is its own
LAB = "lab"
ENGINES = set(notebooks.REQUIREMENTS) - {"gpu", "network"}  # the kernels that a notebook may need


def hide(config: pytest.Config) -> None:
    """From now on the lab is the only kernel of this repository, and the cache of model files is an empty folder."""
    folder = Path(tempfile.mkdtemp(prefix="quick-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    _hide_cache(folder / "cache")
    os.environ["JUPYTER_PATH"] = str(folder)
    os.environ.pop("MODEL", None)  # it names the reader's own files
    lab = HERE / ".jupyter" / "kernels" / LAB
    if lab.exists():
        shutil.copytree(lab, folder / "kernels" / LAB)
    _hide_kernels(folder / "kernels")
    _hide_default_model(paths.cache_dir())


def _hide_cache(seen: Path) -> None:
    """The folder of model files is empty, here and in child processes; what else is cached (uv's, browsers) stays in sight."""
    usual, ours = paths.cache_dir().parent, paths.cache_dir().name
    seen.mkdir()
    for one in usual.iterdir() if usual.exists() else ():
        if one.name != ours:
            (seen / one.name).symlink_to(one)
    os.environ["XDG_CACHE_HOME"] = str(seen)


def _hide_kernels(seen: Path) -> None:
    """Jupyter looks into ``seen`` only; whoever asks for a framework's interpreter fails."""
    specs, interpreter = kernels.specs, kernels.interpreter

    def only_seen() -> KernelSpecManager:
        manager = specs()
        if paths.REPOSITORY == HERE:
            manager.kernel_dirs = [str(seen)]
        return manager

    def only_lab(kernel: str) -> str:
        if paths.REPOSITORY == HERE and kernel in ENGINES:
            unmarked(f"the kernel {kernel!r}")
        return interpreter(kernel)

    kernels.specs, kernels.interpreter = only_seen, only_lab


def _hide_default_model(cache: Path) -> None:
    """Whoever asks for the default model's file in this session's cache fails; a test may have a cache of its own."""
    usual = models._default_gguf

    def default_gguf() -> Path:
        if paths.cache_dir() == cache:
            unmarked("the model's file")
        return usual()

    models._default_gguf = default_gguf


def unmarked(wanted: str) -> None:
    """Fail, past every `except Exception`: else the test could skip or take another way."""
    pytest.fail(f"{wanted} is asked for by a test that runs without engines: mark it `engine`", pytrace=False)
