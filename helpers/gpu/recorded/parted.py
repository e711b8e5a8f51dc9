"""Prefill and decoding on a GPU each, against the same two GPUs together, as recorded: waits, gaps, and what was moved.

Replayed from the record of ``nox -s gpu -- scaling``; nothing is measured. Figures of a block are its own percentiles, so a
cell has the median of the blocks with the lowest and the highest. Every table has its source in ``attrs["recorded"]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from helpers.formatting import told
from helpers.gpu.recorded import blocks, read, scaled
from helpers.gpu.work.apart import APART, TOGETHER
from helpers.gpu.work.apart import FETCHED as TRANSFERS
from helpers.servers import engines

if TYPE_CHECKING:
    import pandas as pd

WORK, WAYS = "apart", (TOGETHER, APART)
SHOWN = {  # a column, the row's field and its percentile, and how it is written
    "TTFT p50, ms": ("ttft_s", "p50", ",.0f"), "TTFT p99, ms": ("ttft_s", "p99", ",.0f"),
    "TPOT p50, ms": ("tpot_s", "p50", ".2f"), "ITL p99, ms": ("itl_s", "p99", ".0f"), "ITL max, ms": ("itl_s", "max", ".0f"),
}  # fmt: skip
SECONDS, BYTES = "vllm:nixl_xfer_time_seconds_sum", "vllm:nixl_bytes_transferred_sum"
PIECES, POSTING = "vllm:nixl_num_descriptors_sum", "vllm:nixl_post_time_seconds_sum"
COUNTED = (PIECES, BYTES, SECONDS, POSTING)


def load(machine: str | None = None) -> dict:
    """The record of several GPUs, of it the lives of this work; :class:`~helpers.records.RecordError` if there is none."""
    found = scaled.load(machine)
    return {**found, "lives": {key: one for key, one in found["lives"].items() if one["work"] == WORK}}


def rows(found: Mapping, engine: str, kind: str, way: str) -> list[Mapping]:
    """The rows of one kind and way of an engine's lives."""
    lives = [one for one in read.lives(found, WORK) if one["engine"] == engine]
    return [row for one in lives for row in one["rows"] if (row["kind"], row.get("way")) == (kind, way)]


def beside_long_prompts(found: Mapping | None = None) -> pd.DataFrame:
    """Users at once beside a long prompt at intervals: a row for each engine and way, and the long prompts' own TTFT."""
    found, shown = found or load(), {}
    for engine, way in _ways(found):
        users = rows(found, engine, "users", way)
        long = [wait for row in rows(found, engine, "long prompts", way) for wait in row["ttft_s"]]
        if users:
            shown[engines.TITLES[engine], way] = {
                "blocks": len(users), **_waits(users),
                "tokens/s": told(blocks.span(row["output_tokens_per_s"] for row in users), ",.0f"),
                "long prompts' TTFT, ms": f"{1e3 * median(long):,.0f}" if long else "-",
            }  # fmt: skip
    return read.frame(shown, found, works=(WORK,))


def arrivals(found: Mapping | None = None) -> pd.DataFrame:
    """Requests that arrive at random: a row for each engine, rate and way; each rate once."""
    found, shown = found or load(), {}
    for engine, way in _ways(found):
        for row in rows(found, engine, "arrivals", way):
            prefilled = row.get("prefilled_s")
            shown[engines.TITLES[engine], f"{row['rate_per_s']:g}/s", way] = {
                **_waits([row]), "tokens/s": f"{row['output_tokens_per_s']:,.0f}",
                "until prefilled p50, ms": f"{1e3 * prefilled['p50']:,.0f}" if prefilled else "-",
            }  # fmt: skip
    ordered = sorted(shown, key=lambda name: (name[0], float(name[1][:-2]), WAYS.index(name[2])))
    return read.frame({name: shown[name] for name in ordered}, found, works=(WORK,))


def moved(found: Mapping | None = None) -> list[str]:
    """A line for each engine that counts its transfers, of all blocks apart; and whether greedy answers agreed."""
    found, lines = found or load(), []
    for engine, way in _ways(found):
        counted = [row["counted"] for row in rows(found, engine, "moved", way) if row["counted"].get(TRANSFERS)]
        if counted:
            number, pieces, size, taken_s = (sum(one[name] for one in counted) for name in (TRANSFERS, *COUNTED[:3]))
            each = f"{size / number / 2**20:,.0f} MiB in {pieces / number:,.0f} pieces and {1e3 * taken_s / number:,.0f} ms"
            link = f"the link alone takes {1e3 * size / number / scaled.link_bytes_per_s():.1f} ms"
            lines.append(f"{engines.TITLES[engine]}, {way}: {number:,.0f} transfers, {each} each in the mean; {link}")
    same = [row for one in read.lives(found, WORK) for row in one["rows"] if row["kind"] == "same answers"]
    return lines + [f"greedy answers the same both ways: {row['same']} of {row['requests']}" for row in same]


def _ways(found: Mapping) -> list[tuple[str, str]]:
    """Each engine that has a life, and each way."""
    names = dict.fromkeys(one["engine"] for one in read.lives(found, WORK))
    return [(engine, way) for engine in names for way in WAYS]


def _waits(several: Sequence[Mapping]) -> dict[str, str]:
    """The columns of :data:`SHOWN`, of one block without a range."""
    spans = {
        name: blocks.span((row[field] or {}).get(percentile) for row in several) for name, (field, percentile, _) in SHOWN.items()
    }
    return {name: told(spans[name], form, 1000) for name, (_, _, form) in SHOWN.items()}
