"""The picture of notebook 15: its papers by year and topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from helpers import plots
from helpers.collection.references import Paper


def papers(found: Sequence[Paper], title: str = "", notes: Sequence[str] = ()):
    """Draw ``found`` as marks, a column for each year that has one and a band for each topic; returns a matplotlib figure.

    A filled mark has the number of the notebook that measures it behind its name; a hollow one is measured in none.
    """
    from matplotlib.figure import Figure

    years, topics = sorted({one.year for one in found}), list(dict.fromkeys(one.topic for one in found))
    heights = [max(Counter(one.year for one in found if one.topic == topic).values()) for topic in topics]
    starts, taken = dict(zip(topics, accumulate(heights, initial=0))), Counter()
    figure = Figure(figsize=(10, 1.2 + 0.3 * sum(heights)), layout="constrained")
    axes = figure.subplots()
    for one in found:
        _mark(axes, one, years.index(one.year), starts[one.topic] + taken[one.topic, one.year])
        taken[one.topic, one.year] += 1
    axes.hlines([start - 0.5 for start in list(starts.values())[1:]], -0.3, len(years) - 0.3, color="0.85", linewidth=0.8)
    axes.set_xticks(range(len(years)), years)
    axes.set_yticks([start + (height - 1) / 2 for start, height in zip(starts.values(), heights)], topics)
    axes.set(xlabel="year (those without a paper are left out)", xlim=(-0.3, len(years) - 0.3), ylim=(sum(heights) - 0.4, -0.6))
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return plots.titled(figure, title, notes)


def _mark(axes, paper: Paper, x: float, y: float) -> None:
    """One paper: its mark, its name, and the notebook where it is seen."""
    colour = plots.COLOURS[0]
    axes.plot(x, y, marker="o", color=colour, markerfacecolor=colour if paper.notebook else "white", linestyle="none")
    said = f"{paper.name} · {paper.notebook}" if paper.notebook else paper.name
    axes.annotate(said, (x, y), xytext=(7, 0), textcoords="offset points", fontsize=7.5, va="center")
