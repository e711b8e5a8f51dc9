"""The record of an engine's steps: passes that must be alike, what a record claims, and what is wrong with one that is not so."""

import copy
import sys
from statistics import median

import pytest
import steps_by_hand

from helpers import kernels, paths, records
from helpers.servers import install
from helpers.studies import stepping, steps
from helpers.weights import models

RUNS = ("batch", "cache")
VOCABULARY = [f"▁{one}{other}" for one in "abcdefghij" for other in "klmnopqrst"]


@pytest.fixture
def found() -> dict:
    return steps_by_hand.record()


def recorded() -> list:
    """Every committed record of steps."""
    return [records.read(file) for file in sorted(records.FOLDER.glob(f"*/{steps.NAME}.*.json"))]


def fault(found: dict) -> str:
    with pytest.raises(steps.StepsError) as error:
        steps.check(found, "x.json")
    return str(error.value)


# --- what a record claims ---


def test_a_record_by_hand_is_sound(found):
    """The mock that other tests rest on, and every committed one; it can be kept in a repository."""
    steps.check(found, "by hand")
    for one in recorded():
        steps.check(one, "a record")
    sizes = [file.stat().st_size for file in records.FOLDER.glob(f"*/{steps.NAME}.*.json")]
    assert sizes and max(sizes) < 300_000


def test_every_request_gets_its_tokens():
    """Computed or found: all but the last token of the answer, which nothing is computed of."""
    for one in recorded():
        for run in one["runs"].values():
            for name, asked in run["requests"].items():
                computed = sum(step["scheduled"].get(name, 0) for step in run["steps"])
                reused = next(step["computed"][name] for step in run["steps"] if name in step["computed"])
                assert computed + reused == asked["prompt_tokens"] + asked["output_tokens"] - 1, name


def test_the_pool_is_never_exceeded():
    """Nor is the block 0 given out."""
    for one in recorded():
        for run in one["runs"].values():
            held = [{block for own in step["blocks"].values() for block in own} for step in run["steps"]]
            assert max(map(len, held)) < one["pool"]["blocks"]
            assert set().union(*held) <= set(range(1, one["pool"]["blocks"]))


def test_in_the_batch_a_long_prompt_shares_its_steps_and_others_wait():
    """Prefill in several steps beside decodes, more requests than slots, different lengths."""
    for one in recorded():
        run, limits = one["runs"]["batch"], one["provenance"]["limits"]
        longest = max(run["requests"], key=lambda name: run["requests"][name]["prompt_tokens"])
        whole = run["requests"][longest]["prompt_tokens"]
        chunks = [step for step in run["steps"] if longest in step["scheduled"] and step["computed"][longest] < whole]

        assert len(chunks) > 2 and all(len(step["scheduled"]) > 1 for step in chunks)
        assert len(run["requests"]) > limits["max_num_seqs"] and any(step["waiting"] for step in run["steps"])
        assert len({asked["output_tokens"] for asked in run["requests"].values()}) > 3


def test_a_step_with_a_piece_of_the_long_prompt_takes_longer():
    """As the page says: by the median of the steps that are full with it, beside those of decode alone."""
    for one in recorded():
        run, limits = one["runs"]["batch"], one["provenance"]["limits"]
        took = [(sum(step["scheduled"].values()), len(step["scheduled"]), median(step["took_ms"])) for step in run["steps"]]
        full = [ms for tokens, _, ms in took if tokens == limits["max_num_batched_tokens"]]

        assert median(full) > median(ms for tokens, requests, ms in took if tokens == requests)


