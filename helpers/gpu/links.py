"""What moves between the GPUs of this machine, and how fast: ``python -m helpers.gpu.links GPUS cuda|cpu``.

Run in an engine's interpreter, one process for each GPU. All-reduces of a tensor through NCCL as a program asks for them,
and, on GPUs, recorded in a CUDA graph as the engines replay them, without the time to launch; and copies from the first GPU
to the second. Prints one line of JSON. On a CPU (gloo) it only rehearses.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

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


def _graph(torch, work: Callable[[], object]) -> Callable[[], object]:
    """``work`` recorded once, and replayed."""
    work()
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        work()
    return recorded.replay


def _member(rank: int, gpus: int, where: str, meeting: str, out: str) -> None:
    """One process of the group; the first writes what all measured together."""
    import torch
    import torch.distributed as dist

    on_gpu = where == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo", init_method=Path(meeting).as_uri(), rank=rank, world_size=gpus)
    rows = []
    for size in SIZES if on_gpu else SIZES[:2]:
        values = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)
        ways = {"asked": lambda values=values: dist.all_reduce(values)}
        if on_gpu:
            ways["in a graph"] = _graph(torch, ways["asked"])
        for way, work in ways.items():
            dist.barrier()
            found = _rounds(torch, on_gpu, work)
            rate = 2 * (gpus - 1) / gpus * size / found["seconds"]  # what a ring sends from each GPU
            rows.append({"kind": "all-reduce", "way": way, "gpus": gpus, "bytes": size, **found, "bus_bytes_per_s": rate})
    if rank == 0:
        rows += _copies(torch) if on_gpu else []
        libraries = {"torch": torch.__version__, "NCCL": ".".join(map(str, torch.cuda.nccl.version())) if on_gpu else None}
        Path(out).write_text(json.dumps({"rows": rows, "libraries": libraries}))
    dist.barrier()
    dist.destroy_process_group()


def _copies(torch) -> list[dict]:
    """From the first GPU to the second, by the copy engines."""
    there = torch.cuda.can_device_access_peer(0, 1)
    rows = []
    for size in (16 * MIB, 256 * MIB):
        ours, theirs = (torch.zeros(size, dtype=torch.uint8, device=f"cuda:{number}") for number in (0, 1))
        found = _rounds(torch, True, lambda ours=ours, theirs=theirs: theirs.copy_(ours, non_blocking=True))
        rows.append({"kind": "copy", "bytes": size, "peer_access": there, **found, "bytes_per_s": size / found["seconds"]})
    return rows


def main(gpus: int, where: str) -> int:
    """The command: one process for each GPU; they meet in a file."""
    import torch.multiprocessing as processes

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory(prefix="links-") as folder:
        out = Path(folder) / "out.json"
        processes.spawn(_member, args=(gpus, where, f"{folder}/meeting", str(out)), nprocs=gpus)
        print(out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
