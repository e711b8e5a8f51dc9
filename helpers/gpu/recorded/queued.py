"""Servers under arrivals, simulated from figures of single steps, held against what was recorded.

:mod:`helpers.lessons.scaling.simulated` gets the recorded moments of arrival (they are seeded), and for each step the seconds
that :mod:`~helpers.lessons.scaling.expected` gives: fitted to the engine's own API on one GPU. Of servers one figure is fitted,
what a first token waits besides, on one GPU at its lowest rate. Prefill apart has more, what it costs to hand a KV cache over in
pieces: fitted to the blocks with long prompts, used for the arrivals. Nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import TYPE_CHECKING

from helpers.bench import workload
from helpers.gpu import cases
from helpers.gpu.cases import LLAMA
from helpers.gpu.recorded import behind, parted, read, scaled, verdict
from helpers.gpu.recorded.divided import Way
from helpers.gpu.work.apart import APART, TOGETHER
from helpers.lessons.scaling import expected, parallelism, simulated
from helpers.lessons.scaling.parallelism import Layout
from helpers.lessons.scaling.simulated import Answer, Server, Step
from helpers.servers import engines

if TYPE_CHECKING:
    import pandas as pd

STEP_TOKENS = 8192  # of both engines' servers on such GPUs: vLLM's max_num_batched_tokens, SGLang's chunked_prefill_size
ALONE = "one GPU"
IN_TURN = ("DP2", "2 copies, router", TOGETHER)  # ways in which each of two servers answers every other request
GROUPS = {way: "copies, in turn" for way in IN_TURN} | {APART: "prefill apart"}


@dataclass(frozen=True)
class Waits:
    """Medians of the requests of one rate, seconds; ``met``: the share that kept :data:`helpers.gpu.cases.LIMITS`."""

    ttft_s: float
    tpot_s: float
    met: float | None  # None: not counted in the record

    @classmethod
    def of(cls, answers: Sequence[Answer], besides_s: float) -> Waits:
        """Those of ``answers``, each with ``besides_s`` more until its first token."""
        limits = {**cases.LIMITS, "ttft_s": cases.LIMITS["ttft_s"] - besides_s}
        ttft_s, tpot_s = (median(values) for values in zip(*((one.ttft_s, one.tpot_s) for one in answers)))
        return cls(ttft_s + besides_s, tpot_s, sum(one.met(**limits) for one in answers) / len(answers))


@dataclass(frozen=True)
class Load:
    """One rate at which requests arrived, as measured and as simulated; ``fitted``: the TTFT was used for a cost."""

    engine: str
    way: str
    rate_per_s: float
    measured: Waits
    simulated: Waits
    fitted: bool = False

    def judges(self, figure: str) -> bool:
        """Whether ``figure`` was computed without having been looked at: a TTFT that a cost was fitted to was not."""
        return not (self.fitted and figure == "ttft_s")

    def error(self, figure: str) -> float:
        """What was simulated over what was measured, less one; ``figure``: ``ttft_s`` or ``tpot_s``."""
        return getattr(self.simulated, figure) / getattr(self.measured, figure) - 1


@dataclass(frozen=True)
class Clock:
    """Seconds of the steps of ``engine`` with Llama-3.1-8B: its costs were fitted to its own API on one GPU."""

    engine: str
    gpus: expected.Machine
    costs: expected.Costs

    @classmethod
    def fitted(cls, found: Mapping, engine: str) -> Clock:
        """From the record: its machine, and the engine's costs there."""
        return cls(engine, verdict.machine(found), verdict.fitted(found, Way(engine, LLAMA)))

    def step(self, layout: Layout, input_tokens: int, output_tokens: int) -> Step:
        """For requests of one size, at the mean length of their context."""
        context = input_tokens + output_tokens / 2
        seconds = partial(expected.step_s, LLAMA, layout, self.gpus, self.costs, context=context)
        return cache(lambda users, prompts: seconds(users=users, prompts=prompts))


def loads(found: Mapping | None = None) -> list[Load]:
    """Every rate of every way in which servers answered arrivals."""
    found = found or scaled.load()
    return [load for engine in scaled.ENGINES for load in _of(found, Clock.fitted(found, engine))]


def _of(found: Mapping, clock: Clock) -> Iterator[Load]:
    besides = besides_s(found, clock)
    yield from _served(found, clock, besides)
    yield from _parted(found, clock, besides)


def _served(found: Mapping, clock: Clock, besides: float) -> Iterator[Load]:
    """One server, a server over two GPUs, an engine's own copies, and copies behind a router."""
    for way, rows in _ways(found, clock.engine).items():
        for number, row in enumerate(rows):
            took = Waits(row["ttft_s"]["median"], row["tpot_s"]["median"], row["met"])
            waits = Waits.of(_answers(clock, way, row, number), besides)
            yield Load(clock.engine, way, row["rate_per_s"], took, waits, fitted=(way, number) == (ALONE, 0))


def _ways(found: Mapping, engine: str) -> dict[str, list[Mapping]]:
    return scaled.served(found, engine) | (behind.served(found) if engine == "vllm" else {})


def besides_s(found: Mapping, clock: Clock) -> float:
    """What a first token waits beside its steps: measured on one GPU at the lowest rate, less simulated; 0 if it was not."""
    row = next(iter(scaled.served(found, clock.engine).get(ALONE, [])), None)
    return row["ttft_s"]["median"] - Waits.of(_answers(clock, ALONE, row, 0), 0).ttft_s if row else 0.0


