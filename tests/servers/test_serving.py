"""Real servers: started, asked, ended whatever happens; and everything that can be wrong."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from leftovers import wait_until

from helpers import kernels
from helpers.bench import client, workload
from helpers.servers import engines, guard, serving
from helpers.servers.serving import ServerError
from helpers.weights import models

pytestmark = pytest.mark.engine

SMALL = {"slots": 2, "context": 128}
PARENT = """
import sys
from helpers.servers import serving
with serving.serve("llama-cpp", slots=2, context=128) as server:
    print(server.log, *(p.pid for p in server.processes()), server.process.pid, flush=True)
    sys.stdin.read()
"""


def prompt(tokens: int, seed: int = 0) -> workload.Prompt:
    return workload.prompts(1, tokens, seed=seed, vocabulary=models.vocabulary())[0]


def gone(pids, timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize("name", ["llama-cpp", "transformers"])
def test_a_server_answers_on_loopback_only_and_ends_with_the_block(name):
    """Healthy, exact lengths, no other address, nothing left."""
    with serving.serve(name, **SMALL) as server:
        sample = client.run(client.request(server.endpoint, prompt(16), 8))
        pids = [process.pid for process in server.processes()]
        listening = {
            connection.laddr.ip
            for process in server.processes()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        log = server.log
        port = server.base_url.removesuffix("/v1").rpartition(":")[2]
        assert f"--port {port}" in server.command_line and "/" not in server.command_line

    assert (sample.error, sample.prompt_tokens, sample.output_tokens) == (None, 16, 8)
    assert listening == {"127.0.0.1"}
    assert gone(pids) and not log.exists()


def test_an_unknown_engine_names_those_that_exist():
    """Before anything starts."""
    with pytest.raises(engines.UnknownEngine, match="^no engine is called 'olama': choose one of transformers, "):
        with serving.serve("olama"):
            pass


def test_a_missing_kernel_names_the_command():
    """Before anything starts."""
    engine = replace(engines.get("llama-cpp"), kernel="absent")
    with pytest.raises(kernels.MissingKernel, match=r"run `nox -s tour -- absent`$"):
        with serving.serve(engine):
            pass


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"slots": 0}, "slots=0, context=512: both must be at least 1"),
        ({"context": -1}, "slots=16, context=-1: both must be at least 1"),
        ({"context": 9000}, "context=9000: SmolLM2-135M-Instruct knows 8192 tokens; ask for 8192 or fewer"),
    ],
)
def test_sizes_that_cannot_be(sizes, message):
    """Before anything starts."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        with serving.serve("llama-cpp", **sizes):
            pass


def test_a_port_in_use_is_said_and_nothing_is_started():
    """Whoever has it keeps it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        before = psutil.Process().children()
        with pytest.raises(ServerError, match=f"^llama.cpp's server was not started: port {port} is in use; give another"):
            with serving.serve("llama-cpp", port=port):
                pass

        assert psutil.Process().children() == before


def test_a_free_port_leaves_room_for_the_one_that_sglang_adds():
    """Its gRPC port is this one + 10,000; in the system's range about every fifth is too high."""
    assert all(1024 < serving.free_port() <= 65535 - 10000 for _ in range(100))


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_number_that_is_no_port(port):
    """Before anything starts."""
    with pytest.raises(ServerError, match=f"^llama.cpp's server was not started: port {port} cannot be used"):
        with serving.serve("llama-cpp", port=port):
            pass


