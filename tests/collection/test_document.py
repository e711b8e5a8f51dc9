"""The document's tables, as it has them and as they are, and the figures laid out like them."""

import re

import nbformat
import pytest
from offenders import over

from helpers import formatting, paths, records
from helpers.collection import claims, document, document_figures

RATE = {"median": 100.0, "low": 50.0, "high": 200.0}


def level(users: int, rate: dict | None = RATE, label: str | None = None) -> dict:
    return {"users": users, "output_tokens_per_s": rate, "ttft_s": rate, "label": label}


RECORD = {"engines": {"vllm": [level(1), level(10, {"median": 400.0, "low": 380.0, "high": 420.0})], "llama-cpp": [level(1)]}}


@over(lambda: {name: {"name": name} for name in document.names()}, "name")
def test_every_cell_makes_a_claim_of_its_section(name):
    """A cell's claim is about the row that it stands in."""
    for cell in document.cells(name):
        assert cell.row.split()[0].removeprefix("HuggingFace") in " ".join(cell.claim.path) or name == "memory"


@over(lambda: {name: {"name": name} for name in ("quick_reference", "speculative", "quantization")}, "name")
def test_a_table_of_words_has_a_today_for_every_cell(name):
    """The same rows and columns, no cell empty, and each claim's first cell behind the sign of its verdict."""
    said, now = document.said(name), document.now(name)

    assert (list(said.index), list(said.columns)) == (list(now.index), list(now.columns))
    assert all(text.strip() for text in now.to_numpy().ravel())
    assert {text[0] for text in now[now.columns[0]]} <= set(document.SIGNS.values())


def test_a_table_of_figures_has_no_today_in_words():
    """It is measured: the refusal says where."""
    with pytest.raises(ValueError, match="figures .*C086.*document_figures"):
        document.now("throughput")


def test_what_simply_holds_is_left_out_of_the_changes():
    """The changes have every other verdict, and all verdicts on demand."""
    changed, every = document.verdicts("quantization"), document.verdicts("quantization", changed=False)

    assert "✓ holds" not in set(changed["verdict"])
    assert len(every) == 25 and set(changed.index) < set(every.index)


def test_a_verdict_links_to_the_cell_that_shows_it():
    """The link is the notebook's, with the cell's id; a claim without a cell has its source."""
    shown = document.verdicts("quick_reference", changed=False)["shown"]

    assert shown["C002"] == claims.link(claims.find("C002")) and ".ipynb#cell-id=" in shown["C002"]
    assert "](https://" in shown["C020"]


def test_sentences_are_the_whole_section():
    """Each claim of a framework's section stands there once."""
    assert list(document.sentences("vLLM").index) == [claim.id for claim in claims.load() if claim.path[0] == "vLLM"]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: document.said("latency"), "no table 'latency': choose from quick_reference"),
        (lambda: document.sentences("Ollama"), "no section 'Ollama': choose from"),
        (lambda: document_figures.cost(document_figures.rates(RECORD), 0), "price_per_hour=0 is no price"),
        (lambda: document_figures.cost(document_figures.rates(RECORD), float("nan")), "price_per_hour=nan is no price"),
    ],
)
def test_bad_input_gets_the_way_out(ask, said):
    """One line that names what there is."""
    with pytest.raises(ValueError, match=said) as refusal:
        ask()
    assert "\n" not in str(refusal.value)


def test_a_shown_table_is_markdown_with_its_text_kept():
    """A bar or a star in a cell stays text."""
    shown = formatting.show(document.said("quantization")).data

    assert shown.splitlines()[0] == "|  | INT8 | INT4 | FP8 | GPTQ | AWQ |"
    assert "| **vLLM** | Yes | Yes | Yes\\* | Yes | Yes |" in shown


def test_a_figure_stands_with_its_spread():
    """Median, lowest and highest; a level that is no measurement says that, and why below."""
    record = {"engines": {"vllm": [level(1), level(10, None, "not a measurement: errors")]}}

    assert list(document_figures.throughput(record).loc["vLLM, bf16"]) == ["100 (50 to 200)", "no measurement"]
    assert document_figures.notes(record) == ["vLLM, 10 users: not a measurement: errors"]


def test_a_number_of_users_that_one_engine_has_not_is_not_measured():
    """Nothing is filled in."""
    assert list(document_figures.throughput(RECORD).loc["llama.cpp, Q4_1"]) == ["100 (50 to 200)", "not measured"]


def test_the_fastest_repeat_is_the_cheapest():
    """3.6 an hour at 100 tokens/s are 1000 s for 0.1 million tokens, so 10 for a million."""
    assert document_figures.per_million(RATE, 3.6) == {
        "median": pytest.approx(10),
        "low": pytest.approx(5),
        "high": pytest.approx(20),
    }


def test_a_cost_stands_beside_its_engine_and_users():
    """A level that is no measurement has no price."""
    prices = document_figures.cost({"vLLM, bf16": {1: RATE, 10: None}}, 3.6)

    assert list(prices.loc["vLLM, bf16"]) == ["10.00 (5.00 to 20.00)", "no measurement"]


def test_input_and_output_have_prices_of_their_own():
    """At 3.6 an hour a millisecond costs a millionth: a million tokens of 1 ms each cost 1."""
    prices = document_figures.apart({"vllm": (0.001, 0.004)}, 3.6)

    assert list(prices.loc["vLLM"]) == ["1.000", "4.000", "4.0"]


def test_what_is_drawn_begins_at_one():
    """The document's gains, and those of a record: each a multiple of its fewest users; what is no number has no point."""
    said, measured = document_figures.gain_lines({"vllm": {1: {"median": 100}, 10: None, 100: {"median": 4000}}})

    assert said["vllm"] == {1: 1, 10: 7.5, 100: 37.5} and set(said["transformers"]) == {1, 10}
    assert measured == {"vllm": {1: 1, 100: 40}}


def test_prices_are_those_of_the_table():
    """The medians; a level without a rate has none."""
    assert document_figures.prices({"vllm": {1: RATE, 10: None}}, 3.6) == {"vllm": {1: pytest.approx(10)}}


def test_a_gain_is_a_multiple_of_one_user():
    """The document's 300 of 40 beside the record's 400 of 100; what is missing is no number."""
    gains = document_figures.gains(document_figures.by_engine(RECORD))

    assert list(gains.loc["vLLM"]) == ["7.5", "4.0", "37.5", "-"]
    assert gains.loc["HuggingFace", "100 users, document"] == "OOM"


def test_memory_is_the_formula():
    """Llama-2-7B takes 0.5 MiB for a token; 100 users of 1,000 tokens 52.4 GB, in every row."""
    table = document_figures.memory_of_7b(1000)

    assert set(table["KV cache, GB: Llama-2-7B (MHA)"]) == {52.4}
    assert list(table["model, GB"]) == [13.5, 13.5, 3.8, 13.5]


def test_the_committed_record_has_the_documents_columns():
    """1, 10 and 100 users, so that the two tables can stand side by side."""
    assert list(document_figures.throughput(records.load("throughput")).columns) == ["1 user", "10 users", "100 users"]


def test_the_half_page_is_that_of_the_notebook():
    """One text, in both places."""
    book = nbformat.read(paths.notebook("14"), as_version=4)
    (cell,) = [cell.source for cell in book.cells if cell.source.startswith("### Half a page")]
    page = (paths.REPOSITORY / "docs" / "take_home.md").read_text()

    assert re.search(r"# Half a page to take home\n\n(.*?)\n\n\[14", page, re.S)[1] == cell.partition("\n\n")[2]
