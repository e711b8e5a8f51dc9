"""The pictures of notebook 12: what users waited under each fault, a load as a server's page shows it, a pipeline's writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import plots

Taken = tuple[float, str | None]  # seconds, and who answered: remote, local, or None
Look = tuple[float, float | None, float | None]  # seconds, requests running, requests waiting

BY = {"remote": 0, "local": 1}  # who answered, to its colour and marker


def latencies(rounds: Mapping[str, Sequence[Taken]], timeout_s: float, title: str = "", notes: Sequence[str] = ()):
    """Draw how long each request took, a panel for each round: its colour says who answered, a cross that nobody did.

    ``rounds`` maps a name to its requests, in the order in which they were sent. The dashed line is the router's time-out
    for the remote. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows = -(-len(rounds) // 3)
    figure = Figure(figsize=(7.6, 0.9 + 1.7 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (name, taken) in zip(panels, rounds.items()):
        axes.axhline(timeout_s, color="0.5", linestyle="--", linewidth=1)
        for who, number in BY.items():
            at = [i for i, (_, by) in enumerate(taken, 1) if by == who]
            axes.plot(at, [taken[i - 1][0] for i in at], linestyle="none", label=who, **_looks(number))
        lost = [i for i, (_, by) in enumerate(taken, 1) if by not in BY]
        axes.plot(lost, [taken[i - 1][0] for i in lost], "x", color="black")
        axes.set_title(name, fontsize=9)
    for axes in panels[len(rounds) :]:  # what is left of the last row
        axes.axis("off")
    panels[0].set_ylim(0)  # of all, now that all is drawn
    panels[0].annotate("time-out", (1, timeout_s), xytext=(0, 2), textcoords="offset points", fontsize=7)
    panels[0].legend(frameon=False, fontsize=7, loc="center right", title="answered by", title_fontsize=7)
    figure.supylabel("seconds until the answer", fontsize=8)
    return plots.titled(figure, title, ["requests in the order in which they were sent", *notes])


def loads(looks: Mapping[str, Sequence[Look]], slots: int, title: str = "", notes: Sequence[str] = ()):
    """Draw what a server's page said while a load ran, a panel for each server: requests at work, and on top those that wait.

    ``looks`` maps a name to its looks; one without numbers is left out. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.8), layout="constrained")
    panels = figure.subplots(1, len(looks), sharey=True, squeeze=False)[0]
    for axes, (name, seen) in zip(panels, looks.items()):
        axes.axhline(slots, color="0.4", linestyle="--", linewidth=1)
        if told := [look for look in seen if None not in look]:
            _areas(axes, *zip(*told))
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("seconds")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="requests", ylim=(0, None))  # of all, now that all is drawn
    if panels[-1].get_legend_handles_labels()[0]:
        panels[-1].legend(frameon=False, fontsize=7, loc="upper right")
    return plots.titled(figure, title, [f"dashed: the {slots} slots; a black stroke is a look at the page", *notes])


def _areas(axes, seconds: Sequence[float], running: Sequence[float], waiting: Sequence[float]) -> None:
    """What waits stands on what is at work; a stroke for each look."""
    together = [work + wait for work, wait in zip(running, waiting)]
    axes.fill_between(seconds, running, step="post", color=plots.COLOURS[0], label="at work")
    axes.fill_between(seconds, running, together, step="post", color=plots.COLOURS[1], label="waiting")
    axes.plot(seconds, running, "|", color="black", markersize=4)


def writes(
    first: Sequence[str], second: Sequence[str], failed: Mapping[str, str] | None = None, title: str = "",
    notes: Sequence[str] = (),
):  # fmt: skip
    """Draw a pipeline's lines in their order, a row for each item and a mark for each stage; the black line is the kill.

    ``first`` and ``second`` are the lines of the run that was killed and of the run after it: stage and key each.
    ``failed`` maps the key of an item that was set aside to the stage that gave it up: its tries there are hollow.
    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    done = [line.split() for line in (*first, *second)]
    rows = sorted({key for _, key in done})
    figure = Figure(figsize=(7.6, 1.4 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for number, stage in enumerate(dict.fromkeys(stage for stage, _ in done)):
        for gave_up in (False, True):
            at = [(i, rows.index(key)) for i, (made, key) in enumerate(done, 1)
                  if made == stage and ((failed or {}).get(key) == stage) == gave_up]  # fmt: skip
            label, fill = ("_", "none") if gave_up else (stage, "full")
            axes.plot([x for x, _ in at], [y for _, y in at], linestyle="none", label=label, fillstyle=fill, **_looks(number))
    axes.axvline(len(first) + 0.5, color="black", linewidth=1.2)
    axes.annotate("killed", (len(first) + 0.5, -0.7), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set(xlabel="lines of the program, in their order", ylim=(len(rows) - 0.5, -1.2))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, ["hollow: tries at the stage that gave the item up", *notes])


def _looks(number: int) -> dict[str, object]:
    return {"color": plots.COLOURS[number], "marker": plots.MARKERS[number], "markersize": 4}
