"""Several GPUs of one machine: over how many a model lies, in each engine's words, and NVLink multicast, which stays off.

A program that uses multicast can put the GPUs of a shared host out of service. Some all-reduces use it by default; they
are switched off here, what is left is refused in Python (``no_multicast/sitecustomize.py``), and an engine whose log names
it is ended and none of its figures kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import machine
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import flags

OFF = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",  # also vLLM's CUSTOM all-reduce, which asks torch in C++
    "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",  # vLLM's default on several GPUs
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "SGLANG_OPT_USE_CUSTOM_ALL_REDUCE_V2": "0",  # its all-reduce on symmetric memory; the older one is left
}
GUARD = Path(__file__).with_name("no_multicast")
ALL_REDUCE = re.compile(r"Using \[.*?\] all-reduce backends|vLLM is using nccl==\S+")  # in vLLM's log: which it took
NAMED = re.compile(r"mnnvl|multicast", re.IGNORECASE)  # in a log: refused
HOW = {  # beside the sizes of a layout: fusions that bring their own all-reduce
    "vllm": {"compilation_config": {"pass_config": {"fuse_allreduce_rms": False}}},
    "sglang": {"enforce_disable_flashinfer_allreduce_fusion": True},
}


class Multicast(RuntimeError):
    """An engine that names NVLink multicast in its log: it is ended, and its figures are not kept."""


def arguments(engine: str, layout: Layout) -> dict:
    """How ``engine`` is told to lie over several GPUs; nothing for one."""
    if layout.gpus == 1:
        return {}
    sizes = {name: size for name, size in (("tp", layout.tp), ("pp", layout.pp), ("dp", layout.dp)) if size > 1}
    experts = {"vllm": True, "sglang": layout.ep_size}[engine] if layout.ep else None
    return {**flags.named(engine, **sizes, ep=experts), **HOW[engine]}


def merged(one: dict, other: dict) -> dict:
    """``other`` over ``one``; where both have a table its entries are put together."""
    both = {key for key in one if isinstance(one[key], dict) and isinstance(other.get(key), dict)}
    return {**one, **other, **{key: {**one[key], **other[key]} for key in both}}


@contextmanager
def variables(gpus: tuple[str, ...]) -> Iterator[None]:
    """This process's environment, which engines inherit: no multicast, and only ``gpus`` (all, where none is named)."""
    path = os.pathsep.join(filter(None, (str(GUARD), os.environ.get("PYTHONPATH"))))
    new = {**OFF, "PYTHONPATH": path, **({machine.VISIBLE: ",".join(gpus)} if gpus else {})}
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class LogCheck:
    """Reads a log on from where it stopped; :class:`Multicast` if it names what is not used here.

    ``said`` are its words on all-reduces: which ones the engine took.
    """

    def __init__(self, log: Path):
        self.log, self.at, self.rest, self.said = log, 0, "", []

    def __call__(self) -> None:
        with self.log.open(errors="replace") as file:
            file.seek(self.at)
            text = self.rest + file.read()
            self.at = file.tell()
        *lines, self.rest = text.split("\n")
        if found := next((line for line in (*lines, self.rest) if NAMED.search(line)), None):
            raise Multicast(f"its log names NVLink multicast, which is not used here: {' '.join(found.split())[:160]}")
        about = (found.group() for line in lines if (found := ALL_REDUCE.search(line)))
        self.said += [words for words in dict.fromkeys(about) if words not in self.said]
