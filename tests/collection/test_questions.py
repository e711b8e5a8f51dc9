"""The questions before the exercises: what each notebook has, what they are held to, and that they need no script."""

import copy
import os
import re
import subprocess
import sys

import nbformat
import pytest
from books import books, lesson_cells, markdown
from nbvals import nbval
from offenders import over

from helpers.collection import notebooks, quiz, recorded
from helpers.collection.quiz import Choice, Question, Quiz
from helpers.paths import REPOSITORY as ROOT

LESSONS = [f"{number:02}" for number in range(15)]  # 15 and 16 are for looking up
MOST_WORDS = 25  # of a choice, and of its reason
CODE = 'from helpers.collection import quiz\n\nquiz.of("{}")'


def lessons() -> dict[str, dict]:
    """Every notebook that has questions, with what it asks."""
    return {name: {**given, "number": name[:2]} for name, given in books().items() if name[:2] in LESSONS}


def headings(notebook) -> set[str]:
    return set(re.findall(r"^##+ (.*)$", markdown(notebook), re.M))


def faults(question: Question, sections: set[str]) -> list[str]:
    """What is wrong with a question, in words; ``sections`` are the headings of its notebook."""
    choices, texts = question.choices, [one.says for one in question.choices]
    found = []
    if not 3 <= len(choices) <= len(quiz.LETTERS):
        found.append(f"it has {len(choices)} choices")
    if sum(one.right for one in choices) != 1:
        found.append(f"{sum(one.right for one in choices)} choices are right")
    if len({text.casefold() for text in texts}) < len(texts) or len({one.why for one in choices}) < len(texts):
        found.append("two are equal")
    for one in choices:
        if not re.fullmatch(r"[\w`*].*\.", one.why):
            found.append(f"no sentence says why: {one.says}")
        found += [f"longer than {MOST_WORDS} words: {text}" for text in (one.says, one.why) if len(text.split()) > MOST_WORDS]
        if one.section not in sections:
            found.append(f"there is no section {one.section!r}")
    return found


@over(lessons, "notebook", "number")
def test_three_in_each_notebook(notebook, number):
    """Each with one right choice, and with a reason for every choice that names a section of this notebook."""
    asked = quiz.of(number).questions

    assert len(asked) == 3 and len({one.asks for one in asked}) == 3
    assert [fault for one in asked for fault in faults(one, headings(notebook))] == []


GOOD = (Choice("One.", "So it is.", "Load", True), Choice("Two.", "It is one.", "Load"), Choice("Three.", "Nor three.", "Load"))
MADE_WRONG = {
    "2 choices are right": (*GOOD[:2], Choice("Three.", "Nor three.", "Load", True)),
    "0 choices are right": GOOD[1:] + (Choice("Four.", "Nor four.", "Load"),),
    "it has 2 choices": GOOD[:2],
    "two are equal": (*GOOD, Choice("one.", "Nor this one.", "Load")),
    "no sentence says why: Four.": (*GOOD, Choice("Four.", "", "Load")),
    "longer than 25 words: " + "word " * 26: (*GOOD, Choice("word " * 26, "Too long.", "Load")),
    "there is no section 'Lood'": (*GOOD, Choice("Four.", "Nor four.", "Lood")),
}


@pytest.mark.parametrize("said", MADE_WRONG)
def test_what_is_wrong_with_a_question_is_found(said):
    """Each fault in a mock, and no other; none in a good one."""
    assert faults(Question("How many?", GOOD), {"Load"}) == []
    assert faults(Question("How many?", MADE_WRONG[said]), {"Load"}) == [said]


def test_the_right_choice_cannot_be_guessed():
    """Neither by its place nor by its length: no place has more than half of them, nor is the longest right in half."""
    asked = [question.choices for one in quiz.load().values() for question in one.questions]
    places = [[choice.right for choice in choices].index(True) for choices in asked]
    longest = [max(choices, key=lambda one: len(one.says)).right for choices in asked]

    assert max(places.count(place) for place in set(places)) < len(asked) / 2
    assert sum(longest) < len(asked) / 2