def test_in_the_cache_blocks_are_shared_by_two_kept_and_evicted():
    """A block that two requests hold at once, one that is found after its holders have ended, one that lost what it kept."""
    for one in recorded():
        run, size = one["runs"]["cache"], one["pool"]["block_tokens"]
        shared = lost = again = False
        for before, step in zip(run["steps"], run["steps"][1:]):
            held = [set(own) for own in step["blocks"].values()]
            shared |= sum(map(len, held)) > len(set().union(*held))
            lost |= any(kept and kept != now for kept, now in zip(before["contents"], step["contents"]))
            for name in step["blocks"].keys() - before["blocks"].keys():
                reused = step["blocks"][name][: step["computed"][name] // size]
                again |= bool(reused) and not any(set(reused) & set(own) for own in before["blocks"].values())
        assert shared and lost and again


def test_what_was_given_back_longest_ago_is_evicted_first():
    """No block that is kept on was given back before one that is evicted."""
    for one in recorded():
        steps_of, given_back = one["runs"]["cache"]["steps"], {}
        for number, (before, step) in enumerate(zip(steps_of, steps_of[1:]), 1):
            held = {block for own in step["blocks"].values() for block in own}
            given_back |= {block: number for own in before["blocks"].values() for block in own if block not in held}
            kept = [block for block, content in enumerate(step["contents"]) if content and block not in held]
            lost = [block for block, content in enumerate(before["contents"]) if content and step["contents"][block] != content]
            assert all(given_back[gone] <= given_back[stays] for gone in lost for stays in kept), number


# --- what is wrong with one that is not so ---


def test_a_request_that_never_ended_is_named(found):
    """With the record, the run, and the command that makes it again."""
    found["runs"]["batch"]["steps"][-1]["ended"] = []

    assert fault(found) == "x.json, run 'batch': request C never ended: make it again with `nox -s record -- steps`"


def test_what_is_missing_is_named_with_its_place(found):
    """As in a record of an older make."""
    del found["runs"]["cache"]["steps"][1]["contents"]

    assert fault(found).startswith("x.json, $.runs.cache.steps[1]: 'contents' is a required property: make it again")


def change(found, run, step, key, value) -> None:
    found["runs"][run]["steps"][step][key] = value


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("batch", 0, "ended", ["C"]), "run 'batch': request C ended 2 times"),
        (("batch", 3, "ended", ["C", "X"]), "run 'batch': request X ended, and nobody asked for it"),
        (("batch", 0, "scheduled", {"A": 2, "B": 5}), "run 'batch': step 0 has 7 tokens, and 6 are its most"),
        (("batch", 2, "computed", {"A": 2, "B": 6}), "run 'batch': step 2: request A goes on at token 2, and 3 were computed"),
        (("batch", 3, "scheduled", {"C": 1}), "run 'batch': request C needs 2 tokens computed or found, and got 1"),
        (("batch", 3, "blocks", {"C": [6], "A": [1], "B": [2]}), "run 'batch': step 3 has 3 requests, and 2 are its most"),
        (("batch", 3, "blocks", {"C": [7]}), "run 'batch': step 3: block 7 is not in the pool"),
        (("batch", 3, "blocks", {"C": [0]}), "run 'batch': step 3: block 0 is not in the pool"),
        (("batch", 3, "blocks", {"C": [6, 5]}), "run 'batch': step 3: request C holds 2 blocks, and its tokens fill 1"),
        (("batch", 3, "contents", [None]), "run 'batch': step 3: it tells the contents of 1 blocks, and the pool has 7"),
        (("cache", 1, "blocks", {"A": [1, 2, 3], "B": [1, 2]}), "run 'cache': step 1: block 2 of request B is shared beyond"),
    ],
)
def test_what_does_not_add_up_is_named(found, changed, said):
    """The run, the step or the request, and both numbers."""
    change(found, *changed)

    assert fault(found).removeprefix("x.json, ").startswith(said)


# --- how it is made ---


def passes(found: dict, run: str = "cache") -> list[list[dict]]:
    """Three passes of a run by hand; the blocks of the later ones have other numbers."""
    first = [{**step, "at_ms": 1.0, "took_ms": 2.0} for step in found["runs"][run]["steps"]]
    other = copy.deepcopy(first)
    swap = {1: 6, 6: 1}
    for step in other:
        step["blocks"] = {name: [swap.get(block, block) for block in own] for name, own in step["blocks"].items()}
        step["contents"][1], step["contents"][6] = step["contents"][6], step["contents"][1]
        step["took_ms"] = 3.0
    return [first, other, copy.deepcopy(other)]


def test_passes_that_are_alike_are_one_run_with_several_times(found):
    """The blocks of the first one, whatever numbers the others got, and the times of the others."""
    made = steps.merged("cache", passes(found))

    assert [step["blocks"] for step in made] == [step["blocks"] for step in found["runs"]["cache"]["steps"]]
    assert [step["took_ms"] for step in made] == [[3.0, 3.0]] * len(made)


def test_a_pass_that_differs_is_named(found):
    """With the step; one that is longer, too."""
    one = passes(found)
    one[2][3]["waiting"] = ["D"]
    with pytest.raises(steps.StepsError, match="^run 'cache': pass 3 differs from the first in step 3: make it again"):
        steps.merged("cache", one)
    one = passes(found)
    one[1][2]["contents"][2] = None
    with pytest.raises(steps.StepsError, match="^run 'cache': pass 2 differs from the first in step 2: "):
        steps.merged("cache", one)
    one = passes(found)
    one[1].append(one[1][-1])
    with pytest.raises(steps.StepsError, match="^run 'cache': pass 2 has 6 steps, the first 5: make it again"):
        steps.merged("cache", one)


