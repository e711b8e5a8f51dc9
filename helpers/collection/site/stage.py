"""The folder that Sphinx reads: ``docs/``, the pages of the notebooks, and the data made of records and claims."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat

from helpers import paths
from helpers.collection import claims
from helpers.collection.site import (
    batch,
    cache,
    clients,
    curves,
    embedded,
    fits,
    levels,
    pages,
    published,
    racing,
    sources,
    stepped,
    verdicts,
)
from helpers.studies import conformance, peers

DOCS = paths.REPOSITORY / "docs"
PICTURES = ("*.png", "*.svg")


def stage(folder: Path, *, unfinished: bool = False) -> None:
    """Write the whole folder anew.

    Raises :class:`~helpers.collection.site.pages.PageError` that names every notebook whose outputs are not complete;
    with ``unfinished`` these become pages that say so.
    """
    notebooks = {path: pages.read(path) for path in paths.notebooks()}
    if not unfinished:
        check_finished(notebooks)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder)
    shutil.copy(paths.REPOSITORY / "README.md", folder)  # the front page takes parts of it
    for page in folder.glob("*.md"):
        paths.write(page, from_the_root(pages.linked(page.read_text())))
    _write_notebooks(folder, notebooks)
    _write_solutions(folder / "notebooks" / "solutions")
    for pattern in PICTURES:
        for picture in (paths.REPOSITORY / "vis").glob(pattern):
            _copy(picture, folder)
    _write(folder / "made", {"decision.html": embedded.decision(embedded.PAGE.read_text())})
    _write(folder / "made", {"fits.html": fits.html()})
    _write(folder / "made", {"features.html": verdicts.html(sources.newest(conformance.NAME))})
    _write(folder / "made", {"clients.html": clients.html(sources.every(peers.NAME))})
    _write(folder / "made", {"race.html": racing.html(racing.recorded())})
    engine = stepped.recorded()
    _write(folder / "made", {"batch.html": batch.html(engine), "cache.html": cache.html(engine)})
    _write(folder / "made", {"curves.html": curves.html(curves.groups(levels.results()))})
    _write(folder / "made", {f"{name.removesuffix('.json')}.md": published.fields(name) for name in published.SCHEMAS})
    _write(folder / "extra", published.made(notebooks))
    paths.write(folder / "told.json", json.dumps(told(notebooks), indent=1))


def from_the_root(text: str) -> str:
    """The Markdown of a page of ``docs/`` or of the README at the root of the site; there the repository's folders lie beside it.

    Who is led to the README finds the front page.
    """
    return text.replace("](../README.md", "](index.md").replace("](../", "](").replace("](docs/", "](")


def check_finished(notebooks: Mapping[Path, nbformat.NotebookNode]) -> None:
    """Raise :class:`~helpers.collection.site.pages.PageError` with a line for each notebook that is no finished page."""
    found = [reason for path, notebook in notebooks.items() if (reason := pages.unfinished(path, notebook))]
    if found:
        raise pages.PageError("\n".join([*found, "or build what there is with `nox -s site -- --unfinished`"]))


def told(notebooks: Mapping[Path, nbformat.NotebookNode]) -> dict[str, str]:
    """The numbers that the sentences of ``docs/`` take from the collection, by their names there."""
    counts = claims.counts()
    named = {verdict.replace(" ", "_"): str(counts[verdict]) for verdict in claims.VERDICTS}
    return {"notebooks": str(len(notebooks)), "claims": str(len(claims.load())), **named}


def _write_notebooks(folder: Path, notebooks: Mapping[Path, nbformat.NotebookNode]) -> None:
    """A page for each notebook, its own file beside it to be taken along, and what its prose links to."""
    wanted = pages.wanted_cells(pages.texts(notebooks))
    (folder / "notebooks").mkdir()
    for path, notebook in notebooks.items():
        made = pages.page(path, notebook, pages.run_of(path, notebook), wanted.get(path.name, ()))
        paths.write(folder / "notebooks" / path.name, nbformat.writes(made, version=4))
        _copy(path, folder, "files")
        for target in linked_files(path, notebook):
            _copy(target, folder)


def _write_solutions(folder: Path) -> None:
    """A page for the solutions of each notebook."""
    folder.mkdir()
    for path in sorted((paths.NOTEBOOKS / "solutions").glob("*.ipynb")):
        paths.write(folder / path.name, nbformat.writes(pages.solutions(pages.read(path)), version=4))


def linked_files(path: Path, notebook: nbformat.NotebookNode) -> list[Path]:
    """The files of the repository, outside the notebooks' folder, that the prose of ``notebook`` links to.

    :class:`~helpers.collection.site.pages.PageError` names the notebook and a link to a file that is not there.
    """
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = [paths.REPOSITORY / target for target in re.findall(r"\]\(\.\./([^)#]+)\)", prose)]
    if lost := [file for file in found if not file.is_file()]:
        named = lost[0].relative_to(paths.REPOSITORY).as_posix()
        raise pages.PageError(f"{path.name}: it links to {named}, which is not there: correct the link")
    return found


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write each of ``texts`` into ``folder`` under its name."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        paths.write(folder / name, text)


def _copy(file: Path, folder: Path, under: str = "") -> None:
    """Copy ``file`` of the repository to the same place in ``folder``, below ``under``."""
    there = folder / under / file.relative_to(paths.REPOSITORY)
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, there)
