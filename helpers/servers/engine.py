"""What there is to know of a framework's server before it is started: how, with what, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers.frameworks import Framework
from helpers.servers import constraints
from helpers.servers.constraints import Constraints


@dataclass(frozen=True)
class Start:
    """What a server start is given: the weights, where to listen, how much to hold."""

    python: str  # the framework's interpreter
    weights: Path
    port: int
    slots: int  # requests decoded together
    context: int  # tokens per request, prompt and answer
    name: str  # the model's name in requests
    kv_bytes_per_token: int  # for engines whose KV pool is sized in bytes

    def pool_tokens(self, page: int) -> int:
        """Tokens the KV pool must hold: every slot full, in whole pages, and one spare page each."""
        return (-(-self.context // page) + 1) * page * self.slots


@dataclass(frozen=True)
class Drafting:
    """How a server should draft tokens for its model: looked up in the text so far, or by a draft model."""

    tokens: int  # drafted for one step, at most
    ngram: int  # so many last tokens are looked up
    model: Path | None = None  # a draft model's weights, instead of looking up


@dataclass(frozen=True, repr=False)
class Engine(Framework):
    """A framework and how its server is started and asked."""

    packages: tuple[str, ...]  # distributions whose versions a record names
    command: Callable[[Start], list[str]]
    fields: Callable[[int], Mapping]  # request fields that fix the output length
    token_ids: bool = True  # the server takes token ids as a prompt
    named_by_path: bool = False  # the server wants the weights' path as the model's name
    cache_fields: Mapping = field(default_factory=dict)  # request fields that switch its prefix cache on
    drafting: Callable[[Drafting], list[str]] | None = None  # options that make its server draft
    store_variable: str | None = None  # names the file where its processes meet, else at a port open to every network
    constraints: Constraints = field(default_factory=lambda: constraints.OPENAI)  # kind to request fields
    unfit: Callable[[], str | None] = lambda: None  # why its server cannot run on this machine's processor
    tool_flags: tuple[str, ...] = ()  # what its server is started with to read function calls out of the text
