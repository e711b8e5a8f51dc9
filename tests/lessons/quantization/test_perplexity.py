"""Perplexity, KL divergence and top-1 agreement, computed by hand; and texts that cannot be scored."""

import math

import numpy as np
import pytest

from helpers import kernels, paths
from helpers.lessons.quantization import perplexity
from helpers.lessons.quantization.perplexity import PerplexityError
from helpers.weights.files import ModelError


@pytest.fixture
def files(unquantized_file, model_file):
    """The model unquantized, and as it is shipped."""
    return {"bf16": unquantized_file, "Q4_1": model_file}


def constant(*probabilities: float):
    """A model that always predicts the same distribution."""
    return lambda ids: np.log(np.tile(np.array(probabilities, np.float32), (len(ids), 1)))


def scored(model, of):
    return perplexity.log_probabilities(model, of)


class TestWindows:
    """Whole windows only, and those that cannot be had are refused."""

    def test_the_rest_is_left_out(self):
        """25 tokens are two windows of ten."""

        assert perplexity.windows(range(25), 10) == [list(range(10)), list(range(10, 20))]

    def test_fewer_on_request(self):
        """The first ones."""

        assert perplexity.windows(range(25), 10, 1) == [list(range(10))]

    def test_a_begin_token_takes_a_place_in_each(self):
        """Nine tokens of the text and the one the model wants first."""

        assert perplexity.windows(range(20), 10, bos=[99]) == [[99, *range(9)], [99, *range(9, 18)]]

    def test_a_text_too_short_for_one(self):
        """It says how many tokens there are and how many it takes."""
        with pytest.raises(PerplexityError, match="^the text has 9 tokens, 1 window of 10 need 10: give more text"):
            perplexity.windows(range(9), 10)

    def test_a_text_too_short_for_all(self):
        """Asked for three, there are two."""
        with pytest.raises(PerplexityError, match="^the text has 25 tokens, 3 windows of 10 need 30: give more text"):
            perplexity.windows(range(25), 10, 3)

    @pytest.mark.parametrize(("context", "count"), [(7, 1), (0, None), (512, 0), (512, -1)])
    def test_numbers_that_make_no_window(self, context, count):
        """Refused by name."""
        with pytest.raises(ValueError, match=f"^context={context}, windows={count}: give windows of at least 8 tokens"):
            perplexity.windows(range(1000), context, count)


