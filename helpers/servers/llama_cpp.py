"""llama.cpp's server: its own program where :data:`BINARIES` says so, else the wheel ``xllamacpp`` in its kernel.

A wheel of xllamacpp computes on the CPU; a build with CUDA brings ``llama-server``. Both take the same
options for drafts and chat templates.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from jupyter_client.kernelspec import NoSuchKernel

from helpers import frameworks, kernels, machine
from helpers.servers import constraints, flags
from helpers.servers.engine import Drafting, Engine, Start

BINARIES = "LLAMA_CPP_BIN"  # in llama-cpp's kernelspec or the environment: where llama-server and llama-batched-bench are
KV_CACHE_VERBOSITY = "4"  # at 3, its default, the log does not say how large the KV cache is

# It ignores tools where the model's chat template has no place for them, as the default model's.
TOOLS_TEMPLATE = Path(__file__).with_name("tools_template.jinja")


def binaries() -> str | None:
    """The folder with llama.cpp's own programs: of its kernelspec, else of the environment; ``None`` without one."""
    try:
        return kernels.environment("llama-cpp").get(BINARIES) or os.environ.get(BINARIES)
    except NoSuchKernel:
        return os.environ.get(BINARIES)


def command(start: Start) -> list[str]:
    """What starts the server, on every core: its default is half of them."""
    threads, gpu_layers = machine.cores(), "999" if machine.has_gpu() else "0"
    if folder := binaries():
        more = {"threads": threads, "gpu_layers": gpu_layers, "report_slots": True, "verbosity": KV_CACHE_VERBOSITY}
        return [*program(folder, start), *flags.options("llama-cpp", **more)]
    return [
        start.python, "-m", "helpers.servers.xllamacpp_server", "--model", str(start.weights), "--port", str(start.port),
        "--slots", str(start.slots), "--context", str(start.context), "--threads", str(threads), "--gpu-layers", gpu_layers,
    ]  # fmt: skip


def program(folder: str, start: Start) -> list[str]:
    """The program in ``folder`` and what it is told of ``start``, on loopback."""
    return [
        f"{folder}/llama-server",
        *flags.options(
            "llama-cpp", weights=start.weights, name=start.name, host="127.0.0.1", port=start.port, slots=start.slots,
            pool_tokens=start.slots * start.context, metrics=True,
            prompt_cache_mib=0,  # else it copies the KV cache of prompts that are done to the machine's memory
        ),
    ]  # fmt: skip


def fields(output_tokens: int) -> dict:
    """Request fields for an answer of exactly ``output_tokens``, its prefix cache off."""
    return {"ignore_eos": True, "cache_prompt": False}


def drafting(how: Drafting) -> list[str]:
    """Options that make the server draft."""
    if how.model:
        return flags.options("llama-cpp", drafting="draft-simple", draft_model=how.model, draft_tokens=how.tokens)
    return flags.options("llama-cpp", drafting="ngram-simple", ngram=how.ngram, ngram_draft_tokens=how.tokens)


def version() -> str | None:
    """What the program says of itself."""
    said = _said("--version")
    found = re.search(r"version: (.+)", said)
    return found and found.group(1).strip()


def draft_kinds() -> list[str]:
    """How its server can draft, by the names of ``--spec-type``; in llama-cpp's kernel where there is no program."""
    if binaries():
        names = re.search(r"--spec-type (\S+)", _said("--help"))[1].split(",")
    else:
        import xllamacpp

        members = xllamacpp.common_speculative_type.__members__
        names = [name.removeprefix("COMMON_SPECULATIVE_TYPE_").lower().replace("_", "-") for name in members]
    return [name for name in names if name not in ("none", "count")]


def _said(option: str) -> str:
    command, env = [f"{binaries()}/llama-server", option], kernels.process_environment("llama-cpp")
    ran = subprocess.run(command, capture_output=True, text=True, env=env)
    return ran.stderr + ran.stdout


_COMMON = {
    "packages": ("xllamacpp",), "command": command, "fields": fields, "cache_fields": {"cache_prompt": True},
    "drafting": drafting, "constraints": constraints.LLAMA_CPP,
    "tool_flags": tuple(flags.options("llama-cpp", template=TOOLS_TEMPLATE)),
}  # fmt: skip
ENGINE = Engine(**vars(frameworks.get("llama-cpp")), form="gguf", **_COMMON)
ENGINE_BF16 = Engine(**vars(frameworks.get("llama-cpp-bf16")), form="gguf-bf16", **_COMMON)
