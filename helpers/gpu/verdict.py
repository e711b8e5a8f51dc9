"""The calculator of several GPUs held against what was recorded: the bound, what is expected, what was measured.

Replayed from the record of ``nox -s gpu -- scaling`` on any machine; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.bench.timing import Figure, figure
from helpers.formatting import users_told
from helpers.gpu import read, scaled
from helpers.gpu.cases import LLAMA
from helpers.gpu.scaled import ONE, TWO
from helpers.lessons.scaling import expected, parallelism
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import engines

if TYPE_CHECKING:
    import pandas as pd

CONTEXT = 128 + 128 / 2  # tokens that a user of the 128/128 load has on average
GPU = "H200"  # of the record, by its name in parallelism.toml
PROMPT = 2048  # the prompt that an engine's costs are fitted to


def machine(found: Mapping) -> expected.Machine:
    """The GPUs of ``found`` for :mod:`~helpers.lessons.scaling.expected`: all-reduces as measured there, in a graph.

    Its memory is taken at the share of the data sheet that the roof of a recorded GPU reached (:func:`reached`).
    """
    card = parallelism.table()["gpus"][GPU]
    times = {size: ways.get("in a graph", ways["asked"])["seconds"] for size, ways in scaled.all_reduces(found).items()}
    return expected.Machine(reached() * card["bandwidth_gb_per_s"] * 1e9, card["bf16_tflops"] * 1e12, times)


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

    engine: str
    layout: Layout
    what: str
    measured_s: float
    bound_s: float
    expected_s: float
    fitted: bool

    @property
    def error(self) -> float:
        return self.expected_s / self.measured_s - 1

    @property
    def bound_error(self) -> float:
        return self.bound_s / self.measured_s - 1


def verdicts(found: Mapping | None = None, layouts: Sequence[Layout] = (ONE, TWO)) -> list[Verdict]:
    """Every measured decode step and prompt of Llama-3.1-8B of each engine, on one GPU and on several.

    The costs of an engine are fitted on one GPU: to its steps with the fewest and the most users and to one prompt.
    """
    found, made = found or scaled.load(), []
    for engine in ("vllm", "sglang"):
        if alone := scaled.offline(found, engine):
            costs = fitted(alone, machine(found))
            known = {layout: scaled.offline(found, engine, layout=layout) for layout in layouts}
            made += [one for layout, life in known.items() if life for one in _of(life, layout, machine(found), costs)]
    return made


def fitted(alone: Mapping, gpus: expected.Machine) -> expected.Costs:
    """What the engine of a life on one GPU adds to the bounds."""
    decode = {users: value.median for users, value in steps(alone).items()}
    return expected.fit(LLAMA, decode, CONTEXT, (PROMPT, prompts(alone)[PROMPT].median), gpus)


def _of(life: Mapping, layout: Layout, gpus: expected.Machine, costs: expected.Costs) -> Iterator[Verdict]:
    decode, alone = steps(life), layout == ONE
    for users, value in decode.items():
        hoped = expected.decode_s(LLAMA, layout, users, CONTEXT, gpus, costs)
        used = alone and users in (min(decode), max(decode))
        yield _verdict(life, layout, f"a step, {users_told(users)}", value, users, hoped, used)
    for tokens, value in prompts(life).items():
        hoped = expected.prefill_s(LLAMA, layout, tokens, gpus, costs)
        yield _verdict(life, layout, f"a prompt of {tokens:,}", value, tokens, hoped, alone and tokens == PROMPT)


def _verdict(life: Mapping, layout: Layout, what: str, value: Figure, tokens: int, hoped: float, used: bool) -> Verdict:
    bound = parallelism.step(LLAMA, layout, tokens=tokens, gpu=GPU).seconds
    return Verdict(life["engine"], layout, what, value.median, bound, hoped, used)


def verdict(found: Mapping | None = None) -> pd.DataFrame:
    """:func:`verdicts` as a table, milliseconds; what the costs were fitted to has no error of its own."""
    import pandas as pd

    found = found or scaled.load()
    rows = [
        {
            "engine": engines.TITLES[one.engine], "GPUs": str(one.layout), "what": one.what,
            "measured, ms": f"{1e3 * one.measured_s:.2f}", "bound, ms": f"{1e3 * one.bound_s:.2f}",
            "bound, error": f"{one.bound_error:+.0%}", "expected, ms": f"{1e3 * one.expected_s:.2f}",
            "expected, error": "fitted" if one.fitted else f"{one.error:+.0%}",
        }
        for one in verdicts(found)
    ]  # fmt: skip
    shown = pd.DataFrame(rows).set_index(["engine", "GPUs", "what"])
    shown.attrs["recorded"] = read.recorded(found)
    return shown
