"""The cells about TensorRT-LLM that never ran: every name and argument stands in its documentation."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from offenders import over

from helpers import machine, paths
from helpers.servers import tensorrt_llm

API = json.loads(Path(__file__).with_name("tensorrt_llm_api.json").read_text())
(NOTEBOOK,) = (path for path in paths.notebooks() if path.name.startswith("06"))


def never_run() -> list[str]:
    """The sources of the cells that need the package; top-level ``await`` and ``async for`` allowed."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return [cell.source for cell in cells if "tensorrt-llm" in cell.metadata.get("requires", [])]


def problems(source: str) -> list[str]:
    """Names imported from the package, arguments of its calls and members of its enumerations that are not documented."""
    tree = compile(source, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    known, found = API["arguments"], []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("tensorrt_llm"):
            found += [f"import {name.name}" for name in node.names if name.name not in {*known, *API["members"]}]
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            if called in known:
                found += [f"{called}({word.arg}=)" for word in node.keywords if word.arg not in known[called]]
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in API["members"]:
            found += [f"{node.value.id}.{node.attr}"] if node.attr not in API["members"][node.value.id] else []
    return found


def test_there_are_such_cells():
    """The test below has something to look at."""

    assert len(never_run()) >= 5


@over(lambda: {f"cell {number}": {"source": source} for number, source in enumerate(never_run(), 1)}, "source")
def test_every_name_and_argument_is_documented(source):
    """Spelled as in release 1.2."""

    assert problems(source) == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("from tensorrt_llm import LLMM", "import LLMM"),
        ("llm = LLM(model='m', max_batchsize=3)", "LLM(max_batchsize=)"),
        ("async for x in llm.generate_async('a', stream=True): pass", "generate_async(stream=)"),
        ("QuantAlgo.FP7", "QuantAlgo.FP7"),
    ],
)
def test_a_misspelling_is_found(source, problem):
    """The check bites."""

    assert problems(source) == [problem]


def test_the_servers_options_are_documented():
    """In code and prose of the notebook."""
    text = " ".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells)

    assert set(re.findall(r"--[a-z]+_[a-z_]+", text)) <= set(API["options"])


@pytest.mark.parametrize(
    ("gpu", "capability", "package", "says"),
    [
        (False, None, False, "no NVIDIA GPU here"),
        (True, "7.5", True, "the GPU has compute capability 7.5; TensorRT-LLM needs 8.0 (Ampere) or newer"),
        (True, "9.0", False, "the package tensorrt_llm is not installed in the kernel 'tensorrt-llm'"),
        (True, "9.0", True, None),
    ],
)
def test_what_is_missing_is_said_in_this_order(monkeypatch, gpu, capability, package, says):
    """The machine first, then the installation."""
    monkeypatch.setattr(machine, "has_gpu", lambda: gpu)
    monkeypatch.setattr(machine, "compute_capability", lambda: capability)
    monkeypatch.setattr(tensorrt_llm, "_importable", lambda: package)

    assert tensorrt_llm.missing() == says
