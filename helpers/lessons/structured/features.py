"""One probe for each feature of a server, sent through the OpenAI API.

A probe is a function from a running server to a :class:`Finding`. The verdict is earned: ``works`` only
if the effect was seen, ``ignores silently`` if the request was taken and the effect was not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from helpers.bench import checks, client, timing, workload
from helpers.lessons.structured import questions
from helpers.servers import metrics
from helpers.servers.serving import Server
from helpers.weights import models

USERS, TIMEOUT_S = 4, 120
WORKS, REFUSES, IGNORES, NOT_PROBED = "works", "refuses clearly", "ignores silently", "not probed here"
VERDICTS = (WORKS, REFUSES, IGNORES, NOT_PROBED)
QUESTION = "Tell me about the sea."
SEVEN_OR_EIGHT = {"enum": ["seven", "eight"]}  # short, and no place for white space: it cannot be cut off
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "strict": True,  # else vLLM and SGLang may hold the arguments to any JSON
        "parameters": {
            "type": "object", "properties": {"city": {"enum": ["Rome", "Tokyo"]}}, "required": ["city"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A verdict and what was seen, in one line."""

    verdict: str
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.detail}"


class RequestRefused(RuntimeError):
    """The server answered with an error."""


def post(server: Server, route: str = "chat/completions", **fields) -> dict:
    """One request that is not streamed; :class:`Refused` with the server's own reason."""
    body = {"model": server.endpoint.model, "max_tokens": 24, "temperature": 0}
    if route == "chat/completions":
        body["messages"] = [{"role": "user", "content": QUESTION}]
    answer = httpx.post(f"{server.base_url}/{route}", json={**body, **fields}, timeout=TIMEOUT_S, trust_env=False)
    if answer.status_code >= 400 or "error" in answer.json():
        raise RequestRefused(f"HTTP {answer.status_code}: {_reason(answer)}")
    return answer.json()


def _reason(answer: httpx.Response) -> str:
    """What the server gives as its reason, in one line."""
    try:
        said = answer.json()
        said = said.get("error", said)
        said = said.get("message", said.get("detail", said)) if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        said = answer.text
    return " ".join((said if isinstance(said, str) else json.dumps(said)).split())[:120]


def text_of(answer: Mapping) -> str:
    """The first choice's text."""
    return answer["choices"][0]["message"].get("content") or ""


def streaming(server: Server) -> Finding:
    """Several events with text, over some time."""
    sample = _sample(server, QUESTION)
    late_s = sample.event_ns[-1] - sample.event_ns[0]
    seen = f"{len(sample.event_ns)} events with text for {sample.output_tokens} tokens"
    return Finding(WORKS if len(sample.event_ns) > 2 and late_s > 0 else IGNORES, seen)


def batching(server: Server) -> Finding:
    """Four requests at once: are several between their first and their last token at the same time?"""
    prompts = workload.prompts(USERS, 16, seed=7, vocabulary=models.vocabulary(server.model))
    samples = client.run(client.closed_loop(server.endpoint, prompts, users=USERS, output_tokens=24, timeout_s=TIMEOUT_S))
    _raise(samples)
    at_once = timing.answers_at_once(samples)
    return Finding(WORKS if at_once > 1 else IGNORES, f"{at_once} of {USERS} answers under way at once")


def prefix_cache(server: Server) -> Finding:
    """The same long prompt twice: what the engine counts as cached tokens."""
    prompt = workload.prompts(1, 256, seed=8, vocabulary=models.vocabulary(server.model))[0]
    endpoint = server.endpoint.cached()
    _raise([client.run(client.request(endpoint, prompt, 4, timeout_s=TIMEOUT_S))])
    before = metrics.cache_hits(server)
    again = [client.run(client.request(endpoint, prompt, 4, timeout_s=TIMEOUT_S))]
    _raise(again)
    hits = checks.hits_between(before, metrics.cache_hits(server), again)
    if hits is None:
        return Finding(NOT_PROBED, f"the engine does not count: {before.source}")
    return Finding(WORKS if hits else IGNORES, f"{hits} of 256 prompt tokens came from the cache")


def _held_to(kind: str, value: object, follows: Callable[[str], bool]) -> Callable[[Server], Finding]:
    """A probe: ask for something else than ``value`` allows, and see whether the answer follows it all the same."""

    def probe(server: Server) -> Finding:
        try:
            fields = questions.fields(server.engine, kind, value)
        except questions.NoField:
            fields = {kind: value}  # what a reader would try first
        text = text_of(post(server, **fields))
        name = next(iter(fields))
        return Finding(WORKS if follows(text) else IGNORES, f"{name}: {' '.join(text.split())[:40]!r}")

    allowed = value if isinstance(value, str) else json.dumps(value)
    probe.__doc__ = f"{QUESTION!r} with the {kind} {allowed}: does the answer follow it all the same?"
    return probe


json_schema = _held_to("schema", SEVEN_OR_EIGHT, lambda text: questions.judge("", SEVEN_OR_EIGHT, text).valid)
regex = _held_to("regex", "(red|green)-[0-9]", lambda text: bool(re.fullmatch("(red|green)-[0-9]", text)))
grammar = _held_to("grammar", 'root ::= "seven" | "eight"', lambda text: text in ("seven", "eight"))


