"""Tables and figures of what was measured: one colour and marker per framework, labels at the lines."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
import struct
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from helpers import formatting, frameworks, kernels, paths
from helpers.frameworks import Framework

if TYPE_CHECKING:
    import pandas as pd

AXES = {
    "output_tokens_per_s": ("output tokens/s, all users", 1.0),
    "ttft_s": ("time to first token, s", 1.0),
    "tpot_s": ("time per output token, ms", 1000.0),
}
INTERVALS = {"min-max": "median, lowest to highest", "95%": "median, 95 % interval"}  # by helpers.bench.timing's names
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")  # for what is no framework: told apart by colour-blind readers
MARKERS = "os^D"
DPI = 110
LABEL_GAP = 0.055  # of the axes' height, for a text of 8 points


def table(levels: Mapping[str, list[dict]], gpu: bool | None = None) -> pd.DataFrame:
    """A pandas table of ``levels`` (see :func:`by_users`): medians over repeats, with their spread.

    A level that is no measurement says why in a column of its own. ``gpu`` says where the levels were
    measured (``None``: on this machine).
    """
    import pandas as pd

    rows = [
        {
            "framework": frameworks.label(name, gpu),
            "weights": frameworks.get(name).dtype,
            "users": level["users"],
            "requests": f"{level['repeats']} x {level['requests']}",
            "output tokens/s": formatting.told(level["output_tokens_per_s"], none="none"),
            "TTFT, ms": formatting.told(level["ttft_s"], scale=1000, none="none"),
            "TPOT, ms": formatting.told(level["tpot_s"], scale=1000, none="none"),
            "note": level["label"] or "",
        }
        for name, measured in levels.items()
        for level in measured
    ]
    shown = pd.DataFrame(rows).set_index(["framework", "weights", "users"])
    return shown if any(shown["note"]) else shown.drop(columns="note")


def by_users(
    levels: Mapping[str, list[dict]],
    figures: Sequence[str] = ("output_tokens_per_s", "ttft_s"),
    title: str = "",
    notes: Sequence[str] = (),
    gpu: bool | None = None,
):
    """Draw ``figures`` over the number of users, a line per engine with its spread.

    ``levels`` maps an engine's name to the ``levels`` of ``helpers.bench``'s JSON. A level without a
    figure breaks its engine's line, and the reason stands below, as do ``notes``. ``gpu`` says where the
    levels were measured (``None``: on this machine). Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(figures), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures):
        _panel(axes, levels, name, gpu)
    if below := [*_gaps(levels, gpu), *notes]:
        figure.supxlabel("\n".join(line for one in below for line in textwrap.wrap(one, 70 * len(figures))), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 50 * len(figures))), fontsize=9)
    return figure


def _panel(axes, levels: Mapping[str, list[dict]], name: str, gpu: bool | None) -> None:
    """One figure over the number of users, both axes logarithmic."""
    label, scale = AXES[name]
    ends = {}
    for engine_name, measured in levels.items():
        engine = frameworks.get(engine_name)
        for with_figure, run in groupby(measured, key=lambda level: bool(level[name])):
            if with_figure:
                points = [(level["users"], level[name]) for level in run]
                ends[frameworks.label(engine_name, gpu)] = _line(axes, engine, points, scale)
    users = sorted({level["users"] for measured in levels.values() for level in measured})
    axes.set(xlabel="users at once", ylabel=label, xscale="log", yscale="log")
    axes.set_xticks(users, [str(n) for n in users])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(_decades())
    axes.set_xlim(users[0] / 1.3, users[-1] * (users[-1] / users[0]) ** 0.5 * 1.3)  # room for the labels
    axes.spines[["top", "right"]].set_visible(False)
    _label(axes, ends, users[-1])


def trade(levels: Mapping[str, list[dict]], title: str = "", notes: Sequence[str] = (), gpu: bool | None = None):
    """Draw the time to the first token over tokens/s, a path for each engine from its fewest users to its most.

    Both with their spreads; a number at a point is its users. Arguments, and what stands below, as in :func:`by_users`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes, ends = figure.subplots(), {}
    axes.set(xlabel="output tokens/s, all users", ylabel=AXES["ttft_s"][0], xscale="log", yscale="log")
    for name, measured in levels.items():
        for with_figure, run in groupby(measured, key=lambda level: bool(level["output_tokens_per_s"] and level["ttft_s"])):
            if with_figure:
                ends[frameworks.label(name, gpu)] = _path(axes, frameworks.get(name), list(run))
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_major_locator(_decades())
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.7)  # room for the names
    axes.spines[["top", "right"]].set_visible(False)
    _name(axes, ends)
    if below := [*_gaps(levels, gpu), *notes]:
        figure.supxlabel("\n".join(line for one in below for line in textwrap.wrap(one, 110)), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def _path(axes, framework: Framework, run: Sequence[dict]) -> tuple[float, float]:
    """Draw one framework's levels, each with its number of users; returns where the path ends."""
    rates, firsts = ([level[name] for level in run] for name in ("output_tokens_per_s", "ttft_s"))
    x, y = ([figure["median"] for figure in figures] for figures in (rates, firsts))
    looks = {"color": framework.colour, "marker": framework.marker, "capsize": 2, "linewidth": 1.5, "elinewidth": 0.8}
    axes.errorbar(x, y, xerr=_spread(rates), yerr=_spread(firsts), **looks)
    for level, at in zip(run, zip(x, y)):
        axes.annotate(str(level["users"]), at, xytext=(5, 4), textcoords="offset points", fontsize=7)
    return x[-1], y[-1]


