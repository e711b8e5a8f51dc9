"""What the decision knows of records, claims and flags is what they say now."""

import json

from helpers import records
from helpers.collection import claims, decision
from helpers.gpu.recorded import read, today
from helpers.lessons.decision import choose


def test_the_facts_are_those_of_the_newest_records():
    """Read again they are the same: else run `python -m helpers.collection.decision`."""
    assert json.loads(choose.FACTS.read_text()) == json.loads(json.dumps(decision.facts()))


def test_every_file_is_as_it_would_be_written_now():
    """Facts, page and picture, byte by byte."""
    assert [path.name for path, text in decision.made().items() if path.read_text() != text] == []


def test_a_figure_is_a_records_own():
    """The median of a level, to four digits, with its row's name."""
    found = records.load("throughput")
    level = next(one for one in found["engines"]["vllm"] if one["users"] == 100)
    (on_cpu,) = decision.facts()["evidence"]["cpu"]
    (row,) = [row for row in on_cpu["rows"] if (row["framework"], row["users"]) == ("vllm", 100)]

    assert row["median"] == float(f"{level['output_tokens_per_s']['median']:.4g}")


def test_the_records_of_gpus_are_all_there_the_newest_first():
    """The engines of today and the document's model, each with the rates of its own tables."""
    found = decision.facts()["evidence"]["gpu"]
    served = [today.load(), read.load("speed")]

    assert [one["model"] for one in found] == ["Llama-3.1-8B", "Llama-2-7B"]
    for one, record in zip(found, served, strict=True):
        assert one["machine"] == f"one {record['provenance']['machine']['gpus'][0]}"
        (row,) = [row for row in one["rows"] if (row["row"], row["users"]) == ("SGLang, server", 100)]
        rate = next(read.rates(life)[100] for life in read.lives(record, "server") if life["engine"] == "sglang")
        assert row["median"] == float(f"{rate['median']:.4g}")


def test_a_claim_leads_to_the_cell_that_shows_it():
    """By the cell's id; one that is only cited leads to notebook 14, which has its row."""
    known = decision.facts()["claims"]
    shown = next(claim for claim in claims.load() if claim.notebook)
    cited = next(claim for claim in claims.load() if not claim.notebook)

    assert known[shown.id]["to"].endswith(f"#cell-id={claims.cell(shown).id}")
    assert known[cited.id]["to"].startswith("../notebooks/14_")
