"""The choices: tables of what was measured, and everything that is refused before an engine starts."""

import sys

import pytest

from helpers import records
from helpers.servers import engines, llama_cpp, serving
from helpers.studies import choices


def command(monkeypatch, *words: str) -> int:
    """The command, on a machine where nothing may be started."""
    monkeypatch.setattr(sys, "argv", ["choices", *words])
    monkeypatch.setattr(serving, "side_by_side", lambda *given, **more: pytest.fail("an engine was started"))
    return choices.main()


def test_an_unknown_part_is_refused_before_anything_starts(monkeypatch):
    """The names there are."""
    with pytest.raises(SystemExit, match="^there is no part speed: choose from same_file, llama_cpp, vllm$"):
        command(monkeypatch, "speed")


def test_where_an_engine_is_missing_nothing_is_compared(monkeypatch, capsys):
    """Its reason, in one line."""
    monkeypatch.setattr(engines, "at_hand", lambda: ([engines.get("llama-cpp-q4_0")], {"vllm": "not chosen"}))

    assert command(monkeypatch, "vllm") == command(monkeypatch) == 1
    assert capsys.readouterr().err == 2 * "vllm cannot be compared: not chosen\n"


def test_where_only_the_wheel_serves_nothing_is_compared(monkeypatch, capsys):
    """It has neither llama-bench nor flash attention to switch."""
    monkeypatch.setattr(engines, "at_hand", lambda: ([engines.get("llama-cpp-q4_0"), engines.get("vllm")], {}))
    monkeypatch.setattr(llama_cpp, "binaries", lambda: None)

    assert command(monkeypatch) == 1
    assert capsys.readouterr().err.startswith("llama.cpp's own programs are not here, only the wheel's server: run `nox ")


RUNS = {
    "library": [{"prefill_tokens_per_s": 800.0, "decode_tokens_per_s": 160.0, "ttft_s": 0.16}] * 6,
    "server": [
        {"prefill_tokens_per_s": 760.0, "decode_tokens_per_s": 152.0, "client_decode_tokens_per_s": 150.0, "ttft_s": 0.17}
    ] * 6,
    "llama-bench": [{"prefill_tokens_per_s": 800.0, "decode_tokens_per_s": 160.0}] * 6,
}  # fmt: skip


def test_three_programs_stand_beside_the_library():
    """What a program does not tell is no figure."""
    shown = choices.same_file({"runs": RUNS})

    assert list(shown.loc["llama-server"]) == [
        "760 (760 to 760)", "0.95 (0.95 to 0.95)", "152 (152 to 152)", "0.95 (0.95 to 0.95)", "150 (150 to 150)",
        "170 (170 to 170)",
    ]  # fmt: skip
    assert list(shown["TTFT, ms"]) == ["160 (160 to 160)", "170 (170 to 170)", "-"]
    assert choices.ratio({"runs": RUNS}, "server", "prefill_tokens_per_s").ratio == pytest.approx(0.95)


def test_a_choice_stands_with_its_start_and_its_users():
    """A row each."""
    figure = {"median": 0.1, "low": 0.1, "high": 0.2}
    level = {"users": 10, "output_tokens_per_s": None, "ttft_s": figure, "tpot_s": figure}
    shown = choices.table({"levels": {"eager": [level]}, "startup_s": {"eager": 16.4}})

    assert shown.to_dict("index") == {
        "eager": {
            "start, s": "16", "10 users: tokens/s": "none", "10 users: TTFT, ms": "100 (100 to 200)",
            "10 users: TPOT, ms": "100.0 (100.0 to 200.0)",
        }
    }  # fmt: skip


@pytest.mark.engine
def test_one_file_in_three_programs(monkeypatch):
    """Every program tells its rates, turn by turn, and the build says what it leaves unused."""
    monkeypatch.setattr(choices, "TURNS", 1)
    monkeypatch.setattr(choices, "REQUESTS", 1)
    found = choices.measure_same_file()

    assert found["weights"] == "Q4_0" and "instruction sets" in found["build"]
    assert {way: len(runs) for way, runs in found["runs"].items()} == dict.fromkeys(choices.WAYS, 1)
    assert all(run["prefill_tokens_per_s"] > 0 and run["decode_tokens_per_s"] > 0 for (run,) in found["runs"].values())


def test_a_part_that_was_measured_is_not_measured_again(monkeypatch, tmp_path):
    """The record is saved when all are there."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setattr(engines, "at_hand", lambda: ([engines.get("llama-cpp-q4_0"), engines.get("vllm")], {}))
    monkeypatch.setattr(llama_cpp, "binaries", lambda: "bin")
    monkeypatch.setattr(choices.install, "versions", lambda engine: {"package": "1"})
    monkeypatch.setattr(choices, "PARTS", {"one": lambda: {"number": 1}, "two": lambda: {"number": 2}})
    choices.record(["one"])
    monkeypatch.setattr(choices, "PARTS", {"one": lambda: pytest.fail("measured again"), "two": lambda: {"number": 2}})
    choices.record(["one", "two"])

    assert records.load(choices.NAME)["one"] == {"number": 1} and records.kept(choices.NAME) is None
