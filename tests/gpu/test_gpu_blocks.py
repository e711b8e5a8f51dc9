"""Blocks of two ways in turns: which stand beside each other, and what their ratio says."""

from __future__ import annotations

from helpers.gpu import cases
from helpers.gpu.recorded import blocks


def block(way: str, repeat: int, rate: float | None, users: int = 1) -> dict:
    return {"kind": "block", "way": way, "repeat": repeat, "users": users, "rate": rate}


def rate(row: dict) -> float | None:
    return row["rate"]


LIFE = {
    "rows": [
        {"kind": "loaded", "seconds": 3},
        block("a", 0, 100), block("b", 0, 150), block("b", 1, 80), block("a", 1, 50),
        block("a", 2, 70),  # cut off before its neighbour
        block("b", 0, 10, users=4),
    ]
}  # fmt: skip


def test_a_block_stands_beside_the_one_of_its_number():
    """In whatever order they ran; one without its neighbour is left out, and so are users without any pair."""
    found = blocks.pairs(LIFE, "a", "b")
    assert {users: [(rate(a), rate(b)) for a, b in pairs] for users, pairs in found.items()} == {1: [(100, 150), (50, 80)]}


def test_the_ratio_is_of_each_pair():
    """1.5 and 1.6, though the rates spread by two."""
    assert blocks.ratio(blocks.pairs(LIFE, "a", "b")[1], rate) == {
        "median": 1.55, "low": 1.5, "high": 1.6, "interval": "min-max", "repeats": 2,
    }  # fmt: skip


def test_six_pairs_are_an_interval():
    """The fewest whose range is one of 95 %."""
    six = [(block("a", turn, 10), block("b", turn, 11 + turn)) for turn in range(6)]
    assert blocks.ratio(six, rate)["interval"] == "95%"


def test_what_is_not_defined_is_none():
    """A block without the figure counts in no pair; a zero is no denominator."""
    pairs = [(block("a", 0, None), block("b", 0, 5)), (block("a", 1, 0), block("b", 1, 5))]
    assert blocks.ratio(pairs, rate) is None
    assert blocks.spread([pairs[0][0]], rate) is None
    assert blocks.spread([pairs[1][0]], rate)["median"] == 0
    assert blocks.gives(None) is None and blocks.GIVES[None] == "-"


def test_all_pairs_must_agree():
    """One pair alone says nothing, and nothing is said by what a table shows as 1.00."""
    spans = [(1.1, 1.3), (0.9, 1.1), (0.7, 0.99), (0.7, 0.998)]
    said = [blocks.gives({"low": low, "high": high, "repeats": 3}) for low, high in spans]
    assert said == ["more", "no more", "less", "no more"]
    assert blocks.gives({"low": 1.2, "high": 1.2, "repeats": 1}) is None


def test_what_is_missing_is_said():
    """A life, the users that a life did not come to, and why."""
    first, second, *others = [life for life in cases.questions() if life.work == "in turns"]
    crashed = {"rows": [], "failed": ["failed: no GPU"]}
    known = {"rows": [block("no drafts", 0, 1), block("n-gram drafts", 0, 2)], "failed": ["stopped: no time"]}
    said = blocks.left_out({"lives": {first.key: known, second.key: crashed}}, "in turns", "no drafts", "n-gram drafts")
    assert said == [
        f"{first.key}: stopped: no time", f"{first.key}: no blocks with 4 users, 16 users, 64 users",
        f"{second.key}: failed: no GPU", *(f"{life.key}: planned, not recorded yet" for life in others),
    ]  # fmt: skip
