"""The frameworks that have a server here, each with its module's entry, and which of them can serve a model on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from helpers import kernels, machine
from helpers.frameworks import INSTEAD_OF_KERNELS, TITLES, UnknownEngine
from helpers.servers import llama_cpp, sglang, transformers, vllm
from helpers.servers.engine import Drafting, Engine, Start
from helpers.weights import models

__all__ = [
    "ENGINES", "TITLES", "Drafting", "Engine", "Start", "UnknownEngine", "at_hand", "compiled", "environment",
    "every", "first_rows", "get", "of", "one_each", "with_tools",
]  # fmt: skip

ENGINES = {
    engine.name: engine
    for engine in (transformers.ENGINE, vllm.ENGINE, sglang.ENGINE, *llama_cpp.ROWS)
}  # fmt: skip
ENVIRONMENTS: dict[str, Callable[[str], dict[str, str]]] = {"vllm": vllm.environment, "sglang": sglang.environment}


def environment(kernel: str, python: str) -> dict[str, str]:
    """What a framework's kernel and server need in their environment; kept in its kernelspec."""
    return ENVIRONMENTS[kernel](python) if kernel in ENVIRONMENTS else {}


def with_tools(engine: Engine) -> Engine:
    """``engine``, its server started so that it reads function calls out of the text, which costs it time."""
    return replace(engine, command=lambda start: [*engine.command(start), *engine.tool_flags])


def compiled(engine: Engine) -> Engine:
    """``engine`` at its fastest, if that is not how it starts here: vLLM compiles the model on a CPU only when told so.

    A start then takes about a minute longer, so only long measurements ask for it.
    """
    return replace(engine, command=partial(vllm.command, eager=False)) if engine.name == "vllm" else engine


def get(name: str) -> Engine:
    """The engine called ``name``; :class:`UnknownEngine` names those that exist."""
    if name not in ENGINES:
        raise UnknownEngine(f"no engine is called {name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


def of(engine: Engine, model: models.Model) -> Engine:
    """``engine`` with the type of the weights that it loads of ``model``: a GGUF of the reader's own says its type itself."""
    return replace(engine, dtype=models.gguf_type(model)) if (engine.form, model.kind) == ("gguf", "gguf") else engine


def every(model: models.Model | None = None) -> list[Engine]:
    """All engines, as :func:`of` ``model``, whether they can serve it here or not."""
    model = model or models.resolve()
    return [of(engine, model) for engine in ENGINES.values()]


def at_hand(model: models.Model | None = None) -> tuple[list[Engine], dict[str, str]]:
    """The engines that can serve ``model`` here, and the reason for each of the others.

    ``FRAMEWORKS`` in the environment, a list with commas, restricts them. In a replay
    :class:`~helpers.kernels.MissingKernel`.
    """
    model = model or models.resolve()
    chosen = os.environ.get("FRAMEWORKS")
    here, reasons = [], {}
    for engine in every(model):
        if chosen and engine.kernel not in chosen.split(","):
            reasons[engine.name] = "not chosen"
        elif reason := models.left_out(model, engine.form):
            reasons[engine.name] = reason
        elif not kernels.installed(engine.kernel):
            reasons[engine.name] = f"the kernel {engine.kernel!r} is not installed: run `nox -s tour -- {engine.kernel}`"
        elif reason := engine.unfit():
            reasons[engine.name] = reason
        else:
            here.append(engine)
    return here, reasons


def first_rows(here: Iterable[Engine]) -> dict[str, Engine]:
    """By kernel the first row of each framework in ``here``."""
    first: dict[str, Engine] = {}
    for engine in here:
        first.setdefault(engine.kernel, engine)
    return first


def one_each(here: Iterable[Engine]) -> list[Engine]:
    """The first row of each framework in ``here``, for a short measurement.

    An engine that has no kernels of its own on this machine is left out if there are others: it would take the longest.
    """
    first = first_rows(here)
    quick = [engine for engine in first.values() if machine.has_gpu() or engine.name not in INSTEAD_OF_KERNELS]
    return quick or list(first.values())
