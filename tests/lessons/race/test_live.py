"""A race that is run against scripted servers: what is kept, what is seen meanwhile, and who is awake when."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

from helpers.bench.client import Endpoint
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.lessons.race import live


@pytest.fixture
def servers(monkeypatch):
    """Two scripted servers under the names of engines, and a note of who was awake together."""
    monkeypatch.setattr(live, "OUTPUT_TOKENS", dict.fromkeys(live.WAYS, 8))
    monkeypatch.setattr(live, "EVERY_S", 0.02)
    with ExitStack() as stack:
        several = {name: stack.enter_context(TruthServer(Script(first_s=0.05, gap_s=0.03))) for name in ("vllm", "sglang")}
        yield racing({name: server.base_url for name, server in several.items()})


def racing(addresses: dict[str, str]) -> SimpleNamespace:
    """A mock of :class:`helpers.servers.serving.Server` for each address: an endpoint, and who is awake with it."""
    awake, together = set(), []

    @contextmanager
    def wake(name: str):
        awake.add(name)
        together.append(set(awake))
        yield
        awake.remove(name)

    served = {
        name: SimpleNamespace(endpoint=Endpoint(address, "m", token_ids=True), awake=lambda name=name: wake(name))
        for name, address in addresses.items()
    }
    return SimpleNamespace(served=served, together=together, awake=awake)


@pytest.mark.parametrize(("way", "together"), [("alone", [{"vllm"}, {"sglang"}]), ("together", [{"vllm"}, {"vllm", "sglang"}])])
def test_every_engine_is_asked_once_and_is_awake_for_it(servers, way, together):
    """Each has its pieces with rising stamps, and its figures."""
    lanes = live.run(servers.served, way)

    assert servers.together == together
    assert [lane.name for lane in lanes] == ["vllm", "sglang"]
    for lane in lanes:
        assert (lane.error, lane.state, lane.text, lane.output_tokens) == (None, None, " word" * 8, 8)
        assert lane.ttft_s == lane.at_s[0] >= 0.05 and list(lane.at_s) == sorted(lane.at_s)
        assert lane.output_tokens_per_s == pytest.approx(8 / lane.at_s[-1], rel=0.01)


def test_it_is_looked_at_while_the_answers_grow(servers):
    """First all wait; later a lane has some of its pieces; no look shows what came after it."""
    looks = []
    lanes = live.run(servers.served, "together", looks.append)
    whole = {lane.name: lane for lane in lanes}

    assert [lane.state for lane in looks[0]] == ["waits", "waits"]
    growing = [lane for look in looks for lane in look if lane.state == "runs" and 0 < len(lane.pieces) < 8]
    assert growing and all(lane.at_s == whole[lane.name].at_s[: len(lane.at_s)] for lane in growing)
    assert not [lane for lane in growing if lane.error or lane.output_tokens_per_s]


def test_alone_the_second_waits_until_the_first_has_its_figures(servers):
    """Nobody is looked at before its turn."""
    looks = []
    live.run(servers.served, "alone", looks.append)
    second = [look for look in looks if look[1].state == "runs"]

    assert second and all(first.state is None and first.output_tokens_per_s for first, _ in second)


def test_an_engine_that_does_not_answer_has_its_reason_and_the_others_run(servers):
    """Nothing listens at its port."""
    gone = racing({"llama-cpp": "http://127.0.0.1:9/v1"}).served
    lanes = {lane.name: lane for lane in live.run(servers.served | gone, "together")}

    assert lanes["llama-cpp"].error.startswith("refused: 127.0.0.1:9 did not take a connection")
    assert lanes["llama-cpp"].pieces == () and lanes["vllm"].error is None


def test_an_unknown_way_is_refused_before_anything_is_sent(servers):
    """With those there are."""
    with pytest.raises(ValueError, match="^there is no race 'both': choose from alone, together$"):
        live.run(servers.served, "both")
    assert servers.together == []


def test_every_way_has_a_prompt_of_its_own(servers):
    """With another first word: no engine finds it in its prefix cache."""
    assert set(live.PROMPTS) == set(live.WAYS)
    assert len({prompt.split()[0] for prompt in (*live.PROMPTS.values(), live.WARM_UP)}) == 3
