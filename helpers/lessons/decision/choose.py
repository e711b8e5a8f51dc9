"""Which framework: a shortlist from the first answer on, with reasons, fit, speed, commands and what to measure.

    python -m helpers.lessons.decision.choose work=chat device=datacentre users=hundred model=Llama-3.1-8B
    python -m helpers.lessons.decision.choose                      # the questions

The rules stand in ``choose.toml``, and ``interpreter`` follows them. ``facts.json`` has what the records, the calculator
and the engines' flags say, as ``python -m helpers.collection.decision`` read them.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import cli, frameworks, paths
from helpers.lessons.decision import commands, interpreter
from helpers.weights import shapes, sizes
from helpers.weights.files import ModelError

RULES, FACTS = Path(__file__).with_name("choose.toml"), Path(__file__).with_name("facts.json")
EFFECTS = ("excludes", "first", "behind", "pro", "con", "note")


class DecisionError(ValueError):
    """Answers, or rules, that cannot be followed: the thing, the reason, the next step in one line."""


@dataclass(frozen=True)
class Shortlist:
    """An answer: ``groups`` are the frameworks, best first, those that are alike in one group; ``told`` is all of it.

    ``told`` has what :func:`interpreter.interpret` gives: ``entries``, ``out``, ``left``, ``notes``, ``next``, ``turns``.
    """

    groups: tuple[tuple[str, ...], ...]
    told: Mapping
    address: str  # behind the # of vis/decision.html

    def __str__(self) -> str:
        return "\n".join(lines(load(), self.told))


@lru_cache
def load() -> dict:
    """Rules and facts together, checked; :class:`DecisionError` names what is wrong in them."""
    return checked(completed(rules() | {"facts": json.loads(paths.data(FACTS))}))


def rules() -> dict:
    """``choose.toml`` as it stands."""
    return tomllib.loads(paths.data(RULES))


def completed(data: dict) -> dict:
    """``data`` with the frameworks' titles, and the calculator's models as answers to the question for the model."""
    options = [{"key": name, "label": f"{name} ({one['label']})"} for name, one in data["facts"]["models"].items()]
    asked = [one | ({"options": options} if one["key"] == "model" else {}) for one in data["questions"]]
    titles = {name: frameworks.TITLES[name] for name in data["frameworks"]}
    return data | {"questions": asked, "titles": titles}


def shortlist(model: str | Path | None = None, **answers: str | float) -> Shortlist:
    """The frameworks for ``answers``, any of :func:`questions`; what is left out is open.

    ``model`` is a name or hub id that the calculator knows, a size such as "13B" or "235B-A22B", a config.json, a folder or a
    ``.gguf``. ``memory_gib`` (of the machine or of one GPU), ``gpus`` and ``price_per_hour`` are numbers. Raises
    :class:`DecisionError` in one line for an answer that does not exist; answers that exclude each other are said in
    ``told["said"]``, with what was taken instead.
    """
    data = load()
    if model is not None:
        data, answers = with_model(data, model, dict(answers))
    taken = {key: _checked(data, key, value) for key, value in answers.items()}
    told = interpreter.interpret(data, taken)
    return Shortlist(tuple(map(tuple, told["groups"])), told, interpreter.address(data, told["answers"]))


def questions() -> dict[str, dict[str, str]]:
    """The questions' keys, each with its answers: what an answer is called, and what it says."""
    return {one["key"]: {each["key"]: each["label"] for each in one["options"]} for one in load()["questions"]}


def from_address(text: str) -> Shortlist:
    """The answer to an address of the page, or to the part behind its ``#``; what is broken in it is said in ``told``."""
    data = load()
    answers, said = interpreter.read(data, text.rpartition("#")[2])
    told = interpreter.interpret(data, answers)
    told["said"] = said + told["said"]
    return Shortlist(tuple(map(tuple, told["groups"])), told, interpreter.address(data, told["answers"]))


def with_model(data: dict, model: str | Path, answers: dict) -> tuple[dict, dict]:
    """``data`` that knows ``model``, and the answers with its name; :class:`DecisionError` for one of which nothing is known."""
    if known := interpreter.sheet(data, str(model)):
        return data, answers | {"model": known["name"]}
    try:
        sheet = shapes.of(model)
    except ModelError as error:
        raise DecisionError(f"{error}; or say how large it is, such as model='13B', or '235B-A22B' with experts") from None
    models = {**data["facts"]["models"], sheet.name: of_sheet(sheet)}
    return completed({**data, "facts": {**data["facts"], "models": models}}), answers | {"model": sheet.name}


