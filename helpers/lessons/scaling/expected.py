"""What a step takes on a machine that was measured: :mod:`parallelism`'s bounds, with what a link and an engine really cost.

The bounds leave out what every step pays beside reading and computing. Three terms are added, each with its reason, and
fitted to an engine's figures on one GPU (:func:`fit`): so much for a step (scheduling, sampling, launching), so much more
for each user, and the share of the data sheet's FLOP/s that the matrices of a prompt reach. The KV cache that a step reads
and the arithmetic of attention, which grows with the square of a prompt, are counted; all-reduces take what they took on
this machine. For dense models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helpers.lessons.scaling import parallelism
from helpers.lessons.scaling.parallelism import Layout
from helpers.weights import sizes


@dataclass(frozen=True)
class Machine:
    """GPUs as they were measured: bytes/s of a GPU's memory, FLOP/s of its data sheet, seconds of an all-reduce by its bytes."""

    bytes_per_s: float
    flops_per_s: float
    all_reduce_s: Mapping[int, float]

    def all_reduce(self, size: float) -> float:
        """Seconds of one all-reduce of ``size`` bytes: between two measured sizes on the line through them.

        Below the smallest one its time, which is all latency; above the largest one at that one's rate.
        """
        known = sorted(self.all_reduce_s)
        if size <= known[0]:
            return self.all_reduce_s[known[0]]
        for low, high in zip(known, known[1:]):
            if size <= high:
                part = (size - low) / (high - low)
                return (1 - part) * self.all_reduce_s[low] + part * self.all_reduce_s[high]
        return self.all_reduce_s[known[-1]] * size / known[-1]


@dataclass(frozen=True)
class Costs:
    """What an engine adds to the bounds."""

    step_s: float = 0.0
    user_s: float = 0.0
    compute_share: float = 1.0


NONE = Costs()


def decode_s(name: str, layout: Layout, users: int, context: float, machine: Machine, costs: Costs = NONE) -> float:
    """Seconds of one decode step of ``users`` users with ``context`` tokens each, on a TP group."""
    read = parallelism.read_bytes(name, layout, tokens=users)
    read += users * context * parallelism.share(name, layout).kv_bytes_per_token
    computed = 2 * parallelism.of(name).active * users / layout.tp / (machine.flops_per_s * costs.compute_share)
    return max(read / machine.bytes_per_s, computed) + _wire(name, layout, users, machine) + costs.step_s + users * costs.user_s


def prefill_s(name: str, layout: Layout, tokens: int, machine: Machine, costs: Costs = NONE) -> float:
    """Seconds of one prompt of ``tokens`` tokens, all of it in one step; logits are made for its last token only."""
    sheet = parallelism.of(name).sheet
    head = sheet.shape.vocabulary * sheet.shape.hidden
    body = parallelism.of(name).active - sheet.looked_up - head
    flops = 2 * (body * tokens + head) + _attention_flops(name, tokens)
    computed = flops / layout.tp / (machine.flops_per_s * costs.compute_share)
    read = parallelism.read_bytes(name, layout, tokens=tokens) / machine.bytes_per_s
    return max(computed, read) + _wire(name, layout, tokens, machine) + costs.step_s


def _attention_flops(name: str, tokens: int) -> float:
    """Two products of each pair of tokens, a causal mask leaving half of the pairs, in every head of every layer."""
    model = parallelism.of(name)
    width = model.count("num_attention_heads") * model.sheet.shape.head_dim
    return 2 * 2 * tokens**2 / 2 * width * model.sheet.shape.layers


def _wire(name: str, layout: Layout, tokens: int, machine: Machine) -> float:
    model = parallelism.of(name)
    count = parallelism.all_reduces(model, layout)
    return count * machine.all_reduce(sizes.bytes_of(tokens * model.sheet.shape.hidden, "bfloat16")) if count else 0.0


def fit(name: str, steps: Mapping[int, float], context: float, prompt: tuple[int, float], machine: Machine) -> Costs:
    """The costs of an engine on one GPU: from its step with the fewest and with the most users, and from one prompt.

    ``steps`` has seconds by number of users, ``prompt`` its tokens and its seconds.
    """
    few, many = min(steps), max(steps)
    beyond = {users: steps[users] - decode_s(name, Layout(), users, context, machine) for users in (few, many)}
    user_s = (beyond[many] - beyond[few]) / (many - few)
    step_s = beyond[few] - few * user_s
    tokens, seconds = prompt
    return Costs(step_s, user_s, prefill_s(name, Layout(), tokens, machine) / (seconds - step_s))
