"""Requests that are not alike, under way at the same time: each has an endpoint of its own.

:func:`helpers.bench.client.closed_loop` asks one endpoint, with the same request fields for all. Here another adapter, another
JSON schema or another kind of load stands in the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from helpers.bench import client
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt


async def by_users(asked: Sequence[tuple[Endpoint, Prompt]], *, users: int, output_tokens: int, timeout_s: float) -> list[Sample]:
    """``users`` users, each taking the next of ``asked`` when its last answer has ended; samples in the order of ``asked``.

    Each request has a connection of its own, opened before its clock starts.
    """
    found: dict[int, Sample] = {}
    waiting = iter(enumerate(asked))

    async def user() -> None:
        for number, (endpoint, prompt) in waiting:
            found[number] = await client.request(endpoint, prompt, output_tokens, timeout_s=timeout_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(users, len(asked))):
            group.create_task(user())
    return [found[number] for number in range(len(asked))]


async def at_intervals(
    endpoint: Endpoint, prompts: Sequence[Prompt], *, every_s: float, until: asyncio.Event, output_tokens: int, timeout_s: float
) -> list[Sample]:
    """One of ``prompts`` every ``every_s`` seconds, however busy the server is, until ``until`` is set; all are awaited."""
    sent: list[asyncio.Task] = []
    async with asyncio.TaskGroup() as group:
        for prompt in prompts:
            sent.append(group.create_task(client.request(endpoint, prompt, output_tokens, timeout_s=timeout_s)))
            try:
                async with asyncio.timeout(every_s):
                    await until.wait()
                break
            except TimeoutError:
                continue
    return [task.result() for task in sent]


def answered(samples: Sequence[Sample], what: str) -> list[Sample]:
    """``samples`` if every request succeeded; :class:`~helpers.bench.client.EndpointError` with the first reason if not."""
    if failed := [sample.error for sample in samples if sample.error]:
        raise EndpointError(f"{what}: {len(failed)} of {len(samples)} requests failed: {failed[0]}")
    return list(samples)
