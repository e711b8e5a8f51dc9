"""Ask for an answer that follows a JSON Schema, and never believe it before it was validated.

A server may refuse a constraint, apply it, or take the request and ignore the field. HTTP 200
does not tell the last two apart; :func:`ask` does, and says which engine and which keyword.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from helpers.bench import client, workload
from helpers.lessons.structured import schemas
from helpers.lessons.structured.schemas import Case, check_schema
from helpers.servers.engines import Engine
from helpers.servers.serving import Server

if TYPE_CHECKING:
    import pandas as pd

MAX_TOKENS = 128
OUTCOMES = ("valid", "violates", "not JSON", "cut off", "refused", "failed")
# A chat template that opens a thought for the default model, which was not trained to think: a server finds the tags in it.
THINKING_TEMPLATE = Path(__file__).with_name("thinking_template.jinja")
HALF_A_NUMBER = re.compile(r"-|\.|[eE][+-]?")


class NoField(ValueError):
    """An engine whose server has no request field for this kind of constraint."""


@dataclass(frozen=True)
class Answer:
    """One answer, validated. ``outcome`` is one of ``OUTCOMES``; only ``valid`` may be used.

    ``cut off``: it ended at ``max_tokens`` and is the beginning of some JSON. ``not JSON`` and
    ``violates`` after a constraint say that it was not applied, or only in part. ``keyword`` is the
    JSON Schema keyword that was violated. ``refused`` is an HTTP error that names the reason.
    """

    engine: str  # its title
    asked: tuple[str, ...]  # the request fields that should constrain it; empty: free
    text: str
    outcome: str
    error: str | None = None
    keyword: str | None = None
    finish_reason: str | None = None  # "stop" or "length"
    output_tokens: int | None = None
    tpot_s: float | None = None  # seconds per output token after the first
    ttft_s: float | None = None  # the first token's: a grammar is compiled before it

    @property
    def valid(self) -> bool:
        return self.outcome == "valid"

    @property
    def ignored(self) -> bool:
        """Whether a constraint was asked for, not refused, and not kept."""
        return bool(self.asked) and self.outcome in ("not JSON", "violates")

    @property
    def value(self):
        """The parsed answer; :class:`ValueError` with the reason unless it is valid."""
        if not self.valid:
            raise ValueError(str(self))
        return json.loads(self.text)

    def __str__(self) -> str:
        how = f"{self.engine}, {' and '.join(self.asked) or 'free'}"
        length = f"{self.output_tokens} tokens" if self.output_tokens is not None else "length unknown"
        return f"{how}: valid, {length}" if self.valid else f"{how}: {self.outcome}: {self.error}"


def fields(engine: Engine, kind: str, value) -> Mapping:
    """The request fields that constrain ``engine``'s server by ``kind`` (``schema``, ``regex``, ``grammar``)."""
    if kind not in engine.constraints:
        there = ", ".join(engine.constraints) or "no constraint"
        raise NoField(f"{engine.title}'s server has no field for a {kind}: it takes {there}")
    return engine.constraints[kind](value)


