"""What a GPU record holds, read on any machine: its lives by name, and rates and first tokens by number of users.

A figure is the median of the repeats with the lowest and the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from helpers import machine, records
from helpers.bench.timing import figure
from helpers.formatting import told, users_told
from helpers.gpu.cases import PLAIN, SHORT
from helpers.servers import engines, flags

if TYPE_CHECKING:
    import pandas as pd

RUNS = ("speed", "memory", "options")


def machines(run: str = "speed") -> list[str]:
    """The machines that have a record of ``run``, the newest record first."""
    ages: dict[str, tuple] = {}
    for path in records.FOLDER.glob(f"*/gpu-{run}.*.json"):
        ages[path.parent.name] = max(records.age(path), ages.get(path.parent.name, ("", 0)))
    return sorted(ages, key=lambda name: (ages[name], name), reverse=True)


def order(run: str) -> list[str]:
    """The names of the machines that have a record of ``run``, in the order in which tables take them.

    Those that have every run of :data:`RUNS` come first, among them the one whose speed was measured last.
    """
    there = {other: machines(other) for other in (*RUNS, run)}
    whole = [name for name in there["speed"] if all(name in names for names in there.values())]
    return list(dict.fromkeys([*whole, *there[run]]))


def load(run: str, machine: str | None = None) -> dict:
    """The newest record of ``run`` that ``machine`` has, by default the first machine of :func:`order`.

    With the default all tables are of one machine. :class:`~helpers.records.RecordError` if there is none.
    """
    names = [machine] if machine else order(run)
    if not names or names[0] not in machines(run):
        raise records.RecordError(f"no record of a GPU run {run!r} is here: make one with `nox -s gpu -- {run}`")
    return records.load(f"gpu-{run}", names[0])


def beside(found: Mapping, run: str) -> Mapping:
    """The newest record of ``run`` that was made on the same machine as ``found``; if there is none, one without lives."""
    name = machine.name(found["provenance"]["machine"])
    return load(run, name) if name in machines(run) else {**found, "lives": {}}


def recorded(*found: Mapping, works: Sequence[str] = ()) -> str:
    """One line: on what, when, with which weights and versions; of several records of one machine, those of all.

    With ``works``, those of these works only. Of a machine with several GPUs it is said if none of them used more than one.
    """
    source = found[0]["provenance"]
    measured = [one for record in found for one in record["lives"].values() if not works or one["work"] in works]
    machine = source["machine"]
    used = [one["gpus"] for one in measured if "gpus" in one]
    several = f"{'one of ' * (used != [] and max(used) == 1)}{len(machine['gpus'])} x " if len(machine["gpus"]) > 1 else ""
    gpu = several + (machine["gpus"] or [machine["cpu"]])[0]
    versions = {f"{name} {version}" for one in measured for name, version in one.get("versions", {}).items()}
    dates = sorted({one["date"][:10] for one in measured if one.get("date")})
    driver = f", driver {machine['gpu_driver']}" if machine["gpu_driver"] else ""
    real = sorted({one["model"] for one in measured if one.get("model")}) if works else []
    shapes = sorted({one["shape"] for one in measured if one.get("shape")})
    weights = f"random, shape of {' and '.join(shapes)}" if shapes else source["weights"]
    made = ", ".join([", ".join(real) or weights, *sorted(versions)])
    return f"recorded on {gpu}{driver}, {' and '.join(dates) or source['date'][:10]}; {made}"


def frame(rows: Mapping[str, Mapping], *found: Mapping, works: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each entry, "-" where one has nothing to say; in ``attrs["recorded"]`` which records it comes from."""
    import pandas as pd

    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    if found:
        shown.attrs["recorded"] = recorded(*found, works=works)
    return shown


def table(
    found: Mapping, works: Sequence[str], values: Callable[[Mapping], Mapping], form: str, scale: float = 1
) -> pd.DataFrame:
    """A row for each life of ``works`` that has ``values``, figures by number of users: a column for each number."""
    known = {label(one): values(one) for one in lives(found, *works)}
    rows = {
        name: {users_told(count): told(value, form, scale) for count, value in by.items()} for name, by in known.items() if by
    }
    shown = frame(rows, found)
    return shown[sorted(shown.columns, key=lambda name: int(name.split()[0]))]


