"""What moves between the GPUs of this machine, and how fast: ``python -m helpers.gpu.work.links JOB``.

Run in an engine's interpreter, one process for each GPU. All-reduces of a tensor through NCCL as a program asks for them,
and, on GPUs, recorded in a CUDA graph as the engines replay them, without the time to launch. Each figure is a row as
soon as it is there. On a CPU (gloo) it only rehearses.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from helpers.gpu.work.offline import Rows

KIB, MIB = 2**10, 2**20
SIZES = (8 * KIB, 80 * KIB, 800 * KIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB)  # the first: a hidden vector of 4,096 in bf16
ROUNDS, CALLS, WARMUPS = 5, 20, 5


def _timed(torch, on_gpu: bool, work: Callable[[], object]) -> float:
    """Seconds of one ``work``, of :data:`CALLS` in a row."""
    if not on_gpu:
        started = time.perf_counter()
        for _ in range(CALLS):
            work()
        return (time.perf_counter() - started) / CALLS
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    for _ in range(CALLS):
        work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000 / CALLS


def _rounds(torch, on_gpu: bool, work: Callable[[], object]) -> dict:
    for _ in range(WARMUPS):
        work()
    took = sorted(_timed(torch, on_gpu, work) for _ in range(ROUNDS))
    return {"seconds": median(took), "low_s": took[0], "high_s": took[-1]}


@contextmanager
def _graph(torch, work: Callable[[], object]) -> Iterator[Callable[[], object]]:
    """``work`` recorded once, to be replayed; while a graph lives, NCCL's communicator cannot be ended."""
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded, capture_error_mode="thread_local"):  # NCCL's watchdog asks for events meanwhile
        work()
    yield recorded.replay
    torch.cuda.synchronize()
    recorded.reset()


def _member(rank: int, job: dict, meeting: str) -> None:
    """One process of the group; the first writes what all measured together."""
    import torch
    import torch.distributed as dist

    gpus, on_gpu = job["gpus"], job["device"] == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo", init_method=Path(meeting).as_uri(), rank=rank, world_size=gpus)
    rows = Rows(job["rows"] if rank == 0 else os.devnull, job["left_s"])
    for size in SIZES if on_gpu else SIZES[:2]:
        values = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)

        def reduce(values=values):
            dist.all_reduce(values)

        _keep(rows, "asked", gpus, size, _rounds(torch, on_gpu, reduce))
        if on_gpu:
            with _graph(torch, reduce) as replayed:
                _keep(rows, "in a graph", gpus, size, _rounds(torch, on_gpu, replayed))
    dist.barrier()
    dist.destroy_process_group()


def _keep(rows: Rows, way: str, gpus: int, size: int, found: dict) -> None:
    """A row: the time of one all-reduce, and what a ring sends from each GPU in it."""
    sent = 2 * (gpus - 1) / gpus * size
    rows.add("all-reduce", way=way, gpus=gpus, bytes=size, **found, bus_bytes_per_s=sent / found["seconds"])


def main(path: str) -> int:
    """The command: one process for each GPU; they meet in a file."""
    import torch
    import torch.multiprocessing as processes

    job = json.loads(Path(path).read_text())
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if job["device"] == "cuda" else None
    rows = Rows(job["rows"], job["left_s"])
    rows.add("libraries", torch=torch.__version__, nccl=nccl)
    with tempfile.TemporaryDirectory(prefix="links-") as folder:
        processes.spawn(_member, args=(job, f"{folder}/meeting"), nprocs=job["gpus"])
    rows.add("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
