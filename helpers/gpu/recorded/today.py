"""One GPU with the engines of today, as recorded: speed, waits, joules, KV pools, a long prefix; a row for each setting.

Replayed from the record of ``nox -s gpu -- today`` and, for what was measured there on one GPU, that of ``-- scaling`` of the
same machine. A life that is missing has no row, and :func:`left_out` says so. Every table has its source in
``attrs["recorded"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import median
from typing import TYPE_CHECKING

from helpers import frameworks
from helpers.bench import selftest
from helpers.bench.timing import Figure, figure
from helpers.formatting import told, users_told
from helpers.gpu import cases, variants
from helpers.gpu.cases import LLAMA, PLAIN
from helpers.gpu.recorded import read, scaled, verdict
from helpers.lessons.scaling import parallelism
from helpers.studies import standings
from helpers.studies.throughput import BATCH
from helpers.weights import sizes

if TYPE_CHECKING:
    import pandas as pd

ROWS = {"llama-cpp": "llama-cpp-q4_0", "transformers": BATCH}  # what stands for an engine, by its name in helpers.frameworks
ARRIVING = ("server", "arrivals")  # the works that send requests at random times: after users at once, or alone
SERVERS = ("prefix cache", "q4_0")  # the option of each engine's server that stands for it
PLANNED = (cases.today, cases.scaling)


def load(shape: str = LLAMA, machine: str | None = None) -> dict:
    """The newest record of one GPU with today's engines: the lives with ``shape``, and those that need no model.

    ``engines`` has the :func:`levels`, so that :mod:`helpers.studies.standings` says who is ahead.
    :class:`~helpers.records.RecordError` without a record.
    """
    found = read.load("today", machine)
    lives = {**read.beside(found, "scaling")["lives"], **found["lives"]}
    mine = {key: one for key, one in lives.items() if _is_mine(one, shape)}
    ordered = dict(sorted(mine.items(), key=lambda item: _place(item[1])))
    return {**found, "shape": shape, "lives": ordered, "engines": levels({**found, "lives": ordered})}


def _is_mine(one: Mapping, shape: str) -> bool:
    return one["work"] != "links" and one.get("gpus", 1) == 1 and one.get("shape", shape) == shape


def _place(one: Mapping) -> tuple[int, str]:
    """As it comes first, then the options in the order of :data:`helpers.gpu.variants.OPTIONS`; offline before the server."""
    options = list(variants.OPTIONS.get(one["engine"], ()))
    return options.index(one["option"]) if one["option"] in options else len(options), one["work"]


def recorded_shapes(machine: str | None = None) -> list[str]:
    """The shapes that were measured, those of the engines' own record first."""
    found = read.load("today", machine)
    lives = [*found["lives"].values(), *read.beside(found, "scaling")["lives"].values()]
    known = dict.fromkeys(one["shape"] for one in lives if one.get("shape") and one["rows"] and one.get("gpus", 1) == 1)
    return sorted(known, key=lambda shape: shape != LLAMA)


def left_out(found: Mapping | None = None) -> list[str]:
    """A line for each life of ``found``'s shape that is planned and missing, or was cut off: what has no row, or a short one."""
    found, lines = found or load(), []
    for life in (life for run in PLANNED for life in run() if life.layout.gpus == 1 and life.shape == found["shape"]):
        one = found["lives"].get(life.key)
        lines += [f"{life.key}: {_no_less(line)}" for line in (one["failed"] if one else ["planned, not recorded yet"])]
    return lines


def _no_less(line: str) -> str:
    """Records of before had the seconds by which a lease was over as negative ones."""
    return re.sub(r"-\d+ s were left", "no time was left", line)


def throughput(found: Mapping | None = None) -> pd.DataFrame:
    """Output tokens/s with 128 tokens in and 128 out, a row for each engine, its option and its way of asking."""
    return read.table(found or load(), ("offline", "server"), read.rates, ",.0f")


