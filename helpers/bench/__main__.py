"""Measure any OpenAI-compatible endpoint from the command line.

    python -m helpers.bench --base-url http://127.0.0.1:8000/v1 --model NAME --users 1,10,100

A closed loop of that many users, or with ``--rate`` an open loop, greedy, of fixed output length
where the server allows it; or what people really send: conversations, a shared system prompt, a file
of requests, a trace (see :mod:`helpers.bench.ask`). The JSON says what came back. Before it measures, the client measures
itself on this machine (``--self-test`` does only that) and prints its own error.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from helpers import cli, records, tokenizer
from helpers.bench import ask, connection, selftest
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.measure import Plan, Target, levels, probe, workload_sha256
from helpers.bench.timing import Level
from helpers.formatting import told

SLO_NAMES = {"ttft": "ttft_s", "answer": "time_to_first_answer_s", "tpot": "tpot_s", "e2e": "e2e_s"}
OPEN_LOOP_STREAMS = 100  # what the self-test of an open loop runs at


def report(found: Sequence[Level], provenance: Mapping, slo: Mapping[str, float] | None = None) -> dict:
    """The JSON of a run: ``levels``, ``token_source``, ``provenance``."""
    sources = {sample.token_source for level in found for sample in level.samples}
    return {
        "levels": [level.to_dict(slo) for level in found],
        "token_source": sources.pop() if len(sources) == 1 else sorted(filter(None, sources)) or None,
        "provenance": provenance,
    }


def as_text(found: Sequence[Level], slo: Mapping[str, float] | None = None) -> str:
    """The levels as lines of text: median and spread over repeats."""
    first = "users" if all(level.users for level in found) else "rate/s"
    goodput = f" {'goodput, requests/s':>24}" if slo else ""
    lines = [f"{first:>6} {'requests':>9} {'errors':>7} {'output tokens/s':>24} {'TTFT, s':>24} {'TPOT, s':>26}{goodput}"]
    for level in found:
        rate, ttft, tpot = level.output_tokens_per_s, level.latency("ttft_s"), level.latency("tpot_s")
        good = level.goodput_requests_per_s(slo) if slo else None
        note = level.refused or level.label
        lines.append(
            f"{level.users or level.rate_per_s:>6g} {sum(map(len, level.blocks)):>9} {level.error_kinds.total():>7}"
            f" {told(rate and vars(rate), '.1f'):>24} {told(ttft, '.3f'):>24} {told(tpot, '.4f'):>26}"
            + (f" {told(good and vars(good), '.2f'):>24}" if slo else "")
            + (f"  {note}" if note else "")
        )
    sources = sorted({sample.token_source for level in found for sample in level.samples})
    unproven = dict.fromkeys(line for level in found for line in level.unproven)
    notes = [note for level in found for note in (_kinds_told(level), _cache_told(level)) if note]
    counted = f"tokens counted by: {', '.join(sources) or 'nobody, no request succeeded'}"
    return "\n".join([*lines, *notes, counted, *(f"not proven: {line}" for line in unproven)])


def _kinds_told(level: Level) -> str | None:
    """What to know of a level whose tokens are not all text, or not one an event; ``None``: nothing."""
    load, said = f"{level.users or level.rate_per_s:g}", []
    others = {kind: count for kind, count in level.events_by_kind.items() if kind != "text"}
    if others:
        first = told(level.latency("time_to_first_answer_s"), ".3f")
        seen = ", ".join(f"{count} of {kind}" for kind, count in others.items())
        said.append(f"{seen} among {sum(level.events_by_kind.values())} events; time to first answer, s: {first}")
    if level.itl_basis.startswith("events of"):
        token = told(level.latency("token_itl_s"), ".4f")
        said.append(f"ITL is between {level.itl_basis}; per token by usage, s: {token}; TPOT is per token")
    return f"at {load}: {'; '.join(said)}" if said else None


def _cache_told(level: Level) -> str | None:
    """What a prefix cache may have held beside what it did, where prompts share their beginnings."""
    cache = level.prefix_cache
    if not cache:
        return None
    low, high, reported = cache["expected_low"], cache["expected_high"], cache["reported"]
    expected = f"{low:,} to {high:,}" if low != high else f"{high:,}"
    said = "the server reports none of them" if reported is None else f"the server reports {reported:,}"
    load = f"{level.users or level.rate_per_s:g}"
    return f"at {load}: a prefix cache without an end would hold {expected} of {cache['prompt_tokens']:,} prompt tokens; {said}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.bench", description="Measure an OpenAI-compatible endpoint.")
    add = parser.add_argument
    add("--base-url", help="like http://127.0.0.1:8000/v1")
    add("--model", help="the model's name at that endpoint")
    ask.add_options(parser)
    add("--endpoint", choices=("chat", "completions"), default="completions")
    add("--tokenizer", help="a folder with tokenizer.json, that file, or a .gguf: prompts of its words, exact in length")
    add("--api-key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    add("--slo", help="limits in seconds for goodput, like ttft=0.2,tpot=0.05")
    add("--self-test", action="store_true", help="measure only the client itself, at --users")
    add("--no-self-test", action="store_true", help="do not measure the client first; its error stays unknown")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args(argv)


def _slo(text: str | None) -> dict[str, float] | None:
    if not text:
        return None
    try:
        limits = {SLO_NAMES[name]: float(limit) for name, _, limit in (part.partition("=") for part in text.split(","))}
    except (KeyError, ValueError):
        limits = {}
    if not limits or not min(limits.values()) > 0:
        raise ValueError(f"--slo {text!r}: give seconds for ttft, answer, tpot or e2e, like ttft=0.2,tpot=0.05")
    return limits


def _check_place(file: Path) -> None:
    """See that the figures can be written, before they are measured."""
    folder = file.absolute().parent
    try:
        if not folder.is_dir():
            raise ValueError(f"--json {file}: its folder does not exist; make it first")
        if file.is_dir():
            raise ValueError(f"--json {file}: is a folder; give the name of a file in it")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--json {file}: cannot be written ({error.strerror}); give another place") from None


def _endpoint(options: argparse.Namespace) -> Endpoint:
    if not options.base_url or not options.model:
        raise ValueError("--base-url and --model are missing: give the address and the model's name, or --self-test")
    if options.json:
        _check_place(options.json)
    return Endpoint(options.base_url, options.model, options.endpoint, api_key=options.api_key)


def _fixed_length(endpoint: Endpoint, plan: Plan, vocabulary) -> Target:
    """Probe with ``ignore_eos``, which most engines know; without it where that is refused."""
    try:
        return probe(replace(endpoint, fields=lambda output_tokens: {"ignore_eos": True}), plan, vocabulary)
    except EndpointError as error:
        if ": HTTP 4" not in str(error):
            raise
        return probe(endpoint, plan, vocabulary)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (no figure), 2 (bad arguments), 130/143 (stopped)."""
    options = _arguments(argv)
    cli.interruptible()
    found: list[Level] = []
    try:
        plan, slo = ask.plan(options), _slo(options.slo)
        connection.room_for(0 if plan.rates_per_s else max(plan.users))
        if options.self_test:
            return _self_test_only(plan)
        endpoint = _endpoint(options)
        entries = tokenizer.entries(options.tokenizer) if options.tokenizer else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        return 128 + interrupt.args[0]
    instrument: dict[int, selftest.SelfTest] = {}
    try:
        target = _fixed_length(endpoint, plan, entries)
        if not options.no_self_test:
            instrument = _self_test(plan)
        for measured in levels({"": target.endpoint}, plan, vocabulary=entries):
            level = measured[""]
            test = instrument.get(level.users or OPEN_LOOP_STREAMS)
            found.append(test.note(level) if test else level)
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        kind = "rates" if plan.rates_per_s else "numbers of users"
        print(f"stopped: {len(found)} of {len(plan.loads)} {kind} were measured and are kept", file=sys.stderr)
        return 128 + interrupt.args[0]
    finally:
        published = not found or _publish(found, plan, options, slo, instrument, entries)
    return 0 if published and found and all(level.output_tokens_per_s for level in found) else 1