def tool_calls(server: Server) -> Finding:
    """A function that must be called: is there a call, and do its arguments follow the function's schema?

    The question has a short answer, since llama.cpp lets a text stand before the call.
    """
    asked = {"role": "user", "content": "Reply with one word: yes or no?"}
    choice = post(server, messages=[asked], tools=[TOOL], tool_choice="required", max_tokens=256)["choices"][0]
    text = " ".join((choice["message"].get("content") or "").split())[:30]
    if not (calls := choice["message"].get("tool_calls")):
        return Finding(IGNORES, f"tool_choice=required, no call, finish_reason {choice['finish_reason']}: {text!r}")
    function = calls[0]["function"]
    good = questions.judge("", TOOL["function"]["parameters"], function["arguments"])
    flags = " ".join(Path(flag).name for flag in server.engine.tool_flags)
    seen = f"{function['name']}({function['arguments'][:40]})" + (f", started with {flags}" if flags else "")
    return Finding(WORKS if good.valid and function["name"] == "weather" else IGNORES, seen)


def logprobs(server: Server) -> Finding:
    """The log probability of each token."""
    given = post(server, logprobs=True, top_logprobs=2, max_tokens=4)["choices"][0].get("logprobs") or {}
    tokens = given.get("content") or []
    good = len(tokens) == 4 and all(token["logprob"] <= 0 and len(token["top_logprobs"]) >= 2 for token in tokens)
    return Finding(WORKS if good else IGNORES, f"{len(tokens)} of 4 tokens have one")


def seed(server: Server) -> Finding:
    """Sampled with seed 1, 1 and 2: the same, the same, another text."""
    first, again, other = (text_of(post(server, temperature=1.0, seed=number)) for number in (1, 1, 2))
    if first != again:
        return Finding(IGNORES, "the same seed gave two texts")
    return Finding(WORKS if other != first else IGNORES, f"another seed gave {'another' if other != first else 'the same'} text")


def stop_strings(server: Server) -> Finding:
    """A word from the middle of the greedy answer as the stop string: does the answer end there?"""
    whole = text_of(post(server))
    word = whole.split()[len(whole.split()) // 2]
    cut = text_of(post(server, stop=[word]))
    if cut == whole:
        return Finding(IGNORES, f"went on after {word!r}")
    kept = "the stop string is part of the answer" if word in cut else "the stop string is left out"
    good = whole.startswith(cut) and cut.rstrip().removesuffix(word).rstrip() == whole.partition(word)[0].rstrip()
    return Finding(WORKS if good else IGNORES, kept if good else f"another text: {cut[:40]!r}")


def several_choices(server: Server) -> Finding:
    """``n=2``: two choices."""
    choices = post(server, n=2, temperature=1.0)["choices"]
    return Finding(WORKS if len(choices) == 2 else IGNORES, f"{len(choices)} of 2 choices")


def unknown_field(server: Server) -> Finding:
    """A field that no server knows. One that takes it will take a misspelled constraint too."""
    post(server, no_such_field=True, max_tokens=1)
    return Finding(IGNORES, "HTTP 200")


def quantized_weights(server: Server) -> Finding:
    """Whether the weights that the running server reads are quantized."""
    if server.engine.dtype in ("bf16", "f16", "f32"):
        return Finding(NOT_PROBED, f"this server runs {server.engine.dtype} weights; 11 loads quantized ones")
    text_of(post(server, max_tokens=1))
    return Finding(WORKS, f"this server runs {server.engine.dtype} weights")


def speculative(server: Server) -> Finding:
    """Decided when a server is started."""
    return Finding(NOT_PROBED, "decided at the server's start; 10 measures it")


def _sample(server: Server, question: str) -> timing.Sample:
    endpoint = replace(server.endpoint, route="chat", token_ids=False, fields=lambda tokens: {})
    sample = client.run(client.request(endpoint, workload.Prompt(question), 24, timeout_s=TIMEOUT_S))
    _raise([sample])
    return sample


def _raise(samples: Sequence[timing.Sample]) -> None:
    if bad := next((sample.error for sample in samples if sample.error), None):
        raise RequestRefused(bad)


PROBES: dict[str, Callable[[Server], Finding]] = {
    "streaming": streaming,
    "batching": batching,
    "prefix cache": prefix_cache,
    "JSON schema": json_schema,
    "regex": regex,
    "grammar": grammar,
    "tool calls": tool_calls,
    "logprobs": logprobs,
    "seed": seed,
    "stop strings": stop_strings,
    "n": several_choices,
    "unknown field": unknown_field,
    "quantized weights": quantized_weights,
    "speculative": speculative,
}


def probe(server: Server, only: Sequence[str] = tuple(PROBES)) -> dict[str, Finding]:
    """The cells of a running server, feature by feature."""
    return {feature: _cell(PROBES[feature], server) for feature in only}


def _cell(probe: Callable[[Server], Finding], server: Server) -> Finding:
    try:
        return probe(server)
    except RequestRefused as error:
        return Finding(REFUSES if str(error).startswith("HTTP 4") else NOT_PROBED, str(error))
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Finding(NOT_PROBED, f"no answer that could be read: {type(error).__name__}: {' '.join(str(error).split())[:100]}")
