"""This computer: its processor, its cores and GPUs, and its name in a record.

psutil is imported where it is needed: the pre-flight asks for cores, GPUs and slowness before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

VISIBLE = "CUDA_VISIBLE_DEVICES"  # the GPUs a process may use: what every engine goes by, and so do we
BUSY = 0.25  # of the cores, used by others: from here on it is said
LOOP_CPU_S = 0.05  # of a core of the machine whose minutes the notebooks have, for the loop of `_core`
MOST_SLOWNESS = 10  # a hang must end
SIMD = re.compile(r"(sse4|ssse3|avx|fma|f16c|amx|asimd|sve|i8mm|bf16)\w*")


def facts() -> dict:
    """This machine: processor, cores and GPUs that this process may use, memory, system."""
    import psutil

    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_flags": cpu_flags(),
        "gpus": gpus("name"),
        "gpu_driver": next(iter(gpus("driver_version")), None),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def same(one: dict, other: dict) -> bool:
    """Whether two machines are alike in all that decides a figure on a GPU; the memory of some grows while they run."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores", "gpus", "gpu_driver", "system"))


def name(of: dict | None = None) -> str:
    """A folder's name for a machine: ``amd-epyc-2-cores``."""
    of = of or facts()
    return re.sub(r"[^a-z0-9]+", "-", f"{(of['gpus'] or [of['cpu']])[0]} {of['cores']} cores".lower()).strip("-")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """The processor's SIMD instruction sets: they decide which kernels an engine takes."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return []
    return sorted(flag for flag in flags if SIMD.fullmatch(flag))


def multiplies_bf16() -> bool:
    """Whether PyTorch has fast kernels for bf16 here: a GPU's, or oneDNN's, which need AVX-512 or Arm's BF16.

    Elsewhere (``torch.ops.mkldnn._is_mkldnn_bf16_supported()`` is false) it multiplies bf16 several times slower
    than float32.
    """
    return has_gpu() or not {"avx512bw", "bf16"}.isdisjoint(cpu_flags())


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be asked for work here."""
    return shutil.which("nvidia-smi") is not None


def gpus(field: str) -> list[str]:
    """``field`` of each NVIDIA GPU that :data:`VISIBLE` leaves, as nvidia-smi says it, without a unit; else none."""
    if not has_gpu():
        return []
    only = [f"--id={os.environ[VISIBLE]}"] if os.environ.get(VISIBLE) else []
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", *only]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()


def cores() -> int:
    """The cores this process may use: what every engine gets as its thread count."""
    return len(_affinity()) or os.cpu_count()


def bound_cores() -> str:
    """The same cores as a range, such as ``0-1``, for engines that bind their threads; ``auto`` where it is not known."""
    return f"{min(_affinity())}-{max(_affinity())}" if _affinity() else "auto"


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def others(interval_s: float = 1.0) -> tuple[float, float]:
    """The share of the cores that is in use now, and the share stolen by other guests of the host; this waits ``interval_s``."""
    import psutil

    seen = psutil.cpu_times_percent(interval_s)
    stolen = getattr(seen, "steal", 0.0)
    return (100 - seen.idle - getattr(seen, "iowait", 0.0) - stolen) / 100, stolen / 100


def busy_word(interval_s: float = 0.5) -> str | None:
    """What to say before a measurement or a long run if others use the cores now; this waits ``interval_s``."""
    used, stolen = others(interval_s)
    if used + stolen < BUSY:
        return None
    return (
        f"other programs use {used + stolen:.0%} of the cores: this takes longer, and its figures are those of a busy "
        "machine; end them for figures of an idle one"
    )


def load_slowness() -> float:
    """How many times longer work takes by the load of the last minute, 1 to :data:`MOST_SLOWNESS`; it costs nothing."""
    return min(MOST_SLOWNESS, 1 + os.getloadavg()[0] / cores())


def slowness() -> float:
    """How many times longer work takes now than on the idle machine of the notebooks' minutes, 1 to :data:`MOST_SLOWNESS`.

    Every core is given work at once, about 0.3 s: the slowest one counts, as for an engine whose threads wait for each
    other. What it lacks of its core, or of that machine's speed.
    """
    with ThreadPoolExecutor(cores()) as pool:
        waited = max(pool.map(lambda _: _wait_for_a_core(), range(cores())))
    return min(MOST_SLOWNESS, max(1.0, waited * max(1.0, _core_s() / LOOP_CPU_S), load_slowness()))


def usual_slowness(probes: int = 7, pause_s: float = 1.0) -> float:
    """The median of :func:`slowness` over some ten seconds: what a long run will meet, and not one moment of it."""
    found = [slowness()]
    for _ in range(probes - 1):
        time.sleep(pause_s)
        found.append(slowness())
    return statistics.median(found)


def _wait_for_a_core(least_s: float = 0.3) -> float:
    """Seconds for each second of a core that this thread gets. Hashing lets the other threads run."""
    block, started, used = bytes(2**20), time.perf_counter(), time.thread_time()
    while time.perf_counter() - started < least_s:
        hashlib.sha256(block).digest()
    return (time.perf_counter() - started) / (time.thread_time() - used)


@lru_cache
def _core_s() -> float:
    """CPU seconds of a loop in Python, the least of three."""

    def once() -> float:
        used, number = time.thread_time(), 0
        for step in range(1_000_000):
            number += step * step % 7
        return time.thread_time() - used

    return min(once() for _ in range(3))


def compute_capability() -> str | None:
    """The first GPU's, such as ``9.0``; ``None`` without one."""
    return next(iter(gpus("compute_cap")), None)
