"""The search for the highest load that keeps limits: against mocks of servers whose capacity is known."""

import json
import math
import random
from collections import Counter

import pytest
from scipy import stats

from helpers.bench import client, find, measure
from helpers.bench.client import Endpoint
from helpers.bench.find import Found, Judged, Search
from helpers.bench.measure import Plan, Sender
from helpers.bench.timing import Sample
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer

LIMITS = {"ttft_s": 0.2}
GOOD, BAD = Sample(0, (100_000_000,), output_tokens=1), Sample(0, (900_000_000,), output_tokens=1)


class MockOfAServer:
    """A mock of a server that keeps the limits with a known probability at each load: ``share`` at ``capacity``.

    The fewer users there are, the more requests keep them; ``width`` says over how many users this changes. ``spoilt``
    is the number of a block that something else disturbs.
    """

    def __init__(self, capacity: float, width: float, seed: int, *, share: float = 0.99, spoilt: int | None = None):
        self.capacity, self.width, self.share, self.spoilt = capacity, width, share, spoilt
        self.draw, self.asked = random.Random(seed), Counter()

    def __call__(self, load: float, requests: int) -> list[Sample]:
        self.asked[load] += 1
        kept = self.probability(load) * (0.8 if self.asked.total() == self.spoilt else 1)
        return [GOOD if self.draw.random() < kept else BAD for _ in range(max(requests, math.ceil(load)))]

    def probability(self, load: float) -> float:
        beyond = (load - self.capacity) / self.width - math.log(self.share / (1 - self.share))
        return 1 / (1 + math.exp(min(beyond, 700)))


def searched(mock: MockOfAServer, *, first: float = 1, most: float = 1000, unit: str = "users") -> Found:
    return Search(mock, LIMITS, mock.share, first, most, unit).run()


@pytest.mark.parametrize("capacity", [3.5, 20.5, 150.5])
@pytest.mark.parametrize("share", [0.99, 0.9])
def test_the_interval_holds_the_capacity(capacity, share):
    """In 19 of 20 searches: the confirmed load is not above it, and the load confirmed not to is not below."""
    found = [searched(MockOfAServer(capacity, capacity * 0.03, seed, share=share)) for seed in range(20)]

    assert sum((one.keeps or 0) < capacity < (one.exceeds or math.inf) for one in found) >= 19
    assert all(one.keeps >= 0.7 * capacity - 1 and one.exceeds <= 1.4 * capacity + 1 for one in found)


def test_a_sharp_edge_is_found_to_the_user():
    """All requests keep the limits up to 7 users and none with 8: confirmed on both sides by at least three repeats."""
    mock = MockOfAServer(7.5, 0.01, seed=1)
    found = searched(mock)

    assert (found.keeps, found.exceeds, found.reason) == (7, 8, None)
    assert len(found.judged[7].repeats) >= 3 and len(found.judged[8].repeats) >= 3
    assert found.judged[7].low >= 0.99 > found.judged[8].high


def test_a_rate_is_found_within_a_tenth():
    """A rate is no whole number; the search begins above the capacity and goes down."""
    found = searched(MockOfAServer(0.37, 0.001, seed=1), first=2, unit="requests/s")

    assert found.keeps < 0.37 < found.exceeds <= 1.11 * found.keeps


def test_a_burst_that_spoils_one_repeat_does_not_decide():
    """Whichever block of the search loses a fifth of its requests to something else: the edge is found, or left open around."""
    found = [searched(MockOfAServer(7.5, 0.01, 1, spoilt=number)) for number in range(1, 16)]

    assert all((one.keeps or 0) <= 7 and (one.exceeds or 8) >= 8 for one in found)
    assert all((one.reason is None) == ((one.keeps, one.exceeds) == (7, 8)) for one in found)
    assert sum(one.reason is None for one in found) >= 10


def test_what_cannot_be_decided_is_left_open_and_said():
    """Servers that keep the share by a hair, whatever the load: nearly all searches end early and say where and why."""
    mocks = [MockOfAServer(0, 1e9, seed) for seed in range(10)]
    found = [searched(mock) for mock in mocks]
    undecided = [one.reason for one in found if one.reason and one.reason.startswith("it cannot be decided more closely: at ")]

    assert len(undecided) >= 8 and all(f" in {find.MOST_REPEATS} repeats" in reason for reason in undecided)
    assert max(max(mock.asked.values()) for mock in mocks) <= find.MOST_REPEATS
    assert max(mock.asked.total() for mock in mocks) < find.MOST_BLOCKS


def test_a_server_that_is_always_good_is_asked_up_to_the_most():
    """64 users keep the limits, and more were not tried."""
    found = searched(MockOfAServer(1e6, 1, seed=1), most=64)

    assert (found.keeps, found.exceeds, found.reason) == (64, None, "more than 64 were not tried")


def test_a_server_that_is_never_good_keeps_at_no_load():
    """One user is confirmed to exceed them."""
    found = searched(MockOfAServer(-1e6, 1, seed=1))

    assert (found.keeps, found.exceeds) == (None, 1)
    assert str(found).startswith("no load was confirmed to keep ttft <= 0.2 s for 99 % of the requests; 1 do not (0 of ")


def test_failures_keep_no_limit_and_are_named():
    """A mock that answers 429 from three users on."""

    def mock(load: float, requests: int) -> list[Sample]:
        return [GOOD if load < 3 else Sample(0, error="HTTP 429: slow down")] * requests

    found = Search(mock, LIMITS, 0.9, 1, 100).run()

    assert (found.keeps, found.exceeds) == (2, 3)
    assert found.reason.endswith("requests failed there, most with 'HTTP 429: slow down'")


