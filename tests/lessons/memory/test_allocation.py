"""KV allocation on a trace, each figure counted by hand."""

import random

import pytest

from helpers.lessons.memory import allocation
from helpers.lessons.memory.allocation import Request, Usage

COMMON = tuple(range(100, 108))  # eight tokens that both requests of PAIR begin with
PAIR = [Request((*COMMON, 1, 2), output_tokens=4), Request((*COMMON, 3), output_tokens=2, start=1)]


def test_a_request_holds_its_prompt_and_then_a_token_more_at_each_step():
    """Ten in, four out: the last token of the answer is never stored."""

    assert [PAIR[0].tokens(step) for step in range(5)] == [10, 11, 12, 13, 0]
    assert [PAIR[1].tokens(step) for step in range(5)] == [0, 9, 10, 0, 0]
    assert (PAIR[0].longest, PAIR[1].longest) == (13, 10)


def test_contiguous_reserves_the_longest_length_from_the_start_on():
    """16 for each while it runs."""
    found = allocation.contiguous(PAIR, longest=16)

    assert found.steps == (Usage(16, 10), Usage(32, 20), Usage(32, 22), Usage(16, 13))
    assert found.peak == Usage(32, 22)


def test_paged_takes_a_page_when_it_is_needed():
    """Pages of four: 10 to 12 tokens are three, 13 are four; 9 and 10 are three."""

    assert allocation.paged(PAIR, page=4).steps == (Usage(12, 10), Usage(24, 20), Usage(24, 22), Usage(16, 13))


def test_a_page_of_one_token_wastes_nothing():
    """Reserved is used."""

    assert all(step.wasted == 0 for step in allocation.paged(PAIR, page=1).steps)
    assert allocation.paged(PAIR, page=1).wasted_share == 0


def test_shared_keeps_full_pages_of_the_same_beginning_once():
    """Two pages of four are common; beside them each has what is left of its own."""

    assert allocation.shared(PAIR, page=4).steps == (Usage(12, 10), Usage(16, 12), Usage(16, 14), Usage(16, 13))


def test_a_radix_tree_shares_to_the_token():
    """Page of one: the eight common tokens once, 3 + 1 beside them at the second step."""

    assert allocation.shared(PAIR, page=1).steps[1] == Usage(12, 12)


def test_a_page_that_is_not_full_is_not_shared():
    """Eight common tokens are no page of sixteen."""

    assert allocation.shared(PAIR, page=16).steps == allocation.paged(PAIR, page=16).steps


def test_the_same_page_after_another_beginning_is_another_page():
    """Keys and values depend on all tokens before."""
    same_end = [Request((1, 2, 7, 8), 1), Request((3, 4, 7, 8), 1)]

    assert allocation.shared(same_end, page=2).peak == Usage(8, 8)
    assert allocation.hits(same_end, page=2) == (0, 0)


def test_wasted_share_is_of_the_whole_trace():
    """(6 + 12 + 10 + 3) of (16 + 32 + 32 + 16)."""

    assert allocation.contiguous(PAIR, longest=16).wasted_share == 31 / 96


class TestHits:
    """Prompt tokens that a cache that forgets nothing has, one request after the other."""

    @pytest.mark.parametrize(("page", "found"), [(1, (0, 8)), (4, (0, 8)), (8, (0, 8)), (5, (0, 5)), (16, (0, 0))])
    def test_full_pages_of_an_earlier_prompt(self, page, found):
        """Eight common tokens: to the token, or in whole pages."""

        assert allocation.hits(PAIR, page) == found

    @pytest.mark.parametrize(("page", "found"), [(1, 7), (2, 6), (4, 4), (8, 0)])
    def test_the_last_token_of_a_prompt_is_computed(self, page, found):
        """The same eight tokens twice: the last one's page is not taken from the cache, as in vLLM."""

        assert allocation.hits([Request(COMMON, 1)] * 2, page) == (0, found)

    def test_600_tokens_in_pages_of_32_as_vllm_counts_them(self):
        """(600 - 1) // 32 x 32 = 576, which notebook 03 reads from the engine."""

        assert allocation.hits([Request(tuple(range(600)), 1)] * 2, 32) == (0, 576)


def test_a_hundred_users_with_a_common_prompt():
    """S + 100 u tokens instead of 100 (S + u): 1,000 + 100 each are 11,000 and not 110,000."""
    system = tuple(range(1000))
    users = [Request((*system, *(10_000 + 100 * user + n for n in range(100))), 1) for user in range(100)]

    assert allocation.shared(users, page=1).peak.reserved == 11_000
    assert allocation.paged(users, page=1).peak.reserved == 110_000


def test_shared_never_takes_more_than_paged_and_paged_than_contiguous():
    """On 50 random traces, at every step."""
    draw = random.Random(0)
    for _ in range(50):
        page = draw.choice((1, 2, 3, 8))
        trace = [
            Request(tuple(draw.choices(range(3), k=draw.randint(1, 20))), draw.randint(1, 9), draw.randint(0, 9))
            for _ in range(6)
        ]
        longest = allocation.pages(max(request.longest for request in trace), page) * page
        three = (allocation.shared(trace, page), allocation.paged(trace, page), allocation.contiguous(trace, longest))
        for shared, paged, contiguous in zip(*(found.steps for found in three)):
            assert shared.reserved <= paged.reserved <= contiguous.reserved
            assert shared.used <= paged.used == contiguous.used
            assert 0 <= shared.wasted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Request((), 1), "a request of 0 tokens in, 1 out, start 0: lengths must be at least 1"),
        (lambda: Request((1,), 0), "a request of 1 tokens in, 0 out, start 0: lengths must be at least 1"),
        (lambda: Request((1,), 1, start=-1), "a request of 1 tokens in, 1 out, start -1: lengths must be at least 1"),
        (lambda: allocation.contiguous(PAIR, 12), "a request of 13 tokens does not fit the 12 that are reserved for each"),
        (lambda: allocation.paged(PAIR, 0), "page=0: a page holds at least 1 token"),
        (lambda: allocation.shared(PAIR, -1), "page=-1: a page holds at least 1 token"),
        (lambda: allocation.hits(PAIR, 0), "page=0: a page holds at least 1 token"),
        (lambda: allocation.paged([], 1), "the trace has no requests: give at least one"),
    ],
)
def test_sizes_that_cannot_be(wrong, message):
    """Said in one line."""
    with pytest.raises(ValueError) as caught:
        wrong()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
