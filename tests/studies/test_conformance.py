"""The probes tell what works from what is refused or ignored; the table holds every cell; llama.cpp live."""

import json

import pytest

from helpers import records
from helpers.bench.client import Endpoint
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.lessons.structured import features
from helpers.lessons.structured.features import IGNORES, NOT_PROBED, REFUSES, VERDICTS, WORKS, Finding
from helpers.servers import engines, llama_cpp, serving
from helpers.studies import conformance
from helpers.weights import models


class MockServer:
    """What the truth server says, as a running server of ``engine`` would."""

    def __init__(self, base_url: str, engine: str = "sglang"):
        self.base_url, self.engine, self.model = base_url, engines.get(engine), models.resolve()
        self.endpoint = Endpoint(base_url, "mock", fields=self.engine.fields)


def mock_answer(text: str = "", **choice) -> Script:
    """A whole answer with one choice."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    return Script(answer={"choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]})


def mock_call(arguments: str) -> Script:
    return mock_answer(message={"tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]})


def probed(feature: str, script) -> tuple[Finding, list[dict]]:
    """The cell of one feature, and the bodies of the requests that were sent for it."""
    with TruthServer(script) as mock:
        cell = features.probe(MockServer(mock.base_url), [feature])[feature]
        return cell, [did.body for did in mock.received]


def sampled(number: int, body: dict) -> Script:
    return mock_answer(f"text {body['seed']}")


def stopping(number: int, body: dict) -> Script:
    return mock_answer("the sea is " if "stop" in body else "the sea is wide and deep")


def keeping_the_stop(number: int, body: dict) -> Script:
    return mock_answer("the sea is wide" if "stop" in body else "the sea is wide and deep")


TOKEN = {"token": "a", "logprob": -0.1, "top_logprobs": [{}, {}]}


@pytest.mark.engine
@pytest.mark.parametrize(
    ("feature", "script", "verdict"),
    [
        ("streaming", Script(gap_s=0.01), WORKS),
        ("streaming", Script(tokens_per_event=24), IGNORES),
        ("batching", Script(gap_s=0.01), WORKS),
        ("JSON schema", mock_answer('"seven"'), WORKS),
        ("JSON schema", mock_answer('"nine"'), IGNORES),
        ("JSON schema", mock_answer("The sea is wide."), IGNORES),
        ("regex", mock_answer("red-3"), WORKS),
        ("regex", mock_answer("red-33"), IGNORES),
        ("regex", mock_answer(""), IGNORES),
        ("grammar", mock_answer("eight"), WORKS),
        ("grammar", mock_answer("nine"), IGNORES),
        ("tool calls", mock_call('{"city": "Rome"}'), WORKS),
        ("tool calls", mock_call('{"city": "Oslo"}'), IGNORES),
        ("tool calls", mock_answer("It is warm."), IGNORES),
        ("logprobs", mock_answer("a", logprobs={"content": [TOKEN] * 4}), WORKS),
        ("logprobs", mock_answer("a"), IGNORES),
        ("seed", sampled, WORKS),
        ("seed", mock_answer("always this"), IGNORES),
        ("seed", lambda number, body: mock_answer(str(number)), IGNORES),
        ("stop strings", stopping, WORKS),
        ("stop strings", keeping_the_stop, WORKS),
        ("stop strings", mock_answer("the sea is wide and deep"), IGNORES),
        ("n", Script(answer={"choices": [{}, {}]}), WORKS),
        ("n", Script(answer={"choices": [{}]}), IGNORES),
        ("unknown field", mock_answer("a"), IGNORES),
        ("unknown field", Script(status=422, answer={"detail": "Unexpected fields"}), REFUSES),
        ("speculative", Script(), NOT_PROBED),
        ("quantized weights", Script(), NOT_PROBED),
    ],
)
def test_a_verdict_is_earned(feature, script, verdict):
    """By what came back, not by the HTTP status."""
    cell, _ = probed(feature, script)

    assert cell.verdict == verdict, str(cell)
    assert cell.detail and "\n" not in cell.detail


@pytest.mark.engine
@pytest.mark.parametrize("feature", [name for name in features.PROBES if name not in ("speculative", "quantized weights")])
def test_an_http_400_is_a_clear_refusal(feature):
    """With the server's own reason."""
    script = Script(status=400, answer={"error": {"message": "no such\nthing"}})
    cell, _ = probed(feature, script)

    assert cell.verdict == REFUSES and "no such" in cell.detail and "\n" not in cell.detail


def test_a_crash_is_no_verdict_on_the_feature():
    """HTTP 500 says that nothing was found out, and why."""
    cell, _ = probed("n", Script(status=500, answer={"detail": "boom"}))

    assert cell == Finding(NOT_PROBED, "HTTP 500: boom")


def test_an_odd_answer_is_no_verdict_on_the_feature():
    """An answer without choices is not read as one."""
    cell, _ = probed("JSON schema", Script(answer={"object": "odd"}))

    assert cell.verdict == NOT_PROBED and cell.detail.startswith("no answer that could be read: KeyError")


