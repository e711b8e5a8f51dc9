"""The proof that made weights are the source's values, on a tiny Llama and on the default model; and that it bites."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from helpers import paths
from helpers.weights import files, models, same_values
from helpers.weights.files import ModelError

HASHES = {"source_sha256": "0", "made_sha256": "0"}
SHAPES = {"token_embd.weight": (10, 64), "blk.0.attn_q.weight": (64, 64), "blk.0.attn_k.weight": (32, 64)}
HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight", "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight", "output_norm.weight": "model.norm.weight",
}  # fmt: skip
HEADS = {"blk.0.attn_q.weight": 2, "blk.0.attn_k.weight": 1}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths.cache_dir().mkdir(parents=True)
    return paths.cache_dir()


@pytest.fixture
def tiny(tmp_path) -> models.Model:
    """A Llama of one layer and four tensors: three in Q4_1, a norm in float32."""
    path = tmp_path / "tiny.gguf"
    writer, draw = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    for name, shape in SHAPES.items():
        data = quants.quantize(draw.normal(size=shape).astype(np.float32), Type.Q4_1)
        writer.add_tensor(name, data, raw_dtype=Type.Q4_1)
    writer.add_tensor("output_norm.weight", draw.normal(size=64).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return models.resolve(str(path))


def values(model: models.Model) -> dict[str, np.ndarray]:
    """The tiny model's tensors under Hugging Face's names, in its order of rows, as bf16 bits (uint16).

    Q4_1 by hand: 32 values share a scale and a minimum, both float16, then 16 bytes: low halves first.
    """
    found = {}
    for tensor in files.read_gguf(model.path).tensors:
        if tensor.tensor_type == Type.Q4_1:
            blocks = np.asarray(tensor.data).reshape(-1, 20)
            scale, least = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
            numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
            plain = (numbers * scale + least).reshape(SHAPES[tensor.name])
        else:
            plain = np.asarray(tensor.data)
        if heads := HEADS.get(tensor.name):  # llama.cpp has a head's rows in pairs, Hugging Face in halves
            plain = plain.reshape(heads, -1, 2, 64).swapaxes(1, 2).reshape(-1, 64)
        rounded = quants.quantize(np.ascontiguousarray(plain), Type.BF16)
        found[HF_NAMES[tensor.name]] = rounded.view(np.uint16).reshape(plain.shape)
    return found


def write(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """``tensors`` as a folder of one safetensors file."""
    folder.mkdir(exist_ok=True)
    header, end = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(data.shape), "data_offsets": [end, end := end + data.nbytes]}
    head = json.dumps(header).encode()
    content = len(head).to_bytes(8, "little") + head + b"".join(data.tobytes() for data in tensors.values())
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")
    return folder


def compare(model: models.Model, folder: Path) -> same_values.WeightsProof:
    return same_values.compare(model.path, folder, "safetensors", HASHES)


@pytest.mark.parametrize(("value", "bits"), [(1.0, 0x3F80), (-2.5, 0xC020), (1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82), (0, 0)])
def test_rounding_to_bf16(value, bits):
    """To the nearest; two ties go to the even one."""

    assert same_values.round_to_bf16(np.float32([value])).tolist() == [bits]


def test_rounding_is_that_of_the_gguf_library():
    """On a million numbers of all sizes."""
    numbers = np.random.default_rng(1).normal(size=1_000_000).astype(np.float32) * np.float32(1e-3)

    assert np.array_equal(same_values.round_to_bf16(numbers), quants.quantize(numbers, Type.BF16).view(np.uint16))


def test_equal_values_are_proven(tiny, tmp_path):
    """Names, dtypes, order of Q and K rows, and every value."""
    found = compare(tiny, write(tmp_path / "made", values(tiny)))

    assert found.same
    assert (found.tensors_checked, found.values_checked) == (4, 64 * (10 + 64 + 32 + 1))
    assert (found.source_dtypes, found.dtypes) == ({"Q4_1": 3, "F32": 1}, {"BF16": 4})
    assert found.dequantized == tuple(SHAPES) and found.checked == "all tensors"
    assert str(found).startswith("safetensors: 6,848 values of 4 tensors (all tensors) equal the GGUF 0, 3 of its tensors")


def test_one_changed_bit_is_found(tiny, tmp_path):
    """The lowest of one value among 6,848."""
    tensors = values(tiny)
    tensors["model.layers.0.self_attn.k_proj.weight"][17, 3] ^= 1
    found = compare(tiny, write(tmp_path / "made", tensors))

    assert not found.same and found.differing == ("blk.0.attn_k.weight",)
    assert "1 tensors differ from the GGUF 0" in str(found) and str(found).endswith(": blk.0.attn_k.weight")


def test_rows_in_the_other_formats_order_are_found(tiny, tmp_path):
    """The right numbers of a Q matrix, not put back into halves."""
    tensors = values(tiny)
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].reshape(2, 2, 16, 64).swapaxes(1, 2).reshape(64, 64)

    assert compare(tiny, write(tmp_path / "made", tensors)).differing == ("blk.0.attn_q.weight",)


def test_a_missing_and_a_strange_tensor_are_found(tiny, tmp_path):
    """By the names they go by."""
    tensors = values(tiny)
    tensors["model.mask.weight"] = tensors.pop("model.norm.weight")

    assert compare(tiny, write(tmp_path / "made", tensors)).differing == ("model.mask.weight", "output_norm.weight")


def test_an_empty_folder_proves_nothing(tiny, tmp_path):
    """No value was compared."""
    found = compare(tiny, write(tmp_path / "made", {}))

    assert (found.same, found.values_checked) == (False, 0)


@pytest.mark.parametrize(("bits", "held"), [(0x3F800000, [0x3F80]), (0x3F800001, None)])
def test_float32_is_taken_only_where_it_holds_bf16_values(bits, held):
    """As llama.cpp's norms do; a float32 that bf16 cannot hold is another value."""
    found = same_values.plain_bits(np.array([bits], np.uint32).view(np.uint8), "F32")

    assert (found if found is None else found.tolist()) == held