@pytest.mark.parametrize("name", engines.ENGINES)
def test_a_kv_cache_that_does_not_fit_is_refused_before_anything_is_loaded(name):
    """By the calculator, with what would fit; no process was started."""
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ServerError) as caught:
        with serving.serve(name, slots=10_000_000, context=8192):
            pass

    title = engines.get(name).title
    assert re.fullmatch(
        rf"{re.escape(title)}'s server was not started: SmolLM2-135M-Instruct does not fit: weights 0\.\d GiB \(\w+\) "
        r"\+ KV cache 1,757,812\.5 GiB \(10,000,000 slots x 8,192 tokens x 22\.5 KiB, 16 bit\) = [\d,.]+ GiB, [\d,.]+ GiB free; "
        r"what would fit: [\d,]+ slots",
        str(caught.value),
    )
    assert psutil.Process().children(recursive=True) == before


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(monkeypatch):
    """With a mock of a machine that has 50 MiB free: the file alone has 92."""
    monkeypatch.setattr(serving.capacity, "free_bytes", lambda: 50 * 2**20)
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ServerError, match="= 0.1 GiB, 0.0 GiB free; what would fit: a smaller model or more memory$"):
        with serving.serve("llama-cpp", **SMALL):
            pass

    assert psutil.Process().children(recursive=True) == before


def test_where_the_free_memory_is_not_known_the_engine_decides(monkeypatch):
    """With a mock of a GPU that does not say: no refusal."""
    monkeypatch.setattr(serving.capacity, "free_bytes", lambda: None)
    with serving.serve("llama-cpp", **SMALL) as server:
        assert server.startup_s > 0


def test_an_engine_that_dies_while_loading_shows_its_reason(tmp_path):
    """A GGUF with all its tensors whose header names an architecture that does not exist."""
    path = tmp_path / "altered.gguf"
    content = bytearray(models.weights("gguf").read_bytes())
    at = content.index(b"general.architecture") + len("general.architecture") + 4 + 8
    assert content[at : at + 5] == b"llama"
    content[at : at + 5] = b"lamma"
    path.write_bytes(bytes(content).replace(b"llama.", b"lamma."))
    model = models.resolve(str(path))
    with pytest.raises(ServerError) as caught:
        with serving.serve("llama-cpp", model, **SMALL):
            pass

    head, _, log = str(caught.value).partition("; its log: ")
    assert head.startswith("llama.cpp's server ended before it answered: ") and "\n" not in head and len(head) > 60
    assert Path(log).exists()
    Path(log).unlink()


def test_what_a_config_checker_refuses_is_in_the_reason(tmp_path):
    """The log of vLLM ends with an address to read more, and what was wrong stands three lines above it."""
    log = tmp_path / "vllm.log"
    log.write_text(
        "Traceback (most recent call last):\n"
        "ValidationError: 1 validation error for ModelConfig\n  Value error, the type `x` is unknown.\n\n"
        "You can update [type=value_error]\n    For further information visit https://errors.example/value_error\n"
    )

    assert guard.reason(log) == "ValidationError: 1 validation error for ModelConfig: Value error, the type `x` is unknown."


def test_a_server_that_does_not_answer_in_time_is_ended():
    """Half a second is too short for any engine."""
    engine = engines.get("transformers")
    with pytest.raises(ServerError, match="^HF Transformers's server did not answer within 0.5 s: .*read its log: ") as caught:
        with serving.serve(engine, timeout_s=0.5, **SMALL):
            pass

    Path(str(caught.value).rpartition(": ")[2]).unlink()


