"""The GPU records as tables like the source document's: replayed on any machine, nothing is measured.

Every table has the machine and the date in ``attrs["recorded"]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from helpers import records
from helpers.bench.timing import figure
from helpers.formatting import told, users_told
from helpers.gpu import cases
from helpers.gpu.cases import PLAIN, SHORT
from helpers.gpu.recorded import asked, divided, drafted, queued, read, scaled, schema_cost, today, verdict
from helpers.servers import engines
from helpers.weights import bounds, shapes, sizes

if TYPE_CHECKING:
    import pandas as pd


def throughput(found: Mapping | None = None, works: Sequence[str] = ("offline", "server")) -> pd.DataFrame:
    """Output tokens/s at each number of users, one row for each way of asking; the source document's first table."""
    found = found or read.load("speed")
    return read.table(found, works, read.rates, ".0f")


def ttft(found: Mapping | None = None, works: Sequence[str] = ("server", "offline")) -> pd.DataFrame:
    """Milliseconds to the first token at each number of users; the source document's second table, single and high load."""
    found = found or read.load("speed")
    return read.table(found, works, read.first_tokens, ".1f", 1000)


def memory_use(*found: Mapping) -> pd.DataFrame:
    """GiB of weights, KV pool and device, each as the engine or NVML says it; the source document's third table.

    ``found`` are the records to take it from; by default those of speed (the servers' pools) and of memory.
    """
    found = found or read.both()
    told_by = (one for record in found for one in read.lives(record, "pool", "memory", "server"))
    rows = {read.label(one): _memory(one) for one in told_by if any(row["kind"] in ("pool", "peak") for row in one["rows"])}
    return read.frame(rows, *found)


def _memory(one: Mapping) -> dict[str, str]:
    pool = next((row for row in one["rows"] if row["kind"] == "pool"), {})
    peak = [row for row in one["rows"] if row["kind"] == "peak" and row["peak_bytes"]]
    most = next((row for row in one["rows"] if row["kind"] == "most users"), None)
    weights = pool.get("weights_gib") or (peak and peak[0]["weights_bytes"] / sizes.GIB) or None
    said = {
        "weights, GiB": weights and f"{weights:.2f}",
        "KV pool, GiB": pool.get("bytes") and f"{pool['bytes'] / sizes.GIB:.2f}",
        "KV pool, tokens": pool.get("tokens") and f"{pool['tokens']:,}",
        "KiB a token": pool.get("bytes_per_token") and f"{pool['bytes_per_token'] / 1024:.1f}",
        "device peak, GiB": one.get("peak_device_bytes") and f"{one['peak_device_bytes'] / sizes.GIB:.2f}",
        "most users": most and f"{most['fits']} fit, {most['fails'] or 'more not asked'} do not",
    }
    return {name: value for name, value in said.items() if value} | {
        f"peak at {row['users']}, GiB": f"{row['peak_bytes'] / sizes.GIB:.2f}" for row in peak
    }


def search(found: Mapping | None = None, option: str = PLAIN) -> pd.DataFrame:
    """Where a static batch of Transformers runs out of memory: what PyTorch had allocated and reserved at each number of users.

    Of a batch that failed, what was allocated when it did, as PyTorch's message says.
    """
    found = found or read.load("memory")
    rows = {}
    for one in (one for one in read.lives(found, "memory") if one["option"] == option):
        probes = {row["users"]: row for row in one["rows"] if row["kind"] == "probe"}
        for users, row in sorted(probes.items()):
            said = re.search(r"([\d.]+) GiB is allocated by PyTorch", row.get("reason", ""))
            allocated = row["peak_bytes"] / sizes.GIB if row["peak_bytes"] else said and float(said[1])
            rows[f"{read.label(one)}, {users_told(users)}"] = {
                "fits": "yes" if row["fits"] else "no",
                "allocated, GiB": f"{allocated:.1f}" if allocated else "-",
                "reserved, GiB": f"{row['reserved_bytes'] / sizes.GIB:.1f}",
            }
    return read.frame(rows, found, works=("memory",))


def notebooks(found: Mapping | None = None) -> pd.DataFrame:
    """Each notebook on that machine under nbval: passed or not, its cells, its seconds."""
    found = found or read.load("notebooks")
    rows = {
        stem.replace("_", " "): {"result": one["result"], "cells": one["cells"] or "-", "seconds": f"{one['seconds']:.0f}"}
        for stem, one in sorted(found["notebooks"].items())
    }
    shown = read.frame(rows)
    source = found["provenance"]
    versions = {f"{name} {version}" for engine in source["versions"].values() for name, version in engine.items()}
    shown.attrs["recorded"] = f"run on {source['gpu']}, {source['date'][:10]}; {', '.join(sorted(versions))}"
    return shown


