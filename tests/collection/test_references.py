"""References and glossary: addresses, versions, and the cells where terms are measured."""

import os

import pytest
from offenders import over

from helpers import paths
from helpers.collection import references

TERMS = references.terms()
MEASURED = [term for term in TERMS if term.notebook]
PAPERS = (
    "PagedAttention", "Orca", "SGLang", "FlashAttention", "Transformers via Speculative Decoding", "Speculative Sampling", "GPTQ",
    "AWQ", "LLM.int8", "SmoothQuant", "EAGLE", "DistServe", "Roofline",
)  # fmt: skip


@over(lambda: {address: {"address": address} for address in references.addresses()}, "address")
def test_addresses_are_well_formed(address):
    """https, a host, and nothing left over at the end."""

    assert references.well_formed(address)


@pytest.mark.parametrize(
    "address",
    ["http://x.org/a", "https://x.org/a.", "https://x.org/a)", "https://x", "x.org", "https://x.org/a ", "https://x.org/<id>"],
)
def test_junk_is_noticed(address):
    """No https, a full stop, a bracket, a blank or a placeholder: not an address."""

    assert not references.well_formed(address)


@pytest.mark.skipif(os.environ.get("NETWORK") != "1", reason="no address is asked unless NETWORK=1 is set")
def test_addresses_answer():
    """Each page is there; 403 and 429 are a page that does not like to be asked by a program."""
    found = {address: references.answers(address) for address in references.addresses()}

    assert {address: status for address, status in found.items() if status not in (200, 403, 429)} == {}


def test_the_papers_are_there():
    """The papers that the collection rests on, each once."""
    titles = [paper.title for paper in references.papers()]

    assert [name for name in PAPERS if not any(name in title for title in titles)] == []
    assert len(set(titles)) == len(titles)


def test_versions_are_those_of_the_requirements():
    """Every framework that is installed here has the version that its requirements file pins."""
    found = {framework.title: framework.versions for framework in references.frameworks()}

    assert list(found) == ["HF Transformers", "vLLM", "llama.cpp", "SGLang", "TensorRT-LLM"]
    assert found["TensorRT-LLM"] == {}
    for title in list(found)[:-1]:
        assert all(version[0].isdigit() for version in found[title].values()) and found[title]


def test_pins_are_read_without_extras_and_comments(tmp_path):
    """`transformers[serving]==5.19.0  # why` is version 5.19.0 of transformers."""
    path = tmp_path / "x.txt"
    path.write_text("# a comment\n-c constraints.txt\ntransformers[serving]==5.19.0  # newest\ntorch==2.13.0\n")

    assert references.pins(path) == {"transformers": "5.19.0", "torch": "2.13.0"}


def test_a_package_that_is_not_pinned_is_an_error():
    """A framework whose package is in no file: the error names both."""
    framework = references.Documentation("X", ["nothing"], "https://x.org", "https://x.org", "02", "lab.txt")

    with pytest.raises(references.BadReference, match="X: lab.txt pins no nothing: correct 'packages' in references.toml"):
        framework.versions  # noqa: B018


@over(lambda: {term.term: {"term": term} for term in MEASURED}, "term")
def test_terms_lead_to_a_cell_that_ran(term):
    """The cell where the term is first measured exists, was executed and printed something."""
    cell = references.cell(term)

    assert cell.execution_count is not None
    assert cell.outputs


def test_terms_are_unique_and_mostly_measured():
    """No term twice, and at least nine in ten have a cell."""
    names = [term.term for term in TERMS]

    assert len(set(names)) == len(names)
    assert len(MEASURED) >= 0.9 * len(TERMS)


@over(lambda: {term.term: {"term": term} for term in TERMS}, "term")
def test_meanings_are_short(term):
    """One or two plain sentences."""

    assert term.means.endswith(".") and (term.means[0].isupper() or term.means.startswith("llama.cpp"))
    assert len(term.means) <= 180
    assert "|" not in term.means


def test_a_lost_cell_is_an_error():
    """A term whose code is nowhere: the error names the term, the notebook and the field."""
    lost = references.Term("x", "An x.", "00", "no such code")

    with pytest.raises(references.BadReference, match="x: no code cell of 00_start_here.ipynb has 'no such code': correct"):
        references.cell(lost)
    with pytest.raises(references.BadReference, match="x: there is no notebook 77: correct 'notebook'"):
        references.cell(references.Term("x", "An x.", "77", "y"))


def test_a_misspelt_field_is_an_error(tmp_path, monkeypatch):
    """A field that does not exist: the entry, the field, the way out; and one that is missing."""
    path = tmp_path / "glossary.toml"
    monkeypatch.setattr(references, "GLOSSARY", path)

    path.write_text('[[terms]]\nterm = "x"\nmeens = "An x."\n')
    with pytest.raises(references.BadReference, match="x: the field 'meens' is none of term, means, notebook, code"):
        references.terms()
    path.write_text('[[terms]]\nterm = "x"\n')
    with pytest.raises(references.BadReference, match="x: missing 1 required positional argument: 'means': add it"):
        references.terms()


def test_the_glossary_links_each_term_to_its_cell():
    """A Markdown row per term, with the cell's id in the link."""
    term = references.Term("kernel", "A process.", "00", "has_torch = importlib.util.find_spec")

    row = references.glossary([term]).splitlines()[-1]

    assert row == f"| **kernel** | A process. | [00](00_start_here.ipynb#cell-id={references.cell(term).id}) |"
    assert paths.NOTEBOOKS / "00_start_here.ipynb" in paths.notebooks()


def test_papers_have_short_names_of_their_own():
    """The name that stands in the picture: each once, and short enough for a column of a year."""
    names = [paper.name for paper in references.papers()]

    assert len(set(names)) == len(names)
    assert [name for name in names if len(name) > 16] == []


def test_the_reading_list_begins_with_the_name():
    """A row begins with what the paper is called, then its title as a link."""
    first = references.reading_list("Measuring").splitlines()[2]

    assert first.startswith("| **Roofline**: [Roofline: An Insightful Visual")
