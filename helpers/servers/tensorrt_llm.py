"""TensorRT-LLM: what it needs and this machine lacks. This collection starts no server of it."""

from __future__ import annotations

from functools import lru_cache

from helpers import kernels, machine


def missing() -> str | None:
    """What it lacks on this machine, or ``None``; nothing heavy is imported to find out."""
    if not machine.has_gpu():
        return "no NVIDIA GPU here"
    capability = machine.compute_capability()
    if capability is not None and float(capability) < 8.0:
        return f"the GPU has compute capability {capability}; TensorRT-LLM needs 8.0 (Ampere) or newer"
    if not _importable():
        return "the package tensorrt_llm is not installed in the kernel 'tensorrt-llm'"
    return None


@lru_cache
def _importable() -> bool:
    """Whether its kernel's interpreter would find the package, without importing it."""
    look = "import json; from importlib.util import find_spec; print(json.dumps(find_spec('tensorrt_llm') is not None))"
    return kernels.installed("tensorrt-llm") and kernels.ask_code("tensorrt-llm", look)
