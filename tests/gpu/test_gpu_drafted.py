"""Drafts in the GPU records: which two lives are compared, and what is said of them."""

import pytest

from helpers import records
from helpers.gpu.recorded import drafted
from helpers.lessons.speculation import pictures


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


def block(way: str, repeat: int, rate: float, users: int = 16, counts: dict | None = None) -> dict:
    return {"kind": "block", "way": way, "users": users, "repeat": repeat, "output_tokens_per_s": rate, "counts": counts}


def turned(engine: str, ratio: float, counts: dict | None, users: int = 16) -> dict:
    """A life of six blocks of each way, slower and slower; with drafts ``ratio`` times the rate."""
    plain = [block("no drafts", turn, 1000 - 100 * turn, users) for turn in range(6)]
    drafts = [block("n-gram drafts", turn, ratio * (1000 - 100 * turn), users, counts) for turn in range(6)]
    rows = [*plain, *drafts, {"kind": "same answers", "users": users, "same": 30, "of": 32}]
    return {
        "engine": engine, "work": "in turns", "option": "n-gram drafts", "rows": rows, "failed": [], "complete": True,
        "date": "2026-12-01T01:00:00+00:00", "versions": {engine: "1.0"}, "model": "SmolLM2-135M-Instruct",
    }  # fmt: skip


VLLM = {"tokens": 100, "drafted": 80, "accepted": 60, "acceptance": 0.75, "tokens_per_step": 2.5}
SGLANG = {"tokens": 100, "draft_steps": 36, "tokens_per_step": 2.5}
MACHINE = {"cpu": "Some CPU", "cores": 32, "gpus": ["NVIDIA H200"], "gpu_driver": "580.1"}


@pytest.fixture
def turns(found, tmp_path) -> list[dict]:
    """Beside the older record one with blocks in turns, of another GPU."""
    lives = [turned("vllm", 1.5, VLLM), turned("sglang", 0.8, SGLANG), turned("llama-cpp", 1.0, None)]
    source = {"machine": MACHINE, "date": "2026-12-01", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
    record = {"version": records.SCHEMA_VERSION, "provenance": source, "lives": {str(i): one for i, one in enumerate(lives)}}
    records.write_json(tmp_path / "nvidia-h200-32-cores" / "gpu-questions.2026-12-01.json", record)
    return drafted.everywhere_in_turns()


def test_blocks_in_turns_are_compared_pair_by_pair(turns):
    """A drift that halves the rates leaves the ratio as it is."""
    of = {row["framework"]: row for row in turns}

    assert of["vLLM"]["times"] == pytest.approx({"median": 1.5, "low": 1.5, "high": 1.5, "repeats": 6} | {"interval": "95%"})
    assert of["vLLM"]["plain"]["low"] == 500 and of["vLLM"]["plain"]["high"] == 1000
    assert {name: row["give"] for name, row in of.items()} == {"vLLM": "more", "SGLang": "less", "llama.cpp": "no more"}
    assert of["vLLM"]["name"] == "vLLM, H200, 2026-12-01"
    assert "; SmolLM2-135M-Instruct, " in of["vLLM"]["recorded"]


def test_what_an_engine_does_not_count_is_a_dash(turns):
    """SGLang counts steps, no drafted tokens; without any count there is neither."""
    shown = drafted.turns_table(turns)

    columns = ["x", "drafts give", "accepted", "tokens a step", "same answers"]
    assert list(shown.loc["vLLM, H200, 2026-12-01, 16 users", columns]) == [
        "1.50 (1.50 to 1.50)",
        "more",
        "75%",
        "2.50",
        "30 of 32",
    ]
    assert list(shown.loc["SGLang, H200, 2026-12-01, 16 users", columns[2:4]]) == ["-", "2.50"]
    assert list(shown.loc["llama.cpp, H200, 2026-12-01, 16 users", columns[1:4]]) == ["no clear change", "-", "-"]


def test_the_picture_takes_them_as_it_takes_the_others(turns):
    """A panel for each number of users, with both ways of each row."""
    panels = drafted.panels(turns)

    assert list(panels) == ["16 users"] and len(panels["16 users"]) == 3
    (axes,) = pictures.recorded(panels).axes
    assert axes.get_title(loc="left") == "16 users"


def test_a_weak_row_is_repeated_or_not(turns):
    """Two lives of vLLM, three hours apart, say more with one user; the other engines' blocks do not count."""
    rows = drafted.everywhere()
    (one,) = drafted.again(rows, turns)
    assert (one["users"], one["gave"], one["turns"], one["word"]) == (1, "more", [], "not measured in turns")

    more, less = ([{**turns[0], "users": 1, "give": give}] for give in ("more", "no more"))
    assert drafted.again(rows, more)[0]["word"] == "repeated"
    assert drafted.again(rows, less)[0]["word"] == "not repeated"
    assert drafted.again(rows, [*more, {**less[0], "name": "vLLM, H100"}])[0]["word"] == "not repeated"
    assert drafted.again([{**row, "apart_s": 60} for row in rows], more) == []


def test_a_weak_row_is_told_with_the_ratio_in_turns(turns):
    """What two lives said, what the pairs of blocks say, and the word."""
    rows, one_user = drafted.everywhere(), [{**turns[0], "users": 1}]
    (line,) = drafted.again_told(rows, one_user)
    assert line.startswith("vLLM, H100, 2026-11-26, 1 user: more in two starts; ")
    assert line.endswith("; vLLM, H200, 2026-12-01, in turns: x 1.50 (1.50 to 1.50), more; repeated")
    assert drafted.again_told(rows, []) == ["vLLM, H100, 2026-11-26, 1 user: more in two starts; not measured in turns"]


def test_the_title_is_what_the_rows_say(turns):
    """Engines by what drafts give them, with their numbers of users; what says nothing is not in it."""
    rows = [*turns, {**turns[0], "users": 1}, {**turns[1], "users": 64, "give": None}, {**turns[2], "give": "less"}]
    assert drafted.finding(rows) == (
        "With drafts, in turns: more for vLLM (1 and 16 users); less for SGLang and llama.cpp (16 users); "
        "no clear change for llama.cpp (16 users)"
    )
    assert drafted.finding([]) == "With drafts, in turns: no two pairs of blocks are recorded"


def test_the_other_picture_has_the_ratios(turns):
    """By engine and number of users; a row without one has no point."""
    found = drafted.gains([*turns, {**turns[0], "users": 64, "times": None}])
    assert {name: list(of) for name, of in found.items()} == {"vllm": [16], "sglang": [16], "llama-cpp": [16]}
    assert found["vllm"][16]["median"] == 1.5
