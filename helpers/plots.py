"""Figures with one colour and one marker per framework, labelled at the line, with alt text."""

from __future__ import annotations

import io
from collections.abc import Mapping

from helpers import engines

AXES = {
    "output_tokens_per_s": ("output tokens/s, all users", 1.0),
    "ttft_s": ("time to first token, s", 1.0),
    "tpot_s": ("time per output token, ms", 1000.0),
}


def by_users(levels: Mapping[str, list[dict]], figures=("output_tokens_per_s", "ttft_s"), title: str = ""):
    """Draw ``figures`` over the number of users, a line per engine with its spread.

    ``levels`` maps an engine's name to the ``levels`` of ``helpers.bench``'s JSON.
    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(figures), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures):
        label, scale = AXES[name]
        for engine_name, measured in levels.items():
            _line(axes, engines.get(engine_name), measured, name, scale)
        axes.set(xlabel="users at once", ylabel=label, xscale="log", yscale="log")
        users = sorted({level["users"] for measured in levels.values() for level in measured})
        axes.set_xticks(users, [str(n) for n in users])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(_decades())
        axes.set_xlim(users[0] / 1.3, users[-1] * 5)  # room for the labels
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def _decades():
    from matplotlib.ticker import LogLocator

    return LogLocator(base=10, subs=(1, 2, 5))


def _line(axes, engine: engines.Engine, measured: list[dict], name: str, scale: float) -> None:
    points = [(level["users"], level[name]) for level in measured if level[name]]
    if not points:
        return
    x = [users for users, _ in points]
    middle, low, high = ([figure[key] * scale for _, figure in points] for key in ("median", "low", "high"))
    spread = [[m - lo for m, lo in zip(middle, low)], [h - m for m, h in zip(middle, high)]]
    axes.errorbar(x, middle, yerr=spread, color=engine.colour, marker=engine.marker, capsize=3, linewidth=1.5)
    axes.annotate(
        engine.title, (x[-1], middle[-1]), xytext=(7, 0), textcoords="offset points", color="black", fontsize=8, va="center"
    )


def show(figure, alt: str) -> None:
    """Display ``figure`` here as a PNG whose alternative text is ``alt``."""
    from IPython.display import publish_display_data

    if len(alt) < 20:
        raise ValueError(f"alt text {alt!r} says too little: describe what the figure shows")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    publish_display_data({"image/png": png.getvalue(), "text/plain": alt}, {"image/png": {"alt": alt}})
