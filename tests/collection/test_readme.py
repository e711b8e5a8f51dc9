"""The README's tables are the newest records': between their marks, and nothing around them changes."""

from __future__ import annotations

import errno
import re

import pandas as pd
import pytest
from offenders import over

from helpers import formatting
from helpers.collection import readme
from helpers.weights import models


@pytest.fixture
def one_table(monkeypatch, tmp_path):
    """A README with one table's place and a table that this test makes."""
    monkeypatch.setattr(readme, "TABLES", {"some": lambda: "| a |\n|---|\n| \\1 |"})
    monkeypatch.setattr(readme, "FILE", tmp_path / "README.md")
    readme.FILE.write_text("before\n{}\nold\n{}\nafter".format(*readme.marks("some")))


@over(lambda: {name: {"name": name} for name in readme.TABLES}, "name")
def test_the_readme_shows_the_newest_record(name):
    """What stands there is what the record says; `python -m helpers.collection.readme` writes it."""
    text = readme.FILE.read_text()

    assert readme.written(text, name) == text


def test_readme_shows_the_model_table():
    """The README's table of models is the one the code acts on."""
    text = readme.FILE.read_text()
    for kind, forms in models.SUPPORT.items():
        (row,) = re.findall(rf"^\| {kind} \|.*$", text, re.M)
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]

        assert cells == [forms["safetensors"].partition(";")[0], forms["gguf"].partition(";")[0]]


def test_only_what_is_between_the_marks_is_replaced(one_table):
    """Once and again, with a text that looks like a pattern."""
    readme.update()
    text = readme.FILE.read_text()

    assert text.startswith("before\n<!-- some") and text.endswith("<!-- some: end -->\nafter")
    assert "\n| \\1 |\n" in text and "old" not in text
    assert readme.written(text, "some") == text


def test_a_readme_without_the_marks_is_not_touched(one_table):
    """It is said what to put there."""
    readme.FILE.write_text("no marks")
    with pytest.raises(ValueError, match="^the README has no place for the table 'some': put <!-- some: made by"):
        readme.update("some")
    assert readme.FILE.read_text() == "no marks"


def test_an_unknown_table_is_refused(one_table):
    """With those that there are."""
    with pytest.raises(ValueError, match="^the README has no table 'other': choose from some$"):
        readme.update("other")


def test_the_command_says_what_is_wrong_in_one_line(one_table, monkeypatch, capsys):
    """And ends with 1."""
    monkeypatch.setattr("sys.argv", ["readme", "other"])

    assert readme.main() == 1
    assert capsys.readouterr().err == "the README has no table 'other': choose from some\n"


def test_a_table_is_told_in_markdown():
    """The index in bold; what would be a mark of the table or of the text is escaped."""
    frame = pd.DataFrame({"x": ["1 | 2", "3*"], "y": [4, 5]}, index=["a", "b"])

    assert formatting.markdown(frame).splitlines() == [
        "|  | x | y |",
        "|---|---|---|",
        "| **a** | 1 \\| 2 | 4 |",
        "| **b** | 3\\* | 5 |",
    ]


@pytest.mark.parametrize(("file", "draw"), [("PICTURE", readme.draw_gpu), ("SCALING", readme.draw_scaling)])
def test_the_pictures_of_the_gpu_records_are_drawn_with_the_table(file, draw, monkeypatch, tmp_path):
    """PNGs, of the newest records."""
    monkeypatch.setattr(readme, file, tmp_path / "picture.png")
    draw()

    assert getattr(readme, file).read_bytes().startswith(b"\x89PNG")


def test_a_readme_that_cannot_be_written_stays_whole(one_table, monkeypatch, capsys):
    """A mock of a full disk: one line that names the file, and the old text."""
    before = readme.FILE.read_text()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.argv", ["readme"])
    monkeypatch.setattr(readme.paths.os, "replace", full)
    assert readme.main() == 1
    assert capsys.readouterr().err == f"{readme.FILE} could not be written (No space left on device); the README is whole\n"
    assert (readme.FILE.read_text(), len(list(readme.FILE.parent.iterdir()))) == (before, 1)
