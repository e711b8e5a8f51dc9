"""Before a switch from one server to another: does the same client get the same from both?

The same requests go to the old and the new server through the same code; only base URL and model
name differ. What is compared is what a client relies on: the words, the limits, why an answer ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import httpx

from helpers.bench import checks
from helpers.bench.client import Endpoint
from helpers.bench.workload import Prompt

TIMEOUT_S = 60
ENOUGH = 0.5  # of the first greedy tokens: other kernels may turn a near tie, other weights agree hardly at all
SHORT = "What is the capital of France? Answer with one word."
LONG = "Write a long story about a dog."
WORDS = 12  # tokens of an answer that is looked at word by word


@dataclass(frozen=True)
class Reply:
    """What one server made of one request; everything else is ``None`` where ``status`` is not 200."""

    status: int
    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None

    def __str__(self) -> str:
        if self.status != 200:
            return f"HTTP {self.status}"
        return f"{self.finish_reason}, {self.prompt_tokens} in, {self.output_tokens} out"


@dataclass(frozen=True)
class Check:
    """One thing a client relies on: what each server did, and whether that is the same to the client."""

    name: str
    old: str
    new: str
    same: bool


def ask(endpoint: Endpoint, prompt: str, max_tokens: int, *, timeout_s: float = TIMEOUT_S, **fields) -> Reply:
    """One chat request, greedy unless ``fields`` say otherwise; a server that is away raises httpx's error."""
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    url = f"{endpoint.base_url}/chat/completions"
    answer = httpx.post(url, json={**body, "temperature": 0, **fields}, timeout=timeout_s, trust_env=False)
    if answer.status_code != 200:
        return Reply(answer.status_code)
    said = answer.json()
    choice, usage = said["choices"][0], said.get("usage") or {}
    text = choice["message"]["content"] or ""
    return Reply(200, text, choice["finish_reason"], usage.get("prompt_tokens"), usage.get("completion_tokens"))


def streamed(endpoint: Endpoint, prompt: str, max_tokens: int) -> str:
    """The text of one streamed answer, put together from its pieces."""
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    asked = {**body, "temperature": 0, "stream": True}
    url = f"{endpoint.base_url}/chat/completions"
    with httpx.stream("POST", url, json=asked, timeout=TIMEOUT_S, trust_env=False) as answer:
        data = [line.removeprefix("data:").strip() for line in answer.iter_lines() if line.startswith("data:")]
    choices = [json.loads(piece)["choices"] for piece in data if piece != "[DONE]"]
    return "".join(choice[0]["delta"].get("content") or "" for choice in choices if choice)


def compare(old: Endpoint, new: Endpoint, prompts: Sequence[Prompt] = checks.PROMPTS) -> list[Check]:
    """Every check, each sent to both servers, one request at a time."""
    both, beyond = (old, new), round(1.2 * min(endpoint.context or 512 for endpoint in (old, new)))
    return [
        answers(old, new, prompts),
        _same("the prompt's length", both, SHORT, 8, lambda reply: f"{reply.prompt_tokens} in"),
        _same("the limit max_tokens=8", both, LONG, 8, lambda reply: f"{reply.finish_reason}, {reply.output_tokens} out"),
        _same("why a short answer ends", both, SHORT, 96, lambda reply: str(reply.finish_reason)),
        at_the_limit(old, new),
        stop_string(old, new),
        streams(old, new),
        beyond_the_context(old, new, "word " * beyond),
    ]


def answers(old: Endpoint, new: Endpoint, prompts: Sequence[Prompt] = checks.PROMPTS) -> Check:
    """Greedy answers: the share of the first tokens that agree, at least ``ENOUGH`` on average."""
    plain = {name: replace(endpoint, route="completions") for name, endpoint in (("old", old), ("new", new))}
    agreed = checks.agreement(checks.first_tokens(plain, prompts), "old")["new"]
    return Check("greedy answers", "reference", str(agreed), agreed.mean_share >= ENOUGH)


def at_the_limit(old: Endpoint, new: Endpoint) -> Check:
    """Why an answer ends whose last token is also the last allowed one: both reasons are true, a client sees one."""
    replies = []
    for endpoint in (old, new):
        whole = ask(endpoint, SHORT, 96)
        replies.append(ask(endpoint, SHORT, whole.output_tokens or 96))
    return Check("an answer that just fits", *map(str, replies), replies[0].finish_reason == replies[1].finish_reason)


def streams(old: Endpoint, new: Endpoint) -> Check:
    """Whether each server streams the very text that it gives whole."""
    equal = [streamed(endpoint, LONG, WORDS) == ask(endpoint, LONG, WORDS).text for endpoint in (old, new)]
    told = ["the whole text" if same else "another text" for same in equal]
    return Check("streamed pieces", *told, equal[0] == equal[1])


def beyond_the_context(old: Endpoint, new: Endpoint, prompt: str) -> Check:
    """A prompt that is too long: is it answered or refused? With how many tokens it is answered does not count."""
    replies = [ask(endpoint, prompt, 8) for endpoint in (old, new)]
    return Check("a prompt beyond the context", *map(str, replies), (replies[0].status == 200) == (replies[1].status == 200))


def _same(name: str, both: Sequence[Endpoint], prompt: str, max_tokens: int, told: Callable[[Reply], str]) -> Check:
    """One request to both: what is ``told`` of a reply is what counts, or its status if that is not 200."""
    replies = [ask(endpoint, prompt, max_tokens) for endpoint in both]
    old, new = (told(reply) if reply.status == 200 else str(reply) for reply in replies)
    return Check(name, old, new, old == new)


def stop_string(old: Endpoint, new: Endpoint) -> Check:
    """A word from the middle of a server's own answer as the stop string: does the answer end before it?

    A word that the answer has not would be obeyed by every server.
    """
    obeyed = []
    for endpoint in (old, new):
        words = (ask(endpoint, LONG, WORDS).text or "").split()
        word = words[len(words) // 2]
        obeyed.append(len((ask(endpoint, LONG, WORDS, stop=[word]).text or "").split()) < len(words))
    told = ["ends before it" if ends else "goes on" for ends in obeyed]
    return Check("a stop string", *told, obeyed[0] == obeyed[1])


def different(found: Sequence[Check]) -> list[str]:
    """The names of what a client would notice; empty: switch."""
    return [check.name for check in found if not check.same]
