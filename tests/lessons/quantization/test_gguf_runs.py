"""Loading and decoding inside llama.cpp: what is counted, and what is refused before anything starts."""

import subprocess
import sys

import pytest

from helpers import kernels, paths
from helpers.bench import checks
from helpers.lessons.quantization import gguf_runs, gguf_types
from helpers.weights.files import ModelError


@pytest.fixture
def files(model_file):
    """The model as it is shipped, by its type."""
    return {"Q4_1": model_file}


@pytest.mark.engine
def test_a_loaded_file_is_mapped_whole(files):
    """Its pages are in the process after a first answer; the rest beside them is small for so small a model."""
    found = gguf_runs.load(files)["Q4_1"]

    assert found.load_s > 0
    if found.mapped_bytes is not None:  # not measurable on every system
        assert found.mapped_bytes + found.anonymous_bytes > 0.9 * gguf_types.contents(files["Q4_1"]).tensors_bytes


@pytest.mark.engine
def test_as_many_repeats_and_tokens_as_asked(files):
    """Two rates for two repeats, the warm-up is none of them; every answer has its tokens, and copies agree."""
    found = gguf_runs.decode(files | {"again": files["Q4_1"]}, repeats=2, tokens=4, answer_tokens=3)

    assert [len(each.tokens_per_s) for each in found.values()] == [2, 2]
    assert {len(answer) for each in found.values() for answer in each.answers} == {3}
    assert len(found["Q4_1"].answers) == len(checks.PROMPTS)
    assert found["Q4_1"].answers == found["again"].answers


@pytest.mark.engine
@pytest.mark.parametrize("numbers", [{"repeats": 0}, {"tokens": 0}, {"answer_tokens": -1}])
def test_numbers_below_one(numbers, files):
    """Refused by name."""
    with pytest.raises(ValueError, match="each must be at least 1$"):
        gguf_runs.decode(files, **numbers)


def test_a_file_that_is_not_there(tmp_path):
    """Refused before llama.cpp starts."""
    with pytest.raises(ModelError, match="is not there: give the path of a .gguf file$"):
        gguf_runs.load({"none": tmp_path / "none.gguf"})


@pytest.mark.engine
def test_without_llama_cpp_the_next_step_is_said(tmp_path, monkeypatch, files):
    """The kernel is not installed: one line."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    with pytest.raises(kernels.MissingKernel, match="^the kernel 'llama-cpp' is not installed: run `nox -s tour -- llama-cpp`$"):
        gguf_runs.load(files)


def test_the_record_of_a_type_that_does_not_exist():
    """Exit code 1 and one line, before anything is measured."""
    command = [sys.executable, "-m", "helpers.studies.quantization", "--types", "Q8_0,Q4_X"]
    ran = subprocess.run(command, capture_output=True, text=True)

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (1, "", 1)
    assert ran.stderr.startswith("no GGUF type is called 'Q4_X': choose one like")