def ask(
    server: Server,
    prompt: str,
    schema: Mapping | bool,
    *,
    with_fields: Mapping | None = None,
    max_tokens: int = MAX_TOKENS,
    check: bool = True,
    timeout_s: float = 120,
) -> Answer:
    """Ask for JSON that follows ``schema``, greedy, and validate what comes, whatever was promised.

    ``with_fields`` are sent instead of the engine's own for a schema; ``{}`` asks freely. An
    impossible schema is refused before anything is sent (:class:`SchemaError`), unless ``check=False``.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens}: an answer has at least one token")
    if check:
        check_schema(schema)
    sent = dict(fields(server.engine, "schema", schema) if with_fields is None else with_fields)
    endpoint = replace(server.endpoint, route="chat", token_ids=False, fields=lambda tokens: sent)
    sample = client.run(client.request(endpoint, workload.Prompt(prompt), max_tokens, timeout_s=timeout_s))
    times = {"output_tokens": sample.output_tokens, "tpot_s": sample.tpot_s, "ttft_s": sample.ttft_s}
    if sample.error:
        outcome = "refused" if sample.error.startswith(("HTTP 4", "server error")) else "failed"
        return Answer(server.engine.title, tuple(sent), sample.text, outcome, _short(sample.error), **times)
    reason = {"finish_reason": sample.finish_reason}
    return judge(server.engine.title, schema, sample.text, asked=tuple(sent), **reason, **times)


def judge(engine: str, schema: Mapping | bool, text: str, *, finish_reason: str | None = None, **known) -> Answer:
    """The :class:`Answer` that ``text`` is; ``known`` are its other fields. For engines without a server too."""
    outcome, error, keyword = _judge(schema, text, finish_reason)
    return Answer(engine, known.pop("asked", ()), text, outcome, error, keyword, finish_reason, **known)


def _judge(schema: Mapping | bool, text: str, finish_reason: str | None) -> tuple[str, str | None, str | None]:
    from jsonschema.exceptions import best_match

    try:
        value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_no_key_twice)
    except json.JSONDecodeError as error:
        if finish_reason == "length" and is_beginning(error):
            return "cut off", f"ended at max_tokens after {_short(text[-40:])!r}: ask for more tokens", None
        return "not JSON", f"{error.msg} at character {error.pos} of {_short(text[:60])!r}", None
    except ValueError as error:
        return "not JSON", str(error), None
    found = best_match(schemas.validator(schema).iter_errors(value))
    if found is None:
        return "valid", None, None
    return "violates", f"{found.json_path} breaks {found.validator}: {_short(found.message)}", found.validator


def is_beginning(error: json.JSONDecodeError) -> bool:
    """Whether the text that ``json`` refused is the beginning of some JSON: nothing is wrong but its end."""
    rest = error.doc[error.pos :].strip()
    if error.msg.startswith(("Unterminated string", "Invalid \\")):
        return True
    return any(word.startswith(rest) for word in ("true", "false", "null")) or bool(HALF_A_NUMBER.fullmatch(rest))


def _no_number(name: str):
    raise ValueError(f"{name} is no JSON number")


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"the key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _short(text: str) -> str:
    return " ".join(text.split())[:160]


def both_ways(
    server: Server, cases: Sequence[Case], *, max_tokens: int = MAX_TOKENS, on_answer: Callable[[Answer], None] = lambda a: None
) -> tuple[list[Answer], list[Answer]]:
    """Each prompt free and constrained, the order turning round from prompt to prompt: two lists, free first.

    Before, the first prompt is sent both ways once, unmeasured; a grammar seen before is not compiled again.
    """
    found: dict[bool, list[Answer]] = {False: [], True: []}
    for case in cases[:1]:
        for how in ({}, None):
            ask(server, case.prompt, case.schema, with_fields=how, max_tokens=8)
    for number, case in enumerate(cases):
        for constrained in (False, True) if number % 2 == 0 else (True, False):
            how = None if constrained else {}
            answer = ask(server, case.prompt, case.schema, with_fields=how, max_tokens=max_tokens)
            found[constrained].append(answer)
            on_answer(answer)
    return found[False], found[True]


def overhead(free: Iterable[Answer], constrained: Iterable[Answer]) -> float | None:
    """Median time per output token, constrained over free; ``None`` where one side has none.

    A median over tokens of many answers: constrained answers are shorter, so a total would not compare.
    """
    sides = [[a.tpot_s for a in answers if a.tpot_s is not None] for answers in (free, constrained)]
    return median(sides[1]) / median(sides[0]) if all(sides) else None


def counts(answers: Iterable[Answer]) -> dict[str, int]:
    """How many answers had each outcome; outcomes that did not occur are left out."""
    given = [answer.outcome for answer in answers]
    return {outcome: given.count(outcome) for outcome in OUTCOMES if outcome in given}


def table(found: Mapping[str, tuple[Sequence[Answer], Sequence[Answer]]]) -> pd.DataFrame:
    """A pandas table: per way of asking the valid answers free and constrained, and the time per token of each."""
    import pandas as pd

    rows = {
        name: {
            "valid, free": f"{sum(a.valid for a in free)} of {len(free)}",
            "valid, constrained": f"{sum(a.valid for a in forced)} of {len(forced)}",
            "others, constrained": ", ".join(f"{n} {what}" for what, n in counts(forced).items() if what != "valid") or "–",
            "ms per token, free": _ms(free),
            "ms per token, constrained": _ms(forced),
            "ratio": ratio and round(ratio, 2),
        }
        for name, (free, forced) in found.items()
        for ratio in [overhead(free, forced)]
    }
    return pd.DataFrame(rows).T


def _ms(answers: Iterable[Answer]) -> str:
    times = [answer.tpot_s * 1e3 for answer in answers if answer.tpot_s is not None]
    return f"{median(times):.1f}" if times else "not measured"
