"""One life on several machines: what the GPU changes, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from helpers import engines
from helpers.gpu import replay
from helpers.gpu.variants import SHORT
from helpers.guide import users_told
from helpers.timing import told


def rates(option: str = SHORT):
    """Output tokens/s of the engines' APIs with ``option``: a row for each engine and number of users, a column for each GPU.

    The machine of the other tables comes first; *x* is how many times its rate the last machine's is.
    """
    shown, found = _table("offline", _rates, option)
    for name, by_gpu in found.items():
        known = [rate["median"] for rate in by_gpu.values()]
        shown.loc[name, "x"] = f"{known[-1] / known[0]:.2f}" if len(known) > 1 else "-"
    return shown


def copying():
    """Output tokens/s of the small model at tasks whose answers stand in their prompts, with and without drafts, on each GPU."""
    return _table("real", _copying)[0]


def _rates(record: Mapping, option: str) -> Iterator[tuple[Mapping, str, Mapping]]:
    for one in (one for one in replay.lives(record, "offline") if one["option"] == option):
        for users, rate in replay.rates(one).items():
            yield one, users_told(users), rate


def _copying(record: Mapping) -> Iterator[tuple[Mapping, str, Mapping]]:
    for one in replay.lives(record, "real"):
        how = "no drafts" if one["option"] == "plain" else one["option"]
        for row in (row for row in one["rows"] if row["kind"] == "copying"):
            yield one, f"{users_told(row['users'])}, {how}", row["output_tokens_per_s"]


def _table(work: str, figures, *more):
    """What ``figures`` yields of each machine's record of the options, as a frame, and the same as figures by row and GPU."""
    import pandas as pd

    found, lines = {}, []
    for machine in _machines():
        record = replay.load("options", machine)
        gpu = record["provenance"]["machine"]["gpus"][0]
        for one, name, rate in figures(record, *more):
            found.setdefault(f"{engines.TITLES[one['engine']]}, {name}", {})[gpu] = rate
        lines.append(replay.recorded(record, works=(work,)))
    rows = {name: {gpu: told(rate) for gpu, rate in by_gpu.items()} for name, by_gpu in found.items()}
    shown = pd.DataFrame.from_dict(rows, orient="index").fillna("-")
    shown.attrs["recorded"] = "; ".join(lines)
    return shown, found


def _machines() -> list[str]:
    """Those with a record of the options, the one whose speed was measured last before the others."""
    known = replay.machines("options")
    return list(dict.fromkeys([*(name for name in replay.machines("speed") if name in known), *known]))
