"""The long measurements that the notebooks show as records: ``python -m helpers.studies.throughput``.

Throughput and latency at 1, 10 and 100 users, 128 tokens in and 128 out, for every engine at
hand, with what makes them comparable: the instrument's own error, the weights' proof, the KV
pools, agreeing answers, the roof. Each engine is at its best here: vLLM compiles its model, and
Transformers' static batch stands beside its server. Each number of users is kept as soon as it is
measured, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from helpers import cli, frameworks, kernels, machine, plots, records
from helpers.bench import checks, measure, selftest
from helpers.bench.client import EndpointError
from helpers.formatting import users_told
from helpers.lessons.memory import bandwidth
from helpers.servers import engines, install, llama_cpp, metrics, serving
from helpers.servers.serving import Server
from helpers.studies import static_batch
from helpers.weights import bounds, models, same_values, sizes
from helpers.weights.files import ModelError

NAME = "throughput"
INPUT_TOKENS = OUTPUT_TOKENS = 128
SPARE_TOKENS = 32  # SGLang ends an answer two tokens before its context is full
REQUESTS = {1: 3, 10: 20, 100: 100}  # per repeat
START_TIMEOUT_S = 900  # vLLM compiles its model
FIGURE = records.FOLDER.parent / "vis" / "throughput.png"
BATCH = "transformers-batch"


def record(users: list[int]) -> dict:
    """Measure every engine at hand at each of ``users`` and save the record; returns it.

    An engine whose server cannot be started is left out with its reason, and the others are measured.
    """
    plans = {n: _plan(n) for n in users}  # refuses numbers that cannot be, before anything starts
    here, left_out = engines.at_hand()
    context = INPUT_TOKENS + OUTPUT_TOKENS + SPARE_TOKENS
    size = {"slots": max(plans), "context": context, "timeout_s": START_TIMEOUT_S}
    with serving.side_by_side(map(engines.compiled, here), failed=left_out, **size) as servers:
        for name, reason in left_out.items():
            print(f"{name}: left out, {reason}", flush=True)
        source = _provenance(servers) | {"left_out": {name: serving.without_log(why) for name, why in left_out.items()}}
        found = _draft(source)
        missing = [n for n in users if n not in _measured(found)]
        for n in missing:
            started = time.monotonic()
            part = {"provenance": source, "engines": _level(servers, plans[n], source, fresh=n == missing[0])}
            found = records.merge(found, part)
            records.keep(NAME, found)
            print(f"{n} users: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
        found |= {"guards": _guards(servers), "roof": bandwidth.roof().to_dict()}
    records.save(NAME, found)
    return found


def _plan(users: int, settle: bool = True) -> measure.Plan:
    requests = REQUESTS.get(users, max(users, 1))  # no users at all are refused as such
    return measure.Plan((users,), INPUT_TOKENS, OUTPUT_TOKENS, requests=requests, timeout_s=1800, settle=settle)


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


def _level(servers: Mapping[str, Server], plan: measure.Plan, source: Mapping, fresh: bool) -> dict[str, list[dict]]:
    """Each engine's level; ``fresh`` servers had no load yet and are warmed up until they are steady."""
    (users,) = plan.users
    test = selftest.run(users)
    print(test, flush=True)
    source["instrument"][str(users)] = vars(test)
    plan = _plan(users, settle=fresh)
    source["workload_sha256"][str(users)] = measure.workload_sha256(plan, models.vocabulary())
    found = measure.compare(
        {name: server.endpoint for name, server in servers.items()}, plan, vocabulary=models.vocabulary(),
        awake=lambda name: servers[name].awake(), hits=lambda name: metrics.cache_hits(servers[name]),
    )  # fmt: skip
    levels = {name: [test.note(level).to_dict()] for name, (level,) in found.items()}
    if "transformers" in servers:  # while all servers are suspended
        levels[BATCH] = [static_batch.measure(plan).to_dict()]
    return {name: levels[name] for name in frameworks.FRAMEWORKS if name in levels}


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
        labels={name: frameworks.label(name) for name in here},
        modes={name: _mode(server) for name, server in servers.items()},
        startup_s={name: round(server.startup_s, 1) for name, server in servers.items()},
        plan={"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "requests": REQUESTS},
        instrument={}, workload_sha256={},
    )  # fmt: skip


def _mode(server: Server) -> str:
    """How the engine runs here, where it could run in another way: compiled or eager, and for which processor it was built."""
    if server.engine.kernel == "vllm":
        return "eager" if "--enforce-eager" in server.arguments else "compiled"
    if server.engine.kernel == "llama-cpp":
        return llama_cpp.build(server.log.read_text(errors="replace"), machine.facts()["cpu_flags"])
    return frameworks.INSTEAD_OF_KERNELS.get(server.engine.name, "") if not machine.has_gpu() else ""


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


