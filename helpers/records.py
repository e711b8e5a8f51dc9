"""A measurement with its provenance, to and from JSON: ``measurements/<machine>/<name>.<day>.json``.

No path, user or host name goes in: a record says what hardware and which versions, not whose.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from helpers import kernels
from helpers.servers import engines, llama_cpp

FOLDER = kernels.REPOSITORY / "measurements"
SCHEMA_VERSION = 2
ALIKE = ("machine", "versions", "weights", "arguments", "model")  # what records must share to be merged
SIMD = re.compile(r"(sse4|ssse3|avx|fma|f16c|amx|asimd|sve|i8mm|bf16)\w*")


class RecordError(RuntimeError):
    """A record that is missing, of another format, or would be overwritten."""


def machine() -> dict:
    """This machine: processor, cores and GPUs that this process may use, memory, system."""
    return {
        "cpu": _cpu(),
        "cores": engines.cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_flags": _cpu_flags(),
        "gpus": engines.gpus("name"),
        "gpu_driver": next(iter(engines.gpus("driver_version")), None),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def same_machine(one: dict, other: dict) -> bool:
    """Whether two machines are alike in all that decides a figure on a GPU; the memory of some grows while they run."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores", "gpus", "gpu_driver", "system"))


def machine_name(of: dict | None = None) -> str:
    """A folder's name for a machine: ``amd-epyc-2-cores``."""
    of = of or machine()
    return re.sub(r"[^a-z0-9]+", "-", f"{(of['gpus'] or [of['cpu']])[0]} {of['cores']} cores".lower()).strip("-")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    """The processor's SIMD instruction sets: they decide which kernels an engine takes."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return []
    return sorted(flag for flag in flags if SIMD.fullmatch(flag))


def versions(engine: engines.Engine) -> dict[str, str | None]:
    """The versions of those of ``engine``'s packages that are installed, asked of its own interpreter or program."""
    if engine.kernel == "llama-cpp" and llama_cpp.binaries():
        return {"llama.cpp": llama_cpp.version()}
    return versions_in(engine.kernel, engine.packages)


def versions_in(kernel: str, packages: Sequence[str]) -> dict[str, str | None]:
    """The versions of those of ``packages`` that ``kernel`` has."""
    code = (
        "import json,sys; from importlib import metadata as m\n"
        "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return None\n"
        "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    )
    return {name: version for name, version in json.loads(_said(kernel, code, *packages)).items() if version}


def environment(engine: engines.Engine) -> dict[str, float | int | None]:
    """What ``engine``'s environment costs: GB on disk, installed packages, minutes its installation took here.

    The minutes are written down by the installation; ``None`` where someone else installed it.
    """
    code = (
        "import json,sys; from importlib import metadata as m\n"
        "print(json.dumps([sys.prefix, len({d.name for d in m.distributions()})]))"
    )
    prefix, packages = json.loads(_said(engine.kernel, code))
    size = sum(file.lstat().st_size for file in Path(prefix).rglob("*") if not file.is_dir())
    setup = Path(prefix) / "installed.json"
    minutes = json.loads(setup.read_text())["minutes"] if setup.exists() else None
    return {"GB": round(size / 1e9, 1), "packages": packages, "install, min": minutes}


def _said(kernel: str, code: str, *arguments: str) -> str:
    """What ``code`` prints in ``kernel``'s interpreter."""
    command, env = [kernels.interpreter(kernel), "-c", code, *arguments], kernels.process_environment(kernel)
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def provenance(**details) -> dict:
    """Where and when a figure comes from; ``details`` are added as they are."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
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
    text = json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
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
    folder, day = FOLDER / machine_name(), datetime.now(UTC).date().isoformat()
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


def kept(name: str) -> dict | None:
    """What :func:`keep` kept on this machine, or ``None``."""
    return _read(_draft(name)) if _draft(name).exists() else None


def earlier(name: str) -> Iterator[dict]:
    """What a run of ``name`` may go on with here: its draft, then the newest record; what cannot be read is left out."""
    for read in (kept, lambda name: load(name, machine_name())):
        try:
            known = read(name)
        except RecordError:
            continue
        if known:
            yield known


def _draft(name: str) -> Path:
    return FOLDER / machine_name() / f".{name}.draft"


def load(name: str, machine: str | None = None) -> dict:
    """The newest record called ``name`` of ``machine``, or of the only machine that has one.

    Raises :class:`RecordError` with what there is.
    """
    found = sorted(FOLDER.glob(f"{machine or '*'}/{name}.*.json"), key=age)
    there = sorted({path.parent.name for path in found})
    if len(there) != 1:
        raise RecordError(f"no single record {name!r}: machines that have it: {', '.join(there) or 'none'}; name one")
    return _read(found[-1])


def age(path: Path) -> tuple[str, int]:
    """What records sort by: the day in the file's name, and its number on that day."""
    day, number = re.fullmatch(r".*\.(\d{4}-\d\d-\d\d)(?:-(\d+))?\.json", path.name).groups()
    return day, int(number or 1)


def _read(path: Path) -> dict:
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
    for what in ALIKE:
        one, other = (record["provenance"].get(what) for record in (first, second))
        if one != other:
            raise RecordError(f"records of different {what} are not merged: {_short(one)} and {_short(other)}; keep them apart")
    levels = {name: list(found) for name, found in first["engines"].items()}
    for name, found in second["engines"].items():
        new = {level["users"] for level in found}
        levels[name] = sorted((level for level in levels.get(name, ()) if level["users"] not in new), key=_users) + found
    return {**second, "engines": {name: sorted(found, key=_users) for name, found in levels.items()}}


def _users(level: dict) -> int:
    return level["users"]


def _short(value) -> str:
    return json.dumps(value)[:80]


def describe(record: dict) -> str:
    """One line: where, when and with what a record was made."""
    source = record["provenance"]
    what = ", ".join({f"{n} {v}": None for engine in source.get("versions", {}).values() for n, v in engine.items()})
    return f"recorded on {source['machine']['cpu']}, {source['machine']['cores']} cores, {source['date'][:10]}; {what}"
