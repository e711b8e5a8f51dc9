"""What a JSON schema costs under load: a real, small model, the same prompts free and constrained in turns, on one server.

Every answer is read: one that is no JSON, or breaks its schema, shows that the constraint was not applied; one that was cut off
ended at the most tokens that were asked for; a refused one is a schema that the engine does not take.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean

from helpers.bench import client, workload
from helpers.bench.timing import Level, Sample
from helpers.gpu import variants
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting, versions
from helpers.gpu.work import offline, small_model, together
from helpers.lessons.structured import questions, schemas
from helpers.lessons.structured.schemas import Case
from helpers.servers import serving
from helpers.servers.serving import Server
from helpers.weights import models

FREE, FORCED = "free", "constrained"


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """One server of ``life.engine``; for each of the ``users`` in ``life.given`` the blocks of both ways, each block a row.

    ``life.given`` has also the ``requests`` of a block by number of users, as a list beside ``users``.
    """
    end, given = time.monotonic() + left_s, life.given
    slots = max(given["users"])
    told = variants.Setup(setting.gpu, small_model.CONTEXT, slots, small_model.kv_bytes(), random=False)
    with serving.serve(
        small_model.plain(life.engine, told), slots=slots, context=small_model.CONTEXT, timeout_s=left_s
    ) as server:
        log.note(arguments=list(server.arguments), versions=versions(life.engine), model=models.resolve().name)
        log.row("loaded", seconds=server.startup_s)
        for users, requests in zip(given["users"], given["requests"], strict=True):
            if not _blocks(server, users, requests, setting.repeats, log, end):
                return False
    return True


def _blocks(server: Server, users: int, requests: int, repeats: int, log: Log, end: float) -> bool:
    """A warm-up of each way, in which the schemas are compiled (a row), then the blocks in turns; whether there was time."""
    known = schemas.cases(of_each=1)
    several = [known[number % len(known)] for number in range(requests)]
    took_s = 0.0
    for turn, way in [(None, FREE), (None, FORCED), *offline.turns([FREE, FORCED], repeats)]:
        if time.monotonic() + offline.RESERVE * took_s > end:
            log.row("stopped", reason=f"{users} users, block {turn} {way}: {end - time.monotonic():.0f} s were left")
            return False
        began = time.monotonic()
        samples = _block(server, several, users, way == FORCED, end)
        seconds = time.monotonic() - began
        took_s = max(took_s, seconds)
        if turn is None:
            log.row("warm-up", way=way, users=users, seconds=seconds, first_s=firsts(several, samples))
        else:
            outcomes = questions.counts(judged(server, several, samples))
            counts = {"outcomes": outcomes, "mean_output_tokens": _mean(sample.output_tokens for sample in samples)}
            log.row("block", way=way, repeat=turn, **counts, **Level(users, (tuple(samples),)).to_dict())
    return True


def firsts(several: Sequence[Case], samples: Sequence[Sample]) -> dict[str, float]:
    """The TTFT of the first request of each schema, seconds: in the first warm-up it holds the schema's compilation."""
    found: dict[str, float] = {}
    for case, sample in zip(several, samples, strict=True):
        if sample.ttft_s is not None:
            found.setdefault(case.schema_name, sample.ttft_s)
    return found


def _mean(counts: Iterable[int | None]) -> float | None:
    """Mean tokens of an answer: a constrained one ends earlier, which changes tokens/s at the same TPOT."""
    known = [count for count in counts if count is not None]
    return mean(known) if known else None


def _block(server: Server, several: Sequence[Case], users: int, forced: bool, end: float) -> list[Sample]:
    asked = [(_endpoint(server, case, forced), workload.Prompt(case.prompt)) for case in several]
    left = max(end - time.monotonic(), 1)
    return client.run(together.by_users(asked, users=users, output_tokens=questions.MAX_TOKENS, timeout_s=left))


def _endpoint(server: Server, case: Case, forced: bool) -> client.Endpoint:
    fields = questions.fields(server.engine, "schema", case.schema) if forced else {}
    return replace(server.endpoint, route="chat", token_ids=False, fields=lambda tokens: fields)


def judged(server: Server, several: Sequence[Case], samples: Sequence[Sample]) -> list[questions.Answer]:
    """Each answer, held against the schema of its case; what was refused, or failed, as such."""
    return [_judged(server.engine.title, case, sample) for case, sample in zip(several, samples, strict=True)]


def _judged(title: str, case: Case, sample: Sample) -> questions.Answer:
    if sample.error:
        outcome = "refused" if sample.error.startswith(("HTTP 4", "server error")) else "failed"
        return questions.Answer(title, (), sample.text, outcome, sample.error[:160])
    return questions.judge(title, case.schema, sample.text, finish_reason=sample.finish_reason)
