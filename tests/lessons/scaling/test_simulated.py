"""A simulated server, by hand where a hand can, and by the theory of queues where it cannot."""

from itertools import pairwise
from statistics import mean

import pytest

from helpers.bench import workload
from helpers.lessons.scaling import simulated
from helpers.lessons.scaling.simulated import Server

TICK = 0.01


def ticks(users: int, prompts: tuple[int, ...]) -> float:
    """A step takes ten milliseconds, and one more for each token of a prompt."""
    return TICK + 0.001 * sum(prompts)


def server(slots: int = 8, step_tokens: int = 100, mixed: bool = True) -> Server:
    return Server(ticks, slots, step_tokens, mixed)


def test_a_request_alone_waits_for_its_prompt_and_then_for_each_step():
    """It arrives when nobody is there: time does not pass without work."""
    (one,) = simulated.answers([3.0], 20, 4, server())

    assert one.token_s == pytest.approx((3.03, 3.04, 3.05, 3.06))
    assert (one.ttft_s, one.tpot_s) == (pytest.approx(0.03), pytest.approx(0.01))


def test_an_answer_of_one_token_has_no_tpot():
    """And keeps every limit of it."""
    (one,) = simulated.answers([0.0], 20, 1, server())

    assert one.tpot_s is None and one.met(ttft_s=0.03, tpot_s=0) and not one.met(ttft_s=0.02, tpot_s=0)


def test_prompts_that_wait_are_read_in_one_step():
    """As many tokens as a step may have; what is left of a prompt comes first in the next."""
    first, second, third = simulated.answers([0.0, 0.0, 0.0], 40, 1, server(step_tokens=100))

    assert first.token_s == second.token_s == pytest.approx((TICK + 0.1,))  # 40, 40 and half of the third
    assert third.token_s == pytest.approx((2 * TICK + 0.12,))


def test_a_prompt_makes_others_wait_in_their_step_or_for_one_of_its_own():
    """Mixed, who decodes gets a token in the long step; else only after it."""
    mixed, apart = (simulated.answers([0.0, 0.025], 10, 3, server(mixed=mixed))[0].token_s for mixed in (True, False))

    assert mixed == pytest.approx((0.02, 0.03, 0.05))
    assert apart == pytest.approx((0.02, 0.03, 0.06))


def test_no_more_at_once_than_there_are_slots():
    """Who finds none free waits for an answer to end."""
    found = simulated.answers([0.0, 0.0, 0.0], 10, 3, server(slots=2))

    assert found[0].token_s == found[1].token_s
    assert found[2].token_s[0] > found[0].token_s[-1]


def test_tokens_of_those_who_decode_count_to_a_step():
    """With as many users as a step has tokens no prompt is read beside them."""
    found = simulated.answers([0.0, 0.0, 0.015], 1, 4, server(step_tokens=2))

    assert found[2].token_s[0] > found[0].token_s[-1]


def test_what_was_read_elsewhere_takes_part_at_once():
    """A prompt without tokens: its first step is a decode step."""
    one, other = simulated.answers([0.0, 0.005], 0, 3, server())

    assert one.token_s == pytest.approx((0.01, 0.02, 0.03))
    assert other.token_s == pytest.approx((0.02, 0.03, 0.04))


def test_every_request_has_all_its_tokens_in_their_order():
    """Under a load that a server cannot bear, too."""
    arrived = workload.arrivals(200, 100, seed=3)
    found = simulated.answers(arrived, 30, 8, server(slots=4, step_tokens=64))

    assert [one.arrived_s for one in found] == arrived
    assert all(len(one.token_s) == 8 and all(a < b for a, b in pairwise(one.token_s)) for one in found)
    assert all(one.ttft_s > 0 for one in found)


def test_copies_answer_in_turn_and_know_nothing_of_each_other():
    """The second request finds a server that is free."""
    found = simulated.copies([0.0, 0.0], 2, lambda some: simulated.answers(some, 20, 1, server(slots=1)))

    assert [one.ttft_s for one in found] == pytest.approx([0.03, 0.03])


@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_prompts_one_by_one_are_a_queue_whose_mean_wait_is_known(busy):
    """M/D/1: busy x service / (2 x (1 - busy)), after Pollaczek and Khinchine."""
    service_s = TICK + 0.02
    arrived = workload.arrivals(40_000, busy / service_s, seed=11)

    found = simulated.answers(arrived, 20, 1, server(step_tokens=20))

    waited_s = mean(one.ttft_s for one in found) - service_s
    assert waited_s == pytest.approx(busy * service_s / (2 * (1 - busy)), rel=0.06)
