"""What an engine does step by step, recorded: ``python -m helpers.studies.steps``.

vLLM serves two short plans of requests: in ``batch`` there are more of them than slots and one has a long prompt, in ``cache``
some begin alike and the pool of blocks is small. The record keeps what each request got in each step, the blocks that it held,
and how long the step took. Few requests on one machine are something to look at; :mod:`helpers.studies.throughput` measures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jsonschema

from helpers import cli, kernels, machine, paths, records
from helpers.bench import workload
from helpers.servers import engines, install
from helpers.studies import stepping
from helpers.weights import models, sizes
from helpers.weights.files import ModelError

NAME = "steps"
SCHEMA = Path(__file__).with_name("steps.schema.json")
AGAIN = "make it again with `nox -s record -- steps`"
PASSES = 4  # the first one warms up; blocks are told of it, times of the others
BLOCKS, BLOCK_TOKENS = 24, 32
LIMITS = {"max_num_seqs": 4, "max_num_batched_tokens": 128, "max_model_len": 512}


class StepsError(records.RecordError):
    """A record of steps that contradicts itself, or passes that were not alike: where, and the next step, in one line."""


@dataclass(frozen=True)
class Request:
    """What is asked: after how many steps, tokens in and out, and with whose prompt it begins."""

    joins_step: int
    prompt_tokens: int
    output_tokens: int
    like: str | None = None
    like_tokens: int = 0


RUNS = {  # there is a request in every step, so that no step is empty
    "cache": {  # first, while the blocks of the pool are in the order of their numbers
        "A": Request(0, 136, 14),
        "B": Request(3, 146, 14, "A", 96),
        "C": Request(5, 70, 10),
        "D": Request(17, 126, 8, "A", 96),
        "E": Request(20, 490, 6),
        "F": Request(29, 136, 6, "A", 136),
    },
    "batch": {
        "A": Request(0, 24, 20),
        "B": Request(0, 40, 8),
        "C": Request(0, 16, 30),
        "D": Request(0, 30, 12),
        "E": Request(4, 380, 10),
        "F": Request(6, 20, 14),
        "G": Request(6, 12, 6),
    },
}


def prompts(name: str, plan: Mapping[str, Request], vocabulary: Sequence) -> dict[str, list[int]]:
    """The token ids of each prompt of the run ``name``; one that begins like another's comes after it."""
    made: dict[str, list[int]] = {}
    for key, asked in plan.items():
        (own,) = workload.prompts(1, asked.prompt_tokens, seed=f"{name} {key}", vocabulary=vocabulary)
        begin = made[asked.like][: asked.like_tokens] if asked.like else []
        made[key] = [*begin, *own.token_ids[len(begin) :]]
    return made


def record() -> dict:
    """Run both plans and save the record; returns it.

    Raises :class:`StepsError` if a pass was not like the first one, or if what came back is not what was asked.
    """
    source, vocabulary, asked = _provenance(), models.vocabulary(), options(LIMITS, BLOCKS)
    runs = {
        name: {
            key: {"joins_step": plan[key].joins_step, "output_tokens": plan[key].output_tokens, "prompt": ids}
            for key, ids in prompts(name, plan, vocabulary).items()
        }
        for name, plan in RUNS.items()
    }
    job = {"folder": str(models.weights("safetensors")), "options": asked, "passes": PASSES, "runs": runs}
    came = stepping.watched(job)
    found = {
        "pool": came["pool"],
        "runs": {name: {"requests": _asked(plan), "steps": merged(name, came["runs"][name])} for name, plan in RUNS.items()},
        "provenance": {**source, "arguments": {"vllm": [f"{key}={value}" for key, value in asked.items()]}, "limits": LIMITS},
    }
    check(found, "this run")
    records.save(NAME, found)
    return found


def options(limits: Mapping[str, int], blocks: int) -> dict:
    """How vLLM is started: with ``limits`` and a pool of ``blocks``; one step is decided when the one before it is done."""
    on_device = {"gpu_memory_utilization": 0.3} if machine.has_gpu() else {"enforce_eager": True}
    pool_bytes = blocks * BLOCK_TOKENS * sizes.kv_bytes_per_token(models.shape())
    pool = {"block_size": BLOCK_TOKENS, "kv_cache_memory_bytes": pool_bytes}
    return {"dtype": "bfloat16", **limits, **pool, "async_scheduling": False, **on_device}


def _asked(plan: Mapping[str, Request]) -> dict:
    return {key: asdict(one) for key, one in plan.items()}


def _provenance() -> dict:
    versions = {"vllm": install.versions(engines.get("vllm"))}
    return records.provenance(model=models.resolve().name, versions=versions, passes=PASSES, warm_ups=1)


def merged(name: str, passes: Sequence[Sequence[Mapping]]) -> list[dict]:
    """The steps of the first pass, each with the times of all later ones.

    Raises :class:`StepsError` that names the first step in which a pass did something else.
    """
    first, *others = passes
    for number, one in enumerate(others, 2):
        for step, (here, there) in enumerate(zip(alike(first), alike(one), strict=False)):
            if here != there:
                raise StepsError(f"run {name!r}: pass {number} differs from the first in step {step}: {AGAIN}")
        if len(one) != len(first):
            raise StepsError(f"run {name!r}: pass {number} has {len(one)} steps, the first {len(first)}: {AGAIN}")
    times = ("at_ms", "took_ms")
    return [{**step, **{key: [one[number][key] for one in others] for key in times}} for number, step in enumerate(first)]


