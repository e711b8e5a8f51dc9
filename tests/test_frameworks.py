"""What an engine is called beside its figures."""

import pytest

from helpers import frameworks
from helpers.servers import engines, llama_cpp


@pytest.mark.parametrize(
    ("name", "gpu", "said"),
    [
        ("sglang", False, "SGLang (PyTorch attention)"),
        ("sglang", True, "SGLang"),
        ("vllm", False, "vLLM"),
        ("llama-cpp-q4_0", False, "llama.cpp (Q4_0)"),
    ],
)
def test_an_engine_without_its_own_kernels_says_so_beside_its_figures(name, gpu, said):
    """On a CPU; on a GPU its kernels run."""
    assert frameworks.label(name, gpu) == said


def test_where_nothing_is_said_the_figures_are_of_this_machine(monkeypatch):
    """As those of a notebook that measures live."""
    monkeypatch.setattr(frameworks.machine, "has_gpu", lambda: False)
    assert frameworks.label("sglang") == "SGLang (PyTorch attention)"
    assert repr(engines.get("sglang")) == "<SGLang (PyTorch attention): bf16 weights, kernel sglang>"


def test_figures_of_this_machine_name_the_weights_that_were_served_here(monkeypatch):
    """A record's are those it was made with; what was not served has its own."""
    monkeypatch.setattr(frameworks, "_served", {})
    frameworks.serves("llama-cpp", "Q4_K_M")

    assert [frameworks.weights("llama-cpp", gpu) for gpu in (None, False, True)] == ["Q4_K_M", "Q4_1", "Q4_1"]
    assert frameworks.weights("vllm") == "bf16"


def test_no_two_rows_look_alike():
    """Neither in their names nor in a figure."""
    rows = frameworks.FRAMEWORKS.values()

    assert len({row.title for row in rows}) == len({(row.colour, row.marker) for row in rows}) == len(rows)


def test_llama_cpp_comes_on_three_types():
    """The one it repacks, the one that is shipped, and the values that the others load."""
    assert [row.dtype for row in llama_cpp.ROWS] == ["Q4_0", "Q4_1", "bf16"]
