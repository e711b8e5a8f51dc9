"""A long measurement that was stopped goes on where it was."""

import pytest

from helpers import machine, records
from helpers.studies import throughput


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
