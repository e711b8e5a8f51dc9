"""The errors of load clients as tables: a pandas one for a notebook, a Markdown one for the README.

An error is what a client says minus what the truth server did; a row shows the median over
rounds, with lowest and highest. ``-`` is "not defined", never 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from helpers import records, timing

COLUMNS = {
    "TTFT, ms": ("ttft_ms", "+.1f"),
    "tokens/s, %": ("output_tokens_per_s_percent", "+.2f"),
    "ITL p99, %": ("itl_p99_percent", "+.1f"),
}
BEGIN, END = "<!-- made by `nox -s peers` -->", "<!-- end -->"


def rows(record: Mapping) -> list[tuple[int, str, dict[str, str]]]:
    """Of a record of ``helpers.peers`` or ``helpers.layers``: streams, the client's title, its cells by column."""
    titles = {name: told["title"] for name, told in record.get("clients", {}).items()}
    return [
        (
            row["streams"],
            row.get("title") or titles[row["client"]],
            {column: timing.told(row[key], form) for column, (key, form) in COLUMNS.items()},
        )
        for row in record["summary"]
    ]


def errors(record: Mapping, streams: int):
    """The rows of ``record`` for one number of ``streams``, as a :class:`pandas.DataFrame`."""
    import pandas as pd

    told = [{"": title, **cells} for of, title, cells in rows(record) if of == streams]
    return pd.DataFrame(told, columns=["", *COLUMNS]).set_index("")


def markdown(record: Mapping) -> str:
    """The record's table for the README, under a line that says where it was made and with which versions."""
    lines = [records.describe(record) + ":", ""]
    lines += ["| streams | client | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {streams} | {title} | " + " | ".join(cells.values()) + " |" for streams, title, cells in rows(record)]
    return "\n".join(lines)


def in_readme(text: str, record: Mapping) -> str:
    """``text`` with the record's table between the two marks; :class:`ValueError` if they are not there."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"the README has no place for the table: put {BEGIN} and {END} into it")
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{markdown(record)}\n\n{END}", text, flags=re.S)
