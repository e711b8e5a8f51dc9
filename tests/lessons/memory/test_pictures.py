"""Pictures of notebook 08: what is drawn are the numbers that were given."""

from helpers.lessons.memory import pictures

GIB, MIB = 2**30, 2**20


def blue(axes) -> list[float]:
    """The tokens of each row: the filled bars' widths."""
    return [patch.get_width() for patch in axes.patches if patch.get_fill()]


def boxes(axes) -> float:
    """All that is reserved: the widths of the boxes with a solid edge."""
    return sum(patch.get_width() for patch in axes.patches if not patch.get_fill() and patch.get_linestyle() in ("solid", "-"))


def test_requests_are_boxes():
    """Two requests of 5 and 7 tokens, at most 16, pages of 4, the first page common: 32, 16 and 12 tokens reserved."""
    figure = pictures.requests([5, 7], longest=16, page=4, common=4, title="Less is empty")
    rectangle, paged, shared = figure.axes

    assert [boxes(axes) for axes in (rectangle, paged, shared)] == [32, 16, 12]
    assert [blue(axes) for axes in (rectangle, paged, shared)] == [[5, 7], [5, 7], [5, 3]]
    assert [axes.get_title() for axes in figure.axes] == ["a rectangle", "pages of 4", "shared pages"]
    assert all(axes.get_xlim()[1] > 16 for axes in figure.axes)  # the right edge of the longest box is inside
    assert figure.get_suptitle() == "Less is empty"


def test_what_a_server_holds_is_stacked():
    """Weights, pool and the rest one after the other, and the calculator's answer as a mark."""
    parts = {"weights": 100 * MIB, "pool": 50 * MIB, "rest": 25 * MIB, "calculator": 140 * MIB}
    (axes,) = pictures.held({"an engine": parts}).axes

    assert [(patch.get_x(), patch.get_width()) for patch in axes.patches] == [(0, 100), (100, 50), (150, 25)]
    assert list(axes.lines[0].get_xdata()) == [140]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == parts.keys()


def test_growth_is_in_mib_over_tokens():
    """A line for each way, both axes logarithmic."""
    (axes,) = pictures.growth({"full": {1024: MIB, 4096: 4 * MIB}, "window": {1024: MIB, 4096: MIB}}).axes

    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 4], [1, 1]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert len({line.get_color() for line in axes.lines}) == 2


def test_users_against_cards():
    """Each model's name stands at its line, each card's at its own."""
    (axes,) = pictures.users({"a model": {1: 10 * GIB, 100: 30 * GIB}}, cards_gib=(24,)).axes

    assert [list(line.get_ydata()) for line in axes.lines] == [[10, 30], [24, 24]]
    assert [text.get_text() for text in axes.texts] == ["a model", "a card of 24 GiB"]
