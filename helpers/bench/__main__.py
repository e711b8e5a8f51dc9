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
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from helpers import cli, paths, records, tokenizer
from helpers.bench import ask, connection, energy, live, page, price, selftest, server_metrics, surroundings, tables
from helpers.bench.beside import Beside
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.find import Found, Search
from helpers.bench.live import View
from helpers.bench.measure import Plan, Sender, Target, levels, probe, workload_sha256
from helpers.bench.timing import Level
from helpers.formatting import told

WRITTEN = ("json", "csv", "html")  # the options that name a file
SENDING_S = 0.001  # from here on the time to send a request is told apart from the server's
OPEN_LOOP_STREAMS = 100  # what the self-test of an open loop runs at


def report(
    found: Sequence[Level], provenance: Mapping, slo: Mapping[str, float] | None = None, per_hour: float | None = None
) -> dict:
    """The JSON of a run: ``levels``, ``token_source``, ``provenance``."""
    sources = {sample.token_source for level in found for sample in level.samples}
    prices = [{"price": price.per_million(level, per_hour)} if per_hour else {} for level in found]
    return {
        "levels": [level.to_dict(slo) | priced for level, priced in zip(found, prices)],
        "token_source": sources.pop() if len(sources) == 1 else sorted(filter(None, sources)) or None,
        "provenance": provenance,
    }


def as_text(found: Sequence[Level], slo: Mapping[str, float] | None = None, per_hour: float | None = None) -> str:
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
    notes = [note for level in found for note in (_kinds_told(level), _cache_told(level), _sending_told(level)) if note]
    beside = ((level, line) for level in found for line in (server_metrics.line(level.server_metrics), energy.line(level.energy)))
    notes += [f"at {_load(level)}: {line}" for level, line in beside if line]
    notes += [f"at {_load(level)}: {price.line(level, per_hour)}" for level in found if per_hour]
    notes += dict.fromkeys(f"machine: {line}" for level in found for line in surroundings.warnings(level.machine))
    counted = f"tokens counted by: {', '.join(sources) or 'nobody, no request succeeded'}"
    return "\n".join([*lines, *notes, counted, *(f"not proven: {line}" for line in unproven)])


def _kinds_told(level: Level) -> str | None:
    """What to know of a level whose tokens are not all text, or not one an event; ``None``: nothing."""
    said = []
    others = {kind: count for kind, count in level.events_by_kind.items() if kind != "text"}
    if others:
        first = told(level.latency("time_to_first_answer_s"), ".3f")
        seen = ", ".join(f"{count} of {kind}" for kind, count in others.items())
        said.append(f"{seen} among {sum(level.events_by_kind.values())} events; time to first answer, s: {first}")
    if "reasoning" in others:
        counted = level.reasoning_tokens
        said.append("the server does not count reasoning tokens" if counted is None else f"reasoning tokens by usage: {counted}")
    if level.itl_basis.startswith("events of"):
        token = told(level.latency("token_itl_s"), ".4f")
        said.append(f"ITL is between {level.itl_basis}; per token by usage, s: {token}; TPOT is per token")
    if at_once := level.in_one_moment:
        said.append(f"{at_once} of {len(level.samples)} answers came in one moment and have no TPOT")
    return f"at {_load(level)}: {'; '.join(said)}" if said else None


def _load(level: Level) -> str:
    return f"{level.users or level.rate_per_s:g}"


def _sending_told(level: Level) -> str | None:
    """How much of the TTFT went by until the request was sent, where that is a figure."""
    sent = level.latency("send_s")
    if not sent or sent["median"] < SENDING_S:
        return None
    return f"at {_load(level)}: sending a request takes {told(sent, '.4f')} s of its TTFT"


