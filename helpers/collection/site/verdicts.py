"""Who does what: every probe of every framework's server and what came back, what is silently ignored in front.

The script shows a record as a grid of features and frameworks, by which a reader filters; the tables have the same cells.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from helpers import frameworks, records
from helpers.collection.site import levels, markup, sources
from helpers.lessons.structured import features
from helpers.lessons.structured.features import IGNORES, NOT_PROBED, REFUSES, WORKS
from helpers.lessons.structured.pictures import KINDS, OTHER
from helpers.studies import conformance

ORDER = {  # of the tables, and what a verdict is
    IGNORES: "the server took the request and did not do it",
    REFUSES: "an error with a reason",
    WORKS: "the effect was seen",
    NOT_PROBED: "and why",
}
HEADS = ("", "Feature", "What came back", "In the record")
NONE = "Nothing is recorded yet: <code>nox -s record -- conformance</code> probes the servers that are installed."


def html(found: Sequence[tuple[str, Mapping]]) -> str:
    """The part of the page that is made of the records ``found`` with their files; without one, the sentence that says so."""
    if not found:
        return f"<p>{NONE}</p>\n"
    data = [grid(file, record) for file, record in found]
    colours = {verdict: KINDS.get(verdict, OTHER) for verdict in ORDER}
    parts = [markup.script("verdicts", {"records": data, "colours": colours})]
    for number, one in enumerate(data):
        parts.append(f"<p>{escape(_sentence(one['title'], one['wheel']))}</p>")
        parts += (_table(number, one, verdict) for verdict in ORDER)
    return "\n".join(parts) + "\n"


def _sentence(*parts: str) -> str:
    """What there is of ``parts`` as one sentence."""
    text = "; ".join(filter(None, parts))
    return f"{text[:1].upper()}{text[1:]}."


def grid(file: str, found: Mapping) -> dict:
    """A record as the script and the tables take it; its cells stand in the order of the tables' rows."""
    gpu = records.on_gpu(found)
    labels = {name: frameworks.label(name, gpu) for name in found["cells"]}
    cells = [_cell(found, name, feature) | {"framework": labels[name]} for name, of in found["cells"].items() for feature in of]
    return {
        "title": records.describe(found), "wheel": conformance.wheel(found), "file": file,
        "where": sources.where(found["provenance"]["machine"]), "date": found["provenance"]["date"][:10],
        "frameworks": {label: _started(found, name) for name, label in labels.items()},
        "features": {feature: asked(feature) for feature in _worst_first(cells)},
        "cells": sorted(cells, key=lambda cell: list(ORDER).index(cell["verdict"])),
    }  # fmt: skip


def asked(feature: str) -> str:
    """What the probe of ``feature`` asks for, in its own words; empty for one that is no more."""
    said = inspect.getdoc(features.PROBES[feature]) if feature in features.PROBES else None
    return " ".join((said or "").partition("\n\n")[0].split())


def _started(found: Mapping, name: str) -> dict:
    """With what a framework's server was started; empty for one that was not."""
    source = found["provenance"]
    versions = ", ".join(f"{package} {version}" for package, version in source["versions"].get(name, {}).items())
    return {"versions": versions, "arguments": " ".join(source["arguments"].get(name, []))}


def _cell(found: Mapping, name: str, feature: str) -> dict:
    """A cell as it was recorded, with its place; of llama.cpp what the ready-made wheel answers otherwise."""
    cell, other = found["cells"][name][feature], found.get("wheel") or {"cells": {}}
    wheel = other["cells"].get(feature) if name == "llama-cpp" else None
    return {
        "feature": feature, "verdict": cell["verdict"], "detail": cell["detail"],
        "wheel": wheel and f"{wheel['verdict']}: {wheel['detail']}", "at": levels.pointer(("cells", name, feature)),
    }  # fmt: skip


def _worst_first(cells: Iterable[Mapping]) -> list[str]:
    """The features, first those that most servers ignore, then those that most refuse; else in the order of the probes."""
    counts: dict[str, list[int]] = {}
    for cell in cells:
        of = counts.setdefault(cell["feature"], [0, 0])
        for place, verdict in enumerate((IGNORES, REFUSES)):
            of[place] -= cell["verdict"] == verdict
    return sorted(counts, key=counts.get)


def _table(number: int, one: Mapping, verdict: str) -> str:
    cells = [cell for cell in one["cells"] if cell["verdict"] == verdict]
    caption = f"{verdict.capitalize()}, {ORDER[verdict]}: {len(cells)} of {len(one['cells'])}"
    rows = (
        markup.row(cell["framework"], [cell["feature"], cell["detail"]], markup.place(one["file"], cell["at"])) for cell in cells
    )
    return markup.table(caption, HEADS, rows, f'data-group="{number}"')
