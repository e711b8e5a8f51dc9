"""The commands of nox: what they refuse before they set anything up."""

import os
import subprocess
import sys

import pytest

from helpers import paths


def nox(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "NO_COLOR": "1", **variables}
    command = [sys.executable, "-m", "nox", "-f", str(paths.REPOSITORY / "noxfile.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("session", ["tour", "lab", "test"])
def test_a_bad_model_is_refused_before_anything_is_set_up(session):
    """One line, and no environment is looked at."""
    ran = nox("-s", session, MODEL="/no/such/model.gguf")

    assert ran.returncode == 1
    assert "/no/such/model.gguf is not there: give the path of a .gguf file" in ran.stderr
    assert "install" not in ran.stderr and "Traceback" not in ran.stderr
