"""What may come next, what a pass costs, what a batch throws away."""

from helpers.pictures import generation


def test_next_tokens_say_which_are_out():
    """A panel for each way; of a token that cannot be drawn it stands there."""
    after = {"greedy": [1, 0, 0], "top_k 2": [0.7, 0.3, 0], "temperature 2": [0.5, 0.3, 0.2]}
    figure = generation.next_tokens([" tea", " soup", "."], [0.6, 0.3, 0.1], after, title="greedy takes the first")

    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list(after)
    assert [len(axes.texts) for axes in shown] == [2, 1, 0]
    assert shown[0].yaxis.get_inverted()
    assert figure.get_suptitle() == "greedy takes the first"
    # two columns: the second and the third panel have nothing below them, and so the numbers
    assert [axes.get_xlabel() for axes in shown] == ["", "probability", "probability"]
    assert [any(label.get_visible() for label in axes.get_xticklabels()) for axes in shown] == [False, True, True]


def test_passes_have_a_line_for_each_way():
    """Steps in milliseconds, prefills in seconds; keys are strings, as JSON has them; one way has one colour."""
    point = lambda s: {"median": s, "low": s, "high": s}  # noqa: E731
    steps = {"sdpa": {"64": point(0.02)}, "static cache": {"64": point(0.03), "512": point(0.03)}}
    figure = generation.passes({"sdpa": {"64": point(0.1)}}, steps)
    left, right = figure.axes

    assert [list(line[0].get_ydata()) for line in left.containers] == [[0.1]]
    assert [list(line[0].get_ydata()) for line in right.containers] == [[20], [30, 30]]
    assert left.containers[0][0].get_color() == right.containers[0][0].get_color()


def test_what_a_batch_throws_away_is_drawn_apart():
    """Of the short request one token is wanted and two are not."""
    requests = {"long": {"stamps_s": [0.1, 0.2, 0.3], "wanted": 3}, "short": {"stamps_s": [0.1, 0.2, 0.3], "wanted": 1}}
    (axes,) = generation.batches({"static batch": requests}).axes

    assert [len(line.get_xdata()) for line in axes.lines] == [3, 0, 1, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["long: 3 tokens", "short: 1 tokens"]
