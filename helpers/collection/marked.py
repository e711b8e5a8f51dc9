"""A part of a Markdown file that a command writes: it stands between two marks, and nothing around it changes."""

from __future__ import annotations

import re


def marks(name: str, module: str) -> tuple[str, str]:
    """What stands before and after the part ``name``, which ``python -m helpers.collection.MODULE`` writes."""
    return f"<!-- {name}: made by `python -m helpers.collection.{module}` -->", f"<!-- {name}: end -->"


def written(text: str, name: str, module: str, part: str, file: str) -> str:
    """``text`` of ``file`` with ``part`` between the marks of ``name``; ``ValueError`` without a place for it."""
    begin, end = marks(name, module)
    if begin not in text or end not in text:
        raise ValueError(f"{file} has no place for the table {name!r}: put {begin} and {end} into it")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{part}\n\n{end}", text, flags=re.S)