def _cache_told(level: Level) -> str | None:
    """What a prefix cache may have held beside what it did, where prompts share their beginnings."""
    cache = level.prefix_cache
    if not cache:
        return None
    low, high, reported = cache["expected_low"], cache["expected_high"], cache["reported"]
    expected = f"{low:,} to {high:,}" if low != high else f"{high:,}"
    said = "the server reports none of them" if reported is None else f"the server reports {reported:,}"
    hold = f"would hold {expected} of {cache['prompt_tokens']:,} prompt tokens"
    return f"at {_load(level)}: a prefix cache without an end {hold}; {said}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.bench", description="Measure an OpenAI-compatible endpoint.")
    add = parser.add_argument
    add("--base-url", help="like http://127.0.0.1:8000/v1")
    add("--model", help="the model's name at that endpoint")
    ask.add_options(parser)
    add("--endpoint", choices=("chat", "completions"), default="completions")
    add("--tokenizer", help="a folder with tokenizer.json, that file, or a .gguf: prompts of its words, exact in length")
    add("--api-key", default=os.environ.get("OPENAI_API_KEY"), help="default: OPENAI_API_KEY")
    add("--self-test", action="store_true", help="measure only the client itself, at --users")
    add("--no-self-test", action="store_true", help="do not measure the client first; its error stays unknown")
    add("--quiet", action="store_true", help="show nothing while it measures: no line on a terminal, none elsewhere")
    add("--no-server-metrics", action="store_true", help="do not read the server's /metrics page, once a second, beside it")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add("--csv", type=Path, metavar="FILE", help="write them there as a table, a row per load")
    add("--html", type=Path, metavar="FILE", help="write a report there: one page with pictures, which needs no network")
    return parser


def _check_place(option: str, file: Path) -> None:
    """See that the figures can be written, before they are measured."""
    folder = file.absolute().parent
    try:
        if not folder.is_dir():
            raise ValueError(f"{option} {file}: its folder does not exist; make it first")
        if file.is_dir():
            raise ValueError(f"{option} {file}: is a folder; give the name of a file in it")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{option} {file}: cannot be written ({error.strerror}); give another place") from None


def _endpoint(options: argparse.Namespace) -> Endpoint:
    if not options.base_url or not options.model:
        raise ValueError("--base-url and --model are missing: give the address and the model's name, or --self-test")
    for option in WRITTEN:
        if file := getattr(options, option):
            _check_place(f"--{option}", file)
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
    try:
        plan, slo = ask.plan(options), ask.limits("--slo", options.slo)
        search = ask.search(options, plan)
        if options.price_per_hour is not None:
            price.check(options.price_per_hour)
        connection.room_for(0 if plan.rates_per_s else search.most if search else max(plan.users))
        if options.self_test:
            return _self_test_only(plan, View(not options.quiet))
        endpoint = _endpoint(options)
        entries = tokenizer.entries(options.tokenizer) if options.tokenizer else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        return 128 + interrupt.args[0]
    run = _Run(plan, options, slo or (search.limits if search else None), entries)
    try:
        target = _fixed_length(endpoint, plan, entries)
        run.search(target, search) if search else run.measure(target)
    except EndpointError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(run.stopped(), file=sys.stderr)
        return 128 + interrupt.args[0]
    finally:
        published = not run.levels or run.publish()
    return 0 if published and run.succeeded else 1


