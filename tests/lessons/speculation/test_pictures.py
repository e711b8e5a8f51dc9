"""The pictures of speculation show what they are given."""

from helpers.lessons.speculation import pictures


def span(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median}


def test_a_step_has_a_box_for_each_token():
    """Three guesses of which two are kept, then a step without a guess: two boxes kept, two of the target, one thrown away."""
    figure = pictures.steps({"copy": [(3, 2), (0, 0)]}, title="seen", notes=["a model"])
    bars = [list(container) for container in figure.axes[0].containers]
    kept, own, lost = ([(round(bar.get_x() + bar.get_width() / 2), bar.get_y()) for bar in one] for one in bars)

    assert (kept, own, lost) == ([(1, 0), (1, 1)], [(1, 2), (2, 0)], [(1, 3)])
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("seen", "a model")


def test_steps_without_any_guess_are_drawn_too():
    """A panel in which nothing was drafted has the target's tokens only."""
    figure = pictures.steps({"copy": [(1, 1)], "free": [(0, 0)]})

    assert [len(bars) for bars in figure.axes[1].containers] == [0, 1, 0]


def test_a_prediction_stands_in_the_row_of_its_measurement():
    """The dot is the median of the repeats."""
    rows = {"lookup": {"predicted": 3.0, "measured": [2.5, 2.9, 2.6]}, "model": {"predicted": 0.3, "measured": [0.4]}}
    figure = pictures.gains(rows)
    dots, diamonds = (line for line in figure.axes[0].lines if line.get_label() in ("measured", "predicted"))

    assert (list(dots.get_xdata()), list(diamonds.get_xdata())) == ([2.6, 0.4], [3.0, 0.3])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["lookup", "model"]


def test_a_group_of_bars_for_each_batch():
    """Each factor has one bar a group, as high as it says."""
    rows = {1: {"times fewer steps": 3.0, "times as fast": 2.0}, 16: {"times fewer steps": 2.0, "times as fast": 0.5}}
    figure = pictures.batches(rows)

    assert [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers] == [[3.0, 2.0], [2.0, 0.5]]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "16"]


def test_a_panel_for_each_number_of_users():
    """Both ways of one row, with the spread of each; a panel has its own rows."""
    rows = {"vLLM, H100": {"no drafts": span(400), "n-gram drafts": span(800)}}
    figure = pictures.recorded({"1 user": rows, "16 users": rows}, title="seen")
    left, right = figure.axes

    assert [list(bars[0].get_xdata()) for bars in left.containers] == [[400], [800]]
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("1 user", "16 users")


def test_a_line_for_each_engine_by_users():
    """At even steps; one that was not asked with all numbers of users has fewer points."""
    figure = pictures.by_users({"vllm": {16: span(0.9), 1: span(2.0)}, "sglang": {16: span(1.1)}})
    (axes,) = figure.axes
    vllm, sglang = (bars[0] for bars in axes.containers)

    assert list(vllm.get_ydata()) == [2.0, 0.9] and len(sglang.get_ydata()) == 1
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "16"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["vLLM", "SGLang"]
