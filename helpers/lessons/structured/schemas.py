"""JSON Schemas to ask for, prompts bound to them, and what makes a schema impossible.

A schema that no engine can compile, or that no value satisfies, is refused here in one line,
before a server is asked. An engine may accept it, and then ends somewhere in the middle.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import paths

FILE = Path(__file__).with_name("cases.json")
LIMITS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
)
BRANCHES = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
LOOKS_AROUND = re.compile(r"\(\?<?[=!]")  # look-ahead, look-behind
REFERS_BACK = re.compile(r"\\[1-9]|\\k<|\(\?P=")


class SchemaError(ValueError):
    """A schema that cannot be asked for: where, why, and what to do."""


@dataclass(frozen=True)
class Case:
    """A prompt and the name of the schema that its answer must follow."""

    schema_name: str
    schema: Mapping
    prompt: str
    flat: bool  # no nesting, no array, no choice between objects


@lru_cache
def _file() -> dict:
    return json.loads(paths.data(FILE))


def named() -> dict[str, Mapping]:
    """The schemas, by name."""
    return {name: entry["schema"] for name, entry in _file()["schemas"].items()}


def shows() -> dict[str, str]:
    """What each schema is about."""
    return {name: entry["shows"] for name, entry in _file()["schemas"].items()}


def examples() -> dict[str, tuple[object, object]]:
    """For each schema a value that follows it and one that does not."""
    return {name: (entry["example"], entry["wrong"]) for name, entry in _file()["schemas"].items()}


def impossible() -> dict[str, Mapping]:
    """Schemas that :func:`check_schema` refuses."""
    return {name: entry["schema"] for name, entry in _file()["impossible"].items()}


def seldom_supported() -> dict[str, Case]:
    """For some keywords that not every engine enforces: a prompt and a schema that needs it."""
    entries = _file()["seldom supported"].items()
    return {keyword: Case(keyword, entry["schema"], entry["prompt"], False) for keyword, entry in entries}


def cases(*, of_each: int | None = None, flat: bool | None = None) -> list[Case]:
    """All prompts, or the first ``of_each`` of every schema; ``flat`` restricts the schemas."""
    return [
        Case(name, entry["schema"], prompt, entry["flat"])
        for name, entry in _file()["schemas"].items()
        if flat is None or entry["flat"] == flat
        for prompt in entry["prompts"][:of_each]
    ]


def validator(schema: Mapping | bool):
    """The validator of ``jsonschema`` for ``schema``, draft 2020-12, with the formats it can check."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def check_schema(schema: Mapping | bool) -> None:
    """:class:`SchemaError` in one line if no engine can compile ``schema`` or no finite value satisfies it.

    What it does not find, patterns that exclude each other for example, is left to the engines.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError as Malformed

    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"the schema is not JSON ({error}): give dicts, lists, texts and finite numbers") from None
    try:
        Draft202012Validator.check_schema(json.loads(text))
    except Malformed as error:
        where = "".join(f".{part}" for part in error.absolute_path)
        raise SchemaError(f"schema{where}: {error.message[:120]}: not a JSON Schema of draft 2020-12") from None
    for where, part in _parts(schema, "schema"):
        _check_reference(schema, part.get("$ref"), where)
        for pattern in [part.get("pattern"), *part.get("patternProperties", ())]:
            _check_pattern(pattern, where)
    if reason := _unsatisfiable(schema, schema, "schema", ()):
        raise SchemaError(f"{reason}: no value satisfies it; change the schema")


def _parts(schema: Mapping | bool, where: str) -> Iterator[tuple[str, Mapping]]:
    """``schema`` and every schema inside it, with its place."""
    if not isinstance(schema, Mapping):
        return
    yield where, schema
    for key in SINGLE:
        yield from _parts(schema.get(key, True), f"{where}.{key}")
    for key in BRANCHES:
        for number, part in enumerate(schema.get(key, ())):
            yield from _parts(part, f"{where}.{key}.{number}")
    for key in NAMED:
        for name, part in schema.get(key, {}).items():
            yield from _parts(part, f"{where}.{key}.{name}")


def _check_reference(root: Mapping, reference: str | None, where: str) -> None:
    if reference is not None and not reference.startswith("#"):
        raise SchemaError(f"{where}: $ref {reference!r} lies outside: engines load nothing, write it under $defs")
    if reference is not None and _target(root, reference) is None:
        raise SchemaError(f"{where}: $ref {reference!r} leads nowhere: define it under $defs")


def _target(root: Mapping, reference: str) -> Mapping | bool | None:
    """What a ``$ref`` like ``#/$defs/folder`` points at, or ``None``."""
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, Mapping) and key in found:
            found = found[key]
        else:
            return None
    return found if isinstance(found, (Mapping, bool)) else None


