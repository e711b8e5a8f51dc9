"""The claims that surprise most: chosen by hand, held to claims.toml."""

import re

import pytest

from helpers.collection import claims, surprises

KNOWN = {claim.id: claim for claim in claims.load()}


def test_there_are_twenty_of_which_none_simply_holds():
    """Each is a row of claims.toml, is there once, and is one sentence."""
    chosen = surprises.load()

    assert len(chosen) == 20
    assert [id for id in chosen if KNOWN[id].verdict in ("holds", "cannot be checked")] == []
    assert [says for says in chosen.values() if says.count(". ") or not says.endswith(".")] == []


def numbers(text: str) -> set[str]:
    """Those that stand alone, without the names that have one (H100, Q4_0, FP8)."""
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)", text))


def test_a_figure_is_that_of_its_claim():
    """Each number of a sentence stands in the claim or its reason."""
    wrong = {id: numbers(says) - numbers(f"{KNOWN[id].claim} {KNOWN[id].why}") for id, says in surprises.load().items()}

    assert {id: left for id, left in wrong.items() if left} == {}


def test_each_has_a_link():
    """To its cell or its page, numbered in order."""
    lines = surprises.listed().splitlines()

    assert [line.partition(".")[0] for line in lines] == [str(i) for i in range(1, 21)]
    assert [line for line in lines if not re.search(r"\(\[[^\]]+\]\([^)]+\)\)$", line)] == []


def test_the_others_are_all_the_others():
    """127, each once in the folded table, whose parts say how many."""
    html = surprises.folded()

    assert re.findall(r"<tr><td>(C\d{3})</td>", html) == sorted(set(KNOWN) - set(surprises.load()), key=list(KNOWN).index)
    assert len(surprises.others()) == 127 == sum(sum(count.values()) for count in surprises.parts(surprises.others()).values())
    assert html.count("<details>") == html.count("</details>") == len(surprises.parts(surprises.others()))


def test_the_table_can_be_filtered():
    """By part, by verdict, by a word; what does not exist is refused."""
    assert len(surprises.table()) == 127
    assert set(surprises.table(verdict="wrong")["verdict"]) == {"✗ wrong"}
    assert all(part.startswith("Memory") for part in surprises.table(part="Memory")["part"])
    assert 0 < len(surprises.table(word="MLX")) < 127
    with pytest.raises(ValueError, match="there is no 'Memorie': choose from Quick reference"):
        surprises.table(part="Memorie")
