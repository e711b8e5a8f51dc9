"""What a KV cache holds: pages in use, and the tree of prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import plots


def pages(in_use: Sequence[int], computed: Mapping[str, Sequence[int]], title: str = "", notes: Sequence[str] = ()):
    """Draw the pages of a KV pool that are in use after each step, as the engine says, over what its requests should hold.

    ``in_use`` has a number for each step; ``computed`` maps a request to as many, its own pages. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes, steps, below = figure.subplots(), range(len(in_use)), [0] * len(in_use)
    for number, (name, own) in enumerate(computed.items()):
        above = [low + more for low, more in zip(below, own)]
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        axes.fill_between(steps, below, above, step="mid", color=colour, alpha=0.6, linewidth=0, label=name)
        below = above
    axes.step(steps, in_use, where="mid", color="black", linewidth=1.2, label="in use, says the engine")
    axes.set(xlabel="step of the engine", ylabel="pages", xlim=(0, len(in_use) - 1), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return plots.titled(figure, title, notes)


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
    axes.barh(range(len(own)), own, left=found, height=0.5, color=plots.COLOURS[1], label="computed")
    for one, row in zip(requests, rows.values()):
        if one["parent"] is not None:
            axes.plot([found[row]] * 2, [rows[one["parent"]], row], color="0.3", linewidth=1)
        again = times_found(requests, one["name"])
        said = f"{own[row]} computed" + (f", found again by {again}" if again else "")
        axes.annotate(said, (ends[row], row), xytext=(6, 0), textcoords="offset points", fontsize=8, va="center")
    axes.set_yticks(range(len(own)), list(rows))
    axes.invert_yaxis()
    axes.set(xlabel="tokens of the prompt", xlim=(0, 1.75 * max(ends)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2, bbox_to_anchor=(1, 1.12))
    return plots.titled(figure, title, notes)


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
