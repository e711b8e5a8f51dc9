"""The figures of a run as a CSV: a row per load, a column per figure, units in the names."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from helpers.bench.price import KINDS
from helpers.bench.timing import TIMES

PLAIN = (
    "users", "rate_per_s", "requests", "repeats", "requests_sent", "warmups", "errors", "tokens_per_event", "itl_basis",
    "events_per_s", "reasoning_tokens", "label",
)  # fmt: skip
SPREAD = ("median", "low", "high", "interval")
FIGURES = ("output_tokens_per_s", "goodput_requests_per_s")
COLUMNS = (
    *PLAIN,
    *(f"{name}_{part}" for name in FIGURES for part in SPREAD),
    *(f"{name}_{part}" for name in TIMES for part in (*SPREAD, "p50", "p90", "p99", "n")),
    *(f"cache_{name}_tokens" for name in ("expected_low", "expected_high", "reported")),
    *(f"price_per_million_{kind}" for kind in KINDS),
)


def as_csv(levels: Sequence[Mapping]) -> str:
    """The ``levels`` of the JSON as CSV (RFC 4180); what is not defined is empty, and never 0."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS)
    table.writeheader()
    table.writerows(map(row, levels))
    return written.getvalue()


def row(level: Mapping) -> dict:
    """One level, flat."""
    flat = {name: level.get(name) for name in PLAIN}
    for name in (*FIGURES, *TIMES):
        flat |= {f"{name}_{part}": value for part, value in (level.get(name) or {}).items()}
    for name in ("expected_low", "expected_high", "reported"):
        flat[f"cache_{name}_tokens"] = (level.get("prefix_cache") or {}).get(name)
    prices = (level.get("price") or {}).get("per_million_tokens", {})
    return flat | {f"price_per_million_{kind}": prices[kind]["median"] for kind in KINDS if kind in prices}
