"""Pictures of notebook 09: what a grammar leaves of the vocabulary, who keeps a constraint, and what it costs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from helpers import plots

KINDS = {  # a verdict on a request or an answer, as helpers.lessons.structured names them, to the colour of its cell
    "works": "#9ad9c4", "valid": "#9ad9c4", "refuses clearly": "#bcdcf2", "refused": "#bcdcf2",
    "ignores silently": "#f0a577", "violates": "#f0a577", "not JSON": "#f0a577",
}  # fmt: skip
OTHER = "#f2f2f2"  # nothing is known of what was asked for
MOST_LETTERS = 12  # of a token below its column


def allowed(steps: Sequence[Mapping], vocabulary: int, title: str = "", notes: Sequence[str] = ()):
    """Draw how many tokens a grammar allows at each step of an answer, a column each on a logarithmic axis.

    ``steps`` have ``token``, the text that was chosen, and ``allowed``, how many tokens were; ``vocabulary`` is how many there
    are. Where one alone was allowed the column is red. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    axes, rows = figure.subplots(), range(len(steps))
    counts = [step["allowed"] for step in steps]
    axes.bar(rows, counts, color=[plots.COLOURS[3] if count == 1 else plots.COLOURS[0] for count in counts])
    for row, count in zip(rows, counts):
        inside = count > vocabulary / 3  # above such a column the line of the whole vocabulary would cross its number
        where = {"xytext": (0, -3), "va": "top", "rotation": 90, "color": "white"} if inside else {"xytext": (0, 2)}
        axes.annotate(f"{count:,}", (row, count), textcoords="offset points", fontsize=6, ha="center", **where)
    axes.axhline(vocabulary, color="0.4", linestyle="--", linewidth=1)
    line = f"without a grammar: all {vocabulary:,}"
    axes.annotate(line, (0, vocabulary), xytext=(0, 4), textcoords="offset points", fontsize=8)
    axes.set(ylabel="tokens allowed", yscale="log", ylim=(0.6, 6 * vocabulary))
    axes.set_xticks(rows, [_token(step["token"]) for step in steps], rotation=90, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    told = "below: the token that was chosen" + ("; red: no other one was allowed" if 1 in counts else "")
    return plots.titled(figure, title, (told, *notes))


def _token(text: str) -> str:
    """A token as its column's label: what cannot be seen is written out, and no letter starts a formula."""
    shown = repr(text)[1:-1] if text.strip() else repr(text)
    return shown[:MOST_LETTERS].replace("$", r"\$")


def matrix(verdicts: Mapping[str, Mapping[str, str]], title: str = "", notes: Sequence[str] = ()):
    """Draw a table of words in colours: green what was kept, blue what was refused, red what was ignored.

    ``verdicts`` maps a column to its rows and the word of each; the rows are those of the first column. Returns a matplotlib
    figure. A word that is not in :data:`KINDS` is grey.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = list(verdicts)
    rows = list(verdicts[columns[0]]) if columns else []
    figure = Figure(figsize=(1.6 + 1.5 * len(columns), 1.3 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for x, column in enumerate(columns):
        for y, row in enumerate(rows):
            word = verdicts[column].get(row, "")
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor=KINDS.get(word, OTHER), edgecolor="white", linewidth=2))
            axes.text(x + 0.5, y + 0.5, word, fontsize=7, ha="center", va="center")
    axes.set(xlim=(0, max(len(columns), 1)), ylim=(max(len(rows), 1), 0))
    axes.set_xticks([x + 0.5 for x in range(len(columns))], [textwrap.fill(name, 16) for name in columns], fontsize=8)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return plots.titled(figure, title, notes)


def cost(ratios: Mapping[str, Mapping[str, float]], title: str = "", notes: Sequence[str] = ()):
    """Draw the time per token with a constraint over that without: a row for each engine, a mark for each place and day.

    ``ratios`` maps where and when it was measured to the engines' titles and their ratio. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    engines = list(dict.fromkeys(name for found in ratios.values() for name in found))
    figure = Figure(figsize=(8.6, 1.7 + 0.4 * len(engines)), layout="constrained")
    axes = figure.subplots()
    for number, (place, found) in enumerate(ratios.items()):
        looks = {"color": plots.COLOURS[number % len(plots.COLOURS)], "marker": plots.MARKERS[number % len(plots.MARKERS)]}
        axes.plot(list(found.values()), [engines.index(name) for name in found], linestyle="none", label=place, **looks)
    axes.axvline(1, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlabel="time per token with a constraint / without", ylim=(len(engines) - 0.5, -0.5))
    axes.set_yticks(range(len(engines)), engines, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return plots.titled(figure, title, notes)
