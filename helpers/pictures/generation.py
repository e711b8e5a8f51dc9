"""How a model generates: what may come next, what a pass costs, what a batch throws away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from helpers import plots


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
        axes.barh(rows, now, height=0.4, color=plots.COLOURS[0])
        for row, probability in enumerate(now):
            if not probability:
                axes.annotate("out", (0, row), xytext=(2, 0), textcoords="offset points", fontsize=6, va="center")
        axes.set_title(way, fontsize=8)
        axes.set_yticks(rows, [repr(token) for token in tokens], fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # the likeliest on top; the axis is shared
    for axes in panels[max(0, len(after) - columns) : len(after)]:  # the lowest of each column
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel("probability", fontsize=7)
    for axes in panels[len(after) :]:
        axes.set_visible(False)
    return plots.titled(figure, title, ("grey: the model's own probability; blue: what is drawn from", *notes))


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
            axes.errorbar(x, middle, yerr=spread, capsize=3, linewidth=1.5, **plots.told_apart(ways.index(way), way))
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    left.set(xlabel="tokens of the prompt", ylabel="prefill, s")
    right.set(xlabel="position in the sequence", ylabel="one decode step, ms")
    return plots.titled(figure, title, notes)


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
            axes.plot(stamps[:wanted], [row] * wanted, "|", color=plots.COLOURS[0], markersize=12)
            axes.plot(stamps[wanted:], [row] * (len(stamps) - wanted), "x", color="0.6", markersize=5)
        axes.set_yticks(range(len(requests)), [f"{name}: {one['wanted']} tokens" for name, one in requests.items()], fontsize=8)
        axes.set(xlim=(0, None), ylim=(-0.6, len(requests) - 0.4))
        axes.set_title(way, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[-1].set_xlabel("seconds since all were sent")
    return plots.titled(figure, title, ("blue: a token that was asked for; grey cross: computed and thrown away", *notes))
