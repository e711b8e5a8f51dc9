"""The decision as two pictures and a page, from its rules: ``python -m helpers.lessons.decision.recommend figures``.

Every byte follows from ``rules.toml``, so a test holds the committed files equal to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from helpers import paths
from helpers.lessons.decision import rules

VIS = paths.REPOSITORY / "vis"
PAGE = Path(__file__).with_name("page.html")
WIDTH, EDGE = 700, 14
ASK_WIDTH, TAKE_X = 282, 384
TAKE_WIDTH = WIDTH - EDGE - TAKE_X
BOX, GAP = 66, 26
TALL = 84  # a box with a verdict in it
INK, SOFT, LINE, GROUND = "#1b1b1b", "#4d4d4d", "#6b6b6b", "#f3f3f0"
VERDICTS = {  # sign and colour; the word stands beside them
    "holds": ("\u2713", "#00573f"),
    "holds with conditions": ("\u2248", "#7a4b00"),
    "outdated": ("\u2717", "#9b2c00"),
    "wrong": ("\u2717", "#9b2c00"),
}


def write(folder: Path = VIS) -> list[Path]:
    """Write the two pictures and the page into ``folder``; returns their paths."""
    folder.mkdir(exist_ok=True)
    made = {"framework_decision.svg": picture(), "source_flowchart.svg": document(), "decision.html": page()}
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in made]


def page() -> str:
    """The page, with the rules in it."""
    data = rules.load()
    used = {key: data[key] for key in ("frameworks", "titles", "questions", "rules")}
    used["colours"] = {name: rules.COLOURS[name] for name in data["frameworks"]}
    return paths.data(PAGE).replace("/*DATA*/", json.dumps(used, indent=1).replace("<", "\\u003c"))


def short(data: Mapping, answers: Mapping[str, str]) -> str:
    """What the picture says to ``answers``: its first step that matches."""
    return next(step["take"] for step in data["picture"] if fits(step, answers))


def fits(step: Mapping, answers: Mapping[str, str]) -> bool:
    """Whether one of a step's conditions holds."""
    return any(rules.matches(when, answers) for when in step["when"])


def agreement(data: Mapping) -> tuple[int, int]:
    """How often the picture says what all the rules say: (equal, all), of the answers its first step leaves open."""
    left = [answers for answers in rules.combinations(data) if not fits(data["picture"][0], answers)]
    equal = [answers for answers in left if short(data, answers) == next(iter(rules.ranking(data, answers)))]
    return len(equal), len(left)


