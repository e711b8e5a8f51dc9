"""A block shows its bytes; a type stands at its size."""

from helpers.pictures import blocks


def test_a_block_shows_its_bytes_and_what_rounding_changed():
    """A scale of 0.5: low halves are the first 16 weights, high halves the others, and the title has the largest error."""
    stored = [0, 56, *[0xF0] * 16]  # levels 0 and 15: weights of -4 and 3.5
    figure = blocks.q4_0_block(stored, [-4.0] * 16 + [3.75] * 16)
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
    figure = blocks.gguf_types(found, notes=["right: recorded"])

    assert figure.get_suptitle() == "Q4_0: 25% of the bytes of bf16, 2.0 times its speed; most is lost in Q4_0"
    assert [float(line.get_ydata()[0]) for line in figure.axes[1].lines] == [0, 0.25]
    assert figure.get_supxlabel() == "right: recorded"