@over(lessons, "notebook", "number")
def test_a_notebook_shows_its_own_before_its_exercises(notebook, number):
    """One sentence and one cell; what is committed is what the cell shows today."""
    ids = [cell.id for cell in notebook.cells]
    at = ids.index("questions")
    prose, asked, after = notebook.cells[at : at + 3]

    assert prose.source.startswith("## Questions\n\n") and len(prose.source.split(". ")) == 1
    assert (asked.id, asked.source) == ("questions-asked", CODE.format(number))
    assert after.source.startswith("## Exercises\n")
    (output,) = asked.outputs
    shown = quiz.of(number)
    assert (output.data["text/html"], output.data["text/plain"]) == (shown._repr_html_(), repr(shown))


@over(lessons, "notebook")
def test_they_are_no_lesson_and_no_measurement(notebook):
    """As of exercises the rules for lessons are not asked, and where the outputs were recorded stays known."""
    (asked,) = [cell for cell in notebook.cells if cell.id == "questions-asked"]
    where = recorded.where(notebook)
    put_otherwise = copy.deepcopy(notebook)
    (cell,) = [cell for cell in put_otherwise.cells if cell.id == "questions-asked"]
    cell.outputs[0].data["text/plain"] = "put in another way"

    assert notebooks.is_exercise(asked) and asked not in lesson_cells(notebook)
    assert recorded.where(put_otherwise) == where != recorded.NOT_SAID


def test_a_choice_opens_with_its_reason():
    """Text is text, code is code; the place of the answer is a link."""
    shown = Quiz((Question("Is `a` < b?", (Choice("*No* & yes.", "It is.", "The KV cache", True), *GOOD[1:])),))._repr_html_()

    assert "<li><p>Is <code>a</code> &lt; b?</p>" in shown
    assert (
        "<details><summary>a) <em>No</em> &amp; yes.</summary><p><strong>Right.</strong> It is. "
        'See <a href="#The-KV-cache">The KV cache</a>.</p></details>' in shown
    )
    assert shown.count("<strong>No.</strong>") == 2 and "script" not in shown and "//" not in shown


def test_a_terminal_gets_text():
    """The choices, and below them which one is right."""
    assert repr(Quiz((Question("How many?", GOOD),))) == "1. How many?\n   a) One.\n   b) Two.\n   c) Three.\n   right: a"


def test_a_notebook_without_questions():
    """One line."""
    with pytest.raises(quiz.QuizError, match="^there are no questions to '15': choose from 00, 01, .*, 14$"):
        quiz.of("15")


def test_every_kernel_can_show_them():
    """Python alone is needed: no package of any environment is there."""
    command = [sys.executable, "-S", "-c", "from helpers.collection import quiz; print(len(quiz.of('03').questions))"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert (ran.stdout, ran.stderr) == ("3\n", "")


def test_the_cell_is_run_with_the_notebooks(tmp_path):
    """By nbval; one that asks for another notebook's number that does not exist fails."""
    folder = tmp_path / "nbval-here"
    folder.mkdir()
    metadata = {
        "kernelspec": {"name": "lab", "display_name": "Lab"},
        "collection": {"requires": [], "compare": "lax", "cell_timeout_s": 30},
    }
    for name, number in (("good", "07"), ("bad", "77")):
        cell = nbformat.v4.new_code_cell(CODE.format(number), metadata={"tags": ["questions"]}, execution_count=1)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=metadata), folder / f"{name}.ipynb")
    out = nbval(folder, "-p", "no:cacheprovider", "-vv", "--color=no").stdout

    assert re.findall(r"^(\w+)\.ipynb::Cell 0 (PASSED|FAILED)", out, re.M) == [("bad", "FAILED"), ("good", "PASSED")], out
