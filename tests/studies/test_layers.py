"""The comparison of HTTP layers: each is a correct client, and each has its row."""

import asyncio
import json
import shutil
import sys

import pytest

from helpers import records
from helpers.bench import truth_server
from helpers.bench.truth_script import Script, writes
from helpers.bench.truth_server import TruthServer
from helpers.studies import layer_clients, layers
from helpers.studies.layer_clients import LAYERS
from helpers.studies.peer_clients import Load

LOAD = Load(streams=2, requests=4, tokens=5)
FIRST_S, GAP_S = 0.02, 0.005
HERE = [layer for layer in LAYERS.values() if layer.missing() is None]
SMALL = ["--streams", "2", "--requests-per-stream", "2", "--tokens", "5", "--rounds", "1"]
LACKING = layer_clients.Layer("lacking", "needs what nobody has", LAYERS["httpx"].open, ("no_such_library",))


@pytest.fixture
def lacking(monkeypatch):
    """A ninth layer, whose library is not installed."""
    monkeypatch.setitem(LAYERS, "lacking", LACKING)


@pytest.fixture(params=HERE, ids=lambda layer: layer.name)
def measured(request):
    """What a layer saw of four requests on two streams, and what the server did in them."""
    with TruthServer(Script(first_s=FIRST_S, gap_s=GAP_S)) as server:
        answers, cpu_s, wall_s = layer_clients.run(request.param, server.base_url, LOAD)
        yield answers, cpu_s, wall_s, server


def test_every_answer_has_its_tokens_and_a_stamp_for_each(measured):
    """Four answers of five tokens, one event each; the closing event has no stamp."""
    answers, *_ = measured

    assert [(len(stamps_ns), tokens) for _, stamps_ns, tokens in answers] == [(5, 5)] * 4


def test_stamps_follow_what_the_server_did(measured):
    """Sent before the server had it, first stamped after it was written, in order, and over when the block is."""
    answers, _, wall_s, server = measured
    served = server.received[-LOAD.requests :]
    first_sent_ns, last_ns = min(answers)[0], max(stamps_ns[-1] for _, stamps_ns, _ in answers)

    assert first_sent_ns <= min(one.received_ns for one in served)
    assert min(stamps_ns[0] for _, stamps_ns, _ in answers) >= min(one.written_ns[0] for one in served)
    assert all(sorted(stamps_ns) == list(stamps_ns) for _, stamps_ns, _ in answers)
    assert 0 < last_ns - first_sent_ns <= wall_s * 1e9


def test_connections_are_open_before_the_clock_starts(measured):
    """Two short requests come first, one per stream, and no stream waits for another."""
    *_, server = measured

    assert [one.tokens for one in server.received] == [layer_clients.WARM_UP_TOKENS] * 2 + [LOAD.tokens] * 4
    assert server.most_at_once == LOAD.streams


def test_no_connection_is_opened_after_the_warm_up(monkeypatch):
    """Each layer that pools its connections sends six requests over two of them."""
    opened = []
    monkeypatch.setattr(truth_server, "_Connection", lambda *args, make=truth_server._Connection: opened.append(1) or make(*args))
    pooling = [layer for layer in HERE if not layer.name.startswith("ours")]  # ours opens two more for the measured block
    for layer in pooling:
        with TruthServer(Script(first_s=FIRST_S)) as server:
            layer_clients.run(layer, server.base_url, LOAD)

    assert len(opened) == LOAD.streams * len(pooling)


@pytest.mark.parametrize("size", [1, 4, 7, 4096], ids=lambda size: f"{size} bytes")
def test_an_answer_in_pieces_is_the_same_answer(size):
    """However the network cuts it, it ends when its last chunk is there, and its three tokens are counted once."""
    script = Script(tokens=3)
    sent = b"".join(
        part
        for _, part, *_ in writes(
            script,
            "/v1/completions",
            {"stream": True, "stream_options": {"include_usage": True}, "prompt": "a", "max_tokens": 3},
            0,
        )
    )

    class Transport:
        def write(self, data):
            pass

    async def feed(kind) -> tuple:
        protocol = kind("127.0.0.1:1")
        protocol.connection_made(Transport())
        done = protocol.ask(b"{}")
        for start in range(0, len(sent), size):
            assert not done.done()
            protocol.data_received(sent[start : start + size])
        _, stamps_ns, tokens = done.result().read()
        return len(stamps_ns), tokens

    for kind in (layer_clients._Parsing, layer_clients._H11, layer_clients._Keeping):
        assert asyncio.run(feed(kind)) == (3, 3)


