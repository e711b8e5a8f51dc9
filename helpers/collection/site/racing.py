"""The race as a page: every recorded race with its pieces and stamps for the script, and its answers as a table.

Where no race is recorded, the page says so and how to record one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from helpers import frameworks, records
from helpers.collection.site import markup, sources
from helpers.lessons.race import lanes, picture
from helpers.lessons.race.lanes import WAYS, Lane
from helpers.studies import race

NONE = "No race is recorded yet. <code>nox -s record -- race</code> records one, and the page then replays it."


def recorded() -> list[dict]:
    """The newest record of each machine, the newest first."""
    return [found for _, found in sources.newest(race.NAME)]


def html(found: Sequence[Mapping]) -> str:
    """The part of the page that is made of the records ``found``; without one, the sentence that says so."""
    if not found:
        return f"<p>{NONE}</p>\n"
    data = [_race(one) for one in found]
    tables = "\n".join(_table(one, way) for one in data for way in one["ways"])
    return f'{markup.script("races", data)}\n<div id="answers">\n{tables}\n</div>\n'


def _race(found: Mapping) -> dict:
    """A record as the script and the tables take it."""
    gpu = records.on_gpu(found)
    ways = [
        {
            "key": way,
            "title": WAYS[way],
            "prompt": found["provenance"]["prompts"][way],
            "lanes": [_lane(lane, gpu) for lane in lanes.of_record(found, way)],
        }
        for way in WAYS
    ]
    return {"title": records.describe(found), "ways": ways}


def _lane(lane: Lane, gpu: bool) -> dict:
    one = frameworks.get(lane.name)
    return {
        "label": f"{frameworks.label(lane.name, gpu)}, {one.dtype}" if one.dtype not in one.title else one.title,
        "colour": one.colour, "pieces": lane.pieces, "at_s": lane.at_s, "figures": picture.figures(lane), "error": lane.error,
    }  # fmt: skip


def _table(one: Mapping, way: Mapping) -> str:
    caption = f"{way['title']}: {one['title']}"
    return markup.table(caption, ("", "Figures", "Answer"), map(_row, way["lanes"]), f'data-way="{way["key"]}"')


def _row(lane: Mapping) -> str:
    answer = escape("".join(lane["pieces"]) or lane["error"] or "")
    return markup.row(lane["label"], [lane["figures"]], f'<td class="said">{answer}</td>')
