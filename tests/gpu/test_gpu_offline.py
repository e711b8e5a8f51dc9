"""The loop around an engine's own API, with a mock engine: order, counts, the time limit, the search."""

from __future__ import annotations

import json

import pytest

from helpers.gpu.work import offline

JOB = {"input_tokens": 4, "output_tokens": 3, "vocabulary": 2048, "users": [1, 2], "repeats": 3, "warmups": 1}


class _MockEngine:
    """Answers at once; remembers how many prompts it was given, and for how many tokens."""

    def __init__(self, tokens: int | None = None):
        self.asked, self.tokens = [], tokens

    def generate(self, prompts, tokens):
        self.asked.append((len(prompts), tokens))
        return [self.tokens or tokens] * len(prompts), [0.5] * len(prompts)


def _rows(tmp_path, left_s: float = 1e9) -> offline.Rows:
    (tmp_path / "rows").touch()
    return offline.Rows(tmp_path / "rows", left_s)


def _read(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]


def test_repeats_are_taken_in_balanced_order():
    """Rising, falling, rising: a machine that slows down slows each alike."""
    assert offline.turns([1, 10], 3) == [(0, 1), (0, 10), (1, 10), (1, 1), (2, 1), (2, 10)]


def test_each_repeat_is_a_row_with_its_tokens(tmp_path):
    """Whole answers and a first token alone, for every number of users and repeat, after a warm-up."""
    engine = _MockEngine()
    offline.speed(engine, JOB, _rows(tmp_path))
    rows = _read(tmp_path)
    assert [(row["kind"], row["users"], row["repeat"]) for row in rows] == [
        (kind, users, turn) for turn, users in offline.turns([1, 2], 3) for kind in ("speed", "first token")
    ]
    assert {row["output_tokens"] for row in rows if row["kind"] == "speed" and row["users"] == 2} == {6}
    assert list(dict.fromkeys(engine.asked)) == [(1, 3), (1, 1), (2, 3), (2, 1)]  # the order of the warm-ups


def test_an_answer_of_another_length_is_no_figure(tmp_path):
    """A speed of work that was not asked for is refused."""
    with pytest.raises(RuntimeError, match=r"3 tokens were asked of each of 1, and came as \[2\]"):
        offline.speed(_MockEngine(tokens=2), JOB, _rows(tmp_path))


def test_the_time_limit_keeps_what_was_measured_and_says_so(tmp_path):
    """Nothing is started that the time left is too short for."""
    offline.speed(_MockEngine(), JOB, _rows(tmp_path, left_s=-1))
    (row,) = _read(tmp_path)
    assert row["kind"] == "stopped" and row["reason"].endswith("s were left, the next part takes 0 s")


def test_prompts_are_seeded_and_begin_differently():
    """The same seed gives the same prompts; no two of them share a first token, nor a special one."""
    first, again, other = (offline.prompts(50, 8, 2048, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({prompt[0] for prompt in first}) == 50 and min(map(min, first)) >= offline.FIRST_WORD


@pytest.mark.parametrize("limit", [1, 7, 100, 163, 511])
def test_the_search_finds_the_largest_that_fits(limit):
    """By doubling and halving, within a twentieth."""
    good, bad = offline.largest(lambda users: users <= limit, start=100, most=1024)
    assert good <= limit < bad and bad - good <= max(1, 0.05 * bad)


def test_a_search_that_reaches_its_end_names_no_number_that_fails():
    """``most`` fits: what fails is not known."""
    assert offline.largest(lambda users: True, start=100, most=400) == (400, None)


def test_a_search_without_time_ends_with_what_it_knows():
    """``None`` is no answer."""
    answers = iter([True, False, None])
    assert offline.largest(lambda users: next(answers), start=100, most=1024) == (100, 200)


def test_nothing_that_fits_is_zero():
    """Not even one."""
    assert offline.largest(lambda users: False, start=4, most=8) == (0, 1)


def test_a_common_prefix_is_a_new_one_each_time(tmp_path):
    """All users share all but their last words, and no repeat can find the one before in a cache."""
    given = []
    engine = _MockEngine()
    engine.generate = lambda prompts, tokens: (given.append(prompts), ([tokens] * len(prompts), []))[1]
    offline.prefixes(engine, JOB | {"prefix": {"input_tokens": 100, "output_tokens": 2}}, _rows(tmp_path))
    shared = {tuple(prompt[:76]) for prompts in given for prompt in prompts}
    assert len(given) == 4 and len(shared) == 4
    assert {len(prompt) for prompts in given for prompt in prompts} == {100}
    assert [row["repeat"] for row in _read(tmp_path)] == [0, 1, 2]


def test_a_warm_up_goes_on_until_it_grows_no_faster(monkeypatch):
    """Three that grow faster, one that does not: what is compiled for a new size is not measured."""
    clock = iter([0, 9, 9, 14, 14, 17, 17, 20])  # 9, 5, 3 and 3 seconds
    monkeypatch.setattr(offline.time, "perf_counter", lambda: next(clock))
    engine = _MockEngine()
    assert offline.Asking(engine, JOB).warm(2, least=1) == 3
    assert engine.asked == [(2, 3)] * 4


def test_prompts_of_each_length_have_one_token(tmp_path):
    """One user, a warm-up first, every repeat a row with its length."""
    engine = _MockEngine()
    offline.prefill(engine, JOB | {"prefill_tokens": [8, 16]}, _rows(tmp_path))
    assert [(row["kind"], row["input_tokens"], row["repeat"]) for row in _read(tmp_path)] == [
        ("prefill", tokens, turn) for tokens in (8, 16) for turn in range(3)
    ]
    assert set(engine.asked) == {(1, 1)}


def test_longer_loads_have_their_own_lengths_and_users(tmp_path):
    """Two repeats of each, rising and falling; the first of each is warmed up with some tokens only."""
    engine = _MockEngine()
    offline.longer(engine, JOB | {"longer": [[16, 12, [1, 2]]]}, _rows(tmp_path))
    rows = _read(tmp_path)
    assert [(row["users"], row["repeat"], row["input_tokens"], row["output_tokens"]) for row in rows] == [
        (1, 0, 16, 12), (2, 0, 16, 24), (2, 1, 16, 24), (1, 1, 16, 12)
    ]  # fmt: skip
    assert engine.asked[:2] == [(1, 8), (2, 8)]


def test_what_was_counted_meanwhile_stands_in_the_row():
    """Joules and bytes grown (mock counters); what is not counted is left out."""

    class MockCounters:
        read = iter([100.0, 160.0])

        def joules(self):
            return next(self.read)

        def nvlink_bytes(self):
            return None

    found = offline.Asking(_MockEngine(), JOB, MockCounters())(1, "seed")
    assert found["joules"] == 60.0 and "nvlink_bytes" not in found


def test_an_engine_that_fails_to_import_is_one_line(tmp_path):
    """The worker's whole answer is a row with the reason, and exit code 1."""
    job = tmp_path / "job.json"
    (tmp_path / "rows").touch()
    job.write_text(json.dumps(JOB | {"engine": "vllm", "rows": str(tmp_path / "rows"), "left_s": 60, "folder": "", "tasks": []}))
    assert offline.main(str(job)) == 1
    (row,) = _read(tmp_path)
    assert row == {"kind": "failed", "reason": "ModuleNotFoundError: No module named 'vllm'"}
