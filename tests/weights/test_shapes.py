"""Sheets of models: the shipped table against published counts, and configs that do not say enough."""

import json
import re

import pytest
from offenders import over

from helpers.weights import models, shapes, sizes
from helpers.weights.files import ModelError

LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8,
    "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 64,
}  # fmt: skip
KV_CACHE = {  # the kind of attention, and KiB for a token
    "SmolLM2-135M": ("GQA", 22.5),
    "Qwen2.5-0.5B": ("GQA", 12),
    "Llama-2-7B": ("MHA", 512),
    "Mistral-7B-v0.1": ("GQA", 128),
    "Qwen2.5-7B": ("GQA", 56),
    "Llama-3.1-8B": ("GQA", 128),
    "Qwen3-8B": ("GQA", 144),
    "DeepSeek-V2-Lite": ("MLA", 27 * (512 + 64) * 2 / 1024),
    "DeepSeek-V3": ("MLA", 61 * (512 + 64) * 2 / 1024),
}


def known() -> dict[str, dict]:
    """The names of the shipped table."""
    return {name: {"name": name} for name in shapes.known()}


@over(known, "name")
def test_parameters_are_the_published_count(name):
    """Counted from the fields, matrix by matrix, to the last one."""

    assert shapes.known()[name].parameters == shapes.rows()[name]["parameters"]


@over(known, "name")
def test_every_row_says_where_and_when_it_was_read(name):
    """A source, and a date."""
    row = shapes.rows()[name]

    assert len(row["source"]) > 20 and re.fullmatch(r"20\d\d-\d\d-\d\d", row["read"])


@over(lambda: {name: {"name": name, "found": found} for name, found in KV_CACHE.items()}, "name", "found")
def test_kv_cache_of_the_known_models(name, found):
    """At 16 bit; of MLA one latent of 512 + 64 values per layer."""
    sheet = shapes.of(name)

    assert (sheet.attention, sizes.kv_bytes_per_token(sheet.shape) / 1024) == found


def test_the_kv_cache_of_every_known_model_is_looked_at():
    """No row of the table is left out above."""
    assert list(KV_CACHE) == list(shapes.known())


@pytest.mark.parametrize("name", ["Llama-2-7B", "llama-2-7b", "meta-llama/Llama-2-7b-hf"])
def test_a_model_has_two_names(name):
    """Its short one and that of the hub, in any case of letters."""

    assert shapes.of(name).shape.layers == 32


@pytest.mark.engine
def test_the_row_of_the_default_model_is_what_its_files_say():
    """Its GGUF, its safetensors and its row in the table."""
    row, gguf, folder = (shapes.of(of) for of in ("SmolLM2-135M", models.resolve(), models.weights("safetensors")))

    assert row.shape == gguf.shape == folder.shape
    assert {sheet.attention for sheet in (row, gguf, folder)} == {"GQA"}
    assert row.parameters == gguf.parameters == folder.parameters == 134_515_008
    assert (gguf.stored_bytes, folder.stored_bytes) == (sizes.weights_bytes("gguf"), sizes.weights_bytes("safetensors"))
    assert row.stored_bytes is None


def test_a_config_alone_is_enough(tmp_path):
    """Two layers of 2 x 8 x (8 + 4) + 3 x 8 x 16 + 2 x 8, a norm of 8 and two embeddings of 10 x 8."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA))
    sheet = shapes.of(file)

    assert sheet.parameters == 2 * (192 + 384 + 16) + 8 + 160
    assert (sheet.looked_up, sheet.experts, sheet.stored_bytes) == (80, False, None)


def test_a_text_model_inside_another_config():
    """Models that see keep the numbers of their text part in a table of its own."""

    assert shapes.of_config({"model_type": "sees", "text_config": LLAMA}, "sees") == shapes.of_config(LLAMA, "sees")


@pytest.mark.parametrize("field", sorted({*LLAMA} - {"model_type", "num_key_value_heads"}))
def test_a_config_without_a_field_names_it(field):
    """In one line, with the next step."""
    config = {key: value for key, value in LLAMA.items() if key != field}
    with pytest.raises(ModelError) as caught:
        shapes.of_config(config, "mine")

    assert str(caught.value) == f"mine does not say its shape: its config has no {field}; choose a decoder like Llama or Qwen"


@pytest.mark.parametrize("value", [0, -1, "32", 2.5, True, [1]])
def test_a_field_that_is_no_count(value):
    """Named with what stands there."""
    with pytest.raises(ModelError, match=re.escape(f"num_hidden_layers is {value!r} in its config, which is no count")):
        shapes.of_config(LLAMA | {"num_hidden_layers": value}, "mine")


def test_mla_without_its_second_number():
    """kv_lora_rank alone is half of the latent."""
    with pytest.raises(ModelError, match="its config has no qk_rope_head_dim"):
        shapes.of_config(LLAMA | {"kv_lora_rank": 4}, "mine")


def test_an_architecture_that_is_not_counted_is_refused():
    """Not guessed."""
    with pytest.raises(
        ModelError, match="^mine is of model_type 'mamba', whose parameters are not counted here: only those of llama"
    ):
        shapes.of_config(LLAMA | {"model_type": "mamba"}, "mine")


def test_a_name_that_is_nothing():
    """Names those that exist."""
    with pytest.raises(
        ModelError, match="^no model is called 'llama-9': choose one of SmolLM2-135M, .*, or give a config.json, a"
    ):
        shapes.of("llama-9")


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_config_that_cannot_be_read(tmp_path, content):
    """One line."""
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ModelError, match="^config.json of test_a_config.* (cannot be read|is no table)") as caught:
        shapes.of(file)
    assert "\n" not in str(caught.value)
