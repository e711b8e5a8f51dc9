"""What a record of throughput says in words: who is ahead with each number of users, and what more users gain.

Two figures are told apart only where the ranges of their repeats do not touch. llama.cpp counts with whichever of its types is
the fastest there; a static batch is no server, and is left out of who is ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from helpers import frameworks, records
from helpers.formatting import told, users_told
from helpers.studies import throughput

RATE = "output_tokens_per_s"


@dataclass(frozen=True)
class Lead:
    """The row with the most tokens/s of so many ``users``, and the best row of another framework, by their names."""

    users: int
    first: str
    rate: Mapping  # of the first, tokens/s: median, low, high
    second: str | None = None
    times: float | None = None  # what the first makes, over what the second does
    apart: bool = True  # whether their ranges do not touch
    equal: tuple[str, float] | None = None  # where their weights differ: a type that both have, and the times with it


def leads(found: Mapping) -> list[Lead]:
    """A :class:`Lead` for each number of users of a record for which there is a figure, the fewest first."""
    of = throughput.rates({name: levels for name, levels in found["engines"].items() if name != throughput.BATCH})
    users = sorted({count for by_users in of.values() for count, rate in by_users.items() if rate})
    return [_lead(count, {name: by_users[count] for name, by_users in of.items() if by_users.get(count)}) for count in users]


def _lead(users: int, rates: Mapping[str, Mapping]) -> Lead:
    first, *others = sorted(rates, key=lambda name: rates[name]["median"], reverse=True)
    second = next((name for name in others if frameworks.get(name).kernel != frameworks.get(first).kernel), None)
    if second is None:
        return Lead(users, first, rates[first])
    times = rates[first]["median"] / rates[second]["median"]
    apart = change(rates[second], rates[first]) == "more"
    return Lead(users, first, rates[first], second, times, apart, _equal(first, second, rates))


def _equal(first: str, second: str, rates: Mapping[str, Mapping]) -> tuple[str, float] | None:
    """Of two rows with weights of different types: one that both frameworks have, and how many times the first makes then."""
    one, other = frameworks.get(first), frameworks.get(second)
    of = {(row.kernel, row.dtype): rates[name]["median"] for name in rates for row in [frameworks.get(name)]}
    both = [dtype for dtype in (one.dtype, other.dtype) if {(one.kernel, dtype), (other.kernel, dtype)} <= of.keys()]
    if one.dtype == other.dtype or not both:
        return None
    return both[0], of[one.kernel, both[0]] / of[other.kernel, both[0]]


def change(before: Mapping, after: Mapping) -> str:
    """Whether a figure is "more" than one before or "less", or "no more" because the two ranges touch."""
    if after["low"] > before["high"]:
        return "more"
    return "less" if after["high"] < before["low"] else "no more"


def first(figures: Mapping[str, Mapping]) -> str | None:
    """The name with the highest median of ``figures``; ``None`` where its range touches another's, or if it is 0."""
    best = max(figures, key=lambda name: figures[name]["median"], default=None)
    others = [figure for name, figure in figures.items() if name != best]
    apart = best is not None and all(change(other, figures[best]) == "more" for other in others)
    return best if apart and figures[best]["median"] > 0 else None


def ahead(found: Mapping) -> list[str]:
    """A line for each number of users: who makes the most tokens/s, and how many times the next framework's."""
    gpu = records.on_gpu(found)
    return [_ahead(lead, gpu) for lead in leads(found)]


def _ahead(lead: Lead, gpu: bool) -> str:
    said = f"{users_told(lead.users)}: {frameworks.label(lead.first, gpu)} first with {told(lead.rate)} tokens/s"
    if lead.second is None:
        return f"{said}, no other figure"
    how = "the ranges do not touch" if lead.apart else "the ranges touch, so this may be chance"
    times = f"{lead.times:.{1 if lead.times >= 1.1 else 2}f}"  # "1.0 times" would read as no difference
    equal = f" ({lead.equal[1]:.2g} times with {lead.equal[0]} on both sides)" if lead.equal else ""
    return f"{said}, {times} times {frameworks.label(lead.second, gpu)}{equal}; {how}"


def headline(found: Mapping) -> str:
    """The same as a title: ``Most tokens/s: llama.cpp (1 user), vLLM (10 and 100 users)``; "or" where ranges touch."""
    of: dict[str, list[int]] = {}
    for lead in leads(found):
        names = [lead.first] if lead.apart else [lead.first, lead.second]
        of.setdefault(" or ".join(frameworks.TITLES[frameworks.get(name).kernel] for name in names), []).append(lead.users)
    return "Most tokens/s: " + ", ".join(f"{who} ({_users(users)})" for who, users in of.items())


def _users(numbers: Sequence[int]) -> str:
    return users_told(numbers[0]) if len(numbers) == 1 else f"{' and '.join(map(str, numbers))} users"


def gains(found: Mapping) -> list[str]:
    """A line for each row: how many times the rate of its fewest users it made with more, and its first tokens."""
    gpu = records.on_gpu(found)
    return [f"{frameworks.label(name, gpu)}: {_gains(levels)}" for name, levels in found["engines"].items()]


def _gains(levels: Sequence[Mapping]) -> str:
    known = [level for level in levels if level[RATE]]
    said = [_gain(known[0][RATE], before, level) for before, level in pairwise(known)]
    said += [f"no figure with {users_told(level['users'])}" for level in levels if not level[RATE]]
    return "; ".join([*said, f"first token after {_seconds(known)}"] if known else said)


def _gain(one: Mapping, before: Mapping, level: Mapping) -> str:
    times, how = level[RATE]["median"] / one["median"], change(before[RATE], level[RATE])
    return f"{times:.1f} times with {level['users']} users ({how} than with {before['users']})"


def _seconds(levels: Iterable[Mapping]) -> str:
    return ", ".join(f"{level['ttft_s']['median']:.1f}" for level in levels) + " s"


def lost(found: Mapping) -> str:
    """The rows of :func:`helpers.studies.throughput.compared` that made less with the most users than with fewer, or none."""
    gpu, names = records.on_gpu(found), []
    for name, levels in throughput.compared(found).items():
        last = [level[RATE] for level in levels[-2:]]
        if len(last) == 2 and all(last) and change(*last) == "less":
            names.append(frameworks.label(name, gpu))
    return ", ".join(names) or "none"


def batch(found: Mapping) -> str:
    """Transformers' server beside its static batch, the same model in the same library, both with the most users."""
    rows = {name: found["engines"].get(name, [{}])[-1] for name in ("transformers", throughput.BATCH)}
    if not all(level.get(RATE) for level in rows.values()):
        return "HF Transformers: its server and its static batch do not both have a figure"
    server, static = rows.values()
    times, waited = static[RATE]["median"] / server[RATE]["median"], _seconds([server, static])
    return (
        f"HF Transformers, {users_told(server['users'])}: its static batch makes {times:.1f} times the tokens/s of its server; "
        f"first token after {waited.replace(', ', ' (server) and ')} (batch)"
    )
