"""One start of one engine: what it did, kept row by row, and its processes ended.

A life that fails or is cut off leaves the rows it had and one line with the reason.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import kernels, paths
from helpers.gpu import cases, device, random_files, random_model, several, variants
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.servers import engines, guard, install, llama_cpp, serving, sglang
from helpers.servers.engine import Engine
from helpers.weights import models, sizes

SETTLED_BYTES = 2**30  # a GPU that holds no more than this above the level before is free again
SETTLE_S = 15
FOLDERS = re.compile(r"/(?:[\w.+-]+/)+")
TAIL_CHARACTERS = 6000
logs: Path | None = None  # where the ends of engines' logs are collected, if anywhere
SPARE_TOKENS = 32  # SGLang ends an answer two tokens before its context is full


@dataclass(frozen=True)
class Setting:
    """What holds for all lives of a run; a life with a shape of its own has this one's for as long as it runs."""

    shape: str
    device: str  # "cuda" or "cpu"
    users: tuple[int, ...] = (1, 10, 100)
    repeats: int = 3
    gpus: tuple[str, ...] = ("0",)  # those to use, as CUDA_VISIBLE_DEVICES names them; a rehearsal counts them only

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"


def without_folders(text: str) -> str:
    """``text`` in one line, without the folders of this machine: no record has them."""
    return FOLDERS.sub("", " ".join(text.split()))[:300]


def collect(title: str, log: Path) -> None:
    """Add the end of ``log`` to the collected ones: it is gone when the process is."""
    if logs is not None and log.exists():
        with logs.open("a") as file:
            file.write(f"\n##### {title}\n{log.read_text(errors='replace')[-TAIL_CHARACTERS:]}\n")


class Log:
    """What is kept of a life while it runs: ``keep`` is called after every row."""

    def __init__(self, life: cases.Life, keep: Callable[[dict], None]):
        self.found: dict = {
            "engine": life.engine, "work": life.work, "option": life.option, "given": dict(life.given),
            "rows": [], "failed": [], "complete": False,
        }  # fmt: skip
        self._keep = keep

    def row(self, kind: str, **fields) -> None:
        """Keep a figure, or a reason why there is none (``failed``, ``stopped``)."""
        if kind in ("failed", "stopped"):
            self.found["failed"].append(f"{kind}: {without_folders(fields['reason'])}")
        else:
            self.found["rows"].append({"kind": kind, **fields})
        self._keep(self.found)

    def refuse(self, reason: str) -> None:
        """Keep no figure of this life, only why."""
        self.found["rows"] = []
        self.row("failed", reason=reason)

    def note(self, **fields) -> None:
        """Keep something about the life itself: its arguments, its versions."""
        self.found.update(fields)
        self._keep(self.found)


def environment(kernel: str) -> dict[str, str]:
    """What an engine's process is started with: its kernelspec's variables, and the way to this collection."""
    env = kernels.process_environment(kernel)
    return env | {"PYTHONPATH": os.pathsep.join(filter(None, (env.get("PYTHONPATH"), str(paths.REPOSITORY))))}


@contextmanager
def guarded(command: list[str], kernel: str) -> Iterator[guard.Guarded]:
    """Run ``command`` in ``kernel``'s environment under guard; the end of its log is collected."""
    how = {"name": "gpu", "meets_by": sglang.STORE_VARIABLE, "cwd": paths.REPOSITORY}
    with guard.guarded(command, environment(kernel), **how) as running:
        try:
            yield running
        finally:
            guard.end(running.process)  # its last words belong to the log
            collect(" ".join(command[1:4]), running.log)


