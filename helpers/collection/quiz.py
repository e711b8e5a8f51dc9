"""Questions at the end of a notebook, before its exercises: ``quiz.of("07")`` as the last line of a cell shows them.

``quiz.toml`` has them. Each choice is a ``<details>`` that opens with the reason why it is right or wrong: no script, so that
a page reads offline, in a notebook that is not trusted, and without JavaScript. Every notebook's kernel shows its own, so
this needs Python alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from helpers import paths

FILE = Path(__file__).with_name("quiz.toml")
CODE, WORD = re.compile(r"`([^`]+)`"), re.compile(r"\*([^*]+)\*")
LETTERS = "abcd"


class QuizError(ValueError):
    """A notebook that has no questions: which, and what to choose from."""


@dataclass(frozen=True)
class Choice:
    """An answer to choose, the reason why it is right or wrong, and the heading under which the notebook says so."""

    says: str
    why: str
    section: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """What is asked, and the choices, of which one is right."""

    asks: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Quiz:
    """The questions of a notebook, which Jupyter shows as HTML, a terminal as text."""

    questions: tuple[Question, ...]

    def _repr_html_(self) -> str:
        return "<ol>\n" + "\n".join(map(_item, self.questions)) + "\n</ol>"

    def __repr__(self) -> str:
        return "\n".join(line for number, one in enumerate(self.questions, 1) for line in _lines(number, one))


def load() -> dict[str, Quiz]:
    """Every notebook's questions, by its number."""
    found: dict[str, list[Question]] = {}
    for one in tomllib.loads(paths.data(FILE))["questions"]:
        choices = tuple(Choice(**{"section": one["section"], **choice}) for choice in one["choices"])
        found.setdefault(one["notebook"], []).append(Question(one["asks"], choices))
    return {number: Quiz(tuple(questions)) for number, questions in found.items()}


def of(number: str) -> Quiz:
    """The questions of the notebook with this number, such as ``07``; :class:`QuizError` if it has none."""
    known = load()
    if number not in known:
        raise QuizError(f"there are no questions to {number!r}: choose from {', '.join(known)}")
    return known[number]


def _item(question: Question) -> str:
    opened = "\n".join(_details(letter, choice) for letter, choice in zip(LETTERS, question.choices))
    return f"<li><p>{_marked(question.asks)}</p>\n{opened}\n</li>"


def _details(letter: str, choice: Choice) -> str:
    verdict = "Right." if choice.right else "No."
    place = f'<a href="#{escape(choice.section.replace(" ", "-"))}">{escape(choice.section)}</a>'
    said = f"<strong>{verdict}</strong> {_marked(choice.why)} See {place}."
    return f"<details><summary>{letter}) {_marked(choice.says)}</summary><p>{said}</p></details>"


def _marked(text: str) -> str:
    """``text`` as HTML, with its code and its stressed words."""
    return WORD.sub(r"<em>\1</em>", CODE.sub(r"<code>\1</code>", escape(text, quote=False)))


def _lines(number: int, question: Question) -> Iterator[str]:
    """A question as text; which choice is right stands below them."""
    yield f"{number}. {question.asks}"
    yield from (f"   {letter}) {choice.says}" for letter, choice in zip(LETTERS, question.choices))
    right = next(letter for letter, choice in zip(LETTERS, question.choices) if choice.right)
    yield f"   right: {right}"
