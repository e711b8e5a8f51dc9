"""Servers that cannot start, or start and never answer: one line says why, and nothing is left."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tiny
from gguf import LlamaFileType

from helpers import frameworks, kernels, machine, plots
from helpers.servers import engines, serving
from helpers.servers.serving import ServerError
from helpers.weights import models

pytestmark = pytest.mark.engine

SMALL = {"slots": 2, "context": 128}


def failure(name: str | engines.Engine, model: models.Model | None = None, **settings) -> str:
    """The one line that a server's failed start gives; its log is there, and is removed."""
    with pytest.raises(ServerError) as caught:
        with serving.serve(name, model, **{**SMALL, **settings}):
            pass
    said = str(caught.value)
    if "; its log: " in said:
        log = Path(said.rpartition("; its log: ")[2])
        assert log.exists()
        log.unlink()
    assert "\n" not in said
    return said


def test_a_kv_cache_larger_than_the_machine_is_refused_before_anything_starts():
    """No engine is asked to take more memory than is free."""
    before = psutil.Process().children()
    said = failure("vllm", slots=100_000, context=8192)

    assert said.startswith("vLLM's server was not started: SmolLM2-135M-Instruct does not fit: weights 0.3 GiB (bf16) + KV ")
    assert "; what would fit: " in said
    assert psutil.Process().children() == before


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_model_the_engine_does_not_support(name, tmp_path):
    """The weights are whole, the architecture does not exist."""
    folder = tmp_path / "model"
    shutil.copytree(models.weights("safetensors"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["NoSuchForCausalLM"], "model_type": "no-such-model"}
    (folder / "config.json").write_text(json.dumps(config))
    said = failure(name, models.resolve(str(folder)))

    assert said.startswith(f"{engines.get(name).title}'s server ended before it answered: ")
    assert "no-such-model" in said or "NoSuchForCausalLM" in said, said


@pytest.mark.skipif(machine.has_gpu(), reason="with a GPU the real sgl_kernel is used")
def test_sglang_without_the_stand_in_says_what_is_missing(monkeypatch):
    """Its own package of kernels is not there."""
    env = {name: value for name, value in kernels.environment("sglang").items() if name != "PYTHONPATH"}
    monkeypatch.setattr(kernels, "environment", lambda kernel: env)
    said = failure("sglang")

    assert "sgl_kernel" in said


def test_the_stand_in_gives_every_name_and_runs_none():
    """Importing is free, calling names the kernel."""
    stand_in = {}
    exec((Path(engines.__file__).parent / "sgl_stand_in" / "sgl_kernel.py").read_text(), stand_in)

    with pytest.raises(NotImplementedError, match="^SGLang called sgl_kernel.rmsnorm, a compiled kernel that this CPU build"):
        stand_in["__getattr__"]("rmsnorm")(1, 2)
    with pytest.raises(AttributeError):
        stand_in["__getattr__"]("__wrapped__")


def test_two_engines_on_one_port():
    """The second one is not started; the first one goes on."""
    with serving.serve("llama-cpp", **SMALL) as first:
        port = int(first.base_url.rpartition(":")[2].removesuffix("/v1"))
        said = failure("sglang", port=port)

    assert said == f"SGLang's server was not started: port {port} is in use; give another port or none"


@pytest.mark.parametrize(
    ("load", "advice"),
    [
        (0.5, "give it more time"),
        (7.9, "the machine is busy (load average 7.9 on 2 cores): end other programs, give it more time"),
    ],
)
def test_an_engine_that_hangs_while_loading_is_ended(load, advice, monkeypatch):
    """It neither answers nor ends; what it said last is in the message, and that it had to wait for the cores if so."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    hanging = ["-c", "import time; print('loading part 3 of 9', flush=True); time.sleep(600)"]
    engine = replace(engines.get("vllm"), command=lambda request: [request.python, *hanging])
    with pytest.raises(ServerError) as caught:
        with serving.serve(engine, timeout_s=3, **SMALL):
            pass

    os.unlink(str(caught.value).rpartition(" or read its log: ")[2])
    assert serving.without_log(str(caught.value)) == f"vLLM's server did not answer within 3 s: loading part 3 of 9; {advice}"


def test_an_engine_that_does_not_start_is_named_and_the_others_are_served():
    """With its reason; where nobody asks for reasons, it is an error."""
    ending = ["-c", "raise SystemExit('no such weights')"]
    broken = replace(engines.get("vllm"), command=lambda request: [request.python, *ending])
    failed = {}
    with serving.side_by_side([broken, engines.get("llama-cpp")], failed=failed, **SMALL) as servers:
        assert list(servers) == ["llama-cpp"]
    with pytest.raises(ServerError, match="^no server could be started: vLLM's server ended before it answered: no such") as none:
        with serving.side_by_side([broken], failed={}, **SMALL):
            pass

    for said in (failed["vllm"], str(none.value)):
        os.unlink(said.rpartition("; its log: ")[2])
    assert serving.without_log(failed["vllm"]) == "vLLM's server ended before it answered: no such weights"


@pytest.mark.skipif(machine.has_gpu(), reason="on a GPU it is always compiled")
def test_vllm_is_compiled_when_asked_for_and_quick_to_start_else():
    """A start without compilation takes a fifth of the time."""
    start = engines.Start("python", "folder", 8080, slots=4, context=512, name="m", kv_bytes_per_token=1)
    vllm, llama = engines.get("vllm"), engines.get("llama-cpp")

    assert "--enforce-eager" in vllm.command(start)
    assert "--enforce-eager" not in engines.compiled(vllm).command(start)
    assert engines.compiled(llama) is llama


@pytest.mark.parametrize(
    ("has_gpu", "left"),
    [(False, ["transformers", "vllm", "llama-cpp-q4_0"]), (True, ["transformers", "vllm", "sglang", "llama-cpp-q4_0"])],
)
def test_a_short_measurement_has_one_row_of_each_framework_that_has_kernels_here(has_gpu, left, monkeypatch):
    """SGLang computes with PyTorch's attention on a CPU; where it is alone it is taken all the same."""
    monkeypatch.setattr(machine, "has_gpu", lambda: has_gpu)

    assert [engine.name for engine in engines.one_each(engines.ENGINES.values())] == left
    assert engines.one_each([engines.get("sglang")]) == [engines.get("sglang")]


def test_a_file_of_the_readers_own_says_its_type(tmp_path, monkeypatch):
    """In the list of engines, of its server and in a table of what it did; the default model's rows stay as they are."""
    monkeypatch.setattr(frameworks, "_served", {})
    model = models.resolve(str(tiny.gemma3(tmp_path / "own.gguf", stored=LlamaFileType.MOSTLY_F16)))
    level = {
        "users": 1,
        "repeats": 3,
        "requests": 1,
        "output_tokens_per_s": None,
        "ttft_s": None,
        "tpot_s": None,
        "label": "mock",
    }
    with serving.serve("llama-cpp", model, slots=1, context=64) as server:
        served = server.engine.dtype

    assert served == "f16"
    assert plots.table({"llama-cpp": [level]}).index.get_level_values("weights").tolist() == ["f16"]
    assert {engine.dtype for engine in engines.every(model) if engine.form == "gguf"} == {"f16"}
    assert engines.every() == list(engines.ENGINES.values())


@pytest.mark.parametrize(
    ("stored", "said"), [(LlamaFileType.MOSTLY_Q4_K_M, "Q4_K_M"), (LlamaFileType.ALL_F32, "f32"), (None, "GGUF")]
)
def test_the_type_of_a_gguf_is_what_its_header_says(tmp_path, stored, said):
    """By llama.cpp's name of it, floats in small letters as everywhere here."""
    model = models.resolve(str(tiny.gemma3(tmp_path / "own.gguf", stored=stored)))

    assert models.gguf_type(model) == said
