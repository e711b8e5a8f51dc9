"""The shapes of a flowchart: a question at the left, what to take at the right, arrows between them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from helpers.frameworks import FRAMEWORKS, TITLES

COLOURS = {name: one.colour for name, one in FRAMEWORKS.items()}
WIDTH, EDGE = 700, 14
ASK_WIDTH, TAKE_X = 282, 384
TAKE_WIDTH = WIDTH - EDGE - TAKE_X
BOX, GAP = 66, 26
INK, SOFT, LINE, GROUND = "#1b1b1b", "#4d4d4d", "#6b6b6b", "#f3f3f0"


def svg(name: str, title: str, desc: str, height: int, parts: Sequence[str]) -> str:
    """A whole picture with title and description for those who cannot see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="{name}-title {name}-desc" font-family="Helvetica, Arial, sans-serif">\n'
        f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-desc">{escape(desc)}</desc>\n'
        f'<defs><marker id="{name}-tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L10 5L0 10z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
    )
    body = "\n".join(part for part in parts if part).replace("#TIP", f"#{name}-tip")
    return f"{head}{body}\n</svg>\n"


def text(x: float, y: float, words: str, size: float, colour: str = INK, weight: str = "", anchor: str = "") -> str:
    """Words at a place."""
    more = (f' font-weight="{weight}"' if weight else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{more}>{escape(words, quote=False)}</text>'


def lines(x: float, y: float, several_lines: Sequence[str], size: float, colour: str = INK, step: float = 16) -> list[str]:
    """Lines below each other."""
    return [text(x, y + step * i, line, size, colour) for i, line in enumerate(several_lines)]


def heading(title: str, under: str) -> str:
    """The title of a picture and the line under it."""
    return text(EDGE, 30, title, 19, INK, "bold") + "\n" + text(EDGE, 52, under, 13.5, SOFT)


def ask(y: int, words: Sequence[str], box: int = BOX, radius: int = BOX // 2) -> str:
    """A question, its lines centred in a round box."""
    middle, x = y + box / 2 + 5 - 9.5 * (len(words) - 1), EDGE + ASK_WIDTH // 2
    shape = f'<rect x="{EDGE}" y="{y}" width="{ASK_WIDTH}" height="{box}" rx="{radius}" fill="{GROUND}" stroke="{LINE}"/>'
    return "\n".join([shape, *(text(x, middle + 19 * i, line, 15, INK, "", "middle") for i, line in enumerate(words))])


def several(y: int, names: Sequence[str], box: int = BOX) -> str:
    """The box of frameworks that are alike: a colour of each at the left, their names."""
    part = box / len(names)
    bars = [
        f'<rect x="{TAKE_X}" y="{y + part * i:g}" width="10" height="{part:g}" fill="{COLOURS[name]}"/>'
        for i, name in enumerate(names)
    ]
    frame = f'<rect x="{TAKE_X}" y="{y}" height="{box}" width="{TAKE_WIDTH}" fill="#ffffff" stroke="{LINE}" stroke-width="2"/>'
    names_told = " or ".join(TITLES[name] for name in names)
    return "\n".join([frame, *bars, text(TAKE_X + 20, y + 22, names_told, 16, INK, "bold")])


def path(d: str) -> str:
    """An arrow."""
    return f'<path d="{d}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#TIP)"/>'


def arrow(y: int, label: str, box: int = BOX) -> str:
    """From a question to the framework beside it; a label with a plus takes two lines."""
    start, middle = EDGE + ASK_WIDTH, y + box // 2
    words = label.replace(" + ", " +|").split("|")
    rows = [(middle - 6 - 15 * (len(words) - 1 - i), word) for i, word in enumerate(words) if word]
    return "\n".join(
        [
            path(f"M{start} {middle}H{TAKE_X - 2}"),
            *(text((start + TAKE_X) // 2 - 3, row, word, 13, INK, "", "middle") for row, word in rows),
        ]
    )


def down(y: int, label: str, box: int = BOX) -> str:
    """From a question to the next."""
    x = EDGE + ASK_WIDTH // 2
    return path(f"M{x} {y + box}V{y + box + GAP - 2}") + "\n" + text(x + 9, y + box + 18, label, 13)
