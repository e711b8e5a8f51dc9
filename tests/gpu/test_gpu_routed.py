"""Copies behind a router: what is sent, who answered, which requests a killed copy costs, and real servers that do it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from helpers.bench import workload
from helpers.bench.timing import Sample
from helpers.gpu import cases, random_model, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.recorded import behind
from helpers.gpu.session import Setting
from helpers.gpu.work import killed, routed
from helpers.gpu.work.killed import Tried
from helpers.lessons.scaling import pictures
from helpers.lessons.scaling.parallelism import Layout
from helpers.pictures import comparisons
from helpers.weights import models

S = 10**9
TWO = Setting("tiny", "cpu", (4,), 1, ("0", "1"))
PAGE = """# TYPE smg_worker_cb_outcomes_total counter
smg_worker_cb_outcomes_total{worker="http://127.0.0.1:2",outcome="success"} 28
smg_worker_cb_outcomes_total{worker="http://127.0.0.1:1",outcome="success"} 4
smg_worker_cb_outcomes_total{worker="http://127.0.0.1:1",outcome="failure"} 10
# TYPE smg_worker_retries_total counter
smg_worker_retries_total{worker_type="regular",endpoint="completions"} 11
"""


def sample(sent_s: float, *events_s: float, tokens: int | None = None, error: str | None = None) -> Sample:
    """An answer with events at these seconds, and as many tokens unless told."""
    events = tuple(int(at * S) for at in events_s)
    return Sample(int(sent_s * S), events, output_tokens=len(events) if tokens is None else tokens, error=error)


TRIED = [  # one that is answered, one cut off in the middle, one before its first token; both asked again, one in vain
    Tried(0, False, sample(1.0, 1.2, 1.4), int(1.5 * S)),
    Tried(1, False, sample(1.1, 1.3, error="ended early: x"), int(1.6 * S)),
    Tried(2, False, sample(1.15, error="ended early: x"), int(1.6 * S)),
    Tried(2, True, sample(1.6, error="HTTP 503: x"), int(1.7 * S)),
    Tried(1, True, sample(1.6, 2.1, 2.2, tokens=6), int(2.3 * S)),
]


def test_what_failed_is_told_apart_from_what_is_lost():
    """A request is lost if asking again brought no answer either."""
    assert killed.what(TRIED) == {
        "asked": 3, "failed in mid-answer": 1, "failed before a token": 1, "refused by the router": 0, "asked again": 2,
        "answered then": 1, "lost": 1,
    }  # fmt: skip
    assert killed.way(TRIED[3].sample) == "refused by the router"


def test_every_request_is_kept_with_its_times_and_its_end():
    """Seconds since the beginning, in the order they were sent; one that failed ends when the client saw it."""
    rows = killed.columns(TRIED, S)
    assert rows["request"] == [0, 1, 2, 2, 1] and rows["asked_again"] == [False, False, False, True, True]
    assert rows["began_s"] == [0.0, 0.1, 0.15, 0.6, 0.6] and rows["first_token_s"] == [0.2, 0.3, None, None, 1.1]
    assert rows["ended_s"] == [0.4, 0.6, 0.6, 0.7, 1.2] and rows["ok"] == [True, False, False, False, True]
    assert rows["output_tokens"] == [2, 1, 0, 0, 6]


def test_tokens_are_counted_in_steps_by_their_own_stamps():
    """An event of several tokens counts as many; those of an answer that failed were made, too."""
    assert killed.in_steps(TRIED, S, 0.5) == [3, 0, 6] and killed.in_steps([], S, 0.5) == []


def test_the_routers_own_counters_say_who_answered_and_how_often_it_tried_again():
    """In the order of the servers; one that has no line has answered nothing."""

    class Mock:
        def __init__(self, port: int):
            self.base_url = f"http://127.0.0.1:{port}/v1"

    servers = [Mock(1), Mock(2), Mock(3)]
    assert routed.answered(PAGE, servers) == [4, 28, 0] and routed.answered(PAGE, servers, "failure") == [10, 0, 0]
    assert killed.counts(PAGE) == {"retries": 11, "failed calls": 10}


def test_prompts_begin_alike_in_their_groups_and_nowhere_else():
    """As many as asked for, of the length asked for, shuffled, the same for the same seed, text and ids alike."""
    how, words = cases.LITTLE["routed"]["shared"], random_model.vocabulary(2048)
    made = routed.alike(how, "0 x", words)
    begins = Counter(prompt.token_ids[: how["common_tokens"]] for prompt in made)
    assert list(begins.values()) == [how["each"]] * how["groups"]
    assert {len(prompt.token_ids) for prompt in made} == {how["common_tokens"] + how["own_tokens"]} and len(set(made)) == len(
        made
    )
    assert made == routed.alike(how, "0 x", words) and not begins.keys() & {
        prompt.token_ids[: how["common_tokens"]] for prompt in routed.alike(how, "1 x", words)
    }
    ids = {text: number for number, text in workload.words(words)}
    assert all(tuple(ids[f" {word}"] for word in prompt.text.split()) == prompt.token_ids for prompt in made)
    assert [one.token_ids[0] for one in made] != sorted(one.token_ids[0] for one in made)


def test_the_arrivals_are_those_of_the_lives_without_a_router():
    """So that they can be held against each other, row for row."""
    lives = {one.key: one for one in cases.scaling()}
    behind = lives["vllm, routed, prefix cache, Llama-3.1-8B, DP2"]
    for other in ("TP2", "DP2"):
        alone = lives[f"vllm, server, prefix cache, Llama-3.1-8B, {other}"]
        assert alone.given["arrivals"] == behind.given["arrivals"] and alone.given["context"] == behind.given["context"]


@pytest.fixture
def found():
    """A record with both ways without a router, and copies behind one; of the last, TTFT, caches and the killed copy."""

    def arrivals(rate: float, met: float) -> dict:
        of = {name: dict.fromkeys(("median", "low", "high"), 1.0) for name in ("ttft_s", "tpot_s", "output_tokens_per_s")}
        good = dict.fromkeys(("median", "low", "high"), rate * met)
        return {
            "kind": "arrivals", "rate_per_s": rate, "met": met, "goodput_requests_per_s": good, "requests": 10, "repeats": 1,
            "output_tokens": [128], "answers_at_once": 7, "joules": 1280.0, **of,
        }  # fmt: skip

    def shared(policy: str, wait_s: float, cached: int) -> dict:
        return {
            "kind": "shared", "policy": policy, "ttft_each_s": [wait_s] * 250, "cached_prompt_tokens": cached,
            "all_prompt_tokens": 1000, "output_tokens_per_s": {"median": 100.0}, "answered": [5, 3],
        }  # fmt: skip

    def life(work: str, rows: list[dict], *told: str) -> dict:
        return {
            "engine": "vllm", "work": work, "option": "prefix cache", "shape": cases.LLAMA, "gpus": 2, "rows": rows,
            "failed": [], "complete": True, "versions": {"vllm": "1.0"}, "date": "2026-11-30T02:00:00+00:00",
            "arguments": ["--max-num-seqs", "128", *told],
        }  # fmt: skip

    killing = {
        "kind": "killed", "what": killed.what(TRIED), "router": {"retries": 11}, "requests": killed.columns(TRIED, S),
        "every_s": 0.5, "output_tokens": [10, 50, 50, 20, 30, 30], "killed_s": 1.6, "sizes": {"seconds": 3},
    }  # fmt: skip
    turns = [shared(policy, wait_s, cached) for policy, wait_s, cached in (("a", 0.1, 800), ("b", 0.2, 400)) * 2]
    lives = {
        "vllm, server, prefix cache, Llama-3.1-8B, TP2": life("server", [arrivals(16, 1.0)], "--tensor-parallel-size", "2"),
        "vllm, server, prefix cache, Llama-3.1-8B, DP2": life("server", [arrivals(16, 0.5)], "--data-parallel-size", "2"),
        "vllm, routed, prefix cache, Llama-3.1-8B, DP2": life("routed", [arrivals(16, 0.75), *turns, killing]),
    }
    machine = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200"] * 2, "gpu_driver": "580.1"}
    return {"provenance": {"machine": machine, "date": "2026-11-30", "weights": "random", "shape": "tiny"}, "lives": lives}


def test_copies_behind_a_router_stand_beside_the_engines_own_ways(found):
    """The same figures of each, as the picture takes them."""
    shown = behind.goodput(found)
    assert [way for way, _ in shown.index] == ["TP2", "DP2", "2 copies, router"]
    assert shown["goodput, requests/s"].tolist() == ["16.0", "8.0", "12.0"] and set(shown["slots a copy"]) == {128}
    (good, _) = comparisons.arrivals(behind.served(found)).axes
    assert [line.get_label() for line in good.lines][1:] == ["TP2", "DP2", "2 copies, router"]


def test_the_policies_stand_side_by_side(found):
    """A 99th percentile of 500 requests; the share is of all prompt tokens."""
    shown = behind.alike(found)
    assert shown.loc["a"].tolist() == ["100", "100", "100 (100 to 100)", "80% (80% to 80%)", "5 and 3; 5 and 3"]
    assert shown.loc["b", "TTFT p99, ms"] == "200" and shown.attrs["recorded"]


def test_the_dip_is_told_and_drawn(found):
    """What became of the requests; in the picture those that failed are marked."""
    row = behind.killed(found)
    assert behind.lost(found)["requests"].to_dict() == {**killed.what(TRIED), "router: retries": 11}
    (axes,) = pictures.dip(row, "title").axes
    line, marks = axes.lines
    assert set(line.get_xdata()) == {1.6} and list(marks.get_xdata()) == [0.6, 0.6, 0.7]


def test_a_record_without_copies_has_no_figures_of_them(found):
    """Empty tables, no error."""
    found["lives"].popitem()
    assert behind.killed(found) is None and behind.alike(found).empty and behind.lost(found).empty
    assert list(behind.served(found)) == ["TP2", "DP2"]


@pytest.mark.engine
def test_a_life_of_copies_behind_a_router_has_all_its_rows(monkeypatch):
    """llama.cpp's real servers and the real router: arrivals, beginnings in turns, and a copy that is killed.

    With the real, small model: a random file's words are many tokens for llama.cpp, and a router takes text.
    """
    monkeypatch.setattr(random_model, "model", lambda shape, form: models.resolve())
    arrivals = {**cases.arrivals(2), "input_tokens": 32, "output_tokens": 8, "rates_per_s": [4], "seconds": 2}
    arrivals["limits"] = {"ttft_s": 60, "tpot_s": 60}
    killing = {**cases.LITTLE["routed"]["killed"], "seconds": 4, "output_tokens": 16}
    given = {"context": 512, "arrivals": arrivals, "shared": cases.LITTLE["routed"]["shared"], "killed": killing}
    life, kept = Life("llama-cpp", "routed", "q4_0", 1, given, "tiny", Layout(dp=2)), {}
    assert tasks.WORKS["routed"](life, TWO, session.Log(life, kept.update), 400)  # a busy machine takes minutes
    json.dumps(kept)
    rows = {kind: [row for row in kept["rows"] if row["kind"] == kind] for kind in {row["kind"] for row in kept["rows"]}}

    assert [(row["policy"], row["rate_per_s"], row["met"]) for row in rows["arrivals"]] == [("cache_aware", 4, 1.0)]
    assert sum(rows["arrivals"][0]["answered"]) == 1 + 2 * 10  # a probe, a warm-up, and the rate: 10 requests at the least

    by = {row["policy"]: row for row in rows["shared"]}
    assert by.keys() == {"cache_aware", "round_robin"} and kept["router"] == {"sglang-router": "0.3.2"}
    assert {sum(row["answered"]) for row in by.values()} == {16}
    assert min(by["round_robin"]["answered"]) >= 6  # in turn, but for requests that come at the same moment: 9 and 7 was seen
    assert {len(row["ttft_each_s"]) for row in by.values()} == {16}

    (row,) = rows["killed"]
    tried, told = row["requests"], row["what"]
    assert len(tried["ok"]) == told["asked"] + told["asked again"] and not row["all_taken"]
    assert sum(told[way] for way in killed.WAYS) == told["asked again"]
    assert told["lost"] + told["answered then"] == told["asked again"]  # its retries may all meet the dead copy: none is promised
    assert row["router"]["failed calls"] > 0
    failed = [ended for ended, ok in zip(tried["ended_s"], tried["ok"]) if not ok]
    assert all(ended >= row["killed_s"] for ended in failed)
    assert any(ok for began, ok in zip(tried["began_s"], tried["ok"]) if began > row["killed_s"])  # the other copy answers
    assert sum(row["output_tokens"]) == pytest.approx(sum(tried["output_tokens"]), rel=0.01)