def run_job(kernel: str, job: dict, log: Log, left_s: float, module: str = "helpers.gpu.work.offline") -> bool:
    """Run ``module`` on ``job``, its rows into ``log``; whether it came to its end within ``left_s``. Nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="gpu-job-") as folder:
        rows, file = Path(folder) / "rows", Path(folder) / "job.json"
        rows.touch()
        file.write_text(json.dumps({**job, "rows": str(rows), "left_s": left_s}))
        command = [kernels.interpreter(kernel), "-m", module, str(file)]
        with guarded(command, kernel) as running:
            return _follow(running, rows, log, time.monotonic() + left_s)


def _follow(running: guard.Guarded, rows: Path, log: Log, end: float) -> bool:
    """Take up each line as it is written, until the job says it is done, ends by itself, or the time is over.

    The engine's log is read beside it: :class:`~helpers.gpu.several.Multicast` ends the job in the middle.
    """
    done, check = False, several.LogCheck(running.log)
    with rows.open() as lines:
        while True:
            ended = running.process.poll() is not None
            check()
            while line := lines.readline():
                row = json.loads(line)
                done |= row["kind"] in ("done", "failed")
                if row["kind"] != "done":
                    log.row(**row)
            if done:
                check()
                if check.said:
                    log.note(all_reduce=check.said)
                return row["kind"] == "done"
            if ended:
                log.row("failed", reason=f"it ended by itself: {running.reason()}")
                return False
            if time.monotonic() > end:
                log.row("stopped", reason="the time was over")
                return False
            time.sleep(0.1)


def settle(nvml: device.Nvml, level_bytes: int | None) -> None:
    """Wait until the GPU has given back what an engine held; some seconds at the most."""
    end = time.monotonic() + SETTLE_S
    while level_bytes is not None and nvml.used_bytes() > level_bytes + SETTLED_BYTES and time.monotonic() < end:
        time.sleep(0.2)


def where(life: Life, setting: Setting) -> variants.Setup:
    """What the engine of ``life`` is told."""
    context, slots = life.given.get("context", 128 + 128 + SPARE_TOKENS), life.given.get("slots", variants.SLOTS)
    per_token = sizes.kv_bytes_per_token(models.shape(random_model.model(setting.shape, "safetensors")))
    slots = max(slots if setting.gpu else 1, *setting.users)
    given = {"random": not life.given.get("files"), "pool": life.given.get("pool", 0)}
    return variants.Setup(setting.gpu, context, slots, per_token, layout=life.layout, **given)


def versions(engine: str) -> dict:
    """The versions of ``engine``'s packages; TensorRT-LLM is no entry of :mod:`helpers.servers.engines`."""
    if engine in engines.ENGINES:
        return install.versions(engines.get(engine))
    return install.versions_in(engine, ("tensorrt_llm", "torch"))


@contextmanager
def started(
    life: Life,
    setting: Setting,
    log: Log,
    left_s: float,
    *,
    extra: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[serving.Server]:
    """The server of ``life``, with what it says of its memory; ``extra`` options and ``variables`` of its process are added."""
    engine, level = told(life, setting, extra, variables), Nvml().used_bytes()
    with serving.serve(engine, model(life, setting), **sizes_of(life, setting), timeout_s=left_s) as server:
        note_start(life, log, [server], level)
        yield server


def told(life: Life, setting: Setting, extra: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> Engine:
    """The engine of ``life``, its server started as the life says, with ``extra`` options and ``variables`` beside."""
    more = ("-lv", llama_cpp.KV_CACHE_VERBOSITY) if life.given.get("tell_pool") and _is_binary(life.engine) else ()
    engine = with_options(variants.server(life.engine, life.option, where(life, setting)), (*extra, *more))
    return with_variables(engine, variables) if variables else engine


def sizes_of(life: Life, setting: Setting) -> dict[str, int]:
    """The slots and the context of the server of ``life``."""
    return {"slots": max(setting.users), "context": where(life, setting).context}


def note_start(life: Life, log: Log, servers: Sequence[serving.Server], level: int | None) -> None:
    """Their logs are looked at; the arguments, the versions, how long each took, and what all hold above ``level``.

    Of several copies ``copy`` is the number, and the arguments are those of the first.
    """
    for server in servers:
        several.LogCheck(server.log)()
    log.note(arguments=list(servers[0].arguments), versions=versions(life.engine))
    for number, server in enumerate(servers):
        log.row("loaded", seconds=server.startup_s, **({"copy": number} if len(servers) > 1 else {}))
    log.row("device", **vars(Nvml().of((p.pid for one in servers for p in one.processes()), level)), when="started")


def model(life: Life, setting: Setting) -> models.Model:
    """What the server of ``life`` loads: a GGUF file, a folder for which it makes its values up, or one that has them."""
    if life.engine == "llama-cpp":
        return random_model.model(setting.shape, life.option.partition(",")[0])
    if life.given.get("files"):
        return models.Model(f"random-{setting.shape}", "folder", random_files.folder(setting.shape))
    return random_model.model(setting.shape, "safetensors")


def with_options(engine: Engine, more: Sequence[str]) -> Engine:
    """``engine`` started with ``more`` options behind its own."""
    return replace(engine, command=lambda start: [*engine.command(start), *more]) if more else engine


def with_variables(engine: Engine, variables: Mapping[str, str]) -> Engine:
    """``engine`` started with ``variables``, which win over its kernelspec's."""
    given = [f"{name}={value}" for name, value in variables.items()]
    return replace(engine, command=lambda start: ["env", *given, *engine.command(start)])


def _is_binary(engine: str) -> bool:
    return engine == "llama-cpp" and bool(llama_cpp.named_binaries())