def prefix(*several: Mapping) -> pd.DataFrame:
    """100 users with a common prefix and with prefixes of their own: tokens/s, TTFT and cached prompt tokens.

    ``several`` are records as for :func:`memory_use`.
    """
    import pandas as pd

    several = several or read.both()
    found = [one for record in several for one in read.lives(record, "server", "prefix", "offline")]
    rows = [
        {
            "framework": read.label(one),
            "prefix cache": "on",  # every server has its own on by default
            "prefix": row["prefix"],
            "output tokens/s": told(row["level"]["output_tokens_per_s"], ".0f"),
            "TTFT, ms": told(row["level"]["ttft_s"], ".0f", 1000),
            "cached prompt tokens": _cached(row["cached_prompt_tokens"]),
        }
        for one in found
        for row in one["rows"]
        if row["kind"] == "prefix"
    ] + [_prefix_offline(one) for one in found if any(row["kind"] == "prefix offline" for row in one["rows"])]
    index = ["framework", "prefix cache", "prefix"]
    shown = pd.DataFrame(rows, columns=[*index, "output tokens/s", "TTFT, ms", "cached prompt tokens"]).set_index(index)
    shown.attrs["recorded"] = read.recorded(*several)
    return shown


def _prefix_offline(one: Mapping) -> dict[str, str]:
    """The common prefix through an engine's API, its cache off unless the option says so."""
    rows = [row for row in one["rows"] if row["kind"] == "prefix offline"]
    firsts = figure(row["ttft_s"] for row in rows)
    return {
        "framework": read.label(one),
        "prefix cache": "on" if one["option"] == "prefix cache" else "off",
        "prefix": "common",
        "output tokens/s": told(vars(figure(row["output_tokens"] / row["seconds"] for row in rows)), ".0f"),
        "TTFT, ms": told(firsts and vars(firsts), ".0f", 1000),
        "cached prompt tokens": "not told",
    }


