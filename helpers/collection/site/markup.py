"""What every made page has: its data for a script, and a table that a keyboard can scroll."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape


def script(name: str, data: object) -> str:
    """``data`` as JSON in an element with the id ``name``; nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def table(caption: str, heads: Sequence[str], rows: Iterable[str], mark: str = "") -> str:
    """A table with a column for each of ``heads``, the first one without a name where it is empty.

    ``rows`` are made by :func:`row`. ``mark`` is an attribute of the whole, by which a script finds it.
    """
    top = "".join(f'<th scope="col">{escape(head)}</th>' if head else "<td></td>" for head in heads)
    label, shown = escape(caption), f"{mark} " if mark else ""
    body = "\n".join(rows)
    return (
        f'<div class="levels" {shown}tabindex="0" role="region" aria-label="Table: {label}"><table><caption>{label}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def place(file: str, at: str) -> str:
    """The last cell of a row: the record's file, and a JSON pointer to what stands there."""
    return f"<td><code>{escape(file)}</code> <code>{escape(at)}</code></td>"


def row(name: str, cells: Iterable[str], last: str = "") -> str:
    """A row that ``name`` names; ``last`` is markup that stands behind the cells, which are text."""
    inner = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{inner}{last}</tr>'
