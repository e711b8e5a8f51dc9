"""The frameworks: what they are called, where they run, and how they look in every figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Framework:
    """A framework, or the same framework on other weights (``llama-cpp-bf16``)."""

    name: str
    title: str
    kernel: str  # the Jupyter kernel whose environment it lives in
    dtype: str  # of the weights: what a decode step reads
    colour: str  # Okabe-Ito, safe for colour-vision deficiency
    marker: str

    def __repr__(self) -> str:
        return f"<{self.title}: {self.dtype} weights, kernel {self.kernel}>"


class UnknownEngine(ValueError):
    """A name that is none of the frameworks'."""


FRAMEWORKS = {
    one.name: one
    for one in (
        Framework("transformers", "HF Transformers", "transformers", "bf16", "#E69F00", "o"),
        Framework("vllm", "vLLM", "vllm", "bf16", "#0072B2", "^"),
        Framework("sglang", "SGLang", "sglang", "bf16", "#D55E00", "v"),
        Framework("llama-cpp", "llama.cpp", "llama-cpp", "Q4_1", "#009E73", "s"),
        Framework("llama-cpp-bf16", "llama.cpp (bf16)", "llama-cpp", "bf16", "#56B4E9", "D"),
        Framework("tensorrt-llm", "TensorRT-LLM", "tensorrt-llm", "bf16", "#CC79A7", "P"),
    )
}
TITLES = {name: one.title for name, one in FRAMEWORKS.items()}


def get(name: str) -> Framework:
    """The framework called ``name``; :class:`UnknownEngine` names those that exist."""
    if name not in FRAMEWORKS:
        raise UnknownEngine(f"no engine is called {name!r}: choose one of {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]
