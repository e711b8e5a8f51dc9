"""The GPUs: whether they will do, what they hold, take and send now.

In a container NVML names processes by the host's ids, so that none of ours is found there: then the
device's own change since a baseline is what is given, and ``how`` says so.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from helpers import machine
from helpers.bench.energy import gpu_handle
from helpers.weights import sizes

LEAST_CAPABILITY = 8.0  # Ampere: bf16
LEAST_DRIVER = 525  # CUDA 12; torch's CUDA 13 builds need 580
POLL_S = 0.2  # in the process that measures: seldom
FOR_ENGINE = 0.85  # of the memory: weights, context and buffers must fit, and some users


class DeviceError(RuntimeError):
    """No GPU that will do: the thing, the reason, the next step."""


NVLINK_SENT, ALL_LINKS = 138, 0xFFFFFFFF  # NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, and its scope; KiB
IDLE_BYTES = 2 * sizes.GIB  # a GPU that holds more is at work for somebody


@dataclass(frozen=True)
class Gpu:
    """A GPU, as nvidia-smi describes it."""

    name: str
    capability: float
    driver: str
    total_bytes: int
    free_bytes: int


def gpus() -> list[Gpu]:
    """The GPUs that this process may use; :class:`DeviceError` if there is none that answers."""
    if not machine.has_gpu():
        raise DeviceError("no NVIDIA GPU here (there is no nvidia-smi): take a machine with one, or --device cpu to rehearse")
    said = [machine.gpus(name) for name in ("name", "compute_cap", "driver_version", "memory.total", "memory.free")]
    try:
        found = [
            Gpu(name, float(capability), driver, int(total) * sizes.MIB, int(free) * sizes.MIB)
            for name, capability, driver, total, free in zip(*([value.strip() for value in values] for values in said))
        ]
    except ValueError:
        found = []
    if not found:
        answer = " / ".join(" ".join(values) for values in said)[:120]
        raise DeviceError(f"nvidia-smi names no GPU ({answer or 'it says nothing'}): is the driver loaded?")
    return found


def gpu() -> Gpu:
    """The first GPU; :class:`DeviceError` if there is none that answers."""
    return gpus()[0]


def idle(several: Sequence[Gpu]) -> None:
    """:class:`DeviceError` in one line if another program uses one of ``several``: all wait for the slowest."""
    for number, one in enumerate(several):
        if (held := one.total_bytes - one.free_bytes) > IDLE_BYTES:
            taken = f"GPU {number} of {len(several)} is in use, {held / sizes.GIB:.1f} GiB are taken"
            raise DeviceError(f"{taken}: end that program or leave it out (--gpus)")


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


class Nvml:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names, else the first, through NVML.

    ``None`` figures, with a reason, where they cannot be asked.
    """

    def __init__(self):
        self.handles, self.reason = [], "no GPU"
        if not machine.has_gpu():
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            named = [one.strip() for one in os.environ.get(machine.VISIBLE, "").split(",")]
            self.nvml, self.handles = pynvml, [gpu_handle(pynvml, one) for one in named]
        except Exception as error:  # noqa: BLE001 - any failure of an optional reading is a reason, not an end
            self.reason = f"NVML cannot be asked: {error}"

    def each_bytes(self) -> list[int]:
        """What each device holds now."""
        return [self.nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self.handles]

    def used_bytes(self) -> int | None:
        """What the devices hold now, together."""
        return sum(self.each_bytes()) if self.handles else None

    def joules(self) -> float | None:
        """What the whole cards have taken since the driver was loaded, together; ``None`` where they do not count it."""
        with suppress(Exception):
            return sum(map(self.nvml.nvmlDeviceGetTotalEnergyConsumption, self.handles)) / 1000 if self.handles else None

    def joules_since(self, before: float | None) -> float | None:
        """What the whole cards have taken since :meth:`joules` said ``before``; ``None`` where one of the two is not known."""
        now = self.joules()
        return None if before is None or now is None else now - before

    def nvlink_bytes(self) -> int | None:
        """What the devices have sent over NVLink, together; ``None`` where they do not count it."""
        with suppress(Exception):
            said = [self.nvml.nvmlDeviceGetFieldValues(handle, [(NVLINK_SENT, ALL_LINKS)])[0] for handle in self.handles]
            if said and not any(one.nvmlReturn for one in said):
                return sum(one.value.ullVal for one in said) * 1024

    def of(self, pids: Iterable[int], baseline_bytes: int | None) -> Use:
        """What the processes ``pids`` hold; the device's change since ``baseline_bytes`` where NVML does not know them."""
        if not self.handles or baseline_bytes is None:
            return Use(None, self.reason)
        with suppress(self.nvml.NVMLError):
            ours, running = set(pids), map(self.nvml.nvmlDeviceGetComputeRunningProcesses, self.handles)
            held = [process.usedGpuMemory for several in running for process in several if process.pid in ours]
            if held and None not in held:
                return Use(sum(held), "NVML, our processes")
        return Use(self.used_bytes() - baseline_bytes, "NVML, the device's change: it does not know our process ids (container)")


class Watch:
    """The devices' peak memory above their level at the start, polled while a ``with`` block runs."""

    def __init__(self):
        self.nvml = Nvml()
        self.before = self.nvml.each_bytes()
        self.peaks, self.start = list(self.before), self.nvml.used_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            with suppress(Exception):
                self.peaks = [max(peak, now) for peak, now in zip(self.peaks, self.nvml.each_bytes())]

    def __enter__(self) -> Watch:
        if self.start is not None:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def each_peak_bytes(self) -> list[int]:
        """Of each GPU, the highest level seen, less that at the start."""
        return [peak - before for peak, before in zip(self.peaks, self.before)]

    @property
    def peak_bytes(self) -> int | None:
        """That of the fullest GPU; ``None`` where there is no GPU."""
        return max(self.each_peak_bytes, default=None)
