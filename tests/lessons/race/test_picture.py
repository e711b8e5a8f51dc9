"""The picture of a race: every piece at its stamp, a still end, whatever an engine wrote and whatever it failed of."""

import re
from xml.etree import ElementTree

import pytest

from helpers.lessons.race import lanes, picture
from helpers.lessons.race.lanes import Lane

SVG = "{http://www.w3.org/2000/svg}"
BLUE = Lane("vllm", (" The", " sky", " is", " blue", "."), (0.5, 1.0, 1.5, 2.0, 2.5), 0.5, 2.0, 5, 9)
FAILED = Lane("sglang", error="SGLang's server ended before it answered: no <port> & no luck")
BROKEN = Lane("transformers", (" The", " sky"), (0.25, 0.75), 0.25, error="stalled: no end within 120 s")


def drawn(*several: Lane, **options) -> ElementTree.Element:
    """The picture, read as XML: it must be well-formed."""
    return ElementTree.fromstring(picture.svg(several, key="race-x", title="A race", gpu=True, **options))


def pieces(tree: ElementTree.Element) -> list[tuple[str, str]]:
    """What comes, and when."""
    spans = tree.iter(f"{SVG}tspan")
    return [(span.text, span.get("style").removeprefix("animation-delay:")) for span in spans]


def said(tree: ElementTree.Element) -> list[str]:
    """All lines of text."""
    return ["".join(text.itertext()) for text in tree.iter(f"{SVG}text")]


def marks(tree: ElementTree.Element) -> list[list[float]]:
    """Where each lane's marks stand on its axis."""
    paths = [path.get("d") for path in tree.iter(f"{SVG}path")]
    return [[float(x) for x in re.findall(r"M([\d.]+) ", path)] for path in paths if "v11" in path]


def test_every_piece_comes_at_its_stamp():
    """In the text and on the axis, whose end is the last stamp here."""
    tree = drawn(BLUE)
    left = picture.EDGE + picture.PAD

    assert pieces(tree) == [("The", "0.5s"), (" sky", "1s"), (" is", "1.5s"), (" blue", "2s"), (".", "2.5s")]
    assert marks(tree) == [[pytest.approx(left + at / 2.5 * picture.INNER, abs=0.1) for at in BLUE.at_s]]
    assert "Replayed as fast as it was." in said(tree)


@pytest.mark.parametrize(("times", "first", "pace"), [(0.1, "0.4s", "8 times slower"), (100, "5.556s", "9 times faster")])
def test_a_race_that_is_too_short_or_too_long_to_watch_has_another_pace(times, first, pace):
    """And the picture says so."""
    tree = drawn(Lane("vllm", ("a", "b"), (0.5 * times, 2.5 * times)))

    assert pieces(tree)[0] == ("a", first)
    assert f"Replayed {pace} than it was." in said(tree)


def test_the_figures_come_with_the_last_piece():
    """Two of them, in words."""
    (figures,) = [text for text in drawn(BLUE).iter(f"{SVG}text") if (text.text or "").startswith("first token")]

    assert (figures.text, figures.get("style")) == ("first token after 500 ms, 2 tokens/s", "animation-delay:2.5s")


def test_nothing_moves_for_those_who_asked_for_less_motion_and_nothing_is_a_script():
    """Every animation stands in the one block for the others; without it all text is there."""
    text = picture.svg([BLUE], key="race-x", title="A race")
    before, after = text.split("@media (prefers-reduced-motion:no-preference){")

    assert "animation:" not in before and "<script" not in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert after.partition("</style>")[0].count("animation:") == 2
    assert '<rect x="29" y="119" width="391" height="13" fill="#f6f6f3" fill-opacity="0" class="card wipe"/>' in text


def test_it_is_dark_where_the_reader_asked_for_it():
    """One block of other colours; llama.cpp's black takes the colour of the text."""
    text = picture.svg([Lane("llama-cpp-q4_0", ("a",), (1.0,))], key="race-x", title="A race")

    assert text.count("prefers-color-scheme:dark") == 1
    assert text.count('"#000000"') == text.count(' class="black"') == 2


def test_a_picture_that_does_not_move_has_what_came_so_far():
    """No animation and no piece on its own: it is drawn ten times a second."""
    text = picture.svg([Lane("vllm", (" The", " sky"), (0.5, 1.0), 0.5, state="runs")], key="race-x", title="A", moving=False)

    assert "animation" not in text and "wipe" not in text.partition("</style>")[2] and "tspan" not in text
    assert ">The sky</text>" in text and ">2 pieces so far</text>" in text


def test_an_engine_that_failed_stands_there_with_its_reason():
    """Also one whose answer broke off: what came of it is kept, and neither has figures."""
    tree = drawn(FAILED, BROKEN)
    lines = said(tree)

    assert {"SGLang", "no answer", "HF Transformers", "broke off after 0.8 s", "The sky"} <= set(lines)
    assert "no <port> & no luck" in " ".join(lines) and "stalled: no end within 120 s" in lines
    assert not [line for line in lines if "tokens/s" in line] and len(marks(tree)) == 1
    assert "no <port> & no luck" in tree.find(f"{SVG}desc").text


