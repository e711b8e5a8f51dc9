"""The calculator of several GPUs held against what was recorded: the bound, what is expected, what was measured.

Replayed from the record of ``nox -s gpu -- scaling`` on any machine; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from helpers.bench.timing import Figure, figure
from helpers.formatting import told, users_told
from helpers.gpu.cases import LLAMA
from helpers.gpu.recorded import divided, read, scaled
from helpers.gpu.recorded.divided import Way
from helpers.gpu.recorded.scaled import ONE
from helpers.lessons.scaling import expected, parallelism

if TYPE_CHECKING:
    import pandas as pd

CONTEXT = 128 + 128 / 2  # tokens that a user of the 128/128 load has on average
GPU = "H200"  # of the record, by its name in parallelism.toml
SHARE = "gpu_memory_utilization"  # the argument with the part of a GPU's memory that an engine takes


def machine(found: Mapping, dtype: str = "bfloat16") -> expected.Machine:
    """The GPUs of ``found`` for :mod:`~helpers.lessons.scaling.expected`: all-reduces as measured there, in a graph.

    The weights are of ``dtype``. Its memory is taken at the share of the data sheet that the roof of a recorded GPU reached
    (:func:`reached`).
    """
    card = parallelism.table()["gpus"][GPU]
    times = {size: ways.get("in a graph", ways["asked"])["seconds"] for size, ways in scaled.all_reduces(found).items()}
    bytes_per_s = reached() * card["bandwidth_gb_per_s"] * 1e9
    return expected.Machine(bytes_per_s, parallelism.flops_per_s(GPU, dtype), times, dtype)


def reached() -> float:
    """The share of its data sheet's bytes/s that the recorded GPU with a roof reached."""
    record = read.load("memory")
    row = next(row for one in read.lives(record, "roof") for row in one["rows"] if row["kind"] == "roof")
    card = parallelism.table()["gpus"][row["device"].split()[1]]
    return row["bandwidth_bytes_per_s"] / (card["bandwidth_gb_per_s"] * 1e9)


def steps(one: Mapping) -> dict[int, Figure]:
    """Seconds of a decode step by number of users: a whole answer less a request of one token, over the steps between."""
    singles = {(row["users"], row["repeat"]): row["seconds"] for row in one["rows"] if row["kind"] == "first token"}
    found: dict[int, list[float]] = {}
    for row in (row for row in one["rows"] if row["kind"] == "speed"):
        between = row["output_tokens"] / row["users"] - 1
        found.setdefault(row["users"], []).append((row["seconds"] - singles[row["users"], row["repeat"]]) / between)
    return {users: figure(values) for users, values in found.items()}


def prompts(one: Mapping) -> dict[int, Figure]:
    """Seconds of a prompt by its tokens."""
    rows = [row for row in one["rows"] if row["kind"] == "prefill"]
    return {
        tokens: figure(row["seconds"] for row in rows if row["input_tokens"] == tokens)
        for tokens in {row["input_tokens"] for row in rows}
    }


@dataclass(frozen=True)
class Verdict:
    """A measured time beside the bound and beside what is expected; ``fitted``: the engine's costs were made from it."""

    way: Way
    what: str
    measured: Figure
    bound_s: float
    expected_s: float
    fitted: bool

    @property
    def error(self) -> float:
        return self.expected_s / self.measured.median - 1

    @property
    def bound_error(self) -> float:
        return self.bound_s / self.measured.median - 1


def verdicts(found: Mapping | None = None) -> list[Verdict]:
    """Every measured decode step and prompt of each way in which a model was divided (:data:`divided.WAYS`).

    The costs of an engine are fitted on one GPU: to its steps with the fewest and the most users, and to its prompts.
    """
    found = found or scaled.load()
    return [one for way, life in divided.lives(found) if (costs := fitted(found, way)) for one in _of(found, way, life, costs)]


def fitted(found: Mapping, way: Way) -> expected.Costs | None:
    """What the engine of ``way`` adds to the bounds on one GPU with that model; ``None`` where no life tells.

    A model that no single GPU had takes those of :data:`LLAMA`, by the number of its layers.
    """
    if alone := scaled.offline(found, way.engine, way.shape, ONE, way.option):
        return _fitted(alone, way.shape, machine(found, way.dtype))
    alone = scaled.offline(found, way.engine)
    return _fitted(alone, LLAMA, machine(found)).moved(LLAMA, way.shape) if alone else None


