"""Pictures of notebook 11: the levels of a format, a block in four bits, what a way costs and loses, who takes what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from helpers import frameworks, plots
from helpers.lessons.quantization import support
from helpers.lessons.quantization.support import FRAMEWORKS, METHODS, Support

ANSWERS = {  # colour and colour of the text of each kind of answer (``Support.text``)
    "ran here": ("#0072B2", "white"),
    "has it": ("#56B4E9", "black"),
    "not here": ("#F0E442", "black"),
    "cited": ("0.85", "black"),
    "no": ("white", "0.4"),
    "?": ("white", "0.4"),
}


def levels(grids: Mapping[str, Sequence[float]], shares: Sequence[float]):
    """Draw the levels of formats, each scaled to 1, under how often a weight lies there.

    ``grids`` maps a format to its levels; ``shares`` are weights divided by the largest size in their block, -1 to 1.
    Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.hist(shares, bins=60, color="0.75")
    above.set(yticks=[], ylabel="weights")
    for row, values in enumerate(grids.values()):
        largest = max(abs(value) for value in values)
        below.plot([value / largest for value in values], [row] * len(values), "|", color=plots.COLOURS[row], markersize=14)
    below.set_yticks(range(len(grids)), list(grids))
    below.set(xlabel="share of the largest weight in the block", ylim=(len(grids) - 0.5, -0.5))
    _open(above, below)
    small = sum(abs(share) <= 0.5 for share in shares) / len(shares)
    counted = ", ".join(f"{name} {_small(values)} of {len(values)}" for name, values in grids.items())
    return plots.titled(figure, f"{small:.0%} of the weights are at most half of their block's largest; levels there: {counted}")


def _small(values: Sequence[float]) -> int:
    """How many levels have at most half of the size of the largest."""
    largest = max(abs(value) for value in values)
    return sum(abs(value) <= largest / 2 for value in values)


