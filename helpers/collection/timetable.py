"""Paths through the collection for a given time: what to take, and the minutes that reading, running and exercises need.

    python -m helpers.collection.timetable [--slowness 1.5]     # the tables, as Markdown
    python -m helpers.collection.timetable --write              # into docs/teaching.md

``timetable.toml`` names notebooks and sections; no minute of them stands there. Reading comes from the words of the sections,
running from each notebook's row "Minutes" (its last run, on two idle cores) times how much slower this machine is. It needs
Python alone: the pre-flight forecasts with it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import paths
from helpers.collection import marked

FILE, GUIDE = Path(__file__).with_name("timetable.toml"), paths.REPOSITORY / "docs" / "teaching.md"
PLACE = ("paths", "timetable")  # in the guide: the name of the part, and who writes it
FULL = 0.85  # of its time, at least, that a path uses: else another notebook has room
FOLDED = re.compile(r"<details>.*?</details>", re.S)
TARGET = re.compile(r"\]\([^)]*\)")  # of a link
WORD = re.compile(r"[\w'-]+")
QUESTIONS = "Questions"  # a section that is counted only where a path names it
MINUTES = re.compile(r"^\|\s*\**Minutes\**\s*\|\s*(\d+)\s*\|", re.M)


class TimetableError(ValueError):
    """A path that names what is not there, or does not fit its time: the path, the reason, the next step in one line."""


@dataclass(frozen=True)
class Part:
    """A row of a path: a notebook or sections of it, or something else that takes time. Minutes are whole ones."""

    title: str
    what: str
    notebook: str | None  # its number
    read: int = 0
    run: int = 0
    exercise: int = 0
    other: int = 0

    @property
    def minutes(self) -> int:
        """All of it, one after the other."""
        return self.read + self.run + self.exercise + self.other


@dataclass(frozen=True)
class Way:
    """A path: its parts, and the minutes that there are for them."""

    name: str
    whom: str
    available: int
    frameworks: tuple[str, ...]  # that its notebooks require; none: all of them
    parts: tuple[Part, ...]

    @property
    def minutes(self) -> int:
        """The sum of its parts."""
        return sum(part.minutes for part in self.parts)


def ways(slowness: float = 1.0) -> list[Way]:
    """Every path, on a machine ``slowness`` times as slow as that of the notebooks' minutes; :class:`TimetableError`."""
    data = _data()
    return [
        Way(one["name"], one["for"], one["minutes"], tuple(one.get("frameworks", ())), _parts(one, data, slowness))
        for one in data["paths"]
    ]


def _data() -> dict:
    import tomllib  # not in Python 3.10, which the pre-flight has to refuse itself

    return tomllib.loads(paths.data(FILE))


def _parts(way: Mapping, data: Mapping, slowness: float) -> tuple[Part, ...]:
    """The rows of ``way``; a notebook is run once, also where its sections are taken apart."""
    ran: set[str] = set()
    found = []
    for given in way["parts"]:
        found.append(_part(given, data, slowness, run=given.get("run", True) and given.get("notebook") not in ran))
        ran.add(given.get("notebook"))
    return tuple(found)


def _part(given: Mapping, data: Mapping, slowness: float, run: bool) -> Part:
    number = given.get("notebook")
    if number is None:
        return Part(given["what"], "", None, other=given["minutes"])
    book, many = _book(number), given.get("exercises", 0)
    if many > book.exercises:
        raise TimetableError(f"{number} has {book.exercises} exercises, not {many}: change timetable.toml")
    return Part(
        title=book.title, what=_what(given, many), notebook=number,
        read=math.ceil(book.words(given.get("sections")) / data["words_per_minute"]),
        run=math.ceil(book.minutes * slowness) if run else 0, exercise=many * data["exercise_minutes"],
    )  # fmt: skip


def _what(given: Mapping, exercises: int) -> str:
    named = "; ".join(given["sections"]) if "sections" in given else "all of it"
    return named + (f"; {exercises} exercise{'s' * (exercises > 1)}" if exercises else "")


