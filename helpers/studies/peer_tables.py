"""The errors of load clients as tables.

An error is what a client says minus what the truth server did; a row shows the median over
rounds, with lowest and highest. ``-`` is "not defined", never 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from helpers.bench import timing

COLUMNS = {
    "TTFT, ms": ("ttft_ms", "+.1f"),
    "tokens/s, %": ("output_tokens_per_s_percent", "+.2f"),
    "ITL p99, %": ("itl_p99_percent", "+.1f"),
}


def rows(record: Mapping) -> list[tuple[int, str, dict[str, str]]]:
    """Of a record of ``studies.peers`` or ``studies.layers``: streams, the client's title, its cells by column."""
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
    found = every(record)
    return found[found["streams"] == streams].drop(columns="streams")


def every(record: Mapping):
    """All rows of ``record``, with the number of streams in the first column."""
    import pandas as pd

    told = [{"": title, "streams": of, **cells} for of, title, cells in rows(record)]
    return pd.DataFrame(told, columns=["", "streams", *COLUMNS]).set_index("")
