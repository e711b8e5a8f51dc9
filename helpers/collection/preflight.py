"""The pre-flight, `nox -s check`: what this machine lacks, what to do about it, and how long everything takes here.

It runs before anything is installed, so it needs nothing but Python; what nox knows, pins and environments, is handed to it.
Every look is a function that returns a :class:`Finding`; the probe of speed is :func:`helpers.machine.usual_slowness`.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helpers import machine
from helpers.collection import timetable

GOOD, LESS, BROKEN = "good", "less", "broken"  # "less": the tour runs, slower or with less of it
OLDEST, TESTED = (3, 11), ((3, 11), (3, 12))
GET_COMPILER = "install one (Debian: apt install g++, macOS: xcode-select --install) and run this again"
PROGRAM = '#include <thread>\n#include <filesystem>\nint main() { return !std::filesystem::exists("."); }\n'
MODEL_FILES_GB, MODEL_FILES_MINUTES = 0.7, 1
LIGHT_GIB, ALL_GIB = 6, 12  # of memory, without and with the heavy frameworks
PLAN_CORES = 2  # of the machine whose minutes all plans have
NOTABLE = 0.1  # of a core: a program that takes less is not named
JUPYTER_PORT = 8888
ASK_S, DOWNLOAD_S = 15, 20  # pip, for a small package and for one that tells the speed
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Finding:
    """What was looked at (``what``), how it is, and what to do, in one line; nothing is to be done where it is good."""

    what: str
    state: str
    says: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.what:10}{self.says}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Part:
    """A part of the set-up that is not there yet: its size on disk, its minutes on two idle cores with a fast network."""

    title: str
    gb: float
    minutes: float
    compiled: bool = False
    heavy: bool = False


MODEL_FILES = Part("Model files", MODEL_FILES_GB, MODEL_FILES_MINUTES)


def python(version: Sequence[int] = sys.version_info) -> Finding:
    """Whether this Python is new enough, and one of those that were tried."""
    says = ".".join(map(str, version[:3]))
    if tuple(version[:2]) < OLDEST:
        return Finding("Python", BROKEN, f"{says} is too old", "run nox with Python 3.11 or 3.12")
    if tuple(version[:2]) not in TESTED:
        return Finding("Python", LESS, f"{says} was not tried", "if a package is not found for it, run nox with 3.11 or 3.12")
    return Finding("Python", GOOD, says)


def compiler_command() -> list[str] | None:
    """The C++ compiler: the one that CXX names, else one by the names that CMake looks for; ``None`` without one."""
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        return named if shutil.which(named[0]) else None
    return next(([name] for name in ("c++", "g++", "clang++", "cl") if shutil.which(name)), None)


def compiler(parts: Iterable[Part]) -> Finding:
    """Whether what has to be compiled here can be: a small program is."""
    needed = [part.title for part in parts if part.compiled]
    if not needed:
        return Finding("compiler", GOOD, "nothing is to be compiled")
    without = f"{' and '.join(needed)} will be left out"
    command = compiler_command()
    if not command:
        return Finding("compiler", LESS, f"there is no C++ compiler, {without}", GET_COMPILER)
    if reason := _cannot_compile(command):
        return Finding("compiler", LESS, f"{command[0]} cannot compile a small program ({reason}), {without}", GET_COMPILER)
    return Finding("compiler", GOOD, command[0])


def _cannot_compile(command: Sequence[str]) -> str | None:
    """Why ``command`` makes no program, in its own words, or ``None``."""
    if Path(command[0]).stem == "cl":  # other options; it comes with all it needs
        return None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "small.cpp"
        source.write_text(PROGRAM)
        made = [*command, "-std=c++17", str(source), "-o", str(Path(folder) / "small")]
        ran = subprocess.run(made, capture_output=True, text=True, errors="replace")
    lines = [line.removeprefix(f"{source}:") for line in ran.stderr.splitlines() if "error" in line]
    return (lines or [f"it ended with {ran.returncode}"])[0] if ran.returncode else None


def disk(parts: Iterable[Part], repository: Path, cache: Path) -> Finding:
    """Whether the environments fit into ``repository`` and the model files into ``cache``, and both may be written."""
    for folder in (repository, cache):
        if not os.access(_existing(folder), os.W_OK):
            remedy = (
                "copy the collection to a folder of yours" if folder == repository else "set XDG_CACHE_HOME to a folder of yours"
            )
            return Finding("disk", BROKEN, f"{folder} cannot be written to", remedy)
    needed_gb = sum(part.gb for part in parts)
    free_gb = min(shutil.disk_usage(_existing(folder)).free for folder in (repository, cache)) / 1e9
    says = f"{free_gb:.0f} GB free, {needed_gb:.1f} GB will be used"
    if free_gb < needed_gb:
        return Finding("disk", BROKEN, says, "free some, or take less: nox -s tour -- transformers llama-cpp")
    return Finding("disk", GOOD, says)


def cache_folder() -> Path:
    """The user's folder for caches, in which model files and downloads are kept."""
    usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or usual).expanduser()


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest folder above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def memory(heavy: bool) -> Finding:
    """Whether there is memory for the engines, ``heavy`` ones included: what is free now, within a container's limit."""
    needed, (total, free) = ALL_GIB if heavy else LIGHT_GIB, memory_gib()
    if total is None:
        return Finding("memory", LESS, "this system does not say how much there is", f"see that there are {needed} GiB")
    says = f"{total:.1f} GiB, {free:.1f} of them free, {needed} are wanted"
    if total < needed:
        fewer = "take fewer frameworks: nox -s tour -- transformers llama-cpp" if heavy else "take one: nox -s tour -- llama-cpp"
        return Finding("memory", LESS, says, fewer)
    return Finding("memory", LESS, says, "close other programs") if free < needed else Finding("memory", GOOD, says)


