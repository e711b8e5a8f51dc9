"""A folder to set up from: whatever is wrong with it is said in one line, before anything is installed."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from offenders import over

from helpers import machine, paths
from helpers.collection import wheelhouse
from helpers.collection.wheelhouse import Manifest, WheelhouseError

PINS = {"lab": "1", "llama-cpp": "2"}


def fill(folder) -> None:
    """Two wheels, the mocks of those that a set-up takes."""
    for name in ("thing", "other"):
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            info = f"{name}-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def house(tmp_path):
    """A whole wheelhouse, for the lab and llama.cpp."""
    folder = tmp_path / "house"
    fill(wheelhouse.begin(folder, PINS))
    wheelhouse.write(folder, Manifest.here(PINS, compiled=True))
    return folder


def refused(folder, pins=None) -> str:
    """Why nothing is set up from ``folder``."""
    with pytest.raises(WheelhouseError) as caught:
        wheelhouse.check(folder, PINS if pins is None else pins)
    return str(caught.value)


def test_it_needs_nothing_but_python():
    """No installed package is in sight (-S): it is looked at before anything is installed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from helpers.collection import wheelhouse as w; w.Manifest.here({}, True)"
    )
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(paths.REPOSITORY)], capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_whole_one_is_taken(house):
    """Each of its bytes was looked at; fewer environments than it has may be wanted."""
    hashed = []
    manifest = wheelhouse.check(house, {"lab": "1"}, hashed.append)

    assert list(manifest.files) == ["other-1.0-py3-none-any.whl", "thing-1.0-py3-none-any.whl"]
    assert sum(hashed) == sum(file["bytes"] for file in manifest.files.values()) > 0


def lose(house):
    (house / "wheels" / "thing-1.0-py3-none-any.whl").unlink()


def lose_all(house):
    for file in (house / "wheels").iterdir():
        file.unlink()


def change_one_byte(house):
    file = house / "wheels" / "thing-1.0-py3-none-any.whl"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(house):
    file = house / "wheels" / "thing-1.0-py3-none-any.whl"
    file.write_bytes(file.read_bytes()[:-1])


def add(house):
    (house / "wheels" / "evil-1.0-py3-none-any.whl").touch()


def lose_manifest(house):
    (house / "manifest.json").unlink()


def spoil_manifest(house):
    (house / "manifest.json").write_text('{"python": "3.11"')


def empty_manifest(house):
    (house / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose, ": thing-1.0-py3-none-any.whl is missing: copy the folder again"),
        (lose_all, ": other-1.0-py3-none-any.whl and 1 more are missing: copy the folder again"),
        (change_one_byte, ": thing-1.0-py3-none-any.whl is not the file that it was (its sha256 differs): copy the folder again"),
        (cut, ": thing-1.0-py3-none-any.whl is not the file that it was (its sha256 differs): copy the folder again"),
        (add, ": evil-1.0-py3-none-any.whl is not in its manifest: remove what was not made by `nox -s wheelhouse`"),
        (lose_manifest, " was not finished: it has no manifest.json; make it again with `nox -s wheelhouse`"),
        (spoil_manifest, "/manifest.json is no manifest ("),
        (empty_manifest, "/manifest.json is no manifest ("),
    ],
)
def test_harm_is_found(house, harm, said):
    """The file, what is wrong with it, and what to do."""
    harm(house)
    told = refused(house)

    assert told.startswith(f"{house}{said}") and "\n" not in told


def test_no_folder_is_no_wheelhouse(tmp_path):
    """A misspelt name is told so."""
    assert refused(tmp_path / "hous") == f"{tmp_path / 'hous'} is no folder: give the one that `nox -s wheelhouse` has made"


def test_a_framework_that_was_not_collected(house):
    """With those that were."""
    assert refused(house, {**PINS, "vllm": "3"}) == f"{house}: it has nothing for vllm: choose from lab, llama-cpp"


def test_other_versions_than_those_pinned_here(house):
    """A wheelhouse of last year's collection is not half installed."""
    assert "made from other versions of lab than this collection pins" in refused(house, {"lab": "9"})


@over(lambda: {name: {"name": name} for name in ("python", "platform")}, "name")
def test_wheels_are_for_one_python_and_one_platform(name, tmp_path):
    """What the folder is for, and what this is."""
    folder = tmp_path / name
    fill(wheelhouse.begin(folder, PINS))
    wheelhouse.write(folder, replace(Manifest.here(PINS, compiled=False), **{name: "another"}))

    assert "another" in refused(folder) and "run nox with that Python" in refused(folder)


def test_a_processor_that_lacks_what_was_compiled_in(house, monkeypatch):
    """With a mock of an older one: llama.cpp would end with an illegal instruction. Without a compiled part it does not count."""
    monkeypatch.setattr(machine, "cpu_flags", lambda: ["avx2", "avx512f"])
    wheelhouse.write(house, Manifest.here(PINS, compiled=True))
    monkeypatch.setattr(machine, "cpu_flags", lambda: ["avx2"])

    assert "was compiled for a processor with avx512f, which this one lacks" in refused(house)
    wheelhouse.write(house, Manifest.here(PINS, compiled=False))
    assert wheelhouse.check(house, PINS)


def test_a_folder_that_cannot_be_written_to():
    """Said before anything is fetched. /proc takes no file, not even of root."""
    with pytest.raises(WheelhouseError, match=r"^/proc/house cannot be written to \(.+\): choose another with --to FOLDER$"):
        wheelhouse.begin(paths.Path("/proc/house"), PINS)


def test_what_was_collected_before_is_kept_if_the_pins_are_the_same(house):
    """The manifest goes first: stopped now, the folder says that it is not finished."""
    wheels = wheelhouse.begin(house, {"lab": "1"})

    assert len(list(wheels.iterdir())) == 2 and not (house / "manifest.json").exists()


def test_what_other_pins_have_collected_goes_and_nothing_else(house):
    """Only what its manifest names."""
    (house / "wheels" / "notes.txt").touch()
    wheels = wheelhouse.begin(house, {"lab": "other"})

    assert [file.name for file in wheels.iterdir()] == ["notes.txt"]


def test_pip_takes_the_folder_and_nothing_else(house, tmp_path):
    """Whatever its configuration says: a real pip gets what is there, and asks nobody for what is not."""
    variables = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_INDEX": "http://127.0.0.1:9/"}
    wheelhouse.only(house, variables)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path)]
    there, absent = (subprocess.run([*pip, name], env=variables, capture_output=True, text=True) for name in ("thing", "numpy"))

    assert there.returncode == 0 and (tmp_path / "thing-1.0-py3-none-any.whl").exists()
    assert absent.returncode == 1 and "No matching distribution found for numpy" in absent.stderr
    assert "UV_INDEX" not in variables and variables["UV_NO_INDEX"] == "1"
