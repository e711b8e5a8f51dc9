"""Requests that are not alike, under way at the same time: each has an endpoint of its own.

:func:`helpers.bench.client.closed_loop` asks one endpoint, with the same request fields for all. Here another adapter, another
JSON schema or another kind of load stands in the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from helpers.bench import client
from helpers.bench.client import Endpoint, EndpointError
from helpers.bench.timing import Sample
from helpers.bench.workload import Prompt

Answer = TypeVar("Answer")
Send = Callable[[], Awaitable[Answer]]  # sends one request, and returns what came back


async def queued(sends: Sequence[Send[Answer]], users: int) -> list[Answer]:
    """``users`` at a time, each taking the next of ``sends`` when its last answer has ended; in the order of ``sends``."""
    found: dict[int, Answer] = {}
    waiting = iter(enumerate(sends))

    async def user() -> None:
        for number, send in waiting:
            found[number] = await send()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(users, len(sends))):
            group.create_task(user())
    return [found[number] for number in range(len(sends))]


async def spaced(sends: Sequence[Send[Answer]], every_s: float, until: asyncio.Event) -> list[Answer]:
    """One of ``sends`` every ``every_s`` seconds, however busy the server is, until ``until`` is set; all are awaited."""
    sent: list[asyncio.Task] = []
    async with asyncio.TaskGroup() as group:
        for send in sends:
            sent.append(group.create_task(send()))
            try:
                async with asyncio.timeout(every_s):
                    await until.wait()
                break
            except TimeoutError:
                continue
    return [task.result() for task in sent]


async def by_users(asked: Sequence[tuple[Endpoint, Prompt]], *, users: int, output_tokens: int, timeout_s: float) -> list[Sample]:
    """:func:`queued`, each of ``asked`` at its own endpoint. A request has a connection of its own, opened before its clock."""
    return await queued([partial(client.request, *one, output_tokens, timeout_s=timeout_s) for one in asked], users)


async def at_intervals(
    endpoint: Endpoint, prompts: Sequence[Prompt], *, every_s: float, until: asyncio.Event, output_tokens: int, timeout_s: float
) -> list[Sample]:
    """:func:`spaced`, all of ``prompts`` at one endpoint."""
    sends = [partial(client.request, endpoint, prompt, output_tokens, timeout_s=timeout_s) for prompt in prompts]
    return await spaced(sends, every_s, until)


def answered(samples: Sequence[Sample], what: str) -> list[Sample]:
    """``samples`` if every request succeeded; :class:`~helpers.bench.client.EndpointError` with the first reason if not."""
    if failed := [sample.error for sample in samples if sample.error]:
        raise EndpointError(f"{what}: {len(failed)} of {len(samples)} requests failed: {failed[0]}")
    return list(samples)
