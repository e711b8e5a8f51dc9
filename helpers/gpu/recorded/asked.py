"""What the other runs left open, as recorded: mixed load, LoRA adapters, a conversation that returns, starts.

Replayed from the record of ``nox -s gpu -- questions`` on any machine; nothing is measured. A table has a row for each life
that has figures; :func:`left_out` names those that were planned and have none, and says why. Every table has its source in
``attrs["recorded"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import TYPE_CHECKING

from helpers.formatting import told
from helpers.gpu import cases
from helpers.gpu.cases import PLAIN, Life
from helpers.gpu.recorded import read
from helpers.gpu.recorded.blocks import span
from helpers.gpu.work import offload
from helpers.gpu.work.mixed import ALONE, BESIDE
from helpers.gpu.work.starts import PHASES
from helpers.servers import engines
from helpers.weights import sizes

if TYPE_CHECKING:
    import pandas as pd

NOT = "not measured"
NAMED = {  # what an option is called in the table of its work, if not by its own name
    ("adapters", PLAIN): "none held",
    ("adapters", "1 adapter"): "1 held",
    ("adapters", "8 adapters"): "8 held",
    ("adapters", "32 adapters"): "32 held",
    ("offload", "prefix cache"): "no offload",
}


def load(machine: str | None = None) -> dict:
    """The newest record of the questions; :class:`~helpers.records.RecordError` if there is none."""
    return read.load("questions", machine)


def lives(found: Mapping, work: str) -> dict[str, Mapping | None]:
    """Every life of ``work`` that was planned, by what it is called: ``None`` where it has no figures. Engine by engine."""
    planned = sorted((one for one in cases.questions() if one.work == work), key=_place)
    recorded = {_name(one): found["lives"].get(one.key) for one in planned}
    return {name: one if one and _has_figures(one) else None for name, one in recorded.items()}


def _has_figures(one: Mapping) -> bool:
    """Whether a life came to its first repeat or start: a server that ended before has rows of what it was given."""
    return any("repeat" in row or row["kind"] == "start" for row in one["rows"])


def _place(life: Life) -> tuple[int, int]:
    """By framework, then by how many adapters are held; else as planned."""
    return list(engines.TITLES).index(life.engine), life.given.get("adapters", 0)


def _name(life: Life) -> str:
    """A life in words: "vLLM, chunks of 1024"; a start's has no option, but for the type of llama.cpp's weights."""
    title = engines.TITLES[life.engine]
    if life.work == "start":
        return title if life.option == PLAIN else f"{title} {life.option.upper()}"
    return f"{title}, {NAMED.get((life.work, life.option), life.option)}"


def left_out(work: str, found: Mapping | None = None) -> list[str]:
    """The planned lives of ``work`` that have no figures, or not all: a line for each that failed, one for all not begun."""
    found, lines, never = found or load(), [], []
    for life in sorted((one for one in cases.questions() if one.work == work), key=_place):
        one = found["lives"].get(life.key) or {"rows": [], "failed": [], "complete": False}
        known = "not all of it" if _has_figures(one) else NOT
        lines += [f"{_name(life)}: {known} ({reason})" for reason in one["failed"]]
        if not one["failed"] and not one["complete"]:
            never.append(_name(life))
    return [*lines, f"{NOT}: {'; '.join(never)}"] if never else lines


def _table(work: str, columns: Iterable[str], row: Callable[[Mapping], Mapping], found: Mapping) -> pd.DataFrame:
    """A row for each life with figures: its repeats and those of the ``columns`` that ``row`` makes of some life."""
    empty = dict.fromkeys(columns, "-")
    made = {name: {"repeats": repeats(one), **empty, **row(one)} for name, one in lives(found, work).items() if one}
    shown = read.frame(made, found, works=(work,))
    return shown.loc[:, (shown != "-").any()]


def repeats(one: Mapping | None) -> str:
    """How often a life has measured each of its figures; :data:`NOT` where it has none."""
    counted = {row["repeat"] for row in one["rows"] if "repeat" in row} if one else set()
    return str(len(counted)) if counted else NOT


def ratios(over: Mapping[int, float | None], under: Mapping[int, float | None]) -> list[float]:
    """One figure over another of the same repeat, of every repeat that has both; by repeat."""
    return [value / under[repeat] for repeat, value in over.items() if value is not None and under.get(repeat)]


def blocks(one: Mapping, way: str, name: str, part: str | None = None) -> dict[int, float | None]:
    """By repeat, a figure of the users in the blocks ``alone`` or ``beside long prompts``; of a time its ``part``, as p99."""
    rows = {row["repeat"]: row.get(name) for row in one["rows"] if row["kind"] == "users" and row["way"] == way}
    return {repeat: value.get(part) if part and value else value for repeat, value in rows.items()}


MIXED = (
    "ITL p99 alone, ms", "ITL p99 beside, ms", "x ITL p99", "ITL p99.9 beside, ms", "TPOT alone, ms", "TPOT beside, ms",
    "tokens/s alone", "tokens/s beside", "long prompts' TTFT, ms",
)  # fmt: skip


def mixed(found: Mapping | None = None) -> pd.DataFrame:
    """The users alone and beside long prompts, a row for each engine and how it cuts prompts.

    *x* is beside over alone, repeat by repeat. ITL: a percentile of all gaps of a block; TPOT: the median of its answers;
    tokens/s are those of the users only; of the long prompts of a block the median TTFT.
    """
    return _table("mixed", MIXED, _mixed, found or load())


def _mixed(one: Mapping) -> dict[str, str]:
    alone, beside = (blocks(one, way, "itl_s", "p99") for way in (ALONE, BESIDE))
    said = {
        "ITL p99 alone, ms": told(span(alone.values()), ".1f", 1000),
        "ITL p99 beside, ms": told(span(beside.values()), ".1f", 1000),
        "x ITL p99": told(span(ratios(beside, alone)), ".1f"),
        "ITL p99.9 beside, ms": told(span(blocks(one, BESIDE, "itl_s", "p999").values()), ".0f", 1000),
        "long prompts' TTFT, ms": told(span(_long(one)), ".0f", 1000),
    }
    for way, name in ((ALONE, "alone"), (BESIDE, "beside")):
        said[f"TPOT {name}, ms"] = told(span(blocks(one, way, "tpot_s", "p50").values()), ".2f", 1000)
        said[f"tokens/s {name}"] = told(span(blocks(one, way, "output_tokens_per_s").values()), ",.0f")
    return said


def _long(one: Mapping) -> list[float | None]:
    """The median TTFT of the long prompts of each block, seconds."""
    firsts = [[value for value in row["ttft_s"] if value is not None] for row in one["rows"] if row["kind"] == "long prompts"]
    return [median(of) for of in firsts if of]


def chunks(found: Mapping | None = None) -> list[str]:
    """What each engine's log says of the chunks that it takes: a line for each life that says it."""
    said = {name: one.get("chunks") for name, one in lives(found or load(), "mixed").items() if one}
    return [f"{name}: {'; '.join(lines)}" for name, lines in said.items() if lines]