def served(found: Mapping | None = None) -> pd.DataFrame:
    """Milliseconds to the first token and for each after it, 128 tokens in and out: a row for each server and number of users."""
    found = found or load()
    rows = {
        (read.label(one), users_told(row["users"])): {
            "TTFT, ms": told(row["ttft_s"], ".1f", 1000), "TPOT, ms": told(row["tpot_s"], ".2f", 1000),
        }
        for one in read.lives(found, "server")
        for row in one["rows"] if row["kind"] == "level"
    }  # fmt: skip
    return read.frame(rows, found)


def arrivals(found: Mapping | None = None) -> pd.DataFrame:
    """Requests that arrive at random, at rising rates: what each server made of them within the limits; each rate once."""
    found = found or load()
    rows = {
        (read.label(one), f"{row['rate_per_s']:g}"): scaled.arrived({**row, "slots": read.asked(one, "slots") or "-"})
        for one in read.lives(found, *ARRIVING)
        for row in one["rows"]
        if row["kind"] == "arrivals"
    }
    return read.frame(rows, found)


def longer(found: Mapping | None = None) -> pd.DataFrame:
    """Tokens/s of the engines' APIs under longer loads: output tokens, and of a prompt alone those of the prompt."""
    found, rows = found or load(), {}
    for one in read.lives(found, "offline"):
        loads = {name: values for name, values in scaled.by_load(one).items() if not name.startswith("128/128")}
        if loads:
            rows[read.label(one)] = {name: told(vars(figure(values)), ",.0f") for name, values in loads.items()}
    return read.frame(rows, found)


def joules(found: Mapping | None = None) -> pd.DataFrame:
    """Joules of the card for an output token; of a server all repeats together. NVML's counter moves ten times a second."""
    found, rows = found or load(), {}
    for one in read.lives(found, "offline", "server"):
        spent: dict[str, list[float]] = {}
        for row in (row for row in one["rows"] if row["kind"] in ("speed", "longer", "level") and row.get("joules")):
            name, tokens = _load_of(row)
            spent.setdefault(name, []).append(row["joules"] / tokens)
        if spent:
            rows[read.label(one)] = {name: told({**vars(figure(of)), "repeats": len(of)}, ".3g") for name, of in spent.items()}
    return read.frame(rows, found)


def _load_of(row: Mapping) -> tuple[str, int]:
    """A row's load, as :func:`helpers.gpu.recorded.scaled.by_load` names it, and all its output tokens."""
    if row["kind"] == "level":
        lengths = f"{row['prompt_tokens'][0]:,}/{row['output_tokens'][0]:,}"
        return f"{lengths}, {users_told(row['users'])}", row["requests"] * row["repeats"] * row["output_tokens"][0]
    (name,) = scaled.by_load({"rows": [row]})
    return name, row["output_tokens"]


def prefix(found: Mapping | None = None) -> pd.DataFrame:
    """All users at once, their long prompts with a common beginning and with nothing in common: a row for each engine."""
    found, rows = found or load(), {}
    for one in read.lives(found, "prefix"):
        of = {row["prefix"]: row for row in one["rows"] if row["kind"] == "prefix"}
        if {"common", "own"} <= of.keys():
            rows[frameworks.TITLES[one["engine"]]] = _shared(of["common"], of["own"])
    return read.frame(rows, found, works=("prefix",))


def _shared(common: Mapping, own: Mapping) -> dict[str, str]:
    level, cached = common["level"], [count for count in common["cached_prompt_tokens"] if count is not None]
    asked = level["users"] * level["prompt_tokens"][0]
    rates = [side["level"]["output_tokens_per_s"] for side in (common, own)]
    said = {
        f"{name}, {side}": told(row["level"][key], ",.0f", scale)
        for name, key, scale in (("tokens/s", "output_tokens_per_s", 1), ("TTFT, ms", "ttft_s", 1000))
        for side, row in (("common", common), ("own", own))
    }
    return {
        "prompts": f"{level['users']} of {level['prompt_tokens'][0]:,} tokens", **said,
        "x tokens/s": f"{rates[0]['median'] / rates[1]['median']:.1f}" if all(rates) else "-",
        "cached, common": f"{median(cached) / asked:.0%}" if cached else "not told",
    }  # fmt: skip


