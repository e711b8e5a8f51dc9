"""The configuration of a hub for a room: it listens on this machine only, and JupyterHub knows every word of it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from traitlets.config.loader import PyFileConfigLoader

from helpers import paths

FILE = paths.REPOSITORY / "docs" / "jupyterhub_config.py"
GUIDE = (paths.REPOSITORY / "docs" / "teaching.md").read_text()
PASSWORD = "a-mock-of-one"


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The configuration as traitlets reads it, with a folder of this test's for the hub."""
    monkeypatch.setenv("HUB_FOLDER", str(tmp_path / "room"))
    monkeypatch.setenv("HUB_PASSWORD", PASSWORD)
    monkeypatch.delenv("HUB_TOKEN", raising=False)
    return PyFileConfigLoader(FILE.name, str(FILE.parent)).load_config()


def test_every_address_is_of_this_machine(config):
    """The proxy, its own interface, the hub and each person's server."""
    addresses = [config.JupyterHub.bind_url, config.JupyterHub.hub_bind_url, config.ConfigurableHTTPProxy.api_url]

    assert all(address.startswith("http://127.0.0.1:") for address in addresses) and len(set(addresses)) == 3
    assert config.Spawner.ip == "127.0.0.1"


def test_without_a_password_there_is_no_hub(monkeypatch, tmp_path):
    """One line, and no folder is made."""
    monkeypatch.setenv("HUB_FOLDER", str(tmp_path / "room"))
    monkeypatch.setenv("HUB_PASSWORD", "")
    with pytest.raises(SystemExit, match="^HUB_PASSWORD is not set, and without one anybody on this machine could come in"):
        PyFileConfigLoader(FILE.name, str(FILE.parent)).load_config()

    assert not (tmp_path / "room").exists()


def test_each_person_has_notebooks_of_their_own_and_the_same_model_files(config, tmp_path):
    """Copied once: what somebody has changed stays at their next login. The model's files are links."""

    class Spawner:
        home_dir = str(tmp_path / "people" / "ada")

    config.Spawner.pre_spawn_hook(Spawner)
    first = Path(Spawner.home_dir, "notebooks", paths.notebook("00").name)
    first.write_text("changed")
    config.Spawner.pre_spawn_hook(Spawner)

    assert first.read_text() == "changed" and paths.notebook("00").read_text() != "changed"
    assert Path(Spawner.home_dir, ".cache", paths.cache_dir().name).is_symlink()


def test_jupyterhub_takes_the_configuration(tmp_path):
    """The release that the guide names, where it is at hand: it knows each setting, and shows it as it is in the file."""
    if not (hub := shutil.which("jupyterhub")):
        pytest.skip("no jupyterhub in PATH: docs/teaching.md says how to install it")
    (pinned,) = set(re.findall(r"jupyterhub==([\d.]+)", GUIDE))
    env = {**os.environ, "HUB_FOLDER": str(tmp_path / "room"), "HUB_PASSWORD": PASSWORD}
    ran = subprocess.run(
        [hub, "--config", str(FILE), "--show-config-json"], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60
    )

    assert ran.returncode == 0 and "not recognized" not in ran.stderr, ran.stderr
    assert json.loads(ran.stdout)["Spawner"]["ip"] == "127.0.0.1"
    assert subprocess.run([hub, "--version"], capture_output=True, text=True).stdout.strip() == pinned
