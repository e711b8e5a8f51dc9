"""A measurement with its provenance, to and from JSON: ``measurements/<machine>/<name>.<day>.json``.

No path, user or host name goes in: a record says what hardware and which versions, not whose.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from helpers import machine, paths

FOLDER = paths.REPOSITORY / "measurements"
SCHEMA_VERSION = 2
ALIKE = ("machine", "versions", "weights", "arguments", "model")  # what records must share to be merged


class RecordError(RuntimeError):
    """A record that is missing, of another format, or would be overwritten."""


def provenance(**details) -> dict:
    """Where and when a figure comes from; ``details`` are added as they are."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "helpers": metadata.version("llm-frameworks-measured"),
        **details,
    }


def write_json(path: Path, content: dict, *, replace: bool = False) -> Path:
    """Write ``content`` whole or not at all. Infinity and NaN become null, to stay JSON.

    Raises :class:`RecordError` if ``path`` exists and ``replace`` is not given.
    """
    if path.exists() and not replace:
        raise RecordError(f"{path.name} exists already: records are not overwritten; remove it first or ask for replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    paths.write(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")
    return path


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(name: str, data: dict) -> Path:
    """Save ``data`` (with its own ``provenance``) as this machine's record called ``name``, of today.

    A second one on a day gets a number: no record is ever overwritten. The draft goes.
    """
    folder, day = FOLDER / machine.name(), datetime.now(UTC).date().isoformat()
    stems = [f"{name}.{day}", *(f"{name}.{day}-{n}" for n in range(2, 1000))]
    path = next(folder / f"{stem}.json" for stem in stems if not (folder / f"{stem}.json").exists())
    write_json(path, {"version": SCHEMA_VERSION, **data})
    _draft(name).unlink(missing_ok=True)
    return path


def keep(name: str, data: dict, out: Path | None = None) -> None:
    """Keep ``data`` of a measurement that is not finished, so that a later run can go on with it (:func:`kept`).

    A folder ``out`` gets a copy.
    """
    for path in (_draft(name), *([out / f"{name}.json"] if out else [])):
        write_json(path, {"version": SCHEMA_VERSION, **data}, replace=True)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else who asks for the same reads and writes the draft of ``name`` meanwhile."""
    folder = _draft(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    with paths.locked(folder):
        yield


def kept(name: str) -> dict | None:
    """What :func:`keep` kept on this machine, or ``None``."""
    return read(_draft(name)) if _draft(name).exists() else None


def resume(
    name: str, source: Mapping, differ: Callable[[Mapping, Mapping], str | None], *, finished: bool = False
) -> dict | None:
    """What an earlier run of ``name`` on this machine measured, if the new run may go on with it; else ``None``.

    ``source`` is the provenance of the new run; ``differ(known, source)`` says in words what two provenances differ in, or
    ``None`` (see :func:`difference`). The draft comes first, then, where ``finished`` ones may be gone on with, the newest
    record. One that is not used is named with the reason.
    """
    for what, known in _earlier(name, finished):
        if (reason := differ(known["provenance"], source)) is None:
            return known
        print(f"the {what} of an earlier run is not used: {reason}", flush=True)
    return None


def _earlier(name: str, finished: bool) -> Iterator[tuple[str, dict]]:
    """The draft of ``name``, then its newest record; what is not there or cannot be read is left out."""
    for what, read in (("draft", kept), ("record", lambda name: load(name, machine.name())))[: 1 + finished]:
        try:
            known = read(name)
        except RecordError:
            continue
        if known:
            yield what, known


def difference(one: Mapping, other: Mapping, keys: Sequence[str] = ALIKE) -> str | None:
    """The first of ``keys`` in which two provenances differ, with both values, or ``None``: they were made alike."""
    for what in keys:
        if one.get(what) != other.get(what):
            return f"different {what}: {_short(one.get(what))} and {_short(other.get(what))}"
    return None


def _draft(name: str) -> Path:
    return FOLDER / machine.name() / f".{name}.draft"


def load(name: str, machine: str | None = None) -> dict:
    """The newest record called ``name`` of ``machine``, or of the only machine that has one.

    Raises :class:`RecordError` with what there is.
    """
    found = sorted(FOLDER.glob(f"{machine or '*'}/{name}.*.json"), key=age)
    there = sorted({path.parent.name for path in found})
    if len(there) != 1:
        raise RecordError(f"no single record {name!r}: machines that have it: {', '.join(there) or 'none'}; name one")
    return read(found[-1])


def age(path: Path) -> tuple[str, int]:
    """What records sort by: the day in the file's name, and its number on that day."""
    day, number = re.fullmatch(r".*\.(\d{4}-\d\d-\d\d)(?:-(\d+))?\.json", path.name).groups()
    return day, int(number or 1)


def read(path: Path) -> dict:
    """The record in the file ``path``; :class:`RecordError` if it is none that this code reads."""
    try:
        record = json.loads(path.read_text())
    except ValueError:
        raise RecordError(f"record {path.name} of {path.parent.name} is not JSON: remove it and make it again") from None
    if record.get("version") != SCHEMA_VERSION:
        raise RecordError(f"record {path.name} has format {record.get('version')}, this code reads {SCHEMA_VERSION}")
    return record


def merge(first: dict, second: dict) -> dict:
    """One record of the levels of both, with ``second``'s provenance; what both have is taken from ``second``.

    :class:`RecordError` if they were not made alike: on the same machine, of the same versions, weights and arguments.
    """
    if reason := difference(first["provenance"], second["provenance"]):
        raise RecordError(f"records of {reason} are not merged; keep them apart")
    levels = {name: list(found) for name, found in first["engines"].items()}
    for name, found in second["engines"].items():
        new = {level["users"] for level in found}
        levels[name] = sorted((level for level in levels.get(name, ()) if level["users"] not in new), key=_users) + found
    return {**second, "engines": {name: sorted(found, key=_users) for name, found in levels.items()}}


def _users(level: dict) -> int:
    return level["users"]


def _short(value) -> str:
    return json.dumps(value)[:80]


def on_gpu(record: Mapping) -> bool:
    """Whether the engines of a record ran on a GPU: on its machine there is one."""
    return bool(record.get("provenance", {}).get("machine", {}).get("gpus"))


def describe(record: dict) -> str:
    """One line: where, when and with what a record was made."""
    source = record["provenance"]
    what = ", ".join({f"{n} {v}": None for engine in source.get("versions", {}).values() for n, v in engine.items()})
    return f"recorded on {source['machine']['cpu']}, {source['machine']['cores']} cores, {source['date'][:10]}; {what}"
