"""Drafts in the GPU records: which two lives are compared, and what is said of them."""

import pytest

from helpers import records
from helpers.gpu import drafted


def copying(users: int, rate: float) -> dict:
    return {"kind": "copying", "users": users, "output_tokens_per_s": {"median": rate, "low": 0.9 * rate, "high": 1.1 * rate}}


def life(engine: str, option: str, hour: int, *rows: dict) -> dict:
    return {"engine": engine, "work": "real", "option": option, "rows": list(rows), "date": f"2026-11-26T{hour:02}:00:00+00:00"}


@pytest.fixture
def found(tmp_path, monkeypatch) -> dict:
    """A record in a folder of this test's own: vLLM has both ways with one user, the others only one way."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    lives = [
        life("vllm", "plain", 11, copying(1, 400), copying(16, 1000)),
        life("vllm", "n-gram drafts", 8, copying(1, 800), copying(16, 1010), copying(32, 2000)),
        life("llama-cpp", "n-gram drafts", 8, copying(1, 700)),
        life("sglang", "plain", 8, copying(1, 600)),
    ]
    machine = {"cpu": "Some CPU", "cores": 16, "gpus": ["NVIDIA H100 80GB HBM3"], "gpu_driver": "580.1"}
    source = {"machine": machine, "date": "2026-11-26", "weights": "SmolLM2-135M"}
    record = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": {str(i): one for i, one in enumerate(lives)}}
    records.write_json(tmp_path / "nvidia-h100-16-cores" / "gpu-options.2026-11-26.json", record)
    return record


def test_only_lives_of_one_engine_are_compared_and_their_distance_is_kept(found):
    """vLLM's two, three hours apart, at the users that both have."""
    rows = list(drafted.pairs(found))

    assert [(row["framework"], row["users"], row["apart_s"]) for row in rows] == [("vLLM", 1, 10800), ("vLLM", 16, 10800)]
    assert [(row["plain"]["median"], row["drafts"]["median"]) for row in rows] == [(400, 800), (1000, 1010)]


def test_every_record_says_what_drafts_give(found):
    """With one user the ranges do not touch, with 16 they do; a name has the GPU and the day."""
    rows = drafted.everywhere()

    assert [row["name"] for row in rows] == ["vLLM, H100, 2026-11-26"] * 2
    assert [row["give"] for row in rows] == ["more", "no more"]
    assert rows[0]["recorded"].startswith("recorded on NVIDIA H100 80GB HBM3, driver 580.1, 2026-11-26; ")
    assert (drafted.given(rows, "vLLM", 1), drafted.given(rows, "SGLang", 1)) == ({"more": [10800]}, {})


def test_the_table_and_the_picture_have_the_same_rows(found):
    """A row for each number of users; a panel for each, the fewest first."""
    rows = drafted.everywhere()
    shown = drafted.table(rows)

    assert list(shown.loc["vLLM, H100, 2026-11-26, 1 user"]) == ["400 (360 to 440)", "800 (720 to 880)", "more", 180]
    assert shown.loc["vLLM, H100, 2026-11-26, 16 users", "drafts give"] == "no clear change"
    assert list(drafted.panels(reversed(rows))) == ["1 user", "16 users"]
    assert drafted.panels(rows)["1 user"]["vLLM, H100, 2026-11-26"]["n-gram drafts"]["median"] == 800
