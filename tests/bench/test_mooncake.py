"""A trace in Mooncake's format: what its rows become, at what times, and every malformed line."""

import json

import pytest

from helpers.bench import measure, mooncake
from helpers.bench.client import Endpoint
from helpers.bench.files import BadFile
from helpers.bench.measure import Plan
from helpers.bench.mooncake import Row, Trace
from helpers.bench.talks import Writer
from helpers.bench.truth_server import TruthServer

GOOD = {"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]}
WRITER = Writer([f"\u0120{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"], "an order")
ROWS = (Row(1000, 10, 2, (0, 1, 2)), Row(1200, 8, 3, (0, 1)), Row(1400, 7, 1, (5, 6)), Row(1400, 10, 2, (0, 1, 2)))


def trace(**settings) -> Trace:
    """Four rows of blocks of 4 tokens: the second begins as the first, the third as none, the last is the first."""
    return Trace(ROWS, "t.jsonl", "0" * 64, block_tokens=4, **settings)


def written(tmp_path, *lines: object):
    file = tmp_path / "trace.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_a_trace_is_read_as_it_was_recorded(tmp_path):
    """Times, lengths, ids; an empty line is none; a fraction of a millisecond is one."""
    file = written(tmp_path, GOOD, "", {**GOOD, "timestamp": 10535.5, "hash_ids": [46, 48]})

    assert mooncake.read(file).rows == [Row(0, 655, 52, (46, 47)), Row(10535.5, 655, 52, (46, 48))]
    assert len(mooncake.read(file, requests=1).rows) == 1


def test_equal_ids_at_the_beginning_are_equal_tokens():
    """Blocks of four tokens each, the last one of what is left."""
    one, two, three, four = (
        WRITER.prompt(talk.turns[0].parts).token_ids for talk in trace().talks(4, seed="s", skip=0, overhead=0)
    )

    assert [len(ids) for ids in (one, two, three)] == [10, 8, 7]
    assert one[:8] == two and one == four
    assert not set(one[:4]) & set(three[:4])


def test_another_repeat_has_other_tokens():
    """Or the first would warm the cache for the next."""
    first, again = (trace().talks(1, seed=seed, skip=0, overhead=0)[0].turns[0].parts for seed in ("turn 0", "turn 1"))

    assert WRITER.prompt(first).token_ids != WRITER.prompt(again).token_ids


@pytest.mark.parametrize(("stretch", "times"), [(1.0, [0, 0.2, 0.4, 0.4]), (0.5, [0, 0.1, 0.2, 0.2]), (3.0, [0, 0.6, 1.2, 1.2])])
def test_the_times_are_real_or_stretched(stretch, times):
    """From the first request on."""
    found = trace(stretch=stretch)

    assert [talk.at_s for talk in found.talks(4, seed="s", skip=0, overhead=0)] == pytest.approx(times)
    assert found.span_s == pytest.approx(times[-1]) and found.rate_per_s == pytest.approx(4 / times[-1])


def test_an_id_of_a_rest_is_not_the_block_of_that_id():
    """The last block of a prompt may be shorter: a cache of whole blocks does not take one for the other."""
    rows = (Row(0, 8, 1, (0, 1)), Row(0, 6, 1, (0, 1)))
    one, two = Trace(rows, "t", "0", block_tokens=4).talks(2, seed="s", skip=0, overhead=0)

    assert one.turns[0].parts[0] == two.turns[0].parts[0] and one.turns[0].parts[1].key != two.turns[0].parts[1].key


def test_a_row_without_ids_shares_nothing():
    """Two rows of equal length: other tokens."""
    one, two = Trace((Row(0, 8, 1), Row(0, 8, 1)), "t", "0", block_tokens=4).talks(2, seed="s", skip=0, overhead=0)

    assert not {part.key for part in one.turns[0].parts} & {part.key for part in two.turns[0].parts}


def test_the_templates_tokens_are_counted_in():
    """Of 10 tokens a server adds 2 of its own: 8 words."""
    (talk,) = trace().talks(1, seed="s", skip=0, overhead=2)

    assert (len(WRITER.prompt(talk.turns[0].parts).token_ids), talk.turns[0].input_tokens) == (8, 10)


def test_a_replay_measures_lengths_and_times_of_the_trace():
    """Three repeats after the warm-ups: the lengths in each, sent when due, and hits expected of the shared blocks."""
    source = trace()
    plan = Plan(rates_per_s=(source.rate_per_s,), input_tokens=8, output_tokens=2, source=source)
    with TruthServer() as mock:
        (level,) = measure.measure(Endpoint(mock.base_url, "m"), plan)

        assert len(mock.received) == 1 + (level.warmups + 3) * 4  # the probe before them
    block = sorted(level.blocks[0], key=lambda s: s.asked.talk)
    assert [(s.prompt_tokens, s.output_tokens) for s in block] == [(10, 2), (8, 3), (7, 1), (10, 2)]
    assert [(s.scheduled_ns - block[0].scheduled_ns) / 1e9 for s in block] == pytest.approx([0, 0.2, 0.4, 0.4])
    assert level.refused is None and level.prefix_cache["expected_high"] == 3 * (7 + 9)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"timestamp": 0,', "is not JSON (Expecting property name enclosed in double quotes)"),
        ("5", "5 where an object is expected"),
        ({"timestamp": 0, "input_length": 5}, "the field 'output_length' is missing"),
        (
            {**GOOD, "session": 1},
            "the field 'session' is not known; take it out, or use one of timestamp, input_length, output_length",
        ),
        ({**GOOD, "timestamp": -1}, "timestamp is -1, must be a number of at least 0"),
        ({**GOOD, "timestamp": "now"}, 'timestamp is "now", must be a number of at least 0'),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "timestamp is NaN, must be a number of at least 0"),
        ({**GOOD, "input_length": 0}, "input_length is 0, must be a whole number of at least 1"),
        ({**GOOD, "input_length": 6.5}, "input_length is 6.5, must be a whole number of at least 1"),
        ({**GOOD, "output_length": True}, "output_length is true, must be a whole number of at least 1"),
        ({**GOOD, "hash_ids": "46"}, 'hash_ids is "46", must be a list of whole numbers'),
        ({**GOOD, "hash_ids": [46]}, "1 hash_ids for 655 tokens, which are 2 blocks of 512; give the size of its blocks with"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, reason):
    """File, line and reason, in one line; the lines before it are good."""
    file = written(tmp_path, GOOD, "", line)
    with pytest.raises(BadFile) as caught:
        mooncake.read(file)

    assert str(caught.value).startswith(f"{file}, line 3: {reason}") and "\n" not in str(caught.value)


def test_a_time_before_the_last_one_is_named(tmp_path):
    """A trace is in the order of its times."""
    with pytest.raises(BadFile, match="line 2: timestamp 3 is before the last one, 5; sort it$"):
        mooncake.read(written(tmp_path, {**GOOD, "timestamp": 5}, {**GOOD, "timestamp": 3}))


def test_a_file_that_is_none_is_one_line(tmp_path):
    """Not there, empty, or not text."""
    (tmp_path / "binary").write_bytes(b"{}\n\xff")
    with pytest.raises(BadFile, match="gone: cannot be read \\(No such file or directory\\); give another file$"):
        mooncake.read(tmp_path / "gone")
    with pytest.raises(BadFile, match="holds no request; give a trace with one in each line$"):
        mooncake.read(written(tmp_path))
    with pytest.raises(BadFile, match="binary, line 2: is not UTF-8; convert the file$"):
        mooncake.read(tmp_path / "binary")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stretch": 0}, "stretch=0: must be above 0"),
        ({"block_tokens": 0}, "block_tokens=0: must be"),
        ({"requests": 0}, "requests=0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, message):
    """Before anything is sent."""
    with pytest.raises(ValueError, match=f"^{message}"):
        mooncake.read(written(tmp_path, GOOD), **settings)
