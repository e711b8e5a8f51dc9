"""The roof: what this machine's memory and arithmetic allow, and how near to it each engine comes.

A decode step reads every weight and the KV cache of every user once, so memory bandwidth bounds
tokens per second; with many users arithmetic does (Williams, Waterman, Patterson, *Roofline*,
CACM 2009). No kernel reaches the whole bandwidth of a machine: several are timed and the best
is the roof. A share above 100 % says that the roof is wrong, never that the engine is that fast.
On a rented machine the neighbours' load moves the roof: measure it close to the engines.

On a CPU numpy multiplies float32. An engine that multiplies bf16 or int8 where the processor has
instructions for them can pass that roof: ``measure(kernel="transformers")`` adds bf16 from torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import formatting, frameworks
from helpers.weights import bounds
from helpers.weights.models import Model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Reached:
    """What an engine reached at a number of users, beside its bound."""

    engine: str
    users: int
    intensity: float  # FLOP per byte
    rate: dict | None  # output tokens/s: median, low, high
    bound: bounds.Bound
    flops_per_s: float | None
    note: str  # why the level is no measurement, if so

    @property
    def share(self) -> float | None:
        return bounds.share(self.rate and self.rate["median"], self.bound)


def reached(
    levels: Mapping[str, list[dict]],
    roof: bounds.Roof,
    works: Mapping[str, bounds.Work] | None = None,
    model: Model | None = None,
) -> list[Reached]:
    """Each engine at each number of users: ``levels`` as ``helpers.bench``'s JSON has them, by engine.

    ``works`` gives each engine's :class:`Work` where the weights are not here. The KV cache is
    taken at its mean length, the prompt and half the answer. One user's rate is 1 / TPOT, pure
    decode. Of several users it is ``output_tokens_per_s``, whose time contains their prefill: their
    share is what serving reaches of the decode roof, and decode alone is nearer to it. A level of
    arrivals per second has no number of users, so no bound, and is left out.
    """
    works = works or {name: bounds.work(frameworks.get(name).form, model) for name in levels}
    closed = [(name, level) for name, measured in levels.items() for level in measured if level["users"] is not None]
    return [_reached(name, level, roof, works[name]) for name, level in closed]


def _reached(name: str, level: dict, roof: bounds.Roof, of: bounds.Work) -> Reached:
    users, context = level["users"], _mean(level["prompt_tokens"]) + _mean(level["output_tokens"]) / 2
    bound = bounds.decode_bound(of, roof, users, context)
    rate = _per_s(level["tpot_s"]) if users == 1 else level["output_tokens_per_s"]
    flops = 2 * of.parameters * rate["median"] if rate else None
    return Reached(name, users, bounds.intensity(of, users, context), rate, bound, flops, level["label"] or "")


def _mean(lengths: Sequence[int]) -> float:
    return sum(lengths) / len(lengths) if lengths else 0.0


def _per_s(tpot_s: dict | None) -> dict | None:
    """1 / TPOT; the longest time is the lowest rate."""
    return tpot_s and {"median": 1 / tpot_s["median"], "low": 1 / tpot_s["high"], "high": 1 / tpot_s["low"]}


def table(
    levels: Mapping[str, list[dict]],
    roof: bounds.Roof,
    works: Mapping[str, bounds.Work] | None = None,
    model: Model | None = None,
    gpu: bool | None = None,
) -> pd.DataFrame:
    """A pandas table of :func:`reached`: each engine's share of the roof at each number of users.

    ``gpu`` says where the levels were measured (``None``: on this machine).
    """
    import pandas as pd

    rows = [
        {
            "framework": frameworks.label(found.engine, gpu),
            "weights": frameworks.weights(found.engine, gpu),
            "users": found.users,
            "FLOP/byte": f"{found.intensity:.1f}",
            "output tokens/s": formatting.told(found.rate, none="none"),
            "bound, tokens/s": f"{found.bound.tokens_per_s:.0f}",
            "limited by": found.bound.limited_by,
            "share of the roof": bounds.share_text(found.share, found.bound),
            "note": found.note,
        }
        for found in reached(levels, roof, works, model)
    ]
    shown = pd.DataFrame(rows).set_index(["framework", "weights", "users"])
    return shown if any(shown["note"]) else shown.drop(columns="note")
