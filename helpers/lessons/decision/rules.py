"""The rules of the decision as data, checked, and the small language they are written in.

The rules stand in ``rules.toml``. :func:`decide` and :func:`summary` are the whole language.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from helpers import paths
from helpers.servers import engines

RULES = Path(__file__).with_name("rules.toml")
ANY = "any"  # the answer to `wanted` of who asks for no framework by name
TENSORRT_LLM = "tensorrt-llm"  # the one that `engines` cannot start
TITLES = engines.TITLES
COLOURS = {name: engine.colour for name, engine in engines.ENGINES.items()} | {TENSORRT_LLM: "#CC79A7"}  # Okabe-Ito too
EFFECTS = ("points", "excludes", "note")
CLAIM = re.compile(r"C(?!000)(0\d\d|1[0-3]\d|14[0-7])")  # C001 to C147
CHANGES_TOLD = 3


class RulesError(ValueError):
    """Rules that cannot be followed: what is wrong, where, and what is allowed there."""


# --- the rule language ----------------------------------------------------------------------------


def matches(when: Mapping[str, Sequence[str]], answers: Mapping[str, str]) -> bool:
    """Whether all conditions hold."""
    return all(answers[question] in options for question, options in when.items())


def ranking(data: Mapping, answers: Mapping[str, str]) -> dict[str, int]:
    """The points of each framework that is not excluded, most first, equals in the order of the rules."""
    hits = [rule for rule in data["rules"] if matches(rule["when"], answers)]
    out = [name for rule in hits if rule.get("excludes") for name in rule["for"]]
    left = [name for name in data["frameworks"] if name not in out]
    points = {name: sum(rule.get("points", 0) for rule in hits if name in rule["for"]) for name in left}
    return dict(sorted(points.items(), key=lambda item: -item[1]))


def others(questions: Sequence[Mapping], answers: Mapping[str, str], size: int) -> Iterator[dict[str, str]]:
    """Every way to answer ``size`` of the questions differently."""
    if size == 0:
        yield {}
        return
    for i, question in enumerate(questions):
        for option in question["options"]:
            if option["key"] != answers[question["key"]]:
                for rest in others(questions[i + 1 :], answers, size - 1):
                    yield {question["key"]: option["key"], **rest}


def changes(data: Mapping, answers: Mapping[str, str], name: str) -> list[dict[str, str]]:
    """The smallest sets of other answers with which ``name`` is the one to take."""
    for size in range(1, len(data["questions"]) + 1):
        ways = others(data["questions"], answers, size)
        found = [way for way in ways if next(iter(ranking(data, {**answers, **way}))) == name]
        if found:
            return found
    return []


def decide(data: Mapping, answers: Mapping[str, str], wanted: str = ANY) -> dict:
    """What the rules say: names, and the numbers of the rules that matched; or the rules in ``conflict``."""
    hits = [i for i, rule in enumerate(data["rules"]) if matches(rule["when"], answers)]
    about = {name: [i for i in hits if name in data["rules"][i]["for"]] for name in data["frameworks"]}
    out = {name: [i for i in about[name] if data["rules"][i].get("excludes")] for name in data["frameworks"]}
    if wanted != ANY and out[wanted]:
        return {"conflict": out[wanted]}
    points = ranking(data, answers)
    first, second = list(points)[:2]
    second = wanted if wanted not in (ANY, first) else second
    scored = {name: [i for i in about[name] if data["rules"][i].get("points")] for name in (first, second)}
    reasons = {name: sorted(scored[name], key=lambda i: -data["rules"][i]["points"]) for name in (first, second)}
    return {
        "framework": first,
        "runner_up": second,
        "points": points,
        "reasons": reasons,
        "excluded": {name: rules for name, rules in out.items() if rules},
        "notes": [i for i in hits if data["rules"][i].get("note") and {first, second} & set(data["rules"][i]["for"])],
        "changes": changes(data, answers, second),
    }


def summary(data: Mapping, found: Mapping) -> list[str]:
    """Two sentences: what speaks most for the answer and what tells it from the runner-up; what would change it."""
    first, second, points = found["framework"], found["runner_up"], found["points"]
    own = [i for i in found["reasons"][first] if second not in data["rules"][i]["for"]]
    told = list(dict.fromkeys([*found["reasons"][first][:1], *own[:1], *found["reasons"][first]]))[:2]
    why = ", and ".join(data["rules"][i]["because"] for i in told)
    ifs = {q["key"]: {option["key"]: option["if"] for option in q["options"]} for q in data["questions"]}
    ways = [" and ".join(ifs[key][option] for key, option in way.items()) for way in found["changes"][:CHANGES_TOLD]]
    return [
        f"{data['titles'][first]} {why}.",
        f"{data['titles'][second]} comes next with {points[second]} point{'' if points[second] == 1 else 's'} "
        f"to {points[first]}, "
        f"and wins if {', or if '.join(ways)}.",
    ]


# --- the rules as data ----------------------------------------------------------------------------


@lru_cache
def load(path: Path = RULES) -> dict:
    """The rules, checked, with the frameworks' titles; :class:`RulesError` says what is wrong in them."""
    data = tomllib.loads(paths.data(path) if path == RULES else path.read_text())
    check(data, path.name)
    return data | {"titles": {name: TITLES[name] for name in data["frameworks"]}}


