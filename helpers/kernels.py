"""One framework = one Jupyter kernel, and ``%%in``, which runs a cell in another one.

A kernelspec in ``.jupyter/kernels`` says where a framework lives: its ``metadata`` names the
interpreter. ``%load_ext helpers.kernels`` gives a notebook the cell magic

    %%in transformers [-o NAME]

The cell runs in that framework's kernel and its output appears here; ``-o NAME`` brings the
value of ``NAME`` back, if JSON can carry it.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from queue import Empty

from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from helpers import paths

START_TIMEOUT_S = 60
REPLAY = "REPLAY"  # a variable: 1 where notebooks are replayed without any engine (helpers.collection.replay)

QUIET = {  # no telemetry, no update checks, no hub: for kernels and servers alike
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else importing LiteLLM downloads a price list; it sends no usage report
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm, where ipywidgets is not installed
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


class MissingKernel(RuntimeError):
    """A framework's kernel is not installed on this machine."""


def specs() -> KernelSpecManager:
    """Jupyter's kernelspecs, with the repository's own folder first."""
    manager = KernelSpecManager()
    own = str(paths.REPOSITORY / ".jupyter" / "kernels")
    manager.kernel_dirs = [own, *(folder for folder in manager.kernel_dirs if folder != own)]
    return manager


def replaying() -> bool:
    """Whether this process belongs to a replay, which starts no engine even where one is installed."""
    return os.environ.get(REPLAY) == "1"


def missing_in_replay(kernel: str) -> str:
    """What a replay says of a cell that needs ``kernel``."""
    return f"a replay starts no engine, and the kernel {kernel!r} is asked for"


def interpreter(kernel: str) -> str:
    """The Python that ``kernel`` runs; :class:`MissingKernel` with the next step if there is none, and in a replay."""
    if replaying():
        raise MissingKernel(missing_in_replay(kernel))
    try:
        spec = specs().get_kernel_spec(kernel)
    except NoSuchKernel:
        raise MissingKernel(f"the kernel {kernel!r} is not installed: run `nox -s tour -- {kernel}`") from None
    python = spec.metadata.get("interpreter")
    if not python or not os.access(python, os.X_OK):
        raise MissingKernel(f"the kernel {kernel!r} names no interpreter that is there ({python}): run `nox -s tour -- {kernel}`")
    return python


class AskError(RuntimeError):
    """A program failed in another interpreter. The message is its last line, ``errors`` all that it wrote to standard error."""

    def __init__(self, reason: str, errors: str = ""):
        super().__init__(reason)
        self.errors = errors


def run(
    kernel: str | None, module: str, *arguments: str, given: str | None = None, timeout_s: float | None = None, **variables: str
) -> str:
    """What ``python -m module`` prints in ``kernel``'s interpreter (``None``: in this one); ``given`` is its standard input.

    It is started with the kernel's variables and with ``variables``, and has ended when this returns.
    :class:`MissingKernel`, or :class:`AskError` if it fails or takes longer than ``timeout_s``.
    """
    return _run(kernel, ["-m", module, *arguments], given, timeout_s, variables)


def ask(kernel: str | None, module: str, *arguments: str, given: str | None = None, timeout_s: float | None = None):
    """As :func:`run`, for a module whose last printed line is JSON: returns its value. Libraries may print before it."""
    return json.loads(run(kernel, module, *arguments, given=given, timeout_s=timeout_s).splitlines()[-1])


def ask_code(kernel: str, code: str, *arguments: str):
    """As :func:`ask`, of a few lines of code, which find ``arguments`` in ``sys.argv[1:]``."""
    return json.loads(_run(kernel, ["-c", code, *arguments], None, None, {}).splitlines()[-1])


def _run(kernel: str | None, what: list[str], given: str | None, timeout_s: float | None, variables: Mapping[str, str]) -> str:
    python, env = (interpreter(kernel), process_environment(kernel)) if kernel else (sys.executable, dict(os.environ))
    try:
        ran = subprocess.run(
            [python, *what], input=given, capture_output=True, text=True, env=env | variables, timeout=timeout_s
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AskError(f"it did not end within {timeout_s:g} s") from None
    if ran.returncode:
        lines = ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode} and wrote nothing"]
        raise AskError(lines[-1], ran.stderr)
    return ran.stdout


def environment(kernel: str) -> dict[str, str]:
    """The environment variables that ``kernel`` is started with."""
    return specs().get_kernel_spec(kernel).env


def process_environment(kernel: str) -> dict[str, str]:
    """The environment in which a process of ours is started in ``kernel``'s interpreter: this one's and the kernel's variables.

    Without the kernel's own its packages may not be found.
    """
    return {**os.environ, **environment(kernel)}


