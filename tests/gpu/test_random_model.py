"""Random weights in a known shape: a folder for vLLM, SGLang and Transformers, a GGUF file for llama.cpp."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from helpers import kernels, paths
from helpers.bench import workload
from helpers.gpu import random_model
from helpers.gpu.work import offline
from helpers.weights import files, models, shapes, sizes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, so that everything is made here."""
    monkeypatch.setattr(paths, "cache_dir", lambda: tmp_path)


def test_the_7b_shape_has_the_published_number_of_parameters():
    """The config counted is the one that the model's shape table has."""
    assert random_model.sheet("Llama-2-7B").parameters == shapes.known()["Llama-2-7B"].parameters == 6_738_415_616


def test_an_unknown_shape_names_those_there_are():
    """A shape of another architecture is not made either."""
    for name in ("Lama", "Qwen2.5-0.5B"):
        with pytest.raises(files.ModelError, match=f"no shape is called '{name}': choose one of tiny, .*Llama-2-7B"):
            random_model.config(name)


def test_a_mixture_of_experts_has_its_fields():
    """What Transformers reads of a Qwen3 MoE, and the parameters that the calculator counts."""
    fields = random_model.config("Qwen3-30B-A3B")
    assert fields["architectures"] == ["Qwen3MoeForCausalLM"] and (fields["num_experts"], fields["head_dim"]) == (128, 128)
    assert random_model.sheet("Qwen3-30B-A3B").parameters == 30_532_122_624
    assert random_model.sheet("tiny-moe").experts and not random_model.sheet("tiny").experts


def test_the_folder_is_made_once_and_has_the_shape():
    """A config and a tokenizer, and no weights: the engines make them."""
    folder = random_model.folder("tiny")
    assert random_model.folder("tiny") == folder
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert models.shape(random_model.model("tiny", "safetensors")) == models.Shape(2, 4, 64, 256, 2048, 4096)


@pytest.mark.parametrize("dtype", random_model.GGUF_TYPES)
def test_a_gguf_file_has_every_tensor_in_the_asked_type(dtype):
    """The bytes of its tensors are what the arithmetic of the type says, norms in float32."""
    model = random_model.model("tiny", dtype)
    sheet = random_model.sheet("tiny")
    norms = (2 * sheet.shape.layers + 1) * sheet.shape.hidden
    expected = sizes.bytes_of(sheet.parameters - norms, {"f16": "float16"}.get(dtype, dtype)) + 4 * norms
    assert sizes.stored_bytes(model.path) == expected
    assert models.shape(model) == models.shape(random_model.model("tiny", "safetensors"))


@pytest.mark.parametrize("dtype", random_model.GGUF_TYPES)
def test_a_special_token_is_never_said(dtype):
    """The head's rows of special tokens and bytes are zero, the others are not."""
    import gguf

    reader = files.read_gguf(random_model.gguf_file("tiny", dtype))
    (head,) = [tensor for tensor in reader.tensors if tensor.name == "output.weight"]
    values = gguf.quants.dequantize(head.data, head.tensor_type)
    assert not values[: offline.FIRST_WORD].any()
    assert np.abs(values[offline.FIRST_WORD :]).max(axis=1).min() > 0


def test_both_forms_have_one_vocabulary_whose_words_are_one_token():
    """Prompts can be written as text and as ids, the same for every engine."""
    found = models.vocabulary(random_model.model("tiny", "safetensors"))
    assert found == models.vocabulary(random_model.model("tiny", "q4_0")) == list(random_model.vocabulary(2048))
    (prompt,) = workload.prompts(1, 5, seed=0, vocabulary=found)
    assert prompt.text.split() == [found[token].removeprefix(random_model.WORDS_MARK) for token in prompt.token_ids]
    assert min(prompt.token_ids) >= offline.FIRST_WORD


@pytest.mark.engine
def test_the_tokenizer_gives_words_back_as_the_same_ids():
    """What the engines load, read in the kernel of one of them: ids to text and back."""
    code = (
        "import sys, tokenizers; words = tokenizers.Tokenizer.from_file(sys.argv[1]); ids = [300, 1999, 259, 300];"
        "print(words.encode(' ' + words.decode(ids).strip(), add_special_tokens=False).ids == ids)"
    )
    command = [kernels.interpreter("transformers"), "-c", code, str(random_model.folder("tiny") / "tokenizer.json")]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "True"


def test_the_config_is_what_transformers_reads():
    """The file is plain JSON with the architecture's name."""
    fields = json.loads((random_model.folder("tiny") / "config.json").read_text())
    assert fields["architectures"] == ["LlamaForCausalLM"] and fields["num_key_value_heads"] == 4


def test_an_unknown_gguf_type_is_refused():
    """Only three types are made."""
    with pytest.raises(files.ModelError, match="no random GGUF is made as 'q5_1': choose one of q4_0, q8_0, f16"):
        random_model.gguf_file("tiny", "q5_1")