def _spread(figures: Sequence[Mapping], scale: float = 1) -> list[list[float]]:
    """How far ``low`` and ``high`` are from each median, as matplotlib's error bars want it."""
    below = [(figure["median"] - figure["low"]) * scale for figure in figures]
    return [below, [(figure["high"] - figure["median"]) * scale for figure in figures]]


def within(good: Mapping[str, Mapping[float, Mapping]], title: str = "", notes: Sequence[str] = ()):
    """Draw goodput over the limit that a first token must keep, a line for each engine with its spread.

    ``good`` maps an engine's name to requests/s (``median``, ``low``, ``high``) by the limit in seconds. Returns a matplotlib
    figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, by_limit in good.items():
        engine, limits = frameworks.get(name), list(by_limit)
        middle, low, high = ([by_limit[limit][key] for limit in limits] for key in ("median", "low", "high"))
        axes.plot(limits, middle, color=engine.colour, marker=engine.marker, markersize=4, label=frameworks.label(name))
        axes.fill_between(limits, low, high, color=engine.colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="the first token must come within, s", ylabel="requests/s that kept the limit", xscale="log", ylim=(0, None))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(_decades())
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    if notes:
        figure.supxlabel("\n".join(line for note in notes for line in textwrap.wrap(note, 100)), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def _gaps(levels: Mapping[str, list[dict]], gpu: bool | None) -> list[str]:
    """A line for each level that has no figure: whose it is, and why."""
    return [
        f"{frameworks.label(name, gpu)}, {level['users']} users: {level['label'] or 'no figure'}"
        for name, measured in levels.items()
        for level in measured
        if not level["output_tokens_per_s"]
    ]


def _decades():
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1, 2, 5))


def _line(axes, framework: Framework, points: list[tuple[int, dict]], scale: float) -> float:
    """Draw one framework's line with its spread; returns its last value."""
    x, figures = zip(*points)
    middle = [figure["median"] * scale for figure in figures]
    looks = {"color": framework.colour, "marker": framework.marker, "capsize": 3, "linewidth": 1.5}
    axes.errorbar(x, middle, yerr=_spread(figures, scale), **looks)
    return middle[-1]


def _label(axes, ends: Mapping[str, float], last_x: float) -> None:
    """Write each line's name at its end; names that would overlap are pushed apart."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    heights = {title: (math.log(value) - low) / (high - low) for title, value in ends.items()}
    ordered = sorted(heights, key=heights.get)
    for title, height in zip(ordered, apart([heights[title] for title in ordered], LABEL_GAP)):
        axes.annotate(
            title, (last_x, ends[title]), xytext=(last_x * 1.12, height), textcoords=axes.get_xaxis_transform(),
            fontsize=8, va="center",
        )  # fmt: skip


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising ``heights`` moved as little as needed to stand at least ``gap`` apart, in groups.

    Pool-adjacent-violators: each group of too close heights is centred on its mean.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _span(groups[-2], gap)[1] + gap > _span(groups[-1], gap)[0]:
            last = groups.pop()
            groups[-1] += last
    return [_span(group, gap)[0] + i * gap for group in groups for i in range(len(group))]


def _span(group: Sequence[float], gap: float) -> tuple[float, float]:
    middle, half = sum(group) / len(group), (len(group) - 1) * gap / 2
    return middle - half, middle + half


def roofline(found: Sequence, roof, title: str = "", gpu: bool | None = None):
    """Draw the roof and, under it, the decode speed of each engine at one number of users or several.

    ``found`` and ``roof`` are those of ``helpers.lessons.memory.roofline``. Both axes are logarithmic; beside each
    name stands its share of the roof at its last point, or that a point is above the roof. ``gpu`` as in
    :func:`by_users`. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    drawn = [point for point in found if point.flops_per_s]
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    _roof(axes, roof, [point.intensity for point in drawn], [point.flops_per_s for point in drawn])
    ends = {}
    for name in dict.fromkeys(point.engine for point in drawn):
        engine, points = frameworks.get(name), [point for point in drawn if point.engine == name]
        x, y = [point.intensity for point in points], [point.flops_per_s for point in points]
        axes.plot(x, y, color=engine.colour, marker=engine.marker, linewidth=1)
        highest = max(point.share for point in points)
        said = f"{100 * (highest if highest > 1 else points[-1].share):.0f} % of the roof"
        ends[f"{frameworks.label(name, gpu)}, {said}{': the roof is wrong' if highest > 1 else ''}"] = x[-1], y[-1]
    _name(axes, ends)
    users = sorted({point.users for point in drawn})
    counted = f"{' and '.join(map(str, users))} user{'s' if users != [1] else ''}"
    axes.set(xlabel=f"FLOP per byte read; decode, {counted}", ylabel="FLOP/s")
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def _roof(axes, roof, x: Sequence[float], y: Sequence[float]) -> None:
    """The two lines that meet at the ridge, with their measured heights, and room for all points."""
    from matplotlib.ticker import EngFormatter

    left, right = min([*x, roof.ridge]) / 8, max([*x, roof.ridge]) * 25
    axes.plot([left, roof.ridge, right], [roof.attainable(at) for at in (left, roof.ridge, right)], color="black", linewidth=1.5)
    low = min([*y, roof.attainable(left)]) / 1.5
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, max([*y, roof.flops_per_s]) * 2.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(EngFormatter())
    for text, x_at in (
        (f"memory: {EngFormatter('B/s', places=0)(roof.bandwidth_bytes_per_s)}", roof.ridge / 2),
        (f"compute: {EngFormatter('FLOP/s', places=0)(roof.flops_per_s)}", right / 1.1),
    ):
        at = (x_at, roof.attainable(x_at))
        axes.annotate(text, at, xytext=(-6, 4), textcoords="offset points", fontsize=8, ha="right", va="bottom")


