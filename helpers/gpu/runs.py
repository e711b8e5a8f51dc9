"""The runs: what is recorded already is not measured again, each row is kept at once, the time budget is kept.

A record is called ``gpu-speed``, ``gpu-memory`` or ``gpu-options``; its ``lives`` are by key. An unfinished run
leaves a draft, with which the next one goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from helpers import kernels, machine, records
from helpers.bench.client import EndpointError
from helpers.gpu import cases, device, random_model, session, several, tasks, variants
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.lessons.memory.bandwidth import RooflineError
from helpers.lessons.scaling import parallelism
from helpers.servers import engines, llama_cpp, serving
from helpers.weights.files import ModelError

MOST = 3  # times its least: an engine that hangs must not take the others' time
RESERVE_S = 12  # to end an engine and write the record
ONE_LINE = (  # what an engine or its server may raise; anything else is a row too, with its type
    serving.ServerError, EndpointError, ModelError, RooflineError, kernels.MissingKernel, kernels.AskError, ValueError,
    device.DeviceError,
)  # fmt: skip


class RunError(ValueError):
    """A run that was asked for wrongly: the thing, the reason, what there is."""


def name(run: str, gpu: bool = True) -> str:
    """The record's name; a rehearsal on a CPU has one of its own."""
    return f"{'gpu' if gpu else 'rehearsal'}-{run}"


def chosen(run: str, only: Sequence[str] = (), gpus: int = 1, lives: Sequence[str] = ()) -> list[Life]:
    """The lives of ``run`` for which ``gpus`` are enough, of the engines in ``only`` if any are named.

    ``lives`` are keys: those alone, in this order; what this run does not have is another run's.
    """
    if run not in cases.RUNS:
        raise RunError(f"no run is called {run!r}: choose from {', '.join(cases.RUNS)}")
    unknown = [engine for engine in only if engine not in (*variants.OPTIONS, "machine")]
    if unknown:
        raise RunError(f"no engine is called {', '.join(unknown)}: choose from {', '.join(variants.OPTIONS)}, machine")
    there = {one.key: one for one in cases.RUNS[run]() if one.layout.gpus <= gpus and (not only or one.engine in only)}
    return [there[key] for key in lives if key in there] if lives else list(there.values())


def check_lives(wanted: Sequence[str], lives: Sequence[str]) -> None:
    """:class:`RunError` for a key that none of the runs ``wanted`` has."""
    known = [one.key for run in wanted for one in cases.RUNS[run]()]
    if unknown := [key for key in lives if key not in known]:
        raise RunError(f"no life is called {unknown[0]!r}: choose from {'; '.join(known)}")


def run(
    run_name: str, setting: Setting, *, only: Sequence[str] = (), lives: Sequence[str] = (), budget_s: float = 1e9,
    out: Path | None = None,
) -> dict:  # fmt: skip
    """Measure the lives of ``run_name`` that are not recorded yet, within ``budget_s`` seconds; returns the record.

    ``only`` restricts it to some engines, ``lives`` to those keys. The record is saved when every life was tried, else kept
    as a draft with which the next run goes on; two runs on different GPUs may share it. A folder ``out`` gets a copy after
    every figure.
    """
    end, gpus = time.monotonic() + budget_s, len(setting.gpus)
    todo, all_lives = chosen(run_name, only, gpus, lives), chosen(run_name, gpus=gpus)
    found = _resume(run_name, setting)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        session.logs = out / "logs.txt"
    keeper = _Keeper(name(run_name, setting.gpu), found, out)
    for one in (one for one in cases.RUNS[run_name]() if one.layout.gpus > gpus and not lives):
        print(f"{one.key}: left out, it needs {one.layout.gpus} GPUs and {gpus} can be used here", flush=True)
    measured = 0
    for one in todo:
        if _is_done(found["lives"].get(one.key), one, setting.gpu):
            print(f"{one.key}: recorded already", flush=True)
            continue
        left_s = end - time.monotonic() - RESERVE_S
        if left_s < (one.least_s if setting.gpu else 1):
            print(f"{one.key}: left for the next run, {max(left_s, 0):.0f} s are left and it needs {one.least_s:.0f}", flush=True)
            continue
        _live(one, setting, keeper, min(left_s, MOST * one.least_s) if setting.gpu else left_s)
        measured += 1
    keeper.together()
    missing = [one.key for one in all_lives if not _is_tried(found["lives"].get(one.key))]
    if measured and not missing:
        print(f"saved: {records.save(name(run_name, setting.gpu), found).name}", flush=True)
    elif missing:
        print(
            f"{len(all_lives) - len(missing)} of {len(all_lives)} are recorded; run again for: {'; '.join(missing)}", flush=True
        )
    return found


def all_of(
    wanted: Sequence[str], setting: Setting, *, only: Sequence[str], budget_s: float, out: Path | None, lives: Sequence[str] = ()
) -> int:
    """Do the runs ``wanted`` one after the other within one budget; returns 0 if all is recorded, 75 if some is left."""
    end, unfinished = time.monotonic() + budget_s, 0
    for run_name in wanted:
        found = run(run_name, setting, only=only, lives=lives, budget_s=end - time.monotonic(), out=out)
        asked = chosen(run_name, only, len(setting.gpus), lives)
        unfinished += any(not _is_tried(found["lives"].get(one.key)) for one in asked)
    return 75 if unfinished else 0


def finish(run_name: str) -> Path:
    """Save what the draft of ``run_name`` has, whole or not."""
    found = records.kept(name(run_name))
    if not found:
        raise RunError(f"there is no draft of {run_name!r} on this machine: run it first")
    return records.save(name(run_name), found)