class _Run:
    """What is measured, level by level, and published at the end or when it is stopped."""

    def __init__(self, plan: Plan, options: argparse.Namespace, slo: Mapping[str, float] | None, vocabulary):
        self.plan, self.options, self.slo, self.vocabulary = plan, options, slo, vocabulary
        self.usual = vars(_parser().parse_args([]))
        self.levels: list[Level] = []
        self.instrument: dict[int, selftest.SelfTest] = {}
        self.found: Found | None = None
        self.beside: Beside | None = None
        self.view = View(not options.quiet, plain_every_s=live.PLAIN_EVERY_S)

    def measure(self, target: Target) -> None:
        """Measure the client at each load, then the endpoint at each."""
        for users in (OPEN_LOOP_STREAMS,) if self.plan.rates_per_s else self.plan.users:
            self.test_the_client(users)
        self.beside = self._beside(target)
        how = {"vocabulary": self.vocabulary, "progress": self.view, "watched": self.beside.repeat}
        for measured in levels({"": target.endpoint}, self.plan, **how):
            self.levels.append(self._noted(self.beside.note(measured[""])))

    def search(self, target: Target, search: Search) -> None:
        """Search, and then measure the client at the load that was found."""
        self.beside = self._beside(target)
        how = {"progress": self.view, "watched": self.beside.repeat}
        search.block = Sender(target, self.plan, search.unit, self.vocabulary, **how)
        try:
            self.found = search.run()
        finally:
            self.levels = list(map(self.beside.note, search.block.levels(search.blocks)))
        users = search.unit == "users"
        self.test_the_client((self.found.keeps or self.found.exceeds or search.first) if users else OPEN_LOOP_STREAMS)
        self.levels = [self._noted(level) for level in self.levels]

    def _beside(self, target: Target) -> Beside:
        return Beside(target.endpoint, metrics=not self.options.no_server_metrics)

    def test_the_client(self, users: int) -> None:
        """Measure the client, and say what it is off by; nothing else is asked meanwhile."""
        if not self.options.no_self_test:
            self.instrument[users] = selftest.run(users, progress=self.view.terminal)
            print(self.instrument[users], file=sys.stderr)

    def _noted(self, level: Level) -> Level:
        test = self.instrument.get(level.users or OPEN_LOOP_STREAMS)
        return test.note(level) if test else level

    @property
    def succeeded(self) -> bool:
        """Whether there is what was asked for: a figure at every load, or a load that keeps the limits."""
        if self.options.find:
            return self.found is not None and self.found.keeps is not None
        return bool(self.levels) and all(level.output_tokens_per_s for level in self.levels)

    def stopped(self) -> str:
        """What is kept when it is stopped."""
        kind = "rates" if self.plan.rates_per_s else "numbers of users"
        of = "" if self.options.find else f"of {len(self.plan.loads)} "
        return f"stopped: {len(self.levels)} {of}{kind} were measured and are kept"

    def publish(self) -> bool:
        """Write the files and print the table, in this order; whether all could be done."""
        content = report(self.levels, self.provenance(), self.slo, self.options.price_per_hour)
        content |= {"found": self.found.to_dict()} if self.found else {}
        # first: a table that cannot be printed must not cost the figures
        written = all([self._write(option, file, content) for option in WRITTEN if (file := getattr(self.options, option))])
        table = as_text(self.levels, self.slo, self.options.price_per_hour)
        return cli.say(f"{table}\n{self.found}" if self.found else table) and written

    def _write(self, option: str, file: Path, content: dict) -> bool:
        """Write ``file`` whole or not at all; whether it could be done."""
        try:
            if option == "json":
                records.write_json(file, content, replace=True)
            else:
                made = (
                    tables.as_csv(content["levels"])
                    if option == "csv"
                    else page.html(content, self.levels, self.command(content["provenance"]))
                )
                paths.write(file, made)
            return True
        except OSError as error:
            said = f"--{option} {file}: could not be written ({error.strerror}); the table has the figures"
            print(said, file=sys.stderr)
            return False

    def command(self, source: Mapping) -> str:
        """What was asked on the command line, without the key, and with names as the provenance ``source`` has them."""
        asked = {name: value for name, value in vars(self.options).items() if value not in (None, False, self.usual[name])}
        given = {name: value for name, value in asked.items() if name not in ("api_key", *WRITTEN)}
        given |= {name: Path(given[name]).name for name in ("tokenizer", "requests_file", "trace") if name in given}
        given |= {name: source[name] for name in ("base_url", "model")}
        words = ["python", "-m", "helpers.bench"]
        for name, value in given.items():
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)

    def provenance(self) -> dict:
        """Where the figures come from: the endpoint without a key, the plan, the client's own error."""
        options, url = self.options, urlsplit(self.options.base_url)
        return records.provenance(
            workload_sha256=None if options.find else workload_sha256(self.plan, self.vocabulary),
            plan=self.plan.facts(),
            instrument={users: vars(test) for users, test in self.instrument.items()},
            base_url=url._replace(netloc=url.netloc.rpartition("@")[2]).geturl(),
            model=Path(options.model).name if options.model.startswith("/") else options.model,  # a path may name its owner
            endpoint=options.endpoint,
            **(self.beside.facts() if self.beside else {}),
        )


def _self_test_only(plan: Plan, view: View) -> int:
    for users in plan.users:
        print(selftest.run(users, progress=view))
    return 0


if __name__ == "__main__":
    sys.exit(main())
