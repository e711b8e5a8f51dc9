"""A race that is run: one prompt to every server, one after the other or at once, looked at while the answers grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from helpers.bench import client, stream
from helpers.bench.connection import Reply
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt
from helpers.lessons.race.lanes import WAYS, Lane, of_sample
from helpers.servers.serving import Server

# Another beginning each time, so that no engine finds a prompt in its prefix cache.
PROMPTS = {"alone": "The best way to learn a new language is", "together": "A good day in the mountains begins with"}
WARM_UP, WARM_UP_TOKENS = "Once upon a time there was", 8  # also wakes an engine that dozes between requests
OUTPUT_TOKENS = {"alone": 64, "together": 16}  # fewer at once: engines that share two cores are many times slower
TIMEOUT_S = 120
EVERY_S = 0.1  # between two looks


def run(servers: Mapping[str, Server], way: str, look: Callable[[list[Lane]], None] = lambda lanes: None) -> list[Lane]:
    """One request to each of ``servers``, in the ``way`` of :data:`~helpers.lessons.race.lanes.WAYS`; a lane for each.

    An engine that gives no answer has the reason in its lane. ``look`` is given all lanes as they are, about ten times
    a second and in this thread; the stamps are the client's, whatever it does. An interrupt ends the requests.
    """
    if way not in WAYS:
        raise ValueError(f"there is no race {way!r}: choose from {', '.join(WAYS)}")
    lanes = {name: Lane(name, state="waits") for name in servers}
    look(list(lanes.values()))
    for names in [list(servers)] if way == "together" else [[name] for name in servers]:
        growing: dict[str, Reply] = {}

        def seen(growing=growing) -> None:
            lanes.update({name: of_sample(name, stream.read(reply), "runs") for name, reply in list(growing.items())})
            look(list(lanes.values()))

        with ExitStack() as stack:
            for name in names:
                stack.enter_context(servers[name].awake())
            for name in names:
                client.run(_ask(servers, [name], WARM_UP, WARM_UP_TOKENS, {}))
            asked = _ask(servers, names, PROMPTS[way], OUTPUT_TOKENS[way], growing)
            samples = client.run(asked, meanwhile=seen, every_s=EVERY_S)
        lanes.update({name: of_sample(name, sample) for name, sample in zip(names, samples)})
    return list(lanes.values())


async def _ask(
    servers: Mapping[str, Server], names: Sequence[str], prompt: str, tokens: int, growing: dict[str, Reply]
) -> list[Sample]:
    """One request to each of ``names``, sent at once; ``growing`` gets the reply of each while it comes."""

    def ask(name: str):
        endpoint = replace(servers[name].endpoint, token_ids=False)
        seen = partial(growing.__setitem__, name)
        return client.request(endpoint, Prompt(prompt), tokens, timeout_s=TIMEOUT_S, on_send=seen)

    return await asyncio.gather(*map(ask, names))