def _cached(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{median(known):,.0f}" if known else "not told"


def changed(found: Mapping | None = None, plain: Mapping | None = None, works: Sequence[str] = ("offline",)) -> pd.DataFrame:
    """Each option beside the engine as it comes (of the speed record): output tokens/s, how many times as fast, KV pool.

    Where the engine was also measured as it comes with the options' shorter context, that one is what stands beside.
    """
    found = found or read.load("options")
    plain = plain or read.beside(found, "speed")
    usual = _usual(plain, "offline", PLAIN) | _usual(plain, "server", "prefix cache", "q4_0") | _usual(found, "offline", SHORT)
    rows = {}
    for one in read.lives(found, *works):
        before = usual.get((one["work"], one["engine"]))
        rates = read.rates(before) if before else {}
        if before:
            rows.setdefault(f"{read.label(before)}, {_usually(before)}", _beside(before, rates))
        if one["option"] != SHORT:
            rows[read.label(one)] = _beside(one, rates)
    return read.frame(rows, found)


def _usually(one: Mapping) -> str:
    """What the life is that options are beside: the engine as it comes, or with less room, which is another start."""
    return f"{PLAIN}, {SHORT}" if one["option"] == SHORT else PLAIN


EIGHT = ("fp8 weights", "fp8 weights and KV")


def eight_bits(found: Mapping | None = None) -> pd.DataFrame:
    """One shape as it comes, with FP8 weights, and with an FP8 KV cache too: output tokens/s, and the tokens of the KV pool.

    ``found`` is a record as :func:`helpers.gpu.recorded.today.load` gives it. *x* columns are against the engine's own row
    above: FP8 weights against as it comes, with the cache against FP8 weights; "-" where that row is missing.
    """
    found, rows = found or today.load(), {}
    lives = {(one["engine"], one["option"]): one for one in read.lives(found, "offline")}
    for engine in dict.fromkeys(engine for engine, option in lives if option in EIGHT):
        for before, option in pairwise((None, PLAIN, *EIGHT)):
            if one := lives.get((engine, option)):
                rows[read.label(one)] = _eight(one, lives.get((engine, before)))
    return read.frame(rows, found, works=("offline",))


def _eight(one: Mapping, before: Mapping | None) -> dict[str, str]:
    """A life's row: its rates and its pool, and how many times those of the life ``before`` they are."""
    rates, usual = read.rates(one), read.rates(before) if before else {}
    pools = [divided.pool_tokens(life) if life else None for life in (one, before)]
    return {
        **{users_told(users): told(rate, ",.0f") for users, rate in rates.items()},
        **{f"x at {users}": f"{rate['median'] / usual[users]['median']:.2f}" if usual.get(users) else "-"
           for users, rate in rates.items()},
        "KV pool, tokens": f"{pools[0]:,}" if pools[0] else "-",
        "x pool": f"{pools[0] / pools[1]:.2f}" if all(pools) else "-",
    }  # fmt: skip


def every_change(found: Mapping | None = None) -> pd.DataFrame:
    """:func:`changed` of the engines' APIs and of their servers."""
    return changed(found, works=("offline", "server"))


def _usual(found: Mapping, work: str, *options: str) -> dict[tuple[str, str], Mapping]:
    """Each engine's life with one of ``options``, by its work and its name."""
    return {(work, one["engine"]): one for one in read.lives(found, work) if one["option"] in options}


def _beside(one: Mapping, before: Mapping) -> dict[str, str]:
    """A life's row: its rates, against those ``before``, and its pool."""
    return _against(read.rates(one), before) | {"KV pool, tokens": _pool_tokens(one)}


def _against(after: Mapping, before: Mapping) -> dict[str, str]:
    """Rates by number of users, and how many times those of ``before`` they are."""
    times = {
        f"x at {users}": f"{value['median'] / before[users]['median']:.2f}"
        for users, value in after.items()
        if before.get(users)
    }  # fmt: skip
    return {users_told(users): told(value) for users, value in after.items()} | times


def _pool_tokens(one: Mapping) -> str:
    """The tokens that the engine's KV pool holds, as its API says."""
    said = divided.pool_tokens(one)
    return f"{said:,}" if said else "-"


def copying(found: Mapping | None = None) -> pd.DataFrame:
    """The real small model at tasks whose answers stand in their prompts: output tokens/s plainly and with drafts."""
    found = found or read.load("options")
    rows = {
        f"{_framework(one)}, {read.drafting(one)}": {
            users_told(row["users"]): told(row["output_tokens_per_s"]) for row in one["rows"] if row["kind"] == "copying"
        }
        for one in read.lives(found, "real")
    }
    return read.frame(rows, found, works=("real",))


def answers(found: Mapping | None = None) -> pd.DataFrame:
    """The real small model with and without a JSON schema: valid answers of each, and the time per token as a ratio."""
    found = found or read.load("options")
    rows = {
        _framework(one): {
            "asked": row["asked"],
            "valid, free": row["free"].get("valid", 0),
            "valid, constrained": row["constrained"].get("valid", 0),
            "TPOT free, ms": _ms(row["tpot_s"]["free"]),
            "TPOT constrained, ms": _ms(row["tpot_s"]["constrained"]),
            "constrained / free": f"{row['time_per_token_ratio']:.2f}" if row["time_per_token_ratio"] else "-",
        }
        for one in read.lives(found, "real")
        for row in one["rows"]
        if row["kind"] == "json"
    }
    return read.frame(rows, found, works=("real",))


def _ms(seconds: float | None) -> str:
    """Milliseconds, or "-"."""
    return "-" if seconds is None else f"{1000 * seconds:.2f}"


def _framework(one: Mapping) -> str:
    return engines.TITLES[one["engine"]]


def shares(speed: Mapping | None = None, memory_record: Mapping | None = None) -> pd.DataFrame:
    """The share of the roof that each engine's decoding reaches offline, at each number of users."""
    speed = speed or read.load("speed")
    memory_record = memory_record or read.beside(speed, "memory")
    row = next((row for one in read.lives(memory_record, "roof") for row in one["rows"] if row["kind"] == "roof"), None)
    if row is None:
        raise records.RecordError("no roof of this machine is recorded: measure it with `nox -s gpu -- memory`")
    roof = bounds.Roof(**{key: value for key, value in row.items() if key != "kind"})
    sheet = shapes.of(speed["provenance"]["shape"])
    rows = {}
    for one in read.lives(speed, "offline"):
        if by_users := read.rates(one):
            weights_bytes = _read_bytes(one, sheet)
            work = bounds.Work(weights_bytes, sizes.kv_bytes_per_token(sheet.shape), sheet.parameters - sheet.looked_up)
            rows[read.label(one)] = {
                users_told(users): bounds.share_text(bounds.share(value["median"], bounds.decode_bound(work, roof, users, 192)))
                for users, value in by_users.items()
            }
    shown = read.frame(rows, speed)
    shown.attrs["recorded"] += f"; roof {roof.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"
    return shown


def _read_bytes(one: Mapping, sheet: shapes.Sheet) -> int:
    """The bytes of weights that a step reads: all but the input embedding."""
    dtype = {"q4_0": "q4_0", "f16": "float16"}.get(one["option"], "bfloat16")
    return sizes.bytes_of(sheet.parameters - sheet.looked_up, "fp8" if one["option"].startswith("fp8") else dtype)


def text() -> str:
    """Every table that there are records for, as text."""
    parts = []
    made_of = {"speed": (throughput, ttft), "memory": (memory_use, prefix), "options": (every_change, copying, answers, ways)}
    for run, made in made_of.items():
        for machine in read.machines(run):
            found = read.load(run, machine)
            sources = read.both(machine) if run == "memory" else [found]
            shown = {make.__name__: make(*sources) for make in made}
            parts.append(f"## {run}: {read.recorded(found)}")
            parts += [f"{name}\n{one.to_string()}" for name, one in shown.items() if len(one)] + read.failures(found)
    for machine in read.machines("scaling"):
        found = scaled.load(machine)
        made = (
            scaled.speedups, divided.compared, divided.divided, scaled.link, scaled.over_nvlink, verdict.verdict, verdict.errors,
            scaled.goodput, scaled.held,
        )  # fmt: skip
        parts.append(f"## scaling: {read.recorded(found)}")
        parts += [f"{make.__name__}\n{make(found).to_string()}" for make in made]
        parts += [f"queued\n{queued.table(queued.loads(found)).to_string()}", *read.failures(found)]
    for machine in read.machines("today"):
        parts += _today(machine)
    for machine in read.machines("questions"):
        parts += _questions(machine)
    for machine in read.machines("notebooks"):
        shown = notebooks(read.load("notebooks", machine))
        parts.append(f"## notebooks: {shown.attrs['recorded']}\n\n{shown.to_string()}")
    if not parts:
        raise records.RecordError("no GPU record is here: make one with `nox -s gpu`")
    return "\n\n".join(parts)


def _today(machine: str) -> Iterator[str]:
    """The tables of each shape that today's engines had on one GPU, and the machine's own figures."""
    made = (
        today.throughput, today.served, today.arrivals, today.longer, today.joules, today.prefix, today.pools, eight_bits,
    )  # fmt: skip
    for shape in today.recorded_shapes(machine):
        found = today.load(shape, machine)
        yield f"## today, {shape}: {read.recorded(found)}"
        yield from (f"{make.__name__}\n{shown.to_string()}" for make in made if len(shown := make(found)))
        yield from today.left_out(found)
    yield "\n".join(today.machine(today.load(machine=machine)))


def _questions(machine: str) -> Iterator[str]:
    """Drafts and JSON schemas in turns, and what is planned of them and missing."""
    found = read.load("questions", machine)
    yield f"## questions: {read.recorded(found)}"
    made = {"drafts in turns": drafted.turns_table(drafted.in_turns(found))}
    made |= {make.__name__: make(found) for make in (schema_cost.table, schema_cost.validity, schema_cost.compiled)}
    yield from (f"{name}\n{shown.to_string()}" for name, shown in made.items() if len(shown))
    yield from [*drafted.left_out(found), *schema_cost.left_out(found)]
    yield from _asked(found)


def _asked(found: Mapping) -> Iterator[str]:
    """The tables of what the other runs left open, and what has no figures there."""
    made = {
        "mixed": [asked.mixed],
        "adapters": [asked.adapters, asked.holding],
        "offload": [asked.returning],
        "start": [asked.starts],
    }
    for work, several in made.items():
        yield from (f"{make.__name__}\n{make(found).to_string()}" for make in several)
        yield from asked.left_out(work, found)


Figures = Iterator[tuple[Mapping, str, Mapping]]  # a life, what was measured, the figure


def rates_across(option: str = SHORT) -> pd.DataFrame:
    """Output tokens/s of the engines' APIs with ``option``: a row for each engine and number of users, a column for each GPU.

    The machine of the other tables comes first; *x* is how many times its rate the last column's is.
    """

    def figures(record: Mapping) -> Figures:
        for one in (one for one in read.lives(record, "offline") if one["option"] == option):
            for users, rate in read.rates(one).items():
                yield one, users_told(users), rate

    shown, found = _across(figures)
    first, last = shown.columns[0], shown.columns[-1]
    times = {
        name: by_gpu[last]["median"] / by_gpu[first]["median"] for name, by_gpu in found.items() if {first, last} <= set(by_gpu)
    }
    shown["x"] = [f"{times[name]:.2f}" if name in times else "-" for name in shown.index]
    return shown


def copying_across() -> pd.DataFrame:
    """Output tokens/s of the small model at tasks whose answers stand in their prompts, with and without drafts, on each GPU."""

    def figures(record: Mapping) -> Figures:
        for one in read.lives(record, "real"):
            for row in (row for row in one["rows"] if row["kind"] == "copying"):
                yield one, f"{users_told(row['users'])}, {read.drafting(one)}", row["output_tokens_per_s"]

    return _across(figures)[0]


def _across(figures: Callable[[Mapping], Figures]):
    """What ``figures`` yields of each machine's options, as a frame, and as figures by row and GPU."""
    found: dict[str, dict[str, Mapping]] = {}
    lines = []
    for machine in read.order("options") or [None]:  # without any, load says what to do
        record, used = read.load("options", machine), []
        title = f"{record['provenance']['machine']['gpus'][0]}, {record['provenance']['machine']['cores']} cores"
        for one, name, value in figures(record):
            found.setdefault(f"{engines.TITLES[one['engine']]}, {name}", {})[title] = value
            used.append(one)
        lines.append(read.recorded({**record, "lives": dict(enumerate(used))}, works=tuple({one["work"] for one in used})))
    rows = {name: {title: told(figure) for title, figure in by.items()} for name, by in found.items()}
    shown = read.frame(rows)
    shown.attrs["recorded"] = "\n".join(lines)
    return shown, found


def ways(found: Mapping | None = None) -> pd.DataFrame:
    """Output tokens/s of all users at once in each way and of the engine's own bench; the seconds that all answers took.

    *x* is how many times the rate of the streamed answers.
    """
    found, rows, used = found or read.load("options"), {}, []
    for one in read.lives(found, "streaming"):
        made = [row for row in one["rows"] if row["kind"] == "way"]
        if not made:
            continue
        users, tokens, bench = made[0]["users"], made[0]["output_tokens"], _bench(found, one)
        known = {way: _rate(row for row in made if row["way"] == way) for way in cases.WAYS}
        known["its own bench"] = read.rates(bench).get(users) if bench else None
        streamed = known["streamed"]
        for way, rate in known.items():
            rows[f"{engines.TITLES[one['engine']]}, {way}"] = {
                users_told(users): told(rate, ".0f"),
                f"{tokens:,} tokens, s": f"{tokens / rate['median']:.1f}" if rate else "-",
                "x": f"{rate['median'] / streamed['median']:.2f}" if rate and streamed else "-",
            }
        used += [one, *([bench] if bench else [])]
    return read.frame(rows, {**found, "lives": dict(enumerate(used))})


def _rate(rows: Iterable[Mapping]) -> Mapping | None:
    """Output tokens/s of ``rows``: median, lowest and highest; ``None`` without rows."""
    rate = figure(row["output_tokens"] / row["seconds"] for row in rows)
    return rate and vars(rate)


def _bench(found: Mapping, one: Mapping) -> Mapping | None:
    """The same engine with the same weights through its own benchmark, on the same machine."""
    offline_ones = read.lives(read.beside(found, "speed"), "offline")
    return next((other for other in offline_ones if (other["engine"], other["option"]) == (one["engine"], one["option"])), None)


@dataclass(frozen=True)
class Published:
    """A result that was read and not run again."""

    said: str
    setup: str
    source: str
    address: str
    read: str


TENSORRT_LLM = (
    Published(
        "vLLM ahead at saturation with 5,333 tokens/s; TensorRT-LLM first at 32 users, 235 ms to the first token, vLLM 514 ms",
        "Llama-3.1-8B, one H100; vLLM 0.23.0, SGLang 0.5.13, TensorRT-LLM 1.2.1",
        "RunInfra, 2026-06-20",
        "https://runinfra.ai/news/vllm-vs-sglang-vs-tensorrt-llm-benchmark",
        "2026-11-25",
    ),
    Published(
        "TensorRT-LLM ahead with 2,100 tokens/s at 50 requests, vLLM 1,850",
        "a 70B model in FP8 on H100",
        "Spheron, 2026-03",
        "https://www.spheron.network/blog/vllm-vs-tensorrt-llm-vs-sglang-benchmarks",
        "2026-11-25",
    ),
)


def tensorrt_llm() -> pd.DataFrame:
    """Both results as a pandas table, under the words *not measured here*."""
    import pandas as pd

    shown = pd.DataFrame([vars(one) for one in TENSORRT_LLM]).set_index("source")
    shown.attrs["recorded"] = "TensorRT-LLM: not measured here; published results, not run again"
    return shown
