"""Requests over time: a dot for each token, on one clock."""

from stamps import MS, sample

from helpers.bench.timing import Sample
from helpers.pictures import timelines


def test_requests_are_drawn_for_each_server():
    """A panel for each, and in the title when the last token of all came."""
    figure = timelines.slots({"1 slot": [[0, 10, 20], [0, 30, 40]], "8 slots": [[0, 15, 25], [0, 15, 26]]})

    assert [axes.get_title(loc="left") for axes in figure.axes] == ["1 slot", "8 slots"]
    assert figure.get_suptitle() == "2 requests at once are done after 40 ms with 1 slot, 26 ms with 8 slots"


def test_requests_stand_one_below_the_other_on_one_clock():
    """Seconds since the first was sent; a request without a token is drawn without dots; the server's number stands below."""
    requests = {"long": [10**9, 2 * 10**9, 3 * 10**9], "refused": [2 * 10**9]}
    above, below = timelines.joined(requests, [[10**9, 1], [2 * 10**9, 2]], title="one joins").axes

    assert [list(line.get_xdata()) for line in above.lines] == [[0, 1], [1, 2], [1], []]
    assert [label.get_text() for label in above.get_yticklabels()] == ["long", "refused"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in below.lines] == [([0, 1], [1, 2])]


def test_one_answer_shows_what_its_stamps_say():
    """TTFT from sending, TPOT over the tokens and not the events, the longest gap as ITL."""
    figure = timelines.answer(sample(1000, 1100, 1110, 1125, tokens=6), title="seen", note="llama.cpp")
    texts = [text.get_text() for text in figure.axes[0].texts]

    assert any(text.startswith("TTFT 100 ms\n") for text in texts)
    assert any(text.startswith("TPOT = 25 ms / 5 = 5.0 ms\n") for text in texts)
    assert "longest ITL 15.0 ms" in texts
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("seen", "llama.cpp")


def test_every_group_of_requests_begins_with_its_first_one():
    """A panel each, a row per answer; a request without an answer has none."""
    one, two = sample(500, 600, 610), sample(520, 700, 710)
    figure = timelines.timeline({"1 user": [one], "2 users": [two, one, Sample(500 * MS)]})
    drawn = [[list(line.get_xdata()) for line in axes.lines] for axes in figure.axes]

    assert [axes.get_ylabel() for axes in figure.axes] == ["1 user", "2 users"]
    assert drawn == [[[0, 100], [100, 110]], [[20, 200], [200, 210], [0, 100], [100, 110]]]
