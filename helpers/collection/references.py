"""Papers, the frameworks' documentation and versions, and the glossary, with a check of every address.

``notebooks/references.toml`` and ``notebooks/glossary.toml`` have the data. Versions are not written
there: they are read from the files in ``requirements/``. A term's cell is found by a piece of its
source, so that it is found again after the notebook was run or built anew.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import nbformat
from packaging.requirements import Requirement

from helpers import paths
from helpers.collection import claims

REFERENCES = paths.NOTEBOOKS / "references.toml"
GLOSSARY = paths.NOTEBOOKS / "glossary.toml"
REQUIREMENTS = paths.REPOSITORY / "requirements"
TIMEOUT_S = 20


class BadReference(ValueError):
    """An entry that cannot be used: one line with the entry and what to do."""


@dataclass(frozen=True)
class Paper:
    """A paper, the short name it goes by, what it says in one sentence, and the notebook that measures it, if one does."""

    topic: str
    name: str
    title: str
    authors: str
    year: int
    address: str
    says: str
    notebook: str | None = None


@dataclass(frozen=True)
class Documentation:
    """Where a framework is documented, and which packages of which requirements file are its own."""

    title: str
    packages: list[str]
    documentation: str
    source: str
    notebook: str
    requirements: str | None = None

    @property
    def versions(self) -> dict[str, str]:
        """The pinned version of each package; empty where the collection installs none."""
        if self.requirements is None:
            return {}
        pinned = pins(REQUIREMENTS / self.requirements)
        if missing := [name for name in self.packages if name not in pinned]:
            raise BadReference(f"{self.title}: {self.requirements} pins no {missing[0]}: correct 'packages' in {REFERENCES.name}")
        return {name: pinned[name] for name in self.packages}


@dataclass(frozen=True)
class Term:
    """A word, what it means, and the cell of a notebook that first shows it."""

    term: str
    means: str
    notebook: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Omitted:
    """What the source document leaves out, and where to go on: a notebook, a page read on a day, or both."""

    topic: str
    says: str
    notebook: str | None = None
    title: str | None = None
    address: str | None = None
    read: date | None = None


def papers() -> list[Paper]:
    """All papers of ``references.toml``, as they stand there."""
    return [_made(Paper, row, row.get("title")) for row in _read(REFERENCES)["papers"]]


def frameworks() -> list[Documentation]:
    """All frameworks of ``references.toml``."""
    return [_made(Documentation, row, row.get("title")) for row in _read(REFERENCES)["frameworks"]]


def omitted() -> list[Omitted]:
    """What the document leaves out, in the order of ``references.toml``; :class:`BadReference` for an entry without a pointer."""
    found = [_made(Omitted, row, row.get("topic")) for row in _read(REFERENCES)["omitted"]]
    for entry in found:
        if not (entry.notebook or (entry.title and entry.address and entry.read)):
            raise BadReference(f"{entry.topic}: no pointer: add 'notebook', or 'title', 'address' and 'read'")
    return found


def terms() -> list[Term]:
    """The glossary, sorted by term."""
    found = [_made(Term, row, row.get("term")) for row in _read(GLOSSARY)["terms"]]
    return sorted(found, key=lambda term: term.term.lower())


def _read(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadReference(f"{path.name} is not TOML: {error}; mend that line") from None


def _made(kind: type, row: dict, name: str | None):
    known = kind.__dataclass_fields__
    if wrong := [key for key in row if key not in known]:
        raise BadReference(f"{name}: the field {wrong[0]!r} is none of {', '.join(known)}: correct its spelling")
    try:
        return kind(**row)
    except TypeError as error:
        raise BadReference(f"{name}: {str(error).partition('__() ')[2]}: add it") from None


def pins(path: Path) -> dict[str, str]:
    """Package to exact version of a requirements file; ``-c`` and ``-r`` lines are not followed."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    asked = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {one.name: pin.version for one in asked for pin in one.specifier if pin.operator == "=="}


def cell(term: Term) -> nbformat.NotebookNode | None:
    """The cell that first shows ``term``; ``None`` if it is explained only, :class:`BadReference` if it is lost."""
    if term.notebook is None:
        return None
    path = _path(term)
    for found in nbformat.read(path, as_version=4).cells:
        if found.cell_type == "code" and term.code in found.source:
            return found
    raise BadReference(f"{term.term}: no code cell of {path.name} has {term.code!r}: correct 'code' in {GLOSSARY.name}")


def _path(term: Term) -> Path:
    if path := paths.notebook(term.notebook):
        return path
    raise BadReference(f"{term.term}: there is no notebook {term.notebook}: correct 'notebook' in {GLOSSARY.name}")


def glossary(chosen: Iterable[Term] | None = None) -> str:
    """The glossary as a Markdown table, each term with a link to its cell."""
    rows = ["| Term | Means | First shown |", "|---|---|---|"]
    for term in terms() if chosen is None else chosen:
        shows = cell(term)
        where = f"[{_path(term).stem[:2]}]({_path(term).name}#cell-id={shows.id})" if shows else "not here"
        rows.append(f"| **{term.term}** | {term.means} | {where} |")
    return "\n".join(rows)


def reading_list(topic: str) -> str:
    """The papers of one ``topic`` as a Markdown table, oldest first."""
    rows = ["| Paper | What it says | Measured in |", "|---|---|---|"]
    for paper in sorted((paper for paper in papers() if paper.topic == topic), key=lambda paper: paper.year):
        title = f"**{paper.name}**: [{paper.title}]({paper.address})"
        rows.append(f"| {title}, {paper.authors}, {paper.year} | {paper.says} | {_linked(paper.notebook)} |")
    return "\n".join(rows)


def left_out() -> str:
    """What the document leaves out as a Markdown list, each with its pointers."""
    lines = []
    for entry in omitted():
        page = f"[{entry.title}]({entry.address}) (read on {entry.read})" if entry.address else ""
        lines.append(f"- **{entry.topic}.** {entry.says} {', '.join(filter(None, (_linked(entry.notebook), page)))}")
    return "\n".join(lines)


def _linked(number: str | None) -> str:
    """A link to the notebook, its number alone if it is not there, or nothing."""
    path = paths.notebook(number) if number else None
    return f"[{number}]({path.name})" if path else number or ""


def addresses() -> list[str]:
    """Every address of the references and of the claims' sources, each once."""
    found = [paper.address for paper in papers()]
    found += [address for framework in frameworks() for address in (framework.documentation, framework.source)]
    found += [entry.address for entry in omitted() if entry.address]
    found += [claim.source.address for claim in claims.load() if claim.source]
    return list(dict.fromkeys(found))


def well_formed(address: str) -> bool:
    """Whether ``address`` is an https address without anything left over at its end."""
    return claims.ADDRESS.fullmatch(address) is not None


def answers(address: str) -> int:
    """The HTTP status that ``address`` gives, redirects followed; for use where there is a network."""
    import httpx

    with httpx.stream("GET", address, follow_redirects=True, timeout=TIMEOUT_S, headers={"user-agent": "link-check"}) as response:
        return response.status_code