def test_the_result_says_its_share_its_repeats_and_its_interval():
    """In words and as JSON."""
    judged = {7: Judged(((100, 100),) * 3), 8: Judged(((50, 100),) * 3)}
    found = Found({"ttft_s": 0.2, "tpot_s": 0.05}, 0.99, "users", 7, 8, judged)

    assert str(found) == (
        "7 users keep ttft <= 0.2 s and tpot <= 0.05 s for 99 % of the requests (300 of 300 in 3 repeats: at least 99.0 %); "
        "8 do not (150 of 300 in 3 repeats: at most 54.9 %)"
    )
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["keeps"], told["exceeds"], told["confidence"]) == (7, 8, 0.95)
    assert [(row["load"], row["kept"], row["requests"], row["repeats"]) for row in told["loads"]] == [
        (7, 300, 300, 3),
        (8, 150, 300, 3),
    ]


@pytest.mark.parametrize(("kept", "requests"), [(0, 5), (5, 5), (299, 300), (150, 300), (3, 1000), (2000, 2000)])
def test_the_bounds_are_those_of_clopper_and_pearson(kept, requests):
    """As scipy has them, one-sided at 95 %."""
    exact = stats.binomtest(kept, requests).proportion_ci(confidence_level=0.9, method="exact")

    assert Judged(((kept, requests),)).low == pytest.approx(exact.low, abs=1e-6)
    assert Judged(((kept, requests),)).high == pytest.approx(exact.high, abs=1e-6)


@pytest.mark.parametrize(("share", "requests"), [(0.99, 299), (0.95, 59), (0.9, 29)])
def test_as_many_requests_as_can_show_the_share(share, requests):
    """All of so many kept it: shown; of one fewer: not."""

    assert find.requests_for(share) == requests
    assert Judged(((requests, requests),)).low >= share > Judged(((requests - 1, requests - 1),)).low


@pytest.mark.parametrize(
    ("repeats", "verdict"),
    [
        (((150, 150), (150, 150)), None),  # two repeats
        (((100, 100),) * 3, True),
        (((99, 100),) * 3, None),  # 297 of 300: the share may be 0.97 or 0.998
        (((90, 100),) * 3, False),
        (((20, 20), (90, 100), (90, 100)), None),  # a look and two repeats
        (((100, 100), (100, 100), (60, 100)), None),  # one of three has lost what all have
        (((80, 100), (100, 100), (60, 100)), False),
        (((2000, 2000), (98, 100), (98, 100)), None),  # one large repeat does not outvote two
    ],
)
def test_a_verdict_needs_repeats_that_agree(repeats, verdict):
    """Three at the least, with the share on one side of 0.99 at 95 %, and most of them on that side."""

    assert Judged(repeats).verdict(0.99) is verdict


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1}, "share=1: must be from 0.5 to below 1"),
        ({"share": 0.2}, "share=0.2: must be from 0.5 to below 1"),
        ({"first": 0}, "a search from 0 to 10 users: give a low and a high one, above 0"),
        ({"first": 20}, "a search from 20 to 10 users: give a low and a high one, above 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(settings, message):
    """Before anything is sent."""
    asked = {"share": 0.9, "first": 1, "most": 10, **settings}
    with pytest.raises(ValueError, match=f"^{message}"):
        Search(None, LIMITS, asked["share"], asked["first"], asked["most"])


def test_every_block_has_prompts_of_its_own_after_a_warm_up():
    """Two blocks at one load and one at another, each load with a warm-up: no prompt twice."""
    with TruthServer() as mock:
        plan = Plan(input_tokens=8, output_tokens=2)
        send = Sender(measure.probe(Endpoint(mock.base_url, "m"), plan), plan, "users", None)
        blocks = {2: [send(2, 10), send(2, 10)], 3: [send(3, 1)]}

        prompts = [request.prompt for request in mock.received[1:]]
    assert [len(block) for found in blocks.values() for block in found] == [10, 10, 12]
    assert len(set(prompts)) == len(prompts) == 8 + 20 + 12 + 12
    assert [(level.users, level.label) for level in send.levels(blocks)] == [
        (2, "a look of 2 repeats"),
        (3, "a look of 1 repeats"),
    ]


@pytest.mark.parametrize(("unit", "takes_s"), [("users", 0.02), ("requests/s", 0.005)])
def test_a_real_server_with_room_for_three_is_found(unit, takes_s, monkeypatch):
    """It answers soon while it has at most three requests, and late to the fourth: three users, or a rate between.

    How closely a rate is found is seen above.
    """
    monkeypatch.setattr(client, "CONNECT_AHEAD_S", 0.05)  # before each of a rate's many blocks
    monkeypatch.setattr(find, "RESOLUTION", 0.5)
    with TruthServer(lambda number, body: Script(first_s=takes_s if mock.at_once <= 3 else 0.15)) as mock:
        plan = Plan(input_tokens=8, output_tokens=2, timeout_s=20)
        target = measure.probe(Endpoint(mock.base_url, "m"), plan)
        first, most = (1, 16) if unit == "users" else (50, 1600)
        send = Sender(target, replace_open(plan, unit), unit, None)
        found = Search(send, {"ttft_s": 0.1}, 0.9, first, most, unit).run()

    if unit == "users":
        assert (found.keeps, found.exceeds) == (3, 4)
    else:
        assert 50 <= found.keeps < found.exceeds <= 1600


def replace_open(plan: Plan, unit: str) -> Plan:
    """``plan``, with a short open loop instead of one of 30 s."""
    return plan if unit == "users" else Plan(**{**vars(plan), "rates_per_s": (10,), "requests": 20})
