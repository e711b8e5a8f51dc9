"""The race as a study: who enters, what is kept when it is stopped, the replay, and the picture of the newest record."""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from helpers import machine, records
from helpers.lessons.race import live, picture
from helpers.lessons.race.lanes import Lane
from helpers.servers import engines, serving
from helpers.studies import race

VLLM = Lane("vllm", (" The", " sky"), (0.5, 1.0), 0.5, 2.0, 2, 9)
LLAMA = Lane("llama-cpp-q4_0", (" A", " day"), (0.1, 0.5), 0.1, 4.0, 2, 9)
FAILED = Lane("sglang", error="no port")
PROVENANCE = {
    "date": "2026-11-30T08:00:00", "machine": {**machine.facts(), "gpus": []}, "model": "tiny",
    "versions": {"vllm": {"vllm": "0.32.0"}}, "arguments": {}, "prompts": dict(live.PROMPTS),
    "output_tokens": {"alone": 2, "together": 1},
}  # fmt: skip
RECORD = {
    "ways": {"alone": [one.to_dict() for one in (VLLM, FAILED, LLAMA)], "together": [VLLM.to_dict()]}, "provenance": PROVENANCE
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Records of this test only."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)


@pytest.fixture
def started(folder, monkeypatch):
    """A mock of a machine with one server, and of the lanes that come of it."""

    @contextmanager
    def start():
        server = SimpleNamespace(engine=engines.get("vllm"), arguments=("--port",), startup_s=1.0)
        yield race.Racers({"vllm": server}, {"sglang": "it ended; its log: /x/y.log"})

    monkeypatch.setattr(race, "start", start)
    monkeypatch.setattr(race, "_provenance", lambda racers: PROVENANCE)
    ran = []
    monkeypatch.setattr(live, "run", lambda servers, way, look=None: ran.append(way) or [VLLM])
    return ran


def command(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["race", *words])
    return race.main()


def test_one_row_of_each_framework_enters(monkeypatch):
    """The first that can serve the model; a framework that has none is named once, with its reason."""
    here = [engines.get(name) for name in ("transformers", "llama-cpp", "llama-cpp-bf16")]
    reasons = {"vllm": "not chosen", "sglang": "the kernel is not installed", "llama-cpp-q4_0": "only made of the default model"}
    monkeypatch.setattr(engines, "at_hand", lambda: (here, reasons))
    several, left_out = race.entered()

    assert [engine.name for engine in several] == ["transformers", "llama-cpp"]
    assert left_out == {"vllm": "not chosen", "sglang": "the kernel is not installed"}


def test_without_a_framework_nothing_is_recorded(monkeypatch, capsys):
    """One line, and nothing was started."""
    monkeypatch.setattr(engines, "at_hand", lambda: ([], {"vllm": "not chosen"}))
    monkeypatch.setattr(serving, "side_by_side", lambda *given, **more: pytest.fail("an engine was started"))

    assert command(monkeypatch) == 1
    assert capsys.readouterr().err == "no framework is installed here, so nobody can race: run `nox -s tour`\n"


def test_both_ways_are_recorded_with_who_was_left_out(started, monkeypatch, capsys):
    """No file of this machine stands in the reason."""
    assert command(monkeypatch) == 0
    found = records.load(race.NAME)

    assert started == ["alone", "together"] and list(found["ways"]) == ["alone", "together"]
    assert [lane["name"] for lane in found["ways"]["alone"]] == ["vllm", "sglang"]
    assert found["ways"]["alone"][1]["error"] == "it ended" and records.kept(race.NAME) is None
    assert "Alone, vLLM had its last token first, after 1.00 s." in capsys.readouterr().out


def test_a_race_that_was_stopped_keeps_the_way_that_was_run(started, monkeypatch, capsys):
    """And goes on with the other one."""

    def stopped(servers, way, look=None):
        if way == "together":
            raise KeyboardInterrupt
        return [VLLM]

    again = live.run
    monkeypatch.setattr(live, "run", stopped)
    assert command(monkeypatch) == 130
    assert capsys.readouterr().err == "stopped; the ways that were run are kept\n"
    assert list(records.kept(race.NAME)["ways"]) == ["alone"]
    monkeypatch.setattr(live, "run", again)
    assert command(monkeypatch) == 0

    assert started == ["together"] and list(records.load(race.NAME)["ways"]) == ["alone", "together"]


def test_without_a_framework_the_record_is_replayed(folder, monkeypatch):
    """With what it was recorded on, and an engine that failed then."""
    records.write_json(records.FOLDER / "some-machine" / "race.2026-11-30.json", {"version": 2, **RECORD})
    shown = []
    monkeypatch.setattr(race.Screen, "draw", lambda self, lanes, moving=False: shown.append((self.options, moving)))
    lanes = race.watch(race.Racers({}, {}), "alone")

    assert lanes == [VLLM, FAILED, LLAMA]
    ((options, moving),) = shown
    assert moving and options["prompt"] == live.PROMPTS["alone"] and not options["gpu"]
    assert options["notes"][0].startswith("recorded on ") and options["notes"][1] == race.ONE_EACH


def test_a_race_is_shown_as_it_goes_and_replayed_at_its_end(started, monkeypatch):
    """With those who are left out in their places."""
    shown = []
    monkeypatch.setattr(live, "run", lambda servers, way, look: look([Lane("vllm", state="waits")]) or [VLLM])
    monkeypatch.setattr(race.Screen, "draw", lambda self, lanes, moving=False: shown.append((lanes, moving)))
    with race.start() as racers:
        lanes = race.watch(racers, "together")

    assert lanes == [VLLM, Lane("sglang", error="it ended")]
    assert shown == [([Lane("vllm", state="waits"), lanes[1]], False), (lanes, True)]


def test_who_was_first_is_said_and_what_the_others_cost():
    """By the stamps of as many pieces as both answers have; nobody who failed is counted."""
    together = [Lane("vllm", ("a",), (1.0,), 1.0, 1.0, 1), Lane("llama-cpp-q4_0", ("a",), (0.8,), 0.8, 1.25, 1)]
    said = "Alone, llama.cpp (Q4_0) had its last token first, after 0.50 s."

    assert race.finding([VLLM, FAILED, LLAMA], together, gpu=True) == (
        f"{said} All at once, each took 2 to 8 times as long for the same amount of text."
    )
    late = Lane("llama-cpp-q4_0", ("a",), (17.2,), 17.2, 0.06, 1)
    assert "took 2 to 170 times" in race.finding([VLLM, LLAMA], [together[0], late], gpu=True)
    assert race.finding([VLLM, LLAMA], [FAILED], gpu=True) == said
    assert race.finding([FAILED], together, gpu=True) == "No engine gave a whole answer."


def test_the_table_has_both_ways():
    """What is not defined is no figure."""
    shown = race.table([VLLM, FAILED], [VLLM], gpu=True)

    assert list(shown.loc["vLLM"]) == ["bf16", "500", "2", "500", "2"]
    assert list(shown.loc["SGLang"]) == ["bf16", "-", "-", "-", "-"]
    assert list(shown) == ["weights", "TTFT, ms: alone", "tokens/s: alone", "TTFT, ms: all at once", "tokens/s: all at once"]


def test_the_picture_is_drawn_of_a_record(monkeypatch, tmp_path):
    """One file, that says where it comes from."""
    monkeypatch.setattr(race, "FIGURE", tmp_path / "race.svg")
    race.draw(RECORD)
    text = race.FIGURE.read_text()

    assert text.startswith("<svg ") and "recorded on " in text and "no port" in text and len(text) < 100_000


def test_the_committed_picture_is_of_the_newest_record():
    """`python -m helpers.studies.race --draw` writes it."""
    found = records.load(race.NAME)

    assert race.FIGURE.read_text() == picture.svg(race.kept_lanes.of_record(found, "alone"), **race._about(found, "alone"))


@pytest.mark.engine
def test_a_real_engine_runs_both_ways(monkeypatch):
    """llama.cpp alone: its pieces are its text, each with a stamp, and as many tokens as asked."""
    monkeypatch.setenv("FRAMEWORKS", "llama-cpp")
    with race.start() as racers:
        found = {way: live.run(racers.servers, way) for way in race.WAYS}

    for way, (lane,) in found.items():
        assert (lane.error, lane.output_tokens) == (None, live.OUTPUT_TOKENS[way])
        assert lane.text.strip() and lane.at_s[0] == lane.ttft_s and list(lane.at_s) == sorted(lane.at_s)
        assert not lane.cached_tokens
    assert set(racers.left_out) == {"transformers", "vllm", "sglang"}
