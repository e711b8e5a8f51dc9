"""The pictures of the decision have what they were given."""

from helpers.collection import claims
from helpers.lessons.decision import pictures


def texts(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_every_verdict_has_a_colour():
    """Those of claims.toml, in their order."""
    assert tuple(pictures.VERDICTS) == claims.VERDICTS


def test_a_part_is_as_long_as_it_has_claims():
    """Its bars lie end to end, the first part on top."""
    axes = pictures.verdicts({"Memory": {"holds": 2, "wrong": 3}, "Throughput": {"wrong": 1}}, title="some are wrong").axes[0]
    bars = {(bar.get_x(), bar.get_width()) for bar in axes.patches if bar.get_width()}

    assert bars == {(0, 2), (2, 3), (0, 1)}
    assert axes.yaxis_inverted()
    assert texts(axes.get_legend()) == list(pictures.VERDICTS)


def test_what_is_said_is_dashed_and_what_was_measured_is_not():
    """A framework that was not measured has one line."""
    axes = pictures.gains({"vllm": {1: 1, 10: 7.5}, "tensorrt-llm": {1: 1, 10: 8}}, {"vllm": {1: 1, 10: 8.9}}).axes[0]

    assert [(line.get_linestyle(), list(line.get_ydata())) for line in axes.lines] == [
        ("--", [1, 7.5]), ("-", [1, 8.9]), ("--", [1, 8]),
    ]  # fmt: skip
    assert texts(axes.get_legend()) == ["vLLM, the document", "vLLM, measured", "TensorRT-LLM, the document"]


def test_a_price_has_a_line_for_each_framework():
    """Over users, with ticks that can be read."""
    axes = pictures.prices({"vllm": {1: 5.0, 100: 0.1}, "llama-cpp": {1: 2.6}}).axes[0]

    assert [list(line.get_ydata()) for line in axes.lines] == [[5.0, 0.1], [2.6]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "100"]


def test_a_line_under_another_one_is_seen():
    """What was measured of vLLM is wider than SGLang's, which lies on it in the records; the price's axis says what it is."""
    same = {1: 1.0, 100: 45.0}
    gains = pictures.gains({"vllm": same}, {"vllm": same, "sglang": same}).axes[0]
    prices = pictures.prices({"vllm": same, "sglang": same}).axes[0]

    assert gains.lines[1].get_linewidth() > gains.lines[2].get_linewidth() == gains.lines[0].get_linewidth()
    assert prices.lines[0].get_linewidth() > prices.lines[1].get_linewidth()
    assert prices.get_ylabel() == "price of a million output tokens"
