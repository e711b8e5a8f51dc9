"""Notebooks without an engine: what runs is what was recorded, what does not run says so and pretends nothing."""

import functools

import hidden
import nbformat
import pytest

from helpers import kernels, paths
from helpers.collection import notebooks, quiz, recorded, replay, run

FROM_RECORDS = {  # of each notebook a cell that stands on records, and is computed again
    "00": "race.watch(", "07": "today.load()", "08": "tables.memory_use()", "09": "conformance.table(", "10": "drafted.table(",
    "11": 'records.load("quantization")', "12": "", "13": "divided.compared(", "14": "tables.throughput()",
    "15": "references.papers()", "16": 'records.load("clients")',
}  # fmt: skip
LOADED = "16"  # it loads the client for half a minute, and shows what it measured
QUICK_TIER = ("00", "07", "09", "14")  # a race, tables, calls of engines, claims: with all of them a quarter longer
OF_NOW = ("race.start", "race.watch", "race.finding", "machine.slowness()")  # the race's record, and how slow this machine is


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The lab's environment alone: every kernel of the replay, no other kernel, no file of a model."""
    folder = tmp_path_factory.mktemp("replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "FOLDER", folder)
        patch.setenv("XDG_CACHE_HOME", "")  # the next line sets it; so it is set back
        hidden._hide_cache(folder / "cache")
        patch.setenv("JUPYTER_PATH", str(replay.kernelspecs()))
        patch.setenv(kernels.REPLAY, "1")
        yield


def tiers(numbers) -> list:
    """Notebooks as parameters; those that the quick tier does without are marked."""
    return [pytest.param(number, marks=[] if number in QUICK_TIER else [pytest.mark.whole]) for number in numbers]


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(cell) -> str:
    return "".join(map(notebooks.plain, cell.outputs)).strip()


@functools.cache
def both(number: str) -> tuple[list, list, str]:
    """The code cells of a notebook as they are committed and as they are replayed, and where the committed ones were made."""
    path = paths.notebook(number)
    committed = nbformat.read(path, as_version=4)
    return code(committed), code(run.execute(path)), recorded.where(committed)


@pytest.mark.parametrize("number", tiers(FROM_RECORDS))
def test_a_notebook_runs_to_its_end_without_any_engine(alone, number):
    """No error; a cell that is left out has a line, and the committed output below it with machine and day; nothing is lost."""
    committed, replayed, where = both(number)
    left = replay.shown(replayed)

    assert where.startswith("recorded on "), f"{number}: {where}: execute it with `nox -s outputs -- {number}`"
    for old, new in zip(committed, replayed):
        if new in left:
            note, *below = new.outputs
            assert notebooks.plain(note).startswith("left out: ") and bool(below) == bool(old.outputs)
            assert not below or notebooks.plain(note).endswith(f"; below: {where}"), notebooks.plain(note)
            assert text(old) in text(new)
        elif number != LOADED and not any(word in old.source for word in OF_NOW):
            assert text(new) == text(old), old.source


@pytest.mark.parametrize("number", tiers(filter(FROM_RECORDS.get, FROM_RECORDS)))
def test_what_stands_on_records_is_computed_again(alone, number):
    """A table of a record is made, not shown as it was."""
    _, replayed, _ = both(number)
    left = replay.shown(replayed)

    assert any(FROM_RECORDS[number] in cell.source for cell in replayed if cell not in left)


def test_no_check_of_a_measurement_runs_on_nothing(alone):
    """In 07 every cell between the imports and the record is about this machine's servers, and is left out, its checks too."""
    _, replayed, _ = both("07")
    left = replay.shown(replayed)
    (end,) = (at for at, cell in enumerate(replayed) if cell.source.startswith('record = records.load("throughput")'))

    assert end > 5 and all(cell in left for cell in replayed[1:end])


SETTINGS = {"requires": [], "compare": "lax", "cell_timeout_s": 60}
LIVE = "from helpers.servers import serving\nwith serving.serve('vllm') as server:\n    rate = 3"


def executed(folder, *cells: tuple[str, str]) -> list:
    """Cells with the text that they were committed with, recorded by a mock of a machine, as a replay shows them."""
    made = []
    for source, printed in cells:
        outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
        made.append(nbformat.v4.new_code_cell(source, outputs=outputs))
    lab = {"display_name": "Lab", "language": "python", "name": "lab"}
    book = nbformat.v4.new_notebook(metadata={"collection": dict(SETTINGS), "kernelspec": lab}, cells=made)
    recorded.stamp(book, "a mock, 9 cores", "2001-02-03")
    nbformat.write(book, folder / "small.ipynb")
    return [text(cell) for cell in code(run.execute(folder / "small.ipynb"))]


def test_a_cell_that_reads_what_is_missing_is_left_out_with_its_reason(alone, tmp_path):
    """Also through a function, and where a cell that was left out would have filled a dictionary."""
    served, fill, check, own = executed(
        tmp_path,
        (LIVE, "served\n"),
        ("found = {}\ndef fill():\n    found['a'] = rate", ""),
        ("fill()\nprint('filled', found)", "filled {'a': 3}\n"),
        ("print('all are high:', all(one > 2 for one in found.values()))", "all are high: True\n"),
    )

    assert served == (
        "left out: a replay starts no engine, and the kernel 'vllm' is asked for; "
        "below: recorded on a mock, 9 cores, 2001-02-03served"
    )
    assert fill == "" and check.startswith("left out: rate is missing: a replay starts no engine") and "filled" in check
    assert own.startswith("left out: found is missing: ") and own.endswith("all are high: True")


def test_questions_are_computed(alone, tmp_path):
    """They need no engine, so nothing of them is left out."""
    (shown,) = executed(tmp_path, ('from helpers.collection import quiz\n\nquiz.of("07")', "an older text"))

    assert shown == repr(quiz.of("07"))


CANNOT_RUN = {
    "%%in vllm -o seen\nseen = 1": "a replay starts no engine, and the kernel 'vllm' is asked for",
    "%%bash\necho $SERVER": "no server was started, so $SERVER is not set",
    "import ray": "there is no package 'ray' in the lab's environment",
    "from helpers.weights import models; models.shape()": "the default model is not here yet",
    "from helpers.servers import engines; engines.at_hand()": "a replay starts no engine, and the kernel ",
    "print('half')\nfrom helpers import kernels; kernels.interpreter('sglang')": "a replay starts no engine",
}


def test_what_cannot_run_says_why_and_prints_no_half(alone, tmp_path):
    """One line; without a committed output nothing below it. What a reader makes anew is no longer missing."""
    *shown, _, mine = executed(tmp_path, *((source, "") for source in CANNOT_RUN), ("seen = 5", ""), ("print(seen)", "1\n"))

    assert all(one.startswith(f"left out: {why}") for one, why in zip(shown, CANNOT_RUN.values())), shown
    assert not any(word in one for one in shown for word in ("below", "half", "\n"))
    assert mine == "5"


def test_no_requirement_but_a_gpu_and_a_network_skips_a_cell_of_a_replay(alone):
    """A cell that is skipped before the kernel sees it would lose its committed output."""
    assert {name for name, unmet in notebooks.REQUIREMENTS.items() if unmet()} <= {"gpu", "network", "tensorrt-llm"}


def test_an_error_of_the_readers_own_is_still_an_error(alone, tmp_path):
    """A replay hides no mistake."""
    with pytest.raises(notebooks.NotebookError, match="small.ipynb failed: ZeroDivisionError"):
        executed(tmp_path, ("1 / 0", ""))


def test_outputs_of_another_run_are_not_said_to_be_recorded(tmp_path):
    """Who runs a notebook and saves it has other outputs than those whose machine was noted."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[])], metadata={"collection": dict(SETTINGS)})
    recorded.stamp(book, "a mock, 9 cores", "2001-02-03")
    before = recorded.where(book)
    book.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="mine\n")]

    assert before == "recorded on a mock, 9 cores, 2001-02-03"
    assert recorded.where(book) == recorded.NOT_SAID


def test_a_replay_that_was_saved_keeps_where_it_was_recorded(tmp_path):
    """The line of the earlier replay is shown once, and names the machine though the other outputs have changed."""
    line = nbformat.v4.new_output("display_data", {"text/plain": "left out: old"}, metadata={"replay": "recorded on a mock"})
    cell = nbformat.v4.new_code_cell("x", outputs=[line, nbformat.v4.new_output("stream", name="stdout", text="seen\n")])
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "publish_display_data", lambda data, metadata: shown.append(data["text/plain"]))
        patch.setattr(replay, "_show", lambda output: shown.append(output.text))
        replay.Replay({"x": cell.outputs}, "as saved").show("x", "it has no engine")

    assert shown == ["left out: it has no engine; below: recorded on a mock", "seen\n"]


def test_a_replay_rewrites_no_committed_output(alone):
    """`outputs` refuses: nothing of a replay is a measurement."""
    with pytest.raises(notebooks.NotebookError, match="a replay measures nothing"):
        run.outputs(["14"])
