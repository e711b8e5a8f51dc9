"""llama.cpp's server: its own program where :data:`BINARIES` says so, else the wheel ``xllamacpp`` in its kernel.

A wheel of xllamacpp computes on the CPU; a build with CUDA brings ``llama-server``. Both take the same
options for drafts and chat templates.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from jupyter_client.kernelspec import NoSuchKernel

from helpers import kernels

if TYPE_CHECKING:
    from helpers.servers.engines import Request

BINARIES = "LLAMA_CPP_BIN"  # in llama-cpp's kernelspec or the environment: where llama-server and llama-batched-bench are
KV_CACHE_VERBOSITY = "4"  # at 3, its default, the log does not say how large the KV cache is


def binaries() -> str | None:
    """The folder with llama.cpp's own programs: of its kernelspec, else of the environment; ``None`` without one."""
    try:
        return kernels.environment("llama-cpp").get(BINARIES) or os.environ.get(BINARIES)
    except NoSuchKernel:
        return os.environ.get(BINARIES)


def command(request: Request, threads: int, gpu: bool) -> list[str]:
    """What starts the server."""
    layers = "999" if gpu else "0"
    if folder := binaries():
        more = ["--threads", str(threads), "--n-gpu-layers", layers, "--slots", "--verbosity", KV_CACHE_VERBOSITY]
        return [*program(folder, request), *more]
    return [
        request.python, "-m", "helpers.servers.xllamacpp_server", "--model", str(request.weights), "--port", str(request.port),
        "--slots", str(request.slots), "--context", str(request.context), "--threads", str(threads), "--gpu-layers", layers,
    ]  # fmt: skip


def program(folder: str, request: Request) -> list[str]:
    """The program in ``folder`` and what it is told of ``request``, on loopback."""
    return [
        f"{folder}/llama-server", "--model", str(request.weights), "--alias", request.name,
        "--host", "127.0.0.1", "--port", str(request.port), "--parallel", str(request.slots),
        "--ctx-size", str(request.slots * request.context), "--metrics",
        "--cache-ram", "0",  # else it copies the KV cache of prompts that are done to the machine's memory
    ]  # fmt: skip


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