def conversations(found: Mapping | None = None) -> pd.DataFrame:
    """Milliseconds to the first token of each turn and the cached share of its prompt; last a new prompt as long as the last."""
    found, rows = found or load(), {}
    for one in read.lives(found, "conversations"):
        title, of = frameworks.TITLES[one["engine"]], [row for row in one["rows"] if row["kind"] in ("turn", "new")]
        for row in of:
            turn = row["kind"] == "turn"
            name = f"turn {row['turn'] + 1}" if turn else "new"
            waits = row["ttft_s"] if turn else row["per_repeat"]["ttft_s"]
            rows[title, name] = _turn(row["prompt_tokens"][0], row["cached_tokens"], figure(waits))
    return read.frame(rows, found, works=("conversations",))


def _turn(prompt_tokens: int, cached: float | None, ttft_s: Figure | None) -> dict[str, str]:
    """A row's words; without a TTFT the client has refused the figure, whose reason stands in the record."""
    return {
        "prompt, tokens": f"{prompt_tokens:,}",
        "cached": "not told" if cached is None else f"{cached / prompt_tokens:.0%}",
        "TTFT, ms": told(ttft_s and vars(ttft_s), ",.0f", 1000),
    }


def pools(found: Mapping | None = None) -> pd.DataFrame:
    """Each KV pool beside the calculator: bytes of a token, and weights with pool against the most that the device held.

    Tokens are the engine's own, of llama.cpp those it was asked for; what it does not tell is "-". Of FP8 weights all values
    are taken to have eight bits; engines keep some in sixteen.
    """
    found, rows = found or load(), {}
    sheet = parallelism.of(found["shape"]).sheet
    for one in read.lives(found, "offline", "server"):
        tokens, each = _pool(one)
        if tokens:
            computed = sizes.kv_bytes_per_token(sheet.shape, "fp8" if "KV" in one["option"] else 2)
            needed = sizes.bytes_of(sheet.parameters, _dtype(one)) + tokens * computed
            rows[read.label(one)] = {
                "KV pool, tokens": f"{tokens:,}",
                "bytes a token": f"{each:,.0f}" if each else "-", "computed": f"{computed:,}",
                "error": f"{computed / each - 1:+.1%}" if each else "-",
                "weights + pool computed, GiB": f"{needed / sizes.GIB:.1f}",
                "device at most, GiB": f"{one['peak_device_bytes'] / sizes.GIB:.1f}",
                "its error": f"{needed / one['peak_device_bytes'] - 1:+.0%}",
            }  # fmt: skip
    return read.frame(rows, found)


def _pool(one: Mapping) -> tuple[int | None, float | None]:
    """The tokens that a pool holds, and the bytes of each as the engine tells them."""
    said = next((row for row in one["rows"] if row["kind"] in ("pool", "holds")), {})
    if one["engine"] == "llama-cpp" and (tokens := read.asked(one, "pool_tokens")):
        return tokens, said.get("bytes_per_token")
    if usage := said.get("memory_usage_gib"):
        return usage["token_capacity"], usage["kvcache"] * sizes.GIB / usage["token_capacity"]
    return said.get("tokens") or said.get("pool_tokens"), said.get("bytes_per_token")


def _dtype(one: Mapping) -> str:
    """The type of a life's weights."""
    if one["engine"] == "llama-cpp":
        form = one["option"].partition(",")[0]
        return "float16" if form == "f16" else form
    return "fp8" if one["option"].startswith("fp8") else "bfloat16"


def levels(found: Mapping | None = None) -> dict[str, list[dict]]:
    """What each engine's server makes for users at once, of Transformers a static batch (none was served), by users.

    A level has ``users``, ``output_tokens_per_s``, ``ttft_s``, ``tpot_s`` and ``gpus``; the names are those of their rows in
    :mod:`helpers.frameworks`.
    """
    return {ROWS.get(one["engine"], one["engine"]): _levels(one) for one in _compared(found or load())}


