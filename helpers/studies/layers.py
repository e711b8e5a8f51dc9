"""Why our client reads the socket itself: ways to build a load client's HTTP layer, held against the truth.

    python -m helpers.studies.layers [--layers httpx,ours] [--streams 100,1] [--rounds 3] [--json FILE] [--record]

Each layer (:mod:`helpers.studies.layer_clients`) is a minimal closed-loop client in a process of its own.
All measure the same truth server, one at a time, the order turned round from round to round.
Run it in an interpreter that has their libraries (vLLM's); a layer without its own is named as left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from helpers import cli, formatting, records
from helpers.bench import timing, truth_server
from helpers.studies import peers
from helpers.studies.layer_clients import LAYERS, Answered, Layer, run
from helpers.studies.peer_clients import Figures, Load, PeerError
from helpers.studies.peers import FIRST_S

NAME = "layers"
STREAMS, ROUNDS, TOKENS = (100, 1), 3, 128
REQUESTS_PER_STREAM = 5  # 100 streams send 500: a p99 needs 460
TIMEOUT_S = 300  # for one layer's turn
COLUMNS = {  # title and format of each figure
    "ttft_ms": ("TTFT, ms", "+.2f"), "output_tokens_per_s_percent": ("tokens/s, %", "+.2f"),
    "itl_p99_percent": ("ITL p99, %", "+.1f"), "cpu_share": ("CPU share", ".2f"), "events_per_s": ("events/s", ".0f"),
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One layer's turn: what it measured, what the server did in the same requests, and what that took."""

    layer: str
    streams: int
    round: int
    says: Figures | None = None
    truth: Figures | None = None
    cpu_share: float | None = None  # of one core, parsing included
    events_per_s: float | None = None  # with text, all streams together, first request to last event
    error: str | None = None

    def figures(self) -> dict[str, float | None]:
        """The columns of the table: errors as in :mod:`helpers.studies.peers`, said minus true."""
        errors = peers.Run(self.layer, self.streams, self.round, self.says, self.truth).errors
        return {**errors, "cpu_share": self.cpu_share, "events_per_s": self.events_per_s}


def turn(layer: Layer, load: Load, number: int, server: truth_server.Process) -> Turn:
    """Run ``layer`` in a fresh process; a failure is in the result, not raised."""
    command = [sys.executable, "-c", "from helpers.studies import layers; layers.child()"]
    command += [layer.name, server.base_url, json.dumps(asdict(load))]
    try:
        server.reset()
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        if ran.returncode:
            raise PeerError(f"{layer.title}: {(ran.stderr.strip().splitlines() or ['it wrote nothing'])[-1]}")
        said = json.loads(ran.stdout)
        true = peers.true_figures(peers.measured(server.seen(), layer.title, load, expected=load.streams))
    except subprocess.TimeoutExpired:
        return Turn(layer.name, load.streams, number, error=f"{layer.title} did not end within {TIMEOUT_S} s")
    except PeerError as error:
        return Turn(layer.name, load.streams, number, error=str(error))
    says = Figures(**said.pop("says"))
    return Turn(layer.name, load.streams, number, says, true, **said)


def child() -> None:
    """What :func:`turn` starts: run one layer and print its figures as JSON."""
    name, base_url, load = sys.argv[1:]
    load = Load(**json.loads(load))
    answers, cpu_s, wall_s = run(LAYERS[name], base_url, load)
    whole = [answer for answer in answers if answer[2] == len(answer[1]) == load.tokens]
    if len(whole) != load.requests:
        sys.exit(f"{len(whole)} of {load.requests} answers have {load.tokens} tokens in as many events")
    events = sum(len(stamps_ns) for _, stamps_ns, _ in answers)
    span_s = (max(stamps_ns[-1] for _, stamps_ns, _ in answers) - min(answers)[0]) / 1e9  # without the parsing after it
    print(json.dumps({"says": asdict(said_figures(answers)), "cpu_share": cpu_s / wall_s, "events_per_s": events / span_s}))


def said_figures(answers: Sequence[Answered]) -> Figures:
    """The client's figures, by the same definitions as the server's."""
    return peers.true_figures([dict(zip(("received_ns", "written_ns", "tokens"), answer)) for answer in answers])


