"""The decision as two pictures, from its rules: ``python -m helpers.lessons.decision.recommend figures``.

Every byte follows from ``rules.toml``, so a test holds the committed files equal to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers import paths
from helpers.lessons.decision import rules, svg
from helpers.lessons.decision.svg import BOX, EDGE, GAP, INK, SOFT, TAKE_X, TALL

VIS = paths.REPOSITORY / "vis"
VERDICTS = {  # sign and colour; the word stands beside them
    "holds": ("\u2713", "#00573f"),
    "holds with conditions": ("\u2248", "#7a4b00"),
    "outdated": ("\u2717", "#9b2c00"),
    "wrong": ("\u2717", "#9b2c00"),
}


def write(folder: Path = VIS) -> list[Path]:
    """Write the two pictures into ``folder``; returns their paths."""
    folder.mkdir(exist_ok=True)
    made = {"framework_decision.svg": picture(), "source_flowchart.svg": document()}
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in made]


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
    parts, y = [svg.heading(title, "From the top: the first question you answer with yes decides.")], 72
    for step in steps:
        last = step is steps[-1]
        parts += [
            svg.ask(y, step["ask"], radius=6 if last else BOX // 2),
            svg.arrow(y, "" if last else "yes"),
            svg.take(y, step["take"], step["claims"]),
        ]
        parts += [*svg.lines(TAKE_X + 20, y + 42, step["why"], 13, SOFT), "" if last else svg.down(y, "no")]
        y += BOX + GAP
    equal, of = agreement(data)
    foot = [
        f"This picture asks some of the nine questions. It says what all the rules say in {100 * equal // of} % of the {of:,}",
        "combinations of answers of those who only generate, and always for the rest; vis/decision.html asks all.",
        "Structured output decides nothing: four of the five hold answers to a schema by themselves.",
        "C-numbers: the claims behind a step.",
    ]
    parts += svg.lines(EDGE, y + 6, foot, 12.5, SOFT, 18)
    told = [_told(step["ask"], "yes", step["take"], step["why"]) for step in steps[:-1]]
    told.append(f"Everything else: {rules.TITLES[steps[-1]['take']]} ({' '.join(steps[-1]['why'])}).")
    return svg.svg("decision", title, f"A flowchart, read from the top. {' '.join(told)} {' '.join(foot[2:3])}", y + 70, parts)


def document() -> str:
    """``vis/source_flowchart.svg``: the document's own flowchart, each exit with its verdict."""
    data = rules.load()
    steps, title = data["document"], "The document's own flowchart, and what is wrong in it"
    parts, y, told = [svg.heading(title, "As the source document draws it; the marks beside each exit are ours.")], 72, []
    for step, following in zip(steps, [*steps[1:], None]):
        sign, colour = VERDICTS[step["verdict"]]
        if step["ask"]:
            turn = following and not following["ask"]
            parts += [svg.ask(y, step["ask"], TALL), svg.arrow(y, step["exit"].partition(" (")[0], TALL)]
            parts.append(svg.turn(y, step["onward"], TALL) if turn else svg.down(y, step["onward"], TALL))
        parts.append(svg.take(y, step["take"], [step["claim"]], TALL, dashed=step["verdict"] in ("outdated", "wrong")))
        parts.append(svg.text(TAKE_X + 20, y + 41, f"{sign} {step['verdict']}", 13, colour, "bold"))
        parts += svg.lines(TAKE_X + 20, y + 58, step["why"], 13, SOFT)
        to = _told(step["ask"] or ["Otherwise"], step["exit"], step["take"], step["why"])
        told.append(f"{to[:-1]} Verdict: {step['verdict']}.")
        y += TALL + GAP
    (whole,) = data["document_whole"]
    sign, colour = VERDICTS[whole["verdict"]]
    parts.append(svg.text(EDGE, y + 8, f"{sign} {whole['verdict']}, {whole['claim']}:", 13, colour, "bold"))
    parts += svg.lines(EDGE + 110, y + 8, whole["why"], 13, INK, 19)
    desc = f"{' '.join(told)} {whole['verdict'].capitalize()}: {' '.join(whole['why'])}"
    return svg.svg("source", title, desc, y + 64, parts)


def _told(ask: Sequence[str], exit_: str, take: str, why: Sequence[str]) -> str:
    """A row of a picture in words."""
    return f"{' '.join(ask)} {exit_ + ': ' if exit_ else ''}{rules.TITLES[take]} ({' '.join(why)})."