def _answers(clock: Clock, way: str, row: Mapping, number: int) -> list[Answer]:
    """Of the row with that ``number`` in its life, which was its seed."""
    arrived_s = workload.arrivals(row["requests"], row["rate_per_s"], number)
    sizes = row["prompt_tokens"][0], row["output_tokens"][0]
    seconds = clock.step(Layout(2) if way == "TP2" else Layout(), *sizes)
    return _in_turn(way, arrived_s, *sizes, Server(seconds, row["slots"], STEP_TOKENS, mixed=clock.engine == "vllm"))


def _in_turn(way: str, arrived_s: Sequence[float], input_tokens: int, output_tokens: int, server: Server) -> list[Answer]:
    serve = partial(simulated.answers, input_tokens=input_tokens, output_tokens=output_tokens, server=server)
    return simulated.copies(arrived_s, 2 if way in IN_TURN else 1, serve)


@dataclass(frozen=True)
class Handing:
    """What it costs to hand a KV cache over, in ``pieces`` for each token; the bytes go at the link's rate besides."""

    pieces: float
    wait_s: float  # of a piece, until the cache is there
    busy_s: float  # of a piece, in which the engine that takes it makes no step

    @classmethod
    def fitted(cls, found: Mapping, engine: str) -> Handing | None:
        """From the blocks of users beside long prompts; ``None`` where nothing was counted."""
        counted = [row["counted"] for row in parted.rows(found, engine, "moved", APART) if "repeat" in row]
        pieces, size, taken_s, busy_s = (sum(one.get(name, 0) for one in counted) for name in parted.COUNTED)
        if not pieces:
            return None
        return cls(pieces / (size / token_bytes()), (taken_s - size / scaled.link_bytes_per_s()) / pieces, busy_s / pieces)

    def seconds(self, tokens: int) -> float:
        """Until the cache of ``tokens`` tokens is there."""
        return tokens * (token_bytes() / scaled.link_bytes_per_s() + self.pieces * self.wait_s)


def token_bytes() -> int:
    """Of the KV cache."""
    return parallelism.share(LLAMA, Layout()).kv_bytes_per_token


def _parted(found: Mapping, clock: Clock, besides: float) -> Iterator[Load]:
    """Prefill and decoding apart, and the same two GPUs together."""
    engine = clock.engine
    handing = Handing.fitted(found, engine)
    for load in (one["given"]["arrivals"] for one in read.lives(found, parted.WORK) if one["engine"] == engine and handing):
        for way in parted.WAYS:
            for row in parted.rows(found, engine, "arrivals", way):
                number = load["rates_per_s"].index(row["rate_per_s"])
                arrived_s = workload.arrivals(row["requests"], row["rate_per_s"], number)
                sizes = load["input_tokens"], load["output_tokens"]
                server = Server(clock.step(Layout(), *sizes), row["requests"], STEP_TOKENS)
                given = _apart(arrived_s, *sizes, server, handing) if way == APART else _in_turn(way, arrived_s, *sizes, server)
                took, waits = Waits(row["ttft_s"]["p50"], row["tpot_s"]["p50"], None), Waits.of(given, besides)
                yield Load(engine, way, row["rate_per_s"], took, waits)


def _apart(arrived_s: Sequence[float], input_tokens: int, output_tokens: int, server: Server, handing: Handing) -> list[Answer]:
    """One server reads every prompt, the other makes every token, once the cache is there."""
    read_s = [one.token_s[0] for one in simulated.answers(arrived_s, input_tokens, 1, server)]
    there_s = [at_s + handing.seconds(input_tokens) for at_s in read_s]
    busy_s = input_tokens * handing.pieces * handing.busy_s

    def taking(users: int, taken: tuple[int, ...]) -> float:
        return server.step_s(users + len(taken), ()) + len(taken) * busy_s

    given = simulated.answers(there_s, 0, output_tokens, Server(taking, server.slots, server.step_tokens))
    return [Answer(at_s, one.token_s) for at_s, one in zip(arrived_s, given)]


def table(several: Sequence[Load]) -> pd.DataFrame:
    """Loads in milliseconds: what was measured, what was simulated, and the error; the last two columns are shares."""
    import pandas as pd

    rows = {
        (engines.TITLES[one.engine], one.way, f"{one.rate_per_s:g}/s"): {
            "TPOT, ms": f"{1e3 * one.measured.tpot_s:.1f}", "simulated": f"{1e3 * one.simulated.tpot_s:.1f}",
            "error": f"{one.error('tpot_s'):+.0%}",
            "TTFT, ms": f"{1e3 * one.measured.ttft_s:,.0f}", "simulated ": f"{1e3 * one.simulated.ttft_s:,.0f}",
            "error ": f"{one.error('ttft_s'):+.0%}" if one.judges("ttft_s") else "fitted",
            "in time": _share(one.measured.met, one), "simulated  ": _share(one.simulated.met, one),
        }
        for one in several
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _share(met: float | None, one: Load) -> str:
    return "-" if one.measured.met is None else f"{met:.0%}"


def within(several: Iterable[Load], figure: str, most: float = 0.25) -> tuple[int, int]:
    """On how many of ``several`` the error of ``figure`` is at most ``most``, either way, and how many have one."""
    errors = [one.error(figure) for one in several if one.judges(figure)]
    return sum(abs(error) <= most for error in errors), len(errors)


def pairs(several: Iterable[Load], figure: str) -> dict[str, list[tuple[float, float]]]:
    """Simulated and measured milliseconds of ``figure``, by :data:`GROUPS`; a TTFT that a cost was fitted to is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for one in several:
        if one.judges(figure):
            both = 1e3 * getattr(one.simulated, figure), 1e3 * getattr(one.measured, figure)
            found.setdefault(GROUPS.get(one.way, one.way), []).append(both)
    return found
