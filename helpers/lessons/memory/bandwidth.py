"""How many bytes per second this machine moves and how many FLOP per second it computes.

    python -m helpers.lessons.memory.bandwidth [--device cpu|cuda] [--json]

:func:`roof` is what notebooks and records take.

Several kernels each, because none reaches everything: warm-up, then the median of repeats.
Bytes are those the program asks for; what a cache reads in addition, to write, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from helpers import kernels, machine, paths, records
from helpers.weights import bounds, sizes

REPEATS = 7
CACHES = 4  # arrays are this many times the last-level cache, so that a pass finds little of the one before
LEAST_BYTES = 256 * 2**20  # of an array: a pass then takes milliseconds, and starting threads microseconds
LEAST_BYTES_PER_THREAD = 16 * 2**20
MATRICES = (1024, 2048, 4096, 8192)  # rows of the squares that are multiplied
LONG_S = 0.1  # a product that takes longer is big enough: larger ones are left out

Job = Callable[[], object]


class RooflineError(RuntimeError):
    """A roof that cannot be measured here."""


def cache_bytes(sysfs: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """The last-level caches of the processor together; ``None`` where the system does not say (Linux does).

    One cache is listed at every core that shares it, and counted once.
    """
    found: dict[tuple[int, str], int] = {}
    for index in sysfs.glob("cpu[0-9]*/cache/index*"):
        try:
            level, cores, size = ((index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
        except OSError:
            continue
        found[int(level), cores] = int(size.removesuffix("K")) * 1024
    last = max((level for level, _ in found), default=None)
    return sum(size for (level, _), size in found.items() if level == last) if found else None


def array_bytes(threads: int) -> int:
    """The size of each array; :class:`RooflineError` if the memory is too small for what is made of it."""
    size = max(CACHES * (cache_bytes() or 0), LEAST_BYTES, threads * LEAST_BYTES_PER_THREAD)
    free = psutil.virtual_memory().available
    if 4 * size > free:
        gib = f"{4 * size / 2**30:.1f} GiB of arrays"
        raise RooflineError(f"{gib} do not fit the {free / 2**30:.1f} GiB that are free: end other programs first")
    return size


def cpu(threads: int) -> dict:
    """Measure the CPU with numpy on ``threads`` Python threads; numpy drops the GIL while it computes.

    ``sgemv`` and ``sgemm`` run in one Python thread: OpenBLAS has threads of its own. With torch
    in this interpreter its bf16 product is measured too.
    """
    size = array_bytes(threads)
    with ThreadPoolExecutor(threads) as pool:  # made by the threads: memory lies near the core that writes it first
        chunks = list(pool.map(lambda _: _chunk(size // threads), range(threads)))
    bandwidth = {
        "sum": _rates(size, times([a.sum for a, _, _ in chunks])),
        "copy": _rates(2 * size, times([_copy(*chunk) for chunk in chunks])),
        "triad": _rates(5 * size, times([_triad(*chunk) for chunk in chunks])),
        "dot": _rates(2 * size, times([_dot(*chunk) for chunk in chunks])),
    }
    del chunks
    bandwidth["sgemv"] = _rates(size, times([_sgemv(size)]))
    flops = _products("sgemm", lambda n: times([_sgemm(n)]))
    if find_spec("torch"):
        flops |= _products("bf16 (torch)", lambda n: times([_torch_product(n, "cpu")]))
    return {"device": "cpu", "threads": threads, "array_bytes": size, **_best(bandwidth, flops)}


def _rates(work: float, took_s: Sequence[float]) -> list[float]:
    """Work per second of every run, slowest first."""
    return sorted(work / seconds for seconds in took_s)


def _best(bandwidth: Mapping[str, list[float]], flops: Mapping[str, list[float]]) -> dict:
    """Of each kind every kernel's median; the best of them is the roof, and its slowest and fastest run the roof's range."""
    found = {}
    for name, kernels_of, roof in (("bandwidth", bandwidth, "bandwidth_bytes_per_s"), ("flops", flops, "flops_per_s")):
        middle = {kernel: median(rates) for kernel, rates in kernels_of.items()}
        best = max(middle, key=middle.get)
        limits = [kernels_of[best][0], kernels_of[best][-1]]
        found |= {f"{name}_kernels": middle, roof: middle[best], f"{name}_range": limits}
    return found


def _chunk(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three float32 arrays of ``size`` bytes, written once: a page that was only asked for is no memory yet."""
    return tuple(np.full(size // 4, value, np.float32) for value in (1.0, 2.0, 3.0))


def _copy(a, b, c) -> Job:
    return lambda: np.copyto(a, b)


def _triad(a, b, c) -> Job:
    """a = b + 3 c in two passes: c read and a written, then a and b read and a written."""

    def run() -> None:
        np.multiply(c, np.float32(3), out=a)
        np.add(a, b, out=a)

    return run


def _dot(a, b, c) -> Job:
    return lambda: np.dot(b, c)


def _sgemv(size: int) -> Job:
    columns = 8192
    matrix, vector = np.ones((size // 4 // columns, columns), np.float32), np.ones(columns, np.float32)
    return lambda: matrix @ vector


def _sgemm(n: int) -> Job:
    a, b = np.random.default_rng(0).random((2, n, n), np.float32)
    out = np.empty((n, n), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _torch_product(n: int, device: str) -> Job:
    import torch

    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _products(name: str, times_of: Callable[[int], list[float]]) -> dict[str, list[float]]:
    """FLOP/s of ever larger square products, 2 n^3 each, until one takes long."""
    found = {}
    for n in MATRICES:
        took_s = times_of(n)
        found[f"{name} {n}"] = _rates(2 * n**3, took_s)
        if median(took_s) > LONG_S:
            break
    return found


def times(jobs: Sequence[Job]) -> list[float]:
    """Run ``jobs`` side by side, a thread each, again and again: the seconds from first start to last end of each run."""
    barrier = threading.Barrier(len(jobs))

    def one(job: Job) -> list[tuple[int, int]]:
        stamps = []
        try:
            job()  # warm-up
            for _ in range(REPEATS):
                barrier.wait()
                started = time.perf_counter_ns()
                job()
                stamps.append((started, time.perf_counter_ns()))
        except BaseException:
            barrier.abort()  # or the others would wait for ever
            raise
        return stamps

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(one, job) for job in jobs]
    errors = [run.exception() for run in running if run.exception()]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    ran = [run.result() for run in running]
    return [(max(end for _, end in turn) - min(start for start, _ in turn)) / 1e9 for turn in zip(*ran)]


def cuda() -> dict:
    """Measure the first GPU with torch, timed by CUDA events: the clock of the GPU itself."""
    import torch

    if not torch.cuda.is_available():
        raise RooflineError("torch of this interpreter reaches no GPU: install its CUDA build, or measure the cpu")
    properties = torch.cuda.get_device_properties(0)
    size = max(CACHES * properties.L2_cache_size, 4 * LEAST_BYTES)
    if 4 * size > torch.cuda.mem_get_info()[0]:
        raise RooflineError(f"{4 * size / 2**30:.1f} GiB of arrays do not fit the GPU's free memory: end other programs first")
    a, b, c = (torch.ones(size // 4, device="cuda") for _ in range(3))
    bandwidth = {
        "sum": _rates(size, _cuda_times(a.sum)),
        "copy_": _rates(2 * size, _cuda_times(lambda: a.copy_(b))),
        "add": _rates(3 * size, _cuda_times(lambda: torch.add(b, c, out=a))),
    }
    flops = _products("bf16", lambda n: _cuda_times(_torch_product(n, "cuda")))
    return {"device": properties.name, "threads": None, "array_bytes": size, **_best(bandwidth, flops)}


def _cuda_times(job: Job) -> list[float]:
    """The seconds of each repeat, after a warm-up that also brings the clock up."""
    import torch

    def event():
        return torch.cuda.Event(enable_timing=True)

    stamps = [(event(), event()) for _ in range(3 + 3 * REPEATS)]
    for start, end in stamps:
        start.record()
        job()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in stamps[3:]]


def roof(device: str | None = None, *, again: bool = False) -> bounds.Roof:
    """The roof of this machine's ``device`` as in :func:`measure`: measured once, and kept beside the models.

    Notebooks and records take this one, so that their shares can be compared. ``again`` measures it
    anew, as does a kept one that was found on a busy machine. With torch's bf16 product, where the
    kernel ``transformers`` is installed. Raises :class:`RooflineError` in one line.
    """
    device = device or ("cuda" if machine.has_gpu() else "cpu")
    file = paths.cache_dir() / f"roof-{machine.name()}-{device}.json"
    if file.exists() and not again:
        kept = bounds.Roof(**json.loads(file.read_text()))
        if kept.label is None:
            return kept
    found = measure(device, kernel="transformers" if kernels.installed("transformers") else None)
    records.write_json(file, found.to_dict(), replace=True)
    return found


def measure(device: str | None = None, kernel: str | None = None) -> bounds.Roof:
    """Measure ``device``, "cpu" or "cuda" (default: a GPU if there is one); some seconds of all cores.

    ``kernel`` names the framework in whose interpreter it is done; a GPU needs torch, so that of
    ``transformers`` is taken where this one has none. Raises :class:`RooflineError` in one line.
    """
    device = device or ("cuda" if machine.has_gpu() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}: choose cpu or cuda")
    if device == "cuda" and not machine.has_gpu():
        raise RooflineError("no NVIDIA GPU here: measure the cpu instead (--device cpu)")
    if device == "cuda" and not find_spec("torch"):
        kernel = kernel or "transformers"
    if kernel:
        return _measure_in(kernel, device)
    load = round(os.getloadavg()[0], 2)
    busy, stolen = machine.others()
    found = cuda() if device == "cuda" else cpu(machine.cores())
    return bounds.Roof(load_average=load, busy=busy, stolen=stolen, day=date.today().isoformat(), **found)


def _measure_in(kernel: str, device: str) -> bounds.Roof:
    try:
        return bounds.Roof(**kernels.ask(kernel, "helpers.lessons.memory.bandwidth", "--device", device, "--json"))
    except kernels.AskError as error:
        raise RooflineError(f"the roof could not be measured in the kernel {kernel!r}: {error}") from None


def as_text(roof: bounds.Roof) -> str:
    """The roof as lines of text: every kernel's figure, and the best."""
    where = f"{roof.threads} threads" if roof.threads else "one device"
    lines = [f"{roof.device}: {where}, arrays of {roof.array_bytes / sizes.GIB:.2f} GiB, load average {roof.load_average:g}"]
    lines[0] += f", measured {roof.day}" if roof.day else ""
    lines += [roof.label] if roof.label else []
    for title, found, best, limits in (
        ("memory bandwidth, GB/s", roof.bandwidth_kernels, roof.bandwidth_bytes_per_s, roof.bandwidth_range),
        ("arithmetic, GFLOP/s", roof.flops_kernels, roof.flops_per_s, roof.flops_range),
    ):
        lines.append(title)
        lines += [f"  {name:<24}{value / 1e9:>12,.1f}" for name, value in [*found.items(), ("the roof", best)]]
        lines[-1] += f" ({limits[0] / 1e9:,.1f} to {limits[1] / 1e9:,.1f})" if limits else ""
    return "\n".join([*lines, f"{'ridge, FLOP/byte':<26}{roof.ridge:>12,.1f}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        measured = measure(options.device)
    except (RooflineError, kernels.MissingKernel) as error:
        sys.exit(str(error))
    print(json.dumps(measured.to_dict()) if options.json else as_text(measured))
