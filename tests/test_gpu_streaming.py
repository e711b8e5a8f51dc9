"""What a server does beside decoding: the same requests in several ways, each with every token it was asked for."""

from __future__ import annotations

import pytest

from helpers import client, kernels, records
from helpers.gpu import across, replay, streaming, work
from helpers.gpu.life import Life, Log
from helpers.wire import Answer


def _rows(life: Life, users: int, left_s: float = 120) -> dict:
    kept: dict = {}
    assert work.WORKS["streaming"](life, work.Setting("tiny", "cpu", (users,), 1), Log(life, kept.update), left_s) is (left_s > 0)
    return kept


@pytest.mark.skipif(not kernels.installed("llama-cpp"), reason="llama.cpp's kernel is not installed")
def test_each_way_gets_every_token():
    """llama.cpp's real server: streamed, in one piece, and with one sampler, by two users at once."""
    life = Life("llama-cpp", "streaming", "q4_0", 1, {"ways": list(streaming.WAYS)})
    rows = [row for row in _rows(life, 2)["rows"] if row["kind"] == "way"]
    assert [row["way"] for row in rows] == list(streaming.WAYS)
    assert {row["output_tokens"] for row in rows} == {2 * 128} and all(row["seconds"] > 0 for row in rows)


@pytest.mark.skipif(not kernels.installed("llama-cpp"), reason="llama.cpp's kernel is not installed")
def test_what_the_server_refuses_is_one_line(monkeypatch):
    """Its own words, as an error that the run keeps as the life's reason."""
    monkeypatch.setitem(streaming.WAYS, "nonsense", {"stream": False, "max_tokens": "many"})
    with pytest.raises(client.EndpointError, match=r"^a request for 128 tokens: HTTP \d+: .*type") as caught:
        _rows(Life("llama-cpp", "streaming", "q4_0", 1, {"ways": ["nonsense"]}), 1)
    assert "\n" not in str(caught.value)


def test_an_answer_in_one_piece_says_its_tokens_itself():
    """As JSON; what is neither JSON nor a stream is an error."""
    head = {"content-type": "application/json; charset=utf-8"}
    whole = Answer(0, 200, head, parts=[(0, b'{"usage": {"compl'), (1, b'etion_tokens": 7}}')], whole=True)
    assert streaming._tokens(whole) == 7
    with pytest.raises(client.EndpointError, match="not a stream"):
        streaming._tokens(Answer(0, 200, {"content-type": "text/html"}, whole=True))


def _record(gpu: str, lives: list[dict]) -> dict:
    machine = {"cpu": "Some CPU", "cores": 16, "gpus": [gpu], "gpu_driver": "580.1"}
    source = {"machine": machine, "date": "2026-11-25", "weights": "random, shape of Llama-2-7B", "shape": "Llama-2-7B"}
    found = {"version": records.SCHEMA_VERSION, "provenance": source}
    return found | {"lives": {f"{one['engine']}, {one['work']}, {one['option']}": one for one in lives}}


def _life(engine: str, did: str, option: str, rows: list[dict]) -> dict:
    return {"engine": engine, "work": did, "option": option, "rows": rows, "failed": [], "versions": {}, "date": "2026-11-25"}


def _speed(users: int, seconds: float) -> dict:
    return {"kind": "speed", "users": users, "repeat": 0, "seconds": seconds, "output_tokens": users * 100}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two machines: the first has speed and options, the second, newer one options only."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    ways = [
        {"kind": "way", "way": way, "users": 10, "repeat": 0, "seconds": 2.0 if way == "streamed" else 1.0, "output_tokens": 1000}
        for way in streaming.WAYS
    ]  # fmt: skip
    short = ("vllm", "offline", "short context")
    first = _record("One", [_life("llama-cpp", "streaming", "q4_0", ways), _life(*short, [_speed(1, 1), _speed(100, 2)])])
    copied = {"kind": "copying", "users": 16, "output_tokens_per_s": {"median": 7, "low": 6, "high": 8}}
    second = _record("Two", [_life(*short, [_speed(1, 0.5)]), _life("vllm", "real", "n-gram drafts", [copied])])
    speed = _record("One", [_life("llama-cpp", "offline", "q4_0", [_speed(10, 0.5)])])
    for name, run, day, found in (("one", "options", 25, first), ("one", "speed", 25, speed), ("two", "options", 26, second)):
        records.write_json(tmp_path / f"{name}-16-cores" / f"gpu-{run}.2026-11-{day}.json", found)
    return tmp_path


def test_the_ways_stand_beside_the_engines_own_bench(folder):
    """Tokens per second, seconds for all answers, and times the streamed rate."""
    shown = streaming.ways()
    assert shown.loc["llama.cpp, streamed"].tolist() == ["500 (500 to 500)", "2.0", "1.00"]
    assert shown.loc["llama.cpp, in one piece"].tolist() == ["1000 (1000 to 1000)", "1.0", "2.00"]
    assert shown.loc["llama.cpp, its own bench"].tolist() == ["2000", "0.5", "4.00"]


def test_all_tables_are_of_the_machine_whose_speed_was_measured_last(folder):
    """A newer record of another machine does not get between them."""
    assert replay.machines("options") == ["two-16-cores", "one-16-cores"]
    assert replay.load("options")["provenance"]["machine"]["gpus"] == ["One"]
    assert replay.beside(replay.load("options", "two-16-cores"), "speed")["lives"] == {}


def test_the_same_life_on_several_machines(folder):
    """The machine of the other tables first; what one has not measured is a dash."""
    shown = across.rates()
    assert list(shown.columns) == ["One", "Two", "x"]
    assert shown.loc["vLLM, 1 user"].tolist() == ["100", "200", "2.00"]
    assert shown.loc["vLLM, 100 users"].tolist() == ["5000", "-", "-"]
    assert across.copying().loc["vLLM, 16 users, n-gram drafts"].tolist() == ["7 (6 to 8)"]
