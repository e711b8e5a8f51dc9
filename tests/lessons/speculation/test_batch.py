"""A batch step by step: what the engine's steps are, and what drafts change in them."""

from types import SimpleNamespace

import pytest

from helpers.lessons.speculation import batch
from helpers.lessons.speculation.speculative import Counts


class MockEngine:
    """An engine that gives each request, in every step, as many of its tokens as ``per_step`` says; the first step is empty."""

    def __init__(self, per_step: dict[str, list[int]]):
        self.left, self.made, self.asked, self.began = per_step, {name: [] for name in per_step}, [], False

    def add_request(self, name, prompt, sampling):
        self.asked.append((name, prompt, sampling))

    def has_unfinished_requests(self) -> bool:
        return any(self.left.values())

    def step(self) -> list:
        if not self.began:
            self.began = True
            return []
        going = [name for name, left in self.left.items() if left]
        for name in going:
            self.made[name] += [7] * self.left[name].pop(0)
        return [SimpleNamespace(request_id=name, outputs=[SimpleNamespace(token_ids=self.made[name])]) for name in going]


def test_the_engines_steps_and_those_of_each_request():
    """One request is done after two steps, the other after three: three steps of the engine, five of requests; none is empty."""
    engine = MockEngine({"0": [3, 1], "1": [1, 2, 1]})
    made = batch.answered(SimpleNamespace(llm_engine=engine), ["a", "b"], lambda: "greedy")

    assert engine.asked == [("0", "a", "greedy"), ("1", "b", "greedy")]
    assert made == batch.Answers([[7] * 4, [7] * 4], steps=3, request_steps=5)


def test_what_drafts_change_in_a_batch():
    """48 tokens of two requests: 24 steps become 12, of 4 tokens in place of 2, and each takes three times as long."""
    counts = Counts(tokens=48, drafted=28, accepted=28, drafts=7)  # 20 steps of the two requests
    changed = batch.compared(counts, {"plain": 24, "ngram": 12}, {"plain": [2.4, 9.0, 2.4], "ngram": [3.6, 3.6, 3.6]})

    assert list(changed.values()) == pytest.approx([2, 2, 3, 2 / 3])
    assert changed["times as fast"] == pytest.approx(changed["times fewer steps"] / changed["times as long a step"])
