"""TensorRT-LLM is not measured here; what others published of it, and that it does not agree.

Its wheel comes from NVIDIA's own index, which the machine that was measured cannot reach. ``nox -s gpu``
measures it where it is installed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A result that was read and not run again."""

    said: str
    setup: str
    source: str
    address: str
    read: str


TENSORRT_LLM = (
    Published(
        "vLLM ahead at saturation with 5,333 tokens/s; TensorRT-LLM first at 32 users, 235 ms to the first token, vLLM 514 ms",
        "Llama-3.1-8B, one H100; vLLM 0.23.0, SGLang 0.5.13, TensorRT-LLM 1.2.1",
        "RunInfra, 2026-06-20",
        "https://runinfra.ai/news/vllm-vs-sglang-vs-tensorrt-llm-benchmark",
        "2026-11-25",
    ),
    Published(
        "TensorRT-LLM ahead with 2,100 tokens/s at 50 requests, vLLM 1,850",
        "a 70B model in FP8 on H100",
        "Spheron, 2026-03",
        "https://www.spheron.network/blog/vllm-vs-tensorrt-llm-vs-sglang-benchmarks",
        "2026-11-25",
    ),
)


def table():
    """Both results as a pandas table, under the words *not measured here*."""
    import pandas as pd

    shown = pd.DataFrame([vars(one) for one in TENSORRT_LLM]).set_index("source")
    shown.attrs["recorded"] = "TensorRT-LLM: not measured here; published results, not run again"
    return shown
