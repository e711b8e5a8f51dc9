"""The GPU records as tables like the source document's: replayed on any machine, nothing is measured.

A cell is the median of the repeats with the lowest and the highest. Every table has the machine and the
date in ``attrs["recorded"]``, and says so in its last column where several machines stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from helpers import engines, memory, records, shapes
from helpers.gpu.variants import PLAIN
from helpers.guide import users_told
from helpers.timing import figure, told


def machines(run: str = "speed") -> list[str]:
    """The machines that have a record of ``run``, the newest record first."""
    found = {path.parent.name: path for path in sorted(records.FOLDER.glob(f"*/gpu-{run}.*.json"), key=records._age)}
    return sorted(found, key=lambda name: records._age(found[name]), reverse=True)


def load(run: str, machine: str | None = None) -> dict:
    """The newest record of ``run``, of ``machine`` or of the machine that was measured last."""
    names = [machine] if machine else machines(run)
    if not names:
        raise records.RecordError(f"no record of a GPU run {run!r} is here: make one with `nox -s gpu -- {run}`")
    return records.load(f"gpu-{run}", names[0])


def recorded(*found: Mapping) -> str:
    """One line: on what, when, with which versions; of several records of one machine, those of all."""
    source, measured = found[0]["provenance"], [one for record in found for one in record["lives"].values()]
    machine = source["machine"]
    gpu = (machine["gpus"] or [machine["cpu"]])[0]
    versions = {f"{name} {version}" for one in measured for name, version in one.get("versions", {}).items()}
    dates = sorted({one["date"][:10] for one in measured if one.get("date")})
    driver = f", driver {machine['gpu_driver']}" if machine["gpu_driver"] else ""
    made = f"{source['weights']}, {', '.join(sorted(versions))}"
    return f"recorded on {gpu}{driver}, {' and '.join(dates) or source['date'][:10]}; {made}"


def label(one: Mapping) -> str:
    """A life in words: "vLLM, server", "llama.cpp Q4_0, offline", "HF Transformers, one by one"."""
    title, option = engines.TITLES.get(one["engine"], one["engine"]), one["option"]
    if one["engine"] == "llama-cpp":
        return f"{title} {option.upper()}, {one['work']}"
    if one["engine"] == "transformers":
        return f"{title}, {'static batch' if option == PLAIN else option}"
    usual = PLAIN if one["work"] == "offline" else "prefix cache"  # a server has its prefix cache on by default
    return f"{title}, {one['work']}" + ("" if option == usual else f", {option}")


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


def _by_users(one: Mapping, kind: str, value) -> dict[int, dict | None]:
    rows = [row for row in one["rows"] if row["kind"] == kind]
    found = {users: [value(row) for row in rows if row["users"] == users] for users in sorted({row["users"] for row in rows})}
    return {
        users: vars(figure(values)) | {"repeats": len(values)}
        for users, values in found.items()
        if any(v is not None for v in values)
    }


def throughput(found: Mapping | None = None, works: Sequence[str] = ("offline", "server")):
    """Output tokens/s at each number of users, one row for each way of asking; the source document's first table."""
    found = found or load("speed")
    return _table(found, works, rates, ".0f", 1)


def ttft(found: Mapping | None = None, works: Sequence[str] = ("server", "offline")):
    """Milliseconds to the first token at each number of users; the source document's second table, single and high load."""
    found = found or load("speed")
    return _table(found, works, first_tokens, ".1f", 1000)


def _table(found: Mapping, works: Sequence[str], values, form: str, scale: float):
    import pandas as pd

    known = {label(one): values(one) for one in lives(found, *works)}
    rows = {
        name: {users_told(count): told(value, form, scale) for count, value in by.items()} for name, by in known.items() if by
    }
    shown = pd.DataFrame.from_dict(rows, orient="index")
    shown = shown.reindex(columns=sorted(shown.columns, key=lambda name: int(name.split()[0]))).fillna("-")
    shown.attrs["recorded"] = recorded(found)
    return shown


def every_rate(found: Mapping | None = None, works: Sequence[str] = ("offline", "server")) -> dict[str, dict[int, dict | None]]:
    """Every way of asking and its :func:`rates`, for what is worked out from them (:func:`helpers.guide.cost`)."""
    named = {label(one): rates(one) for one in lives(found or load("speed"), *works)}
    return {name: by_users for name, by_users in named.items() if by_users}


def served(found: Mapping | None = None) -> dict[str, dict[int, dict | None]]:
    """The :func:`rates` of each framework's server by its name, of Transformers those of a static batch (none was served)."""
    wanted = ("server", "prefix cache"), ("server", "q4_0"), ("offline", PLAIN)
    found = [one for one in lives(found or load("speed"), "offline", "server") if (one["work"], one["option"]) in wanted]
    return {one["engine"]: rates(one) for one in sorted(found, key=lambda one: one["work"])}


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


def memory_use(*found: Mapping):
    """GiB of weights, KV pool and device, each as the engine or NVML says it; the source document's third table.

    ``found`` are the records to take it from; by default those of speed (the servers' pools) and of memory.
    """
    import pandas as pd

    found = found or _both()
    told_by = (one for record in found for one in lives(record, "pool", "memory", "server"))
    rows = {label(one): _memory(one) for one in told_by if any(row["kind"] in ("pool", "peak") for row in one["rows"])}
    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    shown.attrs["recorded"] = recorded(*found)
    return shown


