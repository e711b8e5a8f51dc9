"""README and docs/: each table is the newest record's, no link leads nowhere, no sentence stands twice."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from offenders import over

from helpers import formatting, paths
from helpers.collection import docs
from helpers.gpu.recorded import today
from helpers.weights import models, shapes, sizes

README = paths.REPOSITORY / "README.md"
PAGES = (README, *sorted(docs.FOLDER.glob("*.md")))
LINES = 70  # a screen and a half
MADE = re.compile(r"<!-- ([\w-]+): made by .*?<!-- \1: end -->", re.S)
NO_SENTENCE = re.compile(r"^---$.*?^---$|^(```|::::?).*?^\1$|^(?: {4}|\||<|!\[|#).*?$", re.M | re.S)
SHORT = 8  # words: "about half an hour" may stand twice


@pytest.fixture
def one_table(monkeypatch, tmp_path):
    """A page with one table's place and a table that this test makes."""
    monkeypatch.setattr(docs, "FOLDER", tmp_path)
    monkeypatch.setattr(docs, "TABLES", {"some": docs.Table("page.md", lambda: "| a |\n|---|\n| \\1 |")})
    file = tmp_path / "page.md"
    file.write_text("before\n{}\nold\n{}\nafter".format(*docs.marks("some")))
    return file


# --- its tables ---


@over(lambda: {name: {"name": name} for name in docs.TABLES}, "name")
def test_a_page_shows_the_newest_record(name):
    """What stands there is what the record says; `python -m helpers.collection.docs` writes it."""
    text = docs.TABLES[name].file.read_text()

    assert docs.written(text, name) == text


def test_every_table_stands_in_its_page_alone():
    """What is made by the command is one of its tables, in the page that it writes."""
    made = re.compile(r"<!-- ([\w-]+): made by `.*collection\.docs`")
    found = {name: page.name for page in PAGES for name in made.findall(page.read_text())}

    assert found == {name: table.page for name, table in docs.TABLES.items()}


def test_the_set_ups_page_shows_the_model_table():
    """Its table of models is the one the code acts on."""
    text = (docs.FOLDER / "setup.md").read_text()
    for kind, forms in models.SUPPORT.items():
        (row,) = re.findall(rf"^\| {kind} \|.*$", text, re.M)
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]

        assert cells == [forms["safetensors"].partition(";")[0], forms["gguf"].partition(";")[0]]


def test_does_it_fit_tells_the_room_that_fp8_weights_made():
    """The difference of two KV pools in the newest record of each engine; and what the page's table would have it be."""
    text = (docs.FOLDER / "fits.md").read_text()
    said = re.search(r"KV cache of vLLM (.*?) GiB larger and that of SGLang (.*?) GiB, and not (.*?)\.\n", text)
    sheet, tokens = shapes.of("Llama-3.1-8B"), today.pools()["KV pool, tokens"].str.replace(",", "").astype(int)
    more = [tokens[f"{name}, offline, fp8 weights"] - tokens[f"{name}, offline"] for name in ("vLLM", "SGLang")]
    made = [count * sizes.kv_bytes_per_token(sheet.shape) / sizes.GIB for count in more]
    counted = (sizes.bytes_of(sheet.parameters, "bfloat16") - sizes.bytes_of(sheet.parameters, "fp8")) / sizes.GIB

    assert said and [f"{gib:.1f}" for gib in (*made, counted)] == list(said.groups())


def test_only_what_is_between_the_marks_is_replaced(one_table):
    """Once and again, with a text that looks like a pattern."""
    docs.update()
    text = one_table.read_text()

    assert text.startswith("before\n<!-- some") and text.endswith("<!-- some: end -->\nafter")
    assert "\n| \\1 |\n" in text and "old" not in text
    assert docs.written(text, "some") == text


def test_a_page_without_the_marks_is_not_touched(one_table):
    """It is said what to put there."""
    one_table.write_text("no marks")
    with pytest.raises(ValueError, match="^page.md has no place for the table 'some': put <!-- some: made by"):
        docs.update("some")
    assert one_table.read_text() == "no marks"


def test_an_unknown_table_is_refused_before_a_page_is_written(one_table):
    """With those that there are."""
    with pytest.raises(ValueError, match="^no page has a table 'other': choose from some$"):
        docs.update("some", "other")
    assert "old" in one_table.read_text()


