"""Figures of measured levels: what is drawn, what is said, and that names do not overlap."""

import base64
import json

import pytest

from helpers import kernels, plots


def level(users: int, rate: float | None, label: str | None = None) -> dict:
    found = None if rate is None else {"median": rate, "low": 0.9 * rate, "high": 1.1 * rate}
    return {
        "users": users,
        "requests": 4,
        "repeats": 3,
        "output_tokens_per_s": found,
        "ttft_s": found,
        "tpot_s": found,
        "label": label,
    }


def test_a_table_has_a_row_per_level_with_its_spread():
    """Median, low and high; milliseconds for latencies."""
    table = plots.table({"transformers": [level(1, 20), level(10, 85)], "llama-cpp": [level(1, None)]})

    assert list(table.index) == [("HF Transformers", "bf16", 1), ("HF Transformers", "bf16", 10), ("llama.cpp", "Q4_1", 1)]
    assert list(table.iloc[0]) == ["3 x 4", "20 (18 to 22)", "20000 (18000 to 22000)", "20000 (18000 to 22000)"]
    assert table.iloc[2]["output tokens/s"] == "none"


def test_a_table_says_why_a_level_is_no_measurement():
    """The column appears where a level needs it."""
    table = plots.table({"llama-cpp": [level(1, 20, "not a measurement: 1 repeats after 0 warm-ups"), level(4, 30)]})

    assert list(table["note"]) == ["not a measurement: 1 repeats after 0 warm-ups", ""]


@pytest.mark.parametrize(
    ("heights", "placed"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.4, 0.44, 0.46], [0.333, 0.433, 0.533]),
        ([0.1, 0.5, 0.52, 0.65], [0.1, 0.457, 0.557, 0.657]),
        ([], []),
    ],
)
def test_names_are_pushed_apart_no_more_than_needed(heights, placed):
    """Each group of close heights is centred on its mean; the others stay."""

    assert plots.apart(heights, 0.1) == pytest.approx(placed, abs=1e-3)


def test_a_refused_level_breaks_the_line_and_its_reason_stands_there():
    """Nothing is drawn from 1 to 100 users over a gap at 10."""
    measured = [level(1, 20), level(10, None, "not a measurement: 3 of 60 requests failed"), level(100, 30)]
    figure = plots.by_users({"sglang": measured}, gpu=True)

    assert [list(line[0].get_xdata()) for line in figure.axes[0].containers] == [[1], [100]]
    assert figure.get_supxlabel() == "SGLang, 10 users: not a measurement: 3 of 60 requests failed"
    assert plots.by_users({"sglang": measured[:1]}).get_supxlabel() == ""


def test_a_path_goes_from_few_users_to_many_and_ends_at_a_gap():
    """Throughput to the right, the wait upwards, the users at the points; a refused level breaks it and says why."""
    measured = [level(1, 20), level(4, 60), level(10, None, "not a measurement: 3 of 60 requests failed"), level(100, 30)]
    figure = plots.trade({"sglang": measured}, "a title", ["a note"], gpu=True)
    axes = figure.axes[0]

    assert [list(path[0].get_xdata()) for path in axes.containers] == [[20, 60], [30]]
    assert [text.get_text() for text in axes.texts] == ["1", "4", "100", "SGLang"]
    assert figure.get_supxlabel() == "SGLang, 10 users: not a measurement: 3 of 60 requests failed\na note"
    assert figure.get_suptitle() == "a title"


def test_users_at_once_and_arrivals_are_told_apart_in_one_picture():
    """A token's time as tokens/s of a user, over the share of a GPU; each point with its load, a gap left out."""

    def point(users, rate, tpot_s, **more):
        return {"users": users, "output_tokens_per_s": {"median": rate}, "tpot_s": {"median": tpot_s}, "gpus": 2, **more}

    arriving = [point(None, 100, 0.02, rate_per_s=4)]
    figure = plots.per_user({"vllm": [point(1, 20, 0.01), {**point(10, 0, 1), "tpot_s": None}, *arriving]}, "t", ["n"], gpu=True)
    (axes,) = figure.axes
    once, random = axes.lines[:2]

    assert (list(once.get_xdata()), list(once.get_ydata()), once.get_linestyle()) == ([10], [100], "-")
    assert (list(random.get_xdata()), list(random.get_ydata()), random.get_linestyle()) == ([50], [50], "--")
    assert [text.get_text() for text in axes.texts] == ["1", "4/s", "vLLM"]
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("t", "n")


