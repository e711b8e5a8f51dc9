"""The race, run and recorded: ``python -m helpers.studies.race``.

The same prompt to one row of every framework at hand, one after the other and then all at once; the record keeps every
piece of text with its stamp. Each way is kept as soon as it is run, and a run that was stopped goes on where it was.
``--draw`` makes ``vis/race.svg`` of the newest record. One request for each engine is something to look at and no
measurement: :mod:`helpers.studies.throughput` measures.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers import cli, frameworks, kernels, machine, paths, records
from helpers.lessons.race import lanes as kept_lanes
from helpers.lessons.race import live, picture
from helpers.lessons.race.lanes import WAYS, Lane
from helpers.lessons.race.screen import Screen
from helpers.servers import engines, install, serving
from helpers.servers.serving import Server
from helpers.weights import models
from helpers.weights.files import ModelError

if TYPE_CHECKING:
    import pandas as pd

NAME = "race"
FIGURE = paths.REPOSITORY / "vis" / "race.svg"
SIZE = {"slots": 4, "context": 512}
ALIKE = ("machine", "model", "versions", "arguments", "prompts", "output_tokens")
ONE_EACH = "One request for each engine: something to look at, no measurement."


class RaceError(RuntimeError):
    """A race that cannot be run or shown here: the reason and the next step in one line."""


@dataclass(frozen=True)
class Racers:
    """The servers of a race, each suspended until it is asked, and why other frameworks have none."""

    servers: Mapping[str, Server]
    left_out: Mapping[str, str]  # name to reason

    def __str__(self) -> str:
        if not self.servers:
            return f"no engine runs here: the race that is shown was {records.describe(records.load(NAME))}"
        return "\n".join(f"{frameworks.label(name)}: loaded in {s.startup_s:.0f} s" for name, s in self.servers.items())

    def lanes(self, run: Sequence[Lane] = ()) -> list[Lane]:
        """The lanes that were ``run``, and one with the reason for each framework that is left out."""
        absent = [Lane(name, error=serving.without_log(reason)) for name, reason in self.left_out.items()]
        order = list(frameworks.FRAMEWORKS)
        return sorted([*run, *absent], key=lambda lane: order.index(lane.name))


def entered() -> tuple[list[engines.Engine], dict[str, str]]:
    """The first row of each framework at hand, and for each of the others the reason under the name of its first row.

    In a replay none: the recorded race is shown.
    """
    if kernels.replaying():
        return [], {}
    here, reasons = engines.at_hand()
    first = engines.first_rows(here)
    absent: dict[str, tuple[str, str]] = {}
    for name, reason in reasons.items():
        if (kernel := frameworks.get(name).kernel) not in first:
            absent.setdefault(kernel, (name, reason))
    return list(first.values()), dict(absent.values())


@contextmanager
def start() -> Iterator[Racers]:
    """Load every racer's server for the length of a ``with`` block. Without any framework nothing is started.

    Raises :class:`~helpers.servers.serving.ServerError` if none of those at hand starts.
    """
    here, left_out = entered()
    if not here:
        yield Racers({}, left_out)
        return
    with serving.side_by_side(here, failed=left_out, **SIZE) as servers:
        yield Racers(servers, left_out)


def watch(racers: Racers, way: str) -> list[Lane]:
    """Run one way of the race in a notebook and show it as it goes; without a server, replay the record. Returns the lanes."""
    if not racers.servers:
        found = records.load(NAME)
        lanes, about = kept_lanes.of_record(found, way), _about(found, way)
        Screen(**about).draw(lanes, moving=True)
        return lanes
    screen = Screen(key=f"race-{way}", title=WAYS[way], prompt=live.PROMPTS[way], notes=[ONE_EACH])
    lanes = racers.lanes(live.run(racers.servers, way, lambda so_far: screen.draw(racers.lanes(so_far))))
    screen.draw(lanes, moving=True)
    return lanes


def _about(found: Mapping, way: str) -> dict:
    """What the picture of a record says beside its lanes."""
    notes = [f"{records.describe(found)}.", ONE_EACH]
    prompt = found["provenance"]["prompts"][way]
    return {"key": f"race-{way}", "title": WAYS[way], "prompt": prompt, "notes": notes, "gpu": records.on_gpu(found)}


def record() -> dict:
    """Run both ways and save the record; returns it."""
    with start() as racers:
        if not racers.servers:
            raise RaceError("no framework is installed here, so nobody can race: run `nox -s tour`")
        for name, reason in racers.left_out.items():
            print(f"{name}: left out, {reason}", flush=True)
        source = _provenance(racers)
        known = records.resume(NAME, source, lambda known, new: records.difference(known, new, ALIKE))
        found = {"ways": known["ways"] if known else {}, "provenance": source}
        for way in WAYS:
            if way not in found["ways"]:
                started = time.monotonic()
                found["ways"][way] = [lane.to_dict() for lane in racers.lanes(live.run(racers.servers, way))]
                records.keep(NAME, found)
                print(f"{way}: {time.monotonic() - started:.0f} s", flush=True)
    records.save(NAME, found)
    return found


def _provenance(racers: Racers) -> dict:
    return records.provenance(
        model=models.resolve().name,
        versions={name: install.versions(server.engine) for name, server in racers.servers.items()},
        arguments={name: list(server.arguments) for name, server in racers.servers.items()},
        left_out={name: serving.without_log(reason) for name, reason in racers.left_out.items()},
        prompts=dict(live.PROMPTS), output_tokens=dict(live.OUTPUT_TOKENS),
    )  # fmt: skip


def table(alone: Sequence[Lane], together: Sequence[Lane], gpu: bool | None = None) -> pd.DataFrame:
    """A pandas table: for each engine its first token and its rate, alone and all at once; ``-`` is "not defined"."""
    import pandas as pd

    rows: dict[str, dict[str, str]] = {}
    for title, lanes in (("alone", alone), ("all at once", together)):
        for lane in lanes:
            row = rows.setdefault(frameworks.label(lane.name, gpu), {"weights": frameworks.get(lane.name).dtype})
            row[f"TTFT, ms: {title}"] = "-" if lane.ttft_s is None else f"{1000 * lane.ttft_s:.0f}"
            row[f"tokens/s: {title}"] = "-" if lane.output_tokens_per_s is None else f"{lane.output_tokens_per_s:.3g}"
    return pd.DataFrame(rows).T.fillna("-")


def finding(alone: Sequence[Lane], together: Sequence[Lane], gpu: bool | None = None) -> str:
    """What was seen, in two sentences: who had its last token first, and what the others at work cost each."""
    done = {lane.name: lane for lane in alone if lane.output_tokens_per_s}
    if not done:
        return "No engine gave a whole answer."
    first = min(done.values(), key=lambda lane: lane.at_s[-1])
    said = f"Alone, {frameworks.label(first.name, gpu)} had its last token first, after {first.at_s[-1]:.2f} s."
    longer = [_longer(done[lane.name], lane) for lane in together if lane.name in done and lane.output_tokens_per_s]
    if not longer:
        return said
    least, most = (float(f"{times:.2g}") for times in (min(longer), max(longer)))  # two digits, and no exponent above 99
    return f"{said} All at once, each took {least:g} to {most:g} times as long for the same amount of text."


def _longer(alone: Lane, together: Lane) -> float:
    """How many times as long an engine took among the others for as many pieces as both answers have."""
    pieces = min(len(alone.pieces), len(together.pieces))
    return together.at_s[pieces - 1] / alone.at_s[pieces - 1]


def draw(found: Mapping) -> None:
    """Draw the picture of a record, each engine alone, and nothing else."""
    paths.write(FIGURE, picture.svg(kept_lanes.of_record(found, "alone"), **_about(found, "alone")))


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.race", description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw the picture of the newest record")
    options = parser.parse_args()

    def program() -> None:
        if options.draw:
            draw(records.load(NAME, machine.name()))
            return
        found = record()
        ways = [kept_lanes.of_record(found, way) for way in WAYS]
        print(finding(*ways), table(*ways).to_string(), sep="\n", flush=True)

    errors = (RaceError, serving.ServerError, ModelError, records.RecordError, kernels.AskError, kernels.MissingKernel)
    return cli.finish(program, *errors, stopped="the ways that were run are kept")


if __name__ == "__main__":
    sys.exit(main())