def _name(axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write names in one column to the right of all points, apart from each other, each tied to its point."""
    if not ends:
        return
    low, high = (math.log(limit) for limit in axes.get_ylim())
    column = max(x for x, _ in ends.values()) * 1.7
    ordered = sorted(ends, key=lambda name: ends[name][1])
    heights = [(math.log(ends[name][1]) - low) / (high - low) for name in ordered]
    for name, height in zip(ordered, apart(heights, LABEL_GAP)):
        axes.annotate(
            name, ends[name], xytext=(column, height), textcoords=axes.get_xaxis_transform(), fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 4},
        )  # fmt: skip


def _told_apart(number: int, name: str) -> dict[str, str]:
    """Colour, marker and label of what is no framework, the ``number``-th in its picture."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "label": name}


def speedups(found: Mapping[str, Mapping[str, object]], title: str = ""):
    """Draw how many times as fast several GPUs are, a mark for each load with its spread, under the ideal line of each.

    ``found`` maps a name to gains by load: each has ``median``, ``low``, ``high`` and ``gpus``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    loads = list(dict.fromkeys(load for gains in found.values() for load in gains))
    most = max(gain.gpus for gains in found.values() for gain in gains.values())
    figure = Figure(figsize=(1.0 + 0.75 * len(loads), 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, gains) in enumerate(found.items()):
        x = [loads.index(load) + 0.16 * (number - (len(found) - 1) / 2) for load in gains]
        middle = [gain.median for gain in gains.values()]
        spread = [[g.median - g.low for g in gains.values()], [g.high - g.median for g in gains.values()]]
        axes.errorbar(x, middle, yerr=spread, linestyle="none", capsize=3, **_told_apart(number, name))
    for gpus in sorted({gain.gpus for gains in found.values() for gain in gains.values()}):
        axes.axhline(gpus, color="0.4", linestyle="--", linewidth=1)
        axes.annotate(f"ideal: {gpus} GPUs, x {gpus}", (len(loads) - 0.5, gpus), fontsize=8, ha="right", va="bottom")
    axes.axhline(1, color="0.4", linewidth=1)
    axes.annotate("one GPU", (len(loads) - 0.5, 1), fontsize=8, ha="right", va="bottom")
    axes.set_xticks(range(len(loads)), [load.replace(", ", "\n").replace(" of ", " of\n") for load in loads], fontsize=8)
    axes.set(ylim=(0, most * 1.15), xlim=(-0.6, len(loads) - 0.4), ylabel="times the rate of one GPU")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def q4_0_block(stored: Sequence[int], original: Sequence[float]):
    """Draw a block of GGUF's type Q4_0: its 18 bytes, and below them the 32 weights that they hold over what these were before.

    ``stored`` are the bytes, a scale in f16 and then two levels in each; ``original`` are the 32 weights before they were
    rounded. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    (scale,) = struct.unpack("<e", bytes(stored[:2]))
    levels = [byte & 15 for byte in stored[2:]] + [byte >> 4 for byte in stored[2:]]
    held = [scale * (level - 8) for level in levels]
    figure = Figure(figsize=(7.4, 4.4), layout="constrained")
    boxes, values = figure.subplots(2, 1, height_ratios=(1, 4))
    _boxes(boxes, stored)
    for level in range(16):
        values.axhline(scale * (level - 8), color="0.85", linewidth=0.8, zorder=0)
    values.vlines(range(len(held)), original, held, color="0.6", linewidth=1)
    values.plot(original, "o", color="black", fillstyle="none", label="before")
    values.plot(held, **_told_apart(1, "in the block"), linestyle="none", markersize=4)
    values.set(xlabel="the 32 weights; grey lines: the 16 levels, scale x (0 to 15 - 8)", ylabel="weight")
    values.spines[["top", "right"]].set_visible(False)
    values.legend(frameon=False, fontsize=8)
    worst = max(abs(one - other) for one, other in zip(original, held))
    title = f"{len(stored)} bytes hold {len(held)} weights: levels {abs(scale):.3f} apart, the largest error is {worst:.3f}"
    return _said(figure, title, (), 100)


def _boxes(axes, stored: Sequence[int]) -> None:
    """The bytes of a Q4_0 block in a row, each with its value and the two levels in it."""
    for place, byte in enumerate(stored):
        axes.bar(place, 1, width=0.94, color=COLOURS[0 if place < 2 else 1], alpha=0.35)
        axes.annotate(str(byte), (place, 0.68), fontsize=8, ha="center", va="center")
        inside = f"{byte & 15} {byte >> 4}" if place > 1 else ""
        axes.annotate(inside, (place, 0.27), fontsize=7, ha="center", va="center")
    axes.annotate("scale, f16", (0.5, 0.27), fontsize=7, ha="center", va="center")
    axes.set_title("the bytes, and under each the levels of two weights, i and i + 16", fontsize=8, loc="left")
    axes.set_axis_off()


def gguf_types(found: Mapping[str, Mapping], notes: Sequence[str] = ()):
    """Draw decode speed and loss over the size of GGUF files, a mark for each type; ``notes`` stand below.

    ``found`` maps a type to ``mib``, the size of its tensors, ``tokens_per_s``, a list of repeats, and ``kl``, the KL
    divergence from the largest in nats per token (``None`` for that one). Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    speed, loss = figure.subplots(1, 2)
    llama_cpp = frameworks.get("llama-cpp")
    how = {"color": llama_cpp.colour, "marker": llama_cpp.marker, "linestyle": "none"}
    for name, one in found.items():
        rates, lost = one["tokens_per_s"], one["kl"] or 0
        spread = [[median(rates) - min(rates)], [max(rates) - median(rates)]]
        speed.errorbar(one["mib"], median(rates), yerr=spread, capsize=3, **how)
        loss.plot(one["mib"], lost, **how)
        for axes, y in ((speed, median(rates)), (loss, lost)):
            axes.annotate(name, (one["mib"], y), xytext=(7, 4), textcoords="offset points", fontsize=8)
    speed.set(ylabel="decode, tokens/s, one user", ylim=(0, None))
    loss.set(ylabel="KL divergence, nats per token")
    for axes in (speed, loss):
        axes.set(xlabel="MiB of weights")
        axes.margins(x=0.2, y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return _said(figure, _of_types(found), notes, 100)


def _of_types(found: Mapping[str, Mapping]) -> str:
    """What is to see of types: the smallest beside the largest, and which loses most."""
    small, large = (pick(found, key=lambda name: found[name]["mib"]) for pick in (min, max))
    fewer = found[large]["mib"] / found[small]["mib"]
    faster = median(found[small]["tokens_per_s"]) / median(found[large]["tokens_per_s"])
    worst = max(found, key=lambda name: found[name]["kl"] or 0)
    return f"{small}: {fewer:.1f} times fewer bytes than {large}, {faster:.1f} times its speed; most is lost in {worst}"


def slots(found: Mapping[str, Sequence[Sequence[float]]]):
    """Draw requests over time, a panel for each server: grey until the first token, then a dot for each event.

    ``found`` maps what a server is called to its requests, each a list of times in ms: when it was sent, then its events.
    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 1.0 + 0.22 * sum(map(len, found.values()))), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, requests) in zip(panels, found.items()):
        for row, (sent, *events) in enumerate(sorted(requests, key=lambda one: one[1], reverse=True)):
            axes.plot([sent, events[0]], [row, row], color="0.6")
            axes.plot(events, [row] * len(events), ".-", color=frameworks.get("llama-cpp").colour)
        axes.set_title(name, fontsize=8, loc="left")
        axes.set(yticks=[], ylabel="requests", ylim=(-1, len(requests)))
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("ms since the first request was sent")
    done = ", ".join(f"{max(times[-1] for times in of):,.0f} ms with {name}" for name, of in found.items())
    return _said(figure, f"{max(map(len, found.values()))} requests at once are done after {done}", (), 100)


