"""A trace in Mooncake's format, replayed: who asked when for how much, and what their prompts shared.

A line is ``{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}``; each id stands for a
block of 512 tokens, the last one for the rest, and prompts that begin with the same ids begin with the same tokens
(Qin et al., *Mooncake*, FAST 2025; github.com/kvcache-ai/Mooncake, FAST25-release/traces). No text is in a trace: words
are drawn for each id, other ones in each repeat, so that one repeat does not warm the cache for the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.bench import files
from helpers.bench.files import BadFile
from helpers.bench.talks import Part, Talk, Turn

BLOCK_TOKENS = 512
REQUIRED, OPTIONAL = ("timestamp", "input_length", "output_length"), ("hash_ids",)


@dataclass(frozen=True)
class Row:
    """One request of a trace."""

    at_ms: float
    input_tokens: int
    output_tokens: int
    ids: tuple[int, ...] = ()  # empty: nothing is shared


@dataclass(frozen=True)
class Trace:
    """Rows in the order of their times. ``stretch`` 2 takes twice the time, 0.5 half of it."""

    rows: Sequence[Row]
    name: str  # of the file, without its folder
    file_sha256: str
    stretch: float = 1.0
    block_tokens: int = BLOCK_TOKENS
    timed = True

    def __post_init__(self):
        if not 0 < self.stretch < math.inf:
            raise ValueError(f"stretch={self.stretch:g}: must be above 0; 1 is real time, 2 takes twice as long")

    @property
    def span_s(self) -> float:
        """From the first request to the last, stretched."""
        return (self.rows[-1].at_ms - self.rows[0].at_ms) / 1e3 * self.stretch

    @property
    def rate_per_s(self) -> float:
        """Requests per second in the mean; of a trace of one moment, as if it were a second."""
        return len(self.rows) / (self.span_s or 1.0)

    def talks(self, count: int, *, seed: str, skip: int, overhead: int) -> list[Talk]:
        """The first ``count`` requests at their times; see :class:`helpers.bench.talks.Source`."""
        return [self._talk(row, number, seed, overhead) for number, row in enumerate(self.rows[:count])]

    def _talk(self, row: Row, number: int, seed: str, overhead: int) -> Talk:
        words = max(row.input_tokens - overhead, 1)
        full, rest = divmod(words, self.block_tokens)
        sizes = [self.block_tokens] * full + [rest] * (rest > 0)
        ids = row.ids or [f"row {number}, {i}" for i in range(len(sizes))]
        parts = tuple(Part(f"{seed}, block {i} of {size}", size) for i, size in zip(ids, sizes))
        at_s = (row.at_ms - self.rows[0].at_ms) / 1e3 * self.stretch
        return Talk((Turn(parts, row.output_tokens, words + overhead),), at_s)

    def facts(self) -> Mapping:
        """The file by its name and hash, and how it was replayed."""
        of = {"file": self.name, "file_sha256": self.file_sha256, "requests": len(self.rows)}
        return {"kind": "trace", **of, "stretch": self.stretch, "block_tokens": self.block_tokens, "span_s": self.span_s}


def read(file: Path, *, requests: int | None = None, stretch: float = 1.0, block_tokens: int = BLOCK_TOKENS) -> Trace:
    """The trace in ``file``, or its first ``requests``; :class:`BadFile` with the line of what is wrong with it."""
    for what, asked in (("requests", requests), ("block_tokens", block_tokens)):
        if asked is not None and asked < 1:
            raise ValueError(f"{what}={asked}: must be at least 1")
    content, sha256 = files.text(file)
    rows: list[Row] = []
    for line, found in files.objects(file, content):
        rows.append(_row(f"{file}, line {line}", found, block_tokens))
        if len(rows) > 1 and rows[-1].at_ms < rows[-2].at_ms:
            raise BadFile(
                f"{file}, line {line}: timestamp {rows[-1].at_ms:g} is before the last one, {rows[-2].at_ms:g}; sort it"
            )
    if not rows:
        raise BadFile(f"{file}: holds no request; give a trace with one in each line")
    return Trace(rows[:requests], file.name, sha256, stretch, block_tokens)


def _row(where: str, found: Mapping, block_tokens: int) -> Row:
    files.check_fields(where, found, REQUIRED, OPTIONAL)
    at_ms = files.number(where, "timestamp", found["timestamp"], least=0, whole=False)
    tokens, answer = (files.number(where, name, found[name], least=1) for name in REQUIRED[1:])
    ids, blocks = found.get("hash_ids", []), math.ceil(tokens / block_tokens)
    if not isinstance(ids, list) or not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise BadFile(f"{where}: hash_ids is {files.shown(ids)}, must be a list of whole numbers")
    if ids and len(ids) != blocks:
        said = f"{len(ids)} hash_ids for {tokens} tokens, which are {blocks} blocks of {block_tokens}"
        raise BadFile(f"{where}: {said}; give the size of its blocks with --trace-block")
    return Row(at_ms, tokens, answer, tuple(ids))