def label(one: Mapping) -> str:
    """A life in words: "vLLM, server", "llama.cpp Q4_0, offline", "HF Transformers, one by one"."""
    title, option = engines.TITLES.get(one["engine"], one["engine"]), one["option"]
    work = "server" if one["work"] == "arrivals" else one["work"]
    if one["engine"] == "llama-cpp":
        form, _, changed = option.partition(", ")
        return ", ".join(filter(None, (f"{title} {form.upper()}", work, changed)))
    if one["engine"] == "transformers":
        return f"{title}, {'static batch' if option == PLAIN else option}"
    usual = (PLAIN, SHORT) if work == "offline" else ("prefix cache",)  # a server has it on by default
    return f"{title}, {work}" + ("" if option in usual else f", {option}")


def times(now: Sequence[float], then: Sequence[float]) -> tuple[float, float, float]:
    """How many times the figures of one life are those of another: of the medians, and of the farthest repeats, low and high."""
    return median(now) / median(then), min(now) / max(then), max(now) / min(then)


def asked(one: Mapping, setting: str) -> int | None:
    """What the command of a life was told of ``setting``, by its name in :mod:`helpers.servers.flags`; ``None``: nothing."""
    given, (option, _) = one.get("arguments"), flags.options(one["engine"], **{setting: 0})
    return int(given[given.index(option) + 1]) if isinstance(given, list) and option in given else None


def drafting(one: Mapping) -> str:
    """How a life of the small model drafts, in words."""
    return "no drafts" if one["option"] == "plain" else one["option"]


def lives(found: Mapping, *works: str) -> Iterator[Mapping]:
    """The lives of ``found`` whose work is one of ``works``, those with rows: by framework, then as they were measured."""
    order = ["machine", *engines.TITLES]
    chosen = (one for one in found["lives"].values() if one["work"] in works and one["rows"])
    yield from sorted(chosen, key=lambda one: order.index(one["engine"]))


def rates(one: Mapping) -> dict[int, dict | None]:
    """Output tokens per second by number of users: offline from the repeats, of a server from its levels."""
    if one["work"] == "server":
        return {row["users"]: row["output_tokens_per_s"] for row in one["rows"] if row["kind"] == "level"}
    return _by_users(one, "speed", lambda row: row["output_tokens"] / row["seconds"])


def gains(found: Mapping, *options: str) -> dict[str, dict[int, float]]:
    """How many times its rate as it comes an engine's API reaches with each of ``options``, by number of users.

    As it comes means with as short a context as the options have; an engine without that life is left out.
    """
    usual = {one["engine"]: rates(one) for one in lives(found, "offline") if one["option"] == SHORT}
    return {
        f"{engines.TITLES[one['engine']]}, {one['option']}": {
            users: rate["median"] / usual[one["engine"]][users]["median"] for users, rate in rates(one).items()
        }
        for one in lives(found, "offline")
        if one["option"] in options and one["engine"] in usual
    }


def decode_rates(one: Mapping) -> dict[int, dict | None]:
    """Tokens per second of llama.cpp's bench without the prompt; empty for what does not tell them apart."""
    rows = [row for row in one["rows"] if row["kind"] == "speed" and row.get("decode_s")]
    return _by_users({"rows": rows}, "speed", lambda row: row["output_tokens"] / row["decode_s"])


def first_tokens(one: Mapping) -> dict[int, dict | None]:
    """Seconds to the first token by number of users; offline, a request of one token alone."""
    if one["work"] == "server":
        return {row["users"]: row["ttft_s"] for row in one["rows"] if row["kind"] == "level"}
    if told_by_engine := _by_users(one, "speed", lambda row: row.get("ttft_s")):
        return told_by_engine
    return _by_users(one, "first token", lambda row: row["seconds"])


def levels(found: Mapping | None = None) -> dict[str, list[dict]]:
    """Of each engine that :func:`served` names, what :func:`helpers.plots.by_users` draws."""
    drawn = {}
    for one in _served(found):
        firsts = first_tokens(one)
        drawn[one["engine"]] = [
            {"users": users, "output_tokens_per_s": rate, "ttft_s": firsts.get(users)} for users, rate in rates(one).items()
        ]
    return drawn


def _by_users(one: Mapping, kind: str, value) -> dict[int, dict | None]:
    rows = [row for row in one["rows"] if row["kind"] == kind]
    found = {users: [value(row) for row in rows if row["users"] == users] for users in sorted({row["users"] for row in rows})}
    return {
        users: vars(figure(values)) | {"repeats": len(values)}
        for users, values in found.items()
        if any(v is not None for v in values)
    }


def every_rate(found: Mapping | None = None, works: Sequence[str] = ("offline", "server")) -> dict[str, dict[int, dict | None]]:
    """Every way of asking and its :func:`rates`, for what is worked out from them (:func:`document_figures.cost`)."""
    named = {label(one): rates(one) for one in lives(found or load("speed"), *works)}
    return {name: by_users for name, by_users in named.items() if by_users}