def arrivals(found: Mapping[str, Sequence[Mapping]], title: str = ""):
    """Draw goodput over the rate at which requests arrive, and tokens/s per user over tokens/s per GPU, a line for each name.

    ``found`` maps a name to levels with ``rate_per_s``, ``goodput_requests_per_s``, ``output_tokens_per_s``, ``tpot_s`` and
    ``gpus``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 3.8), layout="constrained")
    good, each = figure.subplots(1, 2)
    most = max(level["rate_per_s"] for levels in found.values() for level in levels)
    good.plot([0, most], [0, most], color="0.4", linestyle="--", linewidth=1)
    good.annotate("all within the limits", (most, most), fontsize=8, ha="right", va="bottom", color="0.3")
    for number, (name, levels) in enumerate(found.items()):
        how = _told_apart(number, name)
        good.plot([v["rate_per_s"] for v in levels], [v["goodput_requests_per_s"]["median"] for v in levels], **how)
        per_gpu = [v["output_tokens_per_s"]["median"] / v["gpus"] for v in levels]
        each.plot(per_gpu, [1 / v["tpot_s"]["median"] for v in levels], **how)
    good.set(xlabel="requests that arrive per second", ylabel="requests/s within the limits", xlim=(0, None), ylim=(0, None))
    each.set(xlabel="output tokens/s per GPU", ylabel="tokens/s per user, after the first", xlim=(0, None), ylim=(0, None))
    for axes in (good, each):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle("\n".join(textwrap.wrap(title, 120)), fontsize=9)
    return figure


def pages(in_use: Sequence[int], computed: Mapping[str, Sequence[int]], title: str = "", notes: Sequence[str] = ()):
    """Draw the pages of a KV pool that are in use after each step, as the engine says, over what its requests should hold.

    ``in_use`` has a number for each step; ``computed`` maps a request to as many, its own pages. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes, steps, below = figure.subplots(), range(len(in_use)), [0] * len(in_use)
    for number, (name, own) in enumerate(computed.items()):
        above = [low + more for low, more in zip(below, own)]
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(steps, below, above, step="mid", color=colour, alpha=0.6, linewidth=0, label=name)
        below = above
    axes.step(steps, in_use, where="mid", color="black", linewidth=1.2, label="in use, says the engine")
    axes.set(xlabel="step of the engine", ylabel="pages", xlim=(0, len(in_use) - 1), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _said(figure, title, notes, 100)


def joined(
    requests: Mapping[str, Sequence[int]],
    running: Sequence[tuple[int, float]],
    title: str = "",
    notes: Sequence[str] = (),
):
    """Draw requests over time, grey until the first token and then a dot for each; below, how many the server says are running.

    ``requests`` maps a name to stamps in ns: when it was sent, then its tokens. ``running`` are stamps of the same clock, each
    with a number. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.0 + 0.3 * len(requests)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(len(requests), 2))
    start_ns = min(stamps[0] for stamps in requests.values())
    for row, stamps in enumerate(requests.values()):
        sent, *tokens = ((ns - start_ns) / 1e9 for ns in stamps)
        above.plot([sent, *tokens[:1]], [row] * len([sent, *tokens[:1]]), color="0.6")
        above.plot(tokens, [row] * len(tokens), ".", color=COLOURS[0], markersize=4)
    above.set_yticks(range(len(requests)), list(requests), fontsize=8)
    above.invert_yaxis()
    below.step([(ns - start_ns) / 1e9 for ns, _ in running], [number for _, number in running], where="post", color="black")
    below.set(xlabel="seconds since the first request was sent", ylabel="running", ylim=(0, None))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return _said(figure, title, notes, 100)


def prefix_tree(requests: Sequence[Mapping], title: str = "", notes: Sequence[str] = ()):
    """Draw what a prefix cache had of each prompt: a row for each, whose branch begins where the tree's tokens end.

    Each of ``requests``, in the order in which they were sent, has ``name``, ``tokens`` (of its prompt), ``cached`` (those of
    them that were found) and ``parent``: the name of the one it goes on from, or ``None``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.7 + 0.42 * len(requests)), layout="constrained")
    axes, rows = figure.subplots(), {one["name"]: row for row, one in enumerate(requests)}
    found, ends = ([one[key] for one in requests] for key in ("cached", "tokens"))
    own = [end - start for start, end in zip(found, ends)]
    axes.barh(range(len(own)), found, height=0.14, color="0.75", label="found in the tree")
    axes.barh(range(len(own)), own, left=found, height=0.5, color=COLOURS[1], label="computed")
    for one, row in zip(requests, rows.values()):
        if one["parent"] is not None:
            axes.plot([found[row]] * 2, [rows[one["parent"]], row], color="0.3", linewidth=1)
        said = f"{own[row]} computed; its branch was found {times_found(requests, one['name'])} times"
        axes.annotate(said, (ends[row], row), xytext=(6, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_yticks(range(len(own)), list(rows))
    axes.invert_yaxis()
    axes.set(xlabel="tokens of the prompt", xlim=(0, 1.75 * max(ends)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2, bbox_to_anchor=(1, 1.12))
    return _said(figure, title, notes, 100)


def times_found(requests: Sequence[Mapping], name: str) -> int:
    """How many of ``requests`` (see :func:`prefix_tree`) go on from ``name``, directly or not, and found all of its tokens."""
    parents = {one["name"]: one["parent"] for one in requests}
    (end,) = [one["tokens"] for one in requests if one["name"] == name]
    return sum(name in _above(one["name"], parents) and one["cached"] >= end for one in requests)


def _above(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """The names that ``name`` goes on from, the nearest first."""
    found = []
    while (name := parents[name]) is not None:
        found.append(name)
    return found


def columns(seconds: Mapping[str, Sequence[float]], title: str = "", notes: Sequence[str] = (), ylabel: str = AXES["ttft_s"][0]):
    """Draw repeated times as points, a column for each name of ``seconds``, with the median of each. Returns a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, taken) in enumerate(seconds.items()):
        how, middle = _told_apart(number, name), median(taken)
        axes.plot([number] * len(taken), taken, linestyle="none", alpha=0.6, **how)
        axes.hlines(middle, number - 0.2, number + 0.2, color=how["color"])
        axes.annotate(f"{middle:.3g}", (number + 0.24, middle), fontsize=8, va="center")
    axes.set_xticks(range(len(seconds)), list(seconds))
    axes.set(ylabel=ylabel, ylim=(0, None), xlim=(-0.5, len(seconds) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    return _said(figure, title, notes, 55)


def times(gains: Mapping[str, Mapping[str, float]], title: str = "", notes: Sequence[str] = (), ylabel: str = "times as fast"):
    """Draw how many times as fast each name of ``gains`` is, over the number of users, with the line of no change.

    ``gains`` maps a name to factors by the number of users (a number, or its text). Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    users = sorted({int(count) for by_users in gains.values() for count in by_users})
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color="0.4", linewidth=1)
    axes.annotate("no change", (0, 1), fontsize=8, va="bottom")
    for number, (name, by_users) in enumerate(gains.items()):
        points = sorted((users.index(int(count)), factor) for count, factor in by_users.items())
        dashes = "-" if number < len(COLOURS) else "--"  # the colours come again
        axes.plot(*zip(*points), linewidth=1.5, linestyle=dashes, **_told_apart(number, name))
    axes.set_xticks(range(len(users)), [str(count) for count in users])
    axes.set(xlabel="users at once", ylabel=ylabel, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return _said(figure, title, notes, 100)


def next_tokens(
    tokens: Sequence[str],
    before: Sequence[float],
    after: Mapping[str, Sequence[float]],
    title: str = "",
    notes: Sequence[str] = (),
):
    """Draw what ways of sampling make of the probabilities of the next token, a panel for each.

    ``before`` are the model's own, of ``tokens`` and in their order; ``after`` maps a way to its own, 0 where a token cannot be
    drawn. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    columns = math.ceil(len(after) / 2)
    figure = Figure(figsize=(2.4 * columns, 4.8), layout="constrained")
    panels = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False).ravel()
    rows = range(len(tokens))
    for axes, (way, now) in zip(panels, after.items()):
        axes.barh(rows, before, color="0.85")
        axes.barh(rows, now, height=0.4, color=COLOURS[0])
        for row, probability in enumerate(now):
            if not probability:
                axes.annotate("out", (0, row), xytext=(2, 0), textcoords="offset points", fontsize=6, va="center")
        axes.set_title(way, fontsize=8)
        axes.set_yticks(rows, [repr(token) for token in tokens], fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # the likeliest on top; the axis is shared
    for axes in panels[len(after) :]:
        axes.set_visible(False)
    return _said(figure, title, ("grey: the model's own probability; blue: what is drawn from", *notes), 110)


def passes(
    prefill_s: Mapping[str, Mapping[str, Mapping[str, float]]],
    step_s: Mapping[str, Mapping[str, Mapping[str, float]]],
    title: str = "",
    notes: Sequence[str] = (),
):
    """Draw the prefill over the tokens of the prompt, and one decode step over its position, a line with its spread for each way.

    Each way maps a number of tokens to ``median``, ``low`` and ``high``, in seconds. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = list(dict.fromkeys([*prefill_s, *step_s]))
    for axes, found, scale in ((left, prefill_s, 1), (right, step_s, 1000)):
        for way, by_tokens in found.items():
            x = [int(tokens) for tokens in by_tokens]
            middle, low, high = ([one[key] * scale for one in by_tokens.values()] for key in ("median", "low", "high"))
            spread = [[m - lo for m, lo in zip(middle, low)], [h - m for m, h in zip(middle, high)]]
            axes.errorbar(x, middle, yerr=spread, capsize=3, linewidth=1.5, **_told_apart(ways.index(way), way))
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    left.set(xlabel="tokens of the prompt", ylabel="prefill, s")
    right.set(xlabel="position in the sequence", ylabel="one decode step, ms")
    return _said(figure, title, notes, 110)


def batches(ways: Mapping[str, Mapping[str, Mapping]], title: str = "", notes: Sequence[str] = ()):
    """Draw when each token of each request was made, one row for each way of batching, on one axis of time.

    ``ways`` maps a way to requests: each has ``stamps_s``, seconds since all were sent, and ``wanted``, how many of these tokens
    were asked for; the rest is computed and thrown away. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 0.9 + 1.5 * len(ways)), layout="constrained")
    all_axes = figure.subplots(len(ways), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (way, requests) in zip(all_axes, ways.items()):
        for row, one in enumerate(requests.values()):
            stamps, wanted = one["stamps_s"], one["wanted"]
            axes.plot(stamps[:wanted], [row] * wanted, "|", color=COLOURS[0], markersize=12)
            axes.plot(stamps[wanted:], [row] * (len(stamps) - wanted), "x", color="0.6", markersize=5)
        axes.set_yticks(range(len(requests)), [f"{name}: {one['wanted']} tokens" for name, one in requests.items()], fontsize=8)
        axes.set(xlim=(0, None), ylim=(-0.6, len(requests) - 0.4))
        axes.set_title(way, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[-1].set_xlabel("seconds since all were sent")
    return _said(figure, title, ("blue: a token that was asked for; grey cross: computed and thrown away", *notes), 100)


def _said(figure, title: str, notes: Sequence[str], width: int):
    """``figure`` with its title above and, in small print below, what is to know; lines of ``width`` letters."""
    figure.suptitle("\n".join(textwrap.wrap(title, width)), fontsize=9)
    if notes:
        figure.supxlabel("\n".join(line for note in notes for line in textwrap.wrap(note, int(1.2 * width))), fontsize=7)
    return figure


def answer(sample, title: str = "", note: str = ""):
    """Draw one answer on a line of time: a dot for each event, with TTFT, the longest ITL and TPOT marked.

    ``sample`` is a ``helpers.bench.timing.Sample`` of two events and two tokens or more. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    ms = [(ns - sample.sent_ns) / 1e6 for ns in sample.event_ns]
    gap, end = max((after - before, after) for before, after in zip(ms, ms[1:]))
    span_ms, steps = ms[-1] - ms[0], sample.output_tokens - 1
    figure = Figure(figsize=(7.6, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, ms[0]], [0, 0], color="0.7", linewidth=5, solid_capstyle="butt")
    axes.plot([end - gap, end], [0, 0], color=COLOURS[3], linewidth=3, solid_capstyle="butt")
    axes.plot(ms, [0] * len(ms), ".", color=COLOURS[0], markersize=8)
    _distance(axes, 0, ms[0], f"TTFT {ms[0]:.0f} ms\nwait and prefill: the whole prompt at once", "left")
    tpot = f"TPOT = {span_ms:.0f} ms / {steps} = {span_ms / steps:.1f} ms"
    _distance(axes, ms[0], ms[-1], f"{tpot}\ndecode: one token after the other", "right")
    axes.annotate(
        f"longest ITL {gap:.1f} ms", (end - gap / 2, -0.15), xytext=(end - gap / 2, -1.1), fontsize=8, ha="center", va="top",
        color=COLOURS[3], arrowprops={"arrowstyle": "->", "color": COLOURS[3]},
    )  # fmt: skip
    axes.set(xlabel="ms since the request was sent", yticks=[], ylim=(-2, 2.6))
    axes.spines[["top", "right", "left"]].set_visible(False)
    _told(figure, title, note)
    return figure


def _distance(axes, begin: float, end: float, text: str, side: str) -> None:
    """An arrow with two heads above the line of time, with ``text`` above it that begins (or ends) where the arrow does."""
    axes.annotate("", (end, 0.7), xytext=(begin, 0.7), arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})
    axes.annotate(text, (begin if side == "left" else end, 0.9), fontsize=8, ha=side, va="bottom")


def _told(figure, title: str, note: str) -> None:
    """What is seen above the picture, and what it was measured with below it, in small print."""
    figure.suptitle("\n".join(textwrap.wrap(title, 100)), fontsize=10)
    if note:
        figure.supxlabel("\n".join(textwrap.wrap(note, 130)), fontsize=7)


def timeline(groups: Mapping[str, Sequence], title: str = "", note: str = ""):
    """Draw requests over time, a panel for each name: a row per request, grey until its first token, then a dot per event.

    ``groups`` maps a name to samples (``helpers.bench.timing.Sample``); one without events is left out. Every panel begins
    when its first request was sent, and all have the same scale. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows = [max(len(samples), 2) for samples in groups.values()]
    figure = Figure(figsize=(7.6, 1.1 + 0.17 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (name, samples) in zip(panels, groups.items()):
        start_ns = min(s.sent_ns for s in samples)
        for row, sample in enumerate(s for s in samples if s.event_ns):
            sent, *events = ((ns - start_ns) / 1e6 for ns in (sample.sent_ns, *sample.event_ns))
            axes.plot([sent, events[0]], [row, row], color="0.7", linewidth=2)
            axes.plot(events, [row] * len(events), ".-", color=COLOURS[0], linewidth=1, markersize=4)
        axes.set(yticks=[], ylim=(-1, len(samples)))
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[-1].set_xlabel("ms since the first request was sent; grey: no token yet, a dot: a piece of the answer")
    _told(figure, title, note)
    return figure


def repeats(
    levels: Mapping[str, dict],
    name: str,
    differences: Sequence = (),
    floor: float | None = None,
    title: str = "",
    note: str = "",
):
    """Draw every repeat of each level with median and interval, and beside them the ratios with theirs and the noise floor.

    ``levels`` are as ``helpers.bench``'s JSON has them, ``name`` is a figure of :data:`AXES`; ``differences`` and ``floor``
    are those of ``helpers.bench.stats``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    each, ratios = figure.subplots(1, 2)
    label, scale = AXES[name]
    for place, level in enumerate(levels.values()):
        values = [value * scale for value in level["per_repeat"][name] if value is not None]
        x = [place + 0.09 * (number - len(values) / 2) for number in range(len(values))]
        each.plot(x, values, "o", color=COLOURS[0], markersize=4, label="a repeat" if place == 0 else None)
        middle, low, high = (level[name][key] * scale for key in ("median", "low", "high"))
        how = {"color": COLOURS[3], "fmt": "D", "capsize": 4, "label": INTERVALS[level[name]["interval"]] if place == 0 else None}
        each.errorbar(place + 0.36, middle, yerr=[[middle - low], [high - middle]], **how)
    each.set_xticks(range(len(levels)), list(levels))
    each.set(ylabel=label, xlim=(-0.5, len(levels) - 0.35))
    each.legend(frameon=False, fontsize=8)
    _ratios(ratios, differences, floor)
    for axes in (each, ratios):
        axes.spines[["top", "right"]].set_visible(False)
    _told(figure, title, note)
    return figure


def _ratios(axes, differences: Sequence, floor: float | None) -> None:
    """A row per difference: its ratio, interval and verdict, over the noise floor in grey and the line of no difference."""
    if floor is not None:
        axes.axvspan(1 / (1 + floor), 1 + floor, color="0.9", label="noise floor")
    axes.axvline(1, color="0.4", linewidth=1)
    for row, one in enumerate(differences):
        spread = None if one.low is None else [[max(one.ratio - one.low, 0)], [max(one.high - one.ratio, 0)]]
        axes.errorbar(one.ratio, row, xerr=spread, color=COLOURS[3], fmt="D", capsize=4)
        verdict = {True: "real", False: "within the noise", None: "too few repeats"}[one.real]
        above = {"xytext": (0, 7), "textcoords": "offset points", "fontsize": 8, "ha": "center"}
        axes.annotate(f"{one.ratio:.2f}: {verdict}", (one.ratio, row), **above)
    axes.set_yticks(range(len(differences)), [f"{one.a} /\n{one.b}" for one in differences])
    axes.set(xlabel="ratio; 1: no difference", ylim=(-0.6, len(differences) - 0.3))
    if floor is not None:
        axes.legend(frameon=False, fontsize=8, loc="lower right")


def spreads(found: Mapping[str, Mapping], label: str, title: str = "", note: str = ""):
    """Draw one figure of every name, its median with lowest and highest: a row each, the first one on top.

    ``found`` maps a name to a dict with ``median``, ``low`` and ``high``; ``label`` says what it is. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.3 + 0.28 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.4", linewidth=1)
    for row, one in enumerate(found.values()):
        spread = [[one["median"] - one["low"]], [one["high"] - one["median"]]]
        axes.errorbar(one["median"], row, xerr=spread, color=COLOURS[0], fmt="o", capsize=4)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=label, ylim=(len(found) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    _told(figure, title, note)
    return figure


def save(figure, path: Path) -> None:
    """Write ``figure`` as a PNG to ``path``, whole or not at all, without the name of what drew it."""
    path.parent.mkdir(exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    paths.write(path, drawn.getvalue())


def show(figure, alt: str) -> None:
    """Display ``figure`` here as a PNG whose alternative text is ``alt``."""
    _publish(_png(figure), alt)


def drawn(picture: Callable, alt: str, **data) -> None:
    """Display the figure that ``picture`` draws of ``data``, also in an engine's kernel, where there is no matplotlib.

    There ``picture``, a function of a module of ours, is run in the lab's interpreter, and ``data`` goes as JSON: keys
    arrive as strings, tuples as lists. ``alt`` as in :func:`show`. ``MissingKernel`` where there is no lab either.
    """
    if find_spec("matplotlib"):
        show(picture(**data), alt)
        return
    png = kernels.ask("lab", "helpers.plots", picture.__module__, picture.__name__, given=json.dumps(data))
    _publish(base64.b64decode(png), alt)


def _png(figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def _publish(png: bytes, alt: str) -> None:
    from IPython.display import publish_display_data

    if len(alt) < 20:
        raise ValueError(f"alt text {alt!r} says too little: describe what the figure shows")
    publish_display_data({"image/png": png, "text/plain": alt}, {"image/png": {"alt": alt}})


if __name__ == "__main__":  # what drawn() starts
    module, name = sys.argv[1:]
    asked = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    print(json.dumps(base64.b64encode(_png(asked)).decode()))