def rates(levels: Mapping[str, Sequence[Mapping]]) -> dict[str, dict[int, Mapping | None]]:
    """Output tokens/s (``median``, ``low``, ``high``) by engine and number of users; ``None`` is no measurement."""
    return {name: {level["users"]: level["output_tokens_per_s"] for level in of} for name, of in levels.items()}


def best(of: Mapping[str, Mapping[int, Mapping | None]], name: str) -> str:
    """The row by which the framework of ``name`` is compared: llama.cpp's fastest type, any other one's own row.

    ``of`` as :func:`rates` has it. The fastest has the largest geometric mean over the numbers of users.
    """
    kernel = frameworks.get(name).kernel
    rows = [row for row in of if row in engines.ENGINES and engines.ENGINES[row].kernel == kernel]
    whole = [row for row in rows if of[row] and all(of[row].values())]
    return max(whole, key=lambda row: _mean_log(of[row]), default=name)


def _mean_log(by_users: Mapping[int, Mapping]) -> float:
    return sum(math.log(rate["median"]) for rate in by_users.values()) / len(by_users)


def compared(found: Mapping) -> dict[str, list[dict]]:
    """The levels of a record that are drawn: of llama.cpp's rows the fastest."""
    fastest = best(rates(found["engines"]), "llama-cpp")
    others = {name for name in found["engines"] if frameworks.get(name).kernel == "llama-cpp"} - {fastest}
    return {name: levels for name, levels in found["engines"].items() if name not in others}


def notes(found: Mapping) -> list[str]:
    """How the engines of a record ran, and by which row llama.cpp is compared: a line each."""
    of, modes = rates(found["engines"]), found.get("provenance", {}).get("modes", {})
    said = [f"{frameworks.TITLES[frameworks.get(name).kernel]}: {mode}" for name, mode in modes.items() if mode]
    said = list(dict.fromkeys(said))  # llama.cpp's rows are one build
    said += _fastest_type({name: by_users for name, by_users in of.items() if frameworks.get(name).kernel == "llama-cpp"})
    if BATCH in of:
        said.append(f"{frameworks.get(BATCH).title}: {static_batch.SAID}")
    if "roof" in found and (label := bounds.Roof(**found["roof"]).label):
        said.append(f"the roof was {label}")
    return said


def _fastest_type(of: Mapping[str, Mapping[int, Mapping | None]]) -> list[str]:
    """By which of its types llama.cpp is compared, and where another's median is higher; empty unless it has several."""
    fastest = best(of, "llama-cpp")
    whole = of.get(fastest, {})
    if len(of) < 2 or not whole or not all(whole.values()):  # no type has all figures
        return []
    said = [f"llama.cpp is compared by {frameworks.get(fastest).dtype}, its fastest type in the geometric mean over the users"]
    for users in whole:
        known = {name: by_users[users]["median"] for name, by_users in of.items() if by_users.get(users)}
        if (first := max(known, key=known.get)) != fastest:
            said.append(f"with {users_told(users)} the median of {frameworks.get(first).dtype} is higher")
    return ["; ".join(said)]


def works(found: Mapping) -> dict[str, bounds.Work]:
    """What each engine of a record asks of its machine, by the bytes that stand in the record: its weights need not be here."""
    weights, work = found["provenance"]["weights"], bounds.work("gguf")
    read = {name: weights.get(name) or weights[frameworks.get(name).kernel] for name in found["engines"]}
    return {name: replace(work, weights_bytes=of["read_per_step_bytes"]) for name, of in read.items()}


def draw(found: dict) -> None:
    """Draw the README's picture from the record, and nothing else."""
    title, gpu = records.describe(found), records.on_gpu(found)
    plots.save(plots.by_users(compared(found), title=title, notes=notes(found), gpu=gpu), FIGURE)


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="1,10,100", help="numbers of users, with commas")
    parser.add_argument("--draw", action="store_true", help="only draw the picture of the newest record")
    options = parser.parse_args()

    def program() -> None:
        users = [int(n) for n in options.users.split(",")]
        draw(records.load(NAME, machine.name()) if options.draw else record(users))

    errors = (
        serving.ServerError, EndpointError, ModelError, records.RecordError, ValueError, kernels.AskError, kernels.MissingKernel,
        bandwidth.RooflineError,
    )  # fmt: skip
    return cli.finish(program, *errors, stopped="the numbers of users that were measured are kept")


if __name__ == "__main__":
    sys.exit(main())