MARKS = {"p99, alone": (ALONE, "p99"), "p99, beside": (BESIDE, "p99"), "p99.9, beside": (BESIDE, "p999")}


def gaps(found: Mapping | None = None) -> dict[str, dict[str, Mapping]]:
    """Of each life its gaps between tokens in ms, by the names of :data:`MARKS`: what the picture of the mixed load draws."""
    drawn = {}
    for name, one in lives(found or load(), "mixed").items():
        of = {mark: span(blocks(one, way, "itl_s", part).values()) for mark, (way, part) in MARKS.items()} if one else {}
        if known := {mark: {key: 1000 * value[key] for key in ("median", "low", "high")} for mark, value in of.items() if value}:
            drawn[name] = known
    return drawn


def gaps_finding(found: Mapping | None = None) -> str:
    """What the picture of :func:`gaps` shows: how much longer the gaps are beside long prompts, least and most."""
    times = {}
    for name, one in lives(found or load(), "mixed").items():
        if one and (value := span(ratios(*(blocks(one, way, "itl_s", "p99") for way in (BESIDE, ALONE))))):
            times[name] = value["median"]
    if not times:
        return "no mixed load is recorded"
    least, *_, most = sorted(times, key=times.get) * 2
    text = f"Beside long prompts p99 of the gaps is {times[least]:.1f} times that alone ({least})"
    text += f" to {times[most]:.1f} times ({most})" if len(times) > 1 else ""
    long = {name: of["p99.9, beside"]["median"] for name, of in gaps(found).items() if "p99.9, beside" in of}
    last = max(long, key=long.get, default=None)
    return text + (f"; p99.9 is up to {long[last]:,.0f} ms ({last})" if last else "")


