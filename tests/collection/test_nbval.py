"""The run of the notebooks: a claim that turned is noticed, a skip has its reason, the slowest steps are summed."""

import re
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from books import NOTEBOOKS, claim_cells, committed_claims, each_notebook
from nbvals import nbval

from helpers.collection import notebooks


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


@pytest.mark.engine
def test_a_false_claim_turns_the_run_red(tmp_path):
    """A notebook that starts no engine, and passes as it is in every run, fails when the stored output of a claim is flipped."""
    folder = tmp_path / "nbval-here"
    folder.mkdir()
    (light,) = (path for path in NOTEBOOKS if path.name.startswith("06_"))
    notebook = nbformat.read(light, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not notebooks.is_exercise(cell)]  # their solutions stand elsewhere
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "# NBVAL_CHECK_OUTPUT" in cell.source:
            notebook.cells[index].outputs = flip(cell).outputs
    (folder / "flipped.ipynb").write_text(nbformat.writes(notebook))

    run = nbval(folder, "-p", "no:cacheprovider")

    red = re.findall(r"FAILED (\S+)::Cell", run.stdout)
    assert len(red) == len(claim_cells(notebook)), run.stdout
    assert all("flipped" in name for name in red)


def test_a_skip_prints_its_reason_and_a_promise_fails(tmp_path):
    """Cells that need a GPU are skipped with the reason, and are one step; asked for with -m tensorrt-llm they fail instead."""
    folder = tmp_path / "nbval-here"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0", execution_count=n) for n in (1, 2)])
    notebook.metadata = {
        "kernelspec": {"name": "lab", "display_name": "Lab"},
        "collection": {"requires": ["tensorrt-llm"], "compare": "lax", "cell_timeout_s": 30},
    }
    nbformat.write(notebook, folder / "needs.ipynb")

    with ThreadPoolExecutor() as at_once:
        asked, promised = at_once.map(lambda options: nbval(folder, *options), (["-rs"], ["-m", "tensorrt-llm"]))

    assert asked.returncode == 0 and "no NVIDIA GPU here" in asked.stdout
    steps = asked.stdout.partition("slowest 10 steps")[2]
    assert re.findall(r"^ +\d+\.\d s  (.*)$", steps, re.M) == ["needs.ipynb"]
    assert promised.returncode == 1 and "was asked for with -m 'tensorrt-llm' and cannot run" in promised.stdout
