"""Figures of measured levels: what is drawn, what is said, and that names do not overlap."""

import base64
import json

import pytest

from helpers import kernels, plots
from helpers.bench import stats
from helpers.bench.timing import Level, Sample

MS = 1_000_000  # ns


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


def test_a_block_shows_its_bytes_and_what_rounding_changed():
    """A scale of 0.5: low halves are the first 16 weights, high halves the others, and the title has the largest error."""
    stored = [0, 56, *[0xF0] * 16]  # levels 0 and 15: weights of -4 and 3.5
    figure = plots.q4_0_block(stored, [-4.0] * 16 + [3.75] * 16)
    before, held = (line.get_ydata() for line in figure.axes[1].lines[-2:])

    assert [*map(float, held)] == [-4.0] * 16 + [3.5] * 16 and before[31] == 3.75
    assert figure.get_suptitle() == "18 bytes hold 32 weights: levels 0.500 apart, the largest error is 0.250"
    assert [text.get_text() for text in figure.axes[0].texts][:6] == ["0", "", "56", "", "240", "0 15"]


def test_types_are_drawn_over_their_size():
    """What is small beside what is large, with the loss of each; the reference has none."""
    found = {
        "bf16": {"mib": 256, "tokens_per_s": [90, 100, 95], "kl": None},
        "Q4_0": {"mib": 64, "tokens_per_s": [190, 180, 200], "kl": 0.25},
    }
    figure = plots.gguf_types(found, notes=["right: recorded"])

    assert figure.get_suptitle() == "Q4_0: 4.0 times fewer bytes than bf16, 2.0 times its speed; most is lost in Q4_0"
    assert [float(line.get_ydata()[0]) for line in figure.axes[1].lines] == [0, 0.25]
    assert figure.get_supxlabel() == "right: recorded"


def test_requests_are_drawn_for_each_server():
    """A panel for each, and in the title when the last token of all came."""
    figure = plots.slots({"1 slot": [[0, 10, 20], [0, 30, 40]], "8 slots": [[0, 15, 25], [0, 15, 26]]})

    assert [axes.get_title(loc="left") for axes in figure.axes] == ["1 slot", "8 slots"]
    assert figure.get_suptitle() == "2 requests at once are done after 40 ms with 1 slot, 26 ms with 8 slots"


def test_a_picture_without_description_is_refused():
    """Alternative text is not optional."""
    with pytest.raises(ValueError, match="says too little: describe what the figure shows"):
        plots.show(plots.by_users({"llama-cpp": [level(1, 20)]}), alt="a plot")


def test_pages_stand_on_each_other_under_the_engines_own_line():
    """Two requests: what the second holds begins where the first one's pages end."""
    axes = plots.pages([1, 3, 2], {"long": [1, 1, 2], "short": [0, 2, 0]}, title="filled and freed", notes=["a CPU"]).axes[0]
    long, short = (area.get_paths()[0].get_extents() for area in axes.collections)

    assert (long.y1, short.y1) == (2, 3)
    assert [list(line.get_ydata()) for line in axes.lines] == [[1, 3, 2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["long", "short", "in use, says the engine"]


def test_requests_stand_one_below_the_other_on_one_clock():
    """Seconds since the first was sent; a request without a token is drawn without dots; the server's number stands below."""
    requests = {"long": [10**9, 2 * 10**9, 3 * 10**9], "refused": [2 * 10**9]}
    above, below = plots.joined(requests, [[10**9, 1], [2 * 10**9, 2]], title="one joins").axes

    assert [list(line.get_xdata()) for line in above.lines] == [[0, 1], [1, 2], [1], []]
    assert [label.get_text() for label in above.get_yticklabels()] == ["long", "refused"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in below.lines] == [([0, 1], [1, 2])]


TREE = [
    {"name": "root", "tokens": 300, "cached": 0, "parent": None},
    {"name": "a", "tokens": 350, "cached": 300, "parent": "root"},
    {"name": "b", "tokens": 350, "cached": 120, "parent": "root"},
    {"name": "a, then more", "tokens": 380, "cached": 350, "parent": "a"},
]


def test_a_branch_begins_where_the_tree_ended():
    """What was found is thin, what was computed begins behind it, and a line leads up to the one before."""
    axes = plots.prefix_tree(TREE, title="810 of 1,380", notes=["a CPU"]).axes[0]
    found, computed = axes.containers

    assert [bar.get_width() for bar in found] == [0, 300, 120, 350]
    assert [(bar.get_x(), bar.get_width()) for bar in computed] == [(0, 300), (300, 50), (120, 230), (350, 30)]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0, 1], [0, 2], [1, 3]]
    assert [text.get_text() for text in axes.texts][:2] == [
        "300 computed; its branch was found 2 times", "50 computed; its branch was found 1 times",
    ]  # fmt: skip


def test_a_branch_counts_as_found_only_whole():
    """The third prompt found 120 of the root's 300 tokens; the fourth found the root through its parent."""

    assert [plots.times_found(TREE, one["name"]) for one in TREE] == [2, 1, 0, 0]


