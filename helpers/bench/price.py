"""What a million tokens cost on a machine with a price per hour.

One price on all output tokens is the usual figure; it hides that a prompt costs too. Here the machine's time is also
split between input and output: the time before each first token is the prompt's, with its wait, the time after it the
answer's, as shares of all requests' time. Both prices together give back the cost of the machine, whatever the split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from helpers.bench import timing
from helpers.bench.timing import Level, Sample
from helpers.formatting import told

KINDS = ("output_alone", "input", "output")


def check(per_hour: float) -> None:
    """``ValueError`` in one line for what is no price."""
    if not 0 < per_hour < math.inf:
        raise ValueError(f"--price-per-hour {per_hour:g}: give what an hour of the machine costs, above 0")


def of_block(block: Sequence[Sample], per_hour: float) -> dict[str, float] | None:
    """Price of a million tokens in one repeat, in the unit of ``per_hour``: ``output_alone``, or ``input`` and ``output``.

    ``None`` where the server does not count its tokens, or no answer has a token after its first.
    """
    done, seconds = timing.span_s(block)
    given = [s.prompt_tokens for s in done]
    made = [s.output_tokens for s in done if s.token_source == "server_usage"]
    if not seconds or None in given or len(made) < len(done) or not sum(made) or not sum(given):
        return None
    first_s, whole_s = sum(s.ttft_s for s in done), sum(s.e2e_s for s in done)
    cost, share = per_hour * seconds / 3600 * 1e6, first_s / whole_s
    return {"output_alone": cost / sum(made), "input": cost * share / sum(given), "output": cost * (1 - share) / sum(made)}


def per_million(level: Level, per_hour: float) -> dict | None:
    """The prices of a level with their spread over the repeats."""
    each = [of_block(block, per_hour) for block in level.blocks]
    if level.refused or None in each:
        return None
    prices = {kind: vars(timing.figure(one[kind] for one in each)) for kind in KINDS}
    return {"per_hour": per_hour, "per_million_tokens": prices}


def line(level: Level, per_hour: float) -> str:
    """The same in words."""
    found = per_million(level, per_hour)
    if found is None:
        return "no price: the level has no figure, or the server does not count tokens"
    alone, given, made = (told(found["per_million_tokens"][kind], ".3g") for kind in KINDS)
    return f"{per_hour:g} per hour: {alone} per million output tokens; or {given} per million of input and {made} of output"
