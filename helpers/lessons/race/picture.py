"""The race as a picture that moves: an SVG whose text appears at its stamps, by CSS alone, without a script.

Its end state is a still picture with the figures; it is all that a reader sees who asked for less motion. The same
picture without motion is drawn again and again while a race is run.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from html import escape
from itertools import groupby

from helpers import frameworks
from helpers.lessons.race.lanes import Lane

WIDTH, EDGE, GAP = 880, 16, 14
PER_ROW = 2
CARD = (WIDTH - 2 * EDGE - (PER_ROW - 1) * GAP) // PER_ROW
PAD = 14
INNER = CARD - 2 * PAD
COLUMNS, LINES = 50, 8  # of an answer in its card; a monospaced letter is 0.6 of its size wide
HEAD, TEXT_TOP, LINE = 66, 100, 17  # heights: of the heading, above an answer's first line, of a line
LONGEST_S, SHORTEST_S = 30, 2  # a longer race is replayed faster, a shorter one slower
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
STYLE = """
#KEY{--ground:#fff;--card:#f6f6f3;--ink:#1b1b1b;--soft:#4d4d4d;max-width:100%;height:auto}
@media (prefers-color-scheme:dark){#KEY{--ground:#0d1117;--card:#1c2128;--ink:#e6edf3;--soft:#adb7c2}}
#KEY text{fill:var(--ink);white-space:pre;font-family:Helvetica,Arial,sans-serif}
#KEY .ground{fill:var(--ground)}
#KEY .card{fill:var(--card)}
#KEY .soft{fill:var(--soft)}
#KEY .axis{stroke:var(--soft)}
#KEY .black{fill:var(--ink);stroke:var(--ink)}
#KEY .said{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12.5px}
"""
MOTION = """@keyframes KEY-come{from{fill-opacity:0}}
@keyframes KEY-wipe{from{transform:scaleX(1)}}
@media (prefers-reduced-motion:no-preference){
#KEY .at{animation:KEY-come .1s linear both}
#KEY .wipe{fill-opacity:1;transform:scaleX(0);transform-box:fill-box;transform-origin:100% 50%}
#KEY .wipe{animation:KEY-wipe LASTs linear both}
}
"""

Run = tuple[int, str]  # the number of a piece, and what of it stands in one line


def svg(
    lanes: Sequence[Lane],
    *,
    key: str,
    title: str,
    prompt: str = "",
    notes: Sequence[str] = (),
    moving: bool = True,
    gpu: bool | None = None,
) -> str:
    """The race as the text of an SVG; ``key`` is its id, unlike any other's on its page.

    ``moving`` makes it a replay; without, it shows what has come so far. ``gpu`` says where the engines ran
    (``None``: on this machine).
    """
    span_s = span(lanes)
    pace, said = pace_of(span_s)
    rows = max([3, *(len(_body(lane)) for lane in lanes)]) if moving else LINES
    height = TEXT_TOP + LINE * rows
    parts = [_text(EDGE, 30, title, 18, weight=True), _text(EDGE, 52, f"The prompt: {prompt}", 13, "soft") if prompt else ""]
    for number, lane in enumerate(lanes):
        x, y = EDGE + number % PER_ROW * (CARD + GAP), HEAD + number // PER_ROW * (height + GAP)
        parts += _card(lane, x, y, height, span_s, pace if moving else None, gpu)
    foot = HEAD + math.ceil(len(lanes) / PER_ROW) * (height + GAP) + 10
    speed = [f"{said}."] if moving and any(lane.at_s for lane in lanes) else []
    below = [line for note in (*notes, *speed) for line in textwrap.wrap(note, 140)]
    parts += [_text(EDGE, foot + LINE * number, line, 12, "soft") for number, line in enumerate(below)]
    style = STYLE + (MOTION.replace("LAST", _short(span_s * pace)) if moving else "")
    return _whole(key, title, words(lanes, gpu), foot + LINE * len(below), style.replace("KEY", key), parts)


def words(lanes: Sequence[Lane], gpu: bool | None = None) -> list[str]:
    """The race in words, a line for each engine: its figures and its answer, or why there is none."""
    return [f"{frameworks.label(lane.name, gpu)}: {'; '.join(filter(None, _told(lane)))}" for lane in lanes]


def _told(lane: Lane) -> list[str]:
    wrote = " ".join(NO_XML.sub("\ufffd", lane.text).split())
    return [figures(lane), lane.error or "", f"it wrote: {wrote}" if wrote else ""]


def figures(lane: Lane) -> str:
    """A lane's figures in a few words, or its state; what is not defined is not told."""
    if lane.state == "waits":
        return "waits for its turn"
    if lane.state == "runs":
        return f"{len(lane.pieces)} pieces so far" if lane.pieces else "asked, and no token yet"
    if lane.error:
        return f"broke off after {lane.at_s[-1]:.1f} s" if lane.at_s else "no answer"
    first = "" if lane.ttft_s is None else f"first token after {1000 * lane.ttft_s:.0f} ms"
    rate = "" if lane.output_tokens_per_s is None else f"{lane.output_tokens_per_s:.3g} tokens/s"
    return ", ".join(filter(None, (first, rate))) or "an answer without text"


def span(lanes: Sequence[Lane]) -> float:
    """Seconds on every lane's axis: the last stamp of all, rounded up; 1 without any."""
    last_s = max((lane.at_s[-1] for lane in lanes if lane.at_s), default=0)
    if last_s <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(last_s)) / 2
    return round(math.ceil(last_s / step) * step, 9)


