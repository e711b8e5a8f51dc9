"""What answers bring per token takes few bytes, and is read as the tuples it stands for."""

import json
import tracemalloc

import pytest

from helpers.bench import connection, stream
from helpers.bench.packed import Numbers, Texts
from helpers.bench.timing import Level

ANSWERS, TOKENS = 40, 1000
MOST_BYTES = 45  # a token: 10,000 answers of 1,000 tokens and what the client itself takes stay below 500 MB


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (Numbers([]), ()),
        (Numbers([3, -1, 2**31 - 1]), (3, -1, 2**31 - 1)),
        (Numbers([3, 2**31, -(2**63)]), (3, 2**31, -(2**63))),
        (Texts([]), ()),
        (Texts(["", "a", " schön", "", "🙂"]), ("", "a", " schön", "", "🙂")),
    ],
    ids=["no number", "small", "large", "no text", "texts"],
)
def test_it_is_read_as_a_tuple(packed, plain):
    """Items from either end, slices, length, truth, equality and hash."""
    assert packed == plain and plain == packed and packed == type(packed)(plain) and hash(packed) == hash(plain)
    assert (len(packed), bool(packed), list(packed), repr(packed)) == (len(plain), bool(plain), list(plain), repr(plain))
    assert [packed[at] for at in range(-len(plain), len(plain))] == [plain[at] for at in range(-len(plain), len(plain))]
    assert (packed[1:], packed[::-2], packed[-2:]) == (plain[1:], plain[::-2], plain[-2:])
    assert packed != [*plain] and packed != (*plain, 0)
    with pytest.raises(IndexError):
        packed[len(plain)]


def reply(number: int) -> connection.Reply:
    """A mock of an answer of a thousand tokens, each with a stamp and a lag of its own."""
    got = connection.Reply(number, 200, {"content-type": "text/event-stream"}, whole=True)
    for at in range(TOKENS):
        said = {"choices": [{"text": f" word{at}", "finish_reason": "stop" if at == TOKENS - 1 else None}]}
        got.stamps_ns.append(10**15 + number * 10**7 + at * 10**6)
        got.lags_ns.append(50_000 + at)
        got.parts.append((at, b"data: %s\n\n" % json.dumps(said).encode()))
    return got


def test_an_answer_of_a_thousand_tokens_keeps_few_bytes_a_token():
    """Also while the level's figures are made of all its gaps."""
    Level(1, ((stream.read(reply(0)),),)).to_dict()  # what is loaded for the first one is not of its tokens
    tracemalloc.start()
    try:
        level = Level(1, (tuple(stream.read(reply(number)) for number in range(ANSWERS)),))
        tracemalloc.reset_peak()
        kept = tracemalloc.get_traced_memory()[0]
        figures = level.to_dict()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (figures["itl_s"]["n"], figures["output_tokens"]) == (ANSWERS * (TOKENS - 1), [TOKENS])
    assert kept / (ANSWERS * TOKENS) < peak / (ANSWERS * TOKENS) < MOST_BYTES
