"""Pictures of copies and of several GPUs have what they were given."""

from helpers.lessons.scaling import pictures

FOUND = {"cached": 120, "prompt": 128, "ttft_s": 0.02}
COMPUTED = {"cached": 3, "prompt": 128, "ttft_s": 0.2}


def texts(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_an_answer_stands_at_its_end_in_its_copys_colour():
    """Two copies, and one request that failed and has no mark."""
    answers = [
        {"sent": 10.0, "ended": 11.5, "copy": "7"},
        {"sent": 12.0, "ended": 12.5, "copy": "8"},
        {"sent": 12.0, "ended": 13.0, "error": "InternalServerError"},
    ]
    axes = pictures.answered(answers, began=10.0, second=2.0, title="a second copy").axes[0]

    assert [[list(line.get_xdata()), list(line.get_ydata())] for line in axes.lines[:2]] == [[[1.5], [1.5]], [[2.5], [0.5]]]
    assert list(axes.lines[2].get_xdata()) == [2.0, 2.0]
    assert texts(axes.get_legend()) == ["copy 1", "copy 2"]


def test_a_computed_beginning_is_hollow():
    """Each router has its panel and counts both kinds; one that computed nothing has no hollow mark."""
    usual, aware = pictures.routed({"usual": [COMPUTED, FOUND, COMPUTED], "aware": [FOUND]}, title="more hits").axes

    assert texts(usual.get_legend()) == ["from a cache: 1", "computed: 2"]
    assert texts(aware.get_legend()) == ["from a cache: 1"]
    assert [list(line.get_xdata()) for line in usual.lines] == [[2], [1, 3]]
    assert list(usual.lines[1].get_ydata()) == [200, 200]
    assert [line.get_fillstyle() for line in usual.lines] == ["full", "none"]


def test_the_shared_axis_reaches_the_slowest_of_all():
    """Also where the last panel has it."""
    late = {**COMPUTED, "ttft_s": 10 * COMPUTED["ttft_s"]}
    usual, _ = pictures.routed({"usual": [COMPUTED], "aware": [late]}).axes

    assert usual.get_ylim()[1] > 1e3 * late["ttft_s"]


def test_every_way_has_the_whole_model():
    """TP, PP and EP cut it once, DP has it four times; what is sent stands below."""
    area = {way: sum(width * height for _, _, width, height, _ in pictures._boxes(way)) for way in pictures.WAYS}
    axes = pictures.ways({way: f"{way} sends" for way in pictures.WAYS}).axes

    assert area["TP"] == area["PP"] == 16
    assert {gpu for *_, gpu in pictures._boxes("EP")} == {0, 1, 2, 3}
    assert [one.get_title() for one in axes] == list(pictures.WAYS.values())
    assert ["DP sends" in {text.get_text() for text in one.texts} for one in axes] == [False, False, True, False]
    assert [len(one.texts) - 5 for one in axes] == [4, 3, 0, 4], "arrows, beside four GPUs and the line below"


def test_a_step_has_a_line_for_each_link():
    """Ticks that can be read, on both axes."""
    small, large = pictures.steps({"small": {"NVLink": [4, 2], "slow": [4, 9]}, "large": {"NVLink": [40, 20]}}, (1, 2)).axes

    assert [list(line.get_ydata()) for line in small.lines] == [[4, 2], [4, 9]]
    assert [tick.get_text() for tick in small.get_xticklabels()] == ["1", "2"]
    assert large.get_title() == "large"
    assert texts(large.get_legend()) == ["NVLink"]
