"""A framework's kernel: its kernelspec is written, the versions in it and what it cost are read.

python -m helpers.servers.install KERNEL TITLE PYTHON
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers import kernels, paths
from helpers.servers import engines, llama_cpp

# A kernel that is killed leaves the processes of an engine that it had loaded: vLLM's EngineCore goes on, and keeps its
# memory. So something outside watches it. Jupyter starts a kernel as the leader of a process group, in which its children
# are; when the kernel is gone the group is ended. An interrupt, which the whole group gets, does not end the watch.
WATCH = 'trap "" INT TERM HUP; while kill -0 $1 2>/dev/null; do sleep 1; done; kill -s KILL -- -$1'
WATCHED = '(exec sh -c "$0" watch $$ </dev/null >/dev/null 2>&1 &); exec "$@"'  # a process of its own, not the kernel's child


def kernelspec(
    kernel: str, title: str, python: str, env: Mapping[str, str] | None = None, *, folder: Path | None = None,
    options: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the kernelspec of ``kernel``: ``python`` with ``env``, without ``PYTEST_CURRENT_TEST``, telemetry and history off.

    It goes into ``kernels`` in ``folder`` (default: the repository's ``.jupyter``); ``options`` are ipykernel's. What a kernel
    has started ends with it, killed or not (:data:`WATCHED`).

    ipykernel stops capturing file descriptors where that variable stands, and an engine that
    redirects its own output then fails; a kernelspec's ``env`` cannot unset it, ``env -u`` can.
    All kernels of a user share one history database, and one that finds it locked by another says
    so in the output of whichever cell runs.
    """
    folder = (folder or paths.REPOSITORY / ".jupyter") / "kernels" / kernel
    spec = {
        "argv": [
            shutil.which("sh") or "/bin/sh", "-c", WATCHED, WATCH,
            shutil.which("env") or "/usr/bin/env", "-u", "PYTEST_CURRENT_TEST",
            python, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR", "--HistoryManager.enabled=False",
            *options,
        ],
        "display_name": title,
        "language": "python",
        "env": {**kernels.QUIET, **(env or {})},
        "metadata": {"debugger": True, "interpreter": python},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"kernel.json.{os.getpid()}"
    partial.write_text(json.dumps(spec, indent=1) + "\n")
    os.replace(partial, folder / "kernel.json")
    return folder / "kernel.json"


def edited(kernel: str) -> bool:
    """Whether the reader has pointed ``kernel`` at an installation of their own, outside ``.venvs``."""
    file = paths.REPOSITORY / ".jupyter" / "kernels" / kernel / "kernel.json"
    python = json.loads(file.read_text())["metadata"].get("interpreter", "") if file.exists() else ""
    ours = python == sys.executable or Path(python).is_relative_to(paths.REPOSITORY / ".venvs")
    return os.access(python, os.X_OK) and not ours


def versions(engine: engines.Engine) -> dict[str, str | None]:
    """The versions of those of ``engine``'s packages that are installed, asked of its own interpreter or program."""
    if engine.kernel == "llama-cpp" and llama_cpp.named_binaries():
        return {"llama.cpp": llama_cpp.version()}
    if engine.kernel == "llama-cpp" and llama_cpp.compiled_binaries():
        return versions_in(engine.kernel, ["llama-cpp-python"])  # the release that the program was compiled from
    return versions_in(engine.kernel, engine.packages)


def versions_in(kernel: str, packages: Sequence[str]) -> dict[str, str | None]:
    """The versions of those of ``packages`` that ``kernel`` has."""
    code = (
        "import json,sys; from importlib import metadata as m\n"
        "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return None\n"
        "print(json.dumps({n: v(n) for n in sys.argv[1:]}))"
    )
    return {name: version for name, version in kernels.ask_code(kernel, code, *packages).items() if version}


def cost(engine: engines.Engine) -> dict[str, float | int | None]:
    """What ``engine``'s environment costs: GB on disk, installed packages, minutes its installation took here.

    The minutes are written down by the installation; ``None`` where someone else installed it.
    """
    code = (
        "import json,sys; from importlib import metadata as m\n"
        "print(json.dumps([sys.prefix, len({d.name for d in m.distributions()})]))"
    )
    prefix, packages = kernels.ask_code(engine.kernel, code)
    size = sum(file.lstat().st_size for file in Path(prefix).rglob("*") if not file.is_dir())
    setup = Path(prefix) / "installed.json"
    minutes = json.loads(setup.read_text())["minutes"] if setup.exists() else None
    return {"GB": round(size / 1e9, 1), "packages": packages, "install, min": minutes}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install a framework's kernelspec into the repository.")
    for name in ("kernel", "title", "python"):
        parser.add_argument(name)
    options = parser.parse_args()
    if not edited(options.kernel):
        kernelspec(**vars(options), env=engines.environment(options.kernel, options.python))