def installed(kernel: str) -> bool:
    """Whether ``kernel`` is installed and its interpreter is there.

    A replay has no answer, since "no" would be read as what this machine has: :class:`MissingKernel`.
    """
    if replaying():
        return bool(interpreter(kernel))
    try:
        return bool(interpreter(kernel))
    except MissingKernel:
        return False


class RemoteCellError(RuntimeError):
    """A ``%%in`` cell failed in its own kernel; the traceback stands above."""


class Remote:
    """A kernel of another framework, started at the first cell that runs in it."""

    def __init__(self, kernel: str):
        interpreter(kernel)  # says what is missing before anything starts
        self.manager = KernelManager(kernel_name=kernel, kernel_spec_manager=specs())
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def run(self, code: str, show) -> None:
        """Run ``code``, passing each output message to ``show(type, content)``."""
        # a cell that failed or was interrupted must not make the kernel refuse the next one
        asked = self.client.execute(code, allow_stdin=False, stop_on_error=False)
        try:
            kind = content = None
            while kind != "status" or content["execution_state"] != "idle":
                kind, content = self._next(self.client.get_iopub_msg, asked)
                show(kind, content)
            _, content = self._next(self.client.get_shell_msg, asked)
        except KeyboardInterrupt:
            self.manager.interrupt_kernel()
            raise
        if content["status"] != "ok":
            raise RemoteCellError(f"{content.get('ename', 'aborted')}: {content.get('evalue', '')}")

    def _next(self, get: Callable[..., dict], asked: str) -> tuple[str, dict]:
        """The type and content of the next message about request ``asked``, while the kernel lives."""
        while True:
            try:
                message = get(timeout=1)
            except Empty:
                if not self.manager.is_alive():
                    ended = f"the kernel {self.manager.kernel_name!r} ended while it ran the cell: run its cells again"
                    raise RemoteCellError(ended) from None
                continue
            if message["parent_header"].get("msg_id") == asked:
                return message["header"]["msg_type"], message["content"]

    def stop(self) -> None:
        """End the kernel gently, so that engines inside it can end their own processes."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=not self.manager.is_alive())


_running: dict[str, Remote] = {}


def remote(kernel: str) -> Remote:
    """The running kernel called ``kernel``; started if it is not running."""
    if kernel not in _running or not _running[kernel].manager.is_alive():
        stop(kernel)  # one that ended leaves its connection file
        _running[kernel] = Remote(kernel)
    return _running[kernel]


def stop(kernel: str | None = None) -> None:
    """End one ``%%in`` kernel, or all of them; also done when this process ends."""
    for name in [kernel] if kernel else list(_running):
        if name in _running:
            _running.pop(name).stop()


atexit.register(stop)


def _show(kind: str, content: dict) -> None:
    """Show another kernel's output as if it were this one's."""
    from IPython.display import clear_output, publish_display_data

    if kind == "stream":
        stream = sys.stderr if content["name"] == "stderr" else sys.stdout
        stream.write(content["text"])
        stream.flush()
    elif kind in ("display_data", "execute_result", "update_display_data"):
        update = {"update": True} if kind == "update_display_data" else {}
        publish_display_data(content["data"], content["metadata"], transient=content.get("transient"), **update)
    elif kind == "clear_output":
        clear_output(wait=content["wait"])
    elif kind == "error":
        print("\n".join(content["traceback"]), file=sys.stderr)


def _magic(line: str, cell: str) -> None:
    """``%%in FRAMEWORK [-o NAME]``: run the cell in the framework's kernel."""
    from IPython import get_ipython
    from IPython.core.error import UsageError

    parser = argparse.ArgumentParser(prog="%%in", add_help=False, exit_on_error=False)
    parser.add_argument("framework", nargs="?")
    parser.add_argument("-o", dest="name")
    try:
        options, unknown = parser.parse_known_args(line.split())
    except argparse.ArgumentError as error:
        raise UsageError(f"%%in: {error}") from None
    if unknown or not options.framework:
        raise UsageError(f"%%in {line}: write %%in FRAMEWORK [-o NAME]")
    kernel = remote(options.framework)
    kernel.run(cell, _show)
    if options.name:
        printed: list[str] = []
        ask = f"print(__import__('json').dumps({options.name}))"
        kernel.run(ask, lambda kind, content: printed.append(content.get("text", "")))
        get_ipython().push({options.name: json.loads("".join(printed))})


def load_ipython_extension(shell) -> None:
    """Called by ``%load_ext helpers.kernels``."""
    shell.register_magic_function(_magic, "cell", "in")
