"""The numbered notebooks: what each needs, how it is executed, the form it is committed in.

A notebook's metadata has a table ``collection``: ``requires`` (a list of the values below; a
cell may have one too), ``compare`` (``strict``: all outputs, ``lax``: claim cells) and
``cell_timeout_s``.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers import kernels
from helpers.servers import engines, guard

FOLDER = kernels.REPOSITORY / "notebooks"
TOUR = kernels.REPOSITORY / "tour"
COMPARISON = ("00", "07")  # what a tour is for: they run first
MINUTES = re.compile(r"(\|\s*\**Minutes\**\s*\|\s*)[^|]*?(\s*\|)")
COMMON_NAMES = {"root", "user", "runner", "jovyan"}  # user names that are also words


def _kernel(name: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        chosen = os.environ.get("FRAMEWORKS")
        if chosen and name not in chosen.split(","):
            return f"{name} was not chosen"
        return None if kernels.installed(name) else f"the kernel {name!r} is not installed"

    return missing


def _no_network() -> str | None:
    return "nothing is downloaded unless NETWORK=1 is set" if os.environ.get("NETWORK") != "1" else None


REQUIREMENTS: dict[str, Callable[[], str | None]] = {  # each returns why it is not met, or None
    "gpu": lambda: None if engines.has_gpu() else "no NVIDIA GPU here",
    "network": _no_network,
    "tensorrt-llm": engines.tensorrt_llm_missing,
    **{name: _kernel(name) for name in ("transformers", "vllm", "llama-cpp", "sglang")},
    "deploy": lambda: None if kernels.installed("deploy") else "the kernel 'deploy' is not installed",
}


class NotebookError(ValueError):
    """A notebook that does not follow the collection's rules, or failed."""


@dataclass(frozen=True)
class Settings:
    """What a notebook's metadata says about running it."""

    requires: tuple[str, ...]
    compare: str
    cell_timeout_s: int


def listed() -> list[Path]:
    """The numbered notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def numbered(number: str) -> Path | None:
    """The notebook whose file name begins with ``number``, such as ``07``; ``None`` if it is not there."""
    return next((path for path in listed() if path.name.startswith(number)), None)


def settings(notebook: nbformat.NotebookNode, name: str) -> Settings:
    """The notebook's :class:`Settings`; :class:`NotebookError` for an unknown value."""
    given = dict(notebook.metadata.get("collection", {}))
    if set(given) != {"requires", "compare", "cell_timeout_s"} or given["compare"] not in ("strict", "lax"):
        raise NotebookError(f"{name}: its metadata needs collection = requires, compare (strict or lax) and cell_timeout_s")
    check_requires([given["requires"], *(c.metadata.get("requires", []) for c in notebook.cells)], name)
    return Settings(tuple(given["requires"]), given["compare"], given["cell_timeout_s"])


def check_requires(lists: Iterable[list[str]], name: str) -> None:
    """Raise :class:`NotebookError` for a requirement that does not exist."""
    for value in (value for values in lists for value in values):
        if value not in REQUIREMENTS:
            raise NotebookError(f"{name}: requires {value!r}, which is none of {', '.join(REQUIREMENTS)}")


def unmet(requires: Iterable[str]) -> str | None:
    """Why something in ``requires`` is not met on this machine, or ``None``."""
    return next((reason for value in requires if (reason := REQUIREMENTS[value]())), None)


def execute(path: Path, on_cell: Callable[[int], None] = lambda index: None) -> nbformat.NotebookNode:
    """Run the notebook at ``path`` in its kernel and return it with new outputs.

    Cells whose ``requires`` are not met are skipped and say why. Raises
    :class:`NotebookError` with the first failing cell's last line.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    wanted = settings(notebook, path.name)
    skipped = {i: reason for i, c in enumerate(notebook.cells) if (reason := unmet(c.metadata.get("requires", [])))}
    for i in skipped:
        notebook.cells[i].metadata["tags"] = [*notebook.cells[i].metadata.get("tags", []), "skip-execution"]
    client = NotebookClient(
        notebook, timeout=wanted.cell_timeout_s, resources={"metadata": {"path": str(path.parent)}},
        on_cell_complete=lambda cell, cell_index: on_cell(cell_index),
    )  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:  # what engines say on their way out is not for the terminal
        try:
            client.execute(stdout=log, stderr=log)
        except CellExecutionError as error:
            raise NotebookError(f"{path.name} failed: {error.ename}: {error.evalue}") from None
        except CellTimeoutError as error:
            raise NotebookError(f"{path.name} failed: {str(error).splitlines()[0]}") from None
        except DeadKernelError:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["it wrote nothing"])[-1]
            raise NotebookError(f"{path.name} failed: its kernel died; the last line of its log: {last}") from None
    for i, reason in skipped.items():
        notebook.cells[i].metadata["tags"].remove("skip-execution")
        notebook.cells[i].outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"skipped here: {reason}\n")]
    return notebook


def canonical(notebook: nbformat.NotebookNode) -> str:
    """The one text form a notebook is committed in: no timings, versions or widget state."""
    notebook.metadata = {
        "collection": notebook.metadata["collection"],
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("requires", "tags") and value}
        if cell.cell_type == "code":
            cell.outputs = _joined([_without_noise(output) for output in cell.outputs])
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


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
    folders = {str(Path.home()), str(kernels.REPOSITORY), tempfile.gettempdir(), "/home/", "/Users/"}
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


def refuted(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The claim cells whose last run printed a False, or no True."""
    printed = {id(cell): "".join(map(plain, cell.outputs)) for cell in ran_claims(notebook)}
    return [cell for cell in ran_claims(notebook) if "False" in printed[id(cell)] or "True" not in printed[id(cell)]]