def check(data: Mapping, source: str = RULES.name) -> None:
    """Raise :class:`RulesError` at the first name, field or claim in ``data`` that does not exist."""
    _known(source, "a framework", data["frameworks"], TITLES)
    options = {q["key"]: [option["key"] for option in q["options"]] for q in data["questions"]}
    for number, rule in enumerate(data["rules"], 1):
        where = f"{source}: rule {number}"
        _check_fields(where, rule)
        _check_when(where, rule["when"], options)
        _known(where, "a framework", rule["for"], data["frameworks"])
        _check_claims(where, rule["claims"])
    for number, step in enumerate(data.get("picture", []), 1):
        where = f"{source}: step {number} of the picture"
        for when in step["when"]:
            _check_when(where, when, options)
        _known(where, "a framework", [step["take"]], data["frameworks"])
        _check_claims(where, step["claims"])


def _check_fields(where: str, rule: Mapping) -> None:
    effects = [effect for effect in EFFECTS if effect in rule]
    if len(effects) != 1:
        raise RulesError(f"{where} has {' and '.join(effects) or 'no effect'}: give it one of {', '.join(EFFECTS)}")
    fields = ["when", "for", effects[0], *([] if "note" in rule else ["because"]), "claims"]
    _known(where, f"a field of a rule with {effects[0]}", rule, fields)
    if missing := [name for name in fields if name not in rule]:
        raise RulesError(f"{where} lacks {', '.join(missing)}: a rule with {effects[0]} has {', '.join(fields)}")


def _check_when(where: str, when: Mapping[str, Sequence[str]], options: Mapping[str, Sequence[str]]) -> None:
    _known(where, "a question", when, options)
    for question, allowed in when.items():
        _known(where, f"an answer to {question}", allowed, options[question])


def _check_claims(where: str, claims: Sequence[str]) -> None:
    if wrong := [claim for claim in claims or [""] if not CLAIM.fullmatch(claim)]:
        raise RulesError(f"{where} rests on the claim {wrong[0]!r}: name at least one of C001 to C147")


def _known(where: str, kind: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            raise RulesError(f"{where} names {name!r}, which is not {kind}: choose from {', '.join(allowed)}")


def combinations(data: Mapping) -> Iterator[dict[str, str]]:
    """Every combination of answers."""
    every = [{}]
    for question in data["questions"]:
        every = [{**answers, question["key"]: option["key"]} for answers in every for option in question["options"]]
    yield from every
