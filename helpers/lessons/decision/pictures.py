"""What became of the document's claims, its gains beside measured ones, and what tokens cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers import frameworks, plots

VERDICTS = {  # colour-blind readers tell these apart, in grey as well
    "holds": "#009E73",
    "holds with conditions": "#9AD3BF",
    "outdated": "#F0C05A",
    "wrong": "#D55E00",
    "cannot be checked": "0.8",
}


def verdicts(parts: Mapping[str, Mapping[str, int]], title: str = "", notes: Sequence[str] = ()):
    """Draw a bar for each part of the document, divided by verdict, the first part on top. Returns a matplotlib figure.

    ``parts`` maps a part's name to the number of its claims by verdict, any of :data:`VERDICTS`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 0.6 + 0.32 * len(parts)), layout="constrained")
    axes, left = figure.subplots(), dict.fromkeys(parts, 0)
    for verdict, colour in VERDICTS.items():
        counts = [parts[part].get(verdict, 0) for part in parts]
        bars = axes.barh(list(parts), counts, left=list(left.values()), color=colour, label=verdict, edgecolor="white")
        axes.bar_label(bars, labels=[str(count or "") for count in counts], label_type="center", fontsize=7)
        left = {part: at + count for (part, at), count in zip(left.items(), counts)}
    axes.invert_yaxis()
    axes.set(xlabel="claims")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)


def gains(said: Mapping[str, Mapping[int, float]], measured: Mapping[str, Mapping[int, float]], title="", notes=()):
    """Draw how many times one user's tokens/s there are with more users: dashed as the document says, solid as measured.

    Both map a framework's name to factors by the number of users. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for name in said | measured:
        for of, line, fill, what in ((said, "--", "none", "the document"), (measured, "-", "full", "measured")):
            if name in of:
                looks = {**_looks(name, wide=fill == "full"), "linestyle": line, "fillstyle": fill}
                axes.plot(list(of[name]), list(of[name].values()), label=f"{frameworks.TITLES[name]}, {what}", **looks)
    users = sorted({count for of in (said, measured) for line in of.values() for count in line})
    axes.set(xlabel="users at once", ylabel="times the tokens/s of one user", xscale="log", yscale="log")
    _plain(axes, users)
    return plots.titled(figure, title, notes)


def prices(of: Mapping[str, Mapping[int, float]], title: str = "", notes: Sequence[str] = ()):
    """Draw the price of a million output tokens over the number of users, a line for each framework, both axes logarithmic.

    ``of`` maps a framework's name to prices by the number of users. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, by_users in of.items():
        axes.plot(list(by_users), list(by_users.values()), label=frameworks.TITLES[name], **_looks(name))
    axes.set(xlabel="users at once", ylabel="price of a million output tokens", xscale="log", yscale="log")
    _plain(axes, sorted({count for line in of.values() for count in line}))
    return plots.titled(figure, title, notes)


def _looks(name: str, wide: bool = True) -> dict:
    """How a framework's line looks; a measured one of vLLM is ``wide``, so that it is seen where SGLang's lies on it."""
    framework = frameworks.get(name)
    under = {"linewidth": 4, "markersize": 10} if wide and name == "vllm" else {}
    return {"color": framework.colour, "marker": framework.marker, **under}


def _plain(axes, users: Sequence[int]) -> None:
    """Ticks that can be read, and the names beside the lines."""
    axes.set_xticks(users, [str(count) for count in users])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