def test_the_command_says_what_is_wrong_in_one_line(one_table, monkeypatch, capsys):
    """And ends with 1."""
    monkeypatch.setattr("sys.argv", ["docs", "other"])

    assert docs.main() == 1
    assert capsys.readouterr().err == "no page has a table 'other': choose from some\n"


def test_a_table_is_told_in_markdown():
    """The index in bold; what would be a mark of the table or of the text is escaped."""
    frame = pd.DataFrame({"x": ["1 | 2", "3*"], "y": [4, 5]}, index=["a", "b"])

    assert formatting.markdown(frame).splitlines() == [
        "|  | x | y |",
        "|---|---|---|",
        "| **a** | 1 \\| 2 | 4 |",
        "| **b** | 3\\* | 5 |",
    ]


@pytest.mark.parametrize(("file", "draw"), [("PICTURE", docs.draw_gpu), ("SCALING", docs.draw_scaling)])
def test_the_pictures_of_the_gpu_records_are_drawn_with_the_table(file, draw, monkeypatch, tmp_path):
    """PNGs, of the newest records."""
    monkeypatch.setattr(docs, file, tmp_path / "picture.png")
    draw()

    assert getattr(docs, file).read_bytes().startswith(b"\x89PNG")


def test_a_page_that_cannot_be_written_stays_whole(one_table, monkeypatch, capsys):
    """A mock of a full disk: one line that names the file, and the old text."""
    before = one_table.read_text()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.argv", ["docs"])
    monkeypatch.setattr(docs.paths.os, "replace", full)
    assert docs.main() == 1
    assert capsys.readouterr().err == f"{one_table} could not be written (No space left on device); every page is whole\n"
    assert (one_table.read_text(), len(list(one_table.parent.iterdir()))) == (before, 1)


# --- what they say, and where they lead ---


def test_the_readme_is_a_screen_and_a_half():
    """Everything else has a page, to which it leads."""
    text = README.read_text()
    pages = {page.name for page in PAGES[1:]} - {"index.md", "which.md", "throughput.md", "data.md"}  # made for the site

    assert len(text.splitlines()) <= LINES
    assert pages - set(re.findall(r"\]\(docs/(\S+?)\)", text)) == set()
    assert "\n    pip install nox && nox -s tour " in text and "\n    pip install nox && nox -s test " in text


def test_every_link_leads_somewhere_in_the_repository():
    """As it is followed where the files are read as they are: to a file or a folder, and to a heading of it."""
    assert [f"{page.name}: {link}" for page in PAGES for link in lost(page)] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    """To no file, and to no heading; code and other addresses are no links of ours."""
    (tmp_path / "a.md").write_text("# What is *it*?\n[a](b.md) [b](#what-is-it) [c](a.md#not) [d](https://x.org/#y) `[e](f.md)`")

    assert list(lost(tmp_path / "a.md")) == ["b.md", "a.md#not"]


def lost(page: Path) -> Iterator[str]:
    """The links of ``page`` that lead to no file, or to no heading of it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", page.read_text())):
        file, _, place = link.partition("#")
        there = (page.parent / file).resolve() if file else page
        if "://" not in link and (not there.exists() or place and place not in headings(there)):
            yield link


def headings(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


def test_no_sentence_stands_twice():
    """In the README and the pages; one that both need is taken over."""
    found = Counter(sentence for page in PAGES for sentence in sentences(page.read_text()))

    assert sum(found.values()) > 150 and [sentence for sentence, times in found.items() if times > 1] == []


def test_a_sentence_that_stands_twice_is_found():
    """Whatever stands around it; short ones, code and tables are none."""
    text = "# A heading that is as long as a sentence is\n\nOne two three four five six seven eight. Short.\n- One two three"
    table = "| One two three four five six seven eight. |"

    assert list(sentences(f"{text} four five six seven eight.\n{table}\n")) == ["One two three four five six seven eight."] * 2


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page with :data:`SHORT` words or more; what a command has made is none, nor are code and tables."""
    prose = NO_SENTENCE.sub("\n", MADE.sub("", text))
    for line in prose.splitlines():
        for sentence in re.split(r"(?<=[.:?]) ", line.removeprefix("- ").strip()):
            if len(sentence.split()) >= SHORT:
                yield sentence
