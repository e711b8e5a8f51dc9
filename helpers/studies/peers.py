"""The usual load clients and ours, side by side, against a server that knows what it did.

    python -m helpers.studies.peers [--clients ours,vllm] [--streams 1,100,1000] [--rounds 3] [--json FILE]

Every client is a process of its own environment and measures the same truth server
(:mod:`helpers.bench.truth_server`): closed loop, streamed completions of fixed length. What it says is held
against what the server really did. The order turns round from round to round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import cli, formatting, records
from helpers.bench import timing, truth_server
from helpers.servers import guard
from helpers.studies import peer_clients
from helpers.studies.peer_clients import CLIENTS, Client, Figures, Job, Load, PeerError

if TYPE_CHECKING:
    import pandas as pd

NAME = "clients"
FIRST_S = 0.05  # what the server is asked for
LOADS = {  # a p99 needs 460 requests; each is 10,000 events a second at the most
    1: Load(streams=1, requests=6),
    100: Load(streams=100, requests=500),
    1000: Load(streams=1000, requests=1000, gap_s=0.1),
}
ROUNDS = 3
TIMEOUT_S = 300  # for one client, its imports included
COLUMNS = ("TTFT, ms", "tokens/s, %", "ITL p99, %", "the server's TTFT, ms", "its tokens/s")


@dataclass(frozen=True)
class Run:
    """One client's turn: what it said, and what the server did in the same requests."""

    client: str
    streams: int
    round: int
    says: Figures | None = None
    truth: Figures | None = None
    unmeasured: int | None = None  # requests before the measured ones: probes and warm-ups
    error: str | None = None

    @property
    def errors(self) -> dict[str, float | None]:
        """Said minus true: TTFT in ms, the others in % of the truth; ``None`` where one of them is not defined."""
        return {
            "ttft_ms": _difference(self.says, self.truth, "ttft_ms"),
            "output_tokens_per_s_percent": _difference(self.says, self.truth, "output_tokens_per_s", percent=True),
            "itl_p99_percent": _difference(self.says, self.truth, "itl_p99_ms", percent=True),
        }


def _difference(says: Figures | None, true: Figures | None, name: str, *, percent: bool = False) -> float | None:
    said, was = getattr(says, name, None), getattr(true, name, None)
    if said is None or was is None:
        return None
    return 100 * (said / was - 1) if percent else said - was


def measured(seen: Sequence[dict], title: str, load: Load, expected: int) -> list[dict]:
    """The requests of ``seen`` that the client's figures are about: the last ``load.requests`` of them.

    Every client sends its probes and warm-ups first, waits for their ends, and then sends the
    measured requests. That exactly ``expected`` came first, that they ended before the others
    began and that none of the others is of another length is checked: :class:`PeerError` says
    what is not so.
    """
    calls = sorted((r for r in seen if r["path"].endswith("completions")), key=lambda r: r["received_ns"])
    before, block = calls[: -load.requests], calls[-load.requests :]
    if len(calls) != expected + load.requests:
        told = f"{expected} and {load.requests} were expected"
        raise PeerError(f"{title} sent {len(calls)} requests where {told}: it is another version, look at its entry")
    wrong = [r for r in block if r["ended"] != "done" or r["tokens"] != load.tokens]
    if wrong:
        how = f"{wrong[0]['tokens']} tokens, {wrong[0]['ended']}"
        raise PeerError(f"{title}: {len(wrong)} of its requests did not end with {load.tokens} tokens (one: {how})")
    if before and max(r["written_ns"][-1] for r in before if r["written_ns"]) > block[0]["received_ns"]:
        raise PeerError(f"{title} sent measured requests before its warm-up had ended: they cannot be told apart")
    return block


def true_figures(block: Sequence[dict]) -> Figures:
    """What the server did: TTFT from the whole request's arrival to the first write, tokens/s to the last write."""
    first_tokens = [r["written_ns"][0] - r["received_ns"] for r in block]
    gaps = np.concatenate([np.diff(r["written_ns"]) for r in block])
    span_ns = max(r["written_ns"][-1] for r in block) - min(r["received_ns"] for r in block)
    p99_ns = timing.percentile(gaps.tolist(), 99, len(block))
    tokens_per_s = sum(r["tokens"] for r in block) / (span_ns / 1e9)
    return Figures(float(np.median(first_tokens)) / 1e6, tokens_per_s, None if p99_ns is None else p99_ns / 1e6)


