"""One life on several machines: what the GPU changes, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from helpers.bench.timing import told
from helpers.collection.document_figures import users_told
from helpers.gpu import read
from helpers.gpu.flags import SHORT
from helpers.servers import engines

Figures = Iterator[tuple[Mapping, str, Mapping]]  # a life, what was measured, the figure


def rates(option: str = SHORT):
    """Output tokens/s of the engines' APIs with ``option``: a row for each engine and number of users, a column for each GPU.

    The machine of the other tables comes first; *x* is how many times its rate the last column's is.
    """

    def figures(record: Mapping) -> Figures:
        for one in (one for one in read.lives(record, "offline") if one["option"] == option):
            for users, rate in read.rates(one).items():
                yield one, users_told(users), rate

    shown, found = _table(figures)
    first, last = shown.columns[0], shown.columns[-1]
    times = {
        name: by_gpu[last]["median"] / by_gpu[first]["median"] for name, by_gpu in found.items() if {first, last} <= set(by_gpu)
    }
    shown["x"] = [f"{times[name]:.2f}" if name in times else "-" for name in shown.index]
    return shown


def copying():
    """Output tokens/s of the small model at tasks whose answers stand in their prompts, with and without drafts, on each GPU."""

    def figures(record: Mapping) -> Figures:
        for one in read.lives(record, "real"):
            for row in (row for row in one["rows"] if row["kind"] == "copying"):
                yield one, f"{users_told(row['users'])}, {read.drafting(one)}", row["output_tokens_per_s"]

    return _table(figures)[0]


def _table(figures: Callable[[Mapping], Figures]):
    """What ``figures`` yields of each machine's options, as a frame, and as figures by row and GPU."""
    found: dict[str, dict[str, Mapping]] = {}
    lines = []
    for machine in read.order("options") or [None]:  # without any, load says what to do
        record, used = read.load("options", machine), []
        title = f"{record['provenance']['machine']['gpus'][0]}, {record['provenance']['machine']['cores']} cores"
        for one, name, figure in figures(record):
            found.setdefault(f"{engines.TITLES[one['engine']]}, {name}", {})[title] = figure
            used.append(one)
        lines.append(read.recorded({**record, "lives": dict(enumerate(used))}, works=tuple({one["work"] for one in used})))
    rows = {name: {title: told(figure) for title, figure in by.items()} for name, by in found.items()}
    shown = read.frame(rows)
    shown.attrs["recorded"] = "\n".join(lines)
    return shown, found
