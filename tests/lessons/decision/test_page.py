"""vis/decision.html in a real browser, from its file and without a network: it says what Python says, to everybody."""

import json
import random
import re
from xml.etree import ElementTree

import accessible
import pytest
from offenders import over

from helpers.lessons.decision import choose, drawing, interpreter
from helpers.paths import REPOSITORY

PAGE = REPOSITORY / "vis" / "decision.html"
PICTURE = REPOSITORY / "vis" / "decision.svg"
DATA = choose.load()
CHAT = {"work": "chat", "users": "hundred", "device": "datacentre"}
FULL = CHAT | {"model": "Llama-3.1-8B", "context": "4k", "limits": "reading", "private": "ours", "price_per_hour": 3}
NOWHERE = {"work": "chat", "model": "DeepSeek-V3", "users": "hundreds", "device": "none"}


@pytest.fixture
def page(browser):
    """The committed page; its errors and requests are in ``page.seen``."""
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.seen = []
    page.on("request", lambda request: page.seen.append(request.url))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("console", lambda message: page.seen.append(message.text))
    page.goto(PAGE.as_uri())
    yield page
    context.close()


def answer(page, answers: dict) -> None:
    """Click and type them, as a reader does."""
    typed = [one["key"] for one in DATA["numbers"]] + ["model"]
    for key, value in answers.items():
        if key in typed:
            page.locator(f"input[name={key}]").fill(str(value))
            page.locator(f"input[name={key}]").blur()
        else:
            page.locator(f"input[name={key}][value='{value}']").check()


def many() -> list[dict]:
    """Answers of many kinds, the same ones every time: any of the questions answered, with sizes and numbers."""
    chosen, found = random.Random(14), []
    for _ in range(400):
        answers = {}
        for one in DATA["questions"]:
            options = [each["key"] for each in one["options"]] + (["13B", "235B-A22B", "7b"] if one["key"] == "model" else [])
            if chosen.random() < 0.6:
                answers[one["key"]] = chosen.choice(options)
        for key, values in {"memory_gib": (8, 24.5, 141), "gpus": (1, 2, 6, 16), "price_per_hour": (2.5, 0.13, 98)}.items():
            if chosen.random() < 0.3:
                answers[key] = chosen.choice(values)
        found.append(answers)
    return found


def test_the_page_says_what_python_says(page):
    """Hundreds of answers, each whole: lists, reasons, fit, speeds, cost, commands, what is next, and the address."""
    some = many()
    told = page.evaluate("some => JSON.stringify(some.map(answers => [interpret(DATA, answers), address(DATA, answers)]))", some)
    here = [[interpreter.interpret(DATA, answers), interpreter.address(DATA, answers)] for answers in some]
    different = [
        answers
        for answers, ours, theirs in zip(some, json.loads(json.dumps(here)), json.loads(told), strict=True)
        if ours != theirs
    ]

    assert different == []


def test_the_page_mends_an_address_as_python_does(page):
    """Misspelt, unknown, out of bounds, a hub id, a size, nothing."""
    texts = [
        "work=chatt&devise=none", "users=500&x=3", "gpus=2.5&memory_gib=24.5", "model=meta-llama/Llama-3.1-8B&work", "model=13b",
        "price_per_hour=abc&model=Lama-3.1-8B", "=&==&vendor=Measure", "",
    ]  # fmt: skip
    told = page.evaluate("texts => JSON.stringify(texts.map(text => read(DATA, text)))", texts)

    assert json.loads(told) == [list(interpreter.read(DATA, text)) for text in texts]


def test_the_page_asks_for_nothing_but_itself(page):
    """No resource, no error, no message; and no address of another host in its text."""
    answer(page, FULL)

    assert page.seen == [PAGE.as_uri()]
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", PAGE.read_text().replace("http://www.w3.org/2000/svg", "")) == []


@over(lambda: {str(answers): {"answers": answers} for answers in ({}, {"work": "chat"}, CHAT, FULL, NOWHERE)}, "answers")
def test_what_a_reader_sees(page, answers):
    """From no answer on: the list, its frameworks with their commands, the next question."""
    page.goto("about:blank")
    page.goto(PAGE.as_uri())
    answer(page, answers)
    found = choose.shortlist(**answers)
    heads = page.locator("#details h3").all_inner_texts()

    assert page.locator("#summary").inner_text() == (choose.ranked(DATA, found.groups) or DATA["said"]["none"])
    assert heads[: len(found.told["entries"])] == [DATA["titles"][one["name"]] for one in found.told["entries"]]
    assert page.locator("#said p").all_inner_texts() == found.told["said"]
    assert page.locator("pre").all_inner_texts() == [
        *("\n".join([*(f"export {pair}" for pair in one["environment"]), *one["commands"]]) for one in found.told["entries"]),
        found.told["measure"],
    ]


