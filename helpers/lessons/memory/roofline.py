"""The roof: what this machine's memory and arithmetic allow, and how near to it each engine comes.

    python -m helpers.lessons.memory.roofline [--device cpu|cuda] [--json]

A decode step reads every weight and the KV cache of every user once, so memory bandwidth bounds
tokens per second; with many users arithmetic does (Williams, Waterman, Patterson, *Roofline*,
CACM 2009). No kernel reaches the whole bandwidth of a machine: several are timed and the best
is the roof. A share above 100 % says that the roof is wrong, never that the engine is that fast.
On a rented machine the neighbours' load moves the roof: measure it close to the engines.

On a CPU numpy multiplies float32. An engine that multiplies bf16 or int8 where the processor has
instructions for them can pass that roof: ``measure(kernel="transformers")`` adds bf16 from torch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from helpers import kernels
from helpers.bench import timing
from helpers.lessons.memory import bandwidth
from helpers.lessons.memory.bandwidth import RooflineError
from helpers.servers import engines
from helpers.weights import files, models, sizes
from helpers.weights.models import Form, Model, ModelError

ABOVE = "above 100 %: the roof is wrong, not the engine"


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


@dataclass(frozen=True)
class Bound:
    """The most tokens per second, and what forbids more: "memory" or "compute"."""

    tokens_per_s: float
    limited_by: str


def step_bytes(work: Work, batch: int = 1, context_tokens: float = 0) -> float:
    """Bytes one decode step reads: the weights once, and the KV cache of each of ``batch`` users."""
    return work.weights_bytes + batch * context_tokens * work.kv_bytes_per_token


def intensity(work: Work, batch: int = 1, context_tokens: float = 0) -> float:
    """FLOP per byte of a decode step: two per parameter and user; those of attention are left out."""
    return 2 * work.parameters * batch / step_bytes(work, batch, context_tokens)


def decode_bound(work: Work, roof: Roof, batch: int = 1, context_tokens: float = 0) -> Bound:
    """The most output tokens per second of all ``batch`` users together."""
    reading = batch * roof.bandwidth_bytes_per_s / step_bytes(work, batch, context_tokens)
    computing = roof.flops_per_s / (2 * work.parameters)
    return Bound(reading, "memory") if reading <= computing else Bound(computing, "compute")


def prefill_bound_s(work: Work, roof: Roof, prompt_tokens: int) -> float:
    """The least TTFT of one prompt, seconds: max(2 N T / FLOPS, W / BW); logits are needed once."""
    body = work.parameters - work.head_parameters
    flops = 2 * (body * prompt_tokens + work.head_parameters)
    return max(flops / roof.flops_per_s, work.weights_bytes / roof.bandwidth_bytes_per_s)


def share(measured_tokens_per_s: float | None, bound: Bound) -> float | None:
    """The share of ``bound`` that was reached; above 1 it is not cut off (see :func:`share_text`)."""
    return None if measured_tokens_per_s is None else measured_tokens_per_s / bound.tokens_per_s


def share_text(reached: float | None) -> str:
    """A share in words: "54 %", "none", and above 100 % with the warning."""
    return "none" if reached is None else f"{100 * reached:.0f} %" + (f" ({ABOVE})" if reached > 1 else "")


def work(form: Form, model: Model | None = None) -> Work:
    """The :class:`Work` of ``model`` in ``form``, its KV cache in two bytes a value.

    An input embedding that is not the head too costs one row per token and is left out. Raises
    :class:`ModelError` for what the formulas do not hold for: experts, packed weights.
    """
    model = model or models.resolve()
    tensors = list(_tensors(form, model))
    if any("experts" in name or "exps" in name for name, _, _ in tensors):
        raise ModelError(f"{model.name} has experts: a step reads only some of them; the roofline is for dense models")
    untied = any(name.endswith("lm_head.weight") or name == "output.weight" for name, _, _ in tensors)
    inputs = ("embed_tokens.weight", "token_embd.weight", "wte.weight")
    read = [(values, size) for name, values, size in tensors if not (untied and name.endswith(inputs))]
    shape = models.shape(model)
    return Work(
        weights_bytes=sum(size for _, size in read),
        kv_bytes_per_token=sizes.kv_bytes_per_token(shape),
        parameters=sum(values for values, _ in read),
        head_parameters=shape.vocabulary * shape.hidden,
    )


def _tensors(form: Form, model: Model) -> Iterator[tuple[str, int, int]]:
    """Name, number of values and bytes of every tensor."""
    path = models.weights(form, model)
    if path.suffix == ".gguf":
        yield from ((t.name, int(t.n_elements), int(t.n_bytes)) for t in files.read_gguf(path).tensors)
        return
    if "quantization_config" in json.loads((path / "config.json").read_text()):
        raise ModelError(f"{model.name} is quantized: its files do not say how many values they pack; give a Work yourself")
    for file in path.glob("*.safetensors"):
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                yield name, math.prod(tensor["shape"]), end - start


@dataclass(frozen=True)
class Reached:
    """What an engine reached at a number of users, beside its bound."""

    engine: str
    users: int
    intensity: float  # FLOP per byte
    rate: dict | None  # output tokens/s: median, low, high
    bound: Bound
    flops_per_s: float | None
    note: str  # why the level is no measurement, if so

    @property
    def share(self) -> float | None:
        return share(self.rate and self.rate["median"], self.bound)


def reached(
    levels: Mapping[str, list[dict]], roof: Roof, works: Mapping[str, Work] | None = None, model: Model | None = None
) -> list[Reached]:
    """Each engine at each number of users: ``levels`` as ``helpers.bench``'s JSON has them, by engine.

    ``works`` gives each engine's :class:`Work` where the weights are not here. The KV cache is
    taken at its mean length, the prompt and half the answer. One user's rate is 1 / TPOT, pure
    decode. Of several users it is ``output_tokens_per_s``, whose time contains their prefill: their
    share is what serving reaches of the decode roof, and decode alone is nearer to it. A level of
    arrivals per second has no number of users, so no bound, and is left out.
    """
    works = works or {name: work(engines.get(name).form, model) for name in levels}
    closed = [(name, level) for name, measured in levels.items() for level in measured if level["users"] is not None]
    return [_reached(name, level, roof, works[name]) for name, level in closed]


def _reached(name: str, level: dict, roof: Roof, of: Work) -> Reached:
    users, context = level["users"], _mean(level["prompt_tokens"]) + _mean(level["output_tokens"]) / 2
    bound = decode_bound(of, roof, users, context)
    rate = _per_s(level["tpot_s"]) if users == 1 else level["output_tokens_per_s"]
    flops = 2 * of.parameters * rate["median"] if rate else None
    return Reached(name, users, intensity(of, users, context), rate, bound, flops, level["label"] or "")


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths) if lengths else 0.0


def _per_s(tpot_s: dict | None) -> dict | None:
    """1 / TPOT; the longest time is the lowest rate."""
    return tpot_s and {"median": 1 / tpot_s["median"], "low": 1 / tpot_s["high"], "high": 1 / tpot_s["low"]}


def table(levels: Mapping[str, list[dict]], roof: Roof, works: Mapping[str, Work] | None = None, model: Model | None = None):
    """A pandas table of :func:`reached`: each engine's share of the roof at each number of users."""
    import pandas as pd

    rows = [
        {
            "framework": engines.get(found.engine).title,
            "weights": engines.get(found.engine).dtype,
            "users": found.users,
            "FLOP/byte": f"{found.intensity:.1f}",
            "output tokens/s": timing.told(found.rate, none="none"),
            "bound, tokens/s": f"{found.bound.tokens_per_s:.0f}",
            "limited by": found.bound.limited_by,
            "share of the roof": share_text(found.share),
            "note": found.note,
        }
        for found in reached(levels, roof, works, model)
    ]
    shown = pd.DataFrame(rows).set_index(["framework", "weights", "users"])
    return shown if any(shown["note"]) else shown.drop(columns="note")


