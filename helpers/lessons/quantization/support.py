"""Which framework takes which quantized weights: asked of what is installed, cell by cell.

Each framework's probe (:mod:`helpers.lessons.quantization.probes`) runs in the framework's own interpreter. A cell
says how it is known: ``ran here`` (the probe, or the notebook, computed with it), ``in the package``
(a registry, or a check of the installed version, says so) or ``by citation``, for frameworks and
details that cannot be asked on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from helpers import kernels
from helpers.frameworks import TITLES
from helpers.servers import tensorrt_llm

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("INT8", "INT4", "FP8", "GPTQ", "AWQ", "GGUF", "MXFP4", "NVFP4")
FRAMEWORKS = {name: TITLES[name] for name in ("transformers", "vllm", "llama-cpp", "sglang", "tensorrt-llm")}
KNOWN = ("ran here", "in the package", "by citation")
TIMEOUT_S = 180


@dataclass(frozen=True)
class Support:
    """One framework and one kind of weights. ``None`` means that nothing here can say."""

    framework: str
    method: str
    supported: bool | None  # the framework takes such weights, on some hardware
    here: bool | None  # they can be computed with on this machine, with what is installed
    known: str  # one of KNOWN
    detail: str  # what ran, what it is called, what it needs, or the source

    @property
    def text(self) -> str:
        """For pictures and tables: ``ran here``, ``has it``, ``not here``, ``cited``, ``no`` or ``?``."""
        if not self.supported:
            return "?" if self.supported is None else "no"
        if self.known == "ran here":
            return "ran here"
        if self.here is False:
            return "not here"
        return "cited" if self.known == "by citation" else "has it"


# Read in the sources of these versions: transformers 5.23.0 (quantizers/), vLLM 0.33.0 (layers/quantization/),
# SGLang 0.5.23 (arg_groups/choices.py, layers/quantization/), llama.cpp (ggml.h, conversion/base.py) and
# TensorRT-LLM's docs of 1.4.0rc1 with its PyTorch Linear dispatch.
CITED = {
    "transformers": {
        "INT8": (True, "bitsandbytes, torchao, quanto: transformers 5.23.0, quantizers/auto.py"),
        "INT4": (True, "bitsandbytes nf4, torchao, hqq: transformers 5.23.0, quantizers/auto.py"),
        "FP8": (True, "compute capability 8.9 or XPU, else unpacked to bf16: quantizer_finegrained_fp8.py"),
        "GPTQ": (True, "needs gptqmodel and optimum: quantizer_gptq.py"),
        "AWQ": (True, "needs gptqmodel, loads only: quantizer_awq.py"),
        "GGUF": (True, "unpacked when loaded, for most architectures: integrations/gguf"),
        "MXFP4": (True, "needs kernels; GPU from compute capability 7.5, XPU or CPU: quantizer_mxfp4.py"),
        "NVFP4": (True, "needs kernels and Blackwell, quantizes while loading only: quantizer_nvfp4.py"),
    },
    "vllm": {
        "INT8": (True, "W8A8 from compute capability 7.5, and on x86: compressed_tensors"),
        "INT4": (True, "W4A16 from compute capability 7.5: compressed_tensors"),
        "FP8": (True, "W8A8 from 8.9, weights alone from 7.5: fp8.py"),
        "GPTQ": (True, "from compute capability 6.0: auto_gptq.py"),
        "AWQ": (True, "from compute capability 7.5: auto_awq.py"),
        "GGUF": (False, "left in 0.24 for the plugin vllm-gguf-plugin: vLLM pull request 39612"),
        "MXFP4": (True, "from compute capability 8.0: mxfp4.py"),
        "NVFP4": (True, "modelopt_fp4, from compute capability 7.5, there with 16-bit activations: modelopt.py"),
    },
    "llama-cpp": {
        "INT8": (True, "Q8_0: ggml.h"),
        "INT4": (True, "Q4_0, Q4_1, Q4_K, IQ4_NL, IQ4_XS: ggml.h"),
        "FP8": (False, "no such type; the converter unpacks FP8: conversion/base.py"),
        "GPTQ": (False, "no such type; the converter unpacks 2, 4 and 8 bits: conversion/base.py"),
        "AWQ": (False, "no such type; the converter refuses it: conversion/base.py"),
        "GGUF": (True, "its own format"),
        "MXFP4": (True, "a type: ggml.h"),
        "NVFP4": (True, "a type: ggml.h"),
    },
    "sglang": {
        "INT8": (True, "w8a8_int8 from compute capability 7.5: layers/quantization"),
        "INT4": (True, "gptq, awq, auto-round, bitsandbytes: arg_groups/choices.py"),
        "FP8": (True, "fp8 from compute capability 8.0, w8a8_fp8 from 8.9: layers/quantization"),
        "GPTQ": (True, "gptq, gptq_marlin: arg_groups/choices.py"),
        "AWQ": (True, "awq, awq_marlin: arg_groups/choices.py"),
        "GGUF": (True, "gguf: arg_groups/choices.py"),
        "MXFP4": (True, "mxfp4, for experts only: arg_groups/choices.py"),
        "NVFP4": (True, "modelopt_fp4, nvfp4_online: arg_groups/choices.py"),
    },
    "tensorrt-llm": {
        "INT8": (True, "weights alone; SmoothQuant is no branch of the PyTorch backend's linear.py"),
        "INT4": (True, "W4A16_AWQ, W4A8_AWQ: branches of linear.py"),
        "FP8": (True, "per tensor, row or block, on Ada, Hopper, Blackwell: features/quantization.md"),
        "GPTQ": (True, "4 bits through AutoDeploy; for the default backend pull request 19442 was open"),
        "AWQ": (True, "checkpoints exported by ModelOpt: features/quantization.md"),
        "GGUF": (False, "not mentioned in features/quantization.md"),
        "MXFP4": (True, "Blackwell, by the hardware matrix: features/quantization.md"),
        "NVFP4": (True, "Blackwell, by the hardware matrix: features/quantization.md"),
    },
}


def cited(framework: str, because: str = "") -> list[Support]:
    """The row of ``framework`` by citation; ``because`` says why nothing was asked."""
    note = f"{because}; " if because else ""
    found = CITED[framework]
    return [Support(framework, method, found[method][0], None, "by citation", note + found[method][1]) for method in METHODS]


def probe(framework: str) -> list[Support]:
    """The row of ``framework``: its probe's answers; by citation, saying why, where it cannot be asked.

    Raises ``ValueError`` for a name that is no framework.
    """
    if framework not in FRAMEWORKS:
        raise ValueError(f"no framework is called {framework!r}: choose one of {', '.join(FRAMEWORKS)}")
    if framework == "tensorrt-llm":
        return cited(framework, tensorrt_llm.missing() or "")
    if not kernels.installed(framework):
        return cited(framework, "not installed")
    try:
        answered = kernels.ask(framework, "helpers.lessons.quantization.probes", framework, timeout_s=TIMEOUT_S)
    except kernels.AskError as error:
        return cited(framework, f"its probe failed ({str(error)[:100]})")
    found = {each["method"]: Support(framework, **each) for each in answered}
    return [found[method] for method in METHODS]


def probe_all() -> list[Support]:
    """Every cell of the table; two probes at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [cell for row in pool.map(probe, FRAMEWORKS) for cell in row]


