"""What a server does beside decoding: the same requests in several ways, each with every token it was asked for."""

from __future__ import annotations

import pytest

from helpers import records
from helpers.bench import client
from helpers.bench.connection import Reply
from helpers.gpu import cases, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.recorded import read, tables
from helpers.gpu.session import Log
from helpers.gpu.work import streaming


def _did(ways: list[str], users: int) -> tuple[bool, dict]:
    """Whether the life was whole, and what it kept."""
    life, kept = Life("llama-cpp", "streaming", "q4_0", 1, {"ways": ways}), {}
    return tasks.WORKS["streaming"](life, session.Setting("tiny", "cpu", (users,), 1), Log(life, kept.update), 120), kept


@pytest.mark.engine
def test_each_way_gets_every_token():
    """llama.cpp's real server, two users at once, in all of them."""
    whole, kept = _did(list(cases.WAYS), 2)
    rows = [row for row in kept["rows"] if row["kind"] == "way"]
    assert whole and [row["way"] for row in rows] == list(cases.WAYS)
    assert {row["output_tokens"] for row in rows} == {2 * 128} and all(row["seconds"] > 0 for row in rows)


@pytest.mark.engine
def test_what_the_server_refuses_is_one_line(monkeypatch):
    """Its own words, as an error that the run keeps as the life's reason."""
    monkeypatch.setitem(cases.WAYS, "nonsense", {"stream": False, "max_tokens": "many"})
    with pytest.raises(client.EndpointError, match=r"^a request for 128 tokens: HTTP \d+: .*type") as caught:
        _did(["nonsense"], 1)
    assert "\n" not in str(caught.value)


@pytest.mark.engine
def test_when_the_time_is_over_the_life_is_stopped_and_not_failed(monkeypatch):
    """So that the next run goes on with it."""

    async def mock_over(*_):
        raise TimeoutError

    monkeypatch.setattr(streaming, "_at_once", mock_over)
    whole, kept = _did(["streamed"], 1)
    assert not whole and kept["failed"] == ["stopped: the time was over"]


JSON = {"content-type": "application/json; charset=utf-8"}


def test_an_answer_in_one_piece_says_its_tokens_itself():
    """As JSON, in as many parts as it came."""
    parts = [(0, b'{"usage": {"compl'), (1, b'etion_tokens": 128}}')]
    assert streaming._tokens(Reply(0, 200, JSON, parts=parts, whole=True)) == 128


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Reply(0, 200, {"content-type": "text/html"}, whole=True), "not a stream"),
        (Reply(0, 200, JSON, parts=[(0, b'{"usage"')]), "not a stream"),
        (Reply(0, 200, JSON, parts=[(0, b"{}")], whole=True), "the answer counts None"),
        (Reply(0, 200, JSON, parts=[(0, b'{"usage": {"completion_tokens": 7}}')], whole=True), "the answer counts 7"),
    ],
)
def test_what_is_no_answer_of_all_tokens_is_an_error(answer, message):
    """Neither JSON nor a stream, cut off, without a count, or too short."""
    with pytest.raises(client.EndpointError, match=f"^a request for 128 tokens: .*{message}"):
        streaming._tokens(answer)


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
    """Two machines: the first has every run, the second, newer one options only."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    ways = [
        {"kind": "way", "way": way, "users": 10, "repeat": 0, "seconds": 2.0 if way == "streamed" else 1.0, "output_tokens": 1000}
        for way in cases.WAYS
    ]  # fmt: skip
    short = ("vllm", "offline", "short context")
    first = _record("One", [_life("llama-cpp", "streaming", "q4_0", ways), _life(*short, [_speed(1, 1), _speed(100, 2)])])
    copied = {"kind": "copying", "users": 16, "output_tokens_per_s": {"median": 7, "low": 6, "high": 8}}
    second = _record("Two", [_life(*short, [_speed(1, 0.5)]), _life("vllm", "real", "n-gram drafts", [copied])])
    speed = _record("One", [_life("llama-cpp", "offline", "q4_0", [_speed(10, 0.5)])])
    runs = (
        ("one", "options", 25, first),
        ("one", "speed", 25, speed),
        ("one", "memory", 25, speed),
        ("two", "options", 26, second),
    )
    for name, run, day, found in runs:
        records.write_json(tmp_path / f"{name}-16-cores" / f"gpu-{run}.2026-11-{day}.json", found)
    return tmp_path


def test_the_ways_stand_beside_the_engines_own_bench(folder):
    """Tokens per second, seconds for all answers, and times the streamed rate."""
    shown = tables.ways()
    assert shown.loc["llama.cpp, streamed"].tolist() == ["500 (500 to 500)", "2.0", "1.00"]
    assert shown.loc["llama.cpp, in one piece"].tolist() == ["1000 (1000 to 1000)", "1.0", "2.00"]
    assert shown.loc["llama.cpp, its own bench"].tolist() == ["2000", "0.5", "4.00"]


def test_a_life_that_did_not_get_far_is_shown_as_far_as_it_got(folder):
    """Without a row no line, without the streamed answers no ratio."""
    found = read.load("options", "one-16-cores")
    life = found["lives"]["llama-cpp, streaming, q4_0"]
    loaded, one_way = ({**life, "rows": rows} for rows in ([{"kind": "loaded", "seconds": 1}], life["rows"][1:2]))
    assert tables.ways({**found, "lives": {"a": loaded}}).empty
    shown = tables.ways({**found, "lives": {"a": one_way}})
    assert shown.loc["llama.cpp, streamed"].tolist() == ["-", "-", "-"]
    assert shown.loc["llama.cpp, in one piece"].tolist() == ["1000 (1000 to 1000)", "1.0", "-"]


def test_all_tables_are_of_one_machine(folder):
    """A newer record of another machine, which lacks the other runs, does not get between them."""
    assert read.machines("options") == ["two-16-cores", "one-16-cores"]
    assert read.load("options")["provenance"]["machine"]["gpus"] == ["One"]
    assert read.beside(read.load("options", "two-16-cores"), "speed")["lives"] == {}


def test_the_same_life_on_several_machines(folder):
    """The machine of the other tables first; what one has not measured is a dash."""
    shown = tables.rates_across()
    assert list(shown.columns) == ["One, 16 cores", "Two, 16 cores", "x"]
    assert shown.loc["vLLM, 1 user"].tolist() == ["100", "200", "2.00"]
    assert shown.loc["vLLM, 100 users"].tolist() == ["5000", "-", "-"]
    assert tables.copying_across().loc["vLLM, 16 users, n-gram drafts"].tolist() == ["7 (6 to 8)"]


def test_without_a_record_of_any_machine_the_next_step_is_said(folder):
    """One line."""
    for file in folder.glob("*/*.json"):
        file.unlink()
    with pytest.raises(records.RecordError, match="^no record of a GPU run 'options' is here: make one with"):
        tables.rates_across()
