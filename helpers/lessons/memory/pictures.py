"""Pictures of notebook 08: what a KV cache reserves, what a server holds, how both grow with tokens and users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from helpers import plots
from helpers.lessons.memory import allocation

GIB, MIB = 2**30, 2**20
STYLES = ("-", "--", "-.", ":")


def requests(tokens: Sequence[int], longest: int, page: int, common: int, title: str = "", notes: Sequence[str] = ()):
    """Draw what requests reserve in a rectangle, in pages and in shared pages: a panel for each, a row for each request.

    ``tokens`` are those that each request holds, ``longest`` those of the longest one possible. All begin with the same
    ``common`` tokens, whole pages of ``page``, which the third panel draws once. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 1.5 + 0.2 * len(tokens)), layout="constrained")
    rectangle, paged, shared = figure.subplots(1, 3, sharex=True, sharey=True)
    for row, held in enumerate(tokens):
        in_pages = allocation.pages(held, page) * page
        own = common if row else 0  # where its own pages begin: the first row draws the common ones
        _request(rectangle, row, 0, held, longest, longest)
        _request(paged, row, 0, held, in_pages, page)
        _request(shared, row, own, held, in_pages, page)
        shared.barh(row, own, height=0.8, fill=False, edgecolor="0.6", linestyle=":")
    for axes, name in ((rectangle, "a rectangle"), (paged, f"pages of {page}"), (shared, "shared pages")):
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="tokens", xlim=(0, 1.01 * longest), yticks=[])  # the longest box has a right edge too
        axes.spines[["top", "right", "left"]].set_visible(False)
    rectangle.set_ylabel("requests")
    rectangle.invert_yaxis()  # the first one on top; the axis is shared
    told = "a box: reserved at once; blue: tokens; white: empty; dotted: pages that are kept once, in the first row"
    return plots.titled(figure, title, (told, *notes))


def _request(axes, row: int, begin: int, held: int, end: int, page: int) -> None:
    """One row: its tokens from ``begin`` to ``held`` in blue, and boxes of ``page`` tokens up to ``end`` around them."""
    axes.barh(row, held - begin, left=begin, height=0.8, color=plots.COLOURS[0], alpha=0.6)
    for start in range(begin, end, page):
        axes.barh(row, page, left=start, height=0.8, fill=False, edgecolor="0.2", linewidth=0.8)


def held(servers: Mapping[str, Mapping[str, float]], title: str = "", notes: Sequence[str] = ()):
    """Draw the memory of each server in three parts, and a mark where the calculator's answer is.

    ``servers`` maps a name to ``weights``, ``pool``, ``rest`` and ``calculator``, all in bytes. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 1.4 + 0.4 * len(servers)), layout="constrained")
    axes, rows, begin = figure.subplots(), range(len(servers)), [0.0] * len(servers)
    for part, colour in zip(("weights", "pool", "rest"), (plots.COLOURS[0], plots.COLOURS[1], "0.8")):
        widths = [one[part] / MIB for one in servers.values()]
        axes.barh(rows, widths, left=begin, height=0.6, color=colour, label=part)
        begin = [start + width for start, width in zip(begin, widths)]
    answers = [one["calculator"] / MIB for one in servers.values()]
    axes.plot(answers, rows, "|", color="black", markersize=22, markeredgewidth=2, label="calculator")
    axes.set_yticks(rows, list(servers))
    axes.set(xlabel="MiB", xlim=(0, None))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def growth(kept: Mapping[str, Mapping[int, float]], title: str = "", notes: Sequence[str] = ()):
    """Draw the KV cache of one user over its tokens, both logarithmic.

    ``kept`` maps a name to bytes by tokens. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, by_tokens), style, colour in zip(kept.items(), cycle(STYLES), cycle(plots.COLOURS)):
        axes.plot(list(by_tokens), [size / MIB for size in by_tokens.values()], style, color=colour, label=name)
    axes.set(xlabel="tokens of one user", ylabel="KV cache and state, MiB")
    _logarithmic(axes)
    axes.legend(frameon=False, fontsize=8)
    return plots.titled(figure, title, notes)


def users(needed: Mapping[str, Mapping[int, float]], cards_gib: Sequence[int] = (), title: str = "", notes: Sequence[str] = ()):
    """Draw weights and KV cache over the number of users, both logarithmic, with a line across for each card.

    ``needed`` maps a model to bytes by users. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4), layout="constrained")
    axes = figure.subplots()
    for (name, by_users), style, colour in zip(needed.items(), cycle(STYLES), cycle(plots.COLOURS)):
        counts, gib = list(by_users), [size / GIB for size in by_users.values()]
        axes.plot(counts, gib, style, color=colour)
        axes.annotate(name, (counts[-1], gib[-1]), xytext=(5, -3), textcoords="offset points", fontsize=8, color=colour)
    for card in cards_gib:
        axes.axhline(card, color="0.6", linewidth=0.8)
        axes.annotate(f"a card of {card} GiB", (1, card), xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.4")
    axes.set(xlabel="users", ylabel="weights and KV cache, GiB")
    _logarithmic(axes)
    return plots.titled(figure, title, notes)


def _logarithmic(axes) -> None:
    """Both axes, with plain numbers at them, in an open frame."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.spines[["top", "right"]].set_visible(False)