def used(one: Mapping) -> dict[int, dict[int, float | None]]:
    """Output tokens/s of a life's blocks: by how many adapters its users were spread over, then by repeat."""
    found: dict[int, dict[int, float | None]] = {}
    for row in (row for row in one["rows"] if row["kind"] == "block"):
        rate = row["output_tokens_per_s"]
        found.setdefault(row["adapters"], {})[row["repeat"]] = rate["median"] if rate else None
    return dict(sorted(found.items()))


def adapters(found: Mapping | None = None) -> pd.DataFrame:
    """Output tokens/s of the model alone, and how many times as many with the users spread over so many adapters.

    A row for each engine and how many adapters it holds. *x used* is over the same server's blocks with the model alone, repeat
    by repeat; *x none held* is the model alone, over another server that holds no adapters: of the medians, and of the farthest
    repeats.
    """
    found = found or load()
    columns = ["tokens/s, none used", *(f"x {count} used" for count in cases.HELD["used"][1:]), "x none held"]
    without = {one["engine"]: used(one).get(0, {}) for one in read.lives(found, "adapters") if one["option"] == PLAIN}
    return _table("adapters", columns, lambda one: _against(one, without.get(one["engine"], {})), found)


def _against(one: Mapping, without: Mapping[int, float | None]) -> dict[str, str]:
    by = used(one)
    alone = by.get(0, {})
    return {
        "tokens/s, none used": told(span(alone.values()), ",.0f"),
        **{f"x {count} used": told(span(ratios(rates, alone)), ".2f") for count, rates in by.items() if count},
        "x none held": told(across(alone.values(), without.values()), ".2f") if one["option"] != PLAIN else "-",
    }


HOLDS = ("start, s", "KV pool, tokens", "MiB of an adapter", "J/token, none used", "J/token, most used")


def holding(found: Mapping | None = None) -> pd.DataFrame:
    """What it takes to hold so many adapters: the start, the KV pool beside them, and joules of the card for an output token."""
    return _table("adapters", HOLDS, _holds, found or load())


def _holds(one: Mapping) -> dict[str, str]:
    rows, most = {row["kind"]: row for row in one["rows"]}, max(used(one), default=0)
    pool, each = rows.get("pool", {}).get("tokens"), rows.get("adapters", {}).get("bytes_each")
    return {
        "start, s": f"{rows['loaded']['seconds']:.0f}" if "loaded" in rows else "-",
        "KV pool, tokens": f"{pool:,}" if pool else "-",
        "MiB of an adapter": f"{each / sizes.MIB:.0f}" if each else "-",
        "J/token, none used": told(span(_joules(one, 0)), ".3g"),
        "J/token, most used": told(span(_joules(one, most)), ".3g") if most else "-",
    }


def across(now: Iterable[float | None], then: Iterable[float | None]) -> Mapping | None:
    """How many times the figures of one life are those of another: of the medians, and of the farthest repeats."""
    over, under = ([value for value in values if value] for values in (now, then))
    if not over or not under:
        return None
    return dict(zip(("median", "low", "high"), read.times(over, under)))


def _joules(one: Mapping, count: int) -> list[float]:
    """Joules of the card for an output token, of each block with ``count`` adapters used."""
    rows = [row for row in one["rows"] if row["kind"] == "block" and row["adapters"] == count and row.get("joules")]
    return [row["joules"] / (row["requests"] * row["output_tokens"][0]) for row in rows if row["output_tokens"]]


def answers(one: Mapping, when: str, name: str) -> dict[int, float | None]:
    """A figure of a life's answers by repeat; ``when``: new, still on the GPU, or pushed out."""
    return {row["repeat"]: row[name] for row in one["rows"] if row["kind"] == "answer" and row["when"] == when}


RETURNS = (
    "TTFT new, ms", "TTFT still on the GPU, ms", "TTFT returns, ms", "x returns", "cached, still on the GPU", "cached, returns",
    "prompt, tokens",
)  # fmt: skip


def returning(found: Mapping | None = None) -> pd.DataFrame:
    """TTFT of a long conversation: new, gone on with at once, and after others have pushed its pages out of the GPU.

    A row for each engine, with and without offloading to the machine's memory. *x returns* is new over returns, repeat by repeat:
    how many times as soon. The cached tokens are the server's own count; *prompt* is that of the conversation that returns.
    """
    return _table("offload", RETURNS, _returning, found or load())


