"""Copies behind a router, as recorded: goodput beside TP and an engine's own DP, prompts that begin alike, and the killed copy.

Replayed from the record of ``nox -s gpu -- scaling``; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from helpers.bench import timing
from helpers.formatting import told
from helpers.gpu.cases import LLAMA, Life
from helpers.gpu.recorded import read, scaled
from helpers.lessons.scaling.parallelism import Layout

if TYPE_CHECKING:
    import pandas as pd

COPIES = Layout(dp=2)


def life(found: Mapping, engine: str = "vllm", shape: str = LLAMA, layout: Layout = COPIES) -> Mapping | None:
    """The life of copies behind a router; ``None`` if the record has none with rows."""
    one = found["lives"].get(Life(engine, "routed", "prefix cache", 0, shape=shape, layout=layout).key)
    return one if one and one["rows"] else None


def rows(one: Mapping, kind: str) -> list[Mapping]:
    """The rows of ``kind``, in the order they were measured."""
    return [row for row in one["rows"] if row["kind"] == kind]


def served(found: Mapping, engine: str = "vllm", layout: Layout = COPIES) -> dict[str, list[Mapping]]:
    """The rows of arrivals: of TP and the engine's own DP on as many GPUs, and of the copies behind a router.

    As :func:`helpers.pictures.comparisons.arrivals` takes them; what was not measured is missing.
    """
    size = layout.gpus
    known = {name: levels for name, levels in scaled.served(found, engine).items() if levels[0]["gpus"] == size}
    if one := life(found, engine, layout=layout):
        slots = read.asked(one, "slots")
        known[f"{layout.dp} copies, router"] = [{**row, "gpus": size, "slots": slots} for row in rows(one, "arrivals")]
    return {name: levels for name, levels in known.items() if levels}


def goodput(found: Mapping) -> pd.DataFrame:
    """Arrivals at rising rates, by way and rate: the share that kept the limits and what came of it."""
    import pandas as pd

    levels = [(way, row) for way, several in served(found).items() for row in several]
    told_by = [{"way": way, "requests/s": row["rate_per_s"], **scaled.arrived(row)} for way, row in levels]
    shown = pd.DataFrame(told_by).set_index(["way", "requests/s"])
    lives = {key: one for key, one in found["lives"].items() if one["work"] in ("server", "routed")}
    shown.attrs["recorded"] = read.recorded({**found, "lives": lives})
    return shown


def alike(found: Mapping) -> pd.DataFrame:
    """Prompts that begin alike, by policy: TTFT over the requests of all turns, tokens/s, and the share from a cache."""
    one, shown = life(found), {}
    for policy, turns in by_policy(one).items() if one else ():
        waits = [wait for row in turns for wait in row["ttft_each_s"]]
        rates = timing.figure(row["output_tokens_per_s"]["median"] for row in turns if row["output_tokens_per_s"])
        shown[policy] = {f"TTFT p{percent}, ms": _ms(timing.percentile(waits, percent)) for percent in (50, 99)} | {
            "output tokens/s": told(rates and vars(rates), ",.0f"),
            "from a cache": told(vars(timing.figure(map(cached_share, turns))), ".0%"),
            "answered by each": "; ".join(" and ".join(map(str, row["answered"])) for row in turns),
        }
    return read.frame(shown, {**found, "lives": {"": one} if one else {}})


def by_policy(one: Mapping) -> dict[str, list[Mapping]]:
    """The turns of each policy."""
    turns = rows(one, "shared")
    return {policy: [row for row in turns if row["policy"] == policy] for policy in dict.fromkeys(row["policy"] for row in turns)}


def cached_share(row: Mapping) -> float | None:
    """The part of a turn's prompt tokens that the servers had in their caches, by their own count; ``None``: not counted."""
    cached = row["cached_prompt_tokens"]
    return None if cached is None or not row["all_prompt_tokens"] else cached / row["all_prompt_tokens"]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:,.0f}"


def killed(found: Mapping) -> Mapping | None:
    """The row of the killed copy, as :func:`helpers.lessons.scaling.pictures.dip` takes it; ``None`` where there is none."""
    one = life(found)
    return next(iter(rows(one, "killed")), None) if one else None


def lost(found: Mapping) -> pd.DataFrame:
    """How many requests the killed copy cost, in one column, with what the router did about it."""
    row = killed(found)
    counts = {**row["what"], **{f"router: {name}": count for name, count in row["router"].items()}} if row else {}
    by_name = {name: {"requests": count} for name, count in counts.items()}
    return read.frame(by_name, {**found, "lives": {"": life(found)} if row else {}})
