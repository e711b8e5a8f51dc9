"""A schema's cost under load: every answer is judged, and both ways are measured in turns."""

from __future__ import annotations

import pytest

from helpers.bench.timing import Sample
from helpers.gpu import cases, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.work import constrained
from helpers.lessons.structured import questions, schemas
from helpers.servers import engines


class MockServer:
    """What is asked of a server here: its engine."""

    engine = engines.get("vllm")


def test_every_answer_is_judged_by_its_own_schema():
    """A valid one, one that breaks its schema, one that was cut off, one that was refused."""
    (case,) = (case for case in schemas.cases(of_each=1) if case.schema_name == "city")
    right, wrong = schemas.examples()["city"]
    texts = [(questions.json.dumps(right), "stop"), (questions.json.dumps(wrong), "stop"), ('{"name": "Vi', "length")]
    samples = [Sample(0, (1,), pieces=(text,), finish_reason=reason, output_tokens=5) for text, reason in texts]
    samples.append(Sample(0, error="HTTP 400: no such keyword"))
    found = constrained.judged(MockServer, [case] * 4, samples)
    assert questions.counts(found) == {"valid": 1, "violates": 1, "cut off": 1, "refused": 1}


def test_a_block_has_whole_rounds_of_the_schemas():
    """So that both ways, and all numbers of users, are asked for the same mixture."""
    assert not [requests for requests in cases.JSON["requests"] if requests % len(schemas.named())]


def test_a_block_has_several_requests_for_each_user():
    """Else most of it is its beginning and its end, when not all users are there."""
    assert min(requests / users for users, requests in zip(cases.JSON["users"], cases.JSON["requests"], strict=True)) >= 5


def test_the_first_request_of_each_schema_is_kept():
    """Not the second, nor one that failed before its first token."""
    cases_ = [case for case in schemas.cases(of_each=1)[:2] for _ in range(2)]
    times = [(2_000_000_000,), (1_000_000_000,), (), (3_000_000_000,)]
    found = constrained.firsts(cases_, [Sample(0, stamps) for stamps in times])
    assert found == {cases_[0].schema_name: 2.0, cases_[2].schema_name: 3.0}


@pytest.mark.engine
def test_constrained_answers_are_valid_or_cut_off():
    """llama.cpp's real server, two users: both ways in turns, each block with its outcomes and its times."""
    life, kept = Life("llama-cpp", "constrained", "q4_0", 1, {"users": [2], "requests": [4]}), {}
    setting = session.Setting("tiny", "cpu", (1,), 1)
    assert tasks.WORKS["constrained"](life, setting, session.Log(life, kept.update), 200)
    free, forced = (row for row in kept["rows"] if row["kind"] == "block")
    assert [free["way"], forced["way"]] == ["free", "constrained"]
    assert set(forced["outcomes"]) <= {"valid", "cut off"} and forced["outcomes"]["valid"] > 0
    assert sum(free["outcomes"].values()) == sum(forced["outcomes"].values()) == 4
    assert forced["tpot_s"]["median"] > 0 and forced["users"] == 2 and 0 < forced["mean_output_tokens"] <= questions.MAX_TOKENS
    warm_ups = [row for row in kept["rows"] if row["kind"] == "warm-up"]
    assert [row["way"] for row in warm_ups] == ["free", "constrained"] and all(len(row["first_s"]) == 4 for row in warm_ups)