def test_repeats_stand_in_columns_with_their_median():
    """Every repeat is drawn; the median is written beside its line."""
    axes = plots.columns({"cold": [0.4, 0.38, 0.41], "warm": [0.14, 0.13, 0.12]}, title="warm is sooner").axes[0]

    assert [list(line.get_ydata()) for line in axes.lines] == [[0.4, 0.38, 0.41], [0.14, 0.13, 0.12]]
    assert [text.get_text() for text in axes.texts] == ["0.4", "0.13"]


def test_factors_stand_at_their_number_of_users():
    """Numbers that came as texts, through JSON, are numbers again, in their order."""
    axes = plots.times({"fp8": {"100": 1.2, "1": 1.6, "10": 1.5}, "no graphs": {1: 0.4, 100: 0.6}}).axes[0]
    drawn = [line for line in axes.lines if not line.get_label().startswith("_")]

    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "100"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in drawn] == [
        ([0, 1, 2], [1.6, 1.5, 1.2]), ([0, 2], [0.4, 0.6]),
    ]  # fmt: skip


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


def test_next_tokens_say_which_are_out():
    """A panel for each way; of a token that cannot be drawn it stands there."""
    after = {"greedy": [1, 0, 0], "top_k 2": [0.7, 0.3, 0], "temperature 2": [0.5, 0.3, 0.2]}
    figure = plots.next_tokens([" tea", " soup", "."], [0.6, 0.3, 0.1], after, title="greedy takes the first")

    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == list(after)
    assert [len(axes.texts) for axes in shown] == [2, 1, 0]
    assert shown[0].yaxis.get_inverted()
    assert figure.get_suptitle() == "greedy takes the first"


def test_passes_have_a_line_for_each_way():
    """Steps in milliseconds, prefills in seconds; keys are strings, as JSON has them; one way has one colour."""
    point = lambda s: {"median": s, "low": s, "high": s}  # noqa: E731
    steps = {"sdpa": {"64": point(0.02)}, "static cache": {"64": point(0.03), "512": point(0.03)}}
    figure = plots.passes({"sdpa": {"64": point(0.1)}}, steps)
    left, right = figure.axes

    assert [list(line[0].get_ydata()) for line in left.containers] == [[0.1]]
    assert [list(line[0].get_ydata()) for line in right.containers] == [[20], [30, 30]]
    assert left.containers[0][0].get_color() == right.containers[0][0].get_color()


def test_what_a_batch_throws_away_is_drawn_apart():
    """Of the short request one token is wanted and two are not."""
    requests = {"long": {"stamps_s": [0.1, 0.2, 0.3], "wanted": 3}, "short": {"stamps_s": [0.1, 0.2, 0.3], "wanted": 1}}
    (axes,) = plots.batches({"static batch": requests}).axes

    assert [len(line.get_xdata()) for line in axes.lines] == [3, 0, 1, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["long: 3 tokens", "short: 1 tokens"]


def sample(sent_ms: int, *event_ms: int, tokens: int | None = None) -> Sample:
    """A request with its stamps in milliseconds, a token per event unless given."""
    return Sample(sent_ms * MS, tuple(ms * MS for ms in event_ms), output_tokens=tokens or len(event_ms))


def test_one_answer_shows_what_its_stamps_say():
    """TTFT from sending, TPOT over the tokens and not the events, the longest gap as ITL."""
    figure = plots.answer(sample(1000, 1100, 1110, 1125, tokens=6), title="seen", note="llama.cpp")
    texts = [text.get_text() for text in figure.axes[0].texts]

    assert any(text.startswith("TTFT 100 ms\n") for text in texts)
    assert any(text.startswith("TPOT = 25 ms / 5 = 5.0 ms\n") for text in texts)
    assert "longest ITL 15.0 ms" in texts
    assert (figure.get_suptitle(), figure.get_supxlabel()) == ("seen", "llama.cpp")


def test_every_group_of_requests_begins_with_its_first_one():
    """A panel each, a row per answer; a request without an answer has none."""
    one, two = sample(500, 600, 610), sample(520, 700, 710)
    figure = plots.timeline({"1 user": [one], "2 users": [two, one, Sample(500 * MS)]})
    drawn = [[list(line.get_xdata()) for line in axes.lines] for axes in figure.axes]

    assert [axes.get_ylabel() for axes in figure.axes] == ["1 user", "2 users"]
    assert drawn == [[[0, 100], [100, 110]], [[20, 200], [200, 210], [0, 100], [100, 110]]]


def test_repeats_are_drawn_one_by_one_beside_their_ratio():
    """Six dots and a median for each, the floor as far below 1 as above it, the verdict in words."""
    levels = {
        name: Level(1, tuple((sample(0, 100, 100 + ms),) for ms in gaps))
        for name, gaps in {"a": (10, 11, 10, 12, 10, 11), "b": (20, 22, 20, 24, 20, 22)}.items()
    }
    (found,) = stats.compare({name: [level] for name, level in levels.items()}, "tpot_s", floor=0.25)[1]
    shown = {name: level.to_dict() for name, level in levels.items()}
    figure = plots.repeats(shown, "tpot_s", differences=[found], floor=0.25)
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
    axes = plots.spreads(found, "error, ms").axes[0]

    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ours", "other"]
    assert axes.get_ylim() == (1.5, -0.5)
    assert [container[0].get_xdata()[0] for container in axes.containers] == [0.0, 8.0]
