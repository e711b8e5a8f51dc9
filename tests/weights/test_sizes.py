"""Bytes, computed by hand or counted in the files."""

import json
import mmap
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helpers import memory
from helpers.weights import files, models, sizes
from helpers.weights.models import Shape

MIB = 2**20

HOLD = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sum(held[::4096])
    print("ready", flush=True)
    sys.stdin.read()
"""


def shape(layers: int, kv_heads: int, head_dim: int) -> Shape:
    return Shape(layers, kv_heads, head_dim, hidden=0, vocabulary=0, context=0)


@pytest.fixture
def two_readers(tmp_path):
    """Two processes that have read the same 64 MiB file through a mapping."""
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(MIB) * 64)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", HOLD, str(file)], **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in started] == ["ready\n"] * 2
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.communicate()


@pytest.mark.parametrize(
    ("of", "bytes_per_value", "kib"),
    [
        (shape(30, 3, 64), 2, 22.5),  # SmolLM2-135M: 30 x 3 x 2 x 64 x 2 = 23,040
        (shape(30, 3, 64), 4, 45),
        (shape(32, 32, 128), 2, 512),  # Llama-2-7B
        (shape(32, 8, 128), 2, 128),  # Llama-3-8B: a quarter of the KV heads
    ],
    ids=["SmolLM2", "SmolLM2, float32", "Llama-2-7B", "Llama-3-8B"],
)
def test_kv_cache_of_a_token(of, bytes_per_value, kib):
    """Layers x KV heads x 2 x head_dim x bytes per value."""

    assert sizes.kv_bytes_per_token(of, bytes_per_value) == kib * 1024


@pytest.mark.engine
def test_kv_cache_of_the_default_model():
    """From the model's own header: 22.5 KiB at two bytes."""

    assert sizes.kv_bytes_per_token(models.shape()) == 22.5 * 1024


@pytest.mark.parametrize(
    ("dtype", "kib"),
    [
        ("bfloat16", 22.5),
        ("float32", 45),
        ("fp8", 11.25),
        ("q8_0", 22.5 * 34 / 64),
        ("q4_0", 22.5 * 18 / 64),
        ("q5_1", 22.5 * 24 / 64),
    ],
)
def test_kv_cache_by_the_name_of_its_type(dtype, kib):
    """llama.cpp's types are blocks of 32 values with their scale: q8_0 has 34 bytes, q4_0 18."""

    assert sizes.kv_bytes_per_token(shape(30, 3, 64), dtype) == kib * 1024


def test_kv_cache_of_latent_attention():
    """DeepSeek-V2-Lite: 27 layers of 512 + 64 values; keys and values of its 16 heads would be nine times as much."""
    of = replace(shape(27, 16, 128), latent=576)

    assert sizes.kv_bytes_per_token(of) == 27 * 576 * 2
    assert sizes.kv_bytes_per_token(of, "q8_0") == 27 * 576 * 34 / 32


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: sizes.bytes_of(32, "int5"),
            "no dtype is called 'int5': choose one of float32, bfloat16, float16, fp8, int8, q4_0",
        ),
        (lambda: sizes.kv_bytes_per_token(shape(30, 3, 64), "int5"), "no KV cache is stored as 'int5': choose one of float32"),
        (lambda: sizes.kv_bytes_per_token(shape(30, 3, 64), "q4_k"), "no KV cache is stored as 'q4_k': choose one of float32"),
        (
            lambda: sizes.kv_bytes_per_token(shape(32, 32, 80), "q8_0"),
            "a KV cache as q8_0 is made of blocks of 32, and a head has 80",
        ),
    ],
)
def test_a_type_that_does_not_exist(ask, message):
    """Named, with those that do."""
    with pytest.raises(sizes.UnknownDtype) as caught:
        ask()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "dtype", "size"), [(64, "q8_0", 68), (33, "q4_0", 36), (256, "q6_k", 210), (3, "bfloat16", 6)]
)
def test_bytes_of_values(values, dtype, size):
    """Whole blocks."""

    assert sizes.bytes_of(values, dtype) == size


