"""An engine watched step by step from inside: vLLM in this process, its scheduler asked what it gives each request.

:func:`watched` runs this module in the kernel ``vllm``, which prints JSON. A run is passed several times, each time with an
empty prefix cache; that its steps do not differ is checked by :mod:`helpers.studies.steps`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping

from helpers import kernels

KERNEL = "vllm"
DIGITS = 3  # of a millisecond


def watched(job: Mapping) -> dict:
    """The answer of :func:`main` to ``job``: the blocks of the pool, and for each run its passes, lists of steps.

    ``job`` has the weights' ``folder``, the engine's ``options``, how many ``passes``, and ``runs``: by name the requests, each
    with ``joins_step``, ``prompt`` (token ids) and ``output_tokens``. Raises :class:`~helpers.kernels.AskError` in one line.
    """
    return kernels.ask(KERNEL, "helpers.studies.stepping", given=json.dumps(job))


def watching():
    """vLLM's scheduler as a class that notes what each call of ``schedule`` decided, in the list ``noted``.

    It is given to the engine by its own option ``scheduler_cls``.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    class Watching(Scheduler):
        noted: list[dict] = []

        def schedule(self, *given, **more):
            decided = super().schedule(*given, **more)
            self.noted.append(_noted(self, decided))
            return decided

    return Watching


def _noted(scheduler, decided) -> dict:
    """What ``decided`` gives each request, what was computed of it before, who waits, and which blocks are whose.

    A block has a ``content`` (its hash) while what it holds would be found by a request that begins alike.
    """
    manager, cached = scheduler.kv_cache_manager, decided.scheduled_cached_reqs
    if manager.num_kv_cache_groups != 1:
        raise ValueError(
            f"the model has {manager.num_kv_cache_groups} kinds of cache, each with blocks of its own: choose another"
        )
    before = {one.req_id: one.num_computed_tokens for one in decided.scheduled_new_reqs}
    before |= dict(zip(cached.req_ids, cached.num_computed_tokens))
    return {
        "scheduled": {_name(key): tokens for key, tokens in decided.num_scheduled_tokens.items()},
        "computed": {_name(key): before[key] for key in decided.num_scheduled_tokens},
        "waiting": [_name(one.request_id) for one in scheduler.waiting],
        "blocks": {_name(one.request_id): manager.get_block_ids(one.request_id)[0] for one in scheduler.running},
        "contents": [None if one.block_hash is None else one.block_hash.hex() for one in manager.block_pool.blocks],
    }


def _name(request_id: str) -> str:
    """A request's name, to which the engine adds a dash and letters of its own."""
    return request_id.partition("-")[0]


def run(engine, noted: list[dict], requests: Mapping[str, Mapping]) -> list[dict]:
    """One pass: every request joins before its step, and the engine steps until all have ended.

    Raises :class:`ValueError` where all have ended before the next one joins.
    """
    from vllm import SamplingParams

    steps, names, start_ns = [], {}, time.perf_counter_ns()
    while not steps or engine.has_unfinished_requests() or any(one["joins_step"] >= len(steps) for one in requests.values()):
        for name, one in requests.items():
            if one["joins_step"] == len(steps):
                how = SamplingParams(max_tokens=one["output_tokens"], temperature=0, ignore_eos=True)
                engine.add_request(name, {"prompt_token_ids": one["prompt"]}, how)
        noted.clear()
        begun_ns = time.perf_counter_ns()
        outputs = engine.step()
        ended_ns = time.perf_counter_ns()
        if not noted:
            raise ValueError(f"no request is there in step {len(steps)}: let the next one join earlier")
        (decided,) = noted
        decided["contents"] = [content and names.setdefault(content, len(names) + 1) for content in decided["contents"]]
        ended = [one.request_id for one in outputs if one.finished]
        steps.append({"at_ms": _ms(begun_ns - start_ns), "took_ms": _ms(ended_ns - begun_ns), **decided, "ended": ended})
    return steps


def _ms(ns: int) -> float:
    return round(ns / 1e6, DIGITS)


def main() -> None:
    """Read the job from standard input, print the pool and the passes of each run."""
    job = json.load(sys.stdin)
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}  # the scheduler in this process

    from vllm import LLM

    scheduler = watching()
    llm = LLM(job["folder"], scheduler_cls=scheduler, use_tqdm_on_load=False, **job["options"])
    cache, passes = llm.llm_engine.vllm_config.cache_config, {}
    for name, requests in job["runs"].items():
        passes[name] = []
        for _ in range(job["passes"]):
            llm.reset_prefix_cache()
            passes[name].append(run(llm.llm_engine, scheduler.noted, requests))
    print(json.dumps({"pool": {"blocks": cache.num_gpu_blocks, "block_tokens": cache.block_size}, "runs": passes}))


if __name__ == "__main__":
    main()
