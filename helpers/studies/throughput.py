"""The long measurements that the notebooks show as records: ``python -m helpers.studies.throughput``.

Throughput and latency at 1, 10 and 100 users, 128 tokens in and 128 out, for every engine at
hand, with what makes them comparable: the instrument's own error, the weights' proof, the KV
pools, agreeing answers, the roof. Each number of users is kept as soon as it is measured, and a
run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping

from helpers import cli, machine, plots, records
from helpers.bench import checks, measure, selftest
from helpers.bench.client import EndpointError
from helpers.lessons.memory import bandwidth
from helpers.servers import engines, install, metrics, serving
from helpers.servers.serving import Server
from helpers.weights import models, same_values, sizes
from helpers.weights.files import ModelError

NAME = "throughput"
INPUT_TOKENS = OUTPUT_TOKENS = 128
SPARE_TOKENS = 32  # SGLang ends an answer two tokens before its context is full
REQUESTS = {1: 3, 10: 20, 100: 100}  # per repeat
FIGURE = records.FOLDER.parent / "vis" / "throughput.png"


def record(users: list[int]) -> dict:
    """Measure every engine at hand at each of ``users`` and save the record; returns it."""
    here, reasons = engines.at_hand()
    for name, reason in reasons.items():
        print(f"{name}: left out, {reason}", flush=True)
    context = INPUT_TOKENS + OUTPUT_TOKENS + SPARE_TOKENS
    with serving.side_by_side(here, slots=max(users), context=context) as servers:
        source = _provenance(servers)
        found = _draft(source)
        missing = [n for n in users if n not in _measured(found)]
        for n in missing:
            started = time.monotonic()
            part = {"provenance": source, "engines": _level(servers, n, source, fresh=n == missing[0])}
            found = records.merge(found, part)
            records.keep(NAME, found)
            print(f"{n} users: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
        found |= {"guards": _guards(servers), "roof": bandwidth.roof().to_dict()}
    records.save(NAME, found)
    return found


def _draft(source: Mapping) -> dict:
    """What an earlier run kept, if it was made alike; else an empty record."""
    kept = records.resume(NAME, source, records.difference)
    if kept is None:
        return {"provenance": source, "engines": {}}
    for part in ("instrument", "workload_sha256"):  # what belongs to the numbers of users that were measured then
        source[part].update(kept["provenance"][part] | source[part])
    return {**kept, "provenance": source}


def _measured(found: Mapping) -> set[int]:
    return {level["users"] for levels in found["engines"].values() for level in levels}


def _level(servers: Mapping[str, Server], users: int, source: Mapping, fresh: bool) -> dict[str, list[dict]]:
    """Each engine's level; ``fresh`` servers had no load yet and are warmed up until they are steady."""
    test = selftest.run(users)
    print(test, flush=True)
    source["instrument"][str(users)] = vars(test)
    plan = measure.Plan(
        (users,), INPUT_TOKENS, OUTPUT_TOKENS, requests=REQUESTS.get(users, users), timeout_s=1800, settle=fresh
    )  # fmt: skip
    source["workload_sha256"][str(users)] = measure.workload_sha256(plan, models.vocabulary())
    found = measure.compare(
        {name: server.endpoint for name, server in servers.items()}, plan, vocabulary=models.vocabulary(),
        awake=lambda name: servers[name].awake(), hits=lambda name: metrics.cache_hits(servers[name]),
    )  # fmt: skip
    return {name: [test.note(level).to_dict()] for name, (level,) in found.items()}


def _provenance(servers: Mapping[str, Server]) -> dict:
    model, here = models.resolve(), {name: server.engine for name, server in servers.items()}
    return records.provenance(
        model=model.name,
        weights={
            name: {"dtype": e.dtype, "read_per_step_bytes": sizes.weights_bytes(e.form, model), **_proof(e, model)}
            for name, e in here.items()
        },
        versions={name: install.versions(engine) for name, engine in here.items()},
        arguments={name: list(server.arguments) for name, server in servers.items()},
        plan={"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "requests": REQUESTS},
        instrument={}, workload_sha256={},
    )  # fmt: skip


def _proof(engine: engines.Engine, model: models.Model) -> dict:
    """The hash of the weights, and of what they were made from if they were."""
    try:
        found = same_values.weights_proof(engine.form, model)
    except ModelError:
        return {"sha256": same_values.content_sha256(models.weights(engine.form, model))}
    return {"sha256": found.made_sha256, "source_sha256": found.source_sha256, "same_values": found.same}


def _guards(servers: Mapping[str, Server]) -> dict[str, dict]:
    """For each engine: does its KV pool fit the formula, and do its answers agree with Transformers'?"""
    per_token = sizes.kv_bytes_per_token(models.shape())
    found = {}
    for name, server in servers.items():
        with server.awake():
            found[name] = {"kv_pool": vars(metrics.check_pool(metrics.pool(server), per_token))}
    if "transformers" in servers:
        endpoints = {name: server.endpoint for name, server in servers.items()}
        answers = checks.first_tokens(endpoints, awake=lambda name: servers[name].awake())
        for name, agreed in checks.agreement(answers, "transformers").items():
            found[name]["agrees_with_transformers"] = {
                "mean_share": agreed.mean_share,
                "whole": agreed.whole,
                "prompts": len(agreed.shares),
            }
    return found


def draw(found: dict) -> None:
    """Draw the README's picture from the record, and nothing else."""
    plots.save(plots.by_users(found["engines"], title=records.describe(found)), FIGURE)


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="1,10,100", help="numbers of users, with commas")
    parser.add_argument("--draw", action="store_true", help="only draw the picture of the newest record")
    options = parser.parse_args()

    def program() -> None:
        users = [int(n) for n in options.users.split(",")]
        draw(records.load(NAME, machine.name()) if options.draw else record(users))

    errors = (serving.ServerError, EndpointError, ModelError, records.RecordError, ValueError)
    return cli.finish(program, *errors, stopped="the numbers of users that were measured are kept")


if __name__ == "__main__":
    sys.exit(main())
