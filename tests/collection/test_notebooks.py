"""What every committed notebook is held to."""

import ast
import copy
import re
from importlib import import_module

import nbformat
import pytest
import tiny
from books import NOTEBOOKS, claim_cells, code_cells, committed_claims, each_notebook, lesson_cells, markdown

from helpers import paths
from helpers.collection import bindings, claims, notebooks, run

HEADINGS = ("## What you measured", "## Exercises", "## What's next")
ROWS = ("Before this", "Minutes", "Hardware", "Download")
FRAMEWORK_HEADINGS = ["Load", "Generate", "Chat template", "Stream", "Batch", "Memory", "Serve over HTTP"]


def test_there_are_notebooks():
    """The collection is not empty: the tests below have something to look at."""

    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(17)]


@each_notebook
def test_committed_in_canonical_bytes(path, notebook):
    """The file is exactly what `nox -s outputs` would write for these cells and outputs."""

    assert path.read_text() == notebooks.canonical(copy.deepcopy(notebook))


def test_a_stream_that_came_in_pieces_is_written_as_one():
    """How often a kernel flushes is chance; what was printed is not."""
    pieces = [nbformat.v4.new_output("stream", text=text) for text in ("a: ", "True\n")]
    cell = nbformat.v4.new_code_cell("x", outputs=[*pieces, nbformat.v4.new_output("stream", name="stderr", text="b")])
    book = nbformat.v4.new_notebook(
        cells=[cell], metadata={"collection": {}, "kernelspec": {"name": "lab", "display_name": "Lab"}}
    )
    written = nbformat.reads(notebooks.canonical(book), as_version=4)

    assert [(output.name, output.text) for output in written.cells[0].outputs] == [("stdout", "a: True\n"), ("stderr", "b")]


def test_a_collapsed_cell_stays_collapsed():
    """What JupyterLab hides is kept; when a cell ran is not."""
    hidden = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    cell = nbformat.v4.new_code_cell("x", metadata={**hidden, "execution": {"iopub.execute_input": "2026"}})
    metadata = {"collection": {}, "kernelspec": {"name": "lab", "display_name": "Lab"}}
    written = nbformat.reads(notebooks.canonical(nbformat.v4.new_notebook(cells=[cell], metadata=metadata)), as_version=4)

    assert written.cells[0].metadata == hidden


@each_notebook
def test_small(path):
    """A notebook stays under 1 MB."""

    assert path.stat().st_size < 1_000_000


@each_notebook
def test_executed_from_top_to_bottom(notebook):
    """Every code cell was run, once, in order, and none failed."""

    ran = [cell for cell in code_cells(notebook) if not claims.NOT_RUN_HERE & set(cell.metadata.get("requires", []))]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    assert not [out for cell in code_cells(notebook) for out in cell.outputs if out.output_type == "error"]


@each_notebook
def test_settings_are_known(path, notebook):
    """The metadata says what the notebook requires, how it is compared and how long a cell may take."""

    assert notebooks.settings(notebook, path.name).cell_timeout_s > 0


@each_notebook
def test_unknown_requirement_is_an_error(notebook):
    """A requirement that does not exist is an error, not a skip."""
    notebook = copy.deepcopy(notebook)
    notebook.cells[-1].metadata["requires"] = ["gpuu"]

    with pytest.raises(notebooks.NotebookError, match="requires 'gpuu', which is none of gpu, "):
        notebooks.settings(notebook, "x.ipynb")


OF_THE_MODEL = ("gguf-bf16", "gguf-adapter", "chat-template")  # requirements that another MODEL may not meet


MAGIC = re.compile(r"^(\s*)((?:\w+ = )?)[!%].*", re.M)  # a shell's or IPython's line, or what is assigned from one


def names(cell) -> tuple[set[str], set[str]]:
    """What a cell binds, and what it reads; nothing of what it hands to another kernel or a shell."""
    if cell.source.startswith("%%"):
        return set(), set()
    nodes = list(ast.walk(bindings.parsed(MAGIC.sub(r"\1\g<2>0", cell.source))))
    named = [node for node in nodes if isinstance(node, ast.Name)]
    imported = [one.asname or one.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for one in node.names]
    defined = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    bound = {*defined, *(name.partition(".")[0] for name in imported)}
    return bound | {one.id for one in named if isinstance(one.ctx, ast.Store)}, {
        one.id for one in named if isinstance(one.ctx, ast.Load)
    }


