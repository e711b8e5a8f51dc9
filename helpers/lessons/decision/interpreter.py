"""The language that ``choose.toml`` is written in: answers in, a shortlist with its reasons out.

Plain functions over plain data. ``page.html`` has the same functions under the same names in JavaScript, and a test holds
the two against each other; so there is nothing here that both languages do not do alike, and :func:`number` rounds by hand.
``data`` is the file with ``facts``, ``titles`` and the models among the answers, as :mod:`~helpers.lessons.decision.choose`
loads it; ``answers`` has a text for each question that is answered and a number for each of ``data["numbers"]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

GIB = 2**30
UNKNOWN_PARSERS = ["PARSER", "PARSER"]  # of tool calls, by vLLM's and SGLang's names
FAR = 3  # times the parameters at work on a token: beyond it a record of another model gives no idea of the speed
APART = 100  # users of the two loads that give seconds for an input and for an output token
IN_ONE = 8  # GPUs of a machine; over several, layers are divided too
LONGER = 2  # times the tokens of a prompt: beyond it the record's load is another one
ORDERS = 20  # times the parameters at work on a token: beyond it a record orders nobody
SMALL_CACHE = "q8_0"  # eight bits and their scales, the larger one of the caches that commands can ask for
SAME = 1.1  # times the parameters: up to it a record is of a model as large, so that price and limits may follow from it
SIZE = re.compile(r"^(\d+(?:\.\d+)?)b(?:-a(\d+(?:\.\d+)?)b)?$", re.IGNORECASE)  # 13B, or 235B-A22B of a MoE model


# --- numbers and sentences ------------------------------------------------------------------------


def number(value: float, digits: int = 0) -> str:
    """``value`` with thousands' commas, its half rounded up."""
    scaled = math.floor(value * 10**digits + 0.5)
    whole, part = divmod(scaled, 10**digits)
    return f"{whole:,}" + (f".{part:0{digits}d}" if digits else "")


def brief(value: float) -> str:
    """A rate: whole from ten on."""
    return number(value, 0 if value >= 10 else 1)


def gib(size: float) -> str:
    return number(size / GIB, 1)


def fill(template: str, values: Mapping) -> str:
    """``template`` with each {name} replaced."""
    for name, value in values.items():
        template = template.replace("{" + name + "}", str(value))
    return template


