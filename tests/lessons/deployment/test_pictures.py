"""What the pictures of notebook 12 draw."""

from helpers.lessons.deployment import pictures


def seen(line) -> list[tuple[float, float]]:
    return list(zip(line.get_xdata(), line.get_ydata()))


def test_a_request_stands_at_its_place_and_its_colour_says_who_answered():
    """Both servers have their own marks, a request that nobody answered is a cross, and the time-out is a line."""
    rounds = {"healthy": [(0.4, "remote"), (0.5, "remote")], "stalled": [(0.4, "remote"), (3.4, "local"), (3.1, None)]}

    healthy, stalled, empty = pictures.latencies(rounds, 3, title="three seconds", notes=["a CPU"]).axes

    assert [seen(line) for line in healthy.lines[1:]] == [[(1, 0.4), (2, 0.5)], [], []]
    assert [seen(line) for line in stalled.lines[1:]] == [[(1, 0.4)], [(2, 3.4)], [(3, 3.1)]]
    assert list(stalled.lines[0].get_ydata()) == [3, 3]
    assert [axes.get_title() for axes in (healthy, stalled)] == ["healthy", "stalled"]
    assert not empty.axison


def test_waiting_requests_stand_on_those_at_work():
    """The upper area begins where the lower one ends; a look that said nothing is left out."""
    looks = {"one": [(0.0, 0, 0), (0.1, None, None), (0.2, 4, 2), (0.4, 2, 0)], "silent": [(0.0, None, None)]}

    one, silent = pictures.loads(looks, slots=4, title="four slots").axes
    at_work, waiting = one.collections

    assert seen(one.lines[1]) == [(0.0, 0), (0.2, 4), (0.4, 2)]
    assert at_work.get_paths()[0].vertices[:, 1].max() == 4
    assert waiting.get_paths()[0].vertices[:, 1].max() == 6
    assert len(silent.lines) == 1 and not silent.collections


def test_a_write_stands_in_the_row_of_its_item():
    """In the order of both runs, a mark for each stage, the kill between the two; hollow where the item was given up."""
    first, second = ["check a", "check b", "check c", "ask a"], ["ask b", "ask b", "write a"]

    figure = pictures.writes(first, second, failed={"b": "ask", "c": "check"}, title="none twice")
    (axes,) = figure.axes
    *stages, kill = axes.lines

    assert {line.get_label(): seen(line) for line in stages if line.get_fillstyle() == "full"} == {
        "check": [(1, 0), (2, 1)], "ask": [(4, 0)], "write": [(7, 0)],
    }  # fmt: skip
    assert [seen(line) for line in stages if line.get_fillstyle() == "none"] == [[(3, 2)], [(5, 1), (6, 1)], []]
    assert list(kill.get_xdata()) == [4.5, 4.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
