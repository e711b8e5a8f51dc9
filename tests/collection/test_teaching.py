"""The teacher's guide and the citation: what they name is there."""

import ast
import re
import tomllib

import pytest
import yaml
from offenders import over

from helpers import paths
from helpers.collection import bindings, timetable

GUIDE = timetable.GUIDE.read_text()
CITATION = yaml.safe_load((paths.REPOSITORY / "CITATION.cff").read_text())
FAULTS = re.findall(r"^\| `(.+?)` \|", GUIDE.partition("## What goes wrong")[2].partition("\n## ")[0], re.M)


def texts() -> list[str]:
    """Every piece of text in the code: a formatted one is in pieces, what is put in between them is not known."""
    files = [*(paths.REPOSITORY / "helpers").rglob("*.py"), paths.REPOSITORY / "noxfile.py"]
    nodes = (node for file in files for node in ast.walk(bindings.parsed(file.read_text())))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def pieces(message: str) -> list[str]:
    """What is fixed in a message of the guide."""
    return [piece for piece in message.split("…") if len(piece.strip()) > 3]


@pytest.fixture(scope="module")
def said() -> list[str]:
    """All that the code can say."""
    return texts()


@over(lambda: {message: {"message": message} for message in FAULTS}, "message")
def test_a_fault_is_told_in_the_words_of_the_code(message, said):
    """A learner searches the guide for what stands on the screen."""
    assert pieces(message)
    assert [piece for piece in pieces(message) if not any(piece in text for text in said)] == []


def test_words_that_the_code_does_not_say_are_found(said):
    """A message that was changed there, and not here."""
    assert not any("the kernel was not found anywhere" in text for text in said)


def test_every_fault_has_a_meaning_and_a_remedy():
    """No row is left half empty."""
    rows = [line.strip("|").split(" | ") for line in GUIDE.splitlines() if line.startswith("| `")]

    assert len(rows) == len(FAULTS) >= 15
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in rows)


@over(lambda: {target: {"target": target} for target in re.findall(r"\]\(([^)#]+)", GUIDE)}, "target")
def test_links_lead_somewhere(target):
    """From the guide's own folder."""
    assert (timetable.GUIDE.parent / target).exists()


def test_questions_point_to_a_notebook_or_a_command():
    """An answer without the place where it can be seen is an opinion."""
    part = GUIDE.partition("## Questions that people ask")[2].partition("\n## ")[0]
    answers = [line for line in part.splitlines() if line.startswith("**")]

    assert len(answers) >= 10
    assert [line for line in answers if not re.search(r"\.ipynb|`python -m ", line)] == []


@over(lambda: {name: {"name": name} for name in re.findall(r"nox -s (\w+)", GUIDE)}, "name")
def test_every_command_is_there(name):
    """A session of nox."""
    source = (paths.REPOSITORY / "noxfile.py").read_text()

    assert re.search(rf'^def {name}\(session|name="{name}"', source, re.M)


@over(lambda: {name: {"name": name} for name in re.findall(r"python -m (helpers[\w.]+)", GUIDE)}, "name")
def test_every_module_is_there(name):
    """That a command runs."""
    file = paths.REPOSITORY / name.replace(".", "/")

    assert file.with_suffix(".py").exists() or (file / "__main__.py").exists()


def test_what_can_be_left_out_is_there():
    """Sections are named as their notebooks name them."""
    part = GUIDE.partition("## When time runs short")[2].partition("\n## ")[0]
    for line in re.findall(r"^\d\. In (\d\d) (?:to \d\d )?(.*)$", part, re.M):
        number, text = line
        for title in re.findall(r"\*([^*]+)\*", text):
            if "..." not in title:
                assert title in timetable._book(number).prose, (number, title)


def test_the_citation_has_what_its_format_wants():
    """The keys that Citation File Format 1.2.0 requires, and those that say what this is; names of the format alone."""
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert CITATION["message"] and CITATION["title"] and CITATION["authors"] and all("name" in one for one in CITATION["authors"])
    known = {"cff-version", "message", "title", "type", "abstract", "authors", "version", "license", "keywords"}
    assert set(CITATION) <= known


def test_the_citation_says_what_the_project_says():
    """Version and license are those of pyproject.toml."""
    project = tomllib.loads((paths.REPOSITORY / "pyproject.toml").read_text())["project"]

    assert (CITATION["version"], CITATION["license"]) == (project["version"], project["license"])