def errors(found: Mapping[str, tuple[float, float]], of: str = "the weights' size", notes: Sequence[str] = ()):
    """Draw the error of each way to round, a row for each, with its number.

    ``found`` maps a way to its bits per weight and its error in per cent of ``of``. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 1.4 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    for row, (bits, lost) in enumerate(found.values()):
        axes.plot(lost, row, "o", color=plots.COLOURS[0 if bits > 6 else 1])
        said = f"{lost:.2f} %, {bits:.2f} bits"
        axes.annotate(said, (lost, row), xytext=(8, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=f"error, % of {of}", ylim=(len(found) - 0.5, -0.5), xlim=(0, _room(found)))
    _open(axes)
    least, most = (pick(found, key=lambda name: found[name][1]) for pick in (min, max))
    return plots.titled(figure, f"Least lost: {least} · most lost: {most}", notes)


def _room(found: Mapping[str, tuple[float, float]]) -> float:
    """The right end of an axis that leaves room for the text beside the last point."""
    return 1.4 * max(lost for _, lost in found.values())


def blocks(original: Sequence[float], held: Mapping[str, Mapping]):
    """Draw weights before and after each of several ways, over the levels that each group of them has.

    ``original`` are the weights; ``held`` maps a way to ``bytes`` (of all of them), ``values`` (as they are read back) and
    ``levels``: for each group of neighbours, all of one length, the levels it can take. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 1.2 + 2.1 * len(held)), layout="constrained")
    panels = figure.subplots(len(held), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, (axes, (name, one)) in enumerate(zip(panels, held.items())):
        wide = len(original) / len(one["levels"])
        for group, grid in enumerate(one["levels"]):
            axes.hlines(grid, group * wide - 0.5, (group + 1) * wide - 0.5, color="0.85", linewidth=0.8, zorder=0)
        axes.vlines(range(len(original)), original, one["values"], color="0.6", linewidth=1)
        axes.plot(original, "o", color="black", fillstyle="none", label="before")
        axes.plot(one["values"], "s", color=plots.COLOURS[number], markersize=4, label="read back")
        axes.set_title(f"{name}: {len(one['levels'])} scale{'s' * (len(one['levels']) > 1)}", fontsize=8, loc="left")
        axes.set_ylabel("weight")
    panels[-1].set_xlabel(f"the {len(original)} weights; grey lines: the levels there are")
    panels[0].legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    _open(*panels)
    told = ", ".join(f"{name} {one['bytes']} bytes and {_usual(original, one):.3f}" for name, one in held.items())
    return plots.titled(figure, f"{len(original)} weights, bytes and root mean square error: {told}")


def _usual(original: Sequence[float], one: Mapping) -> float:
    """The root mean square of what was lost."""
    return math.sqrt(sum((before - after) ** 2 for before, after in zip(original, one["values"])) / len(original))


def types(found: Mapping[str, Mapping], notes: Sequence[str] = ()):
    """Draw size, speed and loss of GGUF types side by side, a row for each type, the largest on top.

    ``found`` maps a type to ``mb``, ``tokens_per_s`` (``median``, ``low``, ``high``), ``kl`` and ``kl_se`` in nats per token
    (``None``: it is the reference). Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 1.3 + 0.28 * len(found)), layout="constrained")
    size, speed, loss = figure.subplots(1, 3, sharey=True)
    names = sorted(found, key=lambda name: -found[name]["mb"])
    how = {"color": frameworks.get("llama-cpp").colour, "fmt": frameworks.get("llama-cpp").marker, "capsize": 3}
    for row, name in enumerate(names):
        one, rate = found[name], found[name]["tokens_per_s"]
        size.barh(row, one["mb"], height=0.6, color="0.75")
        speed.errorbar(rate["median"], row, xerr=[[rate["median"] - rate["low"]], [rate["high"] - rate["median"]]], **how)
        if one["kl"] is not None:
            loss.errorbar(one["kl"], row, xerr=one["kl_se"], **how)
    size.set_yticks(range(len(names)), names)
    size.set(xlabel="MB of the file", ylim=(len(names) - 0.5, -0.5))
    speed.set(xlabel="decode, tokens/s, one user", xlim=(0, None))
    loss.set(xlabel="KL divergence, nats per token")
    _open(size, speed, loss)
    return plots.titled(figure, _of_types(found), notes)


def _of_types(found: Mapping[str, Mapping]) -> str:
    """Which type has the fewest bytes, which may be the fastest (their ranges meet), which loses most."""
    small = min(found, key=lambda name: found[name]["mb"])
    rate = {name: one["tokens_per_s"] for name, one in found.items()}
    fast = max(rate.values(), key=lambda one: one["median"])
    first = ", ".join(name for name, one in rate.items() if one["high"] >= fast["low"])
    worst = max(found, key=lambda name: found[name]["kl"] or 0)
    return f"Smallest: {small}; fastest, within the ranges: {first}; most is lost in {worst}"


def who(cells: Iterable[Support], document: Mapping[str, Sequence[str]]):
    """Draw who takes which weights, a coloured field for each framework and kind.

    An answer that is not that of ``document`` any more (see ``support.changed``) says what it was. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    cells, rows = list(cells), list(FRAMEWORKS)
    moved = support.changed(cells, document)
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for cell in cells:
        x, y = METHODS.index(cell.method), rows.index(cell.framework)
        ground, ink = ANSWERS[cell.text]
        axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=ground, edgecolor="0.8"))
        was = f"\n(was {support.said(document, cell.framework, cell.method)})" if cell in moved else ""
        axes.annotate(cell.text + was, (x, y), fontsize=8, ha="center", va="center", color=ink)
    axes.set_xticks(range(len(METHODS)), METHODS)
    axes.set_yticks(range(len(rows)), list(FRAMEWORKS.values()))
    axes.set(xlim=(-0.6, len(METHODS) - 0.4), ylim=(len(rows) - 0.4, -0.6))
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    ran = sum(cell.text == "ran here" for cell in cells)
    taken = sum(bool(cell.supported) for cell in cells)
    return plots.titled(figure, f"Of {len(cells)} pairs of framework and weights {taken} are taken; {ran} ran here")


def _open(*panels) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