def gpus_told(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


# --- answers --------------------------------------------------------------------------------------


def question(data: Mapping, key: str) -> Mapping:
    return next(one for one in data["questions"] if one["key"] == key)


def option(data: Mapping, answers: Mapping, key: str) -> Mapping:
    """What the answer to the question ``key`` stands for; empty where it is open."""
    found = [one for one in question(data, key)["options"] if one["key"] == answers.get(key)]
    return found[0] if found else {}


def matches(rule: Mapping, answers: Mapping) -> bool:
    """Whether a rule holds: all of ``when``, none of ``unless``."""
    holds = all(answers.get(key) in options for key, options in rule["when"].items())
    return holds and not any(answers.get(key) in options for key, options in rule.get("unless", {}).items())


def about(data: Mapping, rule: Mapping) -> list[str]:
    """The frameworks that a rule speaks of; of a probed feature only those that failed it."""
    if "probe" not in rule:
        return list(rule["for"])
    verdicts = data["facts"]["probes"][rule["probe"]]
    return [name for name in rule["for"] if verdicts.get(name) in ("ignores silently", "refuses clearly", "fails")]


def settled(data: Mapping, answers: Mapping) -> tuple[dict, list[str]]:
    """``answers`` without those that others exclude, and a sentence for each that went."""
    left, said = dict(answers), []
    for one in data["contradictions"]:
        if matches(one, left) and all(left.get(key, 0) > most for key, most in one.get("above", {}).items()):
            del left[one["drop"]]
            said.append(one["say"])
    return left, said


# --- does it fit ----------------------------------------------------------------------------------


def sheet(data: Mapping, model: str) -> dict | None:
    """The model of that name or hub id, or one of that size with the cache of the nearest known one; ``None``: unknown."""
    models = data["facts"]["models"]
    if not model:
        return None
    for name, one in models.items():
        hub = one["hub"]
        if model.lower() in (name.lower(), hub.lower(), chat_name(data, hub).lower()):
            return {**one, "name": name, "near": ""}
    found = SIZE.match(model)
    if not found:
        return None
    parameters = math.floor(float(found[1]) * 1e9 + 0.5)
    active = math.floor(float(found[2]) * 1e9 + 0.5) if found[2] else parameters
    if parameters < 1:
        return None
    alike = [name for name, one in models.items() if one["experts"] == bool(found[2])]
    near = min(alike, key=lambda name: abs(math.log(models[name]["parameters"] / parameters)))
    return {
        **models[near], "hub": "", "name": model, "near": near, "parsers": UNKNOWN_PARSERS, "thinking": {},
        "parameters": parameters, "active": active, "routed": 0,
    }  # fmt: skip


def chat_name(data: Mapping, hub: str) -> str:
    """The hub id of the same shape that was trained for chats: a base model has no chat template."""
    return data["chat_names"].get(hub, hub)


def started(data: Mapping, given: Mapping) -> str:
    """What an engine is told to load: a hub id, or a word that stands for one."""
    known = given["sheet"]
    return chat_name(data, known["hub"]) if known and known["hub"] else "MODEL"


def weights_bytes(data: Mapping, parameters: int, dtype: str) -> int:
    """Whole blocks of ``dtype``."""
    size, values = data["facts"]["blocks"][dtype]
    return math.ceil(parameters / values) * size


def user_bytes(data: Mapping, cache: Mapping, tokens: int, dtype: str = "bfloat16") -> int:
    """The KV cache of a user of ``tokens`` tokens, its values as ``dtype``."""
    kept = cache["full"] * tokens + cache["windowed"] * min(tokens, cache["window"])
    size, values = data["facts"]["blocks"][dtype]
    return math.ceil(cache["bytes_per_layer"] / 2 * kept / values) * size + cache["state_bytes"]


def usable_bytes(given: Mapping, gpus: float) -> int:
    return math.floor(gpus * given["memory_gib"] * GIB * given["usable"])


def users_of(data: Mapping, answers: Mapping) -> int | None:
    """How many ask at once: of a batch always many; ``None`` where it is open."""
    return option(data, answers, "work").get("users") or option(data, answers, "users").get("count")


def asked(data: Mapping, answers: Mapping) -> dict:
    """What the arithmetic goes by: users, tokens, memory and GPUs, with the defaults for what is open."""
    device, known = option(data, answers, "device"), sheet(data, answers.get("model", ""))
    wanted = max(option(data, answers, "context").get("tokens") or data["defaults"]["context"], least_tokens(data, answers))
    return {
        "users": users_of(data, answers) or data["defaults"]["users"],
        "wanted": wanted,
        "tokens": min(wanted, known["context"]) if known else wanted,
        "memory_gib": answers.get("memory_gib") or device.get("memory_gib", 0),
        "gpus": answers.get("gpus") or device.get("gpus", 1),
        "place": device.get("place", "gpu"),
        "usable": device.get("usable", data["usable"]),
        "sheet": known,
        "gguf": True,
        "spread": bool(known and known["routed"] and answers.get("device") == "machines"),
    }


def least_tokens(data: Mapping, answers: Mapping) -> int:
    """The shortest of the lengths among the answers that holds what the work sends and gets."""
    work = option(data, answers, "work")
    lengths = [one["tokens"] for one in question(data, "context")["options"]]
    return next((tokens for tokens in lengths if tokens >= work.get("input", 0) + work.get("output", 0)), lengths[-1])


def types(data: Mapping, name: str, place: str) -> list[str]:
    """The types of weights of a framework, most bits first; a CPU has no FP8."""
    return ["int8" if one == "fp8" and place == "cpu" else one for one in data["types"][name]]


def fit(data: Mapping, given: Mapping, of: Sequence[str], caches: Sequence[str] = ("bfloat16",)) -> dict:
    """Whether the model of ``given`` (:func:`asked`) loads in one of the types ``of``, on how many GPUs, for how many users.

    The first of ``caches`` with which it does is taken: a cache of fewer bits comes after weights of fewer bits.
    """
    tried = [_fit(data, given, of, cache) for cache in caches]
    return next((found for found in tried if found["loads"]), tried[-1])


def _fit(data: Mapping, given: Mapping, of: Sequence[str], cache: str) -> dict:
    each = user_bytes(data, given["sheet"]["cache"], given["tokens"], cache)
    room = lambda gpus: usable_bytes(given, gpus)  # noqa: E731 - as in the page
    size = {dtype: model_bytes(data, given, dtype) for dtype in of}
    kept = lambda gpus: each * copies_of(given, gpus)  # noqa: E731
    holds = lambda dtype, gpus: math.floor((room(gpus) - size[dtype]) / kept(gpus)) if each else given["users"]  # noqa: E731
    loads = [dtype for dtype in of if size[dtype] + kept(given["gpus"]) <= room(given["gpus"])]
    if not loads:
        last = of[-1]
        needs = [count for count in data["counts"] if size[last] + kept(count) <= room(count)]
        return {
            "loads": False, "dtype": last, "cache": cache, "weights": size[last], "each": each,
            "count": needs[0] if needs else 0, "holds": 0,
        }  # fmt: skip
    dtype = loads[0]
    counts = [count for count in data["counts"] if count < given["gpus"]] + [given["gpus"]]
    enough = [count for count in counts if size[dtype] + given["users"] * kept(count) <= room(count)]
    count = enough[0] if enough else given["gpus"]
    least = [given["users"], 2 * holds(dtype, given["gpus"])]  # all of them, else twice as many
    smaller = [other for most in least for other in loads[1:] if holds(other, given["gpus"]) >= most]
    return {
        "loads": True, "dtype": dtype, "cache": cache, "weights": size[dtype], "each": each, "count": count,
        "holds": holds(dtype, count), "smaller": "" if enough or not smaller else smaller[0],
        "smaller_holds": holds(smaller[0], given["gpus"]) if smaller else 0,
    }  # fmt: skip


def model_bytes(data: Mapping, given: Mapping, dtype: str) -> int:
    """The weights on all GPUs: embedding and head in 16 bits but in a GGUF, and what is no expert on each GPU of a spread one."""
    known = given["sheet"]  # one that is known by its size alone has the ends of the nearest, which may be larger
    least = 0 if given["gguf"] or dtype == "bfloat16" else min(known["ends"], known["parameters"])
    size = weights_bytes(data, known["parameters"] - least, dtype) + weights_bytes(data, least, "bfloat16")
    again = (given["gpus"] - 1) * (known["parameters"] - known["routed"]) if given["spread"] else 0
    return size + weights_bytes(data, again, dtype)


def copies_of(given: Mapping, gpus: int) -> int:
    """On how many of ``gpus`` each token is kept: tensor parallelism, in one machine, cuts a cache by its KV heads alone."""
    return 1 if given["gguf"] or given["spread"] else max(1, math.floor(min(gpus, IN_ONE) / given["sheet"]["kv_heads"]))


def caches(data: Mapping, name: str, place: str) -> list[str]:
    """The types of a framework's KV cache, 16 bits first: of the others those that its command can ask for."""
    return ["bfloat16", *data["facts"]["commands"][name][place]["caches"]]


def with_fit(data: Mapping, answers: Mapping) -> dict:
    """``answers`` with what the calculator says of them as ``fit``, where it can say it.

    It is fits, quantized (fewer bits of weights), cache (and of the cache) or nowhere.
    """
    given = asked(data, answers)
    if not given["sheet"] or not given["memory_gib"]:
        return dict(answers)
    found = fit(data, given, ["bfloat16", "fp8", "q4_0"], ["bfloat16", SMALL_CACHE])
    if not found["loads"]:
        return {**answers, "fit": "nowhere"}
    if found["cache"] == SMALL_CACHE:
        return {**answers, "fit": "cache"}
    return {**answers, "fit": "fits" if found["dtype"] == "bfloat16" else "quantized"}


# --- what the records say -------------------------------------------------------------------------


def nearest_record(data: Mapping, answers: Mapping) -> Mapping | None:
    """The record that is nearest: of this model, else of the next in size, and of those alike the newest."""
    evidence, known = option(data, answers, "device").get("evidence"), sheet(data, answers.get("model", ""))
    if not evidence:
        return None
    records = data["facts"]["evidence"][evidence]  # the newest first
    if not known:
        return records[0]
    far = lambda one: (one["model"] != known["name"], abs(math.log(known["parameters"] / one["parameters"])))  # noqa: E731
    return min(records, key=far)


def unlike(data: Mapping, answers: Mapping, given: Mapping) -> list[str]:
    """What the nearest record has other than is asked for, so that neither a price nor a limit follows from it."""
    record, known, found = nearest_record(data, answers), given["sheet"], []
    if not record:
        return found
    if known and any(not 1 / SAME <= known[key] / record[key] <= SAME for key in ("parameters", "active")):
        found.append(fill(data["said"]["of_size"], {"parameters": number(record["parameters"] / 1e9, 1)}))
    if given["gpus"] != record["gpus"]:
        found.append(fill(data["said"]["of_gpus"], {"gpus": gpus_told(record["gpus"]), "asked": number(given["gpus"])}))
    memory = answers.get("memory_gib", record["memory_gib"]) / record["memory_gib"]
    if given["place"] == "gpu" and not 1 / SAME <= memory <= SAME:
        told = {"memory": number(record["memory_gib"]), "asked": number(answers["memory_gib"])}
        found.append(fill(data["said"]["of_memory"], told))
    kind = option(data, answers, "device").get("record_of")
    return [*found, kind] if kind else found


def beyond(data: Mapping, answers: Mapping, given: Mapping) -> float:
    """How many times smaller or larger the nearest record's model is, by the parameters at work on a token; 1 without either."""
    record, known = nearest_record(data, answers), given["sheet"]
    return max(known["active"] / record["active"], record["active"] / known["active"]) if record and known else 1.0


def figures(data: Mapping, answers: Mapping) -> dict[str, Mapping]:
    """By framework its fastest row in the nearest record, at the nearest number of users; empty where none is near."""
    record, users = nearest_record(data, answers), users_of(data, answers)
    if not record or not users or option(data, answers, "work").get("unmeasured"):
        return {}
    rows = record["rows"]
    far = lambda row: max(row["users"] / users, users / row["users"])  # noqa: E731
    nearest = min([far(row) for row in rows], default=0)
    found: dict[str, Mapping] = {}
    for row in rows:
        best = found.get(row["framework"])
        if far(row) == nearest and (best is None or row["median"] > best["median"]):
            found[row["framework"]] = row
    return found


def alike(data: Mapping, fast: Mapping, slow: Mapping) -> bool:
    """Whether two rows are not told apart: their repeats overlap, or their medians are within ``data["alike"]``."""
    return slow["high"] >= fast["low"] or slow["median"] >= data["alike"] * fast["median"]


# --- the order ------------------------------------------------------------------------------------


def level(data: Mapping, hits: Sequence[int], name: str) -> int:
    """0 with a reason to go first, 2 with one to go behind, 1 with neither or both."""
    mine = [data["rules"][i]["effect"] for i in hits if name in about(data, data["rules"][i])]
    return 1 - ("first" in mine) + ("behind" in mine)


def by_speed(data: Mapping, names: Sequence[str], rows: Mapping[str, Mapping]) -> list[list[str]]:
    """``names`` in groups, the fastest first; those without a row come last, and are all alike.

    Within a group the order is that of the frameworks: a tie says nothing of who is first.
    """
    measured = sorted([name for name in names if name in rows], key=lambda name: -rows[name]["median"])
    groups: list[list[str]] = []
    for name in measured:
        if groups and alike(data, rows[groups[-1][0]], rows[name]):
            groups[-1].append(name)
        else:
            groups.append([name])
    rest = [name for name in names if name not in rows]
    return [[name for name in names if name in group] for group in groups] + ([rest] if rest else [])


def order(data: Mapping, answers: Mapping) -> dict:
    """``groups`` (the shortlist, alike ones together), ``out`` (rules that exclude) and ``left`` (why others are not on it)."""
    hits = [i for i, rule in enumerate(data["rules"]) if matches(rule, answers)]
    out = {name: [i for i in hits if _excludes(data, i, name)] for name in data["frameworks"]}
    can = [name for name in data["frameworks"] if not out[name]]
    levels = {name: level(data, hits, name) for name in can}
    best = min(levels.values(), default=0)
    rows = {} if beyond(data, answers, asked(data, answers)) >= ORDERS else figures(data, answers)
    groups = by_speed(data, [name for name in can if levels[name] == best], rows)
    kept, dropped = trimmed(data, groups, rows)
    left = {name: data["said"]["behind" if levels[name] == 2 else "not_first"] for name in can if levels[name] > best}
    out = {name: found for name, found in out.items() if found}
    return {"groups": kept, "out": out, "left": {**left, **dropped}, "hits": hits}


def trimmed(
    data: Mapping, groups: Sequence[Sequence[str]], rows: Mapping[str, Mapping]
) -> tuple[list[list[str]], dict[str, str]]:
    """``groups`` without those that the record leaves far behind and those for which there is no room, and why they went."""
    measured = [name for name in (groups[0] if groups else []) if name in rows]
    leader = max(measured, key=lambda name: rows[name]["median"], default="")
    kept: list[list[str]] = []
    dropped = {}
    for group in groups:
        stays = []
        for name in group:
            if leader and name in rows and rows[name]["median"] < data["left_behind"] * rows[leader]["median"]:
                rates = {"rate": brief(rows[name]["median"]), "best": brief(rows[leader]["median"])}
                dropped[name] = fill(data["said"]["slow"], {**rates, "leader": data["titles"][leader]})
            elif sum(map(len, kept)) + len(stays) == data["most"]:
                dropped[name] = fill(data["said"]["many"], {"most": data["most"]})
            else:
                stays.append(name)
        kept += [stays] if stays else []
    return kept, dropped


def _excludes(data: Mapping, i: int, name: str) -> bool:
    rule = data["rules"][i]
    return rule["effect"] == "excludes" and name in about(data, rule)


# --- the answer in words ----------------------------------------------------------------------------


def interpret(data: Mapping, answers: Mapping) -> dict:
    """The whole answer: what was taken, the shortlist with all about each on it, the rest with its reasons, what is open."""
    kept, said = settled(data, answers)
    complete = with_fit(data, kept)
    found, given, rows = order(data, complete), asked(data, complete), figures(data, complete)
    return {
        "answers": kept,
        "said": said + general(data, complete, given),
        "groups": found["groups"],
        "entries": [entry(data, complete, name, found["hits"], given, rows) for group in found["groups"] for name in group],
        "out": [
            {"name": name, "reasons": [reason(data, i, name) for i in rules]} for name, rules in found["out"].items()
        ],
        "left": [
            {
                "name": name, "text": f"{data['titles'][name]} {why}.",
                "reasons": reasons(data, found["hits"], name, ("behind", "con")),
            }
            for name, why in found["left"].items()
        ],
        "notes": [reason(data, i, "") for i in found["hits"] if data["rules"][i]["effect"] == "note"],
        "measure": measure(data, complete, given),
        "next": following(data, kept),
        "turns": turns(data, kept),
    }  # fmt: skip


def general(data: Mapping, answers: Mapping, given: Mapping) -> list[str]:
    """What is to be said of the model and the arithmetic, whatever is taken."""
    said, known, found = data["said"], given["sheet"], []
    least, times = least_tokens(data, answers), beyond(data, answers, given)
    if option(data, answers, "context").get("tokens", least) < least:
        work = option(data, answers, "work")
        found.append(fill(said["longer_work"], {"sent": number(work["input"]), "tokens": number(least)}))
    if not known:
        return found
    if times >= ORDERS and figures(data, answers):
        found.append(fill(said["unordered"], {"times": number(times)}))
    if known["near"]:
        found.append(fill(said["unknown"], {"model": known["name"], "near": known["near"]}))
    if known["active"] < known["parameters"]:
        billions = {"parameters": number(known["parameters"] / 1e9), "active": number(known["active"] / 1e9)}
        found.append(fill(said["moe"], billions))
    if given["tokens"] < given["wanted"]:
        found.append(fill(said["shorter"], {"model": known["name"], "tokens": number(given["tokens"])}))
    if answers.get("fit") == "nowhere":
        found += nowhere(data, given)
    if "fit" in answers:
        found += assumed(data, answers, given)
    return found


def assumed(data: Mapping, answers: Mapping, given: Mapping) -> list[str]:
    """Which answers the arithmetic takes that nobody gave."""
    what = [] if users_of(data, answers) else ["one user"]
    what += [] if "context" in answers else [f"{number(given['tokens'])} tokens"]
    machine = f"{number(given['memory_gib'])} GiB" + (f" on each of {number(given['gpus'])} GPUs" if given["gpus"] > 1 else "")
    what += [] if "memory_gib" in answers else [machine]
    return [fill(data["said"]["assumed"], {"what": ", ".join(what)})] if what else []


def nowhere(data: Mapping, given: Mapping) -> list[str]:
    """That the model does not fit, what it would take, and the largest one that does."""
    found = fit(data, given, ["q4_0"], [SMALL_CACHE])
    usable = gib(usable_bytes(given, given["gpus"]))
    memory = math.ceil((found["weights"] + found["each"]) / given["usable"] / GIB)
    values = {
        "model": given["sheet"]["name"], "usable": usable, "weights": gib(found["weights"]), "each": gib(found["each"]),
        "tokens": number(given["tokens"]), "count": number(found["count"]), "memory": number(memory),
    }  # fmt: skip
    several = given["place"] == "gpu" and found["count"] > 1 and given["memory_gib"] >= 24
    said = [fill(data["said"]["nowhere" if several else "nowhere_memory"], values)]
    fitting = [name for name, one in data["facts"]["models"].items() if _fits(data, given, one)]
    largest = sorted(fitting, key=lambda name: -data["facts"]["models"][name]["parameters"])
    return said + ([fill(data["said"]["nearest_fit"], {"model": largest[0]})] if largest else [])


def _fits(data: Mapping, given: Mapping, one: Mapping) -> bool:
    return fit(data, {**given, "sheet": one, "tokens": min(given["tokens"], one["context"])}, ["q4_0"], [SMALL_CACHE])["loads"]


def entry(data: Mapping, answers: Mapping, name: str, hits: Sequence[int], given: Mapping, rows: Mapping) -> dict:
    """Everything about one framework of the shortlist."""
    known, given = "fit" in answers, {**given, "gguf": name == "llama-cpp"}
    fitted = fit(data, given, types(data, name, given["place"]), caches(data, name, given["place"])) if known else None
    row = None if fitted and not fitted["loads"] else rows.get(name)  # no record is near a model that does not fit
    other = unlike(data, answers, given)
    against = reasons(data, hits, name, ("behind", "con")) + ([] if other else over_limits(data, answers, row))
    return {
        "name": name,
        "for": reasons(data, hits, name, ("first", "pro")),
        "against": against,
        "fit": fit_told(data, answers, given, name, fitted) if fitted else [],
        "speed": speed(data, answers, name, rows.get(name), given) if row or not rows.get(name) else data["said"]["no_fit"],
        "cost": not_taken(data, answers, row, other) if other else cost(data, answers, row),
        "commands": commands(data, answers, name, given, fitted),
        "environment": environment(data, answers, name),
    }  # fmt: skip


def reason(data: Mapping, i: int, name: str) -> dict:
    """A rule in words, with what it rests on; a note has no name before it."""
    rule = data["rules"][i]
    text = f"{data['titles'][name]} {rule['because']}." if name else rule["because"]
    package = ": ".join(rule.get("package", {}).get(name, []))
    rests = {"claims": list(rule.get("claims", [])), "probe": rule.get("probe", ""), "command": rule.get("command", False)}
    return {"text": text, **rests, "package": package}


def reasons(data: Mapping, hits: Sequence[int], name: str, effects: Sequence[str]) -> list[dict]:
    """The rules of ``effects`` that hold for a framework, in the order of the effects."""
    mine = [i for i in hits if name in about(data, data["rules"][i])]
    return [reason(data, i, name) for effect in effects for i in mine if data["rules"][i]["effect"] == effect]


def fit_told(data: Mapping, answers: Mapping, given: Mapping, name: str, found: Mapping) -> list[str]:
    """How the model fits, in sentences."""
    said, values = data["said"], {
        "model": given["sheet"]["name"], "dtype": data["type_names"][found["dtype"]], "weights": gib(found["weights"]),
        "each": gib(found["each"]), "tokens": number(given["tokens"]), "holds": number(found["holds"]),
    }  # fmt: skip
    if not found["loads"]:
        return [fill(said["spills"], values)] if name == "llama-cpp" else []
    values |= {
        "count": number(found["count"]), "gpus": gpus_told(given["gpus"]), "users": number(given["users"]),
        "usable": gib(usable_bytes(given, found["count"])),
    }  # fmt: skip
    told = [fill(said["fits" if given["gpus"] > 1 else "fits_one"], values)]
    if found["holds"] < given["users"]:
        told.append(fill(said["waits"], values))
    copied = copies_of(given, found["count"])
    if copied > 1:
        told.append(fill(said["copied"], {"copies": number(copied)}))
    told += once(data, answers, given, name, found)
    if found["cache"] != "bfloat16":
        told.append(fill(said["small_cache"], {"cache": found["cache"]}))
    hub = checkpoint(data, name, given, found["dtype"])
    if hub != checkpoint(data, name, given, "bfloat16"):
        told.append(fill(said["checkpoint"], {"model": hub}))
    if found["smaller"]:
        values |= {"dtype": data["type_names"][found["smaller"]], "holds": number(found["smaller_holds"])}
        told.append(fill(said["smaller"], values))
    copies = math.floor(given["gpus"] / found["count"])
    return told + ([fill(said["replicas"], {"copies": number(copies)})] if copies > 1 else [])


def once(data: Mapping, answers: Mapping, given: Mapping, name: str, found: Mapping) -> list[str]:
    """Where all ask about one text and the engine keeps it once: for how many users there is room then."""
    work = option(data, answers, "work")
    if answers.get("work") != "shared" or name not in ("vllm", "sglang") or found["holds"] >= given["users"]:
        return []
    common, own = (user_bytes(data, given["sheet"]["cache"], work[key], found["cache"]) for key in ("input", "output"))
    copied = copies_of(given, found["count"])
    left = usable_bytes(given, found["count"]) - found["weights"] - common * copied
    holds = max(0, math.floor(left / (own * copied))) if own else given["users"]
    values = {"input": number(work["input"]), "own": number(work["output"]), "holds": number(holds)}
    return [fill(data["said"]["once"], values)]


def speed(data: Mapping, answers: Mapping, name: str, row: Mapping | None, given: Mapping) -> str:
    """What the nearest record has of ``name``, with the machine and how far its model is from the asked one; or why nothing."""
    said, sheet = data["said"], given["sheet"]
    if option(data, answers, "work").get("unmeasured"):
        return said["no_work"]
    if "device" not in answers or not users_of(data, answers):
        return said["open_speed"]
    if not row:
        return said["no_record"]
    source = nearest_record(data, answers)
    values = {key: source[key] for key in ("machine", "weights", "shape", "date")}
    rates = {key: brief(row[key]) for key in ("low", "high")} | {"rate": brief(row["median"])}
    first = number(row["ttft_s"] * 1000) if row["ttft_s"] is not None else "?"
    told = fill(said["speed"], {**values, **rates, "ttft": first, "users": users_told(row["users"]), "row": row["row"]})
    if row["framework"] == "llama-cpp" and row["users"] == 1:
        told += equal_bits(data, source)
    times = sheet["active"] / source["active"] if sheet else 1
    if times >= FAR:
        told += fill(said["larger"], {"times": number(times)})
    if times <= 1 / FAR:
        told += fill(said["smaller_model"], {"times": number(1 / times)})
    prompts, own = longer(data, answers), alone(data, answers, name, given)
    if prompts:
        told += fill(said["longer_prompts"], {"record": number(source["input"]), "asked": number(prompts)})
    return f"{own} {told}" if own else told


def longer(data: Mapping, answers: Mapping) -> int:
    """The tokens of the work's prompts where the nearest record has far shorter ones; 0 where it has not."""
    sends = option(data, answers, "work").get("input", 0)
    return sends if sends > LONGER * nearest_record(data, answers)["input"] else 0


def alone(data: Mapping, answers: Mapping, name: str, given: Mapping) -> str:
    """What ``name`` made of the asked model itself, where the nearest record has another model, or more or fewer GPUs."""
    source, users, model = nearest_record(data, answers), users_of(data, answers), given["sheet"] and given["sheet"]["name"]
    rows = [row for row in data["facts"]["alone"] if (row["framework"], row["model"]) == (name, model)]
    same = (source["model"], source["gpus"]) == (model, given["gpus"])
    if not rows or same or option(data, answers, "device")["evidence"] != "gpu":
        return ""
    times = lambda one, other: abs(math.log(one / other))  # noqa: E731
    row = min(rows, key=lambda row: (times(row["gpus"], given["gpus"]), times(row["users"], users), -row["median"]))
    rates = {"rate": brief(row["median"]), "low": brief(row["low"]), "high": brief(row["high"])}
    values = {key: row[key] for key in ("model", "row", "machine", "date")}
    return fill(data["said"]["alone"], {"framework": data["titles"][name], "users": users_told(row["users"]), **values, **rates})


def equal_bits(data: Mapping, source: Mapping) -> str:
    """One user's tokens/s where the weights have as many bits in each framework; empty where the record has no such pair."""
    rates = lambda one: ", ".join(f"{data['titles'][name]} {brief(rate)}" for name, rate in one["rates"])  # noqa: E731
    each = [fill(data["said"]["bits"], {"bits": number(one["bits"]), "rates": rates(one)}) for one in source["equal_bits"]]
    return fill(data["said"]["equal_bits"], {"way": source["way"], "each": "; ".join(each)}) if each else ""


def users_told(count: int) -> str:
    return f"{count} user" if count == 1 else f"{count} users"


def over_limits(data: Mapping, answers: Mapping, row: Mapping | None) -> list[dict]:
    """A reason against for each limit that the record did not keep."""
    limits, found = option(data, answers, "limits"), []
    for key, what in (("ttft_s", "ttft"), ("tpot_s", "tpot")):
        if row and key in limits and row[key] is not None and row[key] > limits[key]:
            values = {what: number(row[key] * 1000), "limit": number(limits[key] * 1000)}
            found.append({"text": fill(data["said"][what], values), "claims": [], "probe": "", "command": False, "package": ""})
    return found


def cost(data: Mapping, answers: Mapping, row: Mapping | None) -> str:
    """What a million output tokens cost at the record's speed; empty without a price or a speed.

    That of the work's own lengths where the record has two loads of the framework with as many users; without them none
    for far longer prompts than the record's.
    """
    if not row or not answers.get("price_per_hour"):
        return ""
    price = lambda seconds, digits: number(answers["price_per_hour"] / 3600 * seconds * 1e6, digits)  # noqa: E731
    work, source, prompts = option(data, answers, "work"), nearest_record(data, answers), longer(data, answers)
    apart = source["token_seconds"].get(row["framework"]) if row["users"] == APART else None
    if apart and work.get("output"):
        seconds = (work["input"] * apart[0] + work["output"] * apart[1]) / work["output"]
        lengths = {"input": number(work["input"]), "output": number(work["output"])}
        each = {"each_in": price(apart[0], 3), "each_out": price(apart[1], 3)}
        return fill(data["said"]["cost_of"], {"price": price(seconds, 2), **lengths, **each})
    if prompts:
        return fill(data["said"]["cost_open"], {"record": number(source["input"]), "asked": number(prompts)})
    return fill(data["said"]["cost"], {"price": price(1 / row["median"], 2)})


def not_taken(data: Mapping, answers: Mapping, row: Mapping | None, other: Sequence[str]) -> str:
    """That no price and no limit follows from the nearest record, where somebody asked for one."""
    limits = option(data, answers, "limits")
    asked_for = answers.get("price_per_hour") or "ttft_s" in limits
    return fill(data["said"]["not_taken"], {"other": " and ".join(other)}) if row and asked_for else ""


# --- commands ---------------------------------------------------------------------------------------


def commands(data: Mapping, answers: Mapping, name: str, given: Mapping, fitted: Mapping | None) -> list[str]:
    """The command that starts it, one for each machine, in the engine's own spelling."""
    known, spelled = given["sheet"], data["facts"]["commands"][name]
    place, work = spelled[given["place"]], answers.get("work", "")
    dtype = fitted["dtype"] if fitted else types(data, name, given["place"])[0]
    count = (fitted["count"] if fitted else 0) or given["gpus"]
    at_once = option(data, answers, "work").get("slots", given["users"]) if given["place"] == "gpu" else given["users"]
    # llama.cpp keeps room for each slot; the others page, and take as many as there is room for now
    slots = max(1, min(given["users"], fitted["holds"])) if given["gguf"] and fitted and fitted["loads"] else at_once
    hub = checkpoint(data, name, given, dtype)
    starts = [place["start"]]
    if answers.get("device") == "machines" and given["gpus"] == 16 and count > 8 and spelled["machines"]:
        starts = spelled["machines"]["moe" if known and known["experts"] else "dense"]
    elif count > 1 and place["several"]:
        starts = [f"{place['start']} {place['several']}"]
    cache = place["caches"].get(fitted["cache"], "") if fitted and fitted["loads"] else ""
    thinks = known["thinking"].get(name, "") if known and work != "embeddings" else ""
    parts = [place["rest"], place["types"].get(dtype, ""), cache, place["work"].get(work, ""), thinks]
    values = {
        "model": hub, "file": f"{hub.split('/')[-1]}-{dtype.upper()}.gguf", "context": given["tokens"], "slots": slots,
        "pool": given["tokens"] * slots, "gpus": count,
    }  # fmt: skip
    values["vllm_parser"], values["sglang_parser"] = known["parsers"] if known else UNKNOWN_PARSERS
    return [fill(" ".join([start, *[part for part in parts if part]]), values) for start in starts]


def checkpoint(data: Mapping, name: str, given: Mapping, dtype: str) -> str:
    """The name of the model that ``name`` is given: its hub id, or one that was quantized before where the engine does not."""
    made_before = name != "llama-cpp" and dtype not in data["facts"]["commands"][name][given["place"]]["types"]
    return started(data, given) + (data["checkpoints"].get(dtype, "") if made_before else "")


def environment(data: Mapping, answers: Mapping, name: str) -> list[str]:
    """Variables to set before: no telemetry, and no network once the model is there, where the text must stay."""
    always = data["facts"]["commands"][name]["environment"]
    offline = ["HF_HUB_OFFLINE=1"] if answers.get("private") in ("device", "ours") and name != "llama-cpp" else []
    return [*always, *offline]


def measure(data: Mapping, answers: Mapping, given: Mapping) -> str:
    """The command that measures a candidate under this load, before anybody decides."""
    work, limits, users = option(data, answers, "work"), option(data, answers, "limits"), users_of(data, answers)
    if answers.get("work") == "embeddings":
        return data["embedding_bench"]["say"]
    several = [count for count in (1, 10, 100, 500) if count <= (users or 100)]
    if work.get("users"):
        several = [work["users"]]
    parts = ["python -m helpers.bench --base-url http://127.0.0.1:8000/v1", f"--model {started(data, given)}"]
    parts += [f"--users {','.join(map(str, several))}", f"--input-tokens {work.get('input', 128)}"]
    parts += [f"--output-tokens {work.get('output', 128)}"]
    parts += ["--endpoint chat"] if work.get("endpoint") == "chat" else []
    parts += [f"--slo ttft={limits['ttft_s']:g},tpot={limits['tpot_s']:g}"] if "ttft_s" in limits else []
    return " ".join([*parts, "--json figures.json"])


# --- what would change it ---------------------------------------------------------------------------


def shortlist(data: Mapping, answers: Mapping) -> list[list[str]]:
    """The groups alone."""
    return order(data, with_fit(data, settled(data, answers)[0]))["groups"]


def following(data: Mapping, answers: Mapping) -> dict:
    """The next question: the first open one of which an answer changes the shortlist; ``key`` is empty where none does."""
    now = shortlist(data, answers)
    for one in data["questions"]:
        if one["key"] not in answers:
            ways = [[each["key"], shortlist(data, {**answers, one["key"]: each["key"]})] for each in one["options"]]
            if any(groups != now for _, groups in ways):
                return {"key": one["key"], "ways": [[key, groups] for key, groups in ways if groups != now]}
    return {"key": "", "ways": []}


def turns(data: Mapping, answers: Mapping) -> list[list]:
    """Each single other answer that changes who stands first: question, answer, who then does."""
    now, found = shortlist(data, answers)[:1], []
    for key, other in others(data, answers):
        then = shortlist(data, {**answers, key: other})[:1]
        if then != now:
            found.append([key, other, then[0] if then else []])
    return found


def others(data: Mapping, answers: Mapping) -> Iterator[tuple[str, str]]:
    """Every other answer to every question that is answered."""
    for one in data["questions"]:
        if one["key"] in answers:
            for each in one["options"]:
                if each["key"] != answers[one["key"]]:
                    yield one["key"], each["key"]


# --- an address -------------------------------------------------------------------------------------


def address(data: Mapping, answers: Mapping) -> str:
    """The answers as the part of an address behind ``#``, in the order of the questions."""
    keys = [one["key"] for one in [*data["questions"], *data["numbers"]]]
    return "&".join(f"{key}={plain(answers[key])}" for key in keys if key in answers)


def plain(value: str | float) -> str:
    """A number without a point where it is whole."""
    return value if isinstance(value, str) else str(int(value)) if value == int(value) else str(value)


def read(data: Mapping, text: str) -> tuple[dict, list[str]]:
    """The answers in an address, and a sentence for each part that had to be mended or left out."""
    answers: dict[str, str | float] = {}
    said: list[str] = []
    numbers = [one["key"] for one in data["numbers"]]
    keys = [one["key"] for one in data["questions"]] + numbers
    for part in [one for one in text.split("&") if one]:
        key, _, value = part.partition("=")
        real = nearest(key, keys)
        if not real:
            said.append(f"“{part}” is no question here, and is left out.")
            continue
        if real != key:
            said.append(f"“{key}” is no question here: taken as “{real}”.")
        taken = read_number(data, real, value) if real in numbers else read_option(data, real, value)
        if taken is None:
            said.append(f"“{value}” is no answer to “{real}”, which is left open.")
            continue
        if real not in numbers and taken != value and not (real == "model" and sheet(data, value)):
            said.append(f"“{value}” is no answer to “{real}”: taken as “{taken}”.")
        answers[real] = taken
    return answers, said


def read_number(data: Mapping, key: str, value: str) -> float | None:
    """A number within its bounds, or ``None``."""
    bounds = next(one for one in data["numbers"] if one["key"] == key)
    if not re.match(r"^\d{1,9}(\.\d{1,6})?$", value):
        return None
    found = float(value)
    if key == "gpus" and found != math.floor(found):
        return None
    found = int(found) if found == math.floor(found) else found
    return found if bounds["least"] <= found <= bounds["most"] else None


def read_option(data: Mapping, key: str, value: str) -> str | None:
    """The answer that ``value`` names or nearly names, or ``None``; a model also by its hub id or its size."""
    if key == "model" and (found := sheet(data, value)):
        return found["name"]
    return nearest(value, [one["key"] for one in question(data, key)["options"]]) or None


def nearest(word: str, words: Sequence[str]) -> str:
    """``word`` if it is one of ``words``, else the first with the fewest letters changed, at most a third; else nothing."""
    if word in words:
        return word
    far = [distance(word.lower(), one.lower()) for one in words]
    least = min(far, default=99)
    found = words[far.index(least)] if words else ""
    return found if least <= max(1, len(found) // 3) else ""


def distance(one: str, other: str) -> int:
    """Letters to change, add or take away (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, second in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (letter != second))
    return row[-1]
