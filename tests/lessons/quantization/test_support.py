"""The support table: each framework asked in its own interpreter, the rest by citation."""

import sys

import pytest

from helpers import kernels, paths
from helpers.collection import document
from helpers.lessons.quantization import support
from helpers.lessons.quantization.support import FRAMEWORKS, METHODS, Support

EVERY_CITED = [cell for name in FRAMEWORKS for cell in support.cited(name)]
DOCUMENT = document.by_framework("quantization")


def test_every_cell_has_a_citation_for_machines_that_cannot_ask():
    """Five frameworks and eight kinds of weights, none without a source."""

    assert [(cell.framework, cell.method) for cell in EVERY_CITED] == [(f, m) for f in FRAMEWORKS for m in METHODS]
    assert all(cell.detail and cell.known == "by citation" and cell.here is None for cell in EVERY_CITED)


def test_the_document_has_five_columns_and_no_gguf():
    """Its answers are kept as they are, the star too; what it does not ask has none."""

    assert list(document.said("quantization").columns) == ["INT8", "INT4", "FP8", "GPTQ", "AWQ"]
    assert support.said(DOCUMENT, "vllm", "FP8") == "Yes*"
    assert support.said(DOCUMENT, "vllm", "GGUF") is None


def test_what_changed_since_the_document():
    """By citation alone: Transformers has FP8 now, and nothing else changed."""
    changed = [(cell.framework, cell.method) for cell in support.changed(EVERY_CITED, DOCUMENT)]

    assert changed == [("transformers", "FP8")]


def test_a_changed_answer_is_marked_in_the_table():
    """The document's answer, an arrow, the new one; others stand alone."""
    shown = support.today(EVERY_CITED, DOCUMENT)

    assert shown.loc["HF Transformers", "FP8"] == "No → cited"
    assert shown.loc["vLLM", "AWQ"] == "cited"


def test_each_kind_of_answer_has_its_word():
    """Whether it ran, is there, is not for this machine, is only cited, or is not taken."""
    states = [
        (True, True, "ran here"), (True, True, "in the package"), (True, None, "in the package"), (True, False, "in the package"),
        (True, None, "by citation"), (False, False, "in the package"), (None, None, "in the package"),
    ]  # fmt: skip
    words = [Support("vllm", "FP8", *state, "x").text for state in states]

    assert words == ["ran here", "has it", "has it", "not here", "cited", "no", "?"]


def test_what_ran_elsewhere_goes_into_the_table():
    """And a run for a cell that does not exist is refused."""
    (cell,) = [c for c in support.with_runs(EVERY_CITED, {("vllm", "INT8"): "W8A8"}) if c.detail == "W8A8"]

    assert (cell.method, cell.here, cell.known) == ("INT8", True, "ran here")
    with pytest.raises(ValueError, match="no such cell"):
        support.with_runs(EVERY_CITED, {("vllm", "INT2"): "x"})


def test_a_framework_that_does_not_exist():
    """Those there are."""
    with pytest.raises(ValueError, match="^no framework is called 'ollama': choose one of transformers, vllm, "):
        support.probe("ollama")


def test_a_framework_that_is_not_installed_is_cited(tmp_path, monkeypatch):
    """The row says why it was not asked."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    row = support.probe("sglang")

    assert {cell.known for cell in row} == {"by citation"}
    assert row[0].detail.startswith("not installed; ")


@pytest.mark.engine
def test_a_probe_that_fails_is_cited_with_its_last_line(monkeypatch):
    """The lab has no vLLM: its import error is in every cell."""
    monkeypatch.setattr(kernels, "interpreter", lambda kernel: sys.executable)
    row = support.probe("vllm")

    assert {cell.known for cell in row} == {"by citation"}
    assert "its probe failed (ModuleNotFoundError: No module named 'vllm'); " in row[0].detail


@pytest.mark.engine
@pytest.mark.parametrize("framework", ["transformers", "vllm", "llama-cpp", "sglang"])
def test_an_installed_framework_is_asked(framework):
    """Eight cells from its own interpreter, none by citation, each with what it rests on."""
    kernels.interpreter(framework)  # else what is missing comes back as cells by citation
    row = support.probe(framework)

    assert [cell.method for cell in row] == list(METHODS)
    assert {cell.known for cell in row} <= {"ran here", "in the package"}, row
    assert all(cell.detail for cell in row)


@pytest.mark.engine
def test_llama_cpp_computes_its_types_and_has_none_for_the_others():
    """Q8_0, the 4-bit types and FP4 are quantized and unpacked again; FP8, GPTQ, AWQ are not among its types."""
    row = {cell.method: cell for cell in support.probe("llama-cpp")}

    assert [method for method, cell in row.items() if cell.supported] == ["INT8", "INT4", "GGUF", "MXFP4", "NVFP4"]
    assert row["INT4"].detail == "Q4_0, Q4_1, Q4_K"


@pytest.mark.engine
def test_transformers_quantizes_and_computes():
    """INT8 and INT4 ran on a tiny model; GPTQ and AWQ are in its mapping and need another package."""
    row = {cell.method: cell for cell in support.probe("transformers")}

    assert (row["INT8"].known, row["INT4"].known) == ("ran here", "ran here")
    assert row["GPTQ"].supported and "gptqmodel" in row["GPTQ"].detail
    assert row["NVFP4"].supported and "kernels" in row["NVFP4"].detail