def pace_of(span_s: float) -> tuple[float, str]:
    """How many seconds of the replay a second of the race takes, and how that is said."""
    if span_s > LONGEST_S:
        times = math.ceil(span_s / LONGEST_S)
        return 1 / times, f"Replayed {times} times faster than it was"
    if span_s < SHORTEST_S:
        times = math.ceil(SHORTEST_S / span_s)
        return times, f"Replayed {times} times slower than it was"
    return 1, "Replayed as fast as it was"


def wrapped(pieces: Sequence[str], most: int = LINES) -> list[list[Run]]:
    """An answer in at most ``most`` lines of :data:`COLUMNS` letters, each made of runs; where there was more, it ends in ``…``.

    White space of any length is one space, as in a paragraph.
    """
    letters: list[Run] = []
    for number, piece in enumerate(pieces):
        for letter in NO_XML.sub("\ufffd", piece):
            blank = letter.isspace()
            if not (blank and (not letters or letters[-1][1] == " ")):
                letters.append((number, " " if blank else letter))
    text, at, found = "".join(letter for _, letter in letters), 0, []
    for line in textwrap.wrap(text, COLUMNS, break_on_hyphens=False):
        at = text.index(line, at)
        found.append(_runs(letters[at : at + len(line)]))
        at += len(line)
    if len(found) > most > 0:
        (last, _) = found[most - 1][-1]
        found[most - 1].append((last, "…"))
    return found[:most]


def _runs(letters: Sequence[Run]) -> list[Run]:
    return [(number, "".join(letter for _, letter in of)) for number, of in groupby(letters, key=lambda one: one[0])]


def _body(lane: Lane) -> list[list[Run]]:
    """The lines in a card: the answer, and below it why it has no end; the reason's runs belong to the last piece."""
    why = textwrap.wrap(NO_XML.sub("\ufffd", lane.error or ""), COLUMNS)[:LINES]
    return [*wrapped(lane.pieces, LINES - len(why)), *([(len(lane.pieces) - 1, line)] for line in why)]


