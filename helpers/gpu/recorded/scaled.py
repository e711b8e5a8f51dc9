"""One model over several GPUs, as recorded: speed-up, joules, bytes over the link, and copies of it against TP.

Replayed from the record of ``nox -s gpu -- scaling`` on any machine; nothing is measured. Every table has the machine and
the date in ``attrs["recorded"]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.bench.timing import figure
from helpers.formatting import told, users_told
from helpers.gpu.cases import LLAMA, PLAIN, Life
from helpers.gpu.recorded import read
from helpers.lessons.scaling import parallelism
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import engines
from helpers.weights import sizes

if TYPE_CHECKING:
    import pandas as pd

ONE, TWO = Layout(), Layout(2)
ENGINES = ("vllm", "sglang")


def load(machine: str | None = None) -> dict:
    """The newest record of several GPUs; :class:`~helpers.records.RecordError` if there is none."""
    return read.load("scaling", machine)


def offline(found: Mapping, engine: str, shape: str = LLAMA, layout: Layout = ONE, option: str = PLAIN) -> Mapping | None:
    """The life of ``engine``'s API with ``shape`` on ``layout``, with figures; ``None`` if it has none."""
    one = found["lives"].get(Life(engine, "offline", option, least_s=0, shape=shape, layout=layout).key)
    return one if one and one["rows"] else None


def by_load(one: Mapping) -> dict[str, list[float]]:
    """Output tokens/s of each repeat by load; of a prompt alone, prompt tokens/s."""
    rates: dict[str, list[float]] = {}
    for row in one["rows"]:
        if row["kind"] == "speed":
            rates.setdefault(f"128/128, {users_told(row['users'])}", []).append(row["output_tokens"] / row["seconds"])
        if row["kind"] == "longer":
            out = row["output_tokens"] // row["users"]
            name = f"{row['input_tokens']:,}/{out:,}, {users_told(row['users'])}"
            rates.setdefault(name, []).append(row["output_tokens"] / row["seconds"])
        if row["kind"] == "prefill":
            rates.setdefault(f"prompt of {row['input_tokens']:,}", []).append(row["input_tokens"] / row["seconds"])
    return rates


@dataclass(frozen=True)
class Gain:
    """How many times the rate of one GPU several have: of the medians, and of the farthest repeats."""

    median: float
    low: float
    high: float
    gpus: int

    @property
    def efficiency(self) -> float:
        return self.median / self.gpus


def gains(found: Mapping, engine: str, layout: Layout, shape: str = LLAMA, option: str = PLAIN) -> dict[str, Gain]:
    """By load, what ``layout`` brings against one GPU; empty where one of the two has no figures."""
    one, several = offline(found, engine, shape, option=option), offline(found, engine, shape, layout, option)
    if not one or not several:
        return {}
    before, after = by_load(one), by_load(several)
    return {load: Gain(*read.times(now, then), layout.gpus) for load, now in after.items() if (then := before.get(load))}


def speedups(found: Mapping | None = None, engine: str = "vllm", layout: Layout = TWO, shape: str = LLAMA) -> pd.DataFrame:
    """Tokens/s on one GPU and on several, how many times as many, and the share of the ideal; a row for each load.

    Of a prompt the tokens are those of the prompt. Joules are of the whole cards, for each output token.
    """
    found = found or load()
    rows, sides = {}, {"1 GPU": offline(found, engine, shape), str(layout): offline(found, engine, shape, layout)}
    rates = {name: by_load(one) for name, one in sides.items() if one}
    for name, gain in gains(found, engine, layout, shape).items():
        rows[name] = {side: told(vars(figure(by[name])), ",.0f") for side, by in rates.items()}
        rows[name] |= {"x": f"{gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f})", "of ideal": f"{gain.efficiency:.0%}"}
        rows[name] |= {f"J/token, {side}": f"{used:.2f}" for side, one in sides.items() if (used := joules(one, name))}
    return read.frame(rows, {**found, "lives": {name: one for name, one in sides.items() if one}})


def joules(one: Mapping, load: str) -> float | None:
    """Joules of all GPUs for each output token; NVML's counter moves about ten times a second, so prompts have none."""
    if load.startswith("prompt"):
        return None
    rows = [row for row in one["rows"] if row["kind"] in ("speed", "longer") and row.get("joules")]
    found = figure(row["joules"] / row["output_tokens"] for row in rows if load in by_load({"rows": [row]}))
    return found and found.median


def over_nvlink(found: Mapping | None = None, engine: str = "vllm", layout: Layout = TWO, shape: str = LLAMA) -> pd.DataFrame:
    """MiB that all GPUs sent over NVLink in a repeat, as NVML counts, beside those that the calculator gives."""
    found = found or load()
    one = offline(found, engine, shape, layout)
    rows = {
        name: {"counted, MiB": f"{counted:,.0f}", "computed, MiB": f"{computed:,.0f}", "x": f"{counted / computed:.2f}"}
        for name, (counted, computed) in (sent(one, shape, layout) if one else {}).items()
    }
    return read.frame(rows, {**found, "lives": {"": one} if one else {}})


