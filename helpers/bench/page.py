"""The report of a run as one page that opens without a network: no script, no foreign address, its pictures within it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from helpers.bench import charts, price, server_metrics, surroundings
from helpers.bench.charts import Bar, Point
from helpers.bench.timing import Level
from helpers.formatting import told

MOST_BARS = 60  # requests in the picture of one repeat
META = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: #fff; color: #1b1b1b; }
body, table, pre { font: 16px/1.5 Helvetica, Arial, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
svg text { font: 12px Helvetica, Arial, sans-serif; fill: #1b1b1b; }
figcaption { font-weight: bold; } figure { margin: 0 0 1rem; } figure > svg { max-width: 36rem; width: 100%; }
table { border-collapse: collapse; font-size: .9rem; } caption { text-align: left; }
th, td { border: 1px solid #b5b5b5; padding: .25rem .6rem; text-align: left; font-variant-numeric: tabular-nums; }
.legend { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 1rem; }
pre { font-family: monospace; font-size: .85rem; background: #f0f0ec; padding: .5rem .7rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
"""


def html(content: Mapping, levels: Sequence[Level], command: str) -> str:
    """The page of a run: ``content`` is its JSON, ``levels`` what that was made from, ``command`` what repeats it."""
    source = content["provenance"]
    title = f"{source['model']}, measured {source['date'][:10]}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _found(content.get("found")),
        _section("What was measured", _asked(content)),
        _section("The client's own error", _instrument(source["instrument"])),
        _section("Figures", _figures(content["levels"])),
        _section("The server's own metrics", _server_metrics(content["levels"])),
        _section("Energy", _energy(content["levels"])),
        _section("Prices", _prices(content["levels"])),
        _section("Curves", _curves(content["levels"])),
        _section("One repeat, request by request", _timeline(levels)),
        _section("Refusals and warnings", _warnings(content["levels"])),
        _section("Where it comes from", _provenance(source)),
        _section("How to repeat it", f"<pre>{escape(command)}</pre>"),
    ]
    head = f"{META}<title>{escape(title)}</title><style>{STYLE}</style>"
    body = "\n".join(filter(None, parts))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>" if body else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>{"".join(f"<td>{escape(str(cell))}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">{table}</div>'


def _load(level: Mapping) -> float:
    return level["users"] or level["rate_per_s"]


def _unit(levels: Sequence[Mapping]) -> str:
    return "users" if all(level["users"] for level in levels) else "requests per second"


def _found(found: Mapping | None) -> str:
    """What a search has found, first of all."""
    if not found:
        return ""
    limits = " and ".join(f"{name.removesuffix('_s')} at most {limit:g} s" for name, limit in found["limits"].items())
    kept = f"{found['keeps']:g} {found['unit']} keep" if found["keeps"] is not None else "No load was confirmed to keep"
    above = f"; {found['exceeds']:g} do not" if found["exceeds"] is not None else ""
    reason = f". {found['reason'].capitalize()}" if found["reason"] else ""
    said = f"{kept} {limits} for {found['share'] * 100:g} % of the requests{above}{reason}."
    return f"<p><strong>{escape(said)}</strong></p>"


def _asked(content: Mapping) -> str:
    source, plan = content["provenance"], content["provenance"]["plan"]
    said = {"endpoint": f"{source['base_url']} ({source['endpoint']})", "model": source["model"]}
    said |= {
        "tokens counted by": content["token_source"],
        "seed": plan["seed"],
        "hash of the workload": source["workload_sha256"],
    }
    asked = plan["source"] or {name: plan[name] for name in ("input_tokens", "output_tokens")}
    rows = [(name.replace("_", " "), value) for name, value in (said | dict(asked)).items() if value is not None]
    return _table(("what", "value"), rows, "The endpoint and what was sent to it")


def _instrument(instrument: Mapping) -> str:
    """How far the client was off on this machine, before or after the run; without a self-test nobody knows."""
    if not instrument:
        return "<p>Not measured: the run was asked to leave its self-test out.</p>"
    rows = [
        (
            users, f"{test['ttft_error_s'] * 1e3:+.2f} ms", f"{test['rate_error'] * 100:+.2f} %",
            f"{test['itl_p99_error'] * 100:+.1f} %", f"{test['ceiling_events_per_s']:,.0f}",
        )
        for users, test in instrument.items()
    ]  # fmt: skip
    head = ("streams", "TTFT", "tokens/s", "ITL p99", "events/s it keeps up with")
    return _table(head, rows, "Against a server that knows what it did, on the same machine")


def _figures(levels: Sequence[Mapping]) -> str:
    rows = [
        (
            f"{_load(level):g}", level["requests_sent"], level["errors"],
            told(level["output_tokens_per_s"], ".1f"), told(level["ttft_s"], ".3f"), told(level["tpot_s"], ".4f"),
            told(level.get("goodput_requests_per_s"), ".2f"),
        )
        for level in levels
    ]  # fmt: skip
    head = (_unit(levels), "requests", "errors", "output tokens/s", "TTFT, s", "TPOT, s", "goodput, requests/s")
    return _table(head, rows, "Median over the repeats, with lowest and highest or a 95 % interval")


def _curves(levels: Sequence[Mapping]) -> str:
    unit, measured = _unit(levels), [level for level in levels if level["output_tokens_per_s"]]
    if not measured:
        return "<p>No level has a figure.</p>"
    rate = [_point(level, level["output_tokens_per_s"]) for level in measured]
    drawn = {"Throughput": charts.lines("Throughput", {"output tokens/s": rate}, unit, "output tokens/s")}
    for name, title in (("ttft_s", "TTFT"), ("tpot_s", "TPOT")):
        drawn[title] = charts.lines(title, _percentiles(measured, name), unit, f"{title}, s")
    if unit == "users":
        drawn["What a user gets, and what the machine gives"] = _each_and_all(measured)
    return "".join(f"<figure><figcaption>{title}</figcaption>{picture}</figure>" for title, picture in drawn.items() if picture)


