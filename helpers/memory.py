"""What processes hold, in bytes: one, or a server's whole tree.

``None`` means "not measurable here", never 0. RSS counts a page once for every process that
maps it; PSS shares it out, so PSS may be summed over a tree and RSS may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class TreeMemory:
    """What a set of processes holds now. ``file_bytes`` are mapped files: the system can drop them."""

    processes: int
    pss_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None
    peak_rss_bytes: int | None  # sum of each process's own peak: an upper bound

    def __repr__(self) -> str:
        def mib(value):
            return "not measurable" if value is None else f"{value / MIB:.0f} MiB"

        return (
            f"<{self.processes} process(es): PSS {mib(self.pss_bytes)} = anonymous {mib(self.anonymous_bytes)}"
            f" + file-backed {mib(self.file_bytes)}; peak RSS {mib(self.peak_rss_bytes)}>"
        )


def tree(processes: Iterable[psutil.Process]) -> TreeMemory:
    """Measure ``processes``; a process that ends meanwhile is left out."""
    found = [rollup for rollup in map(_rollup, processes) if rollup is not None]
    totals = [_total(found, key) for key in ("Pss", "Pss_Anon", "Pss_File", "VmHWM")]
    return TreeMemory(len(found), *totals)


def here() -> TreeMemory:
    """Measure this process and its children."""
    this = psutil.Process()
    return tree([this, *this.children(recursive=True)])


def mapped_bytes(path: Path) -> int | None:
    """How much of the mapped file ``path`` is in this process's memory now (RSS of its largest mapping)."""
    process = psutil.Process()
    if not hasattr(process, "memory_maps"):  # macOS
        return None
    maps = process.memory_maps(grouped=False)
    return max((part.rss for part in maps if part.path == str(path.resolve())), default=0)


def _total(found: list[dict[str, int]], key: str) -> int | None:
    if not found or any(key not in rollup for rollup in found):
        return None
    return sum(rollup[key] for rollup in found)


def _rollup(process: psutil.Process) -> dict[str, int] | None:
    """The kernel's sums for one process, in bytes (proc(5), smaps_rollup); {} where there is no /proc."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    values: dict[str, int] = {}
    for name in ("smaps_rollup", "status"):
        try:
            with open(f"/proc/{process.pid}/{name}") as lines:
                for line in lines:
                    key, _, rest = line.partition(":")
                    if rest.strip().endswith("kB"):
                        values[key] = int(rest.split()[0]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            if not process.is_running():
                return None
        except PermissionError:
            pass
    return values
