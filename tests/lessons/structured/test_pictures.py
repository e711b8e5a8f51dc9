"""What the pictures of notebook 09 draw, and the words that stand in them."""

import pytest
from matplotlib.colors import to_hex

from helpers import plots
from helpers.lessons.structured import features, pictures, questions

STEPS = [{"token": "{", "allowed": 3}, {"token": "\n  ", "allowed": 900}, {"token": ' "', "allowed": 1}]


def test_a_column_for_each_step_under_the_vocabulary():
    """The chosen token below, how many were allowed above; a step without a choice has a colour of its own."""
    axes = pictures.allowed(STEPS, 49152, title="At 2 of 3 steps", notes=["xgrammar 1"]).axes[0]

    assert [bar.get_height() for bar in axes.patches] == [3, 900, 1]
    assert [to_hex(bar.get_facecolor(), keep_alpha=False).upper() for bar in axes.patches] == [
        plots.COLOURS[0], plots.COLOURS[0], plots.COLOURS[3],
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["{", r"'\n  '", ' "']
    assert [text.get_text() for text in axes.texts] == ["3", "900", "1", "without a grammar: all 49,152"]


def test_red_is_explained_where_a_column_is_red():
    """Two steps with a choice have no red column, and no word about one."""
    figures = [pictures.allowed(steps, 49152) for steps in (STEPS, STEPS[:2])]

    assert ["red" in figure.get_supxlabel() for figure in figures] == [True, False]


def test_a_number_does_not_lie_on_the_line_of_the_vocabulary():
    """Where nearly all tokens are allowed the number stands inside its column, else above it."""
    steps = [{"token": "{", "allowed": 3}, {"token": "a", "allowed": 48753}]
    few, many = pictures.allowed(steps, 49152).axes[0].texts[:2]

    assert (few.xyann[1] > 0, many.xyann[1] < 0) == (True, True)


@pytest.mark.parametrize(("text", "label"), [("$x", r"\$x"), (" ", "' '"), ("a" * 40, "a" * 12), ("ö\n", r"ö\n")])
def test_a_token_is_shown_so_that_it_can_be_read(text, label):
    """White space is written out, a long one is cut, and a dollar is a dollar."""

    assert pictures._token(text) == label


def test_every_verdict_and_outcome_has_its_colour():
    """What works, what is refused, what is ignored; only what says nothing of the constraint is grey."""
    words = {*features.VERDICTS, *questions.OUTCOMES}

    assert words - pictures.KINDS.keys() == {features.NOT_PROBED, "cut off", "failed"}
    assert pictures.KINDS.keys() <= words
    assert len({pictures.KINDS[word] for word in (features.WORKS, features.REFUSES, features.IGNORES)}) == 3


def test_a_table_has_a_cell_for_each_verdict():
    """Each in the colour of its kind, with the word in it; a row that a column lacks stays empty."""
    found = {"vLLM": {"regex": "works", "n": "ignores silently"}, "llama.cpp": {"regex": "refuses clearly"}}
    axes = pictures.matrix(found, title="ignored: vLLM 1").axes[0]

    assert [text.get_text() for text in axes.texts] == ["works", "ignores silently", "refuses clearly", ""]
    assert [to_hex(cell.get_facecolor()) for cell in axes.patches] == [
        pictures.KINDS["works"], pictures.KINDS["ignores silently"], pictures.KINDS["refuses clearly"], pictures.OTHER,
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels()] == ["regex", "n"]


def test_nothing_asked_is_an_empty_table():
    """No engine was at hand: a picture without a cell, and no error."""

    assert pictures.matrix({}, title="none").axes[0].patches[:] == []


def test_each_place_has_its_mark_for_each_engine():
    """An engine has one row, whichever places measured it."""
    axes = pictures.cost({"this run": {"vLLM": 1.07, "SGLang": 1.02}, "H100": {"SGLang": 1.45}}, title="1.02 to 1.45").axes[0]
    marks = [line for line in axes.lines if not line.get_label().startswith("_")]

    assert [label.get_text() for label in axes.get_yticklabels()] == ["vLLM", "SGLang"]
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in marks] == [
        ("this run", [1.07, 1.02], [0, 1]), ("H100", [1.45], [1]),
    ]  # fmt: skip
    assert len({line.get_marker() for line in marks}) == 2
