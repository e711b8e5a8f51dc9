"""The source document's 147 claims: every row is whole, and every cell that it names shows what it says."""

import nbformat
import pytest
from offenders import over

from helpers import paths
from helpers.collection import claims

CLAIMS = claims.load()
IN_NOTEBOOKS = [claim for claim in CLAIMS if claim.notebook]

ROW = {
    "id": "C036", "section": "vLLM · Strengths", "claim": "it has an API", "verdict": "holds", "why": "It answered.",
    "notebook": "03", "shown": "ran it",
}  # fmt: skip
PAGE = {"title": "A page", "address": "https://example.org/page", "date": "2026-11-25"}


def written(folder, **changes):
    """A claims file with one row: ROW with ``changes``, where None removes a field."""
    row = {key: value for key, value in (ROW | changes).items() if value is not None}
    lines = [f"{key} = {value if isinstance(value, int) else repr(value)}" for key, value in row.items() if key != "source"]
    if "source" in row:
        lines.append("source = { " + ", ".join(f"{key} = {value!r}" for key, value in row["source"].items()) + " }")
    path = folder / "claims.toml"
    path.write_text("[[claims]]\n" + "\n".join(lines) + "\n")
    return path


def test_every_claim_once_and_in_order():
    """C001 to C147, each once."""

    assert [claim.id for claim in CLAIMS] == [f"C{number:03}" for number in range(1, 148)]


@over(lambda: {claim.id: {"claim": claim} for claim in IN_NOTEBOOKS}, "claim")
def test_the_cell_shows_what_the_row_says(claim):
    """The named cell is there, was executed, prints something and no False, and its tag has the row's verdict."""

    assert claims.disagreement(claim) is None


def test_no_cell_has_a_claim_that_no_row_knows():
    """Each tag in a notebook belongs to a row that names this notebook."""
    rows = {(claim.notebook, claim.tag) for claim in IN_NOTEBOOKS}
    for path in paths.notebooks():
        for cell in nbformat.read(path, as_version=4).cells:
            for id, verdict in claims.tags(cell).items():
                assert (path.name[:2], f"{id}: {verdict}") in rows, f"{path.name}: {id}: {verdict}"


def test_enough_is_shown():
    """At least 80 of the claims are shown by a cell, at least 50 of them by an engine that ran."""
    counted = claims.counts(CLAIMS)

    assert sum(counted[way] for way in claims.SHOWN) >= 80
    assert counted["ran it"] >= 50
    assert sum(counted[way] for way in claims.SHOWN) + counted["cited"] == 147
    assert sum(counted[verdict] for verdict in claims.VERDICTS) == 147


