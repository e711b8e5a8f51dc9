"""The pictures of notebook 11 draw what they are given, and their titles say it in numbers."""

from helpers.collection import document
from helpers.lessons.quantization import pictures, support
from helpers.lessons.quantization.support import METHODS

CITED = [cell for name in support.FRAMEWORKS for cell in support.cited(name)]


def test_levels_are_scaled_to_their_largest():
    """A grid of integers and one of floats have the same ends; the title counts those that are small."""
    figure = pictures.levels({"INT": [-2, -1, 0, 1, 2], "FLOAT": [-4, -1, 0, 1, 4]}, [0.1, -0.5, 0.9, 1.0])

    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[-1, -0.5, 0, 0.5, 1], [-1, -0.25, 0, 0.25, 1]]
    said = figure.get_suptitle().replace("\n", " ")
    assert said == "50% of the weights are at most half of their block's largest; levels there: INT 3 of 5, FLOAT 3 of 5"


def test_errors_are_named_at_their_points():
    """Each point has its number and its bits beside it; the title names the ends."""
    figure = pictures.errors({"8 bits": (8.0, 0.9), "4 bits": (4.5, 8.7)}, "the output", ["one matrix"])

    assert [text.get_text() for text in figure.axes[0].texts] == ["0.90 %, 8.00 bits", "8.70 %, 4.50 bits"]
    assert figure.get_suptitle() == "Least lost: 8 bits · most lost: 4 bits"
    assert (figure.axes[0].get_xlabel(), figure.get_supxlabel()) == ("error, % of the output", "one matrix")


def test_blocks_have_the_levels_of_their_group():
    """Two groups of two weights: each has its own grey lines, and the title the root mean square error."""
    one = {"bytes": 3, "values": [0.0, 1.0, 2.0, 4.0], "levels": [[0, 1], [0, 2, 4]]}
    figure = pictures.blocks([0.0, 1.25, 2.0, 4.0], {"way": one})
    spans = [collection.get_segments()[0][:, 0].tolist() for collection in figure.axes[0].collections[:2]]

    assert spans == [[-0.5, 1.5], [1.5, 3.5]]
    assert figure.get_suptitle() == "4 weights, bytes and root mean square error: way 3 bytes and 0.125"
    assert figure.axes[0].get_title(loc="left") == "way: 2 scales"


def test_types_stand_by_size():
    """The largest file is on top; the reference has no loss; the fastest are all that reach the fastest's range."""

    def of(mb, rate, kl):
        return {"mb": mb, "tokens_per_s": {"median": rate, "low": rate - 1, "high": rate + 1}, "kl": kl, "kl_se": kl and 0.01}

    found = {"Q4_0": of(92, 180, 0.25), "Q4_1": of(98, 178, 0.0), "Q5_0": of(99, 177, 0.1), "bf16": of(271, 92, None)}
    figure = pictures.types(found, notes=["recorded"])

    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["bf16", "Q5_0", "Q4_1", "Q4_0"]
    assert figure.get_suptitle() == "Smallest: Q4_0; fastest, within the ranges: Q4_0, Q4_1; most is lost in Q4_0"


def test_every_pair_has_a_field():
    """Five frameworks and eight kinds of weights; an answer that changed says what it was."""
    figure = pictures.who(CITED, document.by_framework("quantization"))
    fields = [text.get_text() for text in figure.axes[0].texts]

    assert len(fields) == len(figure.axes[0].patches) == 5 * len(METHODS)
    assert fields[METHODS.index("FP8")] == "cited\n(was No)"
    assert figure.get_suptitle().endswith("are taken; 0 ran here")
