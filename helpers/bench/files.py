"""Reading files of requests: every fault is one line that names the file and the line."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

BLANK = " \t\r\n"


class BadFile(ValueError):
    """A file of requests that cannot be used: the file, the line, the reason, what to do."""


def text(file: Path) -> tuple[str, str]:
    """What stands in ``file``, and its SHA-256."""
    try:
        content = file.read_bytes()
        return content.decode(), hashlib.sha256(content).hexdigest()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadFile(f"{file}, line {line}: is not UTF-8; convert the file") from None
    except OSError as error:
        raise BadFile(f"{file}: cannot be read ({error.strerror}); give another file") from None


def objects(file: Path, content: str) -> Iterator[tuple[int, dict]]:
    """Each object of a JSON array or of JSON lines, with the number of the line that it begins on."""
    found = _of_array if content.lstrip(BLANK).startswith("[") else _of_lines
    for line, value in found(file, content):
        if not isinstance(value, dict):
            raise BadFile(f"{file}, line {line}: {shown(value)} where an object is expected")
        yield line, value


def _of_lines(file: Path, content: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip(BLANK):
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise BadFile(f"{file}, line {number}: is not JSON ({error.msg})") from None


def _of_array(file: Path, content: str) -> Iterator[tuple[int, object]]:
    decoder, at, line = json.JSONDecoder(), 0, 1
    while True:
        start = at
        while at < len(content) and content[at] in f"{BLANK}[,":
            at += 1
        line += content.count("\n", start, at)
        if at == len(content) or content[at] == "]":
            break
        try:
            value, end = decoder.raw_decode(content, at)
        except json.JSONDecodeError as error:
            raise BadFile(f"{file}, line {error.lineno}: is not JSON ({error.msg})") from None
        yield line, value
        line += content.count("\n", at, end)
        at = end
    if content[at + 1 :].strip(BLANK) or at == len(content):
        said = "the array does not end; the file was cut" if at == len(content) else "more stands behind the array's end"
        raise BadFile(f"{file}, line {line}: {said}")


def check_fields(where: str, found: Mapping, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Raise :class:`BadFile` for a field that is missing, or one that nobody here knows."""
    if missing := [name for name in required if name not in found]:
        raise BadFile(f"{where}: the field {missing[0]!r} is missing")
    if unknown := [name for name in found if name not in (*required, *optional)]:
        known = ", ".join((*required, *optional))
        raise BadFile(f"{where}: the field {unknown[0]!r} is not known; take it out, or use one of {known}")


def number(where: str, name: str, value: object, *, least: float, whole: bool = True) -> float:
    """``value`` if it is a number of at least ``least``, else :class:`BadFile`."""
    good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < least:
        raise BadFile(f"{where}: {name} is {shown(value)}, must be a {'whole ' if whole else ''}number of at least {least:g}")
    return value


def shown(value: object) -> str:
    """``value`` as JSON, cut."""
    said = json.dumps(value)
    return said if len(said) <= 40 else f"{said[:37]}..."