def tour(frameworks: list[str], only: tuple[str, ...] = ("",)) -> int:
    """Run every notebook that can run here, or those that begin with ``only``, into ``tour/``; print the comparison."""
    os.environ["FRAMEWORKS"] = ",".join(frameworks)
    TOUR.mkdir(exist_ok=True)
    order = sorted(listed(), key=lambda p: (not p.name.startswith(COMPARISON), p.name))
    failed = 0
    for path in order:
        if path.name.startswith(only):
            failed += not _visit(path)
    print(f"\nThe executed notebooks lie in {TOUR.relative_to(Path.cwd()) if TOUR.is_relative_to(Path.cwd()) else TOUR}.")
    return 1 if failed else 0


def _visit(path: Path) -> bool:
    notebook = nbformat.read(path, as_version=4)
    if reason := unmet(settings(notebook, path.name).requires):
        print(f"{path.stem}: left out, {reason}", flush=True)
        return True
    started = time.monotonic()
    try:
        done = _execute_with_bar(path)
    except NotebookError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    _write(TOUR / path.name, nbformat.writes(done))
    _write(TOUR / f"{path.stem}.html", _html(done))
    print(f"{path.stem}: ran in {time.monotonic() - started:.0f} s", flush=True)
    for cell in done.cells:
        if "comparison" in cell.metadata.get("tags", []):
            print("\n" + "\n".join(plain(output) for output in cell.outputs) + "\n", flush=True)
    return True


def _execute_with_bar(path: Path) -> nbformat.NotebookNode:
    from tqdm import tqdm

    cells = len(nbformat.read(path, as_version=4).cells)
    with tqdm(total=cells, desc=path.stem, unit="cell", leave=False, disable=None) as bar:
        return execute(path, on_cell=lambda index: bar.update(index + 1 - bar.n))


def _html(notebook: nbformat.NotebookNode) -> str:
    from nbconvert import HTMLExporter

    return HTMLExporter(embed_images=True).from_notebook_node(notebook)[0]


def plain(output: nbformat.NotebookNode) -> str:
    """What an output shows, as text."""
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def comparison(frameworks: list[str]) -> int:
    """The part of the tour that can be shown before large frameworks are installed."""
    return tour(frameworks, COMPARISON)


def outputs(names: list[str]) -> int:
    """Execute the notebooks (or those whose file name starts with one of ``names``) and rewrite them."""
    chosen = [path for path in listed() if not names or path.name.startswith(tuple(names))]
    if not chosen:
        raise NotebookError(f"no notebook begins with {' or '.join(names)}")
    for path in chosen:
        if reason := unmet(settings(nbformat.read(path, as_version=4), path.name).requires):
            raise NotebookError(f"{path.name} cannot be run here: {reason}; nothing was rewritten")
    for path in chosen:
        started = time.monotonic()
        done = _execute_with_bar(path)
        if found := leaks(done):
            raise NotebookError(f"{path.name} prints {', '.join(found)}: an output names this machine; it was not rewritten")
        if found := refuted(done):
            raise NotebookError(f"{path.name}: a claim does not hold here, nothing was rewritten: {found[0].source}")
        minutes = f"{max((time.monotonic() - started) / 60, 1):.0f}"
        for cell in done.cells:
            if cell.cell_type == "markdown":
                cell.source = MINUTES.sub(rf"\g<1>{minutes}\g<2>", cell.source)
        _write(path, canonical(done))
        readme = kernels.REPOSITORY / "README.md"
        _write(readme, re.sub(rf"(\(notebooks/{path.name}\) \| )\d+", rf"\g<1>{minutes}", readme.read_text()))
        print(f"{path.name}: rewritten, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the numbered notebooks.")
    parser.add_argument("what", choices=("tour", "comparison", "outputs"))
    parser.add_argument("names", nargs="*", help="frameworks for tour, notebook numbers for outputs")
    options = parser.parse_args()
    os.environ.setdefault("JUPYTER_PATH", str(kernels.REPOSITORY / ".jupyter"))
    guard.interruptible()
    try:
        sys.exit({"tour": tour, "comparison": comparison, "outputs": outputs}[options.what](options.names))
    except NotebookError as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stopped:
        print("stopped; what had run is kept", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