def _server_metrics(levels: Sequence[Mapping]) -> str:
    """What the server said of itself, beside the client's figure of the same time."""
    rows = [_server_row(level, level["server_metrics"]) for level in levels if level.get("server_metrics")]
    head = (
        _unit(levels), "TTFT, s: its mean", "the client's mean", "difference", "running", "waiting", "KV cache used",
        "tokens from its prefix cache",
    )  # fmt: skip
    return _table(head, rows, "From its /metrics page; gauges are the mean and the most of the looks at it") if rows else ""


def _server_row(level: Mapping, said: Mapping) -> tuple:
    ttft, hits = said["ttft_s"], said["prefix_hit_tokens"]
    times = (f"{ttft['server']:.4f}", f"{ttft['client']:.4f}", server_metrics.told_difference(ttft)) if ttft else ("-",) * 3
    gauges = (server_metrics.told_gauge(said, name) for name in server_metrics.GAUGES)
    return f"{_load(level):g}", *times, *gauges, "-" if hits is None else f"{hits:,}"


def _energy(levels: Sequence[Mapping]) -> str:
    """Of each device of the server's machine, where it could be read."""
    found = [(_load(level), device, of) for level in levels for device, of in (level.get("energy") or {}).items()]
    rows = [(f"{load:g}", device, told(of["joules_per_output_token"], ".3g"), of["scope"]) for load, device, of in found]
    head = (_unit(levels), "device", "J per output token", "of")
    return _table(head, rows, "Median over the repeats; a device is counted whole, whoever uses it") if rows else ""


def _prices(levels: Sequence[Mapping]) -> str:
    """Of a million tokens, where an hour of the machine has a price."""
    priced = [(_load(level), level["price"]["per_million_tokens"]) for level in levels if level.get("price")]
    rows = [(f"{load:g}", *(told(prices[kind], ".3g") for kind in price.KINDS)) for load, prices in priced]
    head = (_unit(levels), "all on the output", "input", "and output")
    return _table(head, rows, "Per million tokens; input and output split at the first token") if rows else ""


def _point(level: Mapping, figure: Mapping) -> Point:
    return Point(_load(level), figure["median"], figure["low"], figure["high"])


def _percentiles(levels: Sequence[Mapping], name: str) -> dict[str, list[Point]]:
    """Median with spread, and those percentiles that have enough requests behind them."""
    known = [level for level in levels if level[name]]
    series = {"median": [_point(level, level[name]) for level in known]}
    for percent in ("p90", "p99"):
        series[percent] = [Point(_load(level), level[name][percent]) for level in known if level[name][percent] is not None]
    return series


def _each_and_all(levels: Sequence[Mapping]) -> str:
    """What a user gets against what the machine gives: the choice that a load is."""
    points = [
        Point(level["output_tokens_per_s"]["median"], 1 / level["tpot_s"]["median"])
        for level in levels
        if level["tpot_s"] and level["tpot_s"]["median"]
    ]
    return charts.lines(
        "A user against the machine",
        {"tokens/s": sorted(points, key=lambda p: p.x)},
        "tokens/s of the machine",
        "tokens/s of a user",
    )


def _timeline(levels: Sequence[Level]) -> str:
    """The last repeat of the highest load that has one."""
    level = next((level for level in reversed(levels) if level.samples), None)
    if level is None:
        return ""
    done = sorted((s for s in level.blocks[-1] if s.error is None and s.event_ns), key=lambda s: s.sent_ns)[:MOST_BARS]
    if not done:
        return ""
    start = done[0].sent_ns
    bars = [Bar(*((ns - start) / 1e9 for ns in (s.sent_ns, s.event_ns[0], s.event_ns[-1]))) for s in done]
    load = f"{level.users} users" if level.users else f"{level.rate_per_s:g} requests per second"
    said = f"<p>The first {len(bars)} requests at {load}: pale until the first token, dark until the last.</p>"
    return f"{said}<figure>{charts.timeline(f'Requests at {load}', bars)}</figure>"


def _warnings(levels: Sequence[Mapping]) -> str:
    said: dict[str, None] = {}
    for level in levels:
        at, failures = f"at {_load(level):g}", level["failures"].items()
        cache = level["prefix_cache"]
        lines = [level["label"], *(f"{count} requests failed: {error}" for error, count in failures)]
        lines += [f"ITL is between {level['itl_basis']}" if level["itl_basis"].startswith("events") else None]
        lines += [f"not proven: {line}" for line in level["unproven"]] + surroundings.warnings(level["client_machine"])
        lines += [_cache_told(cache)] if cache else []
        said |= dict.fromkeys(f"{at}: {line}" for line in lines if line)
    if not said:
        return "<p>None.</p>"
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>"


def _cache_told(cache: Mapping) -> str:
    reported = "nothing" if cache["reported"] is None else f"{cache['reported']:,} tokens"
    expected = f"{cache['expected_low']:,} to {cache['expected_high']:,}"
    return f"prefix cache: {expected} of {cache['prompt_tokens']:,} prompt tokens expected, the server reports {reported}"


def _provenance(source: Mapping) -> str:
    shown = {name: value for name, value in source.items() if name not in ("plan", "instrument")}
    rows = [(name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)) for name, value in shown.items()]
    return (
        _table(("what", "value"), rows, "Machine, versions and settings")
        + f"<h3>Plan</h3><pre>{escape(json.dumps(source['plan']))}</pre>"
    )
