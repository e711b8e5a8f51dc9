"""What layers keep of a context: windows and states, from configs, from headers, and as llama.cpp itself lays them out."""

import json
import re
import subprocess

import pytest
import tiny

from helpers import kernels
from helpers.servers import llama_cpp, metrics, serving
from helpers.weights import bounds, capacity, models, shapes, sizes
from helpers.weights.files import ModelError
from helpers.weights.layers import Kept

GIB, MIB = sizes.GIB, sizes.MIB
GEMMA = {  # Gemma 3 270M
    "model_type": "gemma3_text", "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
    "hidden_size": 640, "intermediate_size": 2048, "vocab_size": 262144, "max_position_embeddings": 32768, "sliding_window": 512,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64,
    "intermediate_size": 128, "vocab_size": 512, "max_position_embeddings": 8192,
}  # fmt: skip


def kept(**fields) -> Kept | None:
    return models.shape_of(LLAMA | fields, "mine").kept


def of_header(tmp_path, arch: str, **fields) -> models.Shape:
    given = {"attention__head_count": 4, "attention__head_count_kv": 2} | fields
    path = tiny.header(tmp_path / f"{arch}.gguf", arch, **given)
    return models.shape(models.Model(arch, "gguf", path))


class TestWindows:
    """A layer with a sliding window keeps its last tokens and no more."""

    def test_gemma_3_by_hand(self):
        """Of 18 layers the 6th, 12th and 18th keep all 4,096 tokens of 4 users, 15 keep 512: 48 MiB and 30; not 288."""
        sheet = shapes.of_config(GEMMA, "Gemma 3 270M")
        cache = sizes.cache(sheet.shape)

        assert sheet.parameters == 268_098_176  # the published count
        assert 4 * cache.bytes(4096) == (3 * 4096 + 15 * 512) * 4 * 1024 == 78 * MIB
        assert 4 * 4096 * sizes.kv_bytes_per_token(sheet.shape) == 288 * MIB

    def test_mistral_at_32k(self):
        """4,096 tokens x 128 KiB, whatever the context is beyond them."""
        answer = capacity.ask("Mistral-7B-v0.1", 80 * GIB, context=32_768)

        assert (answer.kv_bytes, answer.kv_bytes_per_token) == (0.5 * GIB, 128 * 2**10)
        assert "128.0 KiB, 32 of 32 layers keep the last 4,096, bfloat16) = 14.0 GiB" in answer.say
        assert (answer.pool_tokens, answer.longest_context) == (None, 32_768)
        assert answer.most_users == (72 * GIB - answer.weights_bytes) // (0.5 * GIB)

    @pytest.mark.parametrize("room", [1, 100, 600, 1536, 1537, 5000, 123_456])
    def test_the_most_tokens_fit_and_one_more_does_not(self, room):
        """One full layer and two with a window of 512, a byte each: 3 a token, then 1."""
        cache = sizes.Cache(1, full=1, windowed=2, window=512)

        assert cache.bytes(cache.tokens(room)) <= room < cache.bytes(cache.tokens(room) + 1)

    def test_a_step_reads_what_is_kept(self):
        """The roofline of 10,000 tokens: 10,000 of the full layer, 512 of each other."""
        cache = sizes.Cache(10, full=1, windowed=2, window=512)

        assert bounds.step_bytes(bounds.Work(7, 30, 1, cache=cache), batch=2, context_tokens=10_000) == 7 + 2 * 110_240

    @pytest.mark.parametrize(
        ("fields", "windowed"),
        [
            ({"model_type": "mistral", "sliding_window": 256}, 8),
            ({"model_type": "mistral", "sliding_window": None}, None),
            ({"layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 256}, 4),
            ({"layer_types": ["full_attention"] * 8, "sliding_window": 256}, None),
            ({"sliding_window": 256, "sliding_window_pattern": 4}, 6),
            ({"model_type": "gemma2", "sliding_window": 256}, 4),
            ({"model_type": "qwen2", "sliding_window": 256}, None),  # its use_sliding_window is false where it is not said
            ({"model_type": "qwen2", "sliding_window": 256, "use_sliding_window": True, "max_window_layers": 5}, 3),
            ({"sliding_window": 256, "use_sliding_window": False}, None),
        ],
    )
    def test_which_layers_of_a_config_have_it(self, fields, windowed):
        """Listed, by a period, from a layer on, or all of them, as Transformers takes them."""

        assert kept(**fields) == (windowed and Kept(8, windowed, 256))

    @pytest.mark.parametrize("value", ["256", -1, 2.5])
    def test_a_window_that_is_no_count(self, value):
        """Named with what stands there."""
        with pytest.raises(ModelError, match=re.escape(f"sliding_window is {value!r} in its config, which is no count")):
            kept(sliding_window=value)

    def test_a_kind_of_attention_that_is_not_counted_is_an_upper_bound(self):
        """Said in the answer."""
        config = LLAMA | {"layer_types": ["chunked_attention"] * 6 + ["full_attention"] * 2}
        answer = capacity.ask(shapes.of_config(config, "mine"), GIB)

        assert answer.say.endswith("; the KV cache is an upper bound: chunked_attention is not counted")

    @pytest.mark.parametrize(
        ("fields", "windowed"),
        [
            ({}, 4),
            ({"attention__sliding_window_pattern": 4}, 6),
            ({"attention__sliding_window_pattern": [1, 1, 0] * 2 + [0, 1]}, 5),
        ],
    )
    def test_which_layers_of_a_header_have_it(self, tmp_path, fields, windowed):
        """llama.cpp's period of the architecture, unless the header gives another or lists them."""

        assert of_header(tmp_path, "gemma2", attention__sliding_window=256, **fields).kept == Kept(8, windowed, 256)

    def test_a_header_that_does_not_say_which(self, tmp_path):
        """An upper bound: nothing is guessed."""
        found = of_header(tmp_path, "phi3", attention__sliding_window=256).kept

        assert found.bound == "its header names a window of 256 tokens, but not the layers that have it"
        assert (found.caching, found.windowed) == (8, 0)


class TestHybrids:
    """Layers that keep a state instead of a KV cache, or beside it."""

    MAMBA = {"ssm__conv_kernel": 4, "ssm__inner_size": 128, "ssm__state_size": 16}
    GROUPED = {**MAMBA, "ssm__group_count": 1}

    @pytest.mark.parametrize(
        ("arch", "fields", "caching", "state_values"),
        [
            ("jamba", {**MAMBA, "attention__head_count_kv": [0, 0, 2, 0, 0, 0, 2, 0]}, 2, 6 * (3 * 128 + 2048)),
            (
                "granitehybrid",
                {**MAMBA, "ssm__group_count": 1, "attention__head_count_kv": [0] * 7 + [2]},
                1,
                7 * (3 * 160 + 2048),
            ),
            ("qwen3next", {**MAMBA, "ssm__group_count": 2}, 2, 6 * (3 * 192 + 2048)),
            ("falcon-h1", GROUPED, 8, 8 * (3 * 160 + 2048)),
            ("lfm2", {"shortconv__l_cache": 3, "attention__head_count_kv": [0, 2] * 4}, 4, 4 * 64 * 2),
        ],
    )
    def test_a_header_by_hand(self, tmp_path, arch, fields, caching, state_values):
        """The layers with KV heads; (kernel - 1) x (inner + 2 x groups x state) + state x inner values of four bytes."""
        shape = of_header(tmp_path, arch, **fields)
        cache = sizes.cache(shape)

        assert (shape.kept.caching, cache.state_bytes) == (caching, 4 * state_values)
        assert cache.bytes(1000) == caching * 1000 * 2 * 2 * 16 * 2 + 4 * state_values

    def test_nemotron_has_layers_with_neither(self, tmp_path):
        """Without KV heads and with a feed-forward part: no cache and no state."""
        heads, feed = [0, 0, 2, 0, 0, 0, 2, 0], [0, 128, 0, 0, 128, 0, 0, 128]
        given = {"feed_forward_length": feed, "attention__head_count_kv": heads, **self.GROUPED}

        assert of_header(tmp_path, "nemotron_h", **given).kept == Kept(2, state_bytes=4 * 3 * (3 * 160 + 2048))

    def test_mamba_has_no_kv_cache_at_all(self, tmp_path):
        """Its header says 0 heads. The context takes nothing, a user takes a state."""
        answer = capacity.ask(tiny.mamba(tmp_path / "mamba.gguf"), GIB, users=10)

        assert answer.sheet.attention == "none"
        assert (answer.kv_bytes_per_token, answer.kv_bytes) == (0, 10 * 3 * 4 * (3 * 128 + 16 * 128))
        assert "and a state of 0.0 MiB each" in answer.say

    @pytest.mark.parametrize(
        "fields",
        [
            {"layer_types": ["linear_attention"] * 6 + ["full_attention"] * 2},
            {"layer_types": ["conv"] * 6 + ["full_attention"] * 2},
            {"mamba_d_state": 16},
            {"full_attention_interval": 4},
            {"hybrid_override_pattern": "M-M*"},
        ],
    )
    def test_a_config_does_not_size_them(self, fields):
        """Refused in one line, with what to give."""
        with pytest.raises(ModelError, match=r"^mine is a hybrid \(.*\): its config does not size .*; give its GGUF$"):
            kept(**fields)

    def test_a_state_that_no_rule_sizes_is_refused(self, tmp_path):
        """Not taken for a Llama."""
        with pytest.raises(ModelError, match="^the state that layers of a 'rwkv7' keep is not sized here: choose"):
            of_header(tmp_path, "rwkv7", wkv__head_size=64)

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"attention__head_count_kv": [1, 2] * 4}, "its layers have 1 to 2 heads"),
            ({"attention__key_length": 32, "attention__value_length": 16}, "its keys and values are of different width"),
        ],
    )
    def test_layers_of_different_width_are_refused(self, tmp_path, fields, reason):
        """One number would be wrong for some."""
        with pytest.raises(ModelError, match=rf"^llama does not say its shape \({reason}\)"):
            of_header(tmp_path, "llama", **fields)


