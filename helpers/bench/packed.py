"""What an answer brings per token, in few bytes: 10,000 answers of 1,000 tokens have ten million stamps, lags and pieces.

In a tuple a stamp takes 40 bytes and a piece about 60. Here it is 8 or 4, and 4 and the piece's letters. Either is read as
the tuple that it stands for, and is equal to it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

SMALL = range(-(2**31), 2**31)  # what four bytes hold


class _Packed(Sequence):
    """Equal to a tuple with the same items; a slice of it is one."""

    __slots__ = ()

    def __getitem__(self, at: int | slice):
        if isinstance(at, slice):
            return tuple(self._item(i) for i in range(*at.indices(len(self))))
        return self._item(range(len(self))[at])

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (tuple, _Packed)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


class Numbers(_Packed):
    """Integers of at most 64 bits."""

    __slots__ = ("_kept",)

    def __init__(self, numbers: Sequence[int]):
        small = not numbers or (min(numbers) in SMALL and max(numbers) in SMALL)
        self._kept = array("i" if small else "q", numbers)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[int]:
        return iter(self._kept)

    def _item(self, at: int) -> int:
        return self._kept[at]


class Texts(_Packed):
    """Short texts, one after the other."""

    __slots__ = ("_all", "_ends")

    def __init__(self, texts: Iterable[str]):
        texts = tuple(texts)
        self._all, self._ends = "".join(texts), array("I", accumulate(map(len, texts)))

    def __len__(self) -> int:
        return len(self._ends)

    def _item(self, at: int) -> str:
        return self._all[self._ends[at - 1] if at else 0 : self._ends[at]]
