"""A folder from which everything is set up without a network: wheels, the model's among them, and a manifest with checksums.

`nox -s wheelhouse` fills it and `nox -s tour -- --from FOLDER` installs from it. It needs Python alone, since it is looked at
before anything is installed. The manifest is written last: a folder without one was not finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helpers import machine

MANIFEST, WHEELS = "manifest.json", "wheels"
AGAIN = "make it again with `nox -s wheelhouse`"
ELSEWHERE = (
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_CONSTRAINT",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
)


class WheelhouseError(ValueError):
    """A folder from which nothing can be set up, or into which nothing can be collected, in one line with what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a wheelhouse is for, and its files by name with bytes and sha256."""

    python: str  # 3.11: wheels are made for one
    platform: str
    cpu_flags: tuple[str, ...]  # of the processor that llama.cpp was compiled for; none where nothing was compiled
    pins: Mapping[str, str]  # environment to a hash of what it is made from
    files: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)

    @classmethod
    def here(cls, pins: Mapping[str, str], compiled: bool) -> Manifest:
        """Of this Python and, where something was compiled, this processor; files come with :func:`write`."""
        return cls(_python(), sysconfig.get_platform(), tuple(machine.cpu_flags() if compiled else ()), dict(pins))


def begin(folder: Path, pins: Mapping[str, str]) -> Path:
    """Make ``folder`` ready to be filled, and return where wheels go; :class:`WheelhouseError` if it cannot be written to.

    What stands in its manifest is kept if it was made from the same ``pins``, else removed; the manifest goes either way.
    """
    wheels = folder / WHEELS
    try:
        wheels.mkdir(parents=True, exist_ok=True)
        probe = wheels / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
        if (folder / MANIFEST).exists():
            _forget(folder, pins)
    except OSError as error:
        raise WheelhouseError(f"{folder} cannot be written to ({error.strerror}): choose another with --to FOLDER") from None
    return wheels


def _forget(folder: Path, pins: Mapping[str, str]) -> None:
    """Remove the manifest and, where its pins are others, the files that it names."""
    try:
        old = read(folder)
        names = [] if {**old.pins, **pins} == old.pins else list(old.files)
    except WheelhouseError:  # what is in it is not known: pip looks at each file again
        names = []
    for name in names:
        (folder / WHEELS / name).unlink(missing_ok=True)
    (folder / MANIFEST).unlink()


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest`` with every file that is there; returns it."""
    files = sorted(file for file in (folder / WHEELS).iterdir() if file.is_file())
    seen = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
    whole = asdict(manifest) | {"files": seen}
    partial = folder / f".{MANIFEST}.{os.getpid()}"
    partial.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(partial, folder / MANIFEST)
    return read(folder)


def read(folder: Path) -> Manifest:
    """The manifest of ``folder``; :class:`WheelhouseError` if there is none or it is no manifest."""
    if not folder.is_dir():
        raise WheelhouseError(f"{folder} is no folder: give the one that `nox -s wheelhouse` has made")
    try:
        data = json.loads((folder / MANIFEST).read_text())
        return Manifest(**data | {"cpu_flags": tuple(data["cpu_flags"])})
    except FileNotFoundError:
        raise WheelhouseError(f"{folder} was not finished: it has no {MANIFEST}; {AGAIN}") from None
    except OSError as error:
        raise WheelhouseError(f"{folder / MANIFEST} cannot be read ({error.strerror}): copy the folder again") from None
    except (ValueError, TypeError, LookupError) as error:
        raise WheelhouseError(f"{folder / MANIFEST} is no manifest ({error}): copy the folder again") from None


def check(folder: Path, pins: Mapping[str, str], seen: Callable[[int], None] = lambda count: None) -> Manifest:
    """The manifest of ``folder``, if all of ``pins`` can be set up from it here; else :class:`WheelhouseError`.

    ``pins`` are those of the environments that are wanted, by name. Every file is hashed; ``seen`` is told its bytes.
    """
    manifest = read(folder)
    for problem in (_other_machine(manifest), _other_pins(manifest, pins), _other_files(folder, manifest, seen)):
        if problem:
            raise WheelhouseError(f"{folder}: {problem}")
    return manifest


def _other_machine(manifest: Manifest) -> str | None:
    if (manifest.python, manifest.platform) != (_python(), sysconfig.get_platform()):
        here = f"this is Python {_python()} on {sysconfig.get_platform()}"
        return f"it is for Python {manifest.python} on {manifest.platform}, and {here}: run nox with that Python, or {AGAIN} here"
    if lacking := sorted(set(manifest.cpu_flags) - set(machine.cpu_flags())):
        return f"its llama.cpp was compiled for a processor with {', '.join(lacking)}, which this one lacks: {AGAIN} on this one"
    return None


def _other_pins(manifest: Manifest, pins: Mapping[str, str]) -> str | None:
    if lacking := [name for name in pins if name not in manifest.pins]:
        return f"it has nothing for {', '.join(lacking)}: choose from {', '.join(manifest.pins)}"
    if changed := [name for name in pins if manifest.pins[name] != pins[name]]:
        return f"it was made from other versions of {', '.join(changed)} than this collection pins: {AGAIN}"
    return None


def _other_files(folder: Path, manifest: Manifest, seen: Callable[[int], None]) -> str | None:
    there = {file.name for file in (folder / WHEELS).iterdir()} if (folder / WHEELS).is_dir() else set()
    if missing := sorted(manifest.files.keys() - there):
        return f"{_some(missing)} missing: copy the folder again"
    if strange := sorted(there - manifest.files.keys()):
        return f"{_some(strange)} not in its manifest: remove what was not made by `nox -s wheelhouse`"
    changed = [name for name, said in manifest.files.items() if not _is_whole(folder / WHEELS / name, said, seen)]
    return f"{_some(changed)} not the file that it was (its sha256 differs): copy the folder again" if changed else None


def _is_whole(file: Path, said: Mapping[str, str | int], seen: Callable[[int], None]) -> bool:
    seen(file.stat().st_size)
    return file.stat().st_size == said["bytes"] and sha256(file) == said["sha256"]


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"


def sha256(file: Path) -> str:
    """The checksum of ``file``."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _python() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def only(folder: Path, variables: MutableMapping[str, str]) -> None:
    """Change environment ``variables`` so that uv and pip install from ``folder`` alone, whatever their configuration says."""
    for name in ELSEWHERE:
        variables.pop(name, None)
    wheels = str((folder / WHEELS).absolute())
    variables |= {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_NO_CONFIG": "1", "UV_FIND_LINKS": wheels}
    variables |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": wheels}