def _both(machine: str | None = None) -> list[dict]:
    """The records of speed and of memory: the pools and the prefixes of some servers are in the first."""
    return [load(run, machine) for run in ("speed", "memory") if (machine in machines(run) if machine else machines(run))]


def _memory(one: Mapping) -> dict[str, str]:
    pool = next((row for row in one["rows"] if row["kind"] == "pool"), {})
    peak = [row for row in one["rows"] if row["kind"] == "peak" and row["peak_bytes"]]
    most = next((row for row in one["rows"] if row["kind"] == "most users"), None)
    weights = pool.get("weights_gib") or (peak and peak[0]["weights_bytes"] / memory.GIB) or None
    said = {
        "weights, GiB": weights and f"{weights:.2f}",
        "KV pool, GiB": pool.get("bytes") and f"{pool['bytes'] / memory.GIB:.2f}",
        "KV pool, tokens": pool.get("tokens") and f"{pool['tokens']:,}",
        "KiB a token": pool.get("bytes_per_token") and f"{pool['bytes_per_token'] / 1024:.1f}",
        "device peak, GiB": one.get("peak_device_bytes") and f"{one['peak_device_bytes'] / memory.GIB:.2f}",
        "most users": most and f"{most['fits']} fit, {most['fails'] or 'more not asked'} do not",
    }
    return {name: value for name, value in said.items() if value} | {
        f"peak at {row['users']}, GiB": f"{row['peak_bytes'] / memory.GIB:.2f}" for row in peak
    }


def prefix(*several: Mapping):
    """100 users with a common prefix and with prefixes of their own: tokens/s, TTFT and cached prompt tokens.

    ``several`` are records as for :func:`memory_use`.
    """
    import pandas as pd

    several = several or _both()
    found = [one for record in several for one in lives(record, "server", "prefix", "offline")]
    rows = [
        {
            "framework": label(one),
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
    shown.attrs["recorded"] = recorded(*several)
    return shown


def _prefix_offline(one: Mapping) -> dict[str, str]:
    """The common prefix through an engine's API, its cache off unless the option says so."""
    rows = [row for row in one["rows"] if row["kind"] == "prefix offline"]
    firsts = figure(row["ttft_s"] for row in rows)
    return {
        "framework": label(one),
        "prefix cache": "on" if one["option"] == "prefix cache" else "off",
        "prefix": "common",
        "output tokens/s": told(vars(figure(row["output_tokens"] / row["seconds"] for row in rows)), ".0f"),
        "TTFT, ms": told(firsts and vars(firsts), ".0f", 1000),
        "cached prompt tokens": "not told",
    }


def _cached(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{median(known):,.0f}" if known else "not told"


def changed(found: Mapping | None = None, plain: Mapping | None = None):
    """Each option beside the engine as it comes (of the speed record): output tokens/s and how many times as fast."""
    import pandas as pd

    found, plain = found or load("options"), plain or load("speed")
    before = {one["engine"]: rates(one) for one in lives(plain, "offline") if one["option"] == PLAIN}
    rows = {}
    for one in lives(found, "offline"):
        after = rates(one)
        rows[label(one)] = {users_told(users): told(value) for users, value in after.items()} | {
            f"x at {users}": f"{value['median'] / before[one['engine']][users]['median']:.2f}"
            for users, value in after.items()
            if before.get(one["engine"], {}).get(users)
        }
    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    shown.attrs["recorded"] = recorded(found)
    return shown


def shares(speed: Mapping | None = None, memory_record: Mapping | None = None):
    """The share of the roof that each engine's decoding reaches offline, at each number of users."""
    import pandas as pd

    from helpers import roofline

    speed, memory_record = speed or load("speed"), memory_record or load("memory")
    row = next(row for one in lives(memory_record, "roof") for row in one["rows"] if row["kind"] == "roof")
    roof = roofline.Roof(**{key: value for key, value in row.items() if key != "kind"})
    sheet = shapes.of(speed["provenance"]["shape"])
    rows = {}
    for one in lives(speed, "offline"):
        read = _read_bytes(one, sheet)
        work = roofline.Work(read, memory.kv_bytes_per_token(sheet.shape), sheet.parameters - sheet.looked_up)
        rows[label(one)] = {
            users_told(users): roofline.share_text(roofline.share(value["median"], roofline.decode_bound(work, roof, users, 192)))
            for users, value in rates(one).items()
        }
    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    shown.attrs["recorded"] = f"{recorded(speed)}; roof {roof.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"
    return shown


def _read_bytes(one: Mapping, sheet: shapes.Sheet) -> int:
    """The bytes of weights that a step reads: all but the input embedding."""
    dtype = {"q4_0": "q4_0", "f16": "float16"}.get(one["option"], "bfloat16")
    return memory.bytes_of(sheet.parameters - sheet.looked_up, "fp8" if one["option"].startswith("fp8") else dtype)


def failures(found: Mapping) -> list[str]:
    """One line for each life that failed or was cut off."""
    return [f"{key}: {line}" for key, one in found["lives"].items() for line in one["failed"]]


def text() -> str:
    """Every table that there are records for, as text."""
    parts = []
    for run, made in (("speed", (throughput, ttft)), ("memory", (memory_use, prefix)), ("options", (changed,))):
        for machine in machines(run):
            found = load(run, machine)
            sources = _both(machine) if run == "memory" else [found]
            parts += [f"## {run}: {recorded(found)}", *(f"{make.__name__}\n{make(*sources).to_string()}" for make in made)]
            parts += failures(found)
    if not parts:
        raise records.RecordError("no GPU record is here: make one with `nox -s gpu`")
    return "\n\n".join(parts)
