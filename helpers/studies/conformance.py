"""Which framework's server does what, as a table made by code: ``python -m helpers.studies.conformance``.

Each framework's server is started once, probed live (:mod:`helpers.lessons.structured.features`), and asked all
prompts of :mod:`helpers.lessons.structured.schemas`; the record ``conformance`` keeps every cell with what was seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from helpers import cli, frameworks, records
from helpers.lessons.structured import features, questions, schemas
from helpers.lessons.structured.features import NOT_PROBED, PROBES, VERDICTS, WORKS, Finding
from helpers.servers import engines, install, llama_cpp, serving, tensorrt_llm
from helpers.weights import models
from helpers.weights.files import ModelError

if TYPE_CHECKING:
    import pandas as pd

NAME = "conformance"
SLOTS, CONTEXT, MAX_TOKENS = features.USERS, 1024, 64
FRAMEWORKS = ("transformers", "vllm", "llama-cpp", "sglang", "tensorrt-llm")


def record(names: Sequence[str] = FRAMEWORKS) -> dict:
    """Start each framework's server, one after the other, probe it and ask it all prompts; returns the record.

    Each framework is kept as soon as it is done, and a run that was stopped, or was given some names
    only, goes on where it was. The record is saved when no framework is missing.
    """
    here, left_out = engines.at_hand()
    servers = {engine.name: engines.with_tools(engine) for engine in here}
    versions = {name: install.versions(engine) for name, engine in servers.items()}
    found = _draft(versions)
    for name in names:
        if name in found["cells"]:
            continue
        started = time.monotonic()
        if name in servers:
            _measure(servers[name], versions[name], found)
            if name == "llama-cpp":
                found["wheel"] = _wheel(servers[name], found["cells"][name])
        else:
            reason = tensorrt_llm.missing() if name == "tensorrt-llm" else left_out.get(name)
            absent = asdict(Finding(NOT_PROBED, reason or "this collection starts no server of it"))
            found["cells"][name] = dict.fromkeys(PROBES, absent)
        records.keep(NAME, found)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    if set(found["cells"]) == set(FRAMEWORKS):
        records.save(NAME, {**found, "cells": {name: found["cells"][name] for name in FRAMEWORKS}})
    return found


def _draft(versions: Mapping[str, dict]) -> dict:
    """What an earlier run kept, if it was made on this machine with these versions; else an empty record."""
    source = records.provenance(model=models.resolve().name, arguments={}, versions={})

    def differ(known: Mapping, source: Mapping) -> str | None:
        """Machine, model, and the versions of those frameworks that were measured."""
        measured = {name: versions.get(name) for name in known["versions"]}
        return records.difference(known, {**source, "versions": measured}, ("machine", "model", "versions"))

    if kept := records.resume(NAME, source, differ):
        old = kept["provenance"]
        return {**kept, "provenance": {**source, "arguments": old["arguments"], "versions": old["versions"]}}
    return {"provenance": source, "cells": {}, "validity": {}}


def _measure(engine: engines.Engine, versions: dict, found: dict) -> None:
    """Add one framework's cells to ``found``, and its answers if its server constrains any."""
    with serving.serve(engine, slots=SLOTS, context=CONTEXT) as server:
        cells = features.probe(server)
        found["cells"][engine.name] = {feature: asdict(cell) for feature, cell in cells.items()}
        if cells["JSON schema"].verdict == WORKS:
            found["validity"][engine.name] = _answers(server)
        found["provenance"]["arguments"][engine.name] = list(server.arguments)
        found["provenance"]["versions"][engine.name] = versions