def measure(device: str | None = None, kernel: str | None = None) -> Roof:
    """Measure ``device``, "cpu" or "cuda" (default: a GPU if there is one); some seconds of all cores.

    ``kernel`` names the framework in whose interpreter it is done; a GPU needs torch, so that of
    ``transformers`` is taken where this one has none. Raises :class:`RooflineError` in one line.
    """
    device = device or ("cuda" if engines.has_gpu() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}: choose cpu or cuda")
    if device == "cuda" and not engines.has_gpu():
        raise RooflineError("no NVIDIA GPU here: measure the cpu instead (--device cpu)")
    if device == "cuda" and not find_spec("torch"):
        kernel = kernel or "transformers"
    if kernel:
        return _measure_in(kernel, device)
    load = round(os.getloadavg()[0], 2)
    found = bandwidth.cuda() if device == "cuda" else bandwidth.cpu(engines.cores())
    return Roof(
        bandwidth_bytes_per_s=max(found["bandwidth_kernels"].values()),
        flops_per_s=max(found["flops_kernels"].values()),
        load_average=load,
        **found,
    )


def _measure_in(kernel: str, device: str) -> Roof:
    command = [kernels.interpreter(kernel), "-m", "helpers.lessons.memory.roofline", "--device", device, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=kernels.REPOSITORY)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no output"])[-1]
        raise RooflineError(f"the roof could not be measured in the kernel {kernel!r}: {last}")
    return Roof(**json.loads(ran.stdout))


def as_text(roof: Roof) -> str:
    """The roof as lines of text: every kernel's figure, and the best."""
    where = f"{roof.threads} threads" if roof.threads else "one device"
    lines = [f"{roof.device}: {where}, arrays of {roof.array_bytes / sizes.GIB:.2f} GiB, load average {roof.load_average:g}"]
    for title, found, best in (
        ("memory bandwidth, GB/s", roof.bandwidth_kernels, roof.bandwidth_bytes_per_s),
        ("arithmetic, GFLOP/s", roof.flops_kernels, roof.flops_per_s),
    ):
        lines.append(title)
        lines += [f"  {name:<24}{value / 1e9:>12,.1f}" for name, value in [*found.items(), ("the roof", best)]]
    return "\n".join([*lines, f"{'ridge, FLOP/byte':<26}{roof.ridge:>12,.1f}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        measured = measure(options.device)
    except (RooflineError, kernels.MissingKernel) as error:
        sys.exit(str(error))
    print(json.dumps(measured.to_dict()) if options.json else as_text(measured))
