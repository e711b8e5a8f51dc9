"""The options that say what is asked, and the plan that they make. Whatever cannot be asked is refused here, in one line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from helpers.bench import distributions, mooncake, sharegpt, timing
from helpers.bench.distributions import Distribution
from helpers.bench.find import Search
from helpers.bench.measure import Plan
from helpers.bench.synthetic import Synthetic
from helpers.bench.talks import Source

USERS, TOKENS = "1,10,100", "128"
FIND_USERS, FIND_MOST = (1,), 1024  # a search begins with one user, and goes up to so many times its first load
LIMITS = {"ttft": "ttft_s", "answer": "time_to_first_answer_s", "tpot": "tpot_s", "e2e": "e2e_s"}
OWN_TIMES = ("users", "rate", "input_tokens", "output_tokens", "system_tokens", "turns", "think")  # what a trace brings itself
OWN_TEXTS = ("input_tokens", "system_tokens", "turns")  # what a file of conversations does


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them to ``parser``. A length or a pause is a number or a distribution (:mod:`helpers.bench.distributions`)."""
    add = parser.add_argument
    add("--users", help=f"numbers of users, with commas (default {USERS})")
    add("--rate", help="open loop: requests (or conversations) per second that arrive at random, with commas; instead of --users")
    add("--input-tokens", help=f"of a prompt, or of each message of a conversation: 128, normal:128:32 (default {TOKENS})")
    add("--output-tokens", help=f"of an answer: 128, uniform:64:256, lognormal:128:0.5, exponential:128 (default {TOKENS})")
    add("--system-tokens", type=int, help="all prompts begin with the same so many tokens")
    add("--turns", help="of a conversation, each with all before it: 4, uniform:1:8 (default 1)")
    add("--think", help="seconds between an answer and the next turn: 2, exponential:5 (default 0)")
    add("--requests-file", type=Path, metavar="FILE", help="conversations in ShareGPT's form, instead of random words")
    add("--trace", type=Path, metavar="FILE", help="a trace in Mooncake's format, replayed at its own times")
    add("--stretch", type=float, default=1.0, help="of a trace's time: 2 takes twice as long, 0.5 half (default 1)")
    add("--trace-block", type=int, default=mooncake.BLOCK_TOKENS, help="tokens that a hash id of the trace stands for")
    add(
        "--requests",
        type=int,
        help="or conversations, per repeat (default: four per user; 30 s of an open loop; the whole trace)",
    )
    add("--slo", help="limits in seconds for goodput, like ttft=0.2,tpot=0.05")
    add("--find", metavar="LIMITS", help="search the most users (or the highest --rate) that keep limits like ttft=0.2,tpot=0.05")
    add("--share", type=float, default=0.99, help="of the requests that have to keep the limits of --find (default 0.99)")
    add("--price-per-hour", type=float, metavar="PRICE", help="of the server's machine: gives prices per million tokens")
    add("--repeats", type=int, default=timing.MIN_REPEATS)
    add("--warmups", type=int, default=timing.MIN_WARMUPS, help="at the least; they go on until the rate is steady")
    add("--seed", type=int, default=0, help="of the prompts, of what is drawn, and of an open loop's arrivals")
    add("--timeout", type=float, default=300, help="seconds for one request")
    add("--allow-few", action="store_true", help="allow fewer repeats; the figures are labelled")
    add("--allow-cached", action="store_true", help="allow that a prefix cache helps; the figures are labelled")


def limits(name: str, text: str | None) -> dict[str, float] | None:
    """Limits in seconds by the names of a sample's times, as ``ttft=0.2,tpot=0.05`` says them; ``ValueError`` in one line."""
    if not text:
        return None
    try:
        found = {LIMITS[one]: float(limit) for one, _, limit in (part.partition("=") for part in text.split(","))}
    except (KeyError, ValueError):
        found = {}
    if not found or not all(0 < limit < math.inf for limit in found.values()):
        raise ValueError(f"{name} {text!r}: give seconds for {', '.join(LIMITS)}, like ttft=0.2,tpot=0.05")
    return found


