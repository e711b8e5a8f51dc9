"""LoRA adapters made here: files as PEFT writes them, folders that share one, and real servers that answer with them."""

from __future__ import annotations

import json
import os

import pytest

from helpers.gpu import cases, random_files, random_model, session, tasks
from helpers.gpu.cases import Life
from helpers.gpu.work import adapters
from helpers.weights import files, sizes


def test_the_weights_are_whole_and_as_many_as_the_data_sheet_says():
    """Every tensor of the tiny shape; a big shape's are counted only."""
    folder = random_files.folder("tiny")
    files.check_folder(folder)
    assert sizes.stored_bytes(folder) == random_model.weights_bytes("tiny")
    for shape in ("tiny", "Llama-3.1-8B"):
        fields = random_model.config(shape)
        count = sum(random_files._bytes(one) // 2 for _, one in random_files.tensors(fields))
        assert count == random_model.sheet(shape).parameters


def test_no_special_token_is_ever_said():
    """The head's rows of special tokens and bytes are zero, and no others; norms are one."""
    import numpy as np

    folder = random_files.folder("tiny")
    name = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]["lm_head.weight"]
    data = (folder / name).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def values(tensor: str):
        start, end = header[tensor]["data_offsets"]
        return np.frombuffer(data[8 + length + start : 8 + length + end], "<u2").reshape(header[tensor]["shape"])

    silent = ~values("lm_head.weight").any(1)
    assert silent.sum() == silent[:259].sum() == 259
    assert set(values("model.norm.weight")) == {0x3F80}


def test_adapters_are_folders_of_their_own_with_one_file():
    """Each linear layer has an A and a B of the rank."""
    made = random_files.adapters("tiny", 3)
    assert len(set(made)) == 3 and len({(one / "adapter_model.safetensors").stat().st_ino for one in made}) == 1
    with files.open_safetensors(made[2] / "adapter_model.safetensors") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - it is no dict
    assert len(shapes) == 2 * 7 * 2  # layers, linear layers, A and B
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    assert (shapes[f"{prefix}.lora_A.weight"], shapes[f"{prefix}.lora_B.weight"]) == ([16, 512], [256, 16])
    assert random_files.adapters("tiny", 0) == []


def test_each_engine_is_told_the_adapters_and_asked_for_them():
    """Names and folders; SGLang wants the model's name before the adapter's."""
    made = random_files.adapters("tiny", 2)
    assert adapters.told("vllm", made) == ("--lora-modules", f"adapter-0={made[0]}", f"adapter-1={made[1]}")
    assert adapters.told("sglang", made)[0] == "--lora-paths" and adapters.told("vllm", []) == ()


@pytest.mark.engine
def test_a_server_without_adapters_answers_with_the_model_alone():
    """llama.cpp's real server: the blocks of the model, none of adapters."""
    how = {"users": 2, "requests": 1, "input_tokens": 16, "output_tokens": 8, "used": [0, 1], "adapters": 0}
    life, kept = Life("llama-cpp", "adapters", "q4_0", 1, how, cases.LLAMA), {}
    assert tasks.WORKS["adapters"](life, session.Setting("tiny", "cpu", (1,), 2), session.Log(life, kept.update), 120)
    blocks = [row for row in kept["rows"] if row["kind"] == "block"]
    assert [(row["adapters"], row["repeat"], row["output_tokens"]) for row in blocks] == [(0, 0, [8]), (0, 1, [8])]


@pytest.mark.skipif(os.environ.get("REHEARSE") != "1", reason="no vLLM rehearses a GPU's work unless REHEARSE=1 is set")
@pytest.mark.engine
def test_users_are_spread_over_the_adapters():
    """vLLM's real server on a CPU: blocks with none, one and two adapters in turns."""
    life, kept = cases.rehearsed(Life("vllm", "adapters", "8 adapters", 1, cases.HELD | {"adapters": 8}, cases.LLAMA)), {}
    assert tasks.WORKS["adapters"](life, session.Setting("tiny", "cpu", (1,), 1), session.Log(life, kept.update), 200)
    assert [row["adapters"] for row in kept["rows"] if row["kind"] == "block"] == [0, 1, 2]
