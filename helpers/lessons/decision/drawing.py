"""The decision as a page and as a flowchart, both made of the data alone: ``python -m helpers.collection.decision``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from helpers import paths
from helpers.lessons.decision import interpreter, svg
from helpers.lessons.decision.svg import BOX, EDGE, GAP, SOFT, TAKE_X

PAGE = Path(__file__).with_name("page.html")
LEFT_OUT = ("picture", "facts")  # of what the page gets as it is
COUNTED = ("work", "users", "device", "vendor")  # the questions of which the picture asks something


def page(data: Mapping) -> str:
    """``vis/decision.html``: the page with rules and facts in it; of the claims those that a rule cites."""
    cited = {claim for rule in data["rules"] for claim in rule.get("claims", [])}
    claims = {name: one for name, one in data["facts"]["claims"].items() if name in cited}
    used = {key: value for key, value in data.items() if key not in LEFT_OUT} | {"facts": {**data["facts"], "claims": claims}}
    used["colours"] = {name: svg.COLOURS[name] for name in data["frameworks"]}
    return paths.data(PAGE).replace("/*DATA*/", json.dumps(used, indent=1, ensure_ascii=False).replace("<", "\\u003c"))


def picture(data: Mapping) -> str:
    """``vis/decision.svg``: the rules in short, a question a row, top to bottom."""
    steps, title = data["picture"], "Which framework? The rules in short"
    parts, y = [svg.heading(title, "From the top: the first question you answer with yes decides.")], 72
    for step in steps:
        last = step is steps[-1]
        parts += [svg.ask(y, step["ask"], radius=6 if last else BOX // 2), svg.arrow(y, "" if last else "yes")]
        parts += [svg.several(y, step["take"]), *svg.lines(TAKE_X + 20, y + 42, step["why"], 13, SOFT)]
        parts += [] if last else [svg.down(y, "no")]
        y += BOX + GAP
    foot = _foot(data)
    parts += svg.lines(EDGE, y + 6, foot, 12.5, SOFT, 18)
    told = [f"{' '.join(step['ask'])} {_names(data, step['take'])} ({' '.join(step['why'])})." for step in steps]
    return svg.svg("choice", title, f"A flowchart, read from the top. {' '.join(told)} {' '.join(foot)}", y + 52, parts)


def _foot(data: Mapping) -> list[str]:
    equal, of = agreement(data)
    return [
        f"The picture names those who stand first in {100 * equal // of} % of the {of} combinations of work, users, device and",
        f"vendor. vis/decision.html asks {len(data['questions'])} questions, says whether the model fits, and gives reasons,",
        "the speed in the nearest record, and the commands.",
    ]


def _names(data: Mapping, names: Sequence[str]) -> str:
    return " or ".join(data["titles"][name] for name in names)


def short(data: Mapping, answers: Mapping[str, str]) -> list[str]:
    """What the picture says to ``answers``: its first step that matches."""
    return next(
        step["take"] for step in data["picture"] if any(interpreter.matches({"when": one}, answers) for one in step["when"])
    )


def combinations(data: Mapping, keys: Sequence[str] = COUNTED) -> Iterator[dict[str, str]]:
    """Every combination of answers to the questions ``keys``."""
    options = [[one["key"] for one in interpreter.question(data, key)["options"]] for key in keys]
    for combination in itertools.product(*options):
        yield dict(zip(keys, combination, strict=True))


def agreement(data: Mapping) -> tuple[int, int]:
    """How often the picture names just those who stand first by all the rules: (equal, all)."""
    every = list(combinations(data))
    equal = [one for one in every if set(short(data, one)) == set((interpreter.shortlist(data, one) or [[]])[0])]
    return len(equal), len(every)
