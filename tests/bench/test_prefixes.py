"""What an endless prefix cache would have held, computed by hand."""

from helpers.bench.prefixes import Expected, Seen
from helpers.bench.timing import Asked, Sample

SYSTEM, A, B = ("system", 10), ("a", 5), ("b", 5)


def sample(sent: int, first: int | None, *parts: tuple[str, int], tokens: int | None = None, **more) -> Sample:
    words = more.pop("words", True)
    asked = Asked(None, 1, parts, words)
    events = () if first is None else (first,)
    return Sample(sent, events, prompt_tokens=tokens or sum(size for _, size in parts), asked=asked, **more)


def test_a_prompt_is_held_as_far_as_an_earlier_one_began_alike():
    """The second shares the system prompt; the third has all of the first, but its last token is read anew."""
    found = Seen().take([sample(0, 1, SYSTEM, A), sample(2, 3, SYSTEM, B), sample(4, 5, SYSTEM, A)])

    assert found == Expected(10 + 14, 10 + 14, 10 + 14)


def test_what_was_sent_and_not_yet_answered_may_be_held_or_not():
    """The first one's first token comes at 5, the second is sent at 2: at the least nothing, at the most the system prompt."""

    assert Seen().take([sample(0, 5, SYSTEM, A), sample(2, 6, SYSTEM, B)]) == Expected(0, 10, 10)


def test_a_block_goes_on_with_what_the_last_one_left():
    """A warm-up that sent the system prompt."""
    seen = Seen()
    seen.take([sample(0, 1, SYSTEM, A)])

    assert seen.take([sample(2, 3, SYSTEM, B)]) == Expected(10, 10, 10)


def test_the_same_part_elsewhere_is_not_the_same_beginning():
    """A cache of prefixes knows a text by all that stands before it."""

    assert Seen().take([sample(0, 1, A, B), sample(2, 3, B, A)]) == Expected(0, 0, 0)


def test_a_request_that_failed_expects_nothing():
    """What it sent may be held all the same, and has no first token."""

    assert Seen().take([sample(0, None, SYSTEM, A, error="HTTP 503: no"), sample(2, 3, SYSTEM, B)]) == Expected(0, 10, 10)
    assert Seen().take([sample(0, 1, SYSTEM), sample(2, None, SYSTEM, A, error="reset: x")]) == Expected()


def test_the_templates_tokens_are_allowed_and_not_expected():
    """The server counts 3 tokens more than were sent, which stand in each prompt alike."""
    found = Seen().take([sample(0, 1, SYSTEM, A, tokens=18), sample(2, 3, SYSTEM, B, tokens=18)])

    assert found == Expected(10, 10, 3 + 13)


def test_letters_are_turned_into_tokens_by_the_servers_count():
    """Half of 200 letters are known, and the server counts 50 tokens: 25, or a quarter more."""
    texts = [
        sample(0, 1, ("x", 100), ("y", 100), tokens=50, words=False),
        sample(2, 3, ("x", 100), ("z", 100), tokens=50, words=False),
    ]

    assert Seen().take(texts) == Expected(25, 25, 31)
