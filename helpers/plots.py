"""Tables and figures of what was measured: one colour and marker per framework, labels at the lines."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
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
AT_ONCE = {"linewidth": 1.5}  # how a line of users at once looks, and one of requests that arrive at random
ARRIVING = {"linewidth": 1, "linestyle": "--", "markerfacecolor": "white"}
CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}  # a number that a line passes behind
LETTERS_PER_INCH = 13  # of a title; of the small print a fifth more
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
            "weights": frameworks.weights(name, gpu),
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

    below = [line for one in (*_gaps(levels, gpu), *notes) for line in textwrap.wrap(one, 70 * len(figures))]
    figure = Figure(figsize=(4.6 * len(figures), 3.6 + 0.14 * len(below)), layout="constrained")  # the panels keep their height
    for axes, name in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures):
        _panel(axes, levels, name, gpu)
    if below:
        figure.supxlabel("\n".join(below), fontsize=7)
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
    axes.yaxis.set_major_locator(decades())
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
                ends[frameworks.label(name, gpu)] = _path(axes, frameworks.get(name), list(run), len(ends) % 2 == 0)
    _logarithmic(axes, "{x:g}", room=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    _name(axes, ends)
    if below := [*_gaps(levels, gpu), *notes]:
        figure.supxlabel("\n".join(line for one in below for line in textwrap.wrap(one, 110)), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def _logarithmic(axes, form: str, room: float) -> tuple[float, float]:
    """Decades in ``form`` on both axes, and ``room`` of the width for names on the right; returns where x ended before."""
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(form)
        axis.set_major_locator(decades())
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** room)
    return left, right


def _path(axes, framework: Framework, run: Sequence[dict], above: bool) -> tuple[float, float]:
    """Draw one framework's levels, each with its number of users in its colour; returns where the path ends."""
    rates, firsts = ([level[name] for level in run] for name in ("output_tokens_per_s", "ttft_s"))
    x, y = ([figure["median"] for figure in figures] for figures in (rates, firsts))
    looks = {"color": framework.colour, "marker": framework.marker, "capsize": 2, "linewidth": 1.5, "elinewidth": 0.8}
    axes.errorbar(x, y, xerr=_spread(rates), yerr=_spread(firsts), **looks)
    for level, at in zip(run, zip(x, y)):
        _at_point(axes, str(level["users"]), at, framework, above)
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
    axes.xaxis.set_major_locator(decades())
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    if notes:
        figure.supxlabel("\n".join(line for note in notes for line in textwrap.wrap(note, 100)), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=9)
    return figure


def per_user(levels: Mapping[str, Sequence[Mapping]], title: str = "", notes: Sequence[str] = (), gpu: bool | None = None):
    """Draw tokens/s of each user after the first token over tokens/s of a GPU, a line for each engine.

    ``levels`` maps an engine's name to levels with ``users`` or, where requests arrive at random, ``rate_per_s``; and with
    ``output_tokens_per_s``, ``tpot_s`` and ``gpus``. Users at once are a line with filled marks, arrivals a dashed one with
    hollow marks. A number at a point is its load. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes, ends = figure.subplots(), {}
    axes.set(xlabel="output tokens/s per GPU", ylabel="tokens/s per user, after the first", xscale="log", yscale="log")
    for number, (name, measured) in enumerate(levels.items()):
        known = [level for level in measured if level["output_tokens_per_s"] and level["tpot_s"]]
        at_once, arriving = [one for one in known if one["users"]], [one for one in known if not one["users"]]
        if at_once:
            ends[frameworks.label(name, gpu)] = _shared_gpu(axes, frameworks.get(name), at_once, AT_ONCE, number % 2)
        if arriving:
            _shared_gpu(axes, frameworks.get(name), arriving, ARRIVING, number % 2)
    left, right = _logarithmic(axes, "{x:,g}", room=0.45)
    axes.set_xticks([tick for tick in axes.get_xticks() if left < tick < right])
    axes.spines[["top", "right"]].set_visible(False)
    _name(axes, ends)
    for name, looks in (("users at once", AT_ONCE), ("requests that arrive at random", ARRIVING)):
        axes.plot([], [], color="0.4", marker="o", label=name, **looks)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    below = [line for note in notes for line in textwrap.wrap(note, 115)]
    if below:
        figure.supxlabel("\n".join(below), fontsize=7)
    figure.suptitle("\n".join(textwrap.wrap(title, 95)), fontsize=9)
    return figure


def _shared_gpu(axes, framework: Framework, levels: Sequence[Mapping], looks: Mapping, above: bool) -> tuple[float, float]:
    """Draw one framework's ``levels``, each with its load beside it; returns where the line ends."""
    points = [(level["output_tokens_per_s"]["median"] / level["gpus"], 1 / level["tpot_s"]["median"]) for level in levels]
    axes.plot(*zip(*points), color=framework.colour, marker=framework.marker, **looks)
    for level, at in zip(levels, points):
        _at_point(axes, str(level["users"]) if level["users"] else f"{level['rate_per_s']:g}/s", at, framework, above)
    return points[-1]


def _at_point(axes, load: str, at: tuple[float, float], framework: Framework, above: bool) -> None:
    """Write the load of a point in its framework's colour, beside it and off its line."""
    where = {"xytext": (5, 4), "ha": "left"} if above else {"xytext": (-4, -4), "ha": "right", "va": "top"}
    axes.annotate(load, at, textcoords="offset points", fontsize=7, color=framework.colour, bbox=CLEAR, **where)


def _gaps(levels: Mapping[str, list[dict]], gpu: bool | None) -> list[str]:
    """A line for each level that has no figure: whose it is, and why."""
    return [
        f"{frameworks.label(name, gpu)}, {level['users']} users: {level['label'] or 'no figure'}"
        for name, measured in levels.items()
        for level in measured
        if not level["output_tokens_per_s"]
    ]


def decades():
    """Where a logarithmic axis has its numbers: 1, 2 and 5 of each decade."""
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
        where = " at its right end" if len(points) > 1 and highest <= 1 else ""
        said = f"{100 * (highest if highest > 1 else points[-1].share):.0f} % of the roof{where}"
        ends[f"{frameworks.label(name, gpu)}, {said}{': the roof is wrong' if highest > 1 else ''}"] = x[-1], y[-1]
    _name(axes, ends)
    users = sorted({point.users for point in drawn})
    counted = f"{' and '.join(map(str, users))} user{'s' if users != [1] else ''}"
    axes.set(xlabel=f"FLOP per byte read; {counted}", ylabel="FLOP/s")
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


def told_apart(number: int, name: str) -> dict[str, str]:
    """Colour, marker and label of what is no framework, the ``number``-th in its picture."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "label": name}


def titled(figure, title: str, notes: Sequence[str] = ()):
    """``figure`` with what is seen above it and, in small print below, what is to know; no line is wider than it."""
    width = int(LETTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(title, width)), fontsize=9)
    if notes:
        figure.supxlabel("\n".join(line for note in notes for line in textwrap.wrap(note, int(1.2 * width))), fontsize=7)
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
