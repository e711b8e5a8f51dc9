"""Throughput against latency: every level of the newest records as a point of a curve, and as a row of a table.

What can be compared is one group: the same machine, weights, lengths and prompts. The page shows one group at a time; without
JavaScript it shows all tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import formatting, frameworks
from helpers.collection.site import markup, sources

LATENCIES = {"ttft_s": "Time to first token", "tpot_s": "Time per output token", "e2e_s": "Whole answer"}
DRAWN = ("output_tokens_per_s", *LATENCIES, "input_tokens", "output_tokens")  # requests of many lengths are no point of a curve
KEPT = ("at", "versions", "arguments", "repeats", "requests", "errors", "client_error", "no_measurement", "option", "weights")
HEADS = ("", "Load", "Output tokens/s, all users", *(f"{name}, s" for name in LATENCIES.values()), "Repeats", "In the record")
SHARED = {True: ", prompts with a common beginning", False: ", prompts with nothing in common", None: ""}
DASHES = ("", "7 4", "2 4", "10 3 2 3", "1 6")  # one engine's settings differ in their dashes


class NoCurves(ValueError):
    """No record has a level that can be drawn."""


def groups(results: Mapping) -> list[dict]:
    """The levels of ``results`` (``results.json``) that have throughput, latencies and one length, by what can be compared.

    A group has a title and curves; a curve has an engine, a label and points in the order of their load. :class:`NoCurves` if
    there is nothing to draw.
    """
    newest = {one["id"]: one for one in results["records"] if one["newest"]}
    found: dict[tuple, dict] = {}
    for level in results["levels"]:
        if level["record"] in newest and _is_point(level):
            record = newest[level["record"]]
            group = found.setdefault(_alike(level, record), {"title": _title(level, record), "curves": {}})
            curve = group["curves"].setdefault(level["label"], {"engine": level["engine"], "label": level["label"], "points": []})
            curve["points"].append(_point(level, record))
    if not found:
        raise NoCurves("no record has a level with throughput and latencies: make one with `nox -s record -- throughput`")
    return sorted(map(_ordered, found.values()), key=_points, reverse=True)


def _is_point(level: Mapping) -> bool:
    """Whether all that is drawn is known; one block of users among several of a life is no point, but a rate asked once is."""
    return all(level[key] for key in DRAWN) and (level["repeats"] > 1 or not level["users"])


def _points(group: Mapping) -> int:
    """How many points ``group`` has: the page opens with the most."""
    return sum(len(curve["points"]) for curve in group["curves"])


def _alike(level: Mapping, record: Mapping) -> tuple:
    asked = level["input_tokens"], level["output_tokens"], level["shared_prefix"], bool(level["users"])
    return record["machine"]["cpu"], *record["machine"]["gpus"], level["model"], *asked


def _title(level: Mapping, record: Mapping) -> str:
    lengths = f"{level['input_tokens']:,} tokens in, {level['output_tokens']:,} out"
    open_loop = "" if level["users"] else ", requests at random times"
    return f"{sources.where(record['machine'])} · {level['model']} · {lengths}{SHARED[level['shared_prefix']]}{open_loop}"


def _point(level: Mapping, record: Mapping) -> dict:
    load = formatting.users_told(level["users"]) if level["users"] else f"{level['rate_per_s']:g} requests/s"
    return {
        "load": load, "amount": level["users"] or level["rate_per_s"], "date": level["date"][:10], "file": record["file"],
        "machine": f"{', '.join(record['machine']['gpus']) or record['machine']['cpu']}, {record['machine']['cores']} cores",
        "output_tokens_per_s": level["output_tokens_per_s"], **{key: level[key] for key in LATENCIES},
        **{key: level[key] for key in KEPT},
    }  # fmt: skip


def _ordered(group: dict) -> dict:
    """The curves by engine, each with a colour of its engine and dashes of its own among them; points by load."""
    order = list(frameworks.FRAMEWORKS)
    curves = sorted(group["curves"].values(), key=lambda curve: order.index(curve["engine"]))
    for curve in curves:
        alike = [one["label"] for one in curves if one["engine"] == curve["engine"]]
        curve["colour"] = frameworks.get(curve["engine"]).colour
        curve["dashes"] = DASHES[alike.index(curve["label"]) % len(DASHES)]
        curve["points"].sort(key=lambda point: point["amount"])
    return {"title": group["title"], "curves": curves}


def html(found: Sequence[Mapping]) -> str:
    """The part of the page that is made: the data for its script, and a table for each group."""
    data = {"groups": found, "latencies": LATENCIES, "titles": frameworks.TITLES}
    tables = "\n".join(_table(number, group) for number, group in enumerate(found))
    return f'{markup.script("curves", data)}\n<div id="tables">\n{tables}\n</div>\n'


def _table(number: int, group: Mapping) -> str:
    rows = (_row(curve, point) for curve in group["curves"] for point in curve["points"])
    return markup.table(group["title"], HEADS, rows, f'data-group="{number}"')


def told(point: Mapping, key: str) -> str:
    """A figure of ``point`` with its spread, in four digits; what was measured once has none."""
    return formatting.told({**point[key], "repeats": point["repeats"]}, ".4g")


def _row(curve: Mapping, point: Mapping) -> str:
    cells = [point["load"], told(point, "output_tokens_per_s"), *(told(point, key) for key in LATENCIES), str(point["repeats"])]
    return markup.row(curve["label"], cells, markup.place(point["file"], point["at"]))