def sent(one: Mapping, shape: str, layout: Layout) -> dict[str, tuple[float, float]]:
    """MiB over NVLink by load, of the first repeat and of all GPUs: as NVML counted, and as the calculator has it."""
    of = parallelism.traffic(shape, layout)
    token = of["TP"] * layout.gpus + of["PP"] * layout.tp * (layout.pp - 1)
    found = {}
    for row in (row for row in one["rows"] if row.get("nvlink_bytes") and row["repeat"] == 0):
        (name,) = by_load({"rows": [row]})
        tokens = row["users"] * row.get("input_tokens", 128) + row["output_tokens"] - row["users"]
        found[name] = row["nvlink_bytes"] / 2**20, token * tokens / 2**20
    return found


def all_reduces(found: Mapping | None = None) -> dict[int, dict[str, Mapping]]:
    """The rows of all-reduces of this machine by bytes and by way: ``asked`` and ``in a graph``."""
    rows = [row for one in read.lives(found or load(), "links") for row in one["rows"] if row["kind"] == "all-reduce"]
    return {size: {row["way"]: row for row in rows if row["bytes"] == size} for size in sorted({row["bytes"] for row in rows})}


def link(found: Mapping | None = None) -> pd.DataFrame:
    """Microseconds of an all-reduce of each size, asked for and replayed from a graph, and GB/s that each GPU sends then."""
    found = found or load()
    rows = {
        _size(size): {
            **{f"{way}, us": f"{1e6 * row['seconds']:.0f}" for way, row in ways.items()},
            "GB/s": f"{max(row['bus_bytes_per_s'] for row in ways.values()) / 1e9:.0f}",
        }
        for size, ways in all_reduces(found).items()
    }
    return read.frame(rows, {**found, "lives": dict(enumerate(read.lives(found, "links")))})


def link_bytes_per_s() -> float:
    """Of the link between the recorded GPUs, NVLink, by its data sheet: in one direction."""
    return parallelism.table()["links"]["NVLink"]["gb_per_s"] * 1e9


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"


def served(found: Mapping | None = None, engine: str = "vllm", shape: str = LLAMA) -> dict[str, list[Mapping]]:
    """The rows of arrivals of each layout that served ``shape``, one GPU first."""
    lives = [one for one in read.lives(found or load(), "server") if one["engine"] == engine and one.get("shape") == shape]
    by = {
        _layout(one): [
            {**row, "gpus": one["gpus"], "slots": read.asked(one, "slots")} for row in one["rows"] if row["kind"] == "arrivals"
        ]
        for one in sorted(lives, key=lambda one: one["gpus"])
    }
    return {name: rows for name, rows in by.items() if rows}


def _layout(one: Mapping) -> str:
    """ "one GPU", "TP2", "DP2": as the server was told."""
    asked = " ".join(one["arguments"])
    named = {"TP": "--tensor-parallel-size ", "PP": "--pipeline-parallel-size ", "DP": "--data-parallel-size "}
    sizes_told = [f"{short}{asked.split(option)[1].split()[0]}" for short, option in named.items() if option in asked]
    return " x ".join(sizes_told) or "one GPU"


def goodput(found: Mapping | None = None) -> pd.DataFrame:
    """Arrivals at rising rates: the share that kept the limits and what came of it, of each engine and layout."""
    import pandas as pd

    found = found or load()
    rows = [
        {"engine": engines.TITLES[engine], "GPUs": layout, "requests/s": row["rate_per_s"], **arrived(row)}
        for engine in ENGINES
        for layout, several in served(found, engine).items()
        for row in several
    ]
    shown = pd.DataFrame(rows).set_index(["engine", "GPUs", "requests/s"])
    lives = {name: one for name, one in found["lives"].items() if one["work"] == "server"}
    shown.attrs["recorded"] = read.recorded({**found, "lives": lives})
    return shown


def arrived(row: Mapping) -> dict[str, object]:
    """A row of :func:`served` in words: the share that kept the limits, goodput, waits, joules."""
    tokens = row["requests"] * row["repeats"] * row["output_tokens"][0]
    return {
        "slots a copy": row["slots"],
        "kept the limits": f"{row['met']:.0%}",
        "goodput, requests/s": f"{row['goodput_requests_per_s']['median']:.1f}",
        "TTFT, ms": f"{1e3 * row['ttft_s']['median']:.0f}",
        "TPOT, ms": f"{1e3 * row['tpot_s']['median']:.1f}",
        "output tokens/s": f"{row['output_tokens_per_s']['median']:,.0f}",
        "answers at once": row["answers_at_once"],
        "J/token": f"{row['joules'] / tokens:.2f}" if row["joules"] else "-",
    }


def held(found: Mapping | None = None) -> pd.DataFrame:
    """GiB that each GPU held at its fullest, and the tokens of the KV pool, of each life with figures."""
    found, rows = found or load(), {}
    for key, one in found["lives"].items():
        if one["rows"] and one.get("each_peak_bytes"):
            said = [row.get("pool_tokens") or row.get("tokens") for row in one["rows"] if row["kind"] in ("holds", "pool")]
            peaks = ", ".join(f"{peak / sizes.GIB:.0f}" for peak in one["each_peak_bytes"])
            rows[key] = {"GiB of each": peaks, "KV pool, tokens": f"{said[0]:,}" if said and said[0] else "-"}
    return read.frame(rows, found)