LOOKS_ITSELF = "tokenizer.chat_template"  # a cell with it chooses by what the model has


@each_notebook
def test_a_cell_that_a_model_leaves_out_is_not_missed(notebook):
    """No cell that runs reads a name that only a cell made which some models cannot run."""
    bound, lost, missed = set(), set(), {}
    for cell in code_cells(notebook):
        binds, reads = names(cell)
        if set(OF_THE_MODEL) & set(cell.metadata.get("requires", [])):
            lost |= binds - bound
            continue
        bound |= binds
        lost -= binds
        if (gone := sorted(reads & lost)) and LOOKS_ITSELF not in cell.source:
            missed[cell.id] = gone

    assert missed == {}


@each_notebook
def test_the_unquantized_gguf_is_asked_for(notebook):
    """It is made of the default model only: a cell that takes it says so."""
    takes = [cell for cell in code_cells(notebook) if re.search(r'"gguf-bf16"|get\("llama-cpp-bf16"', cell.source)]

    assert [cell.id for cell in takes if "gguf-bf16" not in cell.metadata.get("requires", [])] == []


def test_a_chat_is_asked_for_where_an_engine_refuses_a_model_without_a_template():
    """Those of 02, 03 and 05 do; llama.cpp (04) takes a template of its own."""
    chats = re.compile(r"chat\.completions|/chat/completions|llm\.chat\(|apply_chat_template")
    for path in (path for path in NOTEBOOKS if path.name.startswith(("02", "03", "05"))):
        chatting = [cell for cell in code_cells(nbformat.read(path, as_version=4)) if chats.search(cell.source)]

        assert chatting
        assert [
            cell.id
            for cell in chatting
            if "chat-template" not in cell.metadata.get("requires", []) and LOOKS_ITSELF not in cell.source
        ] == []


def test_another_model_leaves_out_cells_with_its_reason(tmp_path, monkeypatch):
    """The reason names the model and what it lacks."""
    monkeypatch.setenv("MODEL", str(tiny.gemma3(tmp_path / "tiny.gguf")))

    assert [notebooks.unmet([needed]) for needed in OF_THE_MODEL] == [
        "tiny as gguf-bf16 is left out: only made of the default model",
        "a GGUF adapter of tiny is left out: its architecture is gemma3, not llama",
        "tiny has no chat template",
    ]


@pytest.mark.engine
def test_the_default_model_leaves_out_nothing(monkeypatch):
    """It has all that a cell may ask of a model."""
    monkeypatch.delenv("MODEL", raising=False)

    assert [notebooks.unmet([needed]) for needed in OF_THE_MODEL] == [None, None, None]


@each_notebook
def test_skeleton(path, notebook):
    """Title, facts table, abilities, then the three closing sections."""
    text = markdown(notebook)

    assert re.match(rf"# {path.name[:2]} · ", text)
    assert all(re.search(rf"\|\s*\**{row}\**\s*\|", text) for row in ROWS)
    assert "You will be able to:" in text
    assert all(f"\n{heading}\n" in text for heading in HEADINGS)


@each_notebook
def test_minutes_are_filled_in(notebook):
    """The minutes come from a run."""

    assert re.search(r"\|\s*\**Minutes\**\s*\|\s*[1-9]\d*\s*\|", markdown(notebook))


def test_framework_notebooks_ask_the_same_questions():
    """02 to 06 differ in the framework only: same headings, same order."""
    for name in ("02", "03", "04", "05", "06"):
        (path,) = [path for path in NOTEBOOKS if path.name.startswith(name)]
        found = re.findall(r"^## (.*)$", markdown(nbformat.read(path, as_version=4)), re.M)

        assert found[:7] == FRAMEWORK_HEADINGS
        assert re.fullmatch(r"What .+ is known for", found[7])
        assert found[8:10] == ["When to use it", "The source document's snippet"]