def _check_pattern(pattern: str | None, where: str) -> None:
    """Engines make an automaton of a pattern. What refers back is none; what looks around is left out by llama.cpp at least."""
    plain = re.sub(r"\\\\|\\\(", "", pattern or "")
    if LOOKS_AROUND.search(plain) or REFERS_BACK.search(plain):
        raise SchemaError(f"{where}: pattern {pattern!r} looks around or back: engines may leave that out, write it without")


def _unsatisfiable(schema: Mapping | bool, root: Mapping, where: str, inside: tuple[int, ...]) -> str | None:
    """Why no finite value follows ``schema``, or ``None`` where none was found.

    ``inside`` holds the schemas that are being looked at: one that needs itself has no finite value.
    """
    if schema is True or schema is False:
        return None if schema else f"{where}: false allows nothing"
    if id(schema) in inside:
        return f"{where}: needs itself without end"
    inside = (*inside, id(schema))
    if "$ref" in schema and (reason := _unsatisfiable(_target(root, schema["$ref"]), root, where, inside)):
        return reason
    if reason := _excluded(schema, where) or _no_listed_value(schema, where):
        return reason
    for key in ("anyOf", "oneOf"):
        reasons = [_unsatisfiable(part, root, f"{where}.{key}.{i}", inside) for i, part in enumerate(schema.get(key, ()))]
        if reasons and all(reasons):
            return reasons[0]
    needed = [(f"{where}.allOf.{i}", part) for i, part in enumerate(schema.get("allOf", ()))]
    needed += _needed_parts(schema, where)
    return next(filter(None, (_unsatisfiable(part, root, place, inside) for place, part in needed)), None)


def _needed_parts(schema: Mapping, where: str) -> list[tuple[str, Mapping | bool]]:
    """The schemas of the keys and items that every value has."""
    found = []
    if _only(schema, "object"):
        properties, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        if "patternProperties" not in schema:
            found += [(f"{where}.{name}", properties.get(name, other)) for name in schema.get("required", ())]
    if _only(schema, "array"):
        prefix = schema.get("prefixItems", [])
        fewest = schema.get("minItems", 0)
        found += [(f"{where}.{i}", part) for i, part in enumerate(prefix[:fewest])]
        found += [(f"{where}.items", schema.get("items", True))] if fewest > len(prefix) else []
    return found


def _only(schema: Mapping, kind: str) -> bool:
    """Whether every value of ``schema`` is of this type, as far as the schema says it itself."""
    return schema.get("type") in (kind, [kind])


def _excluded(schema: Mapping, where: str) -> str | None:
    """Limits that exclude each other."""
    for least, most in LIMITS:
        if schema.get(least, -math.inf) > schema.get(most, math.inf) and _bound_by(schema, least):
            return f"{where}: {least} {schema[least]} is above {most} {schema[most]}"
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    ends_count = low != schema.get("exclusiveMinimum") and high != schema.get("exclusiveMaximum")
    if _bound_by(schema, "minimum") and (low > high or (low == high and not ends_count)):
        return f"{where}: no number is above {low} and below {high}"
    if _only(schema, "integer") and -math.inf < low and high < math.inf and math.floor(high) < math.ceil(low):
        return f"{where}: no integer lies between {low} and {high}"
    return None


def _bound_by(schema: Mapping, limit: str) -> bool:
    """Whether every value has to keep ``limit``: it binds values of one type only."""
    kinds = {"Length": ("string",), "Items": ("array",), "Contains": ("array",), "Properties": ("object",)}
    own = next((kinds[end] for end in kinds if limit.endswith(end)), ("integer", "number"))
    return any(_only(schema, kind) for kind in own) and (limit != "minContains" or "contains" in schema)


def _no_listed_value(schema: Mapping, where: str) -> str | None:
    """An ``enum`` or ``const`` of which no value follows the rest of the schema."""
    listed = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
    if listed is None or "$ref" in json.dumps(schema):
        return None
    if any(validator(schema).is_valid(value) for value in listed):
        return None
    return f"{where}: none of {json.dumps(listed, ensure_ascii=False)[:60]} follows the rest of it"