def picture() -> str:
    """``vis/framework_decision.svg``: the rules in short, a question a row, top to bottom."""
    data = rules.load()
    steps, title = data["picture"], "Which framework? The rules in short"
    parts, y = [_heading(title, "From the top: the first question you answer with yes decides.")], 72
    for step in steps:
        last = step is steps[-1]
        parts += [
            _ask(y, step["ask"], radius=6 if last else BOX // 2),
            _arrow(y, "" if last else "yes"),
            _take(y, step["take"], step["claims"]),
        ]
        parts += [*_lines(TAKE_X + 20, y + 42, step["why"], 13, SOFT), "" if last else _down(y, "no")]
        y += BOX + GAP
    equal, of = agreement(data)
    foot = [
        f"This picture asks some of the nine questions. It says what all the rules say in {100 * equal // of} % of the {of:,}",
        "combinations of answers of those who only generate, and always for the rest; vis/decision.html asks all.",
        "Structured output decides nothing: four of the five hold answers to a schema by themselves.",
        "C-numbers: the claims behind a step.",
    ]
    parts += _lines(EDGE, y + 6, foot, 12.5, SOFT, 18)
    told = [_told(step["ask"], "yes", step["take"], step["why"]) for step in steps[:-1]]
    told.append(f"Everything else: {rules.TITLES[steps[-1]['take']]} ({' '.join(steps[-1]['why'])}).")
    return _svg("decision", title, f"A flowchart, read from the top. {' '.join(told)} {' '.join(foot[2:3])}", y + 70, parts)


def document() -> str:
    """``vis/source_flowchart.svg``: the document's own flowchart, each exit with its verdict."""
    data = rules.load()
    steps, title = data["document"], "The document's own flowchart, and what is wrong in it"
    parts, y, told = [_heading(title, "As the source document draws it; the marks beside each exit are ours.")], 72, []
    for step, following in zip(steps, [*steps[1:], None]):
        sign, colour = VERDICTS[step["verdict"]]
        if step["ask"]:
            turn = following and not following["ask"]
            parts += [_ask(y, step["ask"], TALL), _arrow(y, step["exit"].partition(" (")[0], TALL)]
            parts.append(_turn(y, step["onward"], TALL) if turn else _down(y, step["onward"], TALL))
        parts.append(_take(y, step["take"], [step["claim"]], TALL, dashed=step["verdict"] in ("outdated", "wrong")))
        parts.append(_text(TAKE_X + 20, y + 41, f"{sign} {step['verdict']}", 13, colour, "bold"))
        parts += _lines(TAKE_X + 20, y + 58, step["why"], 13, SOFT)
        to = _told(step["ask"] or ["Otherwise"], step["exit"], step["take"], step["why"])
        told.append(f"{to[:-1]} Verdict: {step['verdict']}.")
        y += TALL + GAP
    (whole,) = data["document_whole"]
    sign, colour = VERDICTS[whole["verdict"]]
    parts.append(_text(EDGE, y + 8, f"{sign} {whole['verdict']}, {whole['claim']}:", 13, colour, "bold"))
    parts += _lines(EDGE + 110, y + 8, whole["why"], 13, INK, 19)
    desc = f"{' '.join(told)} {whole['verdict'].capitalize()}: {' '.join(whole['why'])}"
    return _svg("source", title, desc, y + 64, parts)


def _told(ask: Sequence[str], exit_: str, take: str, why: Sequence[str]) -> str:
    """A row of a picture in words."""
    return f"{' '.join(ask)} {exit_ + ': ' if exit_ else ''}{rules.TITLES[take]} ({' '.join(why)})."


# --- shapes ---------------------------------------------------------------------------------------


def _svg(name: str, title: str, desc: str, height: int, parts: Sequence[str]) -> str:
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


def _text(x: float, y: float, text: str, size: float, colour: str = INK, weight: str = "", anchor: str = "") -> str:
    more = (f' font-weight="{weight}"' if weight else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{more}>{escape(text, quote=False)}</text>'


def _lines(x: float, y: float, lines: Sequence[str], size: float, colour: str = INK, step: float = 16) -> list[str]:
    return [_text(x, y + step * i, line, size, colour) for i, line in enumerate(lines)]


def _heading(title: str, under: str) -> str:
    return _text(EDGE, 30, title, 19, INK, "bold") + "\n" + _text(EDGE, 52, under, 13.5, SOFT)


def _ask(y: int, lines: Sequence[str], box: int = BOX, radius: int = BOX // 2) -> str:
    """A question, its lines centred in a round box."""
    middle, x = y + box / 2 + 5 - 9.5 * (len(lines) - 1), EDGE + ASK_WIDTH // 2
    shape = f'<rect x="{EDGE}" y="{y}" width="{ASK_WIDTH}" height="{box}" rx="{radius}" fill="{GROUND}" stroke="{LINE}"/>'
    return "\n".join([shape, *(_text(x, middle + 19 * i, line, 15, INK, "", "middle") for i, line in enumerate(lines))])


def _take(y: int, name: str, claims: Sequence[str], box: int = BOX, dashed: bool = False) -> str:
    """A framework's box: its colour at the left, its name, the claims at the right."""
    colour, dash = rules.COLOURS[name], ' stroke-dasharray="6 4"' if dashed else ""
    at = f'x="{TAKE_X}" y="{y}" height="{box}"'
    return "\n".join(
        [
            f'<rect {at} width="{TAKE_WIDTH}" fill="#ffffff" stroke="{colour}" stroke-width="2"{dash}/>',
            f'<rect {at} width="10" fill="{colour}"/>',
            _text(TAKE_X + 20, y + 22, rules.TITLES[name], 16, INK, "bold"),
            _text(WIDTH - EDGE - 10, y + 21, " ".join(claims), 11.5, SOFT, "", "end"),
        ]
    )


def _path(d: str) -> str:
    return f'<path d="{d}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#TIP)"/>'


def _arrow(y: int, label: str, box: int = BOX) -> str:
    """From a question to the framework beside it; a label with a plus takes two lines."""
    start, middle = EDGE + ASK_WIDTH, y + box // 2
    words = label.replace(" + ", " +|").split("|")
    rows = [(middle - 6 - 15 * (len(words) - 1 - i), word) for i, word in enumerate(words) if word]
    return "\n".join(
        [
            _path(f"M{start} {middle}H{TAKE_X - 2}"),
            *(_text((start + TAKE_X) // 2 - 3, row, word, 13, INK, "", "middle") for row, word in rows),
        ]
    )


def _down(y: int, label: str, box: int = BOX) -> str:
    """From a question to the next."""
    x = EDGE + ASK_WIDTH // 2
    return _path(f"M{x} {y + box}V{y + box + GAP - 2}") + "\n" + _text(x + 9, y + box + 18, label, 13)


def _turn(y: int, label: str, box: int = BOX) -> str:
    """The document's last arrow: down from a question, and to the framework below it."""
    x = EDGE + ASK_WIDTH // 2
    return _path(f"M{x} {y + box}V{y + box + GAP + box // 2}H{TAKE_X - 2}") + "\n" + _text(x + 9, y + box + 18, label, 13)
