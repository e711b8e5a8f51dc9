"""Engines and layouts beside each other, as recorded: TP of two engines by load, and every way in which a model was divided.

Replayed from the record of ``nox -s gpu -- scaling`` on any machine; nothing is measured. Every table has the machine and
the date in ``attrs["recorded"]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from helpers.bench.timing import figure
from helpers.formatting import told
from helpers.gpu.cases import LARGE, LLAMA, MOE, PLAIN
from helpers.gpu.recorded import read, scaled
from helpers.gpu.recorded.scaled import ENGINES, ONE, TWO
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import engines
from helpers.weights import sizes

if TYPE_CHECKING:
    import pandas as pd

PIPELINE, EXPERTS = Layout(pp=2), Layout(2, ep=True)
FP8 = "fp8 weights"
LOADS = ("128/128, 1 user", "128/128, 10 users", "128/128, 100 users", "prompt of 2,048", "prompt of 8,192")  # of every layout


@dataclass(frozen=True)
class Way:
    """A model on a layout, by an engine's API."""

    engine: str
    shape: str
    layout: Layout = ONE
    option: str = PLAIN

    @property
    def dtype(self) -> str:
        """Of the weights."""
        return "fp8" if self.option == FP8 else "bfloat16"

    @property
    def index(self) -> dict[str, str]:
        """The way in the words of the tables."""
        model = self.shape + (", FP8" if self.option == FP8 else "")
        return {"engine": engines.TITLES[self.engine], "model": model, "GPUs": str(self.layout)}


WAYS = (
    *(Way("vllm", LLAMA, layout) for layout in (ONE, TWO, PIPELINE)),
    *(Way("sglang", LLAMA, layout) for layout in (ONE, TWO)),
    *(Way("vllm", MOE, layout) for layout in (ONE, TWO, EXPERTS)),
    Way("vllm", LARGE, TWO, FP8),
)


def lives(found: Mapping) -> Iterator[tuple[Way, Mapping]]:
    """Each of :data:`WAYS` that has figures, with its life."""
    for way in WAYS:
        if one := scaled.offline(found, way.engine, way.shape, way.layout, way.option):
            yield way, one


def compared(found: Mapping | None = None, layout: Layout = TWO) -> pd.DataFrame:
    """Tokens/s of each engine on ``layout`` by load, how many times those of one GPU, and joules of a token likewise.

    The last column has the second engine's rate over the first one's.
    """
    found = found or scaled.load()
    known = {engine: one for engine in ENGINES if (one := scaled.offline(found, engine, layout=layout))}
    rows: dict[str, dict] = {}
    for engine, one in known.items():
        for load, gain in scaled.gains(found, engine, layout).items():
            title, more = engines.TITLES[engine], joules_gain(found, engine, load, layout)
            rows.setdefault(load, {})[f"{title}, {layout}"] = f"{median(scaled.by_load(one)[load]):,.0f}"
            rows[load][f"{title}, x"] = f"{gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f})"
            rows[load][f"{title}, J/token, x"] = f"{more:.2f}" if more else "-"
    for load, ratio in faster(found, layout).items():
        rows[load][" / ".join(engines.TITLES[engine] for engine in reversed(ENGINES))] = f"{ratio:.2f}"
    return read.frame(rows, {**found, "lives": known})


def faster(found: Mapping, layout: Layout = TWO) -> dict[str, float]:
    """By load, the second engine's rate over the first one's; empty where one of the two has no figures."""
    rates = [scaled.by_load(one) for engine in ENGINES if (one := scaled.offline(found, engine, layout=layout))]
    if len(rates) < len(ENGINES):
        return {}
    first, second = rates
    return {load: median(second[load]) / median(values) for load, values in first.items() if load in second}


def joules_gain(found: Mapping, engine: str, load: str, layout: Layout = TWO, shape: str = LLAMA) -> float | None:
    """How many times the joules of one GPU a token takes on ``layout``; ``None`` for a prompt, or where one has no figures."""
    sides = [scaled.offline(found, engine, shape, one) for one in (ONE, layout)]
    before, after = (scaled.joules(one, load) if one else None for one in sides)
    return after / before if before and after else None


def divided(found: Mapping | None = None) -> pd.DataFrame:
    """Each of :data:`WAYS`: tokens/s by load, how many times one GPU's and ranges, joules of a token, GiB of each GPU, KV pool.

    The last column has the bytes that a prompt of 8,192 sent over NVLink over those that the calculator gives.
    """
    import pandas as pd

    found, known, rows = found or scaled.load(), {}, []
    for way, one in lives(found):
        known[str(way)] = one
        rows.append({**way.index, **_rates(found, way, one), **_joules(one), **_memory(one), "NVLink, x": _link(way, one)})
    shown = pd.DataFrame(rows).fillna("-").set_index(["engine", "model", "GPUs"])
    shown.attrs["recorded"] = read.recorded({**found, "lives": known})
    return shown


def _rates(found: Mapping, way: Way, one: Mapping) -> dict[str, str]:
    """The rate with its gain and the gain's range; what has no gain has the range of its rate."""
    rates, brought = scaled.by_load(one), gains(found, way)
    return {load: _rate(rates[load], brought.get(load)) for load in LOADS if load in rates}


def _rate(values: list[float], gain: scaled.Gain | None) -> str:
    if not gain:
        return told(vars(figure(values)), ",.0f")
    return f"{median(values):,.0f}, {gain.median:.2f}x ({gain.low:.2f} to {gain.high:.2f})"


def gains(found: Mapping, way: Way) -> dict[str, scaled.Gain]:
    """By load of :data:`LOADS`, what ``way`` brings against one GPU; empty of one GPU, and where no single GPU had the model."""
    times = scaled.gains(found, way.engine, way.layout, way.shape, way.option) if way.layout != ONE else {}
    return {load: times[load] for load in LOADS if load in times}


def _joules(one: Mapping) -> dict[str, str]:
    used = {load: scaled.joules(one, load) for load in (LOADS[0], LOADS[2])}
    return {f"J/token, {load.split(', ')[1]}": f"{value:.2f}" for load, value in used.items() if value}


def _memory(one: Mapping) -> dict[str, str]:
    peaks = ", ".join(f"{peak / sizes.GIB:.0f}" for peak in one["each_peak_bytes"])
    pool = pool_tokens(one)
    return {"GiB of each": peaks, "KV pool, tokens": f"{pool:,}" if pool else "-"}


def pool_tokens(one: Mapping) -> int | None:
    """Tokens of the KV pool, as the engine's API says."""
    return next((row.get("pool_tokens") for row in one["rows"] if row["kind"] == "holds"), None)


def _link(way: Way, one: Mapping) -> str | None:
    """Bytes over NVLink of the longest prompt, over those that the calculator gives; ``None`` on one GPU."""
    counted = scaled.sent(one, way.shape, way.layout).get(LOADS[-1])
    return counted and f"{counted[0] / counted[1]:.2f}"
