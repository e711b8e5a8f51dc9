"""Every recorded level as one flat row with its provenance: ``results.json``, whose fields ``results.schema.json`` explains.

A level is what the client measured with some users at once, or at some rate of requests; it lies in different places of the
records, and ``at`` says where: a JSON pointer (RFC 6901) into the record's file. No value is worked out here but the median
and range of the repeats of an engine's own API, which a record keeps one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from helpers import frameworks, paths, records
from helpers.gpu.recorded import read
from helpers.studies import throughput

SCHEMA_VERSION = 1
LEVEL = {"users", "output_tokens_per_s", "ttft_s", "repeats"}  # the keys by which a level is known
SECONDS = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
FIGURE = ("median", "low", "high")
ERRORS = ("ttft_error_s", "rate_error", "itl_p99_error")  # of the client, against a server whose times are known
PERCENTILES = ("p50", "p90", "p99", "n")
OF_CHOICES = {"llama_cpp": "llama-cpp", "vllm": "vllm"}  # the record of choices is by engine


def results() -> dict:
    """The content of ``results.json``: the records that have levels, oldest first, and all their levels."""
    made = [
        (path, records.read(path)) for path in sorted(records.FOLDER.glob("*/*.json"), key=lambda path: (records.age(path), path))
    ]
    rows = {path: list(of_record(path, found)) for path, found in made}
    newest = {(path.parent.name, _name(path)): path for path, found in made if rows[path]}
    return {
        "schema": "results.schema.json", "schema_version": SCHEMA_VERSION,
        "records": [_record(path, found, path in newest.values()) for path, found in made if rows[path]],
        "levels": [row for path, _ in made for row in rows[path]],
    }  # fmt: skip


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


def record_id(path: Path) -> str:
    """A record's name here: machine, measurement and day."""
    return f"{path.parent.name}/{path.stem}"


def _record(path: Path, found: Mapping, newest: bool) -> dict:
    source = found["provenance"]
    machine = source["machine"]
    kept = ("cpu", "cores", "memory_gib", "gpus", "gpu_driver", "system", "python")
    return {
        "id": record_id(path), "file": path.relative_to(paths.REPOSITORY).as_posix(), "measurement": _name(path),
        "date": source["date"], "newest": newest, "machine": {key: machine.get(key) for key in kept},
        "load_average": source["load_average"], "client": f"llm-frameworks-measured {source['helpers']}",
        "beside": source.get("beside"),
    }  # fmt: skip


def of_record(path: Path, found: Mapping) -> Iterator[dict]:
    """A row for each level of the record ``found``, then one for each number of users of an engine's own API."""
    for at, level in _walk(found, ()):
        yield _row(path, at, _context(found, at), level)
    for key, one in found.get("lives", {}).items():
        if one["work"] == "offline":
            context = _of_life(found, key)
            yield from (_row(path, ("lives", key, "rows"), context, level) for level in _api(one))


def _walk(value: object, at: tuple) -> Iterator[tuple[tuple, Mapping]]:
    """Every level in ``value`` with the keys that lead to it."""
    if isinstance(value, Mapping):
        if LEVEL <= value.keys():
            yield at, value
        for key, inner in value.items():
            yield from _walk(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*at, index))


