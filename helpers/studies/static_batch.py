"""Transformers without its server: ``model.generate`` on a whole batch, every answer's tokens stamped step by step.

It is what Transformers' own server is measured beside: nobody joins a batch or leaves it, and no HTTP. The stamps become
samples like a server's, so the same code makes figures of them. :func:`measure` runs this module in the kernel
``transformers``, which prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from helpers import kernels, machine
from helpers.bench.measure import Plan
from helpers.bench.timing import Level, Sample
from helpers.weights import models

KERNEL = "transformers"
SAID = "model.generate on all prompts at once, all of one length so that none is padded, measured after the servers"


def measure(plan: Plan) -> Level:
    """The one number of users of ``plan``: as many prompts in a batch, the same that the servers got.

    Raises :class:`helpers.kernels.AskError` in one line.
    """
    (users,) = plan.users
    vocabulary = models.vocabulary()
    turns = [*range(-plan.warmups, 0), *range(plan.repeats)]
    ids = [[p.token_ids for p in plan.prompts(users, turn, plan.input_tokens, vocabulary)] for turn in turns]
    job = {
        "folder": str(models.weights("safetensors")), "turns": ids, "users": users, "tokens": plan.output_tokens,
        "threads": machine.cores(),
    }  # fmt: skip
    stamped = kernels.ask(KERNEL, "helpers.studies.static_batch", given=json.dumps(job))
    blocks = tuple(samples(batches, plan) for batches in stamped[plan.warmups :])
    return Level(users, blocks, warmups=plan.warmups)


def samples(batches: Sequence[dict], plan: Plan) -> tuple[Sample, ...]:
    """A sample for each of a batch's ``answers``: when it was asked (``sent_ns``), when each step came (``steps_ns``)."""
    return tuple(
        Sample(
            batch["sent_ns"], tuple(batch["steps_ns"]), prompt_tokens=plan.input_tokens,
            output_tokens=len(batch["steps_ns"]), token_source="events",
        )
        for batch in batches
        for _ in range(batch["answers"])
    )  # fmt: skip


def generated(model, prompts: Sequence[Sequence[int]], tokens: int) -> dict:
    """One batch of ``prompts``, which are equally long, greedily answered with exactly ``tokens`` each."""
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Stamps(BaseStreamer):
        """Is given the prompts first, then the new tokens of every step."""

        def __init__(self):
            self.at_ns = []

        def put(self, value) -> None:
            self.at_ns.append(time.perf_counter_ns())

        def end(self) -> None:
            pass

    ids, stamps = torch.tensor(prompts, device=model.device), Stamps()
    sent_ns = time.perf_counter_ns()
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, streamer=stamps)
    return {"sent_ns": sent_ns, "steps_ns": stamps.at_ns[1:], "answers": len(prompts)}


def load(folder: str, threads: int):
    """The model as the server loads it; no token ends an answer."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    device = "cuda" if machine.has_gpu() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(Path(folder), dtype=torch.bfloat16, attn_implementation="sdpa").to(device).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def main() -> None:
    """Read the job from standard input, print the stamps of each turn."""
    job = json.load(sys.stdin)
    model, users = load(job["folder"], job["threads"]), job["users"]
    batches = [[turn[start : start + users] for start in range(0, len(turn), users)] for turn in job["turns"]]
    print(json.dumps([[generated(model, batch, job["tokens"]) for batch in turn] for turn in batches]))


if __name__ == "__main__":
    main()
