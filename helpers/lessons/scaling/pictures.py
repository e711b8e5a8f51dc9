"""Several copies, several GPUs: who answered and when, what a router finds in caches, how a model is cut, what a step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import plots

WAYS = {
    "TP": "TP: each matrix is cut",
    "PP": "PP: the layers are divided",
    "DP": "DP: each GPU has a copy",
    "EP": "EP: the experts are divided",
}
GPUS = 4  # in the picture of how a model is cut; as many layers


def answered(answers: Sequence[Mapping], began: float, second: float, title: str = "", notes: Sequence[str] = ()):
    """Draw each answer where it ended, as high as it took, a colour for each copy; a line where the second copy was there.

    ``answers`` have ``sent`` and ``ended``, seconds of the clock of ``began``, and ``copy``, or no ``copy`` if they failed;
    ``second`` is in seconds after ``began``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, copy in enumerate(dict.fromkeys(one["copy"] for one in answers if one.get("copy"))):
        points = [(one["ended"] - began, one["ended"] - one["sent"]) for one in answers if one.get("copy") == copy]
        axes.plot(*zip(*points), linestyle="none", markersize=5, **plots.told_apart(number, f"copy {number + 1}"))
    axes.axvline(second, color="0.4", linestyle="--", linewidth=1)
    axes.annotate("second copy ready", (second, 0), xytext=(-4, 4), textcoords="offset points", fontsize=8, ha="right")
    axes.set(xlabel="seconds since the users came", ylabel="an answer took, s", xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def dip(row: Mapping, title: str = "", notes: Sequence[str] = ()):
    """Draw output tokens/s over time, a line where a copy was killed, and a mark where a request failed.

    ``row`` has ``output_tokens`` of each step of ``every_s`` seconds, ``killed_s``, and ``requests`` with the columns
    ``ended_s`` and ``ok``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    every_s, tokens = row["every_s"], row["output_tokens"]
    edges = [every_s * step for step in range(len(tokens) + 1)]
    axes.stairs([count / every_s for count in tokens], edges, color=plots.COLOURS[0])
    axes.axvline(row["killed_s"], color="0.4", linestyle="--", linewidth=1)
    axes.annotate("a copy is killed", (row["killed_s"], 0), xytext=(4, 4), textcoords="offset points", fontsize=8)
    sent = row["requests"]
    if failed := [ended for ended, ok in zip(sent["ended_s"], sent["ok"], strict=True) if not ok]:
        how = plots.told_apart(1, f"requests that failed: {len(failed)}")
        axes.plot(failed, [0] * len(failed), linestyle="none", clip_on=False, markersize=5, **how)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.set(xlabel="seconds since the users came", ylabel="output tokens/s", xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    return plots.titled(figure, title, notes)


def routed(answers: Mapping[str, Sequence[Mapping]], title: str = "", notes: Sequence[str] = ()):
    """Draw TTFT request by request, a panel for each router: filled where the beginning came from a cache, hollow where not.

    ``answers`` maps a router to its answers, in order, each with ``cached`` and ``prompt`` tokens and ``ttft_s``; a beginning
    is found if more than half of the prompt was. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(answers), sharey=True, squeeze=False)[0]
    for axes, (router, given) in zip(panels, answers.items()):
        for number, (name, fill) in enumerate((("from a cache", "full"), ("computed", "none"))):
            points = [(i + 1, 1e3 * one["ttft_s"]) for i, one in enumerate(given) if found(one) == (fill == "full")]
            if points:
                how = plots.told_apart(number, f"{name}: {len(points)}")
                axes.plot(*zip(*points), linestyle="none", fillstyle=fill, markersize=6, **how)
        axes.set_xlabel("request")
        axes.set_title(router, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="center right")
    panels[0].set(ylabel="time to first token, ms", ylim=(0, None))  # once all panels, which share it, are drawn
    return plots.titled(figure, title, notes)


def found(answer: Mapping) -> bool:
    """Whether more than half of an answer's prompt came from a cache."""
    return answer["cached"] > answer["prompt"] / 2


def ways(sent: Mapping[str, str], title: str = "", notes: Sequence[str] = ()):
    """Draw a model of four layers, a row each, cut for four GPUs, a colour each: once for each of :data:`WAYS`.

    ``sent`` has for each way the line that stands below it: what is sent. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.3), layout="constrained")
    for axes, way in zip(figure.subplots(1, len(WAYS)), WAYS):
        for x, y, width, height, gpu in _boxes(way):
            axes.bar(x, height, width, y, align="edge", color=plots.COLOURS[gpu], alpha=0.6, edgecolor="white", linewidth=2)
        first = {gpu: (x + width / 2, y + height / 2) for x, y, width, height, gpu in reversed(_boxes(way))}
        for gpu, middle in first.items():
            axes.annotate(f"GPU {gpu + 1}", middle, fontsize=7, ha="center", va="center")
        _arrows(axes, way)
        axes.set(xlim=(-0.1, 4.1), ylim=(4.3, -0.3))
        axes.set_axis_off()
        axes.set_title(WAYS[way], fontsize=9)
        axes.annotate(sent[way], (0.5, -0.02), xycoords="axes fraction", fontsize=8, ha="center", va="top")
    return plots.titled(figure, title, notes)


def _boxes(way: str) -> list[tuple[float, float, float, float, int]]:
    """Left, top, width, height and GPU of each piece; a layer is a row, with its attention on the left in EP."""
    every = range(GPUS)
    if way == "TP":
        return [(gpu, layer, 1, 1, gpu) for layer in every for gpu in every]
    if way == "PP":
        return [(0, layer, GPUS, 1, layer) for layer in every]
    if way == "DP":
        return [(gpu + 0.08, layer, 0.84, 1, gpu) for layer in every for gpu in every]
    attention = [(gpu + 0.08, layer, 0.84, 0.4, gpu) for layer in every for gpu in every]
    return attention + [(gpu + k / 2, layer + 0.5, 0.5, 0.45, gpu) for layer in every for gpu in every for k in range(2)]


def _arrows(axes, way: str) -> None:
    """What is sent: in TP among all in each layer, in PP over each border, in EP to any expert and back."""
    how = {"arrowstyle": "<->" if way != "PP" else "->", "color": "black", "linewidth": 1}
    if way == "TP":
        ends = [((0.3, layer + 0.8), (3.7, layer + 0.8)) for layer in range(GPUS)]
    elif way == "PP":
        ends = [((2, layer + 0.75), (2, layer + 1.25)) for layer in range(GPUS - 1)]
    elif way == "EP":
        ends = [((0.5, layer + 0.2), (2.75, layer + 0.75)) for layer in range(GPUS)]
    else:
        ends = []
    for start, end in ends:
        axes.annotate("", end, start, arrowprops=how)


def steps(bounds: Mapping[str, Mapping[str, Sequence[float]]], gpus: Sequence[int], title: str = "", notes: Sequence[str] = ()):
    """Draw the bound of a step over the number of GPUs, a panel for each load and a line for each link.

    ``bounds`` maps a load to milliseconds by link, one for each number of ``gpus``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    for axes, (load, by_link) in zip(figure.subplots(1, len(bounds), squeeze=False)[0], bounds.items()):
        for number, (link, values) in enumerate(by_link.items()):
            axes.plot(gpus, values, **plots.told_apart(number, link))
        axes.set(xlabel="GPUs (TP)", xscale="log", yscale="log")
        axes.set_xticks(gpus, [str(count) for count in gpus])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(load, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("bound of a step, ms")
    figure.axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)
