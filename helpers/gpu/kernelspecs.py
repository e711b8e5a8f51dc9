"""Kernelspecs for engines that were prepared elsewhere: ``python -m helpers.gpu kernelspecs FOLDER``.

For a machine with torch and a GPU but no network. FOLDER has, as far as they were brought along,
``lab/site`` (what the lab and every kernel need), ``common/site``, ``vllm/site``, ``sglang/site`` and
``llama`` with llama.cpp's binaries. Every kernel runs this interpreter; what it finds beside it stands
in its ``PYTHONPATH``, so that two engines never meet in one process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from helpers import paths
from helpers.servers import engines, install, llama_cpp

TITLES = {"lab": "Lab"} | {name: engines.TITLES[name] for name in ("transformers", "vllm", "sglang", "llama-cpp", "tensorrt-llm")}
OWN_SITES = {"vllm": ("vllm", "common"), "sglang": ("sglang", "common"), "transformers": ("common",)}
MUST_HAVE = {"vllm": "vllm/site/vllm", "sglang": "sglang/site/sglang", "llama-cpp": "llama/llama-server"}

# Where llama.cpp's libraries carry C++'s standard library in themselves (-static-libstdc++), two of them meet in
# a kernel, since ZeroMQ brings the system's: loading a model then crashes. Loaded first, all take the system's.
STANDARD_LIBRARY = "libstdc++.so.6"


class NothingPrepared(ValueError):
    """A folder without engines."""


def write(folder: Path) -> list[str]:
    """Write the kernelspecs of what ``folder`` has; returns their names."""
    folder = folder.absolute()
    if not (folder / "lab" / "site").is_dir():
        raise NothingPrepared(f"{folder} holds no prepared environments: it has no lab/site; unpack them there first")
    there = [kernel for kernel in TITLES if (folder / MUST_HAVE.get(kernel, ".")).exists()]
    for kernel in there:
        install.kernelspec(kernel, TITLES[kernel], sys.executable, env=environment(kernel, folder))
    return there


def environment(kernel: str, folder: Path) -> dict[str, str]:
    """The variables of ``kernel``: the engine's own, where its packages lie, and where llama.cpp's libraries are."""
    sites = [folder / name / "site" for name in (*OWN_SITES.get(kernel, ()), "lab")]
    path = os.pathsep.join(map(str, [*filter(Path.is_dir, sites), paths.REPOSITORY]))
    own = dict(engines.environment(kernel, sys.executable))
    if kernel == "vllm":
        own["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # it is not built there
    if kernel == "llama-cpp":
        binaries = folder / "llama"
        own |= {llama_cpp.BINARIES: str(binaries), "LLAMA_CPP_LIB_PATH": str(binaries)}
        own["LD_LIBRARY_PATH"] = os.pathsep.join([str(binaries), *_cuda_libraries()])
        own["LD_PRELOAD"] = STANDARD_LIBRARY
    return {**own, "PYTHONPATH": path}


def _cuda_libraries() -> list[str]:
    """Where torch's packages keep CUDA's libraries, the toolkit's folder, and what is in the path already."""
    packages = [Path(entry) / "nvidia" for entry in sys.path if entry.endswith("-packages")]
    found = sorted({str(lib.parent) for root in packages for lib in root.glob("**/lib/lib*.so*")})
    toolkit = [str(lib) for lib in (Path("/usr/local/cuda/lib64"),) if lib.is_dir()]
    return [*found, *toolkit, *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))]