def _resume(run_name: str, setting: Setting) -> dict:
    """The draft, else the newest record of this machine, if they were made in the same setting; else an empty one."""
    source = records.provenance(shape=setting.shape, device=setting.device, plan=_plan(setting))
    source["weights"] = f"random, shape of {setting.shape}"
    known = records.resume(name(run_name, setting.gpu), source, _differ, finished=True)
    same = lru_cache(_same_versions)  # an engine is asked once, not for each of its lives
    lives = known["lives"] if known else {}
    return {"provenance": source, "lives": {key: one for key, one in lives.items() if same(one["engine"], _told(one))}}


def _differ(known: Mapping, source: Mapping) -> str | None:
    """Whether two records were made on different machines or in different settings."""
    if not machine.same(known["machine"], source["machine"]):
        return "it was made on another machine"
    return records.difference(known, source, ("shape", "device", "plan"))


def _plan(setting: Setting) -> dict:
    return {"users": list(setting.users), "repeats": setting.repeats}


def _told(known: Mapping) -> tuple | None:
    """The versions of a life; ``None`` where it has none (the machine's own)."""
    return tuple(known["versions"].items()) if "versions" in known else None


def _same_versions(engine: str, known: tuple | None) -> bool:
    """Whether a life was measured with what is installed now; one without versions always was.

    An engine that is not installed here measures nothing: its lives are kept, with the versions that they name.
    """
    if known is None:
        return True
    try:
        now = session.versions(engine)
    except (*ONE_LINE, OSError, engines.UnknownEngine):
        return True
    return not now or dict(known) == now


def _is_done(known: Mapping | None, one: Life, gpu: bool = True) -> bool:
    return bool(known and known["complete"] and known["given"] == dict((one if gpu else cases.rehearsed(one)).given))


def _is_tried(known: Mapping | None) -> bool:
    """Whether it is complete, or failed by itself; one that only ran out of time is still to be done."""
    return bool(known) and (known["complete"] or any(line.startswith("failed") for line in known["failed"]))


class _Keeper:
    """Writes the draft, and a copy in ``out``, after every row."""

    def __init__(self, record: str, found: dict, out: Path | None):
        self.name, self.found, self.out = record, found, out
        self.own: set[str] = set()

    def keep(self, key: str, one: dict) -> None:
        self.found["lives"][key] = one
        self.own.add(key)
        with records.alone(self.name):
            self._take_up()
            records.keep(self.name, self.found, self.out)

    def together(self) -> None:
        """Take up what another run has kept beside this one."""
        with records.alone(self.name):
            self._take_up()

    def _take_up(self) -> None:
        with suppress(records.RecordError):
            kept = records.kept(self.name) or {"lives": {}, "provenance": {}}
            if records.difference(kept["provenance"], self.found["provenance"], ("shape", "device", "plan")) is None:
                self.found["lives"].update({key: one for key, one in kept["lives"].items() if key not in self.own})


def _live(one: Life, setting: Setting, keeper: _Keeper, left_s: float) -> None:
    """One life, with the device's peak beside it; whatever goes wrong is a line in its record."""
    started, key = time.monotonic(), one.key
    one = one if setting.gpu else cases.rehearsed(one)
    log = Log(one, lambda kept: keeper.keep(key, kept))
    own = replace(setting, shape=one.shape or setting.shape, gpus=setting.gpus[: one.layout.gpus])
    with several.variables(own.gpus if setting.gpu else ()), device.Watch() as watch:
        try:
            if setting.gpu and one.layout.gpus > 1:
                device.idle(device.gpus())
            whole = tasks.WORKS[one.work](one, own, log, left_s)
        except several.Multicast as error:
            whole = False
            log.refuse(str(error))
        except KeyboardInterrupt:
            log.row("stopped", reason="interrupted")
            raise
        except ONE_LINE as error:
            whole = False
            log.row("failed", reason=str(error))
            if said := re.search(r"log: (/\S+)$", str(error)):
                session.collect(one.key, Path(said.group(1)))
        except Exception as error:  # noqa: BLE001 - one engine's crash must not cost the others' figures
            whole = False
            log.row("failed", reason=f"{type(error).__name__}: {error}")
        session.settle(watch.nvml, watch.start)
    log.note(
        complete=bool(whole), peak_device_bytes=watch.peak_bytes, seconds=round(time.monotonic() - started, 1),
        date=records.provenance()["date"], gpus=one.layout.gpus, **_source(one.engine),
        **({"shape": own.shape, "each_peak_bytes": watch.each_peak_bytes} if one.shape else {}),
    )  # fmt: skip
    said = "done" if whole else "; ".join(log.found["failed"]) or "not whole"
    print(f"{one.key}: {said}, {len(log.found['rows'])} rows in {time.monotonic() - started:.0f} s", flush=True)


def _source(engine: str) -> dict[str, str]:
    """What llama.cpp's programs were compiled from, where they do not know it themselves and a file says it."""
    said = llama_cpp.compiled_from() if engine == "llama-cpp" else None
    return {"compiled_from": said} if said else {}


def check(setting: Setting, wanted: Sequence[str] = ()) -> None:
    """Before anything starts: the shapes are known, the layouts exist, and on a GPU the GPUs will do."""
    needed = random_model.weights_bytes(setting.shape)
    for one in (one for run_name in wanted for one in cases.RUNS[run_name]() if one.shape):
        parallelism.share(one.shape, one.layout)
    if setting.gpu:
        with several.variables(setting.gpus):  # another run may be at work on the others
            for found in device.gpus():
                device.check(found, needed)
