"""Figures side by side: every repeat, its median and interval, and factors between them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from statistics import median

from helpers import plots


def repeats(
    levels: Mapping[str, dict],
    name: str,
    differences: Sequence = (),
    floor: float | None = None,
    title: str = "",
    note: str = "",
):
    """Draw every repeat of each level with median and interval, and beside them the ratios with theirs and the noise floor.

    ``levels`` are as ``helpers.bench``'s JSON has them, ``name`` is a figure of :data:`plots.AXES`; ``differences`` and ``floor``
    are those of ``helpers.bench.stats``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    each, ratios = figure.subplots(1, 2)
    label, scale = plots.AXES[name]
    for place, level in enumerate(levels.values()):
        values = [value * scale for value in level["per_repeat"][name] if value is not None]
        x = [place + 0.09 * (number - len(values) / 2) for number in range(len(values))]
        each.plot(x, values, "o", color=plots.COLOURS[0], markersize=4, label="a repeat" if place == 0 else None)
        middle, low, high = (level[name][key] * scale for key in ("median", "low", "high"))
        said = plots.INTERVALS[level[name]["interval"]] if place == 0 else None
        how = {"color": plots.COLOURS[3], "fmt": "D", "capsize": 4, "label": said}
        each.errorbar(place + 0.36, middle, yerr=[[middle - low], [high - middle]], **how)
    each.set_xticks(range(len(levels)), list(levels))
    each.set(ylabel=label, xlim=(-0.5, len(levels) - 0.35))
    each.legend(frameon=False, fontsize=8)
    _ratios(ratios, differences, floor)
    for axes in (each, ratios):
        axes.spines[["top", "right"]].set_visible(False)
    plots.titled(figure, title, [note] if note else ())
    return figure


