"""The frameworks: one entry each, and the only module that knows their flags."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers import kernels, models
from helpers.models import Form


class UnknownEngine(ValueError):
    """A name that is none of the frameworks'."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be asked for work here."""
    return shutil.which("nvidia-smi") is not None


def cores() -> int:
    """The cores this process may use: what every engine gets as its thread count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@dataclass(frozen=True)
class Request:
    """What a server start is given: the weights, where to listen, how much to hold."""

    python: str  # the framework's interpreter
    weights: Path
    port: int
    slots: int  # requests decoded together
    context: int  # tokens per request, prompt and answer


@dataclass(frozen=True)
class Engine:
    """A framework, or the same framework on other weights (``llama-cpp-bf16``)."""

    name: str
    title: str
    kernel: str  # the Jupyter kernel whose environment it lives in
    packages: tuple[str, ...]  # distributions whose versions a record names
    form: Form  # the weights it loads
    dtype: str  # what a decode step reads
    colour: str  # Okabe-Ito, safe for colour-vision deficiency
    marker: str
    command: Callable[[Request], list[str]]
    fields: Callable[[int], Mapping]  # request fields that fix the output length
    token_ids: bool = True  # the server takes token ids as a prompt
    named_by_path: bool = False  # the server wants the weights' path as the model's name

    def __repr__(self) -> str:
        return f"<{self.title}: {self.dtype} weights, kernel {self.kernel}>"


def _transformers(request: Request) -> list[str]:
    pages = (-(-request.context // 32) + 1) * request.slots  # a pool without a spare page stalls
    return [
        request.python, "-c", "from transformers.cli.transformers import main; main()", "serve", str(request.weights),
        "--host", "127.0.0.1", "--port", str(request.port),
        "--device", "cuda" if has_gpu() else "cpu", "--dtype", "bfloat16", "--attn-implementation", "sdpa",
        "--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", str(pages),
        "--cb-max-batch-tokens", "512",  # its default on a CPU is sized for all of the RAM
    ]  # fmt: skip


def _transformers_fields(output_tokens: int) -> dict:
    # The server takes no `ignore_eos`: token -1 never comes. With continuous batching the sampling of
    # the first request serves all later ones, so every request of ours is greedy.
    config = {"max_new_tokens": output_tokens, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    return {"generation_config": json.dumps(config)}


def _llama_cpp(request: Request) -> list[str]:
    return [
        request.python, "-m", "helpers.xllamacpp_server", "--model", str(request.weights), "--port", str(request.port),
        "--slots", str(request.slots), "--context", str(request.context),
        "--threads", str(cores()),  # its default is half the cores
        "--gpu-layers", "999" if has_gpu() else "0",
    ]  # fmt: skip


def _llama_cpp_fields(output_tokens: int) -> dict:
    return {"ignore_eos": True, "cache_prompt": False}


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers", title="HF Transformers", kernel="transformers", packages=("transformers", "torch"),
            form="safetensors", dtype="bf16", colour="#E69F00", marker="o",
            command=_transformers, fields=_transformers_fields, token_ids=False, named_by_path=True,
        ),
        Engine(
            name="llama-cpp", title="llama.cpp", kernel="llama-cpp", packages=("xllamacpp",),
            form="gguf", dtype="Q4_1", colour="#009E73", marker="s",
            command=_llama_cpp, fields=_llama_cpp_fields,
        ),
        Engine(
            name="llama-cpp-bf16", title="llama.cpp (bf16)", kernel="llama-cpp", packages=("xllamacpp",),
            form="gguf-bf16", dtype="bf16", colour="#56B4E9", marker="D",
            command=_llama_cpp, fields=_llama_cpp_fields,
        ),
    )
}  # fmt: skip


def get(name: str) -> Engine:
    """The engine called ``name``; :class:`UnknownEngine` names those that exist."""
    if name not in ENGINES:
        raise UnknownEngine(f"no engine is called {name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


def at_hand(model: models.Model | None = None) -> tuple[list[Engine], dict[str, str]]:
    """The engines that can serve ``model`` here, and the reason for each of the others.

    ``FRAMEWORKS`` in the environment, a list with commas, restricts them.
    """
    model = model or models.resolve()
    chosen = os.environ.get("FRAMEWORKS")
    here, reasons = [], {}
    for engine in ENGINES.values():
        if chosen and engine.kernel not in chosen.split(","):
            reasons[engine.name] = "not chosen"
        elif reason := models.left_out(model, engine.form):
            reasons[engine.name] = reason
        elif not kernels.installed(engine.kernel):
            reasons[engine.name] = f"the kernel {engine.kernel!r} is not installed: run `nox -s tour -- {engine.kernel}`"
        else:
            here.append(engine)
    return here, reasons
