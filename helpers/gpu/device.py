"""The GPU: whether it will do, and what it holds now.

In a container NVML names processes by the host's ids, so that none of ours is found there: then the
device's own change since a baseline is what is given, and ``how`` says so.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from helpers import machine
from helpers.weights import sizes

LEAST_CAPABILITY = 8.0  # Ampere: bf16
LEAST_DRIVER = 525  # CUDA 12; torch's CUDA 13 builds need 580
POLL_S = 0.2  # in the process that measures: seldom
FOR_ENGINE = 0.85  # of the memory: weights, context and buffers must fit, and some users


class DeviceError(RuntimeError):
    """No GPU that will do: the thing, the reason, the next step."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU, as nvidia-smi describes it."""

    name: str
    capability: float
    driver: str
    total_bytes: int
    free_bytes: int


def gpu() -> Gpu:
    """The first GPU; :class:`DeviceError` if there is none that answers."""
    if not machine.has_gpu():
        raise DeviceError("no NVIDIA GPU here (there is no nvidia-smi): take a machine with one, or --device cpu to rehearse")
    said = [machine.gpus(name) for name in ("name", "compute_cap", "driver_version", "memory.total", "memory.free")]
    try:
        name, capability, driver, total, free = (values[0].strip() for values in said)
        return Gpu(name, float(capability), driver, int(total) * sizes.MIB, int(free) * sizes.MIB)
    except (IndexError, ValueError):
        answer = " / ".join(" ".join(values) for values in said)[:120]
        raise DeviceError(f"nvidia-smi names no GPU ({answer or 'it says nothing'}): is the driver loaded?") from None


def check(found: Gpu, weights_bytes: int) -> Gpu:
    """``found`` if the runs can be made on it; :class:`DeviceError` in one line if not."""
    if found.capability < LEAST_CAPABILITY:
        raise DeviceError(f"{found.name} has compute capability {found.capability}: 8.0 (Ampere) or newer is needed for bf16")
    if (major := re.match(r"\d+", found.driver)) and int(major.group()) < LEAST_DRIVER:
        raise DeviceError(f"{found.name} has driver {found.driver}: {LEAST_DRIVER} or newer is needed for CUDA 12; update it")
    if weights_bytes > FOR_ENGINE * found.free_bytes:
        gib = f"{weights_bytes / sizes.GIB:.1f} GiB of weights"
        there = f"{found.free_bytes / sizes.GIB:.1f} of its {found.total_bytes / sizes.GIB:.1f} GiB are free"
        raise DeviceError(f"{gib} and a KV cache do not fit {found.name}: {there}; end other programs or take a smaller --shape")
    return found


@dataclass(frozen=True)
class Use:
    """Device memory in bytes, and how it was found out: of our processes, or the whole device's change."""

    bytes: int | None
    how: str


def _handle(nvml, first: str):
    """NVML counts all GPUs, whatever a process may use: the one that is ``first`` of those, by its number or its name."""
    return nvml.nvmlDeviceGetHandleByUUID(first) if first.startswith("GPU-") else nvml.nvmlDeviceGetHandleByIndex(int(first or 0))


class Nvml:
    """The first GPU that this process may use, through NVML; ``None`` figures, with a reason, where it cannot be asked."""

    def __init__(self):
        self.handle, self.reason = None, "no GPU"
        if not machine.has_gpu():
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml, self.handle = pynvml, _handle(pynvml, os.environ.get(machine.VISIBLE, "").split(",")[0].strip())
        except Exception as error:  # noqa: BLE001 - any failure of an optional reading is a reason, not an end
            self.reason = f"NVML cannot be asked: {error}"

    def used_bytes(self) -> int | None:
        """What the whole device holds now."""
        return None if self.handle is None else self.nvml.nvmlDeviceGetMemoryInfo(self.handle).used

    def of(self, pids: Iterable[int], baseline_bytes: int | None) -> Use:
        """What the processes ``pids`` hold; the device's change since ``baseline_bytes`` where NVML does not know them."""
        if self.handle is None or baseline_bytes is None:
            return Use(None, self.reason)
        with suppress(self.nvml.NVMLError):
            ours = set(pids)
            held = [p.usedGpuMemory for p in self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle) if p.pid in ours]
            if held and None not in held:
                return Use(sum(held), "NVML, our processes")
        return Use(self.used_bytes() - baseline_bytes, "NVML, the device's change: it does not know our process ids (container)")


class Watch:
    """The device's peak memory above its level at the start, polled while a ``with`` block runs."""

    def __init__(self):
        self.nvml = Nvml()
        self.start = self.peak = self.nvml.used_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            with suppress(Exception):
                self.peak = max(self.peak, self.nvml.used_bytes())

    def __enter__(self) -> Watch:
        if self.start is not None:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def peak_bytes(self) -> int | None:
        """The highest level seen, less that at the start; ``None`` where there is no GPU."""
        return None if self.start is None else self.peak - self.start