def alike(steps: Sequence[Mapping]) -> list[tuple]:
    """What two passes have in common in each step: blocks by the order in which they were first held, and no times."""
    order: dict[int, int] = {}
    told = []
    for step in steps:
        held = {key: [order.setdefault(block, len(order)) for block in blocks] for key, blocks in step["blocks"].items()}
        full = {order[block] for block, content in enumerate(step["contents"]) if content and block in order}
        told.append((*(step[key] for key in ("scheduled", "computed", "waiting", "ended")), held, full))
    return told


def check(found: Mapping, where: str) -> None:
    """Raise :class:`StepsError` with the first fault of a record, which ``where`` names, and the place of it in the record."""
    schema = json.loads(paths.data(SCHEMA))
    if fault := jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(found)):
        raise StepsError(f"{where}, {fault.json_path}: {fault.message[:200]}: {AGAIN}")
    for name, run in found["runs"].items():
        if reason := next(faults(run, found["pool"], found["provenance"]["limits"]), None):
            raise StepsError(f"{where}, run {name!r}: {reason}: {AGAIN}")


def faults(run: Mapping, pool: Mapping, limits: Mapping) -> Iterator[str]:
    """In words everything in which ``run`` is not what it claims: ends, tokens, blocks."""
    yield from _ends(run)
    yield from _tokens(run, limits)
    for number, step in enumerate(run["steps"]):
        yield from (f"step {number}: {fault}" for fault in _blocks(run["requests"], step, pool))


def _ends(run: Mapping) -> Iterator[str]:
    ended = Counter(key for step in run["steps"] for key in step["ended"])
    yield from (f"request {key} never ended" for key in run["requests"] if not ended[key])
    yield from (f"request {key} ended, and nobody asked for it" for key in ended if key not in run["requests"])
    yield from (f"request {key} ended {times} times" for key, times in ended.items() if times > 1)


def _tokens(run: Mapping, limits: Mapping) -> Iterator[str]:
    """What was computed of each request goes on where it was, and ends one token before its last, which is not computed."""
    done: dict[str, int] = {}
    for number, step in enumerate(run["steps"]):
        if (tokens := sum(step["scheduled"].values())) > limits["max_num_batched_tokens"]:
            yield f"step {number} has {tokens} tokens, and {limits['max_num_batched_tokens']} are its most"
        if len(step["blocks"]) > limits["max_num_seqs"]:
            yield f"step {number} has {len(step['blocks'])} requests, and {limits['max_num_seqs']} are its most"
        for key, tokens in step["scheduled"].items():
            if (before := step["computed"][key]) != done.setdefault(key, before):
                yield f"step {number}: request {key} goes on at token {before}, and {done[key]} were computed"
            done[key] = before + tokens
    for key, asked in run["requests"].items():
        if (whole := asked["prompt_tokens"] + asked["output_tokens"] - 1) != done.get(key, 0):
            yield f"request {key} needs {whole} tokens computed or found, and got {done.get(key, 0)}"


def _blocks(requests: Mapping, step: Mapping, pool: Mapping) -> Iterator[str]:
    """Enough blocks for the tokens, none beyond the pool, and none shared but by those who begin alike."""
    holders = Counter(block for blocks in step["blocks"].values() for block in blocks)
    yield from (f"block {block} is not in the pool" for block in holders if not 0 < block < pool["blocks"])
    if len(step["contents"]) != pool["blocks"]:
        yield f"it tells the contents of {len(step['contents'])} blocks, and the pool has {pool['blocks']}"
    for key, tokens in step["scheduled"].items():
        held, need = len(step["blocks"].get(key, ())), -(-(step["computed"][key] + tokens) // pool["block_tokens"])
        if held != need:
            yield f"request {key} holds {held} blocks, and its tokens fill {need}"
    alike_blocks = most_shared(requests, pool["block_tokens"])
    for key, blocks in step["blocks"].items():
        own = blocks[alike_blocks[key] :]
        yield from (
            f"block {block} of request {key} is shared beyond the common beginning" for block in own if holders[block] > 1
        )


def most_shared(requests: Mapping, block_tokens: int) -> dict[str, int]:
    """How many full blocks each request has in common with another one's beginning, at most."""
    most = {key: asked["like_tokens"] // block_tokens for key, asked in requests.items()}
    for asked in requests.values():
        if asked["like"]:
            most[asked["like"]] = max(most[asked["like"]], asked["like_tokens"] // block_tokens)
    return most


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    argparse.ArgumentParser(prog="python -m helpers.studies.steps", description=__doc__.splitlines()[0]).parse_args()

    def program() -> None:
        for name, run in record()["runs"].items():
            print(f"{name}: {len(run['requests'])} requests in {len(run['steps'])} steps", flush=True)

    errors = (records.RecordError, ModelError, kernels.AskError, kernels.MissingKernel)
    return cli.finish(program, *errors, stopped="nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
