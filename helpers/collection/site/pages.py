"""A committed notebook as a page of the site: its header completed, its links those of the site, its gaps named.

The notebook itself is not changed. What is added: versions, day and launch line in the header, a line above each cell that
was not run, a place that links can lead to before each cell that some link names.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers import paths
from helpers.collection import claims, references
from helpers.collection.notebooks import REQUIREMENTS
from helpers.collection.site import history
from helpers.frameworks import TITLES

LINK = re.compile(r"(?P<file>\d\d_\w+\.ipynb)?#(?P<to>cell-id=[\w-]+|[^)\"'\s]+)")
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
NAMED = {"gpu": "an NVIDIA GPU", "network": "a network", "deploy": "LiteLLM or Ray"} | TITLES


class PageError(ValueError):
    """A notebook that cannot become a page: its name, the reason and what to do."""


@dataclass(frozen=True)
class Run:
    """The run whose outputs a notebook holds: its day, ``None`` if git does not know it, and the engines' versions then."""

    day: str | None
    versions: Mapping[str, str]


def executable(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells that a machine without a GPU, a network and TensorRT-LLM runs."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [cell for cell in code if not claims.NOT_RUN_HERE & set(cell.metadata.get("requires", []))]


def unfinished(path: Path, notebook: nbformat.NotebookNode) -> str | None:
    """Why ``notebook`` is no finished page, in one line; ``None`` if every cell that can run has run."""
    cells = executable(notebook)
    missing = sum(cell.execution_count is None for cell in cells)
    if not missing:
        return None
    number = path.name[:2]
    return f"{path.name}: {missing} of {len(cells)} code cells have no output: execute it with `nox -s outputs -- {number}`"


def run_of(path: Path, notebook: nbformat.NotebookNode) -> Run:
    """When the outputs of ``path`` were committed, and what the requirement files pinned then."""
    commit = history.outputs_commit(path)
    asked = dict.fromkeys(notebook.metadata["collection"]["requires"])
    asked |= dict.fromkeys(name for cell in executable(notebook) for name in cell.metadata.get("requires", []))
    versions: dict[str, str] = {}
    for one in references.frameworks():
        if one.requirements and any(one.requirements.startswith(f"{kernel}-") for kernel in asked):
            versions |= {name: pin for name, pin in _pins(one.requirements, commit).items() if name in one.packages}
    return Run(commit and commit.day, versions)


def _pins(requirements: str, commit: history.Commit | None) -> dict[str, str]:
    file = paths.REPOSITORY / "requirements" / requirements
    text = history.show(commit, file) if commit else None
    lines = (file.read_text() if text is None else text).splitlines()
    return dict(re.findall(r"^([\w.-]+)(?:\[.*?\])?==(\S+)", "\n".join(lines), re.M))


def page(path: Path, notebook: nbformat.NotebookNode, run: Run, wanted: Iterable[str]) -> nbformat.NotebookNode:
    """The page of ``notebook``; ``wanted`` are the ids of its cells that links lead to."""
    made, number, wanted = copy.deepcopy(notebook), path.name[:2], set(wanted)
    if lost := wanted - {cell.id for cell in made.cells}:
        raise PageError(f"{path.name}: a link leads to its cell {min(lost)!r}, which is not there: correct the link")
    made.metadata["language_info"] = LANGUAGE
    cells: list[nbformat.NotebookNode] = []
    for cell in made.cells:
        if cell.id in wanted:
            cells.append(nbformat.v4.new_markdown_cell(f"({anchor(number, cell.id)})="))
        if reason := _left_out(cell):
            cells.append(nbformat.v4.new_markdown_cell(f"*{reason}*"))
        cells.append(_cell(cell))
    made.cells = cells
    first = next(cell for cell in made.cells if cell.cell_type == "markdown")
    first.source = with_header(first.source, path, notebook, run)
    return made


def solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The page of a notebook's solutions, which stands in no list of pages: only its notebook leads to it."""
    made = copy.deepcopy(notebook)
    made.metadata |= {"orphan": True, "language_info": LANGUAGE}
    return made


def anchor(number: str, cell: str) -> str:
    """The name of a cell's place, unlike any other page's."""
    return f"nb{number}-{cell}".lower()


def with_header(source: str, path: Path, notebook: nbformat.NotebookNode, run: Run) -> str:
    """``source``, the first cell, with the rows of the site below those of its table; :class:`PageError` without a table."""
    rows = list(re.finditer(r"^\| \*\*.+?\*\* \| .*? \|$", source, re.M))
    if not rows:
        raise PageError(f"{path.name}: its first cell has no table of facts: give it one, as its neighbours have")
    added = "".join(f"\n| **{name}** | {value} |" for name, value in header(path, notebook, run).items())
    return source[: rows[-1].end()] + added + source[rows[-1].end() :]


def header(path: Path, notebook: nbformat.NotebookNode, run: Run) -> dict[str, str]:
    """What the site adds to a notebook's facts: how to run it, when it ran, with what, and what was left out."""
    left = [cell for cell in notebook.cells if _left_out(cell)]
    told = {
        "Run it": f"`nox -s lab`, then {{download}}`{path.name} </files/notebooks/{path.name}>`",
        "Outputs committed": run.day or "on a day that is not known here",
        "Versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "Not run": f"{len(left)} cells, each with its reason" if left else "",
    }
    return {name: value for name, value in told.items() if value}


def _left_out(cell: nbformat.NotebookNode) -> str | None:
    """Why a code cell has no output, for a reader; ``None`` for one that ran."""
    if cell.cell_type != "code" or cell.execution_count is not None:
        return None
    needs = [NAMED.get(name, name) for name in cell.metadata.get("requires", []) if name in REQUIREMENTS]
    return f"Not run: this cell needs {' and '.join(needs)}." if needs else "Not run yet."


def _cell(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    if cell.cell_type == "markdown":
        cell.source = linked(cell.source)
        return cell
    cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if not re.match(r"C\d{3}: ", tag)]
    alts = [alt for output in cell.outputs if (alt := output.get("metadata", {}).get("image/png", {}).get("alt"))]
    if alts:
        cell.metadata["mystnb"] = {"image": {"alt": " ".join(alts)}}
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/markdown" in data:
            data["text/markdown"] = linked(data["text/markdown"])
        if "text/html" in data:
            data["text/html"] = in_html(data["text/html"])
    return cell


def linked(text: str) -> str:
    """Markdown with the links between notebooks as the site has them."""
    text = text.replace("](../vis/decision.html)", "](../which.md)")
    return re.sub(rf"\]\({LINK.pattern}\)", lambda match: f"]({_to(match, '.ipynb')})", text)


def in_html(text: str) -> str:
    """HTML with the links between notebooks as the site has them; a head of a column that is empty is none."""
    text = text.replace("<th></th>", "<td></td>")
    text = re.sub(rf"href=([\"']){LINK.pattern}\1", lambda match: f'href="{_to(match, ".html", across=False)}"', text)
    return re.sub(r"href=([\"'])(\d\d_\w+)\.ipynb\1", r'href="\2.html"', text)


def _to(match: re.Match, suffix: str, across: bool = True) -> str:
    """The address of a link's target. Within Markdown a cell's place is found by its name, on whichever page it is."""
    file, to = match["file"] or "", match["to"]
    stem = file.removesuffix(".ipynb")
    if to.startswith("cell-id="):
        name = f"#{anchor(stem[:2], to.removeprefix('cell-id='))}"
        return name if across else f"{stem}{suffix}{name}"
    slug = re.sub(r"[^\w-]", "", to.lower())
    return f"{stem}{suffix if stem else ''}#{slug}"


def wanted_cells(texts: Iterable[str]) -> dict[str, set[str]]:
    """By file name of the notebook, the ids of the cells that a link in ``texts``, a claim or a word of the glossary names."""
    found: dict[str, set[str]] = {}
    for text in [*texts, *map(claims.link, claims.load()), references.glossary()]:
        for file, cell in re.findall(r"(\d\d_\w+\.ipynb)#cell-id=([\w-]+)", text):
            found.setdefault(file, set()).add(cell)
    return found


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    """The notebook in ``path``; :class:`PageError` if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise PageError(f"{path.name} is no notebook: {str(error).splitlines()[0]}: restore it") from None


def texts(notebooks: Mapping[Path, nbformat.NotebookNode]) -> Iterator[str]:
    """Every text of ``notebooks`` that may hold a link: prose and outputs."""
    for notebook in notebooks.values():
        for cell in notebook.cells:
            yield cell.source if cell.cell_type == "markdown" else ""
            for output in cell.get("outputs", []):
                yield from (text for kind, text in output.get("data", {}).items() if kind in ("text/markdown", "text/html"))
