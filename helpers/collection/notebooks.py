"""The numbered notebooks: what each needs, how it is executed, the form it is committed in.

A notebook's metadata has a table ``collection``: ``requires`` (a list of the values below; a
cell may have one too), ``compare`` (``strict``: all outputs, ``lax``: claim cells) and
``cell_timeout_s``: what a cell may take on an idle machine like that of its minutes (:class:`Budget`). The run that wrote
its outputs adds ``recorded``: machine, day, and a digest of them
(:mod:`helpers.collection.recorded`).
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers import kernels, machine, paths
from helpers.servers import tensorrt_llm
from helpers.weights import lora, models

NOT_MADE = "FRAMEWORKS_NOT_MADE"  # a variable: JSON, name to reason, of those that the set-up had to leave out
COMMON_NAMES = {"root", "user", "runner", "jovyan"}  # user names that are also words


def _kernel(name: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if why := json.loads(os.environ.get(NOT_MADE) or "{}").get(name):
            return f"{name} could not be set up: {why}"
        chosen = os.environ.get("FRAMEWORKS")
        if chosen and name not in chosen.split(","):
            return f"{name} was not chosen"
        return None if kernels.installed(name) else f"the kernel {name!r} is not installed"

    return missing


def _no_network() -> str | None:
    return "nothing is downloaded unless NETWORK=1 is set" if os.environ.get("NETWORK") != "1" else None


def _of_model(check: Callable[[models.Model], None]) -> Callable[[], str | None]:
    def missing() -> str | None:
        try:
            return check(models.resolve())
        except models.ModelError as error:
            return str(error)

    return missing


def _unless_replayed(missing: Callable[[], str | None]) -> Callable[[], str | None]:
    """``missing``, but of a replay nothing: its kernel says of each cell what it leaves out."""
    return lambda: None if kernels.replaying() else missing()


REQUIREMENTS: dict[str, Callable[[], str | None]] = {  # each returns why it is not met, or None
    "gpu": lambda: None if machine.has_gpu() else "no NVIDIA GPU here",
    "network": _no_network,
    "tensorrt-llm": tensorrt_llm.missing,
    **{name: _unless_replayed(_kernel(name)) for name in ("transformers", "vllm", "llama-cpp", "sglang")},
    "deploy": _unless_replayed(lambda: None if kernels.installed("deploy") else "the kernel 'deploy' is not installed"),
    # these ask for the model that MODEL names, not for the machine
    "gguf-bf16": _unless_replayed(_of_model(lambda model: models.check_form(model, "gguf-bf16"))),
    "gguf-adapter": _unless_replayed(_of_model(lora.check_gguf)),
    "chat-template": _unless_replayed(_of_model(models.check_chat_template)),
}


class Budget:
    """How long a cell may take: its notebook's ``cell_timeout_s``, and as much again for each time that the machine is slower.

    The machine is probed once, its load of the last minute is asked before each cell. A hang ends all the same.
    """

    def __init__(self) -> None:
        self.slowness = machine.slowness()

    def seconds(self, cell_timeout_s: int) -> int:
        """Twice ``cell_timeout_s`` on an idle machine, at most ``machine.MOST_SLOWNESS`` and one times."""
        return round(cell_timeout_s * (1 + max(self.slowness, machine.load_slowness())))


class NotebookError(ValueError):
    """A notebook that does not follow the collection's rules, or failed."""


@dataclass(frozen=True)
class Settings:
    """What a notebook's metadata says about running it."""

    requires: tuple[str, ...]
    compare: str
    cell_timeout_s: int


def settings(notebook: nbformat.NotebookNode, name: str) -> Settings:
    """The notebook's :class:`Settings`; :class:`NotebookError` for an unknown value."""
    given = dict(notebook.metadata.get("collection", {}))
    if set(given) - {"recorded"} != {"requires", "compare", "cell_timeout_s"} or given["compare"] not in ("strict", "lax"):
        raise NotebookError(f"{name}: its metadata needs collection = requires, compare (strict or lax) and cell_timeout_s")
    check_requires([given["requires"], *(c.metadata.get("requires", []) for c in notebook.cells)], name)
    return Settings(tuple(given["requires"]), given["compare"], given["cell_timeout_s"])


def facts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The rows of the table that a notebook opens with, by their names: ``Minutes``, ``Hardware``, ..."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.*?) \|$", notebook.cells[0].source, re.MULTILINE))


def check_requires(lists: Iterable[list[str]], name: str) -> None:
    """Raise :class:`NotebookError` for a requirement that does not exist."""
    for value in (value for values in lists for value in values):
        if value not in REQUIREMENTS:
            raise NotebookError(f"{name}: requires {value!r}, which is none of {', '.join(REQUIREMENTS)}")


def unmet(requires: Iterable[str]) -> str | None:
    """Why something in ``requires`` is not met on this machine, or ``None``."""
    return next((reason for value in requires if (reason := REQUIREMENTS[value]())), None)


def canonical(notebook: nbformat.NotebookNode) -> str:
    """The one text form a notebook is committed in: no timings, versions or widget state; a collapsed cell stays so.

    The cell that checks an exercise has no output: what it says is for whoever has answered.
    """
    notebook.metadata = {
        "collection": notebook.metadata["collection"],
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("jupyter", "requires", "tags") and value}
        if cell.cell_type == "code":
            cell.outputs = [] if is_check(cell) else _joined([_without_noise(output) for output in cell.outputs])
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def is_exercise(cell: nbformat.NotebookNode) -> bool:
    """Whether ``cell`` is for the reader's practice and teaches nothing itself.

    It has the gap of an exercise or checks it (:mod:`helpers.collection.exercises`), or shows the questions
    (:mod:`helpers.collection.quiz`).
    """
    return bool({"exercise", "exercise-check", "questions"} & set(cell.metadata.get("tags", [])))


def is_check(cell: nbformat.NotebookNode) -> bool:
    """Whether ``cell`` checks an exercise."""
    return "exercise-check" in cell.metadata.get("tags", [])


def _without_noise(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    if "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return output


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Pieces of one stream that the kernel happened to send apart, as one."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.get("name", "no stream") == found[-1].get("name"):
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def private_words() -> list[str]:
    """What must not stand in an output: this machine's paths, its user and its host name."""
    names = {getpass.getuser(), socket.gethostname()} - COMMON_NAMES
    folders = {str(Path.home()), str(paths.REPOSITORY), tempfile.gettempdir(), "/home/", "/Users/"}
    return sorted(word + ("" if word.endswith("/") or word in names else "/") for word in names | folders if len(word) > 3)


def leaks(notebook: nbformat.NotebookNode) -> list[str]:
    """The private words that stand in the notebook's outputs."""
    text = str([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    return [word for word in private_words() if word in text]


def claims(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells whose output is compared on every run: each prints booleans, and all of them True."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and "# NBVAL_CHECK_OUTPUT" in cell.source]


def ran_claims(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The claim cells that this machine can run."""
    return [cell for cell in claims(notebook) if not unmet(cell.metadata.get("requires", []))]


def refuted(ran: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Those of the claim cells ``ran`` whose last run printed a False, or no True."""
    printed = [(cell, "".join(map(plain, cell.outputs))) for cell in ran]
    return [cell for cell, text in printed if "False" in text or "True" not in text]


def plain(output: nbformat.NotebookNode) -> str:
    """What an output shows, as text."""
    return output.get("text") or output.get("data", {}).get("text/plain", "")
