"""What the site has for programs: ``results.json`` and ``claims.json`` with their schemas; ``llms.txt``, an index."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import jsonschema
import nbformat

from helpers import paths
from helpers.collection import claims
from helpers.collection.site import levels, pages

HERE = Path(__file__).parent
SCHEMAS = {"results.json": HERE / "results.schema.json", "claims.json": HERE / "claims.schema.json"}
TOLD = {  # the pages beside the notebooks, as llms.txt names them
    "which.html": ("Which one should I take?", "rules with reasons; what the answers change; needs JavaScript for the shortlist"),
    "fits.html": ("Does it fit?", "weights and KV cache of known models, and how far off the formula was on real engines"),
    "throughput.html": ("Throughput against latency", "every recorded level of every server, as curves and as tables"),
    "features.html": ("Who does what", "features on every framework's server: ignored silently, refused, works; what came back"),
    "clients.html": ("Your client's error", "what load clients said beside what the server did, by number of streams and by day"),
    "race.html": ("The race", "one prompt to every engine, replayed at its recorded stamps"),
    "batch.html": ("The batch", "who waits, is in prefill or in decode in each step of a recorded run of vLLM, and its time"),
    "cache.html": ("The cache", "whose each block of the KV cache is in each step of a recorded run of vLLM, shared or evicted"),
    "teaching.html": ("Teaching with this collection", "paths with computed minutes, the room, what goes wrong"),
    "data.html": ("Data for programs", "the fields of results.json and claims.json"),
}
DATA = {
    "results.json": "every recorded level with machine, versions, arguments, spread and the client's own error",
    "claims.json": "every checked sentence with its verdict, the reason, and the cell or page that settles it",
}


class SchemaError(ValueError):
    """Data that is not what its schema says: which file, where in it, what."""


def made(notebooks: Mapping[Path, nbformat.NotebookNode]) -> dict[str, str]:
    """By file name everything that programs read; the data are checked against their schemas first."""
    data = {"results.json": levels.results(), "claims.json": claimed()}
    for name, content in data.items():
        check(name, content)
    texts = {name: json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n" for name, content in data.items()}
    schemas = {file.name: paths.data(file) for file in SCHEMAS.values()}
    return texts | schemas | {"llms.txt": llms(notebooks)}


def schema(name: str) -> dict:
    """The schema of ``results.json`` or ``claims.json``."""
    return json.loads(paths.data(SCHEMAS[name]))


def check(name: str, content: Mapping) -> None:
    """Raise :class:`SchemaError` with the first thing in ``content`` that is not as the schema of ``name`` says."""
    fault = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema(name)).iter_errors(content))
    if fault:
        raise SchemaError(f"{name}, {fault.json_path}: {fault.message[:200]}: mend the data, or the schema with its version")


def claimed() -> dict:
    """The content of ``claims.json``."""
    return {"schema": "claims.schema.json", "schema_version": 1, "claims": [_claim(one) for one in claims.load()]}


def _claim(one: claims.Claim) -> dict:
    source = one.source and {**asdict(one.source), "date": one.source.date.isoformat()}
    page = None
    if one.notebook:
        page = f"notebooks/{paths.notebook(one.notebook).stem}.html#{pages.anchor(one.notebook, claims.cell(one).id)}"
    return {**asdict(one), "source": source, "page": page}


def llms(notebooks: Mapping[Path, nbformat.NotebookNode]) -> str:
    """The index in the form of llmstxt.org: a title, a summary, and lists of links with what is there."""
    books = [f"- [{title}](notebooks/{path.stem}.html): {lead}" for path, (title, lead) in _leads(notebooks).items()]
    return "\n".join([
        "# LLM inference frameworks, measured", "",
        "> HF Transformers, vLLM, llama.cpp, SGLang and TensorRT-LLM side by side: executed notebooks, records with their "
        "machine, versions and spread, and a verdict on each sentence of a widely copied comparison.", "",
        "Figures belong to the machine, the versions and the model that stand beside them. Addresses are relative to this file.",
        "", "## Decide", "", *(f"- [{title}]({page}): {what}" for page, (title, what) in TOLD.items()),
        "", "## Notebooks", "", *books,
        "", "## Data", "", *(f"- [{name}]({name}): {what}" for name, what in DATA.items()), "",
    ])  # fmt: skip


def _leads(notebooks: Mapping[Path, nbformat.NotebookNode]) -> dict[Path, tuple[str, str]]:
    """By path a notebook's title and its first paragraph, without links."""
    found = {}
    for path, notebook in notebooks.items():
        title, lead = re.match(r"# (.+?)\n+(.+?)(?:\n\n|$)", notebook.cells[0].source, re.S).groups()
        found[path] = title, re.sub(r"\[(.+?)\]\(.+?\)", r"\1", " ".join(lead.split()))
    return found


def fields(name: str) -> str:
    """The fields of ``results.json`` or ``claims.json`` as Markdown tables, from its schema."""
    parts = []
    for part, of in schema(name)["$defs"].items():
        rows = [f"| `{field}` | {_kind(one)} | {one.get('description', '')} |" for field, one in of["properties"].items()]
        intro = f"{of['description']}\n\n" if "description" in of else ""
        parts.append(f"### A {part}\n\n{intro}| Field | Type | |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _kind(one: Mapping) -> str:
    if "$ref" in one:
        return one["$ref"].rpartition("/")[2]
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    kinds = one.get("type", "text")
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)
