"""Your client's error: what load clients said beside what the server did in the same requests, from every record of them.

What can be compared is one group: the same machine and the same load. In a group each client has a row for each record, the
newest first; the clients stand in the order of their newest error of the TTFT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from helpers import formatting
from helpers.bench import timing
from helpers.collection.site import levels, markup, sources

NONE = "Nothing is recorded yet: <code>nox -s peers</code> measures the clients that are installed."
VALUE, OFF = ",.2f", "+,.2f"
PERCENT = 99


@dataclass(frozen=True)
class Shown:
    """A figure of the page: its name, at length and in a table, the one that a run has for it, and two units: value, error."""

    title: str
    short: str
    of_run: str
    unit: str
    off_unit: str


FIGURES = {  # by the name of the error in a record
    "ttft_ms": Shown("Time to first token", "TTFT", "ttft_ms", "ms", "ms"),
    "output_tokens_per_s_percent": Shown("Output tokens/s", "Rate", "output_tokens_per_s", "tokens/s", "%"),
    "itl_p99_percent": Shown("ITL p99", "ITL p99", "itl_p99_ms", "ms", "%"),
}
HEADS = (
    "", "Day", "Version",
    *(
        f"{one.short} {what}, {unit}"
        for one in FIGURES.values()
        for what, unit in (("said", one.unit), ("was", one.unit), ("off by", one.off_unit))
    ),
    "Rounds", "In the record",
)  # fmt: skip


def html(found: Sequence[tuple[str, Mapping]]) -> str:
    """The part of the page that is made of the records ``found`` with their files; without one, the sentence that says so."""
    if not found:
        return f"<p>{NONE}</p>\n"
    data = {"groups": groups(found), "figures": {key: asdict(one) for key, one in FIGURES.items()}}
    tables = (_table(number, group) for number, group in enumerate(data["groups"]))
    return "\n".join([markup.script("clients", data), *tables]) + "\n"


def groups(found: Iterable[tuple[str, Mapping]]) -> list[dict]:
    """The rows of the records ``found``, newest first, by what can be compared; of a machine the most streams first."""
    made: dict[tuple, dict] = {}
    machines: list[str] = []
    for file, record in found:
        where = sources.where(record["provenance"]["machine"])
        machines += [where] if where not in machines else []
        for number, row in enumerate(record["summary"]):
            load = _load(record, row["streams"])
            group = made.setdefault((where, *load.values()), {"title": _title(where, load), "clients": {}})
            of_client = group["clients"].setdefault(row["client"], [])
            of_client.append(_row(record, row, load) | {"file": file, "at": levels.pointer(("summary", number))})
    ordered = sorted(made, key=lambda key: (machines.index(key[0]), -key[1]))
    return [{"title": made[key]["title"], "rows": _rows(made[key]["clients"])} for key in ordered]


def _load(record: Mapping, streams: int) -> dict:
    """What every client was asked to send; the server's gap stands with the load, in older records with the plan."""
    plan = record["provenance"]["plan"]
    load = next(one for one in plan["loads"] if one["streams"] == streams)
    return {
        "streams": streams,
        "requests": load["requests"],
        "tokens": load["tokens"],
        "gap_s": load.get("gap_s", plan.get("gap_s")),
    }


def _title(where: str, load: Mapping) -> str:
    streams = "1 stream" if load["streams"] == 1 else f"{load['streams']:,} streams"
    asked = f"{load['requests']:,} requests, {load['tokens']} tokens in and out"
    return f"{streams} · {where} · {asked}, one every {load['gap_s'] * 1000:g} ms"


def _rows(clients: Mapping[str, Sequence[dict]]) -> list[dict]:
    """Client by client in the order of their newest error of the TTFT, those without one last; of each the newest first."""

    def size(rows: Sequence[Mapping]) -> float:
        off = rows[0]["figures"]["ttft_ms"]["off"]
        return abs(off["median"]) if off else float("inf")

    return [row | {"newest": row is rows[0]} for rows in sorted(clients.values(), key=size) for row in rows]


def _row(record: Mapping, row: Mapping, load: Mapping) -> dict:
    source = record["provenance"]
    versions = source["versions"].get(row["client"], {})
    return {
        "name": row["client"], "client": title(record, row["client"]), "date": source["date"][:10],
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
        "rounds": row["rounds"], "failures": row["failures"], "itl": record["clients"][row["client"]]["itl"],
        "figures": {key: _figure(record, row, key) | {"why": _why(record, row, key, load)} for key in FIGURES},
    }  # fmt: skip


def title(record: Mapping, client: str) -> str:
    """What a record calls ``client``; where it says "the same", which client is meant, since the order is another one here."""
    titles = [told["title"] for told in record["clients"].values()]
    own = record["clients"][client]["title"]
    same, comma, rest = own.partition(", ")
    return f"{titles[titles.index(own) - 1]}{comma}{rest}" if same == "the same" else own


def _figure(record: Mapping, row: Mapping, key: str) -> dict:
    """Said and done: the median over the rounds that did not fail, with the spread; the error as the record has it."""
    good = [
        one for one in record["runs"] if (one["client"], one["streams"]) == (row["client"], row["streams"]) and not one["error"]
    ]

    def over_rounds(side: str) -> dict | None:
        found = timing.figure(one[side][FIGURES[key].of_run] for one in good)
        return found and asdict(found)

    made = {"said": over_rounds("says"), "was": over_rounds("truth"), "off": row[key]}
    return made | {"told": {what: formatting.told(made[what], OFF if what == "off" else VALUE) for what in made}}


def _why(record: Mapping, row: Mapping, key: str, load: Mapping) -> str | None:
    """Why a client has no error of a figure; ``None`` if it has one."""
    if row[key]:
        return None
    if not row["rounds"]:
        return f"failed in every round: {row['failures'][0]}"
    if key == "itl_p99_percent":
        least = timing.requests_for(PERCENT)
        if load["requests"] < least:
            return f"{load['requests']} requests are too few for a p{PERCENT}: it is compared from {least} on"
        return record["clients"][row["client"]]["itl"]
    return "it gives no such figure"


def _table(number: int, group: Mapping) -> str:
    rows = (markup.row(row["client"], _cells(row), markup.place(row["file"], row["at"])) for row in group["rows"])
    return markup.table(group["title"], HEADS, rows, f'data-group="{number}"')


def _cells(row: Mapping) -> list[str]:
    figures = [row["figures"][key]["told"][what] for key in FIGURES for what in ("said", "was", "off")]
    failed = f", {len(row['failures'])} failed: {row['failures'][0]}" if row["failures"] else ""
    return [row["date"], row["versions"], *figures, f"{row['rounds']}{failed}"]