def _self_test(plan: Plan) -> dict[int, selftest.SelfTest]:
    """Measure the client at each number of users, and say what it is off by; nothing else is asked meanwhile."""
    tests = {}
    for users in (OPEN_LOOP_STREAMS,) if plan.rates_per_s else plan.users:
        tests[users] = selftest.run(users)
        print(tests[users], file=sys.stderr)
    return tests


def _self_test_only(plan: Plan) -> int:
    for users in plan.users:
        print(selftest.run(users))
    return 0


def _publish(found: Sequence[Level], plan: Plan, options: argparse.Namespace, slo, instrument, vocabulary) -> bool:
    """Write the JSON and print the table, in this order; whether both could be done."""
    url = urlsplit(options.base_url)
    asked = {
        "base_url": url._replace(netloc=url.netloc.rpartition("@")[2]).geturl(),
        "model": Path(options.model).name if options.model.startswith("/") else options.model,  # a path may name its owner
        "endpoint": options.endpoint,
    }
    provenance = records.provenance(
        workload_sha256=workload_sha256(plan, vocabulary), plan=plan.facts(),
        instrument={users: vars(test) for users, test in instrument.items()}, **asked,
    )  # fmt: skip
    written = True
    if options.json:  # first: a table that cannot be printed must not cost the figures
        try:
            records.write_json(options.json, report(found, provenance, slo), replace=True)
        except OSError as error:
            written = False
            print(f"--json {options.json}: could not be written ({error.strerror}); the table has the figures", file=sys.stderr)
    return cli.say(as_text(found, slo)) and written


if __name__ == "__main__":
    sys.exit(main())