@each_notebook
def test_more_prose_than_code_and_short_cells(notebook):
    """At least 1.2 prose cells per code cell; median code cell at most 7 lines, nine in ten at most 15; practice aside."""
    lengths = sorted(len(cell.source.splitlines()) for cell in lesson_cells(notebook))
    prose = sum(cell.cell_type == "markdown" for cell in notebook.cells)

    assert prose >= 1.2 * len(lengths)
    assert lengths[len(lengths) // 2] <= 7
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 15


@each_notebook
def test_code_fits_the_page(notebook):
    """No line of code is longer than the rendered page is wide."""

    assert [line for cell in code_cells(notebook) for line in cell.source.splitlines() if len(line) > 119] == []


@each_notebook
def test_links_lead_somewhere(path, notebook):
    """Every relative link of the prose names a file that is there."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", markdown(notebook)):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


def test_navigation_is_a_chain():
    """Each notebook links to the one before and the one after it."""
    for before, after in zip(NOTEBOOKS, NOTEBOOKS[1:]):
        assert f"({after.name})" in markdown(nbformat.read(before, as_version=4))
        assert f"({before.name})" in markdown(nbformat.read(after, as_version=4))


@each_notebook
def test_images_have_alt_text(notebook):
    """Every picture, in prose or output, says what it shows."""
    for alt in re.findall(r"!\[([^\]]*)\]", markdown(notebook)):
        assert len(alt) >= 20
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) >= 20


@each_notebook
def test_outputs_name_no_machine(notebook):
    """No path, user or host name stands in an output."""

    assert notebooks.leaks(notebook) == []
    text = str([cell.outputs for cell in code_cells(notebook)])
    assert not re.search(r"/(home|root|Users|tmp|work)/", text)


@each_notebook
def test_engine_notebooks_have_claim_cells(notebook, path):
    """A notebook that is compared laxly marks the facts it stands for."""
    if notebooks.settings(notebook, path.name).compare == "lax":
        assert len(committed_claims(notebook)) >= 3


@each_notebook
def test_every_claim_is_committed_as_true(notebook):
    """A claim that does not hold is not stored as the expected output."""

    assert [cell.source for cell in notebooks.refuted(committed_claims(notebook))] == []


def test_a_refuted_claim_is_found():
    """A claim cell that printed False, or no boolean at all, is refuted; other cells may print what they like."""
    cells = [
        nbformat.v4.new_code_cell(mark + "x", outputs=[nbformat.v4.new_output("stream", text=text)])
        for mark, text in (("# NBVAL_CHECK_OUTPUT\n", "flat: False\n"), ("# NBVAL_CHECK_OUTPUT\n", "True\n"), ("", "False\n"))
    ]
    cells.append(nbformat.v4.new_code_cell("# NBVAL_CHECK_OUTPUT\nx"))

    assert notebooks.refuted(claim_cells(nbformat.v4.new_notebook(cells=cells))) == [cells[0], cells[3]]


@each_notebook
def test_the_table_has_each_notebooks_minutes(path, notebook):
    """It says the minutes that the notebook says."""
    (minutes,) = re.findall(r"\|\s*\**Minutes\**\s*\|\s*(\d+)\s*\|", markdown(notebook))

    assert f"(../notebooks/{path.name}) | {minutes} |" in run.TABLE.read_text()


def ours(notebook) -> dict[str, str]:
    """The modules of helpers/ that the cells import, by the name they have there."""
    found = {}
    for cell in code_cells(notebook):
        for package, names in re.findall(r"^from (helpers[\w.]*) import ([\w, ]+)$", cell.source, re.M):
            found |= {name.strip(): f"{package}.{name.strip()}" for name in names.split(",")}
    return {name: dotted for name, dotted in found.items() if _is_module(dotted)}


def _is_module(dotted: str) -> bool:
    return (paths.REPOSITORY / (dotted.replace(".", "/") + ".py")).exists()


@each_notebook
def test_what_the_text_names_is_there(notebook):
    """A solution, a table or a sentence that calls a function of a module of ours names one that exists."""
    folders = {folder.name for folder in (paths.REPOSITORY / "helpers").rglob("*/") if (folder / "__init__.py").exists()}
    known, gone = ours(notebook), []
    for code in re.findall(r"```python\n.*?```|`[^`\n]+`", markdown(notebook), re.S):
        for name, attribute in re.findall(r"(?<![\w./])(\w+)\.(?!toml\b|py\b|md\b)(\w+)", code):
            if name in known and not hasattr(import_module(known[name]), attribute):
                gone.append(f"{known[name]}.{attribute}")
            if name in folders - known.keys() and re.search(rf"(?<![\w./]){name}\.{attribute}\(", code):
                gone.append(f"{name}.{attribute}, of a folder")

    assert gone == []
