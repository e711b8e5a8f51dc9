"""When to take which framework: an answer with its reasons, the runner-up, and what would change it.

The rules are data (``rules.toml``, read by ``rules``).
``python -m helpers.lessons.decision.recommend figures`` draws ``vis/framework_decision.svg`` and
``vis/source_flowchart.svg`` from them. The shortlist with fit, speeds and commands is :mod:`~helpers.lessons.decision.choose`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from helpers.lessons.decision import figures
from helpers.lessons.decision.rules import ANY, TITLES, decide, load, summary


class DecisionError(ValueError):
    """Answers from which no framework follows: the answer, the reason, the way out."""


@dataclass(frozen=True)
class Reason:
    """One rule that matched, for one framework."""

    framework: str
    sentence: str
    points: int | None  # None: it excludes, or is only to be minded
    claims: tuple[str, ...]  # ids in notebooks/claims.toml

    def __str__(self) -> str:
        points = f" +{self.points}" if self.points else ""
        return f"{self.sentence}{points} ({', '.join(self.claims)})"


@dataclass(frozen=True)
class Decision:
    """What to take for these answers, why, and what would have to be different."""

    framework: str
    reasons: tuple[Reason, ...]  # most points first
    runner_up: str  # the framework asked for by name, if it is not the one to take
    runner_up_reasons: tuple[Reason, ...]
    changes: tuple[Mapping[str, str], ...]  # the fewest other answers with which the runner-up wins
    excluded: tuple[Reason, ...]
    notes: tuple[Reason, ...]
    points: Mapping[str, int]
    summary: tuple[str, str]  # the whole in two sentences

    def __str__(self) -> str:
        parts = [" ".join(self.summary), ""]
        for title, reasons in self.parts().items():
            parts += [title, *(f"  {reason}" for reason in reasons)]
        return "\n".join(parts)

    def parts(self) -> dict[str, tuple[Reason, ...]]:
        """The lists of an answer under their headings; empty ones are left out."""
        found = {
            f"Take {TITLES[self.framework]}": self.reasons,
            f"Runner-up: {TITLES[self.runner_up]}": self.runner_up_reasons,
            "Out": self.excluded,
            "To mind": self.notes,
        }
        return {title: reasons for title, reasons in found.items() if reasons}


def questions() -> dict[str, dict[str, str]]:
    """The questions' keys, each with its answers: what an answer is called, and what it says."""
    return {q["key"]: {option["key"]: option["label"] for option in q["options"]} for q in load()["questions"]}


def recommend(*, wanted: str = ANY, **answers: str) -> Decision:
    """The framework to take for ``answers``, one for each of :func:`questions`.

    ``wanted`` is a framework asked for by name: it becomes the runner-up if it is not the one to
    take. Raises :class:`DecisionError` in one line for an answer that is missing or unknown, and
    for a wanted framework that the answers exclude.
    """
    data = load()
    _check_answers(data, answers, wanted)
    found = decide(data, answers, wanted)
    if "conflict" in found:
        raise DecisionError(_conflict(data, answers, wanted, found["conflict"]))
    reasons = {name: tuple(_reason(data, name, i) for i in rules) for name, rules in found["reasons"].items()}
    return Decision(
        framework=found["framework"],
        reasons=reasons[found["framework"]],
        runner_up=found["runner_up"],
        runner_up_reasons=reasons[found["runner_up"]],
        changes=tuple(found["changes"]),
        excluded=tuple(_reason(data, name, i) for name, rules in found["excluded"].items() for i in rules),
        notes=tuple(_reason(data, found["framework"], i) for i in found["notes"]),
        points=found["points"],
        summary=tuple(summary(data, found)),
    )


def _reason(data: Mapping, name: str, i: int) -> Reason:
    rule = data["rules"][i]
    sentence = rule.get("note") or f"{data['titles'][name]} {rule['because']}."
    return Reason(name, sentence, rule.get("points"), tuple(rule["claims"]))


def _check_answers(data: Mapping, answers: Mapping[str, str], wanted: str) -> None:
    """Raise :class:`DecisionError` for the first answer that is unknown or missing."""
    known = questions()
    for key in answers:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the questions are {', '.join(known)}"
            raise DecisionError(f"no question is called {key!r}: {hint}")
    for question in data["questions"]:
        key, choice = question["key"], ", ".join(map(repr, known[question["key"]]))
        if key not in answers:
            raise DecisionError(f"{key} is not answered ({question['text']}): give {key}= one of {choice}")
        if answers[key] not in known[key]:
            raise DecisionError(f"{key}={answers[key]!r} is no answer to {question['text']!r}: choose one of {choice}")
    if wanted not in (ANY, *data["frameworks"]):
        raise DecisionError(f"wanted={wanted!r} is none of the frameworks: choose one of {', '.join(data['frameworks'])}")


def _conflict(data: Mapping, answers: Mapping[str, str], wanted: str, conflict: Sequence[int]) -> str:
    """The contradiction in one line, with the answers that would resolve it."""
    rules = [data["rules"][i] for i in conflict]
    known = questions()
    ways = [
        f"answer {key} with {' or '.join(repr(option) for option in known[key] if option not in refused)}"
        for rule in rules
        for key, refused in rule["when"].items()
    ]
    said = " and ".join(f"{key}={answers[key]!r}" for rule in rules for key in rule["when"])
    why = " and ".join(rule["because"] for rule in rules)
    return f"{data['titles'][wanted]} and {said} contradict each other: it {why}; {' and '.join(ways)}, or leave wanted out"


def widget():
    """The questions as ipywidgets, with the answer under them; what is not answered yet is named."""
    import html

    import ipywidgets

    shown = ipywidgets.HTML()
    style, layout = {"description_width": "46%"}, ipywidgets.Layout(width="min(100%, 46em)")
    asked = {
        q["key"]: ipywidgets.Dropdown(
            options=[("choose ...", None), *((option["label"], option["key"]) for option in q["options"])],
            description=q["text"], style=style, layout=layout,
        )
        for q in load()["questions"]
    }  # fmt: skip

    def answer(_=None) -> None:
        open_ = [box.description for box in asked.values() if box.value is None]
        if open_:
            shown.value = f"<p>Still to answer: {html.escape(' '.join(open_))}</p>"
            return
        found = recommend(**{key: box.value for key, box in asked.items()})
        lists = [
            f"<p><b>{html.escape(title)}</b></p><ul>{''.join(f'<li>{html.escape(str(reason))}</li>' for reason in reasons)}</ul>"
            for title, reasons in found.parts().items()
        ]
        shown.value = f"<p>{html.escape(' '.join(found.summary))}</p>{''.join(lists)}"

    for box in asked.values():
        box.observe(answer, "value")
    answer()
    return ipywidgets.VBox([*asked.values(), shown])


def main(arguments: Sequence[str]) -> None:
    if list(arguments) != ["figures"]:
        sys.exit("usage: python -m helpers.lessons.decision.recommend figures")
    for path in figures.write():
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
