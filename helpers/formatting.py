"""Figures as text: a median with its spread, a table as Markdown."""

from __future__ import annotations

from collections.abc import Mapping


def told(value: Mapping | None, form: str = ".0f", scale: float = 1, none: str = "-") -> str:
    """A figure (``median``, ``low``, ``high``) with its spread, ``+0.1 (+0.0 to +0.3)``; ``none`` is "not defined", never 0.

    What was measured once (``repeats`` is 1) has no spread.
    """
    if not value:
        return none
    median, low, high = (f"{value[key] * scale:{form}}" for key in ("median", "low", "high"))
    return median if value.get("repeats") == 1 else f"{median} ({low} to {high})"


def show(frame):
    """``frame`` as a Markdown table for a notebook: text to the left, and links that can be followed."""
    from IPython.display import Markdown

    return Markdown(markdown(frame))


def users_told(count: int) -> str:
    """``1 user``, ``10 users``."""
    return f"{count} user" if count == 1 else f"{count} users"


def markdown(frame) -> str:
    """``frame`` as a Markdown table: its index in bold, to the left (of several levels, one after the other), and links."""
    lines = [f"| {' | '.join(['', *map(str, frame.columns)])} |", "|---" * (len(frame.columns) + 1) + "|"]
    lines += [f"| {' | '.join([_bold(index), *map(_escaped, row)])} |" for index, row in zip(frame.index, frame.to_numpy())]
    return "\n".join(lines)


def _bold(index: object) -> str:
    return f"**{', '.join(map(str, index)) if isinstance(index, tuple) else index}**"


def _escaped(text: object) -> str:
    return str(text).replace("|", "\\|").replace("*", "\\*")
