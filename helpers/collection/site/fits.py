"""Does it fit? The calculator as a page: what models take, from the same functions as the command, and how far off it was.

The script multiplies and compares; bytes of weights, and bytes of a layer and token, are worked out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from helpers import records
from helpers.collection.site import markup, sources
from helpers.gpu.recorded import read
from helpers.lessons.scaling import parallelism
from helpers.studies import throughput
from helpers.weights import capacity, sizes

TYPES = {"bfloat16": "16 bits", "fp8": "8 bits (FP8)", "q8_0": "8 bits (Q8_0)", "q4_0": "4 bits (Q4_0)"}
KV_TYPES = {"bfloat16": "16 bits", "fp8": "8 bits (FP8)"}
SAID = re.compile(r"^(?P<engine>.+?): .* are (?P<found>\d+) a token, the formula says (?P<expected>\d+): ")


def models() -> list[dict]:
    """Every model that the calculator knows, the smallest first: weights by type, and what a token takes in a layer by type."""
    sheets = sorted((parallelism.of(name).sheet for name in parallelism.known()), key=lambda sheet: sheet.parameters)
    return [
        {
            "name": sheet.name,
            "parameters": sheet.parameters,
            "context": sheet.shape.context,
            "weights_bytes": {dtype: sizes.bytes_of(sheet.parameters, dtype) for dtype in TYPES},
            "cache": {dtype: vars(sizes.cache(sheet.shape, dtype)) for dtype in KV_TYPES},
        }
        for sheet in sheets
    ]


def errors() -> list[dict]:
    """What engines set aside for a token of KV cache beside what the formula says, from the newest records: a row for each."""
    return [*_on_cpu(), *_on_gpu()]


def _on_cpu() -> Iterator[dict]:
    found = records.load(throughput.NAME)
    for guard in found["guards"].values():
        if match := SAID.match(guard.get("kv_pool", {}).get("line", "")):
            yield _error(match["engine"], found, found["provenance"]["model"], int(match["found"]), int(match["expected"]))


def _on_gpu() -> Iterator[dict]:
    for run in ("speed", "memory", "scaling"):
        for name in read.machines(run):
            found = read.load(run, name)
            on_one = (one for one in read.lives(found, "server", "pool") if one.get("gpus", 1) == 1)
            for one in on_one:  # several share the cache, and each tells its own part
                shape = one.get("shape") or found["provenance"]["shape"]
                expected = sizes.kv_bytes_per_token(parallelism.of(shape).sheet.shape)
                for row in one["rows"]:
                    if row["kind"] == "pool" and row["bytes_per_token"]:
                        yield _error(read.label({**one, "work": "server"}), found, shape, row["bytes_per_token"], expected)


def _error(engine: str, found: Mapping, model: str, bytes_per_token: float, expected: int) -> dict:
    where = sources.where(found["provenance"]["machine"])
    off = {"found": bytes_per_token, "expected": expected, "error": bytes_per_token / expected - 1}
    return {"engine": engine, "where": f"{where}, {found['provenance']['date'][:10]}", "model": model, **off}


def html() -> str:
    """The part of the page that is made: the data for its script, a table of the models, and one of the errors."""
    data = {"models": models(), "usable": capacity.USABLE, "types": TYPES, "kv_types": KV_TYPES}
    heads = ["Parameters, 10⁹", *(f"Weights, {name}, GiB" for name in TYPES.values())]
    heads += [f"KV cache, {name}, KiB a token" for name in KV_TYPES.values()]
    return "\n".join([
        markup.script("models-known", data),
        _table("What models take", heads, {one["name"]: _model(one) for one in data["models"]}.items()),
        _table(
            "How far off it was: KV cache that an engine set aside for a token, against the formula",
            ["Machine, day", "Model", "Set aside, bytes", "Formula, bytes", "Off by"],
            [(one["engine"], _off(one)) for one in errors()],
        ),
    ])  # fmt: skip


def _model(one: Mapping) -> list[str]:
    weights = [f"{size / sizes.GIB:,.1f}" for size in one["weights_bytes"].values()]
    caches = [sizes.Cache(**cache).bytes_per_token / 1024 for cache in one["cache"].values()]
    return [f"{one['parameters'] / 1e9:,.1f}", *weights, *(f"{kib:,.1f}" for kib in caches)]


def _off(one: Mapping) -> list[str]:
    return [one["where"], one["model"], f"{one['found']:,.0f}", f"{one['expected']:,}", f"{one['error']:+.2%}"]


def _table(caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    return markup.table(caption, ["", *heads], (markup.row(name, cells) for name, cells in rows))
