"""What memory and arithmetic allow a model: the roofline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from helpers.weights import models, sizes, tensors
from helpers.weights.models import Form, Model, ModelError

ABOVE = "above 100 %: the roof is wrong, not the engine"
UNCERTAIN = 0.2  # of a roof, between the slowest and the fastest run of its kernel: from here on a share is a range
BUSY, STOLEN = 0.1, 0.02  # of the cores: what others may use while a roof is measured


@dataclass(frozen=True)
class Roof:
    """What was measured: the best kernel of each kind is the roof; every kernel's median is kept."""

    device: str  # "cpu" or the GPU's name
    bandwidth_bytes_per_s: float
    flops_per_s: float
    bandwidth_kernels: dict[str, float]  # bytes/s
    flops_kernels: dict[str, float]  # FLOP/s
    threads: int | None  # None on a GPU
    load_average: float  # of the last minute, before the first kernel
    array_bytes: int
    bandwidth_range: Sequence[float] | None = None  # bytes/s, slowest and fastest run of the best kernel
    flops_range: Sequence[float] | None = None  # FLOP/s, likewise
    busy: float | None = None  # share of the cores in use just before the first kernel
    stolen: float | None = None  # and taken by other guests of the host
    day: str | None = None  # when it was measured

    @property
    def label(self) -> str | None:
        """What to know before a share of this roof is trusted."""
        busy, stolen = self.busy or 0, self.stolen or 0
        if busy <= BUSY and stolen <= STOLEN:
            return None
        return (
            f"measured on a busy machine ({busy:.0%} of the cores in use, {stolen:.0%} stolen): "
            "the roof may be too low; end other programs and measure again"
        )

    @property
    def ridge(self) -> float:
        """FLOP per byte from which on arithmetic is the bound and no longer memory."""
        return self.flops_per_s / self.bandwidth_bytes_per_s

    def attainable(self, intensity: float) -> float:
        """The FLOP/s that work of ``intensity`` FLOP per byte can reach."""
        return min(self.flops_per_s, intensity * self.bandwidth_bytes_per_s)

    def to_dict(self) -> dict:
        """For a record; ``Roof(**that)`` is this roof again."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a dense decoder asks of the machine, whatever the engine."""

    weights_bytes: int  # read by every decode step
    kv_bytes_per_token: int
    parameters: int  # values multiplied for every token, one multiply-add each
    head_parameters: int = 0  # those of them that a prompt needs for its last token only
    cache: sizes.Cache | None = None  # where not every layer keeps every token


@dataclass(frozen=True)
class Bound:
    """The most tokens per second, and what forbids more: "memory" or "compute"."""

    tokens_per_s: float
    limited_by: str
    range: tuple[float, float] | None = None  # tokens/s, from the roof's slowest and fastest runs

    @property
    def uncertain(self) -> bool:
        """Whether the roof was found with a spread of ``UNCERTAIN`` or more."""
        return self.range is not None and self.range[1] - self.range[0] >= UNCERTAIN * self.tokens_per_s


def step_bytes(work: Work, batch: int = 1, context_tokens: float = 0) -> float:
    """Bytes one decode step reads: the weights once, and the KV cache of each of ``batch`` users."""
    cache = work.cache or sizes.Cache(work.kv_bytes_per_token, 1)
    return work.weights_bytes + batch * cache.bytes(context_tokens)


def intensity(work: Work, batch: int = 1, context_tokens: float = 0) -> float:
    """FLOP per byte of a decode step: two per parameter and user; those of attention are left out."""
    return 2 * work.parameters * batch / step_bytes(work, batch, context_tokens)


def decode_bound(work: Work, roof: Roof, batch: int = 1, context_tokens: float = 0) -> Bound:
    """The most output tokens per second of all ``batch`` users together."""
    users_per_byte, users_per_flop = batch / step_bytes(work, batch, context_tokens), 1 / (2 * work.parameters)
    reading, computing = users_per_byte * roof.bandwidth_bytes_per_s, users_per_flop * roof.flops_per_s
    if reading <= computing:
        return Bound(reading, "memory", _scaled(roof.bandwidth_range, users_per_byte))
    return Bound(computing, "compute", _scaled(roof.flops_range, users_per_flop))


def _scaled(limits: Sequence[float] | None, factor: float) -> tuple[float, float] | None:
    return None if limits is None else (limits[0] * factor, limits[1] * factor)


def prefill_bound_s(work: Work, roof: Roof, prompt_tokens: int) -> float:
    """The least TTFT of one prompt, seconds: max(2 N T / FLOPS, W / BW); logits are needed once."""
    body = work.parameters - work.head_parameters
    flops = 2 * (body * prompt_tokens + work.head_parameters)
    return max(flops / roof.flops_per_s, work.weights_bytes / roof.bandwidth_bytes_per_s)


def share(measured_tokens_per_s: float | None, bound: Bound) -> float | None:
    """The share of ``bound`` that was reached; above 1 it is not cut off (see :func:`share_text`)."""
    return None if measured_tokens_per_s is None else measured_tokens_per_s / bound.tokens_per_s


def share_text(reached: float | None, bound: Bound | None = None) -> str:
    """A share in words: "54 %", "none", "40 to 60 %" of an uncertain ``bound``, and above 100 % with the warning."""
    if reached is None:
        return "none"
    told = f"{100 * reached:.0f} %"
    if bound is not None and bound.uncertain:
        least, most = (100 * reached * bound.tokens_per_s / limit for limit in reversed(bound.range))
        told = f"{least:.0f} to {most:.0f} %"
    return told + (f" ({ABOVE})" if reached > 1 else "")


def work(form: Form, model: Model | None = None) -> Work:
    """The :class:`Work` of ``model`` in ``form``, its KV cache in two bytes a value.

    An input embedding that is not the head too costs one row per token and is left out. Raises
    :class:`ModelError` for what the formulas do not hold for: experts, packed weights.
    """
    model = model or models.resolve()
    path = models.weights(form, model)
    if path.is_dir() and "quantization_config" in json.loads((path / "config.json").read_text()):
        raise ModelError(f"{model.name} is quantized: its files do not say how many values they pack; give a Work yourself")
    stored = tensors.of(path)
    if any("experts" in one.name or "exps" in one.name for one in stored):
        raise ModelError(f"{model.name} has experts: a step reads only some of them; the roofline is for dense models")
    untied = any(one.name.endswith("lm_head.weight") or one.name == "output.weight" for one in stored)
    inputs = ("embed_tokens.weight", "token_embd.weight", "wte.weight")
    read = [one for one in stored if not (untied and one.name.endswith(inputs))]
    shape = models.shape(model)
    return Work(
        weights_bytes=sum(one.bytes for one in read),
        kv_bytes_per_token=sizes.kv_bytes_per_token(shape),
        parameters=sum(one.values for one in read),
        head_parameters=shape.vocabulary * shape.hidden,
        cache=sizes.cache(shape) if shape.kept else None,
    )