def compare(layers: Sequence[Layer], loads: Sequence[Load], rounds: int) -> list[Turn]:
    """Every layer under every load, ``rounds`` times, the order turned round each time."""
    turns = []
    with truth_server.process(first_s=FIRST_S, gap_s=Load.gap_s) as server:
        for load in loads:
            for number in range(rounds):
                for layer in layers[:: 1 if number % 2 == 0 else -1]:
                    turns.append(turn(layer, load, number, server))
                    told = turns[-1].error or f"TTFT {turns[-1].figures()['ttft_ms']:+.2f} ms off"
                    print(f"{load.streams} streams, round {number + 1}: {layer.name}: {told}", file=sys.stderr, flush=True)
    return turns


def summary(turns: Sequence[Turn], layers: Sequence[Layer], loads: Sequence[Load]) -> list[dict]:
    """A row per number of streams and layer: its figures over the rounds, its failures, and why it was left out."""
    rows = []
    for load in loads:
        for layer in layers:
            own = [one for one in turns if (one.layer, one.streams) == (layer.name, load.streams)]
            good = [one.figures() for one in own if one.error is None]
            spread = {key: timing.figure([one[key] for one in good]) for key in COLUMNS}
            rows.append({
                "streams": load.streams, "layer": layer.name, "title": layer.title, "rounds": len(good),
                **{key: found and asdict(found) for key, found in spread.items()},
                "failures": [one.error for one in own if one.error], "left_out": layer.missing(),
            })  # fmt: skip
    return rows


def as_text(rows: Sequence[dict]) -> str:
    """The rows as text: median over rounds (lowest to highest); ``-`` is "not defined", never 0."""
    lines = [f"{'streams':>7}  {'layer':<42}" + "".join(f"{title:>27}" for title, _ in COLUMNS.values())]
    for row in rows:
        told = "".join(f"{formatting.told(row[key], form):>27}" for key, (_, form) in COLUMNS.items())
        if row["left_out"]:
            told = f"left out: {row['left_out']}"
        elif row["failures"]:
            told += f"  failed {len(row['failures'])} times: {row['failures'][0]}"
        lines.append(f"{row['streams']:>7}  {row['title']:<42}{told}")
    few = f"ITL p99 needs {timing.requests_for(99)} requests a round; CPU share is of one core, parsing included."
    return "\n".join(["Error of each layer: what it measured minus what the server did.", *lines, few])


def record(turns: Sequence[Turn], rows: Sequence[dict], loads: Sequence[Load], rounds: int) -> dict:
    """The comparison as a record: the summary, every turn, and with what it was made."""
    names = {"httptools", *(name for row in rows if not row["left_out"] for name in LAYERS[row["layer"]].libraries)}
    plan = {"first_s": FIRST_S, "rounds": rounds, "loads": [asdict(load) for load in loads]}
    versions = {NAME: {name: metadata.version(name) for name in sorted(names)}}
    return {
        "summary": list(rows),
        "turns": [asdict(one) for one in turns],
        "provenance": records.provenance(versions=versions, plan=plan),
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.layers", description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default=",".join(LAYERS), help="names, with commas (default: all)")
    parser.add_argument("--streams", default=",".join(map(str, STREAMS)), help="numbers of streams, with commas")
    parser.add_argument("--requests-per-stream", type=int, default=REQUESTS_PER_STREAM)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="output tokens of a request")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison there")
    parser.add_argument("--record", action="store_true", help="save it as this machine's record")
    options = parser.parse_args(argv)
    unknown = [name for name in options.layers.split(",") if name not in LAYERS]
    if unknown:
        parser.exit(2, f"--layers {', '.join(unknown)}: choose from {', '.join(LAYERS)}\n")
    streams = options.streams.split(",")
    if not all(text.isdecimal() for text in streams) or min(map(int, streams), default=0) < 1:
        parser.exit(2, f"--streams {options.streams}: whole numbers from 1, with commas\n")
    for name in ("requests_per_stream", "tokens", "rounds"):
        if getattr(options, name) < 1:
            parser.exit(2, f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1\n")
    options.layers = [LAYERS[name] for name in options.layers.split(",")]
    options.loads = [Load(n, n * options.requests_per_stream, options.tokens) for n in map(int, streams)]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (a layer failed or is left out), 2 (bad arguments), 130/143 (stopped)."""
    options = _arguments(argv)
    return cli.finish(lambda: _compare_and_tell(options), stopped="nothing is kept")


def _compare_and_tell(options: argparse.Namespace) -> int:
    turns = compare([layer for layer in options.layers if layer.missing() is None], options.loads, options.rounds)
    rows = summary(turns, options.layers, options.loads)
    found = record(turns, rows, options.loads, options.rounds)
    print(as_text(rows))
    if options.json:
        records.write_json(options.json, found, replace=True)
    if options.record:
        records.save(NAME, found)
    return 1 if any(row["failures"] or row["left_out"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
