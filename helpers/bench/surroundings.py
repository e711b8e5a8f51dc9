"""The machine that the client runs on while it measures: what else moves a figure.

A CPU governor that saves power can double a TTFT (ai-dynamo/aiperf, issue 1424); cores that a hypervisor takes away
(steal, proc_stat(5)) and a client that fills its core do the same. Read between the repeats, never during one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None

CPUS = Path("/sys/devices/system/cpu")
ALL = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # guests' time is in user's
TOLD = (ALL, ("idle", "iowait"), ("steal",))
STOLEN, CLIENT_CORES = 0.02, 0.9  # from here on it is said: a share of all cores, and cores


@dataclass(frozen=True)
class Moment:
    """Counters and states at one time."""

    at_s: float
    cpu_s: Mapping[str, float]  # of all cores since the start, by what they did
    client_s: float  # of this process
    load_average: float
    frequencies_mhz: tuple[float, ...]  # of each core; empty: not known


def now() -> Moment:
    """The state at this moment; about a millisecond."""
    own = psutil.Process().cpu_times()
    return Moment(
        time.perf_counter(), psutil.cpu_times()._asdict(), own.user + own.system, os.getloadavg()[0], _frequencies_mhz()
    )  # fmt: skip


def _frequencies_mhz() -> tuple[float, ...]:
    try:
        return tuple(core.current for core in psutil.cpu_freq(percpu=True) or ())
    except (OSError, NotImplementedError):  # a container, a virtual machine, another system
        return ()


def governors(folder: Path = CPUS) -> list[str]:
    """The CPU frequency governors of this machine's cores, each once; empty where there are none to choose."""
    try:
        return sorted({file.read_text().strip() for file in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")})
    except OSError:
        return []


def open_files() -> list[int] | None:
    """How many files this process may have open, and how many it could ask for; ``None``: no such limit."""
    return None if resource is None else list(resource.getrlimit(resource.RLIMIT_NOFILE))


def between(moments: Sequence[tuple[Moment, Moment]]) -> dict | None:
    """What happened on the machine within these spans, all together; ``None`` if there were none."""
    seconds = sum(after.at_s - before.at_s for before, after in moments)
    if not seconds:
        return None
    total, idle, stolen = (sum(_cpu_s(after, what) - _cpu_s(before, what) for before, after in moments) for what in TOLD)
    client = sum(after.client_s - before.client_s for before, after in moments)
    seen = [mhz for span in moments for moment in span for mhz in moment.frequencies_mhz]
    return {
        "governors": governors(),
        "frequency_mhz": [round(min(seen)), round(max(seen))] if seen else None,
        "load_average": [round(moments[0][0].load_average, 2), round(max(after.load_average for _, after in moments), 2)],
        "stolen_share": round(stolen / total, 4) if total else 0.0,
        "busy_share": round(1 - (idle + stolen) / total, 4) if total else 0.0,  # of all cores, the client's own among it
        "client_cores": round(client / seconds, 3),
        "open_files": open_files(),
    }


def _cpu_s(moment: Moment, names: Sequence[str]) -> float:
    return sum(moment.cpu_s.get(name, 0.0) for name in names)


def warnings(found: Mapping | None) -> list[str]:
    """What of it can have moved a figure, a line each, with what to do."""
    if not found:
        return []
    said = []
    if slow := [one for one in found["governors"] if one not in ("performance", "schedutil")]:
        said.append(f"the CPU governor is {', '.join(slow)}: it may double a TTFT; set performance")
    if found["stolen_share"] > STOLEN:
        said.append(f"{found['stolen_share']:.1%} of the cores were taken by other guests of the host (steal)")
    if found["client_cores"] > CLIENT_CORES:
        said.append(f"the client used {found['client_cores']:.2f} of a core: it may be the limit; see its ceiling")
    return said
