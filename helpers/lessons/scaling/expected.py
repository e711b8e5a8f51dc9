"""What a step takes on a machine that was measured: :mod:`parallelism`'s bounds, with what a link and an engine really cost.

The bounds leave out what every step pays beside reading and computing. Four terms are added, each with its reason, and
fitted to an engine's figures on one GPU (:func:`fit`): so much for a step (scheduling, sampling, launching), so much more
for each user, the share of the data sheet's FLOP/s that the matrices of a prompt reach, and so much for a prompt of some
thousand tokens, however many (probably the launching of its kernels, which a decode step has in a graph). The KV cache that
a step reads and the arithmetic of attention, which grows with the square of a prompt, are counted; all-reduces take what
they took on this machine. A mixture of experts reads those that some token is sent to, as :func:`parallelism.read_bytes` has
it, evenly over the GPUs; tokens that are exchanged between copies are not covered, as no all-to-all was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from helpers.lessons.scaling import parallelism
from helpers.lessons.scaling.parallelism import Layout
from helpers.weights import sizes


@dataclass(frozen=True)
class Machine:
    """GPUs as they were measured: bytes/s of a GPU's memory, FLOP/s of its data sheet, seconds of an all-reduce by its bytes.

    The FLOP/s are those for weights of ``dtype``.
    """

    bytes_per_s: float
    flops_per_s: float
    all_reduce_s: Mapping[int, float]
    dtype: str = "bfloat16"

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
    prompt_s: float = 0.0

    def moved(self, name: str, other: str) -> Costs:
        """The costs of model ``name`` for ``other``: those of a step and of a prompt are paid in each layer, a user's once."""
        layers = parallelism.of(other).sheet.shape.layers / parallelism.of(name).sheet.shape.layers
        return replace(self, step_s=self.step_s * layers, prompt_s=self.prompt_s * layers)


NONE = Costs()


def decode_s(name: str, layout: Layout, users: int, context: float, machine: Machine, costs: Costs = NONE) -> float:
    """Seconds of one decode step of ``users`` users with ``context`` tokens each, in one batch through all stages."""
    return step_s(name, layout, machine, costs, users=users, context=context)


def prefill_s(name: str, layout: Layout, tokens: int, machine: Machine, costs: Costs = NONE) -> float:
    """Seconds of one prompt of ``tokens`` tokens, all of it in one step; logits are made for its last token only."""
    return step_s(name, layout, machine, costs, prompts=(tokens,))


def step_s(
    name: str, layout: Layout, machine: Machine, costs: Costs = NONE, *,
    users: int = 0, context: float = 0, prompts: Sequence[int] = (),
) -> float:  # fmt: skip
    """Seconds of one step in which ``users`` users decode, ``context`` tokens each, and ``prompts`` are read, of so many tokens.

    The weights are read while the matrices are computed, the KV cache of those who decode besides.
    """
    if layout.exchanges:
        raise parallelism.LayoutError(
            f"{name}, {layout}: no all-to-all was measured; take EP without DP, or the bound of parallelism.step"
        )
    tokens = users + sum(prompts)
    flops = 2 * parallelism.of(name).active * users + sum(_prompt_flops(name, prompt) for prompt in prompts)
    computed = flops / layout.tp / (machine.flops_per_s * costs.compute_share)
    weights = parallelism.read_bytes(name, layout, tokens=tokens, dtype=machine.dtype)
    cache = users * context * parallelism.share(name, replace(layout, pp=1)).kv_bytes_per_token
    bounds = max(weights / machine.bytes_per_s, computed) + cache / machine.bytes_per_s + _wire(name, layout, tokens, machine)
    return bounds + costs.step_s + users * costs.user_s + (costs.prompt_s if prompts else 0)


def _prompt_flops(name: str, tokens: int) -> float:
    """Two for each parameter at work and each token, the head once, and attention's."""
    sheet = parallelism.of(name).sheet
    head = sheet.shape.vocabulary * sheet.shape.hidden
    body = parallelism.of(name).active - sheet.looked_up - head
    return 2 * (body * tokens + head) + _attention_flops(name, tokens)


def _attention_flops(name: str, tokens: int) -> float:
    """Two products of each pair of tokens, a causal mask leaving half of the pairs, in every head of every layer."""
    model = parallelism.of(name)
    width = model.count("num_attention_heads") * model.sheet.shape.head_dim
    return 2 * 2 * tokens**2 / 2 * width * model.sheet.shape.layers


def _wire(name: str, layout: Layout, tokens: int, machine: Machine) -> float:
    """All-reduces, and what goes from stage to stage: taken to last as long as an all-reduce of the same bytes."""
    model = parallelism.of(name)
    count = parallelism.all_reduces(model, layout) + layout.pp - 1
    return count * machine.all_reduce(sizes.bytes_of(tokens * model.sheet.shape.hidden, "bfloat16")) if count else 0.0


def fit(name: str, steps: Mapping[int, float], context: float, prompts: Mapping[int, float], machine: Machine) -> Costs:
    """The costs of an engine on one GPU: from its steps with the fewest and the most users, and its shortest and longest prompt.

    ``steps`` has seconds by number of users, ``prompts`` by number of tokens.
    """
    few, many = min(steps), max(steps)
    beyond = {users: steps[users] - decode_s(name, Layout(), users, context, machine) for users in (few, many)}
    user_s = (beyond[many] - beyond[few]) / (many - few)
    step_s = beyond[few] - few * user_s
    short, long = min(prompts), max(prompts)
    flops_per_s = (_prompt_flops(name, long) - _prompt_flops(name, short)) / (prompts[long] - prompts[short])
    prompt_s = prompts[short] - _prompt_flops(name, short) / flops_per_s - step_s
    return Costs(step_s, user_s, flops_per_s / machine.flops_per_s, prompt_s)
