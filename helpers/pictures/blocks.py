"""Quantized weights: the bytes of a block, and types by size, speed and loss."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from statistics import median

from helpers import frameworks, plots


def q4_0_block(stored: Sequence[int], original: Sequence[float]):
    """Draw a block of GGUF's type Q4_0: its 18 bytes, and below them the 32 weights that they hold over what these were before.

    ``stored`` are the bytes, a scale in f16 and then two levels in each; ``original`` are the 32 weights before they were
    rounded. Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    (scale,) = struct.unpack("<e", bytes(stored[:2]))
    levels = [byte & 15 for byte in stored[2:]] + [byte >> 4 for byte in stored[2:]]
    held = [scale * (level - 8) for level in levels]
    figure = Figure(figsize=(7.4, 4.4), layout="constrained")
    boxes, values = figure.subplots(2, 1, height_ratios=(1, 4))
    _boxes(boxes, stored)
    for level in range(16):
        values.axhline(scale * (level - 8), color="0.85", linewidth=0.8, zorder=0)
    values.vlines(range(len(held)), original, held, color="0.6", linewidth=1)
    values.plot(original, "o", color="black", fillstyle="none", label="before")
    values.plot(held, **plots.told_apart(1, "in the block"), linestyle="none", markersize=4)
    values.set(xlabel="the 32 weights; grey lines: the 16 levels, scale x (0 to 15 - 8)", ylabel="weight")
    values.spines[["top", "right"]].set_visible(False)
    values.legend(frameon=False, fontsize=8)
    worst = max(abs(one - other) for one, other in zip(original, held))
    title = f"{len(stored)} bytes hold {len(held)} weights: levels {abs(scale):.3f} apart, the largest error is {worst:.3f}"
    return plots.titled(figure, title)


def _boxes(axes, stored: Sequence[int]) -> None:
    """The bytes of a Q4_0 block in a row, each with its value and the two levels in it."""
    for place, byte in enumerate(stored):
        axes.bar(place, 1, width=0.94, color=plots.COLOURS[0 if place < 2 else 1], alpha=0.35)
        axes.annotate(str(byte), (place, 0.68), fontsize=8, ha="center", va="center")
        inside = f"{byte & 15} {byte >> 4}" if place > 1 else ""
        axes.annotate(inside, (place, 0.27), fontsize=7, ha="center", va="center")
    axes.annotate("scale, f16", (0.5, 0.27), fontsize=7, ha="center", va="center")
    axes.set_title("the bytes, and under each the levels of two weights, i and i + 16", fontsize=8, loc="left")
    axes.set_axis_off()


def gguf_types(found: Mapping[str, Mapping], notes: Sequence[str] = ()):
    """Draw decode speed and loss over the size of GGUF files, a mark for each type; ``notes`` stand below.

    ``found`` maps a type to ``mib``, the size of its tensors, ``tokens_per_s``, a list of repeats, and ``kl``, the KL
    divergence from the largest in nats per token (``None`` for that one). Returns a matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    speed, loss = figure.subplots(1, 2)
    llama_cpp = frameworks.get("llama-cpp")
    how = {"color": llama_cpp.colour, "marker": llama_cpp.marker, "linestyle": "none"}
    for name, one in found.items():
        rates, lost = one["tokens_per_s"], one["kl"] or 0
        spread = [[median(rates) - min(rates)], [max(rates) - median(rates)]]
        speed.errorbar(one["mib"], median(rates), yerr=spread, capsize=3, **how)
        loss.plot(one["mib"], lost, **how)
        for axes, y in ((speed, median(rates)), (loss, lost)):
            axes.annotate(name, (one["mib"], y), xytext=(7, 4), textcoords="offset points", fontsize=8)
    speed.set(ylabel="decode, tokens/s, one user", ylim=(0, None))
    loss.set(ylabel="KL divergence, nats per token")
    for axes in (speed, loss):
        axes.set(xlabel="MiB of weights")
        axes.margins(x=0.2, y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return plots.titled(figure, _of_types(found), notes)


def _of_types(found: Mapping[str, Mapping]) -> str:
    """What is to see of types: the smallest beside the largest, and which loses most."""
    small, large = (pick(found, key=lambda name: found[name]["mib"]) for pick in (min, max))
    left = found[small]["mib"] / found[large]["mib"]
    faster = median(found[small]["tokens_per_s"]) / median(found[large]["tokens_per_s"])
    worst = max(found, key=lambda name: found[name]["kl"] or 0)
    return f"{small}: {left:.0%} of the bytes of {large}, {faster:.1f} times its speed; most is lost in {worst}"