def test_an_error_in_the_block_ends_the_server():
    """And is the error that the caller sees."""
    with pytest.raises(ZeroDivisionError):
        with serving.serve("llama-cpp", **SMALL) as server:
            pids = [process.pid for process in server.processes()]
            raise ZeroDivisionError

    assert gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_its_parent(number):
    """Interrupted, ended or killed: within ten seconds neither process nor log is there."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    log, *pids = parent.stdout.readline().split()
    os.kill(parent.pid, number)
    parent.wait(20)
    parent.stdin.close()

    assert gone(list(map(int, pids)))
    assert not Path(log).exists()


def test_a_prompt_longer_than_the_context_is_an_error_and_the_server_goes_on():
    """Refused by us before it is sent; sent anyway, refused by the server."""
    with serving.serve("llama-cpp", **SMALL) as server:
        ours = client.run(client.request(server.endpoint, prompt(600), 8))
        theirs = client.run(client.request(replace(server.endpoint, context=None), prompt(600), 8))
        after = client.run(client.request(server.endpoint, prompt(16), 8))

    assert ours.error == "too long: 608 tokens in and out, and the context is 128; ask for fewer"
    assert "exceeds the available context size" in theirs.error and after.error is None


def test_a_server_that_dies_in_the_middle_is_an_error_in_each_sample():
    """The load ends; nothing hangs."""
    with serving.serve("llama-cpp", **SMALL) as server:
        long = replace(server.endpoint, context=None)

        def kill(sample) -> None:
            for process in server.processes():
                process.kill()

        load = client.closed_loop(long, [prompt(8, seed) for seed in range(6)], users=2, output_tokens=100, on_sample=kill)
        samples = client.run(load)

    assert samples[0].error is None and all(sample.error for sample in samples[2:])


def test_two_servers_live_side_by_side():
    """Each on a port of its own."""
    with serving.serve("llama-cpp", **SMALL) as first, serving.serve("llama-cpp-bf16", **SMALL) as second:
        answers = [httpx.get(f"{server.base_url}/models", trust_env=False).status_code for server in (first, second)]

        assert first.base_url != second.base_url and answers == [200, 200]


def test_servers_that_start_at_once_are_waited_for_together(monkeypatch):
    """All run before the first is waited for. Each has its name and a port of its own; all end at the end."""
    pair, wait, running = {"one": engines.get("llama-cpp"), "other": engines.get("llama-cpp-bf16")}, serving._wait, []

    def noted(*given):
        running.append(len(psutil.Process().children()))
        wait(*given)

    monkeypatch.setattr(serving, "_wait", noted)
    with serving.at_once(pair, **SMALL) as servers:
        samples = [client.run(client.request(server.endpoint, prompt(16), 4)) for server in servers.values()]
        processes = [process.pid for server in servers.values() for process in server.processes()]

        assert list(servers) == ["one", "other"] and len({server.base_url for server in servers.values()}) == 2
    assert [sample.error for sample in samples] == [None, None] and gone(processes)
    assert running == [2, 2]


def test_a_server_that_does_not_start_ends_those_that_start_beside_it():
    """Its reason is the error."""
    broken = replace(
        engines.get("llama-cpp"), command=lambda start: [sys.executable, "-c", "raise SystemExit('no such weights')"]
    )
    with pytest.raises(ServerError, match="no such weights") as refused:
        with serving.at_once({"good": engines.get("llama-cpp"), "broken": broken}, **SMALL):
            pass
    os.unlink(str(refused.value).rpartition("; its log: ")[2])
    assert not psutil.Process().children(recursive=True)


def test_only_one_of_several_engines_is_awake():
    """The others are stopped: they answer only inside their own ``awake``, and all end at the end."""
    pair = [engines.get("llama-cpp"), engines.get("llama-cpp-bf16")]
    with serving.side_by_side(pair, **SMALL) as servers:
        first, second = servers.values()
        with first.awake():
            good = client.run(client.request(first.endpoint, prompt(16), 4))
            none = client.run(client.request(second.endpoint, prompt(16), 4, timeout_s=1))
        processes = [process for server in (first, second) for process in server.processes()]
        stopped = wait_until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in processes))

    assert (good.error, none.error) == (None, "stalled: no end within 1 s")
    assert stopped and gone([process.pid for process in processes])


LEARNER = """
import sys
from helpers.servers import serving
with serving.serve("llama-cpp", slots=1, context=64) as server:
    print(server.base_url, flush=True)
    sys.stdin.readline()
"""


def test_two_learners_on_one_machine_run_the_same_cell_at_once():
    """Neither names a port, each gets a free one, and each has its own server's answer until they end it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    learners = [subprocess.Popen([sys.executable, "-c", LEARNER], **pipes) for _ in range(2)]
    try:
        addresses = [learner.stdout.readline().strip() for learner in learners]
        answers = [httpx.get(f"{address}/models", trust_env=False).status_code for address in addresses]
    finally:
        ends = [(learner.communicate("\n", timeout=60), learner.returncode)[1] for learner in learners]

    assert len(set(addresses)) == 2 and answers == [200, 200] and ends == [0, 0]