class TestQuantized:
    """A config that says its weights are quantized."""

    CONFIG = LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}

    def test_its_bytes_are_not_those_of_16_bit(self):
        """A config alone does not give them: said, with what to do."""
        with pytest.raises(ModelError) as caught:
            capacity.ask(shapes.of_config(self.CONFIG, "mine"), GIB)

        assert str(caught.value) == (
            "mine is quantized (awq, 4 bits), and its config does not say its bytes: "
            "give the folder with its files, or a type such as q4_0 for its weights"
        )

    def test_with_a_type_or_with_its_files_it_is_answered(self):
        """As asked, or as stored."""
        sheet, stored = shapes.of_config(self.CONFIG, "mine"), shapes.of_config(self.CONFIG, "mine", stored_bytes=12_345)

        assert capacity.ask(sheet, GIB, dtype="q4_0").weights_bytes == sizes.bytes_of(sheet.parameters, "q4_0")
        assert capacity.ask(stored, GIB).weights_bytes == 12_345

    def test_also_in_a_table_of_the_text_model(self):
        """Where a model that sees keeps it."""

        assert shapes.of_config({"text_config": self.CONFIG}, "mine").quantized == "awq, 4 bits"


@pytest.mark.parametrize(
    ("file", "fields", "name"),
    [
        ("some-model/config.json", {}, "some-model"),
        ("some-model/config.json", {"_name_or_path": "org/its-name"}, "org/its-name"),
        ("some-model/config.json", {"_name_or_path": "/home/me/its-name"}, "some-model"),
        ("some-model/llama-9b.json", {"_name_or_path": "org/its-name"}, "llama-9b"),
    ],
)
def test_a_config_is_not_called_config(tmp_path, file, fields, name):
    """By the hub id in it, else by its folder; a file with a name of its own keeps it."""
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA | fields))

    assert shapes.of(path).name == name