def _returning(one: Mapping) -> dict[str, str]:
    new, here, back = (answers(one, when, "ttft_s") for when in (offload.NEW, offload.HERE, offload.BACK))
    return {
        "TTFT new, ms": told(span(new.values()), ".0f", 1000),
        "TTFT still on the GPU, ms": told(span(here.values()), ".0f", 1000),
        "TTFT returns, ms": told(span(back.values()), ".0f", 1000),
        "x returns": told(span(ratios(new, back)), ".1f"),
        "cached, still on the GPU": _cached(one, offload.HERE),
        "cached, returns": _cached(one, offload.BACK),
        "prompt, tokens": _count(answers(one, offload.BACK, "prompt_tokens").values()) or "-",
    }


def _cached(one: Mapping, when: str) -> str:
    return _count(answers(one, when, "cached_tokens").values()) or "not told"


def _count(values: Iterable[int | None]) -> str:
    """A count with its spread, which has none where all repeats agree; nothing where nothing was counted."""
    counts = span(values)
    agree = counts and counts["low"] == counts["high"]
    return told({**counts, "repeats": 1} if agree else counts, ",.0f", none="")


def started(found: Mapping | None = None) -> dict[str, Mapping | None]:
    """The row of each planned start by its name, as "vLLM, warm"; ``None`` where it was not measured."""
    found, rows = found or load(), {}
    planned = {_name(life): life.given["ways"] for life in cases.questions() if life.work == "start"}
    for name, one in lives(found, "start").items():
        of = {row["way"]: row for row in one["rows"] if row["kind"] == "start"} if one else {}
        rows |= {f"{name}, {way}": of.get(way) for way in planned[name]}
    return rows


def phases(row: Mapping) -> dict[str, float]:
    """Seconds of a start by phase, as the engine's log tells them, and the ``rest`` of the way to ready."""
    said = {name: seconds for name, seconds in row.get("phases_s", {}).items() if name in PHASES}
    return {**said, "rest": row["ready_s"] - sum(said.values())}


def starts(found: Mapping | None = None) -> pd.DataFrame:
    """Seconds from the command to a server that is ready and to its first answer, a row for each start; each was made once.

    The phases are the seconds that the engine's own log gives them; "-": it says nothing of it. vLLM without a compile cache
    counts its first run with ``compile``.
    """
    found = found or load()
    return read.frame({name: _start(row) for name, row in started(found).items()}, found, works=("start",))


def _start(row: Mapping | None) -> dict[str, str]:
    columns = ["ready, s", "first answer, s", *(f"{name}, s" for name in (*PHASES, "rest")), "first TTFT, ms", "third TTFT, ms"]
    if row is None:
        return {**dict.fromkeys(columns, "-"), "ready, s": NOT}
    firsts = [f"{1000 * value:.0f}" if value is not None else "-" for value in row["ttft_s"]]
    return {
        **dict.fromkeys(columns, "-"), "ready, s": f"{row['ready_s']:.1f}", "first answer, s": f"{row['first_answer_s']:.1f}",
        **{f"{name}, s": f"{seconds:.1f}" for name, seconds in phases(row).items()},
        "first TTFT, ms": firsts[0], "third TTFT, ms": firsts[-1],
    }  # fmt: skip


def bars(found: Mapping | None = None) -> dict[str, dict[str, float]]:
    """The :func:`phases` of each start that was measured, for a picture; what its log does not tell is 0, a part of the rest."""
    told_of = {name: phases(row) for name, row in started(found).items() if row}
    known = [name for name in (*PHASES, "rest") if any(name in of for of in told_of.values())]
    return {name: {phase: of.get(phase, 0.0) for phase in known} for name, of in told_of.items()}


def starts_finding(found: Mapping | None = None) -> str:
    """What the bars of the starts show: each engine's seconds with empty caches, with full ones, and without."""
    said: dict[str, list[str]] = {}
    for name, row in started(found).items():
        engine, _, way = name.rpartition(", ")
        if row:
            said.setdefault(engine, []).append(f"{row['ready_s']:.3g} s {way}")
    told_of = "; ".join(f"{engine} {', '.join(of)}" for engine, of in said.items())
    return f"From the command to a server that is ready: {told_of}" if said else "no start is recorded"
