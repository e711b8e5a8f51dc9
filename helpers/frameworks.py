"""The frameworks: what they are called, where they run, and how they look in every figure."""

from __future__ import annotations

from dataclasses import dataclass

from helpers import machine

# What an engine computes with on a CPU, where it has no kernels of its own: its CPU figures are not those of its kernels.
INSTEAD_OF_KERNELS = {"sglang": "PyTorch attention"}


@dataclass(frozen=True)
class Framework:
    """A framework, or the same framework on other weights (``llama-cpp-bf16``) or without its server."""

    name: str
    title: str
    kernel: str  # the Jupyter kernel whose environment it lives in
    dtype: str  # of the weights: what a decode step reads
    form: str  # in which it loads them, see helpers.weights.models
    colour: str  # Okabe-Ito, safe for colour-vision deficiency
    marker: str

    def __repr__(self) -> str:
        return f"<{label(self.name)}: {self.dtype} weights, kernel {self.kernel}>"


class UnknownEngine(ValueError):
    """A name that is none of the frameworks'."""


FRAMEWORKS = {
    one.name: one
    for one in (
        Framework("transformers", "HF Transformers", "transformers", "bf16", "safetensors", "#E69F00", "o"),
        Framework("transformers-batch", "HF Transformers (static batch)", "transformers", "bf16", "safetensors", "#999999", "X"),
        Framework("vllm", "vLLM", "vllm", "bf16", "safetensors", "#0072B2", "^"),
        Framework("sglang", "SGLang", "sglang", "bf16", "safetensors", "#D55E00", "v"),
        Framework("llama-cpp-q4_0", "llama.cpp (Q4_0)", "llama-cpp", "Q4_0", "gguf-q4_0", "#000000", "p"),
        Framework("llama-cpp", "llama.cpp", "llama-cpp", "Q4_1", "gguf", "#009E73", "s"),
        Framework("llama-cpp-bf16", "llama.cpp (bf16)", "llama-cpp", "bf16", "gguf-bf16", "#56B4E9", "D"),
        Framework("tensorrt-llm", "TensorRT-LLM", "tensorrt-llm", "bf16", "safetensors", "#CC79A7", "P"),
    )
}
TITLES = {name: one.title for name, one in FRAMEWORKS.items()}


def get(name: str) -> Framework:
    """The framework called ``name``; :class:`UnknownEngine` names those that exist."""
    if name not in FRAMEWORKS:
        raise UnknownEngine(f"no engine is called {name!r}: choose one of {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]


def label(name: str, gpu: bool | None = None) -> str:
    """The title of ``name`` beside its figures: on a CPU with what it computes there if it has no kernels of its own.

    ``gpu`` says where the figures were measured; ``None``: on this machine.
    """
    on_gpu = machine.has_gpu() if gpu is None else gpu
    instead = None if on_gpu else INSTEAD_OF_KERNELS.get(name)
    return f"{get(name).title} ({instead})" if instead else get(name).title


_served: dict[str, str] = {}


def serves(name: str, dtype: str) -> None:
    """Note that this process has started ``name`` on weights of ``dtype``: those that the reader named may be of another type."""
    _served[name] = dtype


def weights(name: str, gpu: bool | None = None) -> str:
    """The type of the weights of ``name`` beside its figures; ``gpu`` as in :func:`label`.

    ``None``: of what this process has started last, since a record says itself where it was measured.
    """
    return _served.get(name, get(name).dtype) if gpu is None else get(name).dtype