def test_nobody_answered():
    """There is a picture, and nothing to replay."""
    assert not [line for line in said(drawn(FAILED)) if "Replayed" in line]


def test_a_piece_without_text_is_a_mark_and_no_word():
    """So is one that is a space after a space."""
    tree = drawn(Lane("vllm", ("", " a", " ", "\n\n", "b", ""), (0.5, 1.0, 1.5, 1.5, 2.0, 2.5)))

    assert pieces(tree) == [("a", "1s"), (" ", "1.5s"), ("b", "2s")]
    assert [len(of) for of in marks(tree)] == [6]


def test_an_answer_without_any_text():
    """It is said, and no figure is made up."""
    assert picture.figures(Lane("vllm")) == "an answer without text"


def test_what_a_model_writes_is_no_markup():
    """Nor does a letter that XML does not allow break the picture."""
    tree = drawn(Lane("vllm", ("</text><script>", "&amp;", "\x00\x1b", "\ud83d"), (0.5, 1, 2, 2.5)), prompt="1 < 2 & \x07")

    assert "".join(text for text, _ in pieces(tree)) == "</text><script>&amp;\ufffd\ufffd\ufffd"
    assert "The prompt: 1 < 2 & \ufffd" in said(tree) and not list(tree.iter(f"{SVG}script"))


def test_lines_are_broken_between_words_and_within_a_word_that_is_too_long():
    """No letter is lost, and each keeps its piece."""
    answer = [" word"] * 30 + [" " + "x" * 70]
    lines = picture.wrapped(answer)

    assert max(sum(len(text) for _, text in line) for line in lines) <= picture.COLUMNS
    assert " ".join("".join(text for _, text in line) for line in lines).split()[:30] == ["word"] * 30
    assert "".join(text for line in lines for number, text in line if number == 30).strip() == "x" * 70


def test_a_long_answer_ends_in_its_card():
    """With a mark that there was more, which comes with the last piece that is shown."""
    lines = picture.wrapped([" word"] * 500)

    assert len(lines) == picture.LINES and lines[-1][-1][1] == "…"
    assert picture.wrapped(["word"], 0) == []


def test_the_words_have_what_the_picture_has():
    """For those who do not see it: figures, reasons and answers."""
    assert picture.words([BLUE, BROKEN], gpu=True) == [
        "vLLM: first token after 500 ms, 2 tokens/s; it wrote: The sky is blue.",
        "HF Transformers: broke off after 0.8 s; stalled: no end within 120 s; it wrote: The sky",
    ]


@pytest.mark.parametrize(("last_s", "axis_s"), [(4.2, 4.5), (0.231, 0.25), (12.3, 15), (2.5, 2.5)])
def test_the_axis_ends_soon_after_the_last_stamp(last_s, axis_s):
    """At a round figure."""
    assert picture.span([Lane("vllm", ("a",), (last_s,)), FAILED]) == axis_s


def test_a_piece_without_a_stamp_is_refused():
    """A record that was cut by hand."""
    with pytest.raises(ValueError, match="^vllm: 2 pieces and 1 stamps: each piece needs its own$"):
        Lane("vllm", ("a", "b"), (0.5,))


def test_a_lane_comes_back_from_a_record():
    """As it was; what a race that goes on knows of it is not kept."""
    kept = BLUE.to_dict()

    assert "state" not in kept
    found = {"ways": {"alone": [{**kept, "pieces": list(BLUE.pieces), "at_s": list(BLUE.at_s)}]}}
    assert lanes.of_record(found, "alone") == [BLUE]


def test_small():
    """Five engines with 64 tokens each: less than 100 KB."""
    many = [Lane(name, (" token",) * 64, tuple(0.01 * n for n in range(64))) for name in ("vllm", "sglang", "transformers")]
    text = picture.svg([*many, *many[:2]], key="race-x", title="A race")

    assert len(text.encode()) < 100_000


def test_a_browser_plays_it_at_the_stamps(browser):
    """At 1.2 s the pieces until then are to be seen, and the marks behind; those who want less motion see all at once."""
    page = browser.new_page(reduced_motion="no-preference")
    page.set_content(picture.svg([BLUE], key="race-x", title="A race"))
    page.evaluate("document.getAnimations().forEach(one => { one.pause(); one.currentTime = 1200 })")
    seen = page.evaluate("[...document.querySelectorAll('tspan')].map(one => getComputedStyle(one).fillOpacity)")
    covered = page.evaluate("document.querySelector('.wipe').getBoundingClientRect().width")
    still = browser.new_page(reduced_motion="reduce")
    still.set_content(picture.svg([BLUE], key="race-x", title="A race"))

    assert seen == ["1", "1", "0", "0", "0"]
    assert covered == pytest.approx((1 - 1.2 / 2.5) * page.evaluate("document.querySelector('.wipe').getBBox().width"), rel=0.05)
    assert still.evaluate("document.getAnimations().length") == 0
    page.close()
    still.close()