def with_runs(cells: Iterable[Support], runs: Mapping[tuple[str, str], str]) -> list[Support]:
    """``cells`` with what was computed elsewhere: ``runs`` maps (framework, method) to what ran."""
    cells = list(cells)
    if unknown := set(runs) - {(cell.framework, cell.method) for cell in cells}:
        raise ValueError(f"runs of {unknown}: no such cell")
    return [_ran(cell, runs.get((cell.framework, cell.method))) for cell in cells]


def _ran(cell: Support, what: str | None) -> Support:
    return replace(cell, supported=True, here=True, known="ran here", detail=what) if what else cell


def said(document: Mapping[str, Sequence[str]], framework: str, method: str) -> str | None:
    """What the source document says of a cell; ``None`` for GGUF and FP4, which it does not ask.

    ``document`` is its table: a framework's name to its texts, in the order of :data:`METHODS`.
    """
    return dict(zip(METHODS, document[framework])).get(method)


def changed(cells: Iterable[Support], document: Mapping[str, Sequence[str]]) -> list[Support]:
    """The cells whose answer is no longer that of ``document`` (see :func:`said`)."""
    return [
        cell for cell in cells
        if (before := said(document, cell.framework, cell.method)) and cell.supported is not None
        and before.startswith("Yes") != cell.supported
    ]  # fmt: skip


def today(cells: Iterable[Support], document: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The table of ``document`` (see :func:`said`) as it is now; an arrow marks an answer that is not the document's any more."""
    import pandas as pd

    cells = list(cells)
    moved = changed(cells, document)
    rows = {FRAMEWORKS[name]: {} for name in FRAMEWORKS}
    for cell in cells:
        before = f"{said(document, cell.framework, cell.method)} → " if cell in moved else ""
        rows[FRAMEWORKS[cell.framework]][cell.method] = before + cell.text
    return pd.DataFrame(rows).T[list(METHODS)]


def details(cells: Iterable[Support], framework: str | None = None) -> pd.DataFrame:
    """Every cell with what it rests on, as a pandas table; of one framework or of all."""
    import pandas as pd

    rows = [
        {"framework": FRAMEWORKS[c.framework], "weights": c.method, "answer": c.text, "rests on": c.detail}
        for c in cells
        if framework in (None, c.framework)
    ]
    return pd.DataFrame(rows).set_index(["framework", "weights"])