def test_the_table_has_a_row_for_each_layer(tmp_path, capsys, lacking):
    """Every layer is run or named with the library that it lacks; the JSON says the same as the table."""
    code = layers.main([*SMALL, "--json", str(tmp_path / "layers.json")])
    found, printed = json.loads((tmp_path / "layers.json").read_text()), capsys.readouterr().out
    rows = {row["layer"]: row for row in found["summary"]}

    assert code == 1  # one at least was left out
    assert list(rows) == list(LAYERS)
    assert all(row["title"] in printed for row in rows.values())
    assert {name for name, row in rows.items() if row["rounds"] == 1} == {layer.name for layer in HERE}
    assert all(row["failures"] == [] for row in rows.values())
    assert "no_such_library" in rows["lacking"]["left_out"] and rows["lacking"]["left_out"] in printed
    assert {one["layer"] for one in found["turns"]} == {layer.name for layer in HERE}
    assert set(found["provenance"]["versions"]["layers"]) >= {"httptools", "httpx"}


def test_record_saves_the_comparison_with_its_provenance(tmp_path, monkeypatch):
    """One record of this machine, with the plan it was made by."""
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    layers.main([*SMALL, "--layers", "keeping", "--record"])
    found = records.load("layers")

    assert [row["layer"] for row in found["summary"]] == ["keeping"]
    assert found["provenance"]["plan"]["loads"] == [{"streams": 2, "requests": 4, "tokens": 5, "gap_s": 0.01}]


def test_a_figure_that_is_not_defined_is_none(tmp_path):
    """Four requests have no p99; the other columns have their values."""
    layers.main([*SMALL, "--layers", "keeping", "--json", str(tmp_path / "layers.json")])
    (row,) = json.loads((tmp_path / "layers.json").read_text())["summary"]

    assert row["itl_p99_percent"] is None
    assert all(row[key]["median"] is not None for key in layers.COLUMNS if key != "itl_p99_percent")
    assert row["cpu_share"]["median"] > 0


def test_a_layer_whose_process_fails_is_a_failure_in_its_row(monkeypatch):
    """A process that ends at once: the row says so and has no figures."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with TruthServer() as server:
        turn = layers.turn(LAYERS["keeping"], LOAD, 0, _Told(server))
    (row,) = layers.summary([turn], [LAYERS["keeping"]], [LOAD])

    assert turn.says is None and "it wrote nothing" in turn.error
    assert (row["rounds"], row["failures"], row["ttft_ms"]) == (0, [turn.error], None)
    assert turn.error in layers.as_text([row])


def test_answers_of_another_length_are_an_error():
    """A server that says three tokens where five were asked for: the layer's figures are not taken."""
    with TruthServer(Script(tokens=3)) as server:
        turn = layers.turn(LAYERS["keeping"], LOAD, 0, _Told(server))

    assert "0 of 4 answers have 5 tokens" in turn.error


class _Told:
    """A truth server of this process with the methods of one in its own."""

    def __init__(self, server: TruthServer):
        self.base_url, self.server = server.base_url, server

    def reset(self) -> None:
        self.server.received.clear()

    def seen(self) -> list[dict]:
        return [one.to_dict() for one in self.server.received]


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--layers", "curl", "choose from httpx"),
        ("--streams", "0", "whole numbers from 1"),
        ("--streams", "many", "whole numbers from 1"),
        ("--rounds", "0", "must be at least 1"),
        ("--tokens", "0", "must be at least 1"),
    ],
)
def test_a_bad_argument_starts_nothing(option, value, reason, capsys):
    """Exit code 2 and one line that says what is allowed."""
    with pytest.raises(SystemExit) as ended:
        layers.main([option, value])

    assert (ended.value.code, reason in capsys.readouterr().err) == (2, True)