@pytest.mark.engine
class TestLlamaCpp:
    """Its own server with real files of these architectures, random values in them."""

    def test_the_pools_of_windows_are_what_the_calculator_says(self, tmp_path):
        """One full layer and five with a window of 512: 2 MiB and 2.5, summed over both lines of its log."""
        model = models.Model("gemma3", "gguf", tiny.gemma3(tmp_path / "gemma3.gguf"))
        shape = models.shape(model)
        with serving.serve("llama-cpp", model, slots=4, context=4096) as server:
            found = metrics.pool(server)
        laid_out = llama_cpp.as_kept(sizes.cache(shape), 4096)

        assert (found.tokens, found.bytes) == (4 * 4096, 4 * laid_out.bytes(4096)) == (4 * 4096, 4.5 * MIB)
        assert metrics.check_pool(found, sizes.kv_bytes_per_token(shape)).good is True

    def test_the_state_of_a_hybrid_is_what_the_calculator_says(self, tmp_path):
        """One layer with a KV cache, three Mamba blocks; the state of four sequences in the log's two decimals."""
        model = models.Model("jamba", "gguf", tiny.jamba(tmp_path / "jamba.gguf"))
        cache = sizes.cache(models.shape(model))
        with serving.serve("llama-cpp", model, slots=4, context=4096) as server:
            found, log = metrics.pool(server), server.log.read_text(errors="replace")
        state = re.search(r"llama_memory_recurrent: size = +([\d.]+) MiB", log)[1]

        assert found.bytes + 4 * cache.state_bytes == 4 * cache.bytes(4096)
        assert float(state) == pytest.approx(4 * cache.state_bytes / MIB, abs=0.005)


@pytest.mark.engine
def test_the_static_cache_of_transformers_is_what_the_calculator_says(tmp_path):
    """Of a real file with one full layer and five with a window of 16: longer than the window, at it and shorter."""
    code = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, StaticCache
from helpers.weights import convert, models, sizes
path = Path(sys.argv[1])
model, made = models.resolve(str(path)), path.with_suffix("")
convert.to_safetensors(model, made)
loaded = AutoModelForCausalLM.from_pretrained(made, dtype=torch.bfloat16)
for tokens in (32, 16, 8):
    cache = StaticCache(config=loaded.config, max_cache_len=tokens)
    with torch.no_grad():
        loaded(torch.tensor([[5, 6, 7]]), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    print(held, sizes.cache(models.shape(model)).bytes(tokens))
"""
    command = [kernels.interpreter("transformers"), "-c", code, str(tiny.gemma3(tmp_path / "tiny.gguf", window=16))]
    ran = subprocess.run(command, capture_output=True, text=True, env=kernels.process_environment("transformers"))
    pairs = [line.split() for line in ran.stdout.splitlines()]

    assert len(pairs) == 3 and all(held == said for held, said in pairs), ran.stdout + ran.stderr
