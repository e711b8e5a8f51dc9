"""Notebooks without an engine: what can be computed from records is, the rest is shown as its last run left it.

``python -m helpers.collection.replay`` writes the kernelspecs of a replay and prints the folder that JUPYTER_PATH must name.
Each is :class:`ReplayKernel` in this interpreter, whatever engine a notebook asks for. A cell that needs an engine, the
model or a package of another environment says so in one line and shows the output that the notebook was committed with;
so does a later cell that reads what such a cell would have made. Nothing of it is measured: the line names the machine
and the day.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ipykernel.ipkernel import IPythonKernel
from IPython.display import clear_output, publish_display_data

from helpers import kernels, paths
from helpers.collection import bindings, recorded
from helpers.frameworks import FRAMEWORKS
from helpers.servers import install
from helpers.weights.named import ModelError

FOLDER = paths.REPOSITORY / ".jupyter" / "replay"
KERNELS = {  # all that a notebook may name, with their titles; here each is the lab's own interpreter
    "lab": "Lab",
    "deploy": "Deployment",
    **{one.kernel: one.title for one in FRAMEWORKS.values() if one.name == one.kernel},
}
NOTEBOOK = "JPY_SESSION_NAME"  # the notebook of a kernel: JupyterLab sets it, and so does helpers.collection.run
LEFT_OUT = (kernels.MissingKernel, ModelError, ModuleNotFoundError)
IN_KERNEL = re.compile(r"%%in\s+(\S+)")
SHELL = re.compile(r"%%(?:bash|sh)\b")
VARIABLE = re.compile(r"\$\{?([A-Z_][A-Z_0-9]*)")


@dataclass
class Replay:
    """What is missing in a notebook's kernel, and what the notebook was committed with.

    ``cells`` has the outputs by the source of their cell, ``recorded`` where and when they were made; ``missing`` says of
    each name why no cell has made it.
    """

    cells: Mapping[str, list[dict]] = field(default_factory=dict)
    recorded: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    functions: dict[str, bindings.Names] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Replay:
        """The replay of the notebook at ``path``; of none where there is no such notebook."""
        if path.suffix != ".ipynb" or not path.exists():
            return cls()
        notebook = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        outputs = {recorded.text(cell["source"]).strip(): cell["outputs"] for cell in code}
        return cls(outputs, recorded.where(notebook))

    def why_not(self, source: str) -> str | None:
        """Why the cell cannot run, as far as its text says: it is for another kernel, or reads what is missing."""
        if kernel := IN_KERNEL.match(source):  # the magic may not be loaded, where the cell that loads it is left out
            return kernels.missing_in_replay(kernel[1])
        if SHELL.match(source):
            unset = [name for name in VARIABLE.findall(source) if name not in os.environ]
            return f"no server was started, so ${unset[0]} is not set" if unset else None
        read = sorted(bindings.of(source, self.functions).read & self.missing.keys())
        return f"{read[0]} is missing: {self.missing[read[0]]}" if read else None

    def ran(self, source: str) -> None:
        """What the cell has made is there."""
        names = bindings.of(source, self.functions)
        self.functions |= names.functions
        for name in names.made:
            self.missing.pop(name, None)

    def left_out(self, source: str, why: str, there: Mapping[str, object]) -> None:
        """What the cell would have made is missing, and so is what it would have changed; a module is no value of a cell's."""
        names, why = bindings.of(source, self.functions), why.rpartition(" is missing: ")[2]
        self.functions |= names.functions
        self.missing |= {name: why for name in names.made if not isinstance(there.get(name), ModuleType)}

    def show(self, source: str, why: str) -> None:
        """The line that the cell is left out, and what it was committed with."""
        earlier = self.cells.get(source.strip(), [])
        where = next(filter(None, (note(output) for output in earlier)), None) or self.recorded
        outputs = [output for output in earlier if note(output) is None]
        below = f"; below: {where}" if outputs else ""
        publish_display_data({"text/plain": f"left out: {why}{below}"}, {"replay": where})
        for output in outputs:
            _show(output)


def shown(cells: Iterable[Mapping]) -> list[Mapping]:
    """Those of executed ``cells`` that did not run, but show what was recorded."""
    return [cell for cell in cells if any(note(output) is not None for output in cell.get("outputs", []))]


def note(output: Mapping) -> str | None:
    """Of a line that a replay has written: where and when the outputs below it were made. ``None`` for any other output."""
    return output.get("metadata", {}).get("replay")


def _show(output: Mapping) -> None:
    if "text" in output:
        stream = sys.stderr if output["name"] == "stderr" else sys.stdout
        stream.write(recorded.text(output["text"]))
        stream.flush()
    elif "data" in output:
        publish_display_data(recorded.data(output), output["metadata"])


class ReplayKernel(IPythonKernel):
    """A kernel of Python that leaves out what needs an engine."""

    def __init__(self, **options):
        super().__init__(**options)
        self.replay = Replay.of(Path(os.environ.get(NOTEBOOK, "")))
        self.caught: str | None = None
        self.shell.set_custom_exc(LEFT_OUT, self._catch)

    def _catch(self, shell, kind, error: Exception, traceback, tb_offset=None) -> None:
        if isinstance(error, ModuleNotFoundError):
            self.caught = f"there is no package {error.name!r} in the lab's environment"
        else:
            self.caught = str(error)

    async def do_execute(self, code, silent, *arguments, **options):
        """As any kernel, but a cell that cannot run here is left out, and that is no error."""
        if silent:  # asked by a program, not by a cell
            return await super().do_execute(code, silent, *arguments, **options)
        self.caught = why = self.replay.why_not(code)
        reply = await super().do_execute("pass" if why else code, silent, *arguments, **options)
        if self.caught is None:
            if reply["status"] == "ok":
                self.replay.ran(code)
            return reply
        sys.stdout.flush()
        clear_output()
        self.replay.left_out(code, self.caught, self.shell.user_ns)
        self.replay.show(code, self.caught)
        return {"status": "ok", "execution_count": reply["execution_count"], "user_expressions": {}, "payload": []}


def kernelspecs() -> Path:
    """Write a kernelspec for every kernel that a notebook may name; returns the folder for JUPYTER_PATH."""
    options = [f"--IPKernelApp.kernel_class=helpers.collection.replay.{ReplayKernel.__name__}"]
    for name, title in KERNELS.items():
        install.kernelspec(name, f"{title}, replayed", sys.executable, {kernels.REPLAY: "1"}, folder=FOLDER, options=options)
    return FOLDER


if __name__ == "__main__":
    print(kernelspecs())