def _fitted(alone: Mapping, shape: str, gpus: expected.Machine) -> expected.Costs:
    decode, prompt = ({size: value.median for size, value in of(alone).items()} for of in (steps, prompts))
    return expected.fit(shape, decode, CONTEXT, prompt, gpus)


def _of(found: Mapping, way: Way, life: Mapping, costs: expected.Costs) -> Iterator[Verdict]:
    decode, given = steps(life), (machine(found, way.dtype), costs)
    for users, value in decode.items():
        hoped = expected.decode_s(way.shape, way.layout, users, CONTEXT, *given)
        used = way.layout == ONE and users in (min(decode), max(decode))
        yield Verdict(way, f"a step, {users_told(users)}", value, _bound(way, users), hoped, used)
    for tokens, value in sorted(prompts(life).items()):
        hoped = expected.prefill_s(way.shape, way.layout, tokens, *given)
        yield Verdict(way, f"a prompt of {tokens:,}", value, _bound(way, tokens), hoped, way.layout == ONE)


def _bound(way: Way, tokens: int) -> float:
    return parallelism.step(way.shape, way.layout, tokens=tokens, gpu=GPU, dtype=way.dtype).seconds


def changes(found: Mapping | None = None) -> dict[tuple[Way, str], tuple[float, float]]:
    """How many times as fast as one GPU several are: by the bound, and by the medians measured; by way and load.

    A model that no single GPU had is left out.
    """
    every = {(one.way, one.what): one for one in verdicts(found)}
    sides = {(way, what): (every.get((replace(way, layout=ONE), what)), one) for (way, what), one in every.items()}
    return {
        key: (alone.bound_s / one.bound_s, alone.measured.median / one.measured.median)
        for key, (alone, one) in sides.items()
        if alone and alone is not one
    }


def pools(found: Mapping | None = None) -> dict[Way, tuple[int, float]]:
    """Tokens of the KV pool as told, and the calculator's error, where the engine was told which share of a GPU to take."""
    memory_bytes, said = parallelism.table()["gpus"][GPU]["memory_gb"] * 1e9, {}
    for way, life in divided.lives(found or scaled.load()):
        if SHARE in life["arguments"] and (tokens := divided.pool_tokens(life)):
            share = parallelism.share(way.shape, way.layout, way.dtype)
            said[way] = tokens, share.pool_tokens(memory_bytes, life["arguments"][SHARE]) / tokens - 1
    return said


def verdict(found: Mapping | None = None) -> pd.DataFrame:
    """:func:`verdicts` as a table, milliseconds; what the costs were fitted to has no error of its own."""
    import pandas as pd

    found = found or scaled.load()
    rows = [
        {
            **one.way.index, "what": one.what,
            "measured, ms": told(vars(one.measured), ".2f", 1e3), "bound, ms": f"{1e3 * one.bound_s:.2f}",
            "bound, error": f"{one.bound_error:+.0%}", "expected, ms": f"{1e3 * one.expected_s:.2f}",
            "expected, error": _error(one),
        }
        for one in verdicts(found)
    ]  # fmt: skip
    shown = pd.DataFrame(rows).set_index(["engine", "model", "GPUs", "what"])
    shown.attrs["recorded"] = read.recorded(found)
    return shown


def errors(found: Mapping | None = None) -> pd.DataFrame:
    """The errors of what is expected, a row for each way: of steps, of prompts and of the KV pool."""
    import pandas as pd

    found, rows = found or scaled.load(), {}
    for one in verdicts(found):
        rows.setdefault(one.way, dict(one.way.index))[one.what] = _error(one)
    for way, (_, error) in pools(found).items():
        rows.get(way, {})["KV pool"] = f"{error:+.0%}"
    shown = pd.DataFrame(list(rows.values())).fillna("-").set_index(["engine", "model", "GPUs"])
    shown.attrs["recorded"] = read.recorded(found)
    return shown


def _error(one: Verdict) -> str:
    return "fitted" if one.fitted else f"{one.error:+.0%}"
