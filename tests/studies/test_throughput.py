"""A long measurement that was stopped goes on where it was."""

import sys

import pytest

from helpers import machine, records
from helpers.bench import measure
from helpers.servers import serving
from helpers.studies import static_batch, throughput
from helpers.weights import bounds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Records of this test only."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)


def provenance(users: int, **other) -> dict:
    return {
        "machine": machine.facts(), "model": "tiny", "instrument": {str(users): {"ttft_error_s": users / 1e6}},
        "workload_sha256": {str(users): f"hash of {users}"}, **other,
    }  # fmt: skip


def test_a_resumed_record_keeps_what_belongs_to_its_earlier_levels(folder):
    """The instrument's error and the workload's hash of each number of users, whichever run measured it."""
    records.keep(throughput.NAME, {"provenance": provenance(1), "engines": {"vllm": [{"users": 1}]}})
    source = provenance(10)
    found = throughput._draft(source)

    assert found["engines"] == {"vllm": [{"users": 1}]}
    assert found["provenance"] is source
    assert set(source["instrument"]) == set(source["workload_sha256"]) == {"1", "10"}


def test_a_draft_of_another_model_is_not_used(folder, capsys):
    """It is said why, and the record begins anew."""
    records.keep(throughput.NAME, {"provenance": provenance(1, model="other"), "engines": {"vllm": [{"users": 1}]}})
    source = provenance(10)
    found = throughput._draft(source)

    assert found["engines"] == {} and set(source["instrument"]) == {"10"}
    assert capsys.readouterr().out.startswith("the draft of an earlier run is not used: different model: ")


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("1,ten", "invalid literal for int() with base 10: 'ten'"),
        ("1,0", "users=(0,): give numbers of at least 1, like 1,10,100"),
    ],
)
def test_numbers_that_cannot_be_start_no_engine(users, said, monkeypatch, capsys):
    """They are read before anything starts."""
    monkeypatch.setattr(sys, "argv", ["throughput", "--users", users])
    monkeypatch.setattr(serving, "side_by_side", lambda *given, **more: pytest.fail("an engine was started"))

    assert throughput.main() == 1
    assert capsys.readouterr().err.startswith(said)


def rate(median: float) -> dict:
    return {"median": median, "low": median, "high": median}


def levels(*medians: float | None) -> list[dict]:
    """Of 1, 10 and 100 users."""
    return [{"users": n, "output_tokens_per_s": of and rate(of)} for n, of in zip((1, 10, 100), medians)]


RECORD = {
    "engines": {
        "transformers-batch": levels(20, 100, 200), "vllm": levels(40, 230, 430), "llama-cpp-q4_0": levels(150, 200, 300),
        "llama-cpp": levels(80, 110, 140), "llama-cpp-bf16": levels(80, 250, 200),
    },
    "provenance": {
        "modes": {"vllm": "compiled", "llama-cpp-q4_0": "leaves AVX512 unused", "llama-cpp": "leaves AVX512 unused", "sglang": ""}
    },
}  # fmt: skip


def test_llama_cpp_is_compared_by_its_fastest_type():
    """Over all numbers of users; a row with a gap does not count, and other frameworks have one row."""
    rates = throughput.rates(RECORD["engines"])

    assert throughput.best(rates, "llama-cpp") == "llama-cpp-q4_0"
    assert throughput.best(rates | throughput.rates({"llama-cpp-q4_0": levels(150, None, 300)}), "llama-cpp") == "llama-cpp-bf16"
    assert throughput.best(rates, "vllm") == "vllm" and throughput.best({}, "llama-cpp") == "llama-cpp"
    assert list(throughput.compared(RECORD)) == ["transformers-batch", "vllm", "llama-cpp-q4_0"]


def test_a_record_says_how_its_engines_ran():
    """The mode, what a build leaves unused, once; which type is compared, and where it is not ahead; what a static batch is."""
    assert throughput.notes(RECORD) == [
        "vLLM: compiled",
        "llama.cpp: leaves AVX512 unused",
        "llama.cpp is compared by Q4_0, its fastest type in the geometric mean over the users; "
        "with 10 users the median of bf16 is higher",
        f"HF Transformers (static batch): {static_batch.SAID}",
    ]
    assert throughput.notes({"engines": {}}) == []
    gaps = {"llama-cpp-q4_0": levels(150, None, 300), "llama-cpp": levels(80, 110, None)}
    assert throughput.notes({"engines": gaps}) == []  # no type is known to be the fastest


@pytest.mark.engine
def test_the_roof_of_a_record_needs_no_weights_but_the_default_ones():
    """The bytes are the record's; a static batch reads what its server does."""
    provenance = {"weights": {"transformers": {"read_per_step_bytes": 269}, "llama-cpp-q4_0": {"read_per_step_bytes": 90}}}
    found = throughput.works({"engines": {"llama-cpp-q4_0": [], "transformers-batch": []}, "provenance": provenance})

    assert {name: work.weights_bytes for name, work in found.items()} == {"llama-cpp-q4_0": 90, "transformers-batch": 269}
    assert found["llama-cpp-q4_0"].parameters == bounds.work("gguf-bf16").parameters


def test_a_busy_machine_is_said_with_its_roof():
    """A share of such a roof is to be doubted."""
    roof = {
        "device": "cpu", "bandwidth_bytes_per_s": 1.0, "flops_per_s": 1.0, "bandwidth_kernels": {}, "flops_kernels": {},
        "threads": 2, "load_average": 3.0, "array_bytes": 1, "busy": 0.5, "stolen": 0.0,
    }  # fmt: skip

    assert throughput.notes({"engines": {}, "roof": roof})[0].startswith("the roof was measured on a busy machine (50% of ")


PLAN = measure.Plan((2,), 8, 4, requests=4)


def test_the_stamps_of_a_static_batch_are_samples_like_a_servers():
    """Every answer of a batch has its steps; the next batch is asked when the first has ended."""
    batches = [
        {"sent_ns": start, "steps_ns": [start + 10, start + 20, start + 30, start + 40], "answers": 2} for start in (0, 50)
    ]
    first, *_, last = found = static_batch.samples(batches, PLAN)

    assert len(found) == 4 and (first.prompt_tokens, first.output_tokens) == (8, 4)
    assert (first.ttft_s, last.sent_ns, last.tpot_s) == (1e-8, 50, pytest.approx(1e-8))


@pytest.mark.engine
def test_a_static_batch_answers_as_many_tokens_as_asked():
    """In Transformers' own interpreter: two at once, each with exactly four tokens, and later batches after it."""
    level = static_batch.measure(PLAN)

    assert [len(block) for block in level.blocks] == [4] * PLAN.repeats
    assert {sample.output_tokens for sample in level.samples} == {4} and level.answers_at_once == 2