def test_whys_are_one_sentence():
    """The reason begins with a capital, ends with a full stop and stays short."""
    for claim in CLAIMS:
        assert claim.why[0].isupper() or claim.why[0].isdigit() or claim.why.startswith(("vLLM", "llama.cpp")), claim.id
        assert claim.why[-1] == ".", claim.id
        assert len(claim.why) <= 220, claim.id


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"verdikt": "holds"}, "C036: the field 'verdikt' is none of id, section, claim, verdict, why, "),
        ({"verdict": None}, "C036: the field 'verdict' is missing: add it"),
        ({"verdict": "hold"}, "C036: the verdict 'hold' is none of holds, holds with conditions, outdated, "),
        ({"why": " "}, "C036: the field 'why' is no text or empty"),
        ({"why": 3}, "C036: the field 'why' is no text or empty"),
        ({"id": "36"}, "36: an id is C and three digits"),
        ({"notebook": None, "shown": None}, "C036: neither a notebook nor a source"),
        ({"notebook": "3"}, "C036: the notebook '3' is no number of two digits"),
        ({"shown": None}, "C036: 'notebook' and 'shown' stand together"),
        ({"shown": "saw it"}, "C036: shown = 'saw it' is none of ran it, read the package, computed"),
        ({"verdict": "cannot be checked", "shown": "computed"}, "C036: what cannot be checked was not shown either"),
        ({"source": PAGE | {"adress": "x"}}, "C036: a source has title, address, date and nothing else"),
        ({"source": PAGE | {"address": "http://x.org"}}, "C036: the source's address 'http://x.org' is no https address"),
        ({"source": PAGE | {"address": "https://example.org/page)."}}, "is no https address"),
        ({"source": PAGE | {"date": "yesterday"}}, "C036: the source's date 'yesterday' is no day such as 2026-11-25"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_in_one_line(tmp_path, changes, complaint):
    """The error names the row and the field, and says what to do."""
    with pytest.raises(claims.ClaimError) as refusal:
        claims.load(written(tmp_path, **changes))

    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_row_twice_is_refused(tmp_path):
    """Two rows with one id are an error."""
    path = written(tmp_path)
    path.write_text(path.read_text() * 2)

    with pytest.raises(claims.ClaimError, match="C036 stands there twice"):
        claims.load(path)


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    """A syntax error is one line with the file's name and the place."""
    path = tmp_path / "claims.toml"
    path.write_text("[[claims]\n")

    with pytest.raises(claims.ClaimError, match="claims.toml is not TOML: .*line 1"):
        claims.load(path)


def test_find_knows_its_range():
    """A claim that does not exist: the error says which do."""
    assert claims.find("C036").id == "C036"
    with pytest.raises(claims.ClaimError, match="there is no claim 'C999': they go from C001 to C147"):
        claims.find("C999")


@pytest.fixture
def notebook_with(tmp_path, monkeypatch):
    """Writes a notebook 03 with one code cell that was executed, and makes it the only one there is."""

    def write(tags, source="# NBVAL_CHECK_OUTPUT\nprint(True)", text="True\n", requires=(), count=1):
        output = [nbformat.v4.new_output("stream", text=text)] if text else []
        cell = nbformat.v4.new_code_cell(source, outputs=output, execution_count=count)
        cell.metadata = {"tags": tags, "requires": list(requires)}
        path = tmp_path / "03_x.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        monkeypatch.setattr(paths, "notebooks", lambda: [path])

    return write


def said(tmp_path, **changes):
    (claim,) = claims.load(written(tmp_path, **changes))
    return claims.disagreement(claim)


def test_row_and_cell_agree(notebook_with, tmp_path):
    """The cell has the row's id and verdict, was run and printed True."""
    notebook_with(["C036: holds"])

    assert said(tmp_path) is None


@pytest.mark.parametrize(
    "cell, complaint",
    [
        ({"tags": []}, "C036: 03_x.ipynb has no code cell with the tag 'C036: holds'"),
        ({"tags": ["C036: wrong"]}, "C036: the row says 'holds' and the cell's tag 'wrong'"),
        ({"tags": ["C036: holds"], "text": "False\n"}, "C036: its cell printed a False"),
        ({"tags": ["C036: holds"], "text": ""}, "C036: its cell prints nothing"),
        ({"tags": ["C036: holds"], "count": None}, "C036: its cell was not executed"),
        ({"tags": ["C036: holds"], "requires": ["gpu"]}, "C036: its cell was not executed"),
        ({"tags": ["C036: holds"], "source": "print(True)"}, "C036: nothing compares what its cell prints"),
    ],
)
def test_row_and_cell_disagree(notebook_with, tmp_path, cell, complaint):
    """Each way in which a cell fails to show its row is found and said in one line."""
    notebook_with(**cell)

    assert said(tmp_path).startswith(complaint)
    assert "\n" not in said(tmp_path)


def test_what_is_only_printed_needs_no_check(notebook_with, tmp_path):
    """A row that says so may name a cell whose output nothing compares."""
    notebook_with(["C036: holds"], source="3", text="3")

    assert said(tmp_path, shown="printed") is None


def test_a_notebook_that_is_not_there(notebook_with, tmp_path):
    """A row that names a notebook nobody wrote."""
    notebook_with(["C036: holds"])

    assert said(tmp_path, notebook="77") == "C036: there is no notebook 77: correct the field 'notebook'"


def test_the_table_names_the_place():
    """One row per claim, with the notebook or the cited page."""
    shown = claims.table([claims.find("C027"), claims.find("C018")])

    assert list(shown["verdict"]) == ["wrong", "holds"]
    assert list(shown["shown in"]) == ["02", ""]
    assert shown["how"]["C018"].startswith("cited: ")


def test_links_lead_to_the_cell_or_the_page():
    """A row is linked to its cell by the cell's id, or to its source."""
    claim, cited = claims.find("C027"), claims.find("C018")

    assert claims.link(claim) == f"[02](02_transformers.ipynb#cell-id={claims.cell(claim).id})"
    assert claims.link(cited) == f"[{cited.source.title}]({cited.source.address})"