def test_goodput_is_drawn_over_the_limit():
    """A line for each engine, its spread behind it."""
    kept = {limit: {"median": rate, "low": rate - 1, "high": rate + 1} for limit, rate in ((0.1, 2), (1, 5))}
    axes = plots.within({"vllm": kept}, "a title", ["a note"]).axes[0]

    assert [list(line.get_ydata()) for line in axes.lines] == [[2, 5]] and len(axes.collections) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["vLLM"]


def test_what_is_to_know_stands_below_the_picture():
    """After the reasons of the gaps."""
    refused = level(10, None, "not a measurement: 3 of 60 requests failed")
    figure = plots.by_users({"sglang": [level(1, 20), refused]}, notes=["vLLM: compiled"], gpu=False)

    below = "SGLang (PyTorch attention), 10 users: not a measurement: 3 of 60 requests failed\nvLLM: compiled"
    assert figure.get_supxlabel() == below
    assert [text.get_text() for text in figure.axes[0].texts] == ["SGLang (PyTorch attention)"]


def test_a_table_says_what_ran_without_its_own_kernels():
    """On a CPU."""
    assert list(plots.table({"sglang": [level(1, 20)]}, gpu=False).index) == [("SGLang (PyTorch attention)", "bf16", 1)]


def test_every_engine_is_named_at_its_line():
    """Two engines with equal values have two names at two heights."""
    figure = plots.by_users({"llama-cpp": [level(1, 20), level(4, 30)], "transformers": [level(1, 20), level(4, 30)]})
    heights = {text.get_text(): text.xyann[1] for text in figure.axes[0].texts}

    assert heights.keys() == {"llama.cpp", "HF Transformers"}
    assert abs(heights["llama.cpp"] - heights["HF Transformers"]) == pytest.approx(plots.LABEL_GAP)


def test_an_engine_without_figures_is_not_drawn():
    """Every request failed: no line and no name."""
    figure = plots.by_users({"llama-cpp": [level(1, None)], "transformers": [level(1, 20)]})

    assert [text.get_text() for text in figure.axes[0].texts] == ["HF Transformers"]


def test_a_picture_without_description_is_refused():
    """Alternative text is not optional."""
    with pytest.raises(ValueError, match="says too little: describe what the figure shows"):
        plots.show(plots.by_users({"llama-cpp": [level(1, 20)]}), alt="a plot")


def test_a_picture_is_drawn_in_the_lab_where_there_is_no_matplotlib(monkeypatch):
    """The lab's interpreter is given the function's name and its data, and its PNG is shown here."""
    asked, shown = [], []

    def ask(kernel, *arguments, given):  # a mock of kernels.ask: this interpreter has matplotlib
        asked.append((kernel, arguments, json.loads(given)))
        return base64.b64encode(b"a picture").decode()

    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    monkeypatch.setattr(plots.kernels, "ask", ask)
    monkeypatch.setattr(plots, "_publish", lambda png, alt: shown.append((png, alt)))
    plots.drawn(plots.by_users, "tokens per second over users", levels={"llama-cpp": [level(1, 20)]})

    assert shown == [(b"a picture", "tokens per second over users")]
    assert asked == [("lab", ("helpers.plots", "helpers.plots", "by_users"), {"levels": {"llama-cpp": [level(1, 20)]}})]


def test_the_program_that_draws_prints_one_png():
    """In a process of its own, as an engine's kernel starts it."""
    given = json.dumps({"levels": {"llama-cpp": [level(1, 20)]}})
    png = kernels.ask(None, "helpers.plots", "helpers.plots", "by_users", given=given)

    assert base64.b64decode(png).startswith(b"\x89PNG")


@pytest.mark.parametrize("inches", [4.6, 7.6])
def test_no_title_is_wider_than_its_figure(inches):
    """It breaks; what is cut off at the edge cannot be read."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = plots.titled(Figure(figsize=(inches, 3), layout="constrained"), "a warm prompt's first token came early " * 5)
    renderer = FigureCanvasAgg(figure).get_renderer()

    assert figure.get_suptitle().replace("\n", " ") == ("a warm prompt's first token came early " * 5).strip()
    assert figure._suptitle.get_window_extent(renderer).width <= figure.bbox.width


def test_notes_below_do_not_press_the_panels():
    """Names at the lines' ends keep their distance: a figure with notes is higher by them."""
    plain, noted = (plots.by_users({"vllm": [level(1, 20), level(10, 85)]}, notes=notes) for notes in ((), ["a note"] * 5))

    assert noted.get_figheight() - plain.get_figheight() == pytest.approx(5 * 0.14)
