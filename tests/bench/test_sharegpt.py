"""Conversations from a file in ShareGPT's form: what they become, and every fault with its line."""

import json

import pytest

from helpers.bench import client, distributions, measure, sharegpt
from helpers.bench.client import Endpoint
from helpers.bench.files import BadFile
from helpers.bench.measure import Plan
from helpers.bench.talks import Writer
from helpers.bench.truth_server import TruthServer

WRITER = Writer(None, "an order")


def talk(*said: str, name: str = "a") -> dict:
    """A conversation in which user and model speak in turns."""
    return {"id": name, "conversations": [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]}


def written(tmp_path, content: object):
    file = tmp_path / "talks.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_each_message_of_the_user_is_a_request_with_all_before_it(tmp_path):
    """Two questions; the file's answer stands in for the model's; answers as long as the file's letters say."""
    ((one, two),) = sharegpt.read(written(tmp_path, [talk("What?", "A" * 40, "And?", "B" * 8)])).conversations

    assert WRITER.prompt(one.parts).messages == (("user", "What?"),)
    assert WRITER.prompt(two.parts).messages == (("user", "What?"), ("assistant", "A" * 40), ("user", "And?"))
    assert (one.output_tokens, two.output_tokens, one.input_tokens) == (10, 2, None)


def test_an_array_and_lines_are_read_alike(tmp_path):
    """And a system message, and a question that nobody answered."""
    record = {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "user", "value": "Hi"}]}
    array = sharegpt.read(written(tmp_path, json.dumps([record, talk("x")], indent=2))).conversations
    lines = sharegpt.read(written(tmp_path, f"{json.dumps(record)}\n{json.dumps(talk('x'))}\n")).conversations

    assert array == lines and [part.role for part in array[0][0].parts] == ["system", "user"]
    assert array[0][0].output_tokens == 1


def test_repeats_take_other_conversations_until_the_file_is_used_up(tmp_path):
    """Five conversations: the next two after two, and round again after five; the order is the file's own."""
    source = sharegpt.read(written(tmp_path, [talk(f"question {i}") for i in range(5)]))

    def said(count: int, skip: int) -> list[str]:
        return [WRITER.prompt(t.turns[0].parts).text for t in source.talks(count, seed="s", skip=skip, overhead=0)]

    assert said(2, 0) + said(3, 2) == said(5, 0) == said(5, 5) and len(set(said(5, 0))) == 5


def test_an_asked_length_overrules_and_pauses_are_drawn(tmp_path):
    """7 tokens for each answer; a pause before each turn but the first."""
    think_s = distributions.parse("--think", "uniform:1:2", least=0)
    source = sharegpt.read(written(tmp_path, [talk("a", "b", "c", "d")]), output_tokens=7, think_s=think_s)
    one, two = source.talks(1, seed="s", skip=0, overhead=0)[0].turns

    assert (one.output_tokens, two.output_tokens, one.think_s, 1 <= two.think_s <= 2) == (7, 7, 0, True)


def test_the_past_of_a_conversation_is_expected_in_the_cache(tmp_path):
    """Two turns of words: the second holds the first one's message, by letters, as the server counts tokens."""
    source = sharegpt.read(written(tmp_path, [talk("one two six ", "ten ten ten ", "one two six ")]), output_tokens=2)
    plan = Plan(users=(1,), requests=1, input_tokens=8, output_tokens=2, source=source, settle=False)
    with TruthServer() as mock:
        (level,) = measure.measure(Endpoint(mock.base_url, "m", route="chat"), plan)

    assert [s.prompt_tokens for s in level.blocks[0]] == [3, 9]
    # the warm-up has sent all of it: of 3 tokens all but the last, of 9 too
    assert (level.refused, level.prefix_cache["expected_high"]) == (None, 3 * (3 + 9))


def test_the_texts_are_sent_as_they_are(tmp_path):
    """On the chat route as messages, with signs and letters of all kinds."""
    source = sharegpt.read(written(tmp_path, [talk("Grüße, 世界 🙂\n")]))
    with TruthServer() as mock:
        said = source.talks(1, seed="s", skip=0, overhead=0)
        client.run(client.talks(Endpoint(mock.base_url, "m", route="chat"), said, WRITER, users=1))

        assert mock.received[0].body["messages"] == [{"role": "user", "content": "Grüße, 世界 🙂\n"}]


GOOD = json.dumps(talk("x"))


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (f"[\n{GOOD},\n{{]", 3, "is not JSON (Expecting property name enclosed in double quotes)"),
        (f"[\n{GOOD},\n", 3, "the array does not end; the file was cut"),
        (f"[{GOOD}]\n]", 1, "more stands behind the array's end"),
        (f"{GOOD}\n[]", 2, "[] where an object is expected"),
        (f'{GOOD}\n{{"id": "b"}}', 2, "the field 'conversations' is missing"),
        ('\n{"conversations": []}', 2, "conversations is [], must be a list with a message"),
        ('{"conversations": [5]}', 1, "message 1: 5 where an object is expected"),
        ('{"conversations": [{"from": "human", "value": "x"}], "lang": "en"}', 1, "the field 'lang' is not known; take it out"),
        ('{"conversations": [{"from": "human", "value": "x", "likes": 3}]}', 1, "message 1: the field 'likes' is not known"),
        (
            '{"conversations": [{"from": "human", "value": "x"}, {"from": "bing", "value": "y"}]}',
            1,
            'message 2: is from "bing", must',
        ),
        ('{"conversations": [{"from": "human", "value": " "}]}', 1, 'message 1: value is " ", must be a text'),
        ('{"conversations": [{"from": "gpt", "value": "x"}]}', 1, "nobody asks anything; a message from 'human' is missing"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path, content, line, reason):
    """File, line, reason, in one line."""
    file = written(tmp_path, content)
    with pytest.raises(BadFile) as caught:
        sharegpt.read(file)

    said = str(caught.value)
    assert said.startswith(f"{file}, line {line}") and reason in said and "\n" not in said


def test_an_empty_file_is_refused(tmp_path):
    """Nothing to send."""
    with pytest.raises(BadFile, match="holds no conversation; give one in ShareGPT's form$"):
        sharegpt.read(written(tmp_path, "[]"))