def _compared(found: Mapping) -> list[Mapping]:
    """The life that stands for each engine."""
    served = [one for one in read.lives(found, "server") if one["option"] in SERVERS]
    batch = [one for one in read.lives(found, "offline") if (one["engine"], one["option"]) == ("transformers", PLAIN)]
    return [*batch, *served]


def _levels(one: Mapping) -> list[dict]:
    firsts, every = read.first_tokens(one), _tpot(one)
    return [
        {"users": users, "output_tokens_per_s": rate, "ttft_s": firsts.get(users), "tpot_s": every.get(users), "gpus": 1}
        for users, rate in read.rates(one).items()
    ]


def _tpot(one: Mapping) -> dict[int, Mapping]:
    """Seconds for a token after the first by number of users; of an API, a decode step."""
    if one["work"] == "server":
        return {row["users"]: row["tpot_s"] for row in one["rows"] if row["kind"] == "level"}
    return {users: vars(value) for users, value in verdict.steps(one).items()}


def every_load(found: Mapping | None = None) -> dict[str, list[dict]]:
    """:func:`levels`, and after them what came of requests that arrived at random: ``users`` is ``None`` there."""
    found = found or load()
    every = levels(found)
    for one in (one for one in read.lives(found, *ARRIVING) if one["option"] in SERVERS):
        rows = [{**row, "gpus": 1} for row in one["rows"] if row["kind"] == "arrivals"]
        every.setdefault(ROWS.get(one["engine"], one["engine"]), []).extend(rows)
    return every


def slots(found: Mapping | None = None) -> str:
    """How many requests each server decodes together at most, in words: beyond that they wait, which arrivals may reach."""
    served = [one for one in _compared(found or load()) if one["work"] == "server"]
    return "slots: " + ", ".join(f"{frameworks.TITLES[one['engine']]} {read.asked(one, 'slots') or 'not told'}" for one in served)


def finding(found: Mapping | None = None) -> str:
    """What :func:`helpers.plots.per_user` shows of :func:`every_load`: who writes fastest for a user, and what arrivals leave."""
    every = every_load(found)
    at_once = [level for of in every.values() for level in of if level["users"]]
    if not at_once:
        return "no server and no static batch is recorded"
    arriving = [level for of in every.values() for level in of if not level["users"]]
    counts = sorted({level["users"] for level in at_once})
    text = f"Fastest for each user: {', '.join(_fastest(every, users) for users in dict.fromkeys((counts[0], counts[-1])))}"
    text += f". All together make at most {_most(at_once):,.0f}"
    lengths = " or ".join(sorted({f"{level['prompt_tokens'][0]:,}" for level in arriving}))
    return text + (f", and {_most(arriving):,.0f} where requests of {lengths} tokens arrive" if arriving else "")


def _most(of: Iterable[Mapping]) -> float:
    """The most tokens/s of all levels."""
    return max(level["output_tokens_per_s"]["median"] for level in of)


def _fastest(every: Mapping[str, list[dict]], users: int) -> str:
    """Whose users get the most tokens/s with so many at once, and how many; other names too where the ranges touch."""
    of = {name: level["tpot_s"] for name, levels in every.items() for level in levels if level["users"] == users}
    first, *others = sorted(of, key=lambda name: of[name]["median"])
    names = [first, *(name for name in others if standings.change(of[first], of[name]) != "more")]
    who = " or ".join(frameworks.label(name, gpu=True) for name in names)
    return f"{who} with {users_told(users)} ({1 / of[first]['median']:,.0f} tokens/s)"


def machine(found: Mapping | None = None) -> list[str]:
    """What the GPU can do at most, as measured there, and the client's own error: a line each."""
    rows = [row for one in read.lives(found or load(), "roof", "instrument") for row in one["rows"]]
    roofs = [f"roof: {row['bandwidth_bytes_per_s'] / 1e9:,.0f} GB/s, {row['flops_per_s'] / 1e12:,.0f} TFLOP/s in bf16"
             for row in rows if row["kind"] == "roof"]  # fmt: skip
    tests = [{key: value for key, value in row.items() if key != "kind"} for row in rows if row["kind"] == "instrument"]
    return [*roofs, *(str(selftest.SelfTest(**test)) for test in tests)]
