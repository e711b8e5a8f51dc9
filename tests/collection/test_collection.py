"""What every committed notebook is held to, and the files that describe the collection."""

import copy
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from offenders import over

from helpers import paths
from helpers.collection import claims, notebooks
from helpers.weights import models

ROOT = paths.REPOSITORY
NOTEBOOKS = paths.notebooks()
HEADINGS = ("## What you measured", "## Exercises", "## What's next")
ROWS = ("Before this", "Minutes", "Hardware", "Download")
FRAMEWORK_HEADINGS = ["Load", "Generate", "Chat template", "Stream", "Batch", "Memory", "Serve over HTTP"]


@functools.cache
def books() -> dict[str, dict]:
    """Every notebook by its name: where it is and what it is."""
    return {path.stem: {"path": path, "notebook": nbformat.read(path, as_version=4)} for path in NOTEBOOKS}


each_notebook = over(books, "path", "notebook")


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


claim_cells = notebooks.claims


def committed_claims(notebook) -> list:
    """The claim cells that have an output in the committed file, whatever this machine can run."""
    return [cell for cell in claim_cells(notebook) if not claims.NOT_RUN_HERE & set(cell.metadata.get("requires", []))]


def test_there_are_notebooks():
    """The collection is not empty: the tests below have something to look at."""

    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02}" for number in range(16)]


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
        assert found[7].startswith("What only ")
        assert found[8:10] == ["When to use it", "The source document's snippet"]


@each_notebook
def test_more_prose_than_code_and_short_cells(notebook):
    """At least 1.2 prose cells per code cell; median code cell 5 lines, nine in ten at most 15."""
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    prose = sum(cell.cell_type == "markdown" for cell in notebook.cells)

    assert prose >= 1.2 * len(lengths)
    assert lengths[len(lengths) // 2] <= 5
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
def test_every_flipped_claim_is_noticed(notebook, path, pytester_cell):
    """nbval's own comparison tells each claim cell's output from its flipped one."""
    for cell in committed_claims(notebook):
        flipped = flip(cell)

        assert pytester_cell(path, cell).compare_outputs(cell.outputs, cell.outputs)
        assert not pytester_cell(path, cell).compare_outputs(cell.outputs, flipped.outputs), cell.source


def flip(cell):
    """A copy of a claim cell whose stored booleans are turned round."""
    turned = nbformat.from_dict(cell)
    turned = nbformat.v4.new_code_cell(cell.source, outputs=[nbformat.from_dict(dict(output)) for output in cell.outputs])
    for output in turned.outputs:
        text = output.get("text") or output["data"]["text/plain"]
        new = text.replace("True", "False")
        assert new != text, f"a claim cell prints no boolean: {cell.source}"
        if "text" in output:
            output.text = new
        else:
            output.data = {**output.data, "text/plain": new}
    return turned


@pytest.fixture
def pytester_cell(request):
    """Makes nbval's item for a cell, to use its comparison without a kernel."""
    from nbval.plugin import IPyNbCell, IPyNbFile

    def make(path, cell):
        file = IPyNbFile.from_parent(request.session, path=path)
        return IPyNbCell.from_parent(file, name="claim", cell_num=0, cell=cell, options={})

    return make


def nbval(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run nbval on the notebooks in ``folder`` as the collection's own tests do."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "--nbval-lax",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(ROOT),
    ]
    env = {**os.environ, "JUPYTER_PATH": str(ROOT / ".jupyter")}
    return subprocess.run([*command, *arguments, str(folder)], capture_output=True, text=True, env=env, cwd=ROOT, timeout=300)


@pytest.mark.engine
def test_a_false_claim_turns_the_run_red(tmp_path):
    """The light notebook, which passes as it is in every run, fails when the stored output of a claim is flipped."""
    folder = tmp_path / "nbval-here"
    folder.mkdir()
    light = NOTEBOOKS[0]
    notebook = nbformat.read(light, as_version=4)
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "# NBVAL_CHECK_OUTPUT" in cell.source:
            notebook.cells[index].outputs = flip(cell).outputs
    (folder / "flipped.ipynb").write_text(nbformat.writes(notebook))

    run = nbval(folder, "-p", "no:cacheprovider")

    red = re.findall(r"FAILED (\S+)::Cell", run.stdout)
    assert len(red) == len(claim_cells(notebook)), run.stdout
    assert all("flipped" in name for name in red)


def test_a_skip_prints_its_reason_and_a_promise_fails(tmp_path):
    """A cell that needs a GPU is skipped with the reason; asked for with -m gpu it fails instead."""
    folder = tmp_path / "nbval-here"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0", execution_count=1)])
    notebook.metadata = {
        "kernelspec": {"name": "lab", "display_name": "Lab"},
        "collection": {"requires": ["tensorrt-llm"], "compare": "lax", "cell_timeout_s": 30},
    }
    nbformat.write(notebook, folder / "needs.ipynb")

    asked = nbval(folder, "-rs")
    promised = nbval(folder, "-m", "tensorrt-llm")

    assert asked.returncode == 0 and "no NVIDIA GPU here" in asked.stdout
    assert promised.returncode == 1 and "was asked for with -m 'tensorrt-llm' and cannot run" in promised.stdout


def test_environment_yml_has_the_labs_pins():
    """conda reads the very list that pip reads, and the Python that is tested."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]

    assert pip == ["-r requirements/lab.txt", "-e ."]
    assert [entry for entry in dependencies if isinstance(entry, str)] == ["python=3.11", "pip"]


@over(lambda: {file.name: {"file": file} for file in (ROOT / "requirements").glob("*.txt")}, "file")
def test_every_requirement_is_pinned(file):
    """A requirement is name==version."""
    for line in file.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line and not line.startswith("-c "):
            assert re.fullmatch(r"[a-z0-9._-]+(\[[a-z,]+\])?==[0-9][\w.+]*", line), line


def test_the_requirement_files_agree():
    """A package pinned for two environments has the same version in both, or the line says why not."""
    pins: dict[str, str] = {}
    for file in (ROOT / "requirements").glob("*-cpu.txt"):
        for name, version, why in re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)( +#.*)?$", file.read_text(), re.M):
            assert why or file.name.startswith("constraints") or pins.setdefault(name, version) == version, name


def test_readme_shows_the_model_table():
    """The README's table of models is the one the code acts on."""
    readme = (ROOT / "README.md").read_text()
    for kind, forms in models.SUPPORT.items():
        (row,) = re.findall(rf"^\| {kind} \|.*$", readme, re.M)
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]

        assert cells == [forms["safetensors"].partition(";")[0], forms["gguf"].partition(";")[0]]


@each_notebook
def test_readme_has_each_notebooks_minutes(path, notebook):
    """The README's table says the minutes that the notebook says."""
    (minutes,) = re.findall(r"\|\s*\**Minutes\**\s*\|\s*(\d+)\s*\|", markdown(notebook))

    assert f"(notebooks/{path.name}) | {minutes} |" in (ROOT / "README.md").read_text()
