"""Three ways to round one matrix to INT4: the same levels, other choices."""

import numpy as np
import pytest

from helpers.lessons.quantization import rounding


@pytest.fixture
def layer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, and inputs of two kinds of text that go together in the same way, some columns far larger than others."""
    draw = np.random.default_rng(0)
    mixed = draw.standard_normal((64, 64)) * np.exp(draw.standard_normal(64))
    sample, other = (draw.standard_normal((tokens, 64)) @ mixed for tokens in (512, 256))
    return draw.standard_normal((24, 64)), sample, other


def test_the_nearest_level():
    """The example of the notebook: 0.9 becomes 7 steps, and a block of zeros stays one."""
    w = np.array([[0.9, 0.1, -0.3, 0.05], [0, 0, 0, 0]])
    found = rounding.nearest(w, group=4)

    assert np.allclose(found / (0.9 / 7), [[7, 1, -2, 0], [0, 0, 0, 0]])


def test_both_lose_less_of_an_output_they_did_not_see(layer):
    """With as many levels, GPTQ moves the output of other inputs less than rounding to the nearest, AWQ not more."""
    w, sample, other = layer
    ways = {"nearest": rounding.nearest(w), "awq": rounding.awq(w, sample), "gptq": rounding.gptq(w, sample)}
    lost = {name: rounding.output_error(w, rounded, other) for name, rounded in ways.items()}

    assert lost["gptq"] < 0.9 * lost["nearest"]
    assert rounding.output_error(w, ways["awq"], sample) <= rounding.output_error(w, ways["nearest"], sample)


def test_gptq_has_fifteen_levels_in_a_block(layer):
    """Each block of a row holds whole numbers of steps, at most seven on each side."""
    w, sample, _ = layer
    block = rounding.gptq(w, sample)[0, :32]
    step = np.min(np.diff(np.unique(abs(block))))

    assert len(np.unique(block)) <= 15
    assert np.allclose(block / step, np.round(block / step), atol=1e-6)


def test_inputs_that_do_not_mix_leave_gptq_nothing_to_make_up_for(layer):
    """If no two columns go together, every weight is rounded for itself."""
    w, *_ = layer

    assert np.allclose(rounding.gptq(w, np.eye(64)), rounding.nearest(w))


def test_no_error_without_rounding(layer):
    """A matrix beside itself."""
    w, sample, _ = layer

    assert rounding.output_error(w, w, sample) == 0