def pointer(at: tuple) -> str:
    """The keys ``at`` as a JSON pointer."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in at)


def _context(found: Mapping, at: tuple) -> dict:
    """Which engine a level is of, how it was asked and started, on which weights; by where it stands in the record."""
    if at[0] == "lives":
        row = found["lives"][at[1]]["rows"][at[3]]
        context = _of_life(found, at[1])
        way = row.get("way") or row.get("policy")  # a life may ask in several ways, or through several routers
        label = ", ".join(filter(None, (context["label"], way)))
        return context | {"label": label, "shared_prefix": {"common": True, "own": False}.get(row.get("prefix"))}
    if at[0] == "engines":
        return _of_engine(found, at[1])
    if at[0] in OF_CHOICES:
        return _of_choice(found, *at[:3])
    raise records.RecordError(f"a level stands at {pointer(at)}: say in helpers/collection/site/levels.py what it is of")


def _of_engine(found: Mapping, name: str) -> dict:
    source, one = found["provenance"], frameworks.get(name)
    kept = next((key for key in (name, one.kernel) if key in source["versions"]), one.kernel)
    label, weights = frameworks.label(name, records.on_gpu(found)), source["weights"].get(name, {}).get("dtype", one.dtype)
    return {
        "engine": one.kernel, "label": f"{label} ({weights})" if one.kernel == "llama-cpp" and weights not in label else label,
        "asked": "api" if name == throughput.BATCH else "server", "model": source["model"],
        "weights": weights,
        "option": source.get("modes", {}).get(name) or None, "gpus": 0, "versions": source["versions"].get(kept, {}),
        "arguments": source["arguments"].get(name), "date": source["date"], "shared_prefix": None,
        "errors_of_client": source.get("instrument", {}),
    }  # fmt: skip


def _of_choice(found: Mapping, part: str, _levels: str, option: str) -> dict:
    source, engine = found["provenance"], OF_CHOICES[part]
    kept = next((key for key in source["versions"] if key.startswith(engine)), "")
    weights = option.partition(",")[0] if engine == "llama-cpp" else frameworks.get(engine).dtype
    return {
        "engine": engine, "label": f"{frameworks.TITLES[engine]}, {option}", "asked": "server", "model": source["model"],
        "weights": weights, "option": option, "gpus": 0, "versions": source["versions"].get(kept, {}),
        "arguments": found[part]["arguments"][option], "date": source["date"], "shared_prefix": None, "errors_of_client": {},
    }  # fmt: skip


def _of_life(found: Mapping, key: str) -> dict:
    source, one = found["provenance"], found["lives"][key]
    told = read.label({**one, "work": "server"} if one["work"] == "prefix" else one)
    layout = key.partition(f", {one['shape']}, ")[2] if one.get("shape") else ""  # as helpers.gpu.cases.Life.key has it
    shape = f"random, shape of {one['shape']}" if one.get("shape") else source["weights"]
    instrument = [row for other in found["lives"].values() for row in other["rows"] if row["kind"] == "instrument"]
    return {
        "engine": one["engine"], "label": ", ".join(filter(None, (told, layout))),
        "asked": "api" if one["work"] == "offline" else "server", "model": one.get("model") or shape, "weights": None,
        "option": one["option"], "gpus": one.get("gpus", 1), "versions": one.get("versions", {}),
        "arguments": one.get("arguments"), "date": one.get("date") or source["date"], "shared_prefix": None,
        "errors_of_client": {str(row["users"]): row for row in instrument},
    }  # fmt: skip


def _api(one: Mapping) -> Iterator[dict]:
    """The repeats of an engine's API as levels: median and range; what only a client sees or knows is left out."""
    firsts = read.first_tokens(one)
    for users, rate in read.rates(one).items():
        rows = [row for row in one["rows"] if row["kind"] == "speed" and row["users"] == users]
        out = sorted({row["output_tokens"] // users for row in rows})
        known = {"users": users, "repeats": len(rows), "output_tokens": out}
        yield known | {"output_tokens_per_s": rate, "ttft_s": firsts.get(users)}


def _row(path: Path, at: tuple, context: Mapping, level: Mapping) -> dict:
    told = {key: value for key, value in context.items() if key != "errors_of_client"}
    client = context["errors_of_client"].get(str(level["users"]))
    return {
        "record": record_id(path), "at": pointer(at), **told,
        **{key: level.get(key) for key in ("users", "rate_per_s", "repeats", "requests", "errors")},
        "input_tokens": _one(level.get("prompt_tokens")), "output_tokens": _one(level.get("output_tokens")),
        "output_tokens_per_s": _figure(level["output_tokens_per_s"]),
        **{key: _figure(level.get(key)) for key in SECONDS},
        "no_measurement": level.get("label"),
        "client_error": {key: client.get(key) for key in ERRORS} if client else None,
    }  # fmt: skip


def _one(counts: list[int] | None) -> int | None:
    """The number of tokens where all requests had the same."""
    return counts[0] if counts and len(set(counts)) == 1 else None


def _figure(value: Mapping | None) -> dict | None:
    if not isinstance(value, Mapping) or value.get("median") is None:
        return None
    return {key: value[key] for key in FIGURE} | {key: value[key] for key in PERCENTILES if value.get(key) is not None}