def memory_gib(meminfo: Path = Path("/proc/meminfo"), limits: Iterable[str] = CGROUP_LIMITS) -> tuple[float | None, float | None]:
    """Memory in all and free, in GiB, no more than a container may take; ``None`` where the system does not say."""
    try:
        lines = (line.split() for line in meminfo.read_text().splitlines())
        kib = {words[0].rstrip(":"): int(words[1]) for words in lines}
        total, free = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    except (OSError, LookupError, ValueError):
        try:
            total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None, None
    for limit in limits:
        with suppress(OSError, ValueError):  # no such file, or "max"
            total = min(total, int(Path(limit).read_text()))
    return total / 2**30, min(total, free) / 2**30


def cores(busy: dict[str, float] | None = None) -> Finding:
    """How many cores this process may use, and what else uses them now: ``busy``, cores by program."""
    count, busy = machine.cores(), busiest() if busy is None else busy
    says, used = f"{count} may be used", sum(busy.values())
    if busy:
        says += ", others use " + ", ".join(f"{share:.1f} ({name})" for name, share in busy.items())
    if used > machine.BUSY * count:
        return Finding("cores", LESS, says, "end them: measurements are disturbed, and everything takes longer")
    return Finding("cores", LESS, says, "use a machine with two or more") if count < 2 else Finding("cores", GOOD, says)


def processor() -> Finding:
    """Whether the frameworks that multiply bf16 have instructions for it, where no GPU does their work."""
    if machine.multiplies_bf16():
        return Finding("processor", GOOD, "it, or a GPU, has instructions for bf16")
    remedy = "expect Transformers, vLLM and SGLang to be a few times slower than on the notebooks' pages, llama.cpp less so"
    return Finding("processor", LESS, "has no instructions for bf16 (AVX-512 or Arm's BF16)", remedy)


def busiest(interval_s: float = 0.5) -> dict[str, float]:
    """The other programs that use a core now, most first: their share of one; nothing where there is no /proc."""
    before = _ticks()
    time.sleep(interval_s)
    used: Counter[str] = Counter()
    for process, ticks in _ticks().items():
        used[process[1]] += ticks - before.get(process, ticks)
    per_s = os.sysconf("SC_CLK_TCK") * interval_s if hasattr(os, "sysconf") else 1
    return {name: ticks / per_s for name, ticks in used.most_common(3) if ticks / per_s >= NOTABLE}


def _ticks() -> dict[tuple[str, str], int]:
    """Clock ticks that each other process has used, by number and name."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, LookupError, ValueError):  # it has ended meanwhile
            before, _, after = file.read_text().rpartition(")")
            if file.parent.name != str(os.getpid()):
                found[file.parent.name, before.partition("(")[2]] = sum(map(int, after.split()[11:13]))
    return found


def ports() -> Finding:
    """Whether servers on this machine can be started and reached: they take free ports of 127.0.0.1."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding(
            "ports", BROKEN, f"127.0.0.1 cannot be used ({error.strerror or error})", "allow connections to it in the firewall"
        )
    if through := _proxied():
        return Finding("ports", LESS, f"{through} sends even 127.0.0.1 to a proxy", "export NO_PROXY=127.0.0.1,localhost")
    try:
        socket.create_server(("127.0.0.1", JUPYTER_PORT)).close()
    except OSError:
        return Finding("ports", GOOD, f"free ones are taken; {JUPYTER_PORT} is in use, so JupyterLab takes the next one")
    return Finding("ports", GOOD, "free ones of 127.0.0.1 are taken")


def _proxied() -> str | None:
    """The variable by which a program here would ask a proxy for 127.0.0.1, or ``None``."""
    if not urllib.request.getproxies_environment().get("http") or urllib.request.proxy_bypass_environment("127.0.0.1"):
        return None
    return next((name for name in ("http_proxy", "HTTP_PROXY") if os.environ.get(name)), "the proxy setting")


