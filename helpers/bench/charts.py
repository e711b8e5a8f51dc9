"""Line charts and bars as SVG text, for a page that opens without a network: no library, no script.

Every picture has a title and a description for those who do not see it; the page's tables have the same figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 70, 12, 12, 44
COLOURS = ("#0b4fc0", "#8f2a00", "#00573f", "#5b2a86")  # each readable on white
DASHES = ("", "6 3", "2 3", "9 3 2 3")  # and told apart without colour


@dataclass(frozen=True)
class Point:
    """A value at a place, with its spread where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bar:
    """One request: when it was sent, had its first and its last token, seconds."""

    sent_s: float
    first_s: float
    last_s: float


class _Axes:
    """Where a value lies in the picture; x is logarithmic, for loads that double, unless ``linear``."""

    def __init__(self, xs: Sequence[float], most_y: float, *, linear: bool = False):
        self.place = float if linear else math.log2
        self.low, self.high = self.place(min(xs)) if not linear else 0.0, self.place(max(xs))
        self.most_y = most_y or 1.0

    def x(self, value: float) -> float:
        share = (self.place(value) - self.low) / ((self.high - self.low) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT) if self.high > self.low else (LEFT + WIDTH - RIGHT) / 2

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.most_y * (HEIGHT - TOP - BOTTOM)


def lines(title: str, series: dict[str, Sequence[Point]], x_title: str, y_title: str) -> str:
    """A line for each of ``series``, with bars for the spread; an empty text where there is nothing to draw."""
    series = {name: points for name, points in series.items() if points}
    points = [point for each in series.values() for point in each]
    if not points:
        return ""
    axes = _Axes([p.x for p in points], 1.08 * max(p.y if p.high is None else p.high for p in points))
    drawn = [_grid(axes, sorted({p.x for p in points}), x_title, y_title)]
    drawn += [_line(axes, each, number) for number, each in enumerate(series.values())]
    said = "; ".join(f"{name}: {', '.join(f'{p.y:.4g} at {p.x:g}' for p in each)}" for name, each in series.items())
    return _figure(title, f"{y_title} over {x_title}. {said}.", drawn, HEIGHT) + _legend(series)


def _line(axes: _Axes, points: Sequence[Point], number: int) -> str:
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    path = " ".join(f"{axes.x(p.x):.1f},{axes.y(p.y):.1f}" for p in points)
    drawn = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
    for p in points:
        x = axes.x(p.x)
        drawn += f'<circle cx="{x:.1f}" cy="{axes.y(p.y):.1f}" r="3.5" fill="{colour}"/>'
        if p.low is not None and p.high is not None:
            drawn += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(p.low):.1f}" y2="{axes.y(p.high):.1f}" stroke="{colour}"/>'
    return drawn


def _grid(axes: _Axes, xs: Sequence[float], x_title: str, y_title: str) -> str:
    drawn = ""
    for value in _ticks(axes.most_y):
        y = axes.y(value)
        drawn += f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d5d5d5"/>'
        drawn += _text(LEFT - 6, y + 4, f"{value:g}", "end")
    last = -math.inf
    for value in xs:
        if axes.x(value) - last >= 34:  # or their names would overlap
            drawn += _text(axes.x(value), HEIGHT - BOTTOM + 18, f"{value:.0f}" if value >= 100 else f"{value:.3g}", "middle")
            last = axes.x(value)
    drawn += _text((LEFT + WIDTH) / 2, HEIGHT - 6, x_title, "middle")
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return drawn + f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>'


def _ticks(most: float) -> list[float]:
    """About four round numbers from 0 on."""
    step = 10 ** math.floor(math.log10(most / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 5)
    return [float(f"{step * n:.6g}") for n in range(math.floor(most / step) + 1)]


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _legend(series: dict[str, Sequence[Point]]) -> str:
    if len(series) < 2:
        return ""
    items = (
        f'<li><svg width="34" height="10" aria-hidden="true"><line x1="0" x2="34" y1="5" y2="5" stroke="{COLOURS[i % 4]}" '
        f'stroke-width="2" stroke-dasharray="{DASHES[i % 4]}"/></svg> {escape(name)}</li>'
        for i, name in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def timeline(title: str, bars: Sequence[Bar]) -> str:
    """A row for each request: pale from sending to the first token, dark to the last."""
    if not bars:
        return ""
    row, height = 9, TOP + 9 * len(bars) + BOTTOM
    axes, drawn = _Axes([1.0, max(bar.last_s for bar in bars)], 1.0, linear=True), []
    for value in _ticks(axes.high):
        x = axes.x(value)
        drawn.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="#d5d5d5"/>')
        drawn.append(_text(x, height - BOTTOM + 18, f"{value:g}", "middle"))
    for number, bar in enumerate(bars):
        for begin, end, colour in ((bar.sent_s, bar.first_s, "#9db8e8"), (bar.first_s, bar.last_s, COLOURS[0])):
            x, width = axes.x(begin), max(axes.x(end) - axes.x(begin), 0.5)
            drawn.append(f'<rect x="{x:.1f}" y="{TOP + row * number}" width="{width:.1f}" height="{row - 2}" fill="{colour}"/>')
    drawn.append(_text((LEFT + WIDTH) / 2, height - 6, "seconds", "middle"))
    longest_s = max(bar.first_s - bar.sent_s for bar in bars)
    said = f"{len(bars)} requests in {axes.high:.3g} s; the longest wait for a first token {longest_s:.3g} s."
    return _figure(title, said, drawn, height)


def _figure(title: str, description: str, drawn: Sequence[str], height: float) -> str:
    name = re.sub(r"\W+", "-", title.lower())
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}">'
        f'<title id="{name}">{escape(title)}. {escape(description)}</title>{"".join(drawn)}</svg>'
    )
