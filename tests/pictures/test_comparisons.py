"""Repeats, medians, intervals and factors stand where their figures say."""

from stamps import sample

from helpers.bench import stats
from helpers.bench.timing import Level
from helpers.pictures import comparisons


def test_repeats_stand_in_columns_with_their_median():
    """Every repeat is drawn; the median is written beside its line."""
    axes = comparisons.columns({"cold": [0.4, 0.38, 0.41], "warm": [0.14, 0.13, 0.12]}, title="warm is sooner").axes[0]

    assert [list(line.get_ydata()) for line in axes.lines] == [[0.4, 0.38, 0.41], [0.14, 0.13, 0.12]]
    assert [text.get_text() for text in axes.texts] == ["0.4", "0.13"]


def test_factors_stand_at_their_number_of_users():
    """Numbers that came as texts, through JSON, are numbers again, in their order."""
    axes = comparisons.times({"fp8": {"100": 1.2, "1": 1.6, "10": 1.5}, "no graphs": {1: 0.4, 100: 0.6}}).axes[0]
    drawn = [line for line in axes.lines if not line.get_label().startswith("_")]

    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "100"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in drawn] == [
        ([0, 1, 2], [1.6, 1.5, 1.2]), ([0, 2], [0.4, 0.6]),
    ]  # fmt: skip


def test_factors_of_one_engine_have_one_colour_and_those_of_one_option_one_dash():
    """Also where the option has a comma, and an engine lacks one."""
    names = ("vLLM, fp8", "vLLM, no graphs, no compile", "SGLang, fp8", "plain")
    looks = {line.get_label(): line for line in comparisons.times(dict.fromkeys(names, {1: 1, 10: 2})).axes[0].lines}
    eight, without, other, plain = (looks[name] for name in names)

    assert eight.get_color() == without.get_color() != other.get_color() != plain.get_color()
    assert (eight.get_linestyle(), eight.get_marker()) == (other.get_linestyle(), other.get_marker())
    assert len({line.get_linestyle() for line in (eight, without, plain)}) == 3


def test_what_was_computed_stands_under_what_was_measured_with_a_band():
    """A panel for each label; the band ends where what was computed is a quarter too high and a quarter too low."""
    panels = {"TPOT, ms": {"one": [(5, 4), (10, 11)]}, "TTFT, ms": {"one": [(100, 110)], "two": [(50, 40)]}}

    tpot, ttft = comparisons.parity(panels, most=0.25).axes

    assert (tpot.get_xlabel(), ttft.get_ylabel()) == ("TPOT, ms, computed", "TTFT, ms, measured")
    assert [list(line.get_ydata()) for line in tpot.lines[1:]] == [[4, 11]]
    assert len(ttft.lines) == 3
    (band,) = tpot.collections
    edges = band.get_paths()[0].vertices
    assert {round(float(y / x), 3) for x, y in edges} == {0.8, 1.333}


def test_repeats_are_drawn_one_by_one_beside_their_ratio():
    """Six dots and a median for each, the floor as far below 1 as above it, the verdict in words."""
    levels = {
        name: Level(1, tuple((sample(0, 100, 100 + ms),) for ms in gaps))
        for name, gaps in {"a": (10, 11, 10, 12, 10, 11), "b": (20, 22, 20, 24, 20, 22)}.items()
    }
    (found,) = stats.compare({name: [level] for name, level in levels.items()}, "tpot_s", floor=0.25)[1]
    shown = {name: level.to_dict() for name, level in levels.items()}
    figure = comparisons.repeats(shown, "tpot_s", differences=[found], floor=0.25)
    each, ratios = figure.axes

    dots = [line.get_ydata() for line in each.lines if len(line.get_ydata()) == 6]
    assert [[round(value) for value in values] for values in dots] == [[10, 11, 10, 12, 10, 11], [20, 22, 20, 24, 20, 22]]
    assert [text.get_text() for text in each.get_legend().get_texts()] == ["a repeat", "median, 95 % interval"]
    assert [text.get_text() for text in ratios.texts] == ["0.50: real"]
    assert [tick.get_text() for tick in ratios.get_yticklabels()] == ["a /\nb"]
    assert ratios.patches[0].get_extents().width > 0
    figure.draw_without_rendering()


def test_each_name_has_a_row_from_the_top():
    """Its median, and the line from lowest to highest."""
    found = {"ours": {"median": 0.0, "low": 0.0, "high": 0.1}, "other": {"median": 8.0, "low": 6.5, "high": 10.0}}
    axes = comparisons.spreads(found, "error, ms").axes[0]

    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ours", "other"]
    assert axes.get_ylim() == (1.5, -0.5)
    assert [container[0].get_xdata()[0] for container in axes.containers] == [0.0, 8.0]