def test_each_engine_is_asked_with_its_own_field():
    """SGLang's server takes an EBNF as ``ebnf``."""
    _, bodies = probed("grammar", mock_answer("eight"))

    assert [body["ebnf"] for body in bodies] == ['root ::= "seven" | "eight"']


def test_an_engine_without_a_field_is_sent_the_obvious_one():
    """Transformers' server has none for a regular expression: what does it do with ``regex``?"""
    with TruthServer(mock_answer("a")) as mock:
        features.probe(MockServer(mock.base_url, "transformers"), ["regex"])
        (did,) = mock.received

    assert did.body["regex"] == "(red|green)-[0-9]"


CELLS = {
    "vllm": {feature: {"verdict": WORKS, "detail": "seen"} for feature in features.PROBES},
    "tensorrt-llm": {feature: {"verdict": NOT_PROBED, "detail": "no GPU"} for feature in features.PROBES},
}


def test_the_table_has_features_down_and_frameworks_across():
    """Titles, not keys."""
    shown = conformance.table(CELLS)

    assert list(shown.columns) == ["vLLM", "TensorRT-LLM"] and list(shown.index) == list(features.PROBES)
    assert shown.loc["regex", "vLLM"] == WORKS


def test_notes_say_what_was_seen():
    """A line a cell, of the chosen verdicts."""

    assert conformance.notes(CELLS, [WORKS])[0] == "vLLM, streaming: works: seen"
    assert len(conformance.notes(CELLS)) == 2 * len(features.PROBES)


WHEEL = {"versions": {"xllamacpp": "1"}, "cells": {"regex": {"verdict": WORKS, "detail": "grammar: 'red-3'"}}}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"wheel": WHEEL}, "the ready-made wheel (xllamacpp 1) answers otherwise in regex: works"),
        ({"wheel": {**WHEEL, "cells": {}}}, "the ready-made wheel (xllamacpp 1) answers all of these alike"),
        ({"wheel": None}, ""),
        ({}, ""),
    ],
)
def test_one_line_says_what_the_ready_made_server_answers_otherwise(record, said):
    """Readers start the compiled one."""
    assert conformance.wheel(record).endswith(said) and "\n" not in conformance.wheel(record)


@pytest.mark.engine
def test_the_ready_made_server_takes_a_regex_and_the_compiled_one_refuses_it(monkeypatch):
    """LLGuidance is in the wheel alone; only what differs is kept."""
    monkeypatch.setattr(features, "PROBES", {name: features.PROBES[name] for name in ("regex", "grammar")})
    monkeypatch.setattr(features.probe, "__defaults__", (("regex", "grammar"),))
    engine = engines.with_tools(engines.get("llama-cpp"))
    with serving.serve(engine, slots=conformance.SLOTS, context=conformance.CONTEXT) as server:
        cells = {name: {"verdict": cell.verdict} for name, cell in features.probe(server).items()}
    other = conformance._wheel(engine, cells)

    assert cells == {"regex": {"verdict": REFUSES}, "grammar": {"verdict": WORKS}}
    assert other["cells"].keys() == {"regex"} and other["cells"]["regex"]["verdict"] == WORKS


def test_an_unknown_framework_is_refused_before_anything_starts(monkeypatch):
    """The names there are."""
    monkeypatch.setattr("sys.argv", ["conformance", "olama"])
    with pytest.raises(SystemExit, match="^no framework is called olama: choose from transformers, vllm, "):
        conformance.main()


@pytest.fixture(scope="module")
def cells():
    return records.load(conformance.NAME)["cells"]


class TestRecord:
    """The committed record."""

    def test_every_cell_is_there_with_a_verdict_and_what_was_seen(self, cells):
        """Framework by feature; one line each."""
        assert set(cells) == set(conformance.FRAMEWORKS)
        for column in cells.values():
            assert list(column) == list(features.PROBES)
            assert all(cell["verdict"] in VERDICTS and cell["detail"] for cell in column.values())
            assert not any("\n" in cell["detail"] for cell in column.values())

    def test_it_names_no_machine(self, cells):
        """No path and no port."""

        assert not any(word in json.dumps(cells) for word in ("/root", "/home", "/tmp", "127.0.0.1"))

    @pytest.mark.engine
    def test_llama_cpp_answers_today_as_recorded(self, cells, monkeypatch):
        """Every verdict, probed again of what the record names: the server that a reader starts, once the wheel's."""
        if "xllamacpp" in records.load(conformance.NAME)["provenance"]["versions"]["llama-cpp"]:
            monkeypatch.setattr(llama_cpp, "binaries", lambda: None)
        engine = engines.with_tools(engines.get("llama-cpp"))
        with serving.serve(engine, slots=conformance.SLOTS, context=conformance.CONTEXT) as server:
            now = features.probe(server)

        assert {name: cell.verdict for name, cell in now.items()} == {
            name: cell["verdict"] for name, cell in cells["llama-cpp"].items()
        }