def served(found: Mapping | None = None) -> dict[str, dict[int, dict | None]]:
    """The :func:`rates` of each framework's server by its name, of Transformers those of a static batch (none was served)."""
    return {one["engine"]: rates(one) for one in _served(found)}


def _served(found: Mapping | None) -> list[Mapping]:
    wanted = ("server", "prefix cache"), ("server", "q4_0"), ("offline", PLAIN)
    chosen = [one for one in lives(found or load("speed"), "offline", "server") if (one["work"], one["option"]) in wanted]
    by_engine = {one["engine"]: one for one in sorted(chosen, key=lambda one: one["work"])}  # a server's replaces the API's
    return list(by_engine.values())


def spread(one: Mapping) -> float | None:
    """The widest (highest - lowest) / median of an engine's repeats; ``None`` without repeats."""
    found = [(value["high"] - value["low"]) / value["median"] for value in rates(one).values() if value]
    return max(found, default=None)


def server_share(found: Mapping, engine: str, users: int, option: str = PLAIN) -> float | None:
    """The server's throughput over the engine API's, both with ``users``; ``None`` where one is missing."""
    options = {"offline": (option,), "server": (option, "prefix cache")}
    sides = [
        rates(one).get(users) for work in ("server", "offline") for one in lives(found, work)
        if one["engine"] == engine and one["option"] in options[work]
    ]  # fmt: skip
    return sides[0]["median"] / sides[1]["median"] if len(sides) == 2 and all(sides) else None


def failures(found: Mapping) -> list[str]:
    """One line for each life that failed or was cut off."""
    return [f"{key}: {line}" for key, one in found["lives"].items() for line in one["failed"]]


def prefix_gains(*found: Mapping) -> dict[str, float]:
    """By server: tokens/s of prompts with a common prefix, divided by tokens/s of prompts with nothing in common."""
    gains = {}
    for one in (one for record in found for one in lives(record, "server", "prefix")):
        of = {row["prefix"]: row["level"]["output_tokens_per_s"]["median"] for row in one["rows"] if row["kind"] == "prefix"}
        if len(of) == 2:
            gains[label(one)] = of["common"] / of["own"]
    return gains


def prefix_firsts(*found: Mapping) -> dict[str, dict[str, Mapping]]:
    """By server: seconds to the first token of prompts with a ``common`` prefix, and with one of their ``own``."""
    firsts = {
        label(one): {row["prefix"]: row["level"]["ttft_s"] for row in one["rows"] if row["kind"] == "prefix"}
        for record in found
        for one in lives(record, "server", "prefix")
    }
    return {name: of for name, of in firsts.items() if {"common", "own"} <= of.keys()}


def token_seconds(users: int = 100, *found: Mapping) -> dict[str, tuple[float, float]]:
    """By engine the machine's seconds for an input and for an output token, with ``users`` at once, from its server's two loads.

    One load is short (the levels), one has long prompts with nothing in common. Each gives an equation: seconds per request
    are input tokens times the first plus output tokens times the second. That a token costs the same in both is an
    assumption. An engine without two such loads is left out. ``found`` are records as :func:`both` gives them.
    """
    loads: dict[tuple, dict[tuple[int, int], float]] = {}
    for one in (one for record in found or both() for one in lives(record, "server", "prefix")):
        for level in _own(one, users):
            tokens = level["prompt_tokens"][0], level["output_tokens"][0]
            seconds = tokens[1] / level["output_tokens_per_s"]["median"]
            loads.setdefault((one["engine"], one["option"]), {})[tokens] = seconds
    return {engine: _solved(*of.items()) for (engine, _), of in loads.items() if len(of) == 2}


def _own(one: Mapping, users: int) -> list[Mapping]:
    """The levels of a life in which nothing was shared, with ``users`` and a figure."""
    levels = [row for row in one["rows"] if row["kind"] == "level"]
    levels += [row["level"] for row in one["rows"] if row["kind"] == "prefix" and row["prefix"] == "own"]
    return [level for level in levels if level["users"] == users and level["output_tokens_per_s"]]


def _solved(one: tuple, other: tuple) -> tuple[float, float]:
    """Two equations with two unknowns, by Cramer's rule."""
    ((a, b), s), ((c, d), t) = one, other
    return (s * d - t * b) / (a * d - c * b), (a * t - c * s) / (a * d - c * b)


def both(machine: str | None = None) -> list[dict]:
    """The records of speed and of memory: the pools and the prefixes of some servers are in the first."""
    names = [machine] if machine else [*order("speed"), *order("memory")][:1]
    return [load(run, name) for name in names for run in ("speed", "memory") if name in machines(run)]