def run(client: Client, load: Load, number: int) -> Run:
    """One turn of ``client`` under ``load``, against a server of its own; a failure is in the result, not raised."""
    asked = Run(client.name, load.streams, number)
    try:
        with tempfile.TemporaryDirectory(prefix="peer-") as folder:
            with truth_server.process(first_s=FIRST_S, gap_s=load.gap_s) as server:
                job = Job(server.base_url, Path(folder), load)
                execute(client, job)
                seen = server.seen()
            report = client.read(job)
        if report.good != load.requests:
            raise PeerError(f"{client.title} counts {report.good} good requests of {load.requests}")
        block = measured(seen, client.title, load, report.before)
    except RuntimeError as error:  # PeerError, MissingKernel, ModelError, and a truth server that does not start
        return replace(asked, error=str(error))
    return replace(asked, says=report.figures, truth=true_figures(block), unmeasured=report.before)


def execute(client: Client, job: Job, timeout_s: float = TIMEOUT_S) -> None:
    """Run the client to its end; none of its processes is left, whatever happens.

    Raises :class:`PeerError` with the last line of its log if it fails or takes too long.
    """
    command, env = client.command(peer_clients.interpreter(client), job), peer_clients.environment(client, job)
    with guard.guarded(command, env, name=client.name, cwd=job.folder) as running:
        try:
            code = running.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise PeerError(f"{client.title} did not end within {timeout_s:g} s: {running.reason()}") from None
        if code:
            raise PeerError(f"{client.title} ended with exit code {code}: {running.reason()}")


def compare(
    clients: Sequence[Client], loads: Sequence[Load], rounds: int, keep: Callable[[list[Run]], None] = lambda runs: None
) -> list[Run]:
    """Every client under every load, ``rounds`` times, the order turned round each time.

    ``keep(runs so far)`` is called after each round and when the comparison is interrupted.
    """
    runs: list[Run] = []
    try:
        for load in loads:
            for number in range(rounds):
                for client in clients[:: 1 if number % 2 == 0 else -1]:
                    runs.append(run(client, load, number))
                    print(f"{load.streams:>3} streams, round {number + 1} of {rounds}: {told(runs[-1])}", flush=True)
                keep(runs)
    except KeyboardInterrupt:
        if runs:
            keep(runs)
        raise
    return runs


def told(one: Run) -> str:
    """A run in one line."""
    if one.error:
        return f"{one.client} failed: {one.error}"
    return f"{one.client}: TTFT {one.says.ttft_ms:.1f} ms, the server's {one.truth.ttft_ms:.1f} ms"


def summary(runs: Sequence[Run]) -> list[dict]:
    """A row per number of streams and client: every error and the server's own figures, with their spread over rounds."""
    rows = []
    for streams, name in dict.fromkeys((one.streams, one.client) for one in runs):
        good = [one for one in runs if (one.streams, one.client) == (streams, name) and one.error is None]
        failed = [one.error for one in runs if (one.streams, one.client) == (streams, name) and one.error]
        columns = {key: [one.errors[key] for one in good] for key in Run("", 0, 0).errors}
        columns["true_ttft_ms"] = [one.truth.ttft_ms for one in good]
        columns["true_output_tokens_per_s"] = [one.truth.output_tokens_per_s for one in good]
        spread = {key: timing.figure(values) for key, values in columns.items()}
        rows.append({
            "streams": streams, "client": name, "rounds": len(good), "failures": failed,
            **{key: found and asdict(found) for key, found in spread.items()},
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row["streams"], list(CLIENTS).index(row["client"])))


def as_text(rows: Sequence[dict]) -> str:
    """The rows as text: median over rounds (lowest to highest); ``-`` is "not defined", never 0."""
    lines = [f"{'streams':>7} {'client':<28}" + "".join(f"{column:>24}" for column in COLUMNS)]
    for row in rows:
        values = (row["ttft_ms"], row["output_tokens_per_s_percent"], row["itl_p99_percent"])
        cells = [formatting.told(value, "+.1f") for value in values] + [formatting.told(row["true_ttft_ms"], ".1f")]
        cells.append(formatting.told(row["true_output_tokens_per_s"], ".0f"))
        title = CLIENTS[row["client"]].title
        failed = f"  failed {len(row['failures'])} times" if row["failures"] else ""
        lines.append(f"{row['streams']:>7} {title:<28}" + "".join(f"{cell:>24}" for cell in cells) + failed)
    notes = [f"{client.title}: {client.itl}" for client in CLIENTS.values() if client.name in {row["client"] for row in rows}]
    few = f"ITL p99 is compared from {timing.requests_for(99)} requests on. What each client's is:"
    return "\n".join(["Error of each client: what it says minus what the server did.", *lines, few, *notes])


