"""The arithmetic of :mod:`parallelism` held against figures that others have published; their sources are in its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from helpers.lessons.scaling import parallelism
from helpers.lessons.scaling.parallelism import Layout
from helpers.weights import sizes

TOLERANCE = 0.03  # papers round: 37 billion, "7K" for 7,168


@dataclass(frozen=True)
class Comparison:
    """A published figure, what is computed here, and whether the two agree within ``TOLERANCE``."""

    says: str
    title: str
    address: str
    published: float | bool
    here: float | bool

    @property
    def good(self) -> bool:
        if isinstance(self.published, bool):
            return self.here is self.published
        return abs(self.here / self.published - 1) <= TOLERANCE

    @property
    def told(self) -> str:
        """The figure computed here, as text."""
        if isinstance(self.here, bool):
            return "fits" if self.here else "does not fit"
        return f"{self.here * 1e6:.2f} us" if self.here < 1e-2 else f"{self.here:,.0f}"


def _fits(layout: Layout, dtype: str) -> bool:
    return parallelism.share("Llama-3.1-405B", layout, dtype).fits(80 * sizes.GIB)  # an H100 of "80 GB" has nearly 80 GiB


def _exchange_s() -> float:
    """32 tokens of each of 320 GPUs, to eight experts and the shared one in FP8 and back in BF16."""
    size = 32 * parallelism.exchange_bytes("DeepSeek-V3", 320, shared=True)
    return size / (parallelism.table()["links"]["400 Gbit/s"]["gb_per_s"] * 1e9)


def _all_reduces_per_layer() -> float:
    """Ring all-reduces of two GPUs send one hidden vector each: so many of them per layer."""
    sent = parallelism.traffic("Llama-3.1-70B", Layout(2))["TP"]
    return sent / (2 * 8192) / 80


HERE: dict[str, Callable[[], float | bool]] = {
    "kv_405b": lambda: parallelism.share("Llama-3.1-405B", Layout()).kv_bytes_per_token,
    "kv_deepseek": lambda: parallelism.share("DeepSeek-V3", Layout()).kv_bytes_per_token,
    "active": lambda: parallelism.of("DeepSeek-V3").active,
    "exchange": _exchange_s,
    "fp8_8": lambda: _fits(Layout(8), "fp8"),
    "bf16_8": lambda: _fits(Layout(8), "bfloat16"),
    "bf16_16": lambda: _fits(Layout(8, 2), "bfloat16"),
    "all_reduces": _all_reduces_per_layer,
    "experts": lambda: parallelism.share("DeepSeek-V3", Layout(4, dp=80, ep=True)).experts,
}


def checks() -> list[Comparison]:
    """One :class:`Check` for each published figure of ``parallelism.toml``."""
    rows = parallelism.table()["published"]
    return [Comparison(row["says"], row["title"], row["address"], row["value"], HERE[name]()) for name, row in rows.items()]
