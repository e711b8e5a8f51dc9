"""SGLang: how its server and its Python API are told what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from helpers import frameworks, kernels, machine, paths
from helpers.servers import constraints, flags
from helpers.servers.engine import Engine, Start

STAND_IN = Path(__file__).with_name("sgl_stand_in")  # a package sgl_kernel, for a CPU on which the real one does not run
STORE_VARIABLE = "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"  # where its processes meet; torch's TCPStore listens to every network
ON_CPU = flags.named(
    "sglang", device="cpu", attention="torch_native", sampling="pytorch", no_overlap=True, memory_share=0.3
)  # fmt: skip


def listening(start: Start) -> list[str]:
    """The server's command: the program, the weights, and where it listens; options follow."""
    return [
        start.python, "-m", "sglang.launch_server",
        *flags.options("sglang", weights=start.weights, name=start.name, host="127.0.0.1", port=start.port),
    ]  # fmt: skip


def command(start: Start) -> list[str]:
    """What starts the server."""
    return [
        *listening(start),
        *flags.options(
            "sglang", dtype="bfloat16", context=start.context, slots=start.slots, pool_tokens=start.pool_tokens(1),
            report_cached=True, metrics=True,
        ),
        *([] if machine.has_gpu() else flags.words(ON_CPU)),
    ]  # fmt: skip


def fields(output_tokens: int) -> dict:
    """Request fields for an answer of exactly ``output_tokens``."""
    return {"ignore_eos": True}


def environment(python: str) -> dict[str, str]:
    """The variables that its kernel and its server need; ``python`` is its interpreter."""
    if machine.has_gpu():
        return {}
    return {
        "SGLANG_USE_CPU_ENGINE": "1", "SGLANG_CPU_OMP_THREADS_BIND": machine.bound_cores(), **_stand_in(python),
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": kernels.QUIET["PYTHONWARNINGS"] + ",ignore:Only CUDA,ignore:Triton is not supported",
    }  # fmt: skip


def _stand_in(python: str) -> dict[str, str]:
    """The path of our ``sgl_kernel``, unless ``python`` can import a real one that runs here."""
    real = subprocess.run([python, "-c", "import sgl_kernel"], capture_output=True).returncode == 0
    return {} if real else {"PYTHONPATH": str(paths.present(STAND_IN / "sgl_kernel.py").parent)}


ENGINE = Engine(
    **vars(frameworks.get("sglang")), packages=("sglang", "torch"),
    command=command, fields=fields, store_variable=STORE_VARIABLE, constraints=constraints.SGLANG,
    tool_flags=tuple(flags.options("sglang", tool_parser="hermes")),
)  # fmt: skip
