"""The adapter that every engine serves: made once, in three forms, and it says what it has learned in each."""

import json

import numpy as np
import pytest
import tiny

from helpers import kernels, paths
from helpers.weights import files, lora, models
from helpers.weights.files import ModelError

LLAMA_CPP = """
import json, os, sys
from llama_cpp import Llama

base, adapter, prompt = sys.argv[1:]
kept = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
said = []
for given in ({}, {"lora_path": adapter}):
    model = Llama(base, n_ctx=64, verbose=False, **given)
    said.append(model(prompt, max_tokens=16, temperature=0)["choices"][0]["text"])
print(json.dumps(said))
"""


def test_the_rows_of_queries_move_as_llama_cpp_has_them():
    """Two heads of four rows: the halves of each are interleaved."""
    rows = np.arange(8).reshape(8, 1)

    assert lora.permuted(rows, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_name_changes_with_what_is_trained(monkeypatch):
    """An adapter of other steps is another one, so a kept one is never taken for it."""
    model = models.resolve()
    before = lora.path("adapter", model)
    monkeypatch.setattr(lora, "STEPS", lora.STEPS + 1)

    assert lora.path("adapter", model) != before


def test_a_gguf_of_another_architecture_is_refused(tmp_path):
    """Its tensors have other names and another order."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match="is left out: its architecture is gemma3, not llama$"):
        lora.to_gguf(tmp_path, tmp_path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_adapter_that_cannot_become_a_gguf_is_not_trained(tmp_path, monkeypatch):
    """The refusal comes before the conversion and the training: nothing is made."""
    monkeypatch.setattr(paths, "cache_dir", lambda: tmp_path / "cache")
    model = models.resolve(str(tiny.gemma3(tmp_path / "tiny.gguf")))

    with pytest.raises(ModelError, match="^a GGUF adapter of tiny is left out: its architecture is gemma3, not llama$"):
        lora.adapter_gguf(model)
    assert not (tmp_path / "cache").exists()


@pytest.mark.engine
def test_the_merged_model_is_a_whole_one():
    """With the shape of its base, so that every engine that loads safetensors can serve it."""
    files.check_folder(lora.merged())

    assert models.shape(models.resolve(str(lora.merged()))) == models.shape()


@pytest.mark.engine
def test_no_path_of_this_machine_is_kept():
    """The adapter names its base by the model's name, and no folder."""
    config = json.loads((lora.adapter() / "adapter_config.json").read_text())
    texts = [file.read_text() for folder in (lora.adapter(), lora.merged()) for file in folder.glob("*config.json")]

    assert [text for text in texts if str(paths.cache_dir()) in text] == []
    assert str(paths.cache_dir()) not in (lora.adapter() / "README.md").read_text()
    assert config["base_model_name_or_path"] == models.resolve().name
    assert (config["r"], sorted(config["target_modules"])) == (lora.RANK, sorted(lora.TARGETS))


@pytest.mark.engine
def test_llama_cpp_says_what_was_learned():
    """With the GGUF adapter, and not without it: its rows are in the right order."""
    if not kernels.installed("llama-cpp"):
        pytest.skip("the kernel llama-cpp is not installed: run `nox -s tour -- llama-cpp`")
    given = str(models.weights("gguf")), str(lora.adapter_gguf()), lora.PROMPT
    before, after = kernels.ask_code("llama-cpp", LLAMA_CPP, *given)

    assert (before.startswith(lora.LEARNED), after.startswith(lora.LEARNED)) == (False, True)