def test_prompts_begin_alike_as_far_as_they_should():
    """And no further; the others differ from their first token on."""
    plan = {"A": steps.Request(0, 40, 1), "B": steps.Request(0, 50, 1, "A", 20), "C": steps.Request(0, 30, 1)}
    made = steps.prompts("x", plan, VOCABULARY)

    assert {name: len(ids) for name, ids in made.items()} == {"A": 40, "B": 50, "C": 30}
    assert made["B"][:20] == made["A"][:20] and made["B"][20:40] != made["A"][20:40] and made["C"][0] != made["A"][0]


def test_no_step_of_a_plan_is_without_a_request():
    """Each request is asked before or when the last of the others ends; the record has them at their steps."""
    for one in recorded():
        for run in one["runs"].values():
            for name, asked in run["requests"].items():
                seen = [number for number, step in enumerate(run["steps"]) if name in (*step["waiting"], *step["scheduled"])]
                assert seen[0] == asked["joins_step"], name


@pytest.fixture
def mocked(tmp_path, monkeypatch):
    """A mock of the engine's answer, records of this test only."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["steps"])
    monkeypatch.setattr(models, "vocabulary", lambda: VOCABULARY)
    monkeypatch.setattr(models, "weights", lambda form: tmp_path)
    monkeypatch.setattr(models, "shape", lambda: None)
    monkeypatch.setattr(steps.sizes, "kv_bytes_per_token", lambda shape: 1)
    monkeypatch.setattr(install, "versions", lambda engine: {"vllm": "1"})


def answered(monkeypatch, found: dict) -> None:
    """The engine answers as ``found`` says."""
    runs = {name: passes(found, name) for name in RUNS}
    plans = {name: {key: steps.Request(**asked) for key, asked in found["runs"][name]["requests"].items()} for name in RUNS}
    monkeypatch.setattr(steps, "RUNS", plans)
    monkeypatch.setattr(steps, "LIMITS", steps_by_hand.LIMITS)
    monkeypatch.setattr(stepping, "watched", lambda job: {"pool": found["pool"], "runs": runs})


def test_the_command_makes_a_sound_record(mocked, monkeypatch, found, capsys):
    """Which says with what it was made."""
    answered(monkeypatch, found)
    assert steps.main() == 0
    (file,) = records.FOLDER.glob("*/*.json")
    made = records.read(file)

    steps.check(made, "made")
    assert "batch: 3 requests in 4 steps" in capsys.readouterr().out
    assert "max_num_seqs=2" in made["provenance"]["arguments"]["vllm"] and made["provenance"]["passes"] == steps.PASSES


def test_what_came_back_wrong_is_not_recorded(mocked, monkeypatch, found, capsys):
    """The reason in one line, and no file."""
    found["runs"]["batch"]["steps"][-1]["ended"] = []
    answered(monkeypatch, found)

    assert steps.main() == 1
    assert capsys.readouterr().err == f"this run, run 'batch': request C never ended: {steps.AGAIN}\n"
    assert list(records.FOLDER.glob("*/*")) == []


def test_without_vllm_nothing_is_started(mocked, monkeypatch, capsys):
    """One line with the next step."""

    def missing(engine):
        raise kernels.MissingKernel("the kernel 'vllm' is not installed: run `nox -s tour -- vllm`")

    monkeypatch.setattr(install, "versions", missing)
    monkeypatch.setattr(stepping, "watched", lambda job: pytest.fail("an engine was started"))

    assert steps.main() == 1
    assert capsys.readouterr().err == "the kernel 'vllm' is not installed: run `nox -s tour -- vllm`\n"


@pytest.mark.engine
def test_a_real_engine_tells_its_steps():
    """vLLM on a small plan: prefill in pieces, one request that waits for a slot, a beginning that is found."""
    plan = {"A": steps.Request(0, 70, 3), "B": steps.Request(0, 10, 4), "C": steps.Request(2, 80, 2, "A", 64)}
    ids = steps.prompts("test", plan, models.vocabulary())
    requests = {
        key: {"joins_step": one.joins_step, "output_tokens": one.output_tokens, "prompt": ids[key]} for key, one in plan.items()
    }
    limits = {"max_num_seqs": 2, "max_num_batched_tokens": 64, "max_model_len": 128}
    options = steps.options(limits, 12)
    came = stepping.watched(
        {"folder": str(models.weights("safetensors")), "options": options, "passes": 2, "runs": {"batch": requests}}
    )
    run = {"requests": steps._asked(plan), "steps": steps.merged("batch", came["runs"]["batch"])}

    assert list(steps.faults(run, came["pool"], limits)) == []
    assert run["steps"][0]["scheduled"] == {"A": 64} and "B" in run["steps"][0]["waiting"]
    assert next(step["computed"]["C"] for step in run["steps"] if "C" in step["computed"]) == 64


def test_the_schema_belongs_to_the_package():
    """It is read when a record is checked."""
    assert paths.data(steps.SCHEMA).startswith("{")