def search(options: argparse.Namespace, plan: Plan) -> Search | None:
    """The search that is asked for, without what sends its blocks; ``None``: none is."""
    asked = limits("--find", options.find)
    if asked is None:
        return None
    if plan.source and plan.source.timed:
        raise ValueError("--find changes the load, and --trace brings its own: give one of them")
    unit, loads = ("requests/s", plan.rates_per_s) if plan.rates_per_s else ("users", plan.users if options.users else FIND_USERS)
    first, most = min(loads), max(loads) if len(loads) > 1 else FIND_MOST * min(loads)
    return Search(None, asked, options.share, first, most, unit)


def plan(options: argparse.Namespace) -> Plan:
    """The plan of the parsed ``options``; ``ValueError`` in one line, before anything is sent."""
    source = _source(options)
    rates = _numbers("--rate", options.rate, float) if options.rate else ()
    if isinstance(source, mooncake.Trace):
        rates = (source.rate_per_s,)
    return Plan(
        users=_numbers("--users", options.users or USERS), rates_per_s=rates,
        input_tokens=_typical("--input-tokens", options.input_tokens), source=source,
        output_tokens=_typical("--output-tokens", options.output_tokens), requests=options.requests,
        repeats=options.repeats, warmups=options.warmups, seed=options.seed, timeout_s=options.timeout,
        allow_few=options.allow_few, allow_cached=options.allow_cached,
    )  # fmt: skip


def _source(options: argparse.Namespace) -> Source | None:
    """Where talks come from; ``None``: prompts of one length that share nothing."""
    if options.trace and options.requests_file:
        raise ValueError("--trace and --requests-file: give one of them")
    if options.trace:
        _leave_out(options, "--trace", OWN_TIMES)
        return mooncake.read(options.trace, requests=options.requests, stretch=options.stretch, block_tokens=options.trace_block)
    if options.stretch != 1 or options.trace_block != mooncake.BLOCK_TOKENS:
        raise ValueError("--stretch and --trace-block are of a trace: give --trace FILE too")
    think_s = distributions.parse("--think", options.think or "0", least=0)
    if options.requests_file:
        _leave_out(options, "--requests-file", OWN_TEXTS)
        if options.output_tokens and ":" in options.output_tokens:
            raise ValueError(
                f"--output-tokens {options.output_tokens!r}: of a file's requests give one number, or its own lengths"
            )
        tokens = options.output_tokens and _typical("--output-tokens", options.output_tokens)
        return sharegpt.read(options.requests_file, output_tokens=tokens, think_s=think_s)
    return _synthetic(options, think_s)


def _synthetic(options: argparse.Namespace, think_s: Distribution) -> Synthetic | None:
    """Random words, where more is asked for than prompts of one length."""
    lengths = [options.input_tokens or TOKENS, options.output_tokens or TOKENS]
    plain = not any(":" in length for length in lengths)
    if plain and options.system_tokens is None and options.turns is None:
        if options.think:
            raise ValueError("--think is between the turns of a conversation: give --turns too")
        return None
    given, answer = (distributions.parse(name, text) for name, text in zip(("--input-tokens", "--output-tokens"), lengths))
    turns = distributions.parse("--turns", options.turns or "1")
    return Synthetic(given, answer, options.system_tokens or 0, turns, think_s)


def _typical(name: str, text: str | None) -> int:
    """A length, or the mean of a distribution of lengths: what the endpoint is tried with."""
    text = text or TOKENS
    try:
        return int(text)
    except ValueError:
        return max(round(distributions.parse(name, text).mean), 1)


def _leave_out(options: argparse.Namespace, brought_by: str, names: tuple[str, ...]) -> None:
    if given := [name for name in names if getattr(options, name) is not None]:
        raise ValueError(f"{brought_by} brings its own {given[0].replace('_', ' ')}: leave out --{given[0].replace('_', '-')}")


def _numbers(name: str, text: str, kind: type = int) -> tuple:
    try:
        return tuple(kind(n) for n in text.split(","))
    except ValueError:
        asked = "whole numbers with commas, like 1,10,100" if kind is int else "numbers with commas, like 0.5,2"
        raise ValueError(f"{name} {text!r}: give {asked}") from None
