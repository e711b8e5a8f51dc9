"""The long measurements that the notebooks show as records: ``python -m helpers.recording``.

Throughput and latency at 1, 10 and 100 users, 128 tokens in and 128 out, for every engine at
hand. Each number of users is kept as soon as it is measured, and a run that was stopped goes
on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time

from helpers import engines, guard, measure, memory, models, plots, records, serving

NAME = "throughput"
INPUT_TOKENS = OUTPUT_TOKENS = 128
REQUESTS = {1: 3, 10: 20, 100: 100}  # per repeat
FIGURE = records.FOLDER.parent / "vis" / "throughput.png"


def record(users: list[int]) -> dict:
    """Measure every engine at each of ``users`` that this machine's record lacks; returns the record."""
    here, reasons = engines.at_hand()
    for name, reason in reasons.items():
        print(f"{name}: left out, {reason}", flush=True)
    kept = _kept()
    missing = [n for n in users if n not in {level["users"] for levels in kept["engines"].values() for level in levels}]
    if not missing:
        return kept
    with serving.side_by_side(here, slots=max(users), context=INPUT_TOKENS + OUTPUT_TOKENS) as servers:
        endpoints = {name: server.endpoint for name, server in servers.items()}
        for n in missing:
            started = time.monotonic()
            plan = measure.Plan((n,), INPUT_TOKENS, OUTPUT_TOKENS, requests=REQUESTS.get(n, n), timeout_s=1800)
            options = {"vocabulary": models.vocabulary(), "awake": lambda name: servers[name].awake()}
            for name, (level,) in measure.compare(endpoints, plan, **options).items():
                kept["engines"].setdefault(name, []).append(level.to_dict())
            kept["provenance"] = _provenance(here, plan)
            records.save(NAME, kept, replace=True)
            print(f"{n} users: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return kept


def _kept() -> dict:
    try:
        return records.load(NAME, records.machine_name())
    except records.RecordError:
        return {"engines": {}}


def _provenance(here: list[engines.Engine], plan: measure.Plan) -> dict:
    model = models.resolve()
    return records.provenance(
        model=model.name,
        weights={e.name: {"dtype": e.dtype, "read_per_step_bytes": memory.weights_bytes(e.form, model)} for e in here},
        versions={engine.name: records.versions(engine) for engine in here},
        workload_sha256=measure.workload_sha256(plan, models.vocabulary()),
        plan=vars(plan),
    )


def draw(record: dict) -> None:
    """Draw the README's picture from the record, and nothing else."""
    figure = plots.by_users(record["engines"], title=records.describe(record))
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="1,10,100", help="numbers of users, with commas")
    users = [int(n) for n in parser.parse_args().users.split(",")]
    guard.interruptible()
    try:
        draw(record(users))
    except (serving.ServerError, models.ModelError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stopped:
        print("stopped; the numbers of users that were measured are kept", file=sys.stderr)
        sys.exit(128 + stopped.args[0])