def _card(lane: Lane, x: int, y: int, height: int, span_s: float, pace: float | None, gpu: bool | None) -> list[str]:
    """One engine's card: its name and weights, its figures, a mark on the axis for each event, its answer."""
    engine, left, end = frameworks.get(lane.name), x + PAD, x + PAD + INNER
    black = ' class="black"' if engine.colour == "#000000" else ""  # which is not to be seen on dark ground
    parts = [
        f'<rect x="{x}" y="{y}" width="{CARD}" height="{height}" rx="6" fill="#f6f6f3" class="card"/>',
        f'<rect x="{left}" y="{y + 14}" width="11" height="11" fill="{engine.colour}"{black}/>',
        _text(left + 18, y + 24, frameworks.label(lane.name, gpu), 15, weight=True),
        _text(end, y + 24, f"{engine.dtype} weights", 12, "soft", anchor="end"),
        _text(left, y + 45, figures(lane), 13.5, delay=_delay(lane.at_s[-1] if lane.at_s else 0, pace)),
    ]
    if lane.at_s:
        marks = "".join(f"M{_short(left + at_s / span_s * INNER, 1)} {y + 54}v11" for at_s in lane.at_s)
        parts.append(f'<path d="{marks}" stroke="{engine.colour}" stroke-width="1.5"{black}/>')
    if lane.at_s and pace is not None:  # uncovers the marks from left to right, each at its time
        at = f'x="{left - 1}" y="{y + 53}" width="{INNER + 2}" height="13"'
        parts.append(f'<rect {at} fill="#f6f6f3" fill-opacity="0" class="card wipe"/>')
    parts.append(f'<path d="M{left} {y + 67}h{INNER}" stroke="#4d4d4d" stroke-width=".75" class="axis"/>')
    parts += [_text(left, y + 79, "0", 10.5, "soft"), _text(end, y + 79, f"{span_s:g} s", 10.5, "soft", anchor="end")]
    return parts + [_line(left, y + TEXT_TOP + LINE * n, line, lane, pace) for n, line in enumerate(_body(lane))]


def _line(x: int, y: int, runs: Sequence[Run], lane: Lane, pace: float | None) -> str:
    """A line of an answer; in a replay each run of it comes with its piece."""
    if pace is None:
        inner = escape("".join(text for _, text in runs), quote=False)
    else:
        inner = "".join(
            f'<tspan class="at" style="animation-delay:{_delay(lane.at_s[number] if lane.at_s else 0, pace)}">'
            f"{escape(text, quote=False)}</tspan>"
            for number, text in runs
        )
    return f'<text class="said" x="{x}" y="{y}" xml:space="preserve">{inner}</text>'


def _delay(at_s: float, pace: float | None) -> str:
    """When something comes in the replay; empty in a picture that does not move."""
    return "" if pace is None else f"{_short(at_s * pace)}s"


def _text(
    x: float, y: float, text: str, size: float, kind: str = "", *, weight: bool = False, anchor: str = "", delay: str = ""
) -> str:
    kinds = " ".join(filter(None, (kind, "at" if delay else "")))
    more = f' class="{kinds}"' if kinds else ""
    more += f' style="animation-delay:{delay}"' if delay else ""
    more += ' font-weight="bold"' if weight else ""
    more += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{more}>{escape(NO_XML.sub(chr(0xFFFD), text), quote=False)}</text>'


def _short(number: float, digits: int = 3) -> str:
    return f"{number:.{digits}f}".rstrip("0").rstrip(".")


def _whole(key: str, title: str, told: Sequence[str], height: int, style: str, parts: Sequence[str]) -> str:
    desc = escape(NO_XML.sub("\ufffd", " \n".join(told)), quote=False)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{key}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="{key}-title {key}-desc">\n<title id="{key}-title">{escape(title, quote=False)}</title>\n'
        f'<desc id="{key}-desc">{desc}</desc>\n<style>{style}</style>\n'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff" class="ground"/>\n'
    )
    return head + "\n".join(part for part in parts if part) + "\n</svg>\n"