def of_sheet(sheet: shapes.Sheet, hub: str = "", active: int | None = None, routed: int = 0) -> dict:
    """What the arithmetic needs of a model, as numbers: with :func:`sizes.cache` in 16 bits.

    ``routed`` are the parameters of all experts among which a token is divided; ``ends`` those of embedding and head, which
    engines keep in 16 bits; ``kv_heads`` over how many GPUs the KV cache can be cut.
    """
    cache = sizes.cache(sheet.shape)
    kind = "MoE" if sheet.experts else "dense"
    return {
        "hub": hub, "label": f"{interpreter.number(sheet.parameters / 1e9, 1)} billion, {kind}", "parameters": sheet.parameters,
        "active": active or sheet.parameters, "experts": sheet.experts, "context": sheet.shape.context, "routed": routed,
        "ends": sheet.shape.vocabulary * sheet.shape.hidden + sheet.looked_up,
        "kv_heads": 1 if sheet.shape.latent else max(1, sheet.shape.kv_heads),
        "parsers": list(commands.parsers(sheet.name)), "thinking": commands.thinking(sheet.name),
        "cache": {
            "bytes_per_layer": cache.bytes_per_layer, "full": cache.full, "windowed": cache.windowed, "window": cache.window,
            "state_bytes": cache.state_bytes,
        },
    }  # fmt: skip


def _checked(data: Mapping, key: str, value: str | float) -> str | float:
    """``value`` as the interpreter takes it; :class:`DecisionError` with the nearest that exists."""
    numbers = [one["key"] for one in data["numbers"]]
    keys = [*(one["key"] for one in data["questions"]), *numbers]
    if key not in keys:
        near = interpreter.nearest(key, keys)
        hint = f"did you mean {near!r}?" if near else f"the questions are {', '.join(keys)}"
        raise DecisionError(f"no question is called {key!r}: {hint}")
    if key in numbers:
        bounds = next(one for one in data["numbers"] if one["key"] == key)
        found = interpreter.read_number(data, key, str(value))
        if found is None:
            whole = "a whole number" if key == "gpus" else "a number"
            raise DecisionError(f"{key}={value!r}: give {whole} from {bounds['least']} to {bounds['most']}")
        return found
    known = [each["key"] for each in interpreter.question(data, key)["options"]]
    if value in known or (key == "model" and interpreter.sheet(data, str(value))):
        return value
    near = interpreter.nearest(str(value), known)
    hint = f"did you mean {near!r}?" if near else f"choose one of {', '.join(map(repr, known))}"
    raise DecisionError(f"{key}={value!r} is no answer to {interpreter.question(data, key)['text']!r}: {hint}")


# --- in words ---------------------------------------------------------------------------------------


def lines(data: Mapping, told: Mapping) -> Iterator[str]:
    """An answer as text, the way the page shows it."""
    yield from told["said"]
    yield ranked(data, told["groups"]) or data["said"]["none"]
    for one in told["entries"]:
        yield f"\n{data['titles'][one['name']]}"
        yield from (f"  + {reason_told(reason)}" for reason in one["for"])
        yield from (f"  - {reason_told(reason)}" for reason in one["against"])
        yield from (f"  {sentence}" for sentence in [*one["fit"], one["speed"], one["cost"]] if sentence)
        yield from (f"    {line}" for line in [*(f"export {pair}" for pair in one["environment"]), *one["commands"]])
    if told["out"] or told["left"]:
        yield "\nNot on the list"
    yield from (f"  {reason_told(reason)}" for one in told["out"] for reason in one["reasons"])
    for one in told["left"]:
        yield f"  {one['text']}"
        yield from (f"    {reason_told(reason)}" for reason in one["reasons"])
    yield from (f"\n{reason_told(note)}" for note in told["notes"])
    yield f"\nMeasure before you decide:\n    {told['measure']}"
    yield from _next(data, told["next"])