def _wheel(engine: engines.Engine, cells: Mapping[str, Mapping]) -> dict | None:
    """What llama.cpp's ready-made server answers otherwise than the compiled one, whose ``cells`` are given.

    ``None`` where it is not installed, or is itself what was probed.
    """
    versions = install.versions_in(engine.kernel, engine.packages)
    if not versions or not llama_cpp.binaries():
        return None
    ready = engines.with_tools(replace(engines.get(engine.name), command=llama_cpp.wheel))
    with serving.serve(ready, slots=SLOTS, context=CONTEXT) as server:
        found = features.probe(server)
    differing = {name: asdict(cell) for name, cell in found.items() if cell.verdict != cells[name]["verdict"]}
    return {"versions": versions, "cells": differing}


def wheel(found: Mapping) -> str:
    """One line on a record: what llama.cpp's ready-made wheel answers otherwise; empty where it was not probed."""
    if not (other := found.get("wheel")):
        return ""
    name = ", ".join(f"{package} {version}" for package, version in other["versions"].items())
    said = ", ".join(f"{feature}: {cell['verdict']}" for feature, cell in other["cells"].items())
    return f"llama.cpp here is the server compiled with its library; the ready-made wheel ({name}) answers " + (
        f"otherwise in {said}" if said else "all of these alike"
    )


def _answers(server: serving.Server) -> list[dict]:
    """Every prompt of the file, free and constrained: a row each, without the texts."""
    cases, kept = schemas.cases(), ("outcome", "keyword", "finish_reason", "output_tokens", "tpot_s")
    free, forced = questions.both_ways(server, cases, max_tokens=MAX_TOKENS)

    def row(answer: questions.Answer) -> dict:
        return {key: getattr(answer, key) for key in kept}

    return [{"schema": case.schema_name, "free": row(a), "constrained": row(b)} for case, a, b in zip(cases, free, forced)]


def validity(rows: Mapping[str, Sequence[Mapping]], gpu: bool | None = None) -> pd.DataFrame:
    """A pandas table of a record's ``validity``: for each schema and framework the valid answers, free and constrained.

    ``gpu`` says where the servers ran (``None``: on this machine).
    """
    import pandas as pd

    def share(found: Sequence[Mapping], schema: str, how: str) -> str:
        outcomes = [row[how]["outcome"] for row in found if schema in ("all", row["schema"])]
        return f"{outcomes.count('valid')} of {len(outcomes)}"

    names = [*dict.fromkeys(row["schema"] for found in rows.values() for row in found), "all"]
    return pd.DataFrame(
        {
            (frameworks.label(engine, gpu), how): {schema: share(found, schema, how) for schema in names}
            for engine, found in rows.items()
            for how in ("free", "constrained")
        }
    )


def table(cells: Mapping[str, Mapping[str, Mapping]], gpu: bool | None = None) -> pd.DataFrame:
    """A pandas table of a record's ``cells``: features down, frameworks across, the verdicts; ``gpu`` as in :func:`validity`."""
    import pandas as pd

    columns = {
        frameworks.label(name, gpu): {feature: cell["verdict"] for feature, cell in found.items()}
        for name, found in cells.items()
    }
    return pd.DataFrame(columns)


def notes(cells: Mapping[str, Mapping[str, Mapping]], verdicts: Sequence[str] = VERDICTS) -> list[str]:
    """What was seen, a line for each cell with one of ``verdicts``."""
    return [
        f"{engines.TITLES[name]}, {feature}: {cell['verdict']}: {cell['detail']}"
        for name, found in cells.items()
        for feature, cell in found.items()
        if cell["verdict"] in verdicts
    ]


def main() -> int:
    """The command: probe the engines at hand (or those named) and save the record; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", default=list(FRAMEWORKS), metavar="FRAMEWORK")
    names = parser.parse_args().frameworks
    if unknown := [name for name in names if name not in FRAMEWORKS]:
        sys.exit(f"no framework is called {', '.join(unknown)}: choose from {', '.join(FRAMEWORKS)}")

    def program() -> None:
        print(table(record(names)["cells"]).to_string())

    errors = (serving.ServerError, ModelError, records.RecordError)
    return cli.finish(program, *errors, stopped="the frameworks that were probed are kept")


if __name__ == "__main__":
    sys.exit(main())