def test_an_address_holds_the_answers(page):
    """What is answered stands in it; a page opened with it has the same answers and the same list."""
    answer(page, FULL)
    address, said = page.evaluate("location.hash"), page.locator("#summary").inner_text()
    page.goto("about:blank")
    page.goto(PAGE.as_uri() + address)

    assert address == f"#{interpreter.address(DATA, FULL)}"
    assert page.locator("#summary").inner_text() == said
    assert page.locator("input[name=device][value=datacentre]").is_checked()
    assert page.locator("input[name=model]").input_value() == "Llama-3.1-8B"


def test_a_broken_address_gets_a_word(page):
    """What was taken for it, and what was left open."""
    page.goto("about:blank")
    page.goto(PAGE.as_uri() + "#work=chatt&users=forty-two")
    said = page.locator("#said p").all_inner_texts()

    assert said[:2] == interpreter.read(DATA, "work=chatt&users=forty-two")[1]
    assert page.locator("input[name=work][value=chat]").is_checked()


def test_a_claims_number_leads_to_its_cell(page):
    """Every link goes to a notebook beside the page; the notebook has the cell."""
    answer(page, FULL)
    links = page.locator("#details a").evaluate_all("links => links.map(link => [link.textContent, link.getAttribute('href')])")

    assert links
    for name, address in links:
        file, _, cell = address.partition("#cell-id=")
        notebook = (PAGE.parent / file).resolve()
        assert notebook.exists(), name
        assert not cell or f'"id": "{cell}"' in notebook.read_text(), name


def test_the_page_is_answered_with_the_keyboard_alone(page):
    """Tab into a question, arrow up from "Open" for its last answer; the list follows."""
    first, last = DATA["questions"][0], DATA["questions"][0]["options"][-1]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")

    assert page.locator(f"input[name={first['key']}][value={last['key']}]").is_checked()
    assert page.locator("#summary").inner_text() == choose.ranked(DATA, choose.shortlist(**{first["key"]: last["key"]}).groups)


def test_start_again_leaves_all_open(page):
    """Radio buttons, fields and the address."""
    before = page.locator("#summary").inner_text()
    answer(page, FULL)
    page.get_by_role("button", name="Start again").click()

    assert page.locator("#summary").inner_text() == before
    assert page.evaluate("location.hash") in ("", "#")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("answers", [{}, FULL, NOWHERE], ids=["open", "answered", "nowhere"])
def test_the_page_is_accessible(page, answers, scheme):
    """axe finds nothing: contrast, labels, groups, headings, landmarks."""
    page.emulate_media(color_scheme=scheme)
    answer(page, answers)

    assert accessible.faults(page) == []


def test_a_screen_reader_hears_groups_names_and_the_result(page):
    """Each question is a named group; the list is a polite status."""
    names = page.locator("fieldset > legend").all_inner_texts()

    assert names[: len(DATA["questions"])] == [one["text"] for one in DATA["questions"]]
    for name in names:
        assert page.get_by_role("group", name=name).count() == 1
    assert page.locator("#summary").get_attribute("role") == "status"
    assert page.get_by_label("A name, or a size such as 13B or 235B-A22B").count() == 1


@pytest.mark.parametrize("width", [320, 390, 1400])
def test_the_page_fits_its_window(page, width):
    """Nothing is cut off at a phone's width, the longest commands included."""
    page.set_viewport_size({"width": width, "height": 800})
    answer(page, FULL | {"device": "machines", "model": "DeepSeek-V3"})

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_picture_has_title_and_description():
    """Named by the root element, the first things in it; every colour of its text has contrast (WCAG AA)."""
    root = ElementTree.parse(PICTURE).getroot()
    title, desc = root[0], root[1]
    inks = {node.get("fill") for node in root.iter() if node.tag.endswith("}text")}

    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert (title.tag[-5:], desc.tag[-4:], len(title.text) > 20, len(desc.text) > 300) == ("title", "desc", True, True)
    assert inks <= {"#1b1b1b", "#4d4d4d"}


def test_page_and_picture_are_those_of_the_rules():
    """Written again they are the same, byte by byte: else run `python -m helpers.collection.decision`."""
    assert PAGE.read_text() == drawing.page(DATA)
    assert PICTURE.read_text() == drawing.picture(DATA)
