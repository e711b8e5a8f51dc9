"""What the quick tier hides: a test that asks for an engine and is not marked fails, and does not skip."""

import subprocess
import sys

import hidden
import pytest
from _pytest.outcomes import Failed
from offenders import over

from helpers import kernels, paths
from helpers.weights import models


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """As in the quick tier, for one test; the cache of this machine has a model file and something else."""
    usual = tmp_path / "usual"
    (usual / paths.cache_dir().name).mkdir(parents=True)
    (usual / paths.cache_dir().name / "model.gguf").touch()
    (usual / "other").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(usual))
    for module, name in ((kernels, "specs"), (kernels, "interpreter"), (models, "_default_gguf")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    hidden._hide_cache(tmp_path / "seen")
    hidden._hide_kernels(tmp_path / "kernels")
    hidden._hide_default_model(paths.cache_dir())


@over(lambda: {kernel: {"kernel": kernel} for kernel in hidden.ENGINES}, "kernel")
def test_an_engine_is_not_there_for_a_test_without_the_marker(quick, kernel):
    """Not even to be told that it is missing: a test could skip then."""
    said = f"^the kernel '{kernel}' is asked for by a test that runs without engines: mark it `engine`$"
    with pytest.raises(Failed, match=said):
        kernels.interpreter(kernel)
    with pytest.raises(Failed, match=said):
        kernels.installed(kernel)


def test_the_model_is_not_there_for_a_test_without_the_marker(quick):
    """Nor is anything made of it."""
    with pytest.raises(Failed, match="^the model's file is asked for by a test that runs without engines: mark it `engine`$"):
        models.weights("gguf")


def test_a_name_that_is_no_engine_is_looked_up_as_ever(quick):
    """What a misspelt name is told is a behaviour, and needs no engine."""
    with pytest.raises(kernels.MissingKernel, match="the kernel 'nothing' is not installed"):
        kernels.interpreter("nothing")


def test_a_child_process_sees_no_model_but_every_other_cache(quick):
    """uv and a browser find what they have downloaded."""
    code = "from helpers import paths; print(paths.cache_dir().exists(), (paths.cache_dir().parent / 'other').is_dir())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.REPOSITORY)

    assert said.stdout.split() == ["False", "True"]
