"""Conversations, shared system prompts and lengths that differ: what is made, and what is really sent."""

import asyncio

import pytest
from leftovers import wait_until

from helpers.bench import client, distributions, measure, talks
from helpers.bench.client import Endpoint
from helpers.bench.measure import Plan
from helpers.bench.synthetic import Synthetic
from helpers.bench.talks import Part, Talk, Turn, Writer
from helpers.bench.truth_script import Script, said
from helpers.bench.truth_server import TruthServer

WORDS = [f"\u0120{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
WRITER = Writer(WORDS, "an order")


def synthetic(given: str = "8", answer: str = "4", system: int = 0, turns: str = "1", think: str = "0") -> Synthetic:
    parse = distributions.parse
    return Synthetic(parse("i", given), parse("o", answer), system, parse("t", turns), parse("p", think, least=0))


def made(source: Synthetic, count: int = 3, *, seed: str = "s", skip: int = 0, overhead: int = 0) -> list[Talk]:
    return source.talks(count, seed=seed, skip=skip, overhead=overhead)


def texts(talk: Talk) -> list[str]:
    return [WRITER.prompt(turn.parts).text for turn in talk.turns]


class MockOfACache:
    """A mock of a server's prefix cache: it keeps every prompt's words at once and without an end, and reports the hits."""

    def __init__(self):
        self.kept: set[tuple[str, ...]] = set()

    def __call__(self, number: int, body: dict) -> Script:
        words = tuple(said(body).split())
        held = next((n for n in range(len(words) - 1, 0, -1) if words[:n] in self.kept), 0)
        self.kept |= {words[:n] for n in range(1, len(words) + 1)}
        return Script(cached_tokens=held)


def test_every_turn_begins_with_all_that_was_said_before():
    """The context grows by the answer and the next message: 8 tokens, then 8 + 4 + 8, then 32."""
    (talk,) = made(synthetic(turns="3"), 1)
    one, two, three = texts(talk)

    assert [turn.input_tokens for turn in talk.turns] == [8, 20, 32] == [len(text.split()) for text in (one, two, three)]
    assert two.startswith(one) and three.startswith(two)
    assert [message[0] for message in WRITER.prompt(talk.turns[2].parts).messages] == ["user", "assistant"] * 2 + ["user"]


def test_all_talks_share_the_system_prompt_and_nothing_else():
    """The first 5 tokens are alike, the sixth is another one in each; the same in the next repeat."""
    first, again = made(synthetic(system=5), 10), made(synthetic(system=5), 10, seed="another", skip=10)
    prompts = [WRITER.prompt(talk.turns[0].parts).token_ids for talk in first + again]

    assert len({ids[:5] for ids in prompts}) == 1
    assert len({ids[5] for ids in prompts}) == 20


def test_lengths_turns_and_pauses_are_drawn_for_each():
    """Within what was asked, and not all alike; no pause before the first turn."""
    found = made(synthetic("uniform:4:40", "uniform:2:9", turns="uniform:1:4", think="uniform:1:2"), 40)
    turns = [turn for talk in found for turn in talk.turns]

    assert {len(talk.turns) for talk in found} == {1, 2, 3, 4}
    assert {turn.output_tokens for turn in turns} == set(range(2, 10))
    assert {talk.turns[0].think_s for talk in found} == {0.0}
    assert all(1 <= turn.think_s <= 2 for talk in found for turn in talk.turns[1:])


def test_the_templates_tokens_are_part_of_the_first_message():
    """A server that adds 3 tokens gets 5 words for 8, and counts 20 in the second turn."""
    (talk,) = made(synthetic(turns="2"), 1, overhead=3)

    assert [len(text.split()) for text in texts(talk)] == [5, 17]
    assert [turn.input_tokens for turn in talk.turns] == [8, 20]


def test_the_seed_decides_and_the_hash_tells():
    """The same seed, the same talks and hash; another seed, pause or length, another hash."""
    base = talks.sha256([made(synthetic(turns="2", think="1"))], WRITER)

    assert made(synthetic(turns="2")) == made(synthetic(turns="2")) != made(synthetic(turns="2"), seed="x")
    assert base == talks.sha256([made(synthetic(turns="2", think="1"))], WRITER)
    others = [synthetic(turns="2", think="2"), synthetic("9", turns="2", think="1"), synthetic(answer="5", turns="2", think="1")]
    assert len({base, *(talks.sha256([made(other)], WRITER) for other in others)}) == 4
    assert base != talks.sha256([made(synthetic(turns="2", think="1"))], Writer(None, "an order"))


def test_a_given_text_is_sent_as_it_is():
    """In messages with their roles, and as lines where there is one text; it has no ids."""
    parts = (Part("k", 2, "system", "Be"), Part("l", 3, "user", "Hi!"))
    prompt = WRITER.prompt(parts)

    assert (prompt.text, prompt.token_ids, prompt.messages) == ("Be\nHi!", None, (("system", "Be"), ("user", "Hi!")))


def spoken(mock: TruthServer, said: list[Talk], users: int | None = None, route: str = "completions", **more) -> list:
    endpoint = Endpoint(mock.base_url, "m", route=route, **more)
    return client.run(client.talks(endpoint, said, WRITER, users=users, timeout_s=20))


def test_a_turn_is_sent_when_the_last_one_was_answered_and_thought_about():
    """Two users, three talks of three turns: never more than two at once, in the order of turns, 50 ms apart."""
    with TruthServer(Script(first_s=0.02)) as mock:
        samples = spoken(mock, made(synthetic(turns="3", think="0.05")), users=2)

        assert (len(mock.received), mock.most_at_once, mock.accepted) == (9, 2, 2)
    for talk in range(3):
        turns = sorted((s for s in samples if s.asked.talk == talk), key=lambda s: s.asked.turn)
        assert [turn.asked.turn for turn in turns] == [0, 1, 2]
        assert all(later.sent_ns - earlier.event_ns[-1] >= 45_000_000 for earlier, later in zip(turns, turns[1:]))
        assert [turn.queue_s is None for turn in turns] == [True, False, False]


def test_on_the_chat_route_each_message_has_its_role():
    """A system prompt, and the past of the conversation between user and assistant."""
    with TruthServer() as mock:
        samples = spoken(mock, made(synthetic(system=3, turns="2"), 1), users=1, route="chat")
        roles = [[message["role"] for message in request.body["messages"]] for request in mock.received]

    assert roles == [["system", "user"], ["system", "user", "assistant", "user"]]
    assert [(s.prompt_tokens, s.asked.input_tokens) for s in samples] == [(11, None), (23, None)]  # with a template, who knows


def test_talks_with_times_begin_at_them_however_busy_the_server_is():
    """At 0, 0.1 and 0.2 s, to a server that takes 0.5 s: three at once, each sent when due."""
    turn = made(synthetic(), 1)[0].turns
    with TruthServer(Script(first_s=0.5)) as mock:
        samples = spoken(mock, [Talk(turn, 0.0), Talk(turn, 0.1), Talk(turn, 0.2)])

        assert mock.most_at_once == 3
    due = sorted(s.scheduled_ns for s in samples)
    assert [(ns - due[0]) / 1e9 for ns in due] == pytest.approx([0, 0.1, 0.2])
    assert all(0 <= s.queue_s < 0.1 for s in samples)


def test_a_turn_that_fails_ends_neither_its_talk_nor_the_others():
    """One answer of six is a 503: five are measured."""
    with TruthServer(lambda number, body: Script(status=503, answer={}) if number == 1 else Script()) as mock:
        samples = spoken(mock, made(synthetic(turns="2")), users=1)

    assert [s.error for s in samples] == [None, "HTTP 503: {}", None, None, None, None]


def test_what_cannot_fit_is_not_sent_and_counted():
    """The second turn's 20 tokens and the answer's 4 are beyond a context of 20."""
    with TruthServer() as mock:
        one, two = spoken(mock, made(synthetic(turns="2"), 1), users=1, context=20)

        assert len(mock.received) == 1
    assert one.error is None and two.error.startswith("too long: 24 tokens in and out, and the context is 20")


def test_cancelling_closes_every_connection():
    """In a think time and in an answer: the server sees its clients go."""
    with TruthServer(lambda number, body: Script(end="stall") if number else Script()) as mock:

        async def cancelled() -> None:
            load = client.talks(Endpoint(mock.base_url, "m"), made(synthetic(turns="2", think="30"), 2), WRITER, users=2)
            task = asyncio.create_task(load)
            while len(mock.received) < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        client.run(cancelled())

        assert wait_until(lambda: not mock.connections)


def test_a_load_without_users_is_refused():
    """Before a connection is opened."""
    with pytest.raises(ValueError, match="^users=0: a load needs at least one user$"):
        client.run(client.talks(Endpoint("http://127.0.0.1:1/v1", "m"), [], WRITER, users=0))


def measured(mock: TruthServer, source: Synthetic, **plan):
    settings = {"users": (2,), "input_tokens": 8, "output_tokens": 4, "requests": 4, "settle": False, "source": source, **plan}
    (level,) = measure.measure(Endpoint(mock.base_url, "m"), Plan(**settings), vocabulary=WORDS)
    return level


def test_what_a_cache_holds_is_what_was_expected_and_is_no_fault():
    """Conversations after a system prompt, to a mock of a cache: both counts stand side by side, and the level has figures."""
    with TruthServer(MockOfACache()) as mock:
        level = measured(mock, synthetic(system=16, turns="3"))
    cache = level.to_dict()["prefix_cache"]

    assert (level.refused, level.label) == (None, None)
    assert cache["prompt_tokens"] == 3 * 4 * (24 + 36 + 48)
    assert cache["expected_low"] == cache["expected_high"] == 3 * 4 * (16 + 24 + 36) == cache["reported"]


def test_a_cache_that_holds_more_than_was_expected_is_refused():
    """A mock that has seen these prompts before: every prompt but for its last token is a hit."""
    cache = MockOfACache()
    with TruthServer(cache) as mock:
        measured(mock, synthetic(system=16, turns="2"))
        level = measured(mock, synthetic(system=16, turns="2"))
        allowed = measured(mock, synthetic(system=16, turns="2"), allow_cached=True)

    assert level.refused.startswith(
        "not a measurement: prefix cache: 24 of 24 answers report 696 cached prompt tokens, at most 480"
    )
    assert allowed.refused is None and allowed.prefix_cache["reported"] == 696


def test_an_endpoint_under_two_names_has_one_cache():
    """An A/A run without warm-ups: the system prompt is new to the first request of the first name, and to no other."""
    plan = Plan(users=(1,), input_tokens=8, output_tokens=4, requests=2, warmups=0, allow_few=True, source=synthetic(system=16))
    with TruthServer(MockOfACache()) as mock:
        same = Endpoint(mock.base_url, "m")
        found = measure.compare({"A": same, "again": same}, plan, vocabulary=WORDS)
    (once,), (again,) = found["A"], found["again"]

    assert (once.prefix_cache["expected_high"], again.prefix_cache["expected_high"]) == (5 * 16, 6 * 16)
    assert [level.prefix_cache["reported"] for level in (once, again)] == [5 * 16, 6 * 16]


def test_a_server_without_a_cache_is_expected_to_hold_and_reports_nothing():
    """None is not zero: without a report nobody knows."""
    with TruthServer(Script(usage=False)) as mock:
        level = measured(mock, synthetic(system=16))

    assert level.prefix_cache["expected_high"] == 12 * 16 and level.prefix_cache["reported"] is None


def test_an_answer_of_another_length_than_its_own_is_said():
    """Lengths differ from request to request, and one of twelve answers has another than was asked."""
    with TruthServer(lambda number, body: Script(tokens=99) if number == 6 else Script()) as mock:
        level = measured(mock, synthetic(answer="uniform:3:9"))

    assert level.label.startswith("output length: 1 of 12 answers have another one than asked for; the worst 99 for ")


def test_talks_arrive_at_random_in_an_open_loop():
    """20 conversations a second: each has its time, and its second turn follows the first."""
    with TruthServer() as mock:
        level = measured(mock, synthetic(turns="2"), rates_per_s=(20.0,), requests=6)

    assert (level.rate_per_s, [len(block) for block in level.blocks]) == (20.0, [12, 12, 12])
    firsts = sorted(s.scheduled_ns for s in level.blocks[0] if s.asked.turn == 0)
    assert len({b - a for a, b in zip(firsts, firsts[1:])}) == 5


def test_the_plan_of_talks_is_kept_as_it_was_asked():
    """Its hash changes with the seed; the provenance says the distributions in words."""
    plan = Plan(users=(2,), source=synthetic("uniform:4:40", turns="2"))
    sha256 = measure.workload_sha256(plan)

    assert sha256 == measure.workload_sha256(Plan(users=(2,), warmups=3, source=synthetic("uniform:4:40", turns="2")))
    assert sha256 != measure.workload_sha256(Plan(users=(2,), seed=1, source=synthetic("uniform:4:40", turns="2")))
    assert plan.facts()["source"] == {
        "kind": "synthetic", "input_tokens": "uniform:4:40", "output_tokens": "4", "turns": "2", "think_s": "0",
        "system_tokens": 0,
    }  # fmt: skip


def test_a_system_prompt_of_less_than_nothing_is_refused():
    """Before anything is made."""
    with pytest.raises(ValueError, match="^system_tokens=-1: must be at least 0$"):
        synthetic(system=-1)


def test_turns_of_one_role_are_one_message():
    """The blocks of a trace are one text of one user."""
    turn = Turn((Part("a", 2), Part("b", 2)), 1, 4)

    assert [message[0] for message in WRITER.prompt(turn.parts).messages] == ["user"]
    assert turn.asked(0, 0, chat=True).input_tokens == 4
