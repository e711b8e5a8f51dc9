"""What the pages of an engine's steps share: the records, each one checked, and how a step and its time are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from helpers import formatting, records
from helpers.bench import timing
from helpers.collection.site import levels, markup, sources
from helpers.studies import steps


@dataclass(frozen=True)
class Tables:
    """The two tables of a run: heads, and the cells of a row, of its requests and of its steps; what is said of the steps."""

    of_request: Sequence[str]
    request: Callable[[Mapping], Iterable]
    of_step: Sequence[str]
    step: Callable[[Mapping], Iterable[str]]
    about: Callable[[Mapping], str]


def html(identifier: str, data: Sequence[Mapping], tables: Tables) -> str:
    """The part of a page that is made of ``data``, a run of each record: itself as ``identifier``, for the script, and tables."""
    parts = [markup.script(identifier, data)]
    for number, one in enumerate(data):
        group = f'data-group="{number}"'
        rows = (markup.row(request["name"], map(str, tables.request(request))) for request in one["requests"])
        parts.append(markup.table(f"The requests: {one['title']}", tables.of_request, rows, group))
        each = enumerate(one["steps"])
        rows = (markup.row(f"Step {count}", tables.step(step), markup.place(one["file"], step["at"])) for count, step in each)
        parts.append(markup.table(f"The steps, {tables.about(one)}: {one['title']}", tables.of_step, rows, group))
    return "\n".join(parts) + "\n"


def recorded() -> list[tuple[str, dict]]:
    """The newest record of each machine with its file, the newest first.

    :class:`~helpers.records.RecordError` says that there is none, or which one is not what it claims, and where in it.
    """
    found = sources.newest(steps.NAME)
    if not found:
        raise records.RecordError("no record has an engine's steps: make one with `nox -s record -- steps`")
    for file, record in found:
        steps.check(record, file)
    return found


def times(step: Mapping) -> dict:
    """When ``step`` began, in ms since its run did, and how long it took: medians of the passes, the latter also in words."""
    took = timing.figure(step["took_ms"])
    return {
        "at_ms": round(median(step["at_ms"]), 1), "took_ms": round(took.median, 1),
        "took": formatting.told({**vars(took), "repeats": len(step["took_ms"])}, ",.1f"),
    }  # fmt: skip


def pointer(run: str, number: int) -> str:
    """Where in a record step ``number`` of ``run`` stands."""
    return levels.pointer(("runs", run, "steps", number))


def title(record: Mapping) -> str:
    """Where, when and with what a record was made, and on which model."""
    return f"{record['provenance']['model']}, {records.describe(record)}"


def named(names: Sequence[str]) -> str:
    """Names in a row: ``A``, ``A and B``, ``A, B and C``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def spans(numbers: Iterable[int]) -> str:
    """Numbers in their order, three neighbours or more drawn together: 3, 4, 5, 9 are ``3 to 5 and 9``."""
    return named(list(_spans(numbers)))


def _spans(numbers: Iterable[int]) -> Iterator[str]:
    for _, of in groupby(enumerate(numbers), key=lambda one: one[1] - one[0]):
        first, *rest = (number for _, number in of)
        yield from [f"{first} to {rest[-1]}"] if len(rest) > 1 else map(str, (first, *rest))


def blocks(numbers: Sequence[int]) -> str:
    """Blocks by their numbers, in the order given."""
    return f"{'block' if len(numbers) == 1 else 'blocks'} {spans(numbers)}"


def tokens(count: int) -> str:
    """``1 token``, ``2 tokens``."""
    return f"{count} token" if count == 1 else f"{count} tokens"


def verb(names: Sequence[str], one: str, several: str) -> str:
    """``A waits``, ``A and B wait``."""
    return f"{named(names)} {one if len(names) == 1 else several}"