def ranked(data: Mapping, groups: Sequence[Sequence[str]]) -> str:
    """The shortlist in a line: alike ones are joined by "or", places by "then"."""
    return ", then ".join(" or ".join(data["titles"][name] for name in group) for group in groups)


def reason_told(reason: Mapping) -> str:
    """A reason with what it rests on."""
    rests = list(reason["claims"])
    rests += [f"the record of what servers do: {reason['probe']}"] if reason["probe"] else []
    rests += ["its own parser takes the command"] if reason["command"] else []
    rests += [f"read in {reason['package']}"] if reason["package"] else []
    return reason["text"] + (f" ({', '.join(rests)})" if rests else "")


def _next(data: Mapping, following: Mapping) -> Iterator[str]:
    if not following["key"]:
        yield "\nNo single answer that is open would change this list."
        return
    asked = interpreter.question(data, following["key"])
    yield f"\nNext: {asked['text']}"
    labels = {each["key"]: each["label"] for each in asked["options"]}
    yield from (f"  {labels[key]}: {ranked(data, groups) or data['said']['none']}" for key, groups in following["ways"])


def widget():
    """The questions as ipywidgets, each open at first, with the shortlist under them as it is in a terminal."""
    import html

    import ipywidgets

    shown, data = ipywidgets.HTML(), load()
    style, layout = {"description_width": "46%"}, ipywidgets.Layout(width="min(100%, 46em)")
    asked = {
        one["key"]: ipywidgets.Dropdown(
            options=[("open", None), *((each["label"], each["key"]) for each in one["options"])],
            description=one["text"], style=style, layout=layout,
        )
        for one in data["questions"]
    }  # fmt: skip

    def answer(_=None) -> None:
        found = shortlist(**{key: box.value for key, box in asked.items() if box.value is not None})
        shown.value = f"<pre style='white-space: pre-wrap'>{html.escape(str(found))}</pre>"

    for box in asked.values():
        box.observe(answer, "value")
    answer()
    return ipywidgets.VBox([*asked.values(), shown])


# --- the rules as data ------------------------------------------------------------------------------


def checked(data: dict) -> dict:
    """``data``; :class:`DecisionError` at the first name in a rule that does not exist, or rule that rests on nothing."""
    known = {one["key"]: [each["key"] for each in one["options"]] for one in data["questions"]}
    known["fit"] = ["fits", "quantized", "cache", "nowhere"]
    for place, rules in (("rule", data["rules"]), ("contradiction", data["contradictions"])):
        for count, rule in enumerate(rules, 1):
            where = f"{RULES.name}: {place} {count}"
            for key, options in [*rule["when"].items(), *rule.get("unless", {}).items()]:
                _known(where, "a question", [key], known)
                _known(where, f"an answer to {key}", options, known[key])
            if place == "rule":
                _check_rule(where, rule, data)
    return data


def _check_rule(where: str, rule: Mapping, data: Mapping) -> None:
    _known(where, "a framework", rule["for"], data["frameworks"])
    _known(where, "an effect", [rule["effect"]], EFFECTS)
    _known(where, "a claim", rule.get("claims", []), data["facts"]["claims"])
    _known(where, "a probed feature", [rule["probe"]] if "probe" in rule else [], data["facts"]["probes"])
    if rule["effect"] != "note" and not any(rule.get(kind) for kind in ("claims", "probe", "command", "package")):
        raise DecisionError(f"{where} rests on nothing: give it claims, a probe, a package, or command = true")


def _known(where: str, kind: str, names: Sequence[str], allowed) -> None:
    for name in names:
        if name not in allowed:
            raise DecisionError(f"{where} names {name!r}, which is not {kind}: choose from {', '.join(allowed)}")


def _parsed(arguments: Sequence[str]) -> dict[str, str]:
    if wrong := [one for one in arguments if "=" not in one]:
        raise DecisionError(f"{wrong[0]!r} is no answer: write question=answer, such as users=ten")
    return dict(one.split("=", 1) for one in arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 with a shortlist, 1 without one, 2 for answers that do not exist."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if not given:
            asked = (f"{key}={'|'.join(options)}" for key, options in questions().items())
            return 0 if cli.say("\n".join(asked)) else 1
        found = shortlist(**_parsed(given))
    except (DecisionError, paths.MissingData) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if cli.say(str(found)) and found.groups else 1


if __name__ == "__main__":
    sys.exit(main())
