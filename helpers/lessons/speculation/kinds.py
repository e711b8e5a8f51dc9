"""The kinds of drafts that an engine offers, read out of the names in its own list."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

KINDS = {  # a pattern for what an engine calls each of them, in small letters
    "n-gram, prompt lookup": "ngram|promptlookup",
    "draft model": "draft.model|draft.simple|standalone|^assistedcandidate",
    "EAGLE-3": "eagle3",
    "MTP": "mtp",
    "DFlash": "dflash",
    "Medusa": "medusa",
    "suffix": "suffix",
}


def found(names: Iterable[str]) -> list[str]:
    """Those of :data:`KINDS` that ``names`` has."""
    small = [name.lower() for name in names]
    return [kind for kind, pattern in KINDS.items() if any(re.search(pattern, name) for name in small)]


def table(lists: Mapping[str, Iterable[str]], ran: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """A row for each kind, a column for each engine of ``lists``: "ran here" as ``ran`` says, "in its list", or "-"."""
    import pandas as pd

    offered = {engine: found(names) for engine, names in lists.items()}
    columns = {
        engine: ["ran here" if kind in ran.get(engine, ()) else "in its list" if kind in has else "-" for kind in KINDS]
        for engine, has in offered.items()
    }
    return pd.DataFrame(columns, index=list(KINDS))
