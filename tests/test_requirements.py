"""requirements/ and environment.yml: everything is pinned, once."""

import re

import yaml
from offenders import over

from helpers.paths import REPOSITORY as ROOT


def test_environment_yml_has_the_labs_pins():
    """conda reads the very list that pip reads, and the Python that is tested."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]

    assert pip == ["-r requirements/lab.txt", "-e ."]
    assert [entry for entry in dependencies if isinstance(entry, str)] == ["python=3.11", "pip"]


@over(lambda: {file.name: {"file": file} for file in (ROOT / "requirements").glob("*.txt")}, "file")
def test_every_requirement_is_pinned(file):
    """A requirement is name==version."""
    for line in file.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line and not line.startswith("-c "):
            assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[0-9][\w.+]*", line), line


def test_the_requirement_files_agree():
    """A package pinned for two environments has the same version in both, or the line says why not."""
    pins: dict[str, str] = {}
    for file in (ROOT / "requirements").glob("*-cpu.txt"):
        for name, version, why in re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)( +#.*)?$", file.read_text(), re.M):
            assert why or file.name.startswith("constraints") or pins.setdefault(name, version) == version, name
