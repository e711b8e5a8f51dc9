"""Joules per output token, where this machine counts them: its GPUs' counters (NVML), its processors' (RAPL).

Both count a whole device, whoever uses it. They are read right before and right after each repeat, if the endpoint is on
loopback; through a tunnel the counters would be those of the wrong machine. NVML counts millijoules since its driver was
loaded (from Volta on), RAPL microjoules up to ``max_energy_range_uj``, then from 0 again (Linux, *power capping framework*);
a repeat in which it comes round twice cannot be told from one in which it did once.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from helpers import machine
from helpers.bench import timing
from helpers.bench.timing import Level, Sample
from helpers.formatting import told

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """A device that counts what it has taken: ``joules()`` since some time, up to ``range_joules``, then from 0 again."""

    device: str
    joules: Callable[[], float]
    range_joules: float | None = None  # None: it never comes round

    def between(self, before: float, after: float) -> float | None:
        """What it took; ``None`` where it was set back and nobody knows how far it counts."""
        if after >= before:
            return after - before
        return None if self.range_joules is None else after - before + self.range_joules


def gpu_handle(nvml, one: str):
    """NVML counts all GPUs, whatever a process may use: ``one`` of those, by its number or its name."""
    return nvml.nvmlDeviceGetHandleByUUID(one) if one.startswith("GPU-") else nvml.nvmlDeviceGetHandleByIndex(int(one or 0))


def gpus() -> tuple[list[Counter], str | None]:
    """The counters of the GPUs that ``CUDA_VISIBLE_DEVICES`` names, else of all; and why one is not there."""
    if not machine.has_gpu():
        return [], "no GPU"
    try:
        import pynvml
    except ImportError:
        return [], "GPUs: the library nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        named = [one.strip() for one in os.environ.get(machine.VISIBLE, "").split(",") if one.strip()] or map(str, range(count))
        return [_gpu(pynvml, one) for one in named], None
    except Exception as error:  # noqa: BLE001 - any failure of an optional reading is a reason, not an end
        return [], f"GPUs: NVML cannot be asked ({' '.join(str(error).split())})"


def _gpu(nvml, one: str) -> Counter:
    handle = gpu_handle(nvml, one)
    nvml.nvmlDeviceGetTotalEnergyConsumption(handle)  # one that has no counter says so here
    name = nvml.nvmlDeviceGetName(handle)
    name = name.decode() if isinstance(name, bytes) else name
    number = nvml.nvmlDeviceGetIndex(handle)
    return Counter(f"GPU {number} ({name})", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)


def processors(folder: Path) -> tuple[list[Counter], str | None]:
    """The counters of the processors' packages and their memory; and why there is none.

    Other zones (the cores, the whole platform) lie within these, or around them.
    """
    zones = sorted(zone for zone in folder.glob("intel-rapl:*") if (zone / "energy_uj").exists())  # AMD's have this name too
    try:
        named = [(zone, (zone / "name").read_text().strip()) for zone in zones]
        kept = [_processor(zone, name) for zone, name in named if name.startswith(("package", "dram"))]
    except (OSError, ValueError) as error:
        why = "by root alone" if isinstance(error, PermissionError) else f"by nobody ({error})"
        return [], f"processors: energy_uj in {folder} can be read {why}"
    return kept, None if kept else f"processors: {folder} has no counter of a package"


def _processor(zone: Path, name: str) -> Counter:
    def joules() -> float:
        return int((zone / "energy_uj").read_text()) / 1e6

    joules()  # one that may not be read says so here
    package = zone.name.split(":")[1]
    device = f"processor {name}" if name.startswith("package") else f"memory {name} of package {package}"
    return Counter(device, joules, int((zone / "max_energy_range_uj").read_text()) / 1e6)


def on_this_machine(base_url: str) -> bool:
    """Whether the endpoint's address is a loopback one."""
    host = urlsplit(base_url).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class Meter:
    """Reads the counters around each repeat; ``told`` says which there are, and why others are not."""

    def __init__(self, base_url: str, *, folder: Path | None = None):
        self.counters: list[Counter] = []
        self.took: dict[int | float, list[tuple[float | None, ...]]] = {}  # joules of each device, of each load's repeats
        if not on_this_machine(base_url):
            self.told = "not read: the endpoint is not on this machine's loopback"
            return
        reasons = []
        for found, reason in (gpus(), processors(folder or POWERCAP)):
            self.counters += found
            reasons += [reason] if reason else []
        devices = [f"{counter.device}, the whole device" for counter in self.counters]
        self.told = "; ".join([*devices, *reasons])

    @contextmanager
    def repeat(self, load: int | float) -> Iterator[None]:
        """A repeat under ``load`` is sent within this."""
        before = [_now(counter) for counter in self.counters]
        yield
        after = [_now(counter) for counter in self.counters]
        took = (None if a is None or b is None else counter.between(a, b) for counter, a, b in zip(self.counters, before, after))
        self.took.setdefault(load, []).append(tuple(took))

    def of(self, level: Level) -> dict | None:
        """What ``level`` took, see :func:`per_token`; ``None`` where nothing was read. What was kept of it goes."""
        took = self.took.pop(level.users or level.rate_per_s, ())
        if level.refused:
            return None
        devices = [counter.device for counter in self.counters]
        return per_token(devices, list(zip(level.blocks, took))) or None


def _now(counter: Counter) -> float | None:
    try:
        return counter.joules()
    except Exception:  # noqa: BLE001 - NVML's own errors, or a file that has gone: no figure of this repeat
        return None


def per_token(devices: Sequence[str], repeats: Sequence[tuple[Sequence[Sample], Sequence[float | None]]]) -> dict[str, dict]:
    """For each of ``devices``: ``joules`` of each repeat, and ``joules_per_output_token`` with its spread over them.

    The whole device's, whoever used it; tokens are those of requests that succeeded, if the server counted them.
    """
    found = {}
    for number, device in enumerate(devices):
        joules = [took[number] for _, took in repeats]
        figure = timing.figure(_each(block, one) for (block, _), one in zip(repeats, joules))
        if figure is not None:
            found[device] = {"scope": "whole device", "joules": joules, "joules_per_output_token": vars(figure)}
    return found


def _each(block: Sequence[Sample], joules: float | None) -> float | None:
    done = [s for s in block if s.error is None]
    tokens = sum(s.output_tokens or 0 for s in done)
    counted = all(s.token_source == "server_usage" for s in done)
    return joules / tokens if joules is not None and tokens and counted else None


def line(found: Mapping | None) -> str | None:
    """The same in words; ``None``: there is nothing to say."""
    if not found:
        return None
    said = (f"{told(of['joules_per_output_token'], '.3g')} of {device}, the whole device" for device, of in found.items())
    return f"energy, J per output token: {'; '.join(said)}"
