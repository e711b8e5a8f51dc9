"""Notebook 10's pictures: guesses in their steps, predicted and measured speed-ups, a batch, and GPU records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from helpers import frameworks, plots

LOOKS = {  # of a box: what became of one token of a step
    "guess, kept": {"color": plots.COLOURS[2]},
    "the target's own token": {"color": plots.COLOURS[0]},
    "guess, thrown away": {"facecolor": "white", "hatch": "xxxx"},
}
BARS = (plots.COLOURS[2], "0.7", "0.4", plots.COLOURS[0])


def steps(runs: Mapping[str, Sequence[Sequence[int]]], title: str = "", notes: Sequence[str] = ()):
    """Draw each step of the target as a column of boxes, one for a token: guesses kept, its own token, guesses thrown away.

    ``runs`` maps a name to the (drafted, accepted) tokens of every step. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 0.9 + 1.6 * len(runs)), layout="constrained")
    all_axes = figure.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, made) in zip(all_axes, runs.items()):
        for kind, look in LOOKS.items():
            at = [(x, y) for x, step in enumerate(made, 1) for y, box in enumerate(_boxes(*step)) if box == kind]
            x, y = zip(*at) if at else ((), ())
            edge = plots.COLOURS[3] if "hatch" in look else "white"
            axes.bar(x, [1] * len(x), bottom=y, width=0.9, edgecolor=edge, label=kind, **look)
        axes.set_title(f"{name}: {len(made)} steps", fontsize=9, loc="left")
        axes.set(ylabel="tokens of a step")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    all_axes[-1].set_xlabel("step of the target")
    return plots.titled(figure, title, notes)


def _boxes(drafted: int, accepted: int) -> list[str]:
    """What the boxes of one step are, from below, in the order of the text."""
    kept, own, lost = LOOKS
    return [kept] * accepted + [own] + [lost] * (drafted - accepted)


def gains(found: Mapping[str, Mapping], title: str = "", notes: Sequence[str] = ()):
    """Draw a measured speed-up with its repeats, and the predicted one, a row for each name.

    ``found`` maps a name to ``predicted``, a factor, and ``measured``, those of the repeats. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.2 + 0.45 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="0.6", linewidth=1)
    rows = list(range(len(found)))
    measured = [one["measured"] for one in found.values()]
    axes.hlines(rows, list(map(min, measured)), list(map(max, measured)), color=plots.COLOURS[0])
    axes.plot(list(map(median, measured)), rows, "o", color=plots.COLOURS[0], label="measured")
    expected = [one["predicted"] for one in found.values()]
    axes.plot(expected, rows, "D", markersize=9, markerfacecolor="none", color=plots.COLOURS[3], label="predicted")
    axes.set_yticks(rows, list(found), fontsize=8)
    axes.set(xlabel="times as fast as without drafts", xlim=(0, None), ylim=(len(found) - 0.5, -0.5))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def batches(found: Mapping[int, Mapping[str, float]], title: str = "", notes: Sequence[str] = ()):
    """Draw the factors of :func:`~helpers.lessons.speculation.batch.compared`, a group of bars for each number of users.

    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(found.values())))
    for number, (name, colour) in enumerate(zip(names, BARS)):
        x = [group + 0.2 * (number - 1.5) for group in range(len(found))]
        heights = [one[name] for one in found.values()]
        axes.bar_label(axes.bar(x, heights, width=0.18, color=colour, label=name), fmt="%.2g", fontsize=7)
    axes.axhline(1, color="black", linewidth=1)
    axes.annotate("as without\ndrafts", (len(found) - 0.45, 1), fontsize=7, va="center")
    axes.set_xticks(range(len(found)), [str(users) for users in found])
    axes.set(xlabel="requests at once", ylabel="factor", xlim=(-0.5, len(found)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def recorded(found: Mapping[str, Mapping[str, Mapping[str, Mapping]]], title: str = "", notes: Sequence[str] = ()):
    """Draw tokens/s with and without drafts, each with its spread: a panel for each number of users, a row for each name.

    ``found`` maps a panel to rows, and these to ways of drafting with ``median``, ``low``, ``high``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    figure = Figure(figsize=(9.2, 1.5 + 0.4 * len(names)), layout="constrained")
    all_axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (panel, rows) in zip(all_axes, found.items()):
        for number, way in enumerate(dict.fromkeys(way for ways in rows.values() for way in ways)):
            ys, rates = zip(*[(names.index(name) + 0.2 * number, ways[way]) for name, ways in rows.items() if way in ways])
            middle, low, high = ([rate[key] for rate in rates] for key in ("median", "low", "high"))
            spread = [[m - lo for m, lo in zip(middle, low)], [h - m for m, h in zip(middle, high)]]
            looks = {"color": plots.COLOURS[number], "marker": "os"[number % 2], "markersize": 5, "capsize": 2, "label": way}
            axes.errorbar(middle, ys, xerr=spread, linestyle="none", **looks)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="output tokens/s, all users", xlim=(0, None), ylim=(len(names) - 0.4, -0.4))
        axes.set_title(panel, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False, fontsize=8)
    return plots.titled(figure, title, notes)


def by_users(found: Mapping[str, Mapping[int, Mapping]], title: str = "", notes: Sequence[str] = ()):
    """Draw how many times the tokens/s are with drafts by number of users, measured on a GPU: a line for each engine.

    ``found`` maps an engine to numbers of users and their ``median``, ``low``, ``high``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.subplots()
    users = sorted({count for times in found.values() for count in times})
    for number, (name, times) in enumerate(found.items()):
        at = [users.index(count) + 0.08 * (number - 1) for count in sorted(times)]  # beside each other, not one on another
        middle, low, high = ([times[count][key] for count in sorted(times)] for key in ("median", "low", "high"))
        spread = [[m - lo for m, lo in zip(middle, low)], [h - m for m, h in zip(middle, high)]]
        looks = {"color": frameworks.get(name).colour, "marker": frameworks.get(name).marker, "capsize": 2, "markersize": 5}
        axes.errorbar(at, middle, yerr=spread, label=frameworks.label(name, gpu=True), **looks)
    axes.axhline(1, color="0.4", linestyle="--", linewidth=1)
    axes.set_xticks(range(len(users)), [str(count) for count in users])
    axes.set(xlabel="users at once", ylabel="tokens/s with drafts / without", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)