def record(runs: Sequence[Run], rounds: int, left_out: dict[str, str]) -> dict:
    """The comparison as a record: every run, the summary, and with what it was made."""
    names = dict.fromkeys(one.client for one in runs)
    loads = {one.streams: asdict(LOADS[one.streams]) for one in runs}
    plan = {"first_s": FIRST_S, "rounds": rounds, "loads": list(loads.values())}
    versions = {name: peer_clients.versions(name) for name in names}
    return {
        "summary": summary(runs),
        "runs": [{**asdict(one), "errors": one.errors} for one in runs],
        "clients": {name: {"title": CLIENTS[name].title, "itl": CLIENTS[name].itl} for name in names},
        "left_out": left_out,
        "provenance": records.provenance(versions=versions, plan=plan),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default=",".join(CLIENTS), help="names, with commas (default: all)")
    parser.add_argument("--streams", default=",".join(map(str, LOADS)), help=f"of {', '.join(map(str, LOADS))}, with commas")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there and not among the measurements")
    options = parser.parse_args(argv)
    for name, known in (("clients", CLIENTS), ("streams", {str(n): load for n, load in LOADS.items()})):
        unknown = [one for one in getattr(options, name).split(",") if one not in known]
        if unknown:
            parser.exit(2, f"--{name} {', '.join(unknown)}: choose from {', '.join(known)}\n")
        setattr(options, name, [known[one] for one in getattr(options, name).split(",")])
    if options.rounds < 1:
        parser.exit(2, f"--rounds {options.rounds}: must be at least 1\n")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (a client failed or is missing), 2 (bad arguments), 130/143 (stopped)."""
    options = _arguments(argv)
    left_out = peer_clients.missing(options.clients)
    for name, reason in left_out.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    here = [client for client in options.clients if client.name not in left_out]

    def keep(runs: list[Run]) -> None:
        found = record(runs, options.rounds, left_out)
        if options.json:
            records.write_json(options.json, found, replace=True)
        else:
            records.keep(NAME, found)

    def program() -> int:
        runs = compare(here, options.streams, options.rounds, keep)
        if not options.json:
            records.save(NAME, record(runs, options.rounds, left_out))
        print(as_text(summary(runs)))
        return 1 if left_out or any(one.error for one in runs) else 0

    return cli.finish(program, stopped="the runs that had ended are kept")


ERRORS = {
    "TTFT, ms": ("ttft_ms", "+.2f"),
    "tokens/s, %": ("output_tokens_per_s_percent", "+.2f"),
    "ITL p99, %": ("itl_p99_percent", "+.1f"),
}


def error_rows(record: Mapping) -> list[tuple[int, str, dict[str, str]]]:
    """Of a record of ``studies.peers`` or ``studies.layers``: streams, the client's title, its cells by column."""
    titles = {name: told["title"] for name, told in record.get("clients", {}).items()}
    return [
        (
            row["streams"],
            row.get("title") or titles[row["client"]],
            {column: formatting.told(row[key], form) for column, (key, form) in ERRORS.items()},
        )
        for row in record["summary"]
    ]


def errors(record: Mapping, streams: int) -> pd.DataFrame:
    """The rows of ``record`` for one number of ``streams``, as a :class:`pandas.DataFrame`."""
    found = every(record)
    return found[found["streams"] == streams].drop(columns="streams")


def every(record: Mapping) -> pd.DataFrame:
    """All rows of ``record``, with the number of streams in the first column."""
    import pandas as pd

    told = [{"": title, "streams": of, **cells} for of, title, cells in error_rows(record)]
    return pd.DataFrame(told, columns=["", "streams", *ERRORS]).set_index("")


if __name__ == "__main__":
    sys.exit(main())
