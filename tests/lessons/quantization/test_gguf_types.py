"""GGUF types made from the unquantized weights: what is inside, and everything that is refused."""

import os
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from helpers import kernels, paths
from helpers.lessons.quantization import gguf_types
from helpers.lessons.quantization.gguf_types import UnknownType
from helpers.weights import files, models, same_values
from helpers.weights.files import ModelError

pytestmark = pytest.mark.engine

COMMAND = [sys.executable, "-m", "helpers.lessons.quantization.gguf_types"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths.cache_dir().mkdir(parents=True)
    return paths.cache_dir()


def test_a_type_is_made_once_and_holds_what_its_name_says(cache, unquantized_file):
    """Q8_0: 211 matrices in that type, 61 norms as they were; a second call leaves the file alone."""
    path = gguf_types.made("Q8_0", unquantized_file)
    changed_ns = path.stat().st_mtime_ns
    again = gguf_types.made("Q8_0", unquantized_file)

    assert gguf_types.contents(path).tensors == {"Q8_0": 211, "F32": 61}
    assert (again, again.stat().st_mtime_ns, list(cache.iterdir())) == (path, changed_ns, [path])


def test_k_types_fall_back_where_a_row_is_no_multiple_of_256(cache, unquantized_file):
    """A row has 576 values in most matrices: none of these is a K type, whatever the file's name says."""
    path = gguf_types.made("Q4_K_M", unquantized_file)
    tensors = [tensor for tensor in files.read_gguf(path).tensors if len(tensor.shape) == 2]

    assert {bool(t.shape[0] % 256) for t in tensors if t.tensor_type.name.endswith("_K")} == {False}
    assert sum(int(t.shape[0]) % 256 != 0 for t in tensors) == 181
    assert sum(t.tensor_type.name.endswith("_K") for t in tensors) == 30


def test_bits_per_weight_count_scales_and_norms(tmp_path):
    """64 values in Q8_0 are two blocks of 34 bytes, 8.5 bits each; two float32 beside them are 64 bits more."""
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("matrix.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("norm.weight", np.ones(2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf_types.contents(tmp_path / "small.gguf")

    assert (found.values, found.tensors_bytes) == (66, 2 * 34 + 8)
    assert found.bits_per_weight == pytest.approx((64 * 8.5 + 64) / 66)
    assert (found.tensors, found.quantized) == ({"Q8_0": 1, "F32": 1}, {"Q8_0": 1})


@pytest.mark.parametrize("name", ["Q4_K_X", "q4_k_m", "", "GUESSED", "INT4"])
def test_a_type_that_does_not_exist(cache, name, unquantized_file):
    """One line that names some, and nothing is made."""
    with pytest.raises(UnknownType) as caught:
        gguf_types.made(name, unquantized_file)

    assert str(caught.value).startswith(f"no GGUF type is called {name!r}: choose one like Q8_0, Q6_K, ")
    assert "\n" not in str(caught.value) and list(cache.iterdir()) == []


def test_a_source_that_is_quantized_already(cache, model_file):
    """It says what is inside and what a second rounding does; nothing is made."""
    with pytest.raises(ModelError) as caught:
        gguf_types.made("Q4_0", model_file)

    assert str(caught.value) == (
        "SmolLM2-135M-Instruct.Q4_1.gguf is quantized already (210 tensors Q4_1, 1 tensors Q8_0): "
        "a second rounding adds its error to the first; take unquantized weights, or allow_requantize"
    )
    assert list(cache.iterdir()) == []


def test_a_quantized_source_that_is_allowed(cache, unquantized_file, model_file):
    """Whoever says so gets the file, under a name of that source's own."""
    path = gguf_types.made("Q8_0", model_file, allow_requantize=True)

    assert path != gguf_types.made_path("Q8_0", unquantized_file)
    assert gguf_types.contents(path).quantized == {"Q8_0": 211}


def test_a_damaged_source(cache, tmp_path, unquantized_file):
    """Refused before the quantizer sees it."""
    broken = tmp_path / "cut.gguf"
    broken.write_bytes(unquantized_file.read_bytes()[:-4096])

    with pytest.raises(ModelError, match="get it again$"):
        gguf_types.made("Q8_0", broken)
    assert list(cache.iterdir()) == []


def test_what_the_quantizer_refuses_is_said_in_one_line(cache, unquantized_file):
    """IQ1_S needs an importance matrix: llama.cpp's own reason, and no half file."""
    with pytest.raises(ModelError) as caught:
        gguf_types.made("IQ1_S", unquantized_file)

    assert str(caught.value).startswith(f"{unquantized_file.name} could not be made into IQ1_S: ") and "\n" not in str(
        caught.value
    )
    assert list(cache.iterdir()) == []


def test_a_quantizer_that_is_killed_leaves_no_half_file(cache, unquantized_file):
    """Only its staging folder stays, and the next one sweeps it."""
    command = [
        kernels.interpreter("llama-cpp"),
        "-m",
        "helpers.lessons.quantization.gguf_types",
        "Q2_K",
        "--source",
        str(unquantized_file),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(cache.glob(".making-*/made.gguf")):
        time.sleep(0.01)
    process.kill()

    assert process.wait() == -9 and not gguf_types.made_path("Q2_K", unquantized_file).exists()
    gguf_types.made("Q8_0", unquantized_file)
    assert [path.name for path in cache.iterdir()] == [gguf_types.made_path("Q8_0", unquantized_file).name]


def test_without_llama_cpp_the_next_step_is_said(cache, tmp_path, monkeypatch, unquantized_file):
    """The kernel is not installed: one line."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    with pytest.raises(kernels.MissingKernel, match="^the kernel 'llama-cpp' is not installed: run `nox -s tour -- llama-cpp`$"):
        gguf_types.made("Q8_0", unquantized_file)


def test_the_name_changes_with_the_content_of_the_source(cache, tmp_path):
    """Another byte is another file."""
    one, other = tmp_path / "model.gguf", tmp_path / "b" / "model.gguf"
    other.parent.mkdir()
    one.write_bytes(b"one")
    other.write_bytes(b"two")
    first, second = (gguf_types.made_path("Q8_0", path).name for path in (one, other))

    assert first != second and first.startswith("model-") and first.endswith("-Q8_0.gguf")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Q4_X"], "no GGUF type is called 'Q4_X': choose one like"),
        (["Q8_0", "--source", "/no/such/file.gguf"], "/no/such/file.gguf is not there: give the path of a .gguf file"),
        (["Q4_0", "--source", "QUANTIZED FILE"], "is quantized already"),
    ],
)
def test_the_command_refuses_in_one_line(cache, arguments, said, model_file):
    """Exit code 1, no traceback, nothing made."""
    arguments = [str(model_file) if one == "QUANTIZED FILE" else one for one in arguments]
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=dict(os.environ))

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (1, "", 1)
    assert said in ran.stderr and list(cache.iterdir()) == []


def test_the_servers_q4_0_is_the_file_that_is_measured_here():
    """The same quantizer on the same values; no proof holds them against the source, whose values they are not."""
    served = models.weights("gguf-q4_0")
    found = gguf_types.contents(served)

    assert files.sha256(served) == files.sha256(gguf_types.made("Q4_0"))
    assert next(iter(found.tensors)) == "Q4_0" and found.bits_per_weight < 6
    with pytest.raises(ModelError, match="as gguf-q4_0 is rounded once more: its values are others"):
        same_values.weights_proof("gguf-q4_0")