@pytest.mark.engine
def test_gguf_weights_are_the_sum_of_their_tensors():
    """Q4_1 is 20 bytes per 32 values, Q8_0 34; with the header the file is a little larger."""
    path, found = models.weights("gguf"), sizes.weights_bytes("gguf")
    per_value = {"F32": 4, "Q4_1": 20 / 32, "Q8_0": 34 / 32, "Q6_K": 210 / 256, "Q5_1": 24 / 32}
    by_hand = sum(per_value[t.tensor_type.name] * t.n_elements for t in files.read_gguf(path).tensors)

    assert found == by_hand
    assert found < path.stat().st_size < found + 8 * MIB


@pytest.mark.engine
def test_bf16_weights_are_two_bytes_a_value():
    """134,515,008 values (Hugging Face's count for this model); norms stay float32 in GGUF: 61 of 576."""

    assert sizes.weights_bytes("safetensors") == 134_515_008 * 2
    assert sizes.weights_bytes("gguf-bf16") == 134_515_008 * 2 + 61 * 576 * 2


def test_safetensors_weights_are_the_sum_over_the_files(tmp_path):
    """Two files of 8 and 6 bytes of tensors."""
    (tmp_path / "config.json").write_text("{}")
    for name, size in (("a", 8), ("b", 6)):
        header = json.dumps({name: {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
        (tmp_path / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))

    assert sizes.weights_bytes("safetensors", models.resolve(str(tmp_path))) == 14


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is measured on Linux")
class TestTree:
    """What processes hold, where the system says it."""

    def test_this_process(self):
        """PSS is made of anonymous, file-backed and shared memory, and is at most the peak RSS."""
        found = memory.tree([psutil.Process()])

        assert found.processes == 1
        assert 0 < found.anonymous_bytes + found.file_bytes <= found.pss_bytes <= found.peak_rss_bytes

    def test_what_is_allocated_is_seen(self):
        """64 MiB of touched anonymous memory raise PSS by as much, within 4 MiB."""
        before = memory.tree([psutil.Process()])
        held = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held.write(b"\1" * 64 * MIB)
        after = memory.tree([psutil.Process()])
        held.close()

        assert after.anonymous_bytes - before.anonymous_bytes == pytest.approx(64 * MIB, abs=4 * MIB)

    def test_a_shared_file_counts_once_in_pss(self, two_readers):
        """Two processes map one 64 MiB file: RSS counts it twice, PSS once."""
        found = memory.tree(two_readers)
        rss = sum(process.memory_info().rss for process in two_readers)

        assert found.processes == 2
        assert rss > 128 * MIB
        assert 64 * MIB <= found.file_bytes < 96 * MIB
        assert found.pss_bytes < rss - 60 * MIB

    def test_children_belong_to_this_process(self, two_readers):
        """``here`` counts them."""

        assert memory.here().processes >= 3

    def test_a_process_that_has_ended_is_left_out(self, two_readers):
        """One of two has ended, whether its parent has asked for its exit code or not."""
        two_readers[0].kill()
        while two_readers[0].status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        unasked = memory.tree(two_readers)
        two_readers[0].wait()
        asked = memory.tree(two_readers)

        assert (unasked.processes, asked.processes) == (1, 1)
        assert unasked.pss_bytes > 64 * MIB


def test_nothing_to_measure_is_none():
    """No process: not 0 bytes but no figure, and the repr says so."""
    found = memory.tree([])

    assert (found.pss_bytes, found.anonymous_bytes, found.file_bytes, found.peak_rss_bytes) == (None, None, None, None)
    assert "PSS not measurable" in repr(found)


def test_what_the_system_does_not_say_is_none(monkeypatch):
    """With a mock of a system that gives RSS and no PSS."""
    monkeypatch.setattr(memory, "_rollup", lambda process: {"VmHWM": 4096})
    found = memory.tree([psutil.Process()])

    assert (found.pss_bytes, found.peak_rss_bytes) == (None, 4096)


def test_what_of_a_mapped_file_is_in_memory(tmp_path):
    """Nothing before it is touched, all of it afterwards; the system may bring in a little more than was read."""
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(MIB) * 16)
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as held:
        before, quarter = memory.mapped_bytes(file), sum(held[: 4 * MIB : 4096]) and memory.mapped_bytes(file)
        whole = sum(held[::4096]) and memory.mapped_bytes(file)

    assert before == 0 and 4 * MIB <= quarter < 8 * MIB and whole == 16 * MIB
    assert memory.mapped_bytes(file) == 0
