"""This computer: its processor, its cores and GPUs, and its name in a record."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess

import psutil

VISIBLE = "CUDA_VISIBLE_DEVICES"  # the GPUs a process may use: what every engine goes by, and so do we
SIMD = re.compile(r"(sse4|ssse3|avx|fma|f16c|amx|asimd|sve|i8mm|bf16)\w*")


def facts() -> dict:
    """This machine: processor, cores and GPUs that this process may use, memory, system."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_flags": _cpu_flags(),
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


def _cpu_flags() -> list[str]:
    """The processor's SIMD instruction sets: they decide which kernels an engine takes."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return []
    return sorted(flag for flag in flags if SIMD.fullmatch(flag))


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
    seen = psutil.cpu_times_percent(interval_s)
    stolen = getattr(seen, "steal", 0.0)
    return (100 - seen.idle - getattr(seen, "iowait", 0.0) - stolen) / 100, stolen / 100


def compute_capability() -> str | None:
    """The first GPU's, such as ``9.0``; ``None`` without one."""
    return next(iter(gpus("compute_cap")), None)