def _ratios(axes, differences: Sequence, floor: float | None) -> None:
    """A row per difference: its ratio, interval and verdict, over the noise floor in grey and the line of no difference."""
    if floor is not None:
        axes.axvspan(1 / (1 + floor), 1 + floor, color="0.9", label="noise floor")
    axes.axvline(1, color="0.4", linewidth=1)
    for row, one in enumerate(differences):
        spread = None if one.low is None else [[max(one.ratio - one.low, 0)], [max(one.high - one.ratio, 0)]]
        axes.errorbar(one.ratio, row, xerr=spread, color=plots.COLOURS[3], fmt="D", capsize=4)
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
        axes.errorbar(one["median"], row, xerr=spread, color=plots.COLOURS[0], fmt="o", capsize=4)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=label, ylim=(len(found) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    plots.titled(figure, title, [note] if note else ())
    return figure


def gaps(found: Mapping[str, Mapping[str, Mapping]], label: str, title: str = "", notes: Sequence[str] = ()):
    """Draw some figures of every name on a logarithmic axis, each median with lowest and highest: a row each, the first on top.

    ``found`` maps a name to figures by what they are (``median``, ``low``, ``high``); ``label`` says of what, with its unit.
    Those of a row stand on one line, told apart by colour and marker. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.6 + 0.32 * len(found)), layout="constrained")
    axes, names = figure.subplots(), list(dict.fromkeys(name for of in found.values() for name in of))
    for number, name in enumerate(names):
        rows = [(row, of[name]) for row, of in enumerate(found.values()) if name in of]
        middle = [one["median"] for _, one in rows]
        spread = [[one["median"] - one["low"] for _, one in rows], [one["high"] - one["median"] for _, one in rows]]
        axes.errorbar(
            middle, [row for row, _ in rows], xerr=spread, linestyle="none", capsize=3, **plots.told_apart(number, name)
        )
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=label, xscale="log", ylim=(len(found) - 0.5, -0.5))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(plots.decades())
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


PARTS = (*plots.COLOURS, "0.75")


def parts(found: Mapping[str, Mapping[str, float]], label: str, title: str = "", notes: Sequence[str] = ()):
    """Draw a bar of parts for every name, with its sum behind it: the first on top. Returns a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.5 + 0.32 * len(found)), layout="constrained")
    axes, names = figure.subplots(), list(dict.fromkeys(name for of in found.values() for name in of))
    ends = [0.0] * len(found)
    for number, name in enumerate(names):
        sizes = [of.get(name, 0) for of in found.values()]  # a part that a name lacks takes no room
        axes.barh(range(len(found)), sizes, left=ends, color=PARTS[number % len(PARTS)], label=name)
        ends = [end + size for end, size in zip(ends, sizes)]
    for row, end in enumerate(ends):
        axes.annotate(f"{end:.3g}", (end, row), xytext=(3, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=label, ylim=(len(found) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


TTFT = plots.AXES["ttft_s"][0]


def columns(seconds: Mapping[str, Sequence[float]], title: str = "", notes: Sequence[str] = (), ylabel: str = TTFT):
    """Draw repeated times as points, a column for each name of ``seconds``, with the median of each. Returns a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, taken) in enumerate(seconds.items()):
        how, middle = plots.told_apart(number, name), median(taken)
        axes.plot([number] * len(taken), taken, linestyle="none", alpha=0.6, **how)
        axes.hlines(middle, number - 0.2, number + 0.2, color=how["color"])
        axes.annotate(f"{middle:.3g}", (number + 0.24, middle), fontsize=8, va="center")
    axes.set_xticks(range(len(seconds)), list(seconds))
    axes.set(ylabel=ylabel, ylim=(0, None), xlim=(-0.5, len(seconds) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    return plots.titled(figure, title, notes)


DASHES = ("-", "--", ":", "-.")


def times(gains: Mapping[str, Mapping[str, float]], title: str = "", notes: Sequence[str] = (), ylabel: str = "times as fast"):
    """Draw how many times as fast each name of ``gains`` is, over the number of users, with the line of no change.

    ``gains`` maps a name to factors by the number of users (a number, or its text). What stands before the first comma of a name
    has one colour, what follows one marker and dash. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    users = sorted({int(count) for by_users in gains.values() for count in by_users})
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color="0.4", linewidth=1)
    axes.annotate("no change", (0, 1), fontsize=8, va="bottom")
    whose, which = (list(dict.fromkeys(name.partition(", ")[part] for name in gains)) for part in (0, 2))
    for name, by_users in gains.items():
        points = sorted((users.index(int(count)), factor) for count, factor in by_users.items())
        colour, look = (of.index(name.partition(", ")[part]) for part, of in ((0, whose), (2, which)))
        how = {"color": plots.COLOURS[colour % len(plots.COLOURS)], "linestyle": DASHES[look % len(DASHES)]}
        axes.plot(*zip(*points), linewidth=1.5, **plots.told_apart(look, name) | how)
    axes.set_xticks(range(len(users)), [str(count) for count in users])
    axes.set(xlabel="users at once", ylabel=ylabel, ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def speedups(found: Mapping[str, Mapping[str, object]], title: str = ""):
    """Draw how many times as fast several GPUs are, a mark for each load with its spread, under the ideal line of each.

    ``found`` maps a name to gains by load: each has ``median``, ``low``, ``high`` and ``gpus``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    loads = list(dict.fromkeys(load for gains in found.values() for load in gains))
    most = max(gain.gpus for gains in found.values() for gain in gains.values())
    width, end = max(6.6, 1.5 + 0.75 * len(loads)), len(loads) + 0.25  # beyond the last mark, the lines have their names
    figure = Figure(figsize=(width, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, gains) in enumerate(found.items()):
        x = [loads.index(load) + 0.16 * (number - (len(found) - 1) / 2) for load in gains]
        middle = [gain.median for gain in gains.values()]
        spread = [[g.median - g.low for g in gains.values()], [g.high - g.median for g in gains.values()]]
        axes.errorbar(x, middle, yerr=spread, linestyle="none", capsize=3, **plots.told_apart(number, name))
    for gpus in sorted({gain.gpus for gains in found.values() for gain in gains.values()}):
        axes.axhline(gpus, color="0.4", linestyle="--", linewidth=1)
        axes.annotate(f"ideal: {gpus} GPUs, x {gpus}", (end, gpus), fontsize=8, ha="right", va="bottom")
    axes.axhline(1, color="0.4", linewidth=1)
    axes.annotate("one GPU", (end, 1), fontsize=8, ha="right", va="bottom")
    axes.set_xticks(range(len(loads)), [load.replace(", ", "\n").replace(" of ", " of\n") for load in loads], fontsize=8)
    axes.set(ylim=(0, most * 1.15), xlim=(-0.6, end), ylabel="times the rate of one GPU")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle("\n".join(textwrap.wrap(title, int(11 * width))), fontsize=9)
    return figure


def parity(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], most: float = 0.25, title: str = ""):
    """Draw what was measured over what was computed, both logarithmic: a panel for each label, a mark for each pair.

    ``panels`` maps a label with its unit to pairs (computed, measured) by name. In the band what was computed is at most ``most``
    off. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 4.2), layout="constrained")
    for axes, (label, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        every = [value for several in found.values() for pair in several for value in pair]
        ends = [min(every) / 1.3, max(every) * 1.3]
        axes.plot(ends, ends, color="0.4", linewidth=1)
        axes.fill_between(ends, [end / (1 + most) for end in ends], [end / (1 - most) for end in ends], color="0.92")
        axes.annotate(f"grey: at most {100 * most:g} % off", (0.03, 0.94), xycoords="axes fraction", fontsize=8, color="0.3")
        for number, (name, several) in enumerate(found.items()):
            computed, measured = zip(*several)
            axes.plot(computed, measured, **{**plots.told_apart(number, name), "linestyle": "none"})
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel=f"{label}, computed", ylabel=f"{label}, measured")
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(plots.decades())
            axis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=9)
    return figure


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
        how = plots.told_apart(number, name)
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