def index(small: str, large: str, not_asked: str = "") -> tuple[Finding, float | None]:
    """Whether pip's configured index answers, asked for two pins; with it megabytes per second, ``None`` if not known.

    ``not_asked``: why it need not be.
    """
    if not_asked:
        return Finding("index", GOOD, f"not asked: {not_asked}"), None
    failed, _, _ = _fetch(small, ASK_S)
    if failed:
        remedy = "connect, set pip's index-url, or bring a folder: nox -s tour -- --from FOLDER"
        return Finding("index", BROKEN, f"pip gets no {small} ({failed})", remedy), None
    failed, size, seconds = _fetch(large, DOWNLOAD_S)
    if failed:
        return Finding(
            "index", LESS, f"it answers, but {large} did not come ({failed})", "expect a long set-up, or bring a folder"
        ), None
    return Finding("index", GOOD, f"it answers; {size / 1e6:.0f} MB came in {seconds:.1f} s"), size / 1e6 / seconds


def _fetch(pin: str, limit_s: float) -> tuple[str | None, int, float]:
    """Download ``pin`` with pip, past its cache: why it failed, the bytes, the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--retries=0", "--quiet"]
        started = time.monotonic()
        try:
            ran = subprocess.run(
                [sys.executable, "-m", "pip", "download", *options, "--dest", folder, pin],
                capture_output=True, text=True, errors="replace", timeout=limit_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"nothing within {limit_s:.0f} s", 0, limit_s
        seconds = time.monotonic() - started
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return (_last_error(ran.stderr) if ran.returncode else None), size, seconds


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "ERROR" in line), (lines or ["it said nothing"])[-1])


def gpu() -> Finding:
    """The NVIDIA GPUs and their driver. Without one everything runs but the cells for a GPU."""
    if not machine.has_gpu():
        return Finding("GPU", GOOD, "none: cells that need one are left out, their figures are shown from records")
    names = machine.gpus("name")
    if not names or "failed" in names[0].lower():
        says = f"nvidia-smi names no GPU ({(names or ['it says nothing'])[0]})"
        return Finding("GPU", BROKEN, says, "install the NVIDIA driver, or take nvidia-smi out of PATH")
    return Finding("GPU", GOOD, f"{', '.join(names)}, driver {machine.gpus('driver_version')[0]}")


def look(parts: Sequence[Part], repository: Path, heavy: bool) -> list[Finding]:
    """What this machine has for ``parts``, which belong into ``repository``; ``heavy``: with the heavy frameworks."""
    room = disk(parts, repository, cache_folder())
    return [python(), compiler(parts), room, memory(heavy), cores(), processor(), ports(), gpu()]


def forecast(parts: Sequence[Part], mb_per_s: float | None, slowness: float | None = None) -> list[str]:
    """Lines with the minutes that this machine will take; by default it is probed for its ``slowness``, for ten seconds."""
    slowness = machine.usual_slowness() if slowness is None else slowness
    count = machine.cores()
    took = setup_minutes(parts, slowness, count, mb_per_s)
    each = ", ".join(f"{title} {minutes}" for title, minutes in took.items()) or "everything is there"
    head = f"minutes here, with {count} cores, {slowness:.1f} times as slow as the two idle ones of the plan:"
    return [head, f"  {'set-up':16}{sum(took.values()):4}  ({each})", *map(_path_line, timetable.ways(slowness))]


def _path_line(way: timetable.Way) -> str:
    """A path: its minutes here, and those that there are for it where that is too much."""
    ran = sum(part.run for part in way.parts)
    more = f", more than its {way.available}: leave notebooks out" if way.minutes > way.available else ""
    return f"  {way.name:16}{way.minutes:4}  ({ran} of them notebooks that run{more})"


def setup_minutes(parts: Iterable[Part], slowness: float, cores: int, mb_per_s: float | None) -> dict[str, int]:
    """Minutes that each part takes here, rounded up: its plan times ``slowness``, a compilation divided over the cores.

    Where the network is slower than that, no more than its size on disk needs; a wheel is smaller than what is in it.
    """
    found = {}
    for part in parts:
        work = part.minutes * slowness * (PLAN_CORES / cores if part.compiled else 1)
        download = part.gb * 1000 / mb_per_s / 60 if mb_per_s else 0
        found[part.title] = math.ceil(max(work, download))
    return found


def verdict(findings: Iterable[Finding]) -> tuple[str, bool]:
    """The last line, and whether something is broken."""
    broken = [finding.what for finding in findings if finding.state == BROKEN]
    if broken:
        return f"broken: {', '.join(broken)}; what to do stands behind it", True
    less = [finding.what for finding in findings if finding.state == LESS]
    return f"nothing is broken{', less than wanted: ' + ', '.join(less) if less else ''}", False
