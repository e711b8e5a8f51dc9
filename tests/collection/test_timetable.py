"""Paths: a time is not promised but computed, from the words that stand there and the minutes that were measured."""

import math
import re

import pytest
from books import NOTEBOOKS, books
from offenders import over

from helpers import paths
from helpers.collection import docs, marked, notebooks, timetable
from helpers.collection.timetable import Part, TimetableError, Way

WPM = 90


@over(lambda: {way.name: {"way": way} for way in timetable.ways()}, "way")
def test_the_sum_of_a_path_fits_its_time(way):
    """Not more than there is, and most of it: a notebook that grew makes this fail, and the path is cut."""
    timetable.check(way)


def test_a_sum_that_does_not_hold_is_found():
    """Too much, and too little."""
    part = Part("x", "", None, other=100)
    with pytest.raises(TimetableError, match="^evening: its parts are 10 minutes more than 90: take less"):
        timetable.check(Way("evening", "", 90, (), (part,)))
    with pytest.raises(TimetableError, match="^week: its parts are 100 of 900 minutes: there is room for more$"):
        timetable.check(Way("week", "", 900, (), (part,)))


def test_the_paths_that_a_teacher_asks_for():
    """Four, by name; the day has all of the core."""
    ways = {way.name: [part.notebook for part in way.parts if part.notebook] for way in timetable.ways()}

    assert list(ways) == ["90 minutes", "half a day", "a day", "on a GPU"]
    assert ways["a day"] == [f"{number:02}" for number in range(15)]


@over(lambda: {way.name: {"way": way} for way in timetable.ways()}, "way")
def test_a_path_sets_up_what_its_notebooks_require(way):
    """Else a notebook of it would be left out in the room."""
    needed = set()
    for part in way.parts:
        path = paths.notebook(part.notebook) if part.notebook else None
        needed |= set(notebooks.settings(books()[path.stem]["notebook"], path.name).requires) if path else set()

    assert not way.frameworks or needed <= set(way.frameworks)


def book(prose: dict[str, str], minutes: int = 3, exercises: int = 2) -> timetable.Book:
    """A mock of a notebook."""
    return timetable.Book("42", "42 · Made up", prose, minutes, exercises)


@pytest.fixture
def made_up(monkeypatch):
    """The only notebook there is: an opening and two sections of 90 words each, two exercises, three minutes to run."""
    words = " ".join(["word"] * WPM)
    solution = "<details><summary>Solution</summary>\n\n" + words + "\n\n</details>"
    prose = {"": words, "Load": words, "Batch": words, "Exercises": solution + solution}
    monkeypatch.setattr(timetable, "_book", lambda number: book(prose))


def part(**given) -> Part:
    """The row of a part of the notebook."""
    return timetable._part({"notebook": "42", **given}, {"words_per_minute": WPM, "exercise_minutes": 6}, 1.0, run=True)


def test_reading_is_words_by_their_pace(made_up):
    """The opening always; what is folded is not read."""
    assert (part().read, part(sections=["Load"]).read, part(sections=[]).read) == (3, 2, 1)


def test_what_a_link_leads_to_is_not_read():
    """Its text is."""
    assert book({"": "See [two words](15_references_and_glossary.ipynb#KV-cache), here"}).words() == 4


def test_questions_are_counted_only_where_a_path_names_them():
    """As exercises, they are practice: whoever reads all of a notebook may pass them by."""
    made = book({"": "two words", "Load": "one", "Questions": "one more"})

    assert (made.words(), made.words(["Questions"])) == (3, 4)


def test_an_exercise_has_its_minutes(made_up):
    """Each of them; more than the notebook has are refused."""
    assert part(exercises=2).exercise == 12
    with pytest.raises(TimetableError, match="^42 has 2 exercises, not 3: change timetable.toml$"):
        part(exercises=3)


def test_a_section_that_is_not_there_is_refused(made_up):
    """With those that are."""
    with pytest.raises(TimetableError, match="^42 has no section 'Lood': choose from Load, Batch, Exercises$"):
        part(sections=["Lood"])


def test_only_running_depends_on_the_machine(made_up):
    """Twice as slow: twice the minutes that a notebook runs; a reader reads as ever."""
    data = {"words_per_minute": WPM, "exercise_minutes": 6}
    slow = timetable._part({"notebook": "42", "exercises": 1}, data, 2.0, run=True)

    assert (slow.read, slow.run, slow.exercise) == (3, 6, 6)


def test_a_notebook_is_run_once(made_up):
    """Also where two parts of a path take sections of it."""
    way = {
        "parts": [
            {"notebook": "42", "sections": ["Load"]},
            {"notebook": "42", "sections": ["Batch"]},
            {"notebook": "42", "run": False},
        ]
    }
    rows = timetable._parts(way, {"words_per_minute": WPM, "exercise_minutes": 6}, 1.0)

    assert [row.run for row in rows] == [3, 0, 0]


def test_running_minutes_are_the_notebooks_own():
    """Those of the row that every notebook opens with."""
    for path in NOTEBOOKS:
        assert timetable._book(path.name[:2]).minutes == int(notebooks.facts(books()[path.stem]["notebook"])["Minutes"])


@over(lambda: {way.name: {"way": way} for way in timetable.ways()}, "way")
def test_a_table_adds_up(way):
    """Read from its text: each row, each column, and the clock in front."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in timetable.table(way).splitlines()[2:]]
    figures = [[int(cell or 0) for cell in row[3:]] for row in rows]
    *parts, total = figures

    assert [sum(column) for column in zip(*parts)] == total
    assert total[-1] == way.minutes <= way.available
    assert all(row[-1] == sum(row[:3]) or not any(row[:3]) for row in parts)
    starts = [60 * int(hours) + int(minutes) for hours, minutes in (row[0].split(":") for row in rows)]
    assert starts == [sum(row[-1] for row in parts[:at]) for at in range(len(rows))]


def test_the_guide_has_these_tables():
    """What stands there is what is computed; `python -m helpers.collection.timetable --write` writes it."""
    text = timetable.GUIDE.read_text()

    assert marked.written(text, *timetable.PLACE, timetable.tables(), timetable.GUIDE.name) == text


def test_new_minutes_come_into_the_guide(tmp_path, monkeypatch):
    """When a notebook's outputs are made anew: the table is, and nothing around it."""
    begin, end = marked.marks(*timetable.PLACE)
    (tmp_path / "guide.md").write_text(f"before\n{begin}\nold\n{end}\nafter")
    monkeypatch.setattr(timetable, "GUIDE", tmp_path / "guide.md")
    timetable.write()

    assert (tmp_path / "guide.md").read_text() == f"before\n{begin}\n{timetable.tables()}\n\n{end}\nafter"


def test_its_links_lead_to_notebooks():
    """From the folder of the guide; one to the page of a GPU, which it rests on."""
    targets = re.findall(r"\]\(([^)]+)\)", timetable.tables())

    known = {*NOTEBOOKS, docs.TABLES["notebooks"].file}

    assert targets and {(timetable.GUIDE.parent / target).resolve() for target in targets} <= known


def test_minutes_are_rounded_up():
    """Nobody plans with less."""
    words = timetable._book("00").words()

    assert timetable.ways()[0].parts[1].read == math.ceil(words / WPM)