@dataclass(frozen=True)
class Book:
    """What a timetable needs of a notebook: its prose by section (the first is what stands before any), its minutes to run."""

    number: str
    title: str
    prose: Mapping[str, str]
    minutes: int
    exercises: int

    def words(self, sections: list[str] | None = None) -> int:
        """Of the opening and of ``sections``, or of all but the questions; without what is folded and what links lead to."""
        if unknown := [name for name in sections or () if name not in self.prose]:
            raise TimetableError(
                f"{self.number} has no section {unknown[0]!r}: choose from {', '.join(filter(None, self.prose))}"
            )
        taken = [name for name in self.prose if name != QUESTIONS] if sections is None else ["", *sections]
        return sum(len(WORD.findall(TARGET.sub("]", FOLDED.sub("", self.prose[name])))) for name in taken)


@lru_cache
def _book(number: str) -> Book:
    file = paths.notebook(number)
    if file is None:
        raise TimetableError(f"no notebook begins with {number}: change timetable.toml")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    gaps = sum("exercise" in cell["metadata"].get("tags", []) for cell in cells)
    return Book(number, re.match(r"# (.*)", text)[1], dict(_sections(text)), int(MINUTES.search(text)[1]), gaps)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Title and text of what stands before the first heading of second order (``""``) and of each of these."""
    first, *others = re.split(r"^## ", text, flags=re.M)
    yield "", first
    for other in others:
        title, _, body = other.partition("\n")
        yield title.strip(), body


def check(way: Way) -> None:
    """:class:`TimetableError` where the sum of a path is more than there is, or leaves much of it unused."""
    if way.minutes > way.available:
        over = way.minutes - way.available
        raise TimetableError(f"{way.name}: its parts are {over} minutes more than {way.available}: take less in timetable.toml")
    if way.minutes < FULL * way.available:
        raise TimetableError(f"{way.name}: its parts are {way.minutes} of {way.available} minutes: there is room for more")


def table(way: Way) -> str:
    """A path as a Markdown table: a row for each part with the minute at which it begins, and the sum."""
    lines = ["| from | | what | read | run | exercises | minutes |", "|---|---|---|---|---|---|---|"]
    begins = 0
    for part in way.parts:
        figures = " | ".join(str(minutes or "") for minutes in (part.read, part.run, part.exercise, part.minutes))
        lines.append(f"| {_clock(begins)} | {_linked(part)} | {part.what} | {figures} |")
        begins += part.minutes
    sums = " | ".join(str(sum(getattr(part, name) for part in way.parts)) for name in ("read", "run", "exercise", "minutes"))
    return "\n".join([*lines, f"| {_clock(begins)} | **sum**, of {way.available} minutes | | {sums} |"])


def _linked(part: Part) -> str:
    return f"[{part.title}](../notebooks/{paths.notebook(part.notebook).name})" if part.notebook else part.title


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def tables(slowness: float = 1.0) -> str:
    """Every path with its heading, for whom it is, the command that sets it up, and its table."""
    return "\n\n".join(map(_told, ways(slowness)))


def _told(way: Way) -> str:
    command = " ".join(["nox -s lab", *(["--", *way.frameworks] if way.frameworks else [])])
    return f"### {way.name[0].upper()}{way.name[1:]}\n\n{way.whom} Set it up with `{command}`.\n\n{table(way)}"


def write() -> None:
    """Write the tables, computed anew, into the guide; ``ValueError`` if it has no place for them."""
    _book.cache_clear()
    paths.write(GUIDE, marked.written(GUIDE.read_text(), *PLACE, tables(), GUIDE.name))


def main() -> int:
    """The command; returns its exit code."""
    from helpers import cli

    parser = argparse.ArgumentParser(prog="python -m helpers.collection.timetable", description=__doc__.splitlines()[0])
    parser.add_argument("--slowness", type=float, default=1.0, help="how many times slower than two idle cores (default: 1)")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/teaching.md")
    options = parser.parse_args()

    def program() -> None:
        if options.write:
            write()
        else:
            print(tables(options.slowness))

    return cli.finish(program, TimetableError, ValueError, stopped="the guide is whole")


if __name__ == "__main__":
    sys.exit(main())
