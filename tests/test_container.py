"""The container file and the devcontainer: the pins of requirements/ and no others, loopback only. Built where a builder is."""

import json
import re
import shutil
import subprocess

import pytest

from helpers.paths import REPOSITORY as ROOT

FILE = ROOT / "Containerfile"
LINES = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
TEXT = "\n".join(LINES)
DEVCONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())


def test_its_python_is_the_tested_one():
    """As conda's, with the release written out."""
    (tested,) = re.findall(r"python=(3\.\d+)", (ROOT / "environment.yml").read_text())

    assert re.findall(r"^FROM python:(\S+) AS base$", TEXT, re.M)[0].startswith(f"{tested}.")


def test_it_installs_nox_in_the_labs_version_and_the_rest_by_nox():
    """So no package is pinned a second time."""
    (pinned,) = re.findall(r"^nox==(\S+)", (ROOT / "requirements" / "lab.txt").read_text(), re.M)

    assert re.findall(r"pip install .*?(\S+==\S+)", TEXT) == [f"nox=={pinned}"]
    assert "RUN nox -s lab -- " in TEXT


def test_nothing_listens_beyond_loopback():
    """No port is opened and no address is given; whoever runs it is no administrator in it."""
    assert not re.search(r"EXPOSE|0\.0\.0\.0|--ip", TEXT)
    assert [line for line in LINES if line.startswith("USER")] == ["USER 1000"]


def test_the_notebooks_variable_is_left_alone():
    """FRAMEWORKS tells them what was chosen for a tour, in a form of its own."""
    assert not re.search(r"\bFRAMEWORKS\b", TEXT)


def test_what_a_checkout_makes_stays_out():
    """All that git ignores, so that no environment of another machine comes in."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    left_out = {
        line.removeprefix("**/").strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    }

    assert ignored - left_out == set()


def test_the_devcontainer_is_built_from_it():
    """From the stage before the set-up: the workspace has environments of its own."""
    build = DEVCONTAINER["build"]

    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == FILE
    assert f" AS {build['target']}" in TEXT
    assert DEVCONTAINER["remoteUser"] == "reader"
    assert DEVCONTAINER["postCreateCommand"].startswith("nox -s check && nox -s lab")


def test_the_linter_finds_nothing():
    """hadolint, where it is."""
    hadolint = shutil.which("hadolint") or pytest.skip("no hadolint here to read the Containerfile with")
    ran = subprocess.run([hadolint, str(FILE)], capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (0, "")
