"""Measure any OpenAI-compatible endpoint from the command line.

    python -m helpers.bench --base-url http://127.0.0.1:8000/v1 --model NAME --users 1,10,100

A closed loop of that many users, greedy, of fixed output length where the server allows it;
the JSON says what came back.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from helpers import records, timing
from helpers.client import Endpoint, EndpointError
from helpers.measure import Plan, Target, levels, probe, workload_sha256
from helpers.timing import Level


def report(found: Sequence[Level], plan: Plan, provenance: dict) -> dict:
    """The JSON of a run: ``levels``, ``token_source``, ``provenance``."""
    sources = {sample.token_source for level in found for sample in level.samples}
    return {
        "levels": [level.to_dict() for level in found],
        "token_source": sources.pop() if len(sources) == 1 else sorted(filter(None, sources)) or None,
        "provenance": provenance,
    }


def table(found: Sequence[Level]) -> str:
    """The levels as lines of text: median and spread over repeats."""
    lines = [f"{'users':>6} {'requests':>9} {'errors':>7} {'output tokens/s':>24} {'TTFT, s':>24} {'TPOT, s':>26}"]
    for level in found:
        rate, ttft, tpot = level.output_tokens_per_s, level.latency("ttft_s"), level.latency("tpot_s")
        lines.append(
            f"{level.users:>6} {sum(map(len, level.blocks)):>9} {level.error_kinds.total():>7}"
            f" {_spread(vars(rate) if rate else None, 1):>24} {_spread(ttft, 3):>24}"
            f" {_spread(tpot, 4):>26}" + (f"  {level.label}" if level.label else "")
        )
    return "\n".join(lines)


def _spread(value: dict | None, digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})" if value else "-"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.bench", description="Measure an OpenAI-compatible endpoint.")
    parser.add_argument("--base-url", required=True, help="like http://127.0.0.1:8000/v1")
    parser.add_argument("--model", required=True, help="the model's name at that endpoint")
    parser.add_argument("--users", default="1,10,100", help="numbers of users, with commas (default 1,10,100)")
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--requests", type=int, help="per repeat (default: four per user)")
    parser.add_argument("--repeats", type=int, default=timing.MIN_REPEATS)
    parser.add_argument("--warmups", type=int, default=timing.MIN_WARMUPS, help="per number of users")
    parser.add_argument("--endpoint", choices=("chat", "completions"), default="completions")
    parser.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one request")
    parser.add_argument("--allow-few", action="store_true", help="allow fewer repeats; the figures are labelled")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser.parse_args(argv)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise ValueError(f"--users {text!r}: give whole numbers with commas, like 1,10,100") from None


def _fixed_length(endpoint: Endpoint, plan: Plan) -> Target:
    """Probe with ``ignore_eos``, which most engines know; without it where that is refused."""
    try:
        return probe(replace(endpoint, fields=lambda output_tokens: {"ignore_eos": True}), plan)
    except EndpointError as error:
        if ": HTTP 4" not in str(error):
            raise
        return probe(endpoint, plan)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (no figure), 2 (bad arguments), 130/143 (stopped)."""
    options = _arguments(argv)
    stopped: list[int] = []

    def stop(number, _frame):
        stopped.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    found: list[Level] = []
    try:
        plan = Plan(
            users=_numbers(options.users), input_tokens=options.input_tokens,
            output_tokens=options.output_tokens, requests=options.requests, repeats=options.repeats,
            warmups=options.warmups, timeout_s=options.timeout, allow_few=options.allow_few,
        )  # fmt: skip
        if options.json and not options.json.absolute().parent.is_dir():
            raise ValueError(f"--json {options.json}: its folder does not exist; make it first")
        if options.json and options.json.is_dir():
            raise ValueError(f"--json {options.json}: is a folder; give the name of a file in it")
        endpoint = Endpoint(options.base_url, options.model, options.endpoint, api_key=options.api_key)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        target = _fixed_length(endpoint, plan)
        for measured in levels({"": target.endpoint}, plan):
            found.append(measured[""])
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: {len(found)} of {len(plan.users)} numbers of users were measured and are kept", file=sys.stderr)
    finally:
        if found:
            _publish(found, plan, options)
    if stopped:
        return 128 + stopped[0]
    return 0 if found and all(level.output_tokens_per_s for level in found) else 1


def _publish(found: Sequence[Level], plan: Plan, options: argparse.Namespace) -> None:
    url = urlsplit(options.base_url)
    asked = {
        "base_url": url._replace(netloc=url.netloc.rpartition("@")[2]).geturl(),
        "model": Path(options.model).name if options.model.startswith("/") else options.model,  # a path may name its owner
        "endpoint": options.endpoint,
    }
    provenance = records.provenance(workload_sha256=workload_sha256(plan), plan=vars(plan), **asked)
    print(table(found))
    if options.json:
        records.write_json(options.json, report(found, plan, provenance), replace=True)


if __name__ == "__main__":
    sys.exit(main())
