"""Conversations: each turn sends again what was said, and the cache is held against what it may have."""

from __future__ import annotations

import pytest

from helpers.bench.timing import Asked, Level, Sample
from helpers.gpu import cases, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.work import conversations


def _sample(turn: int, first_ms: int, cached: int, prompt_tokens: int) -> Sample:
    stamps = (first_ms * 10**6, (first_ms + 10) * 10**6)
    asked = Asked(prompt_tokens, 2, turn=turn)
    return Sample(0, stamps, prompt_tokens=prompt_tokens, output_tokens=2, cached_tokens=cached, asked=asked)


def test_a_last_prompt_holds_all_that_was_said():
    """Three turns of 512 tokens and their answers, and the fourth question; with its answer it fits into the context."""
    assert conversations.longest(cases.TALKS) == 3 * (512 + 128) + 512
    assert conversations.longest(cases.TALKS) + cases.TALKS["output_tokens"] <= cases.TALKS["context"]
    (talk,) = conversations.spoken(cases.TALKS, 4, 512).talks(1, seed="a", skip=0, overhead=0)
    assert [turn.input_tokens for turn in talk.turns] == [512, 1152, 1792, 2432]


def test_new_prompts_do_not_begin_as_the_conversations_did():
    """Else a part of them would be cached: on a GPU the client once refused them for that."""
    loads = [conversations.plan(cases.TALKS, turns, tokens, 3, 60) for turns, tokens in ((4, 512), (1, 2432))]
    firsts = [{talk.turns[0].parts[0].key for turn in range(-1, 3) for talk in load.talks(32, turn, 0)} for load in loads]
    assert len(firsts[0]) == len(firsts[1]) == 4 * 64 and not firsts[0] & firsts[1]


def test_each_turn_has_its_own_wait_by_repeat():
    """Medians of a repeat; turns of both repeats together say what was cached."""
    blocks = tuple((_sample(0, 20, 0, 64), _sample(1, first, 64, 144)) for first in (30, 50))
    first, second = conversations.by_turn(Level(1, blocks))
    assert (first["ttft_s"], first["cached_tokens"]) == ([0.02, 0.02], 0)
    assert (second["ttft_s"], second["cached_tokens"], second["prompt_tokens"]) == ([0.03, 0.05], 64, [144])


@pytest.mark.engine
def test_llama_cpp_finds_all_but_what_a_turn_adds():
    """Its real server on a CPU, tiny: what it says is cached is the whole past, and nothing of a new prompt."""
    life, kept = cases.rehearsed(Life("llama-cpp", "conversations", "q4_0", 1, cases.TALKS, cases.LLAMA)), {}
    assert tasks.WORKS["conversations"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 200)
    assert [(row["turn"], row["cached_tokens"]) for row in kept["rows"] if row["kind"] == "turn"] == [(0, 0), (1, 64), (2, 144)]
    assert [row["cached_tokens"] for row in kept["rows"] if row["kind"] == "new"] == [0]