class TestQuality:
    """Small distributions, worked out on paper."""

    def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(self):
        """Every token is one of four equally probable ones."""
        of = perplexity.windows([0, 1, 2, 3] * 10, 10)
        found = perplexity.quality(scored(constant(0.25, 0.25, 0.25, 0.25), of), of)

        assert found.perplexity == pytest.approx(4, rel=1e-6)
        assert (found.tokens, found.kl, found.ratio, found.top1) == (4 * 4, None, None, None)

    def test_only_the_second_half_is_scored(self):
        """Token 1 stands in the first half of the window only, and a model that forbids it loses nothing."""
        of = [[1, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
        found = perplexity.quality(scored(constant(1 - 1e-6, 1e-6), of), of)

        assert (found.tokens, found.perplexity) == (4, pytest.approx(1, abs=1e-5))

    def test_the_row_before_a_token_predicts_it(self):
        """A model that repeats its last token knows a text of one token, and not one that alternates."""

        def repeats(ids):
            return np.where(np.arange(2) == np.array(ids)[:, None], 0.0, -20.0).astype(np.float32)

        same, other = [[1] * 10], [[0, 1] * 5]

        assert perplexity.quality(scored(repeats, same), same).perplexity == pytest.approx(1, abs=1e-6)
        assert perplexity.quality(scored(repeats, other), other).perplexity == pytest.approx(math.exp(20), rel=1e-3)

    def test_divergence_and_ratio_by_hand(self):
        """Reference (1/2, 1/2), model (3/4, 1/4), text of token 1: KL = ln(2/sqrt 3), ratio = (1/2) / (1/4)."""
        of = [[1] * 20]
        reference = scored(constant(0.5, 0.5), of)
        found = perplexity.quality(scored(constant(0.75, 0.25), of), of, reference)

        assert found.kl == pytest.approx(math.log(2 / math.sqrt(3)), rel=1e-5)
        assert found.ratio == pytest.approx(2, rel=1e-5)
        assert found.ratio_se == pytest.approx(0, abs=1e-6)

    def test_a_model_agrees_with_itself(self):
        """No divergence, ratio 1, the same top token everywhere."""
        of = [[0, 1] * 10]
        reference = scored(constant(0.6, 0.4), of)
        found = perplexity.quality(reference, of, reference)

        assert (found.kl, found.ratio, found.top1, found.top1_se) == (0, 1, 1, 0)

    def test_another_top_token_is_counted(self):
        """The order of the two is turned round."""
        of = [[0, 1] * 10]

        assert perplexity.quality(scored(constant(0.4, 0.6), of), of, scored(constant(0.6, 0.4), of)).top1 == 0

    def test_a_paired_difference_is_known_better_than_either_perplexity(self):
        """Both models find the same tokens hard: the errors of the text cancel."""
        rng = np.random.default_rng(0)
        hard = np.exp(rng.normal(0, 2, (2000, 8)).astype(np.float32))
        hard /= hard.sum(-1, keepdims=True)
        of = [list(rng.integers(0, 8, 2000))]
        reference = scored(lambda ids: np.log(hard), of)
        found = perplexity.quality(scored(lambda ids: np.log(hard) * 1.05, of), of, reference)

        assert found.ratio_se < 0.2 * found.perplexity_se / found.perplexity

    def test_the_standard_error_is_over_blocks(self):
        """Blocks of two with means 1 and 3: standard deviation sqrt 2 over sqrt 2."""

        assert perplexity.standard_error(np.array([0, 2, 2, 4]), block=2) == pytest.approx(1)

    def test_log_probabilities_add_up_to_one(self):
        """Also for logits as large as 10,000."""
        logits = np.array([[1e4, 1e4 + 1, 0], [-5, 0, 5]], np.float32)

        assert np.exp(perplexity.log_softmax(logits)).sum(-1) == pytest.approx([1, 1], rel=1e-5)


def test_the_text_is_there_and_short():
    """An extract of 10 to 20 kB of Alice, without marks of an edition."""
    text = perplexity.text()

    assert 10_000 < len(text.encode()) < 20_000
    assert "Alice" in text and "Gutenberg" not in text


@pytest.mark.engine
def test_the_default_file_is_nearly_its_unquantized_copy(files):
    """llama.cpp on both, two short windows: near in perplexity, and not the same numbers."""
    found = perplexity.measure(files, "bf16", count=2, context=64)

    assert (found["bf16"].tokens, found["bf16"].kl) == (2 * 31, None)
    assert 0 < found["Q4_1"].kl < 0.1
    assert found["Q4_1"].ratio == pytest.approx(1, abs=0.15)
    assert found["Q4_1"].top1 > 0.8


@pytest.mark.engine
def test_a_short_text_ends_the_scoring_in_one_line(files):
    """Said by the process that has the tokenizer, before it loads weights."""
    with pytest.raises(PerplexityError, match="^the text has [0-9]+ tokens, 1 window of 512 need 512: give more text"):
        perplexity.measure(files, "bf16", of="Alice was beginning to get very tired.")


@pytest.mark.engine
def test_a_reference_that_is_not_among_the_files(files):
    """The names there are."""
    with pytest.raises(ValueError, match="^reference 'f32' is not among the files: choose one of bf16, Q4_1$"):
        perplexity.measure(files, "f32")


@pytest.mark.engine
def test_a_window_longer_than_the_model_knows(files):
    """Its context stands in the header."""
    with pytest.raises(ModelError, match="^context=10000: .* knows 8192 tokens; ask for that or fewer$"):
        perplexity.measure(files, "bf16", context=10_000)


def test_a_file_that_is_not_there(tmp_path):
    """Refused before anything runs."""
    with pytest.raises(ModelError, match="is not there: give the path of a .gguf file$"):
        perplexity.measure({"bf16": tmp_path / "none.gguf"}, "bf16")


@pytest.mark.engine
def test_without_llama_cpp_the_next_step_is_said(tmp_path, monkeypatch, files):
    """The kernel is not installed: one line."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    with pytest.raises(kernels.MissingKernel, match="^the kernel 'llama-cpp' is not installed: run `nox -s tour -- llama-cpp`$"):
        perplexity.measure(files, "bf16")
