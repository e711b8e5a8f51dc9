"""Kernelspecs for engines that were prepared elsewhere: ``python -m helpers.gpu kernelspecs FOLDER``.

For a machine with a GPU but no network. FOLDER has, as far as they were brought along, an interpreter for each engine
(``vllm-env/bin/python3``, ``sglang-env``, ``transformers-env``) and one for the router (``deploy-env``), ``lab/site`` (what
the lab needs, found by this interpreter), and ``llama`` with llama.cpp's binaries.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from helpers import paths
from helpers.servers import engines, install, llama_cpp

ENGINES = ("transformers", "vllm", "sglang", "llama-cpp", "tensorrt-llm")
TITLES = {"lab": "Lab", "deploy": "Deployment"} | {name: engines.TITLES[name] for name in ENGINES}
OWN = ("transformers", "vllm", "sglang", "deploy")  # with an interpreter of their own
EXTRAS = "vllm-extras/site/triton_cache"  # kernels that vLLM's sampler need not compile
THIS_COLLECTION = "zz-collection.pth"  # in an engine's packages: where helpers are

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
    there = [kernel for kernel in TITLES if _is_there(kernel, folder)]
    for kernel in there:
        install.kernelspec(kernel, TITLES[kernel], interpreter(kernel, folder), env=environment(kernel, folder))
        if kernel in OWN:
            _show_collection(folder / f"{kernel}-env")
    return there


def interpreter(kernel: str, folder: Path) -> str:
    """The engine's own, or this one."""
    return str(folder / f"{kernel}-env" / "bin" / "python3") if kernel in OWN else sys.executable


def _is_there(kernel: str, folder: Path) -> bool:
    return (folder / "llama" / "llama-server").exists() if kernel == "llama-cpp" else Path(interpreter(kernel, folder)).exists()


def _show_collection(environment_folder: Path) -> None:
    """So that the engine's interpreter finds helpers, behind its own packages."""
    version = "python{}.{}".format(*sys.version_info[:2])
    (environment_folder / "lib" / version / "site-packages" / THIS_COLLECTION).write_text(f"{paths.REPOSITORY}\n")


def environment(kernel: str, folder: Path) -> dict[str, str]:
    """The variables of ``kernel``: the engine's own, what was compiled for it, and where llama.cpp's libraries are."""
    own = dict(engines.environment(kernel, interpreter(kernel, folder)))
    if kernel == "vllm" and (folder / EXTRAS).is_dir():
        own |= {"TRITON_CACHE_DIR": str(folder / EXTRAS), "TOPK_TOPP": "torch"}
    if kernel == "llama-cpp":
        binaries = folder / "llama"
        own |= {llama_cpp.BINARIES: str(binaries), "LLAMA_CPP_LIB_PATH": str(binaries)}
        own["LD_LIBRARY_PATH"] = os.pathsep.join([str(binaries), *_cuda_libraries()])
        own["LD_PRELOAD"] = STANDARD_LIBRARY
    return own if kernel in OWN else {**own, "PYTHONPATH": os.pathsep.join([str(folder / "lab" / "site"), str(paths.REPOSITORY)])}


def _cuda_libraries() -> list[str]:
    """Where torch's packages keep CUDA's libraries, the toolkit's folder, and what is in the path already."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = sorted({str(lib.parent) for lib in packages.glob("**/lib/lib*.so*")})
    toolkit = [str(lib) for lib in (Path("/usr/local/cuda/lib64"),) if lib.is_dir()]
    return [*found, *toolkit, *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))]