def test_a_good_verdict_is_kept_until_the_content_changes(tiny, tmp_path, cache):
    """Found again by its hashes; after a change compared again, and bad; a bad one is not kept."""
    made = write(models.made_path("safetensors", tiny), values(tiny))
    first = same_values.weights_proof("safetensors", tiny)
    kept = made.with_name(made.name + ".proof.json")
    kept.write_text(kept.read_text().replace('"all tensors"', '"read from the file"'))
    second = same_values.weights_proof("safetensors", tiny)
    tensors = values(tiny)
    tensors["model.norm.weight"][0] ^= 1
    write(made, tensors)
    third = same_values.weights_proof("safetensors", tiny)
    kept.write_text("not JSON")

    assert (first.same, first.checked, second.checked) == (True, "all tensors", "read from the file")
    assert third.differing == ("output_norm.weight",)
    assert same_values.weights_proof("safetensors", tiny).differing == ("output_norm.weight",)


def test_weights_that_were_not_made_have_nothing_to_compare(tiny):
    """They are loaded as they are."""
    with pytest.raises(ModelError, match="^tiny as gguf is loaded as it is: nothing was made of it"):
        same_values.weights_proof("gguf", tiny)


def test_an_architecture_with_an_unknown_order_of_rows_is_refused(tiny, tmp_path):
    """Rather than compared wrongly."""
    content = tiny.path.read_bytes().replace(b"llama", b"gemma")
    tiny.path.write_bytes(content)

    with pytest.raises(ModelError, match="^architecture 'gemma': the order of its rows in GGUF is not known here"):
        compare(tiny, write(tmp_path / "made", {"model.norm.weight": np.zeros(64, np.uint16)}))


@pytest.mark.parametrize(
    ("most", "chosen"), [(12_000_000, ["a", "b", "c", "s", "d"]), (5_000_000, ["s", 1]), (1_000, ["s", 1]), (9_000_000, ["s", 2])]
)
def test_which_tensors_are_compared(most, chosen):
    """All if they fit, else every small one and as many large ones as fit, at least one; the same every time."""
    sizes = {"a": 3_000_000, "b": 3_000_000, "c": 3_000_000, "s": 900_000, "d": 2_000_000}
    found = same_values.choose(sizes, most)

    assert found == same_values.choose(sizes, most)
    if isinstance(chosen[1], str):
        assert found == chosen
    else:
        assert "s" in found and len(found) - 1 >= chosen[1] and len(found) < 5


@pytest.mark.engine
@pytest.mark.parametrize("form", ["gguf-bf16", "safetensors"])
def test_the_default_models_made_weights_are_the_sources_values(form):
    """All 134,515,008, of 272 tensors, 211 of them quantized in the source."""
    found = same_values.weights_proof(form)

    assert found.same, str(found)
    assert (found.source_sha256, found.tensors_checked, found.values_checked) == (models.GGUF_SHA256, 272, 134_515_008)
    assert (found.source_dtypes, len(found.dequantized)) == ({"Q8_0": 1, "F32": 61, "Q4_1": 210}, 211)


@pytest.mark.engine
def test_one_changed_value_of_the_default_model_is_found(tmp_path):
    """The last two bytes of a copy's last tensor."""
    copy = tmp_path / "copy.gguf"
    shutil.copy(models.weights("gguf-bf16"), copy)
    tensor = files.read_gguf(copy).tensors[100]
    at, name = int(tensor.data_offset) + int(tensor.n_bytes) - 2, tensor.name
    with copy.open("r+b") as file:
        file.seek(at)
        low = file.read(1)[0]
        file.seek(at)
        file.write(bytes([low ^ 1]))
    found = same_values.compare(models.weights("gguf"), copy, "gguf-bf16", HASHES)
    copy.unlink()

    assert found.differing == (name,)
