"""The source document's structured pipeline, on orders: SGLang extracts, vLLM processes, Python checks and writes.

    python -m helpers.lessons.deployment.order_pipeline FILE.db --extract URL MODEL --process URL MODEL [--stage NAME]

goes on with the pipeline in FILE.db where it stands (:mod:`helpers.lessons.deployment.pipeline`). One of the two
servers is enough for a ``--stage`` that needs no other.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass

import httpx

from helpers.lessons.deployment.pipeline import Hopeless, Invalid, Item, Pipeline, PipelineError, Stage
from helpers.lessons.structured import questions
from helpers.servers import constraints

GOODS = ["tea", "coffee", "rice", "soap", "paper", "lamp"]
NAMES = ["Anna", "Karl", "Maria", "Omar", "Lin"]
INPUT = {"type": "string", "minLength": 1, "maxLength": 200}
ORDER = {
    "type": "object",
    "properties": {"item": {"enum": GOODS}, "quantity": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["item", "quantity"],
    "additionalProperties": False,
}
RESULT = {
    "type": "object",
    "properties": {"order": ORDER, "message": {"type": "string", "minLength": 1, "maxLength": 200}},
    "required": ["order", "message"],
}
EXTRACT = [
    {"role": "system", "content": "You copy the item and the quantity of an order."},
    {"role": "user", "content": "Anna asks for 4 bars of soap."},
    {"role": "assistant", "content": '{"item": "soap", "quantity": 4}'},
    {"role": "user", "content": "Deliver 15 bags of rice."},
    {"role": "assistant", "content": '{"item": "rice", "quantity": 15}'},
]
PROCESS = [
    {"role": "system", "content": "You confirm an order in one sentence."},
    {"role": "user", "content": '{"item": "soap", "quantity": 4}'},
    {"role": "assistant", "content": "We will send 4 times soap."},
    {"role": "user", "content": '{"item": "rice", "quantity": 15}'},
    {"role": "assistant", "content": "We will send 15 times rice."},
]
TIMEOUT_S = 60


@dataclass(frozen=True)
class ServedModel:
    """A server's base URL and its model's name."""

    base_url: str
    model: str


def notes(count: int, seed: int = 0) -> dict[str, str]:
    """``count`` orders by key, drawn with ``seed``, each with an item and a number from 2 to 60."""
    draw = random.Random(seed)
    forms = ["Please send {n} packets of {g} to {w}.", "{w} orders {n} boxes of {g}.", "We need {n} bags of {g} for {w}."]
    return {
        f"order-{i:03}": draw.choice(forms).format(n=draw.randint(2, 60), g=draw.choice(GOODS), w=draw.choice(NAMES))
        for i in range(1, count + 1)
    }


def stages(extract: ServedModel | None = None, process: ServedModel | None = None) -> list[Stage]:
    """The four stages; a stage whose server is not given stops with a word when it is reached."""
    return [
        Stage("check", check),
        Stage("extract", lambda item: extracted(item, _given(extract, "extract"))),
        Stage("process", lambda item: processed(item, _given(process, "process"))),
        Stage("write", written),
    ]


def _given(where: ServedModel | None, name: str) -> ServedModel:
    if where is None:
        raise RuntimeError(f"no server was given for it: give --{name} URL MODEL")
    return where


def check(item: Item) -> str:
    """The input's own check, in Python: constrained decoding looks at no input."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if error := best_match(Draft202012Validator(INPUT).iter_errors(item.value)):
        raise Hopeless(f"the input breaks {error.validator}: {error.message[:80]}")
    return item.value


def extracted(item: Item, where: ServedModel) -> dict:
    """The order in a note, as ``ORDER``; :class:`Invalid` if what came is not in the note, whatever the schema says."""
    asked = constraints.response_format(ORDER)
    text, reason = chat(where, [*EXTRACT, {"role": "user", "content": item.value}], max_tokens=40, tried=item.tried, **asked)
    found = questions.judge("the extraction", ORDER, text, finish_reason=reason)
    if not found.valid:
        raise Invalid(f"{found.outcome}: {found.error}")
    order = found.value
    if order["item"] not in item.value.lower():
        raise Invalid(f"item {order['item']!r} does not stand in the note")
    if str(order["quantity"]) not in re.findall(r"\d+", item.value):
        raise Invalid(f"quantity {order['quantity']} does not stand in the note")
    return order


def processed(item: Item, where: ServedModel) -> dict:
    """The order and a message about it; :class:`Invalid` if the message leaves out the quantity."""
    messages = [*PROCESS, {"role": "user", "content": json.dumps(item.value)}]
    text, _ = chat(where, messages, max_tokens=24, tried=item.tried, stop=["\n"])
    if str(item.value["quantity"]) not in re.findall(r"\d+", text):
        raise Invalid(f"the message leaves out the quantity {item.value['quantity']}: {text[:60]!r}")
    return {"order": item.value, "message": text.strip()}


def written(item: Item) -> dict:
    """The last check, in Python, of all that is going to be written."""
    found = questions.judge("the result", RESULT, json.dumps(item.value))
    if not found.valid:
        raise Hopeless(f"{found.outcome}: {found.error}")
    return item.value


def chat(where: ServedModel, messages: list[dict], *, max_tokens: int, tried: int = 0, **fields) -> tuple[str, str]:
    """One answer's text and why it ended. Greedy at first; a later try draws, since the same would come again.

    :class:`Hopeless` for a request that the server refuses; a server that is away, or overloaded, raises
    another error, which stops the run.
    """
    how = {"temperature": 0} if tried == 0 else {"temperature": 0.7, "seed": tried}
    body = {"model": where.model, "messages": messages, "max_tokens": max_tokens, **how, **fields}
    answer = httpx.post(f"{where.base_url}/chat/completions", json=body, timeout=TIMEOUT_S, trust_env=False)
    if answer.status_code in (400, 413, 422):
        raise Hopeless(f"HTTP {answer.status_code}: {answer.text[:120]}")
    if answer.status_code != 200:
        raise RuntimeError(f"HTTP {answer.status_code} from its server")
    choice = answer.json()["choices"][0]
    return choice["message"]["content"] or "", choice["finish_reason"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    for name in ("extract", "process"):
        parser.add_argument(f"--{name}", nargs=2, metavar=("URL", "MODEL"))
    parser.add_argument("--stage", help="this stage only")
    options = parser.parse_args(arguments)
    servers = [ServedModel(*given) if given else None for given in (options.extract, options.process)]
    try:
        with Pipeline(options.file, stages(*servers)) as orders:
            orders.run(options.stage, on_item=lambda key, stage: print(stage, key, flush=True))
            print(json.dumps(orders.counts()))
    except (PipelineError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
