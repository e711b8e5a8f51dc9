"""The same client against two servers, and what a server says of itself; llama.cpp on both sides."""

import threading

import httpx
import pytest

from helpers.lessons.deployment import operating, switching
from helpers.lessons.deployment.switching import Check, Reply
from helpers.servers import metrics, serving

SIZE = {"slots": 2, "context": 512, "extra": ("--threads", "1")}


@pytest.fixture(scope="module")
def old():
    with serving.serve("llama-cpp-bf16", **SIZE) as server:
        yield server


@pytest.fixture(scope="module")
def new():
    with serving.serve("llama-cpp", **SIZE) as server:
        yield server


class TestCompare:
    """What a client would notice."""

    @pytest.mark.engine
    def test_one_server_is_like_itself(self, old):
        """Every check is the same, the words too."""
        checks = switching.compare(old.endpoint, old.endpoint)

        assert switching.different(checks) == []
        assert len(checks) == 8
        assert "100% of the first tokens agree" in checks[0].new

    @pytest.mark.engine
    def test_the_same_engine_with_quantized_weights_differs_in_words_only(self, old, new):
        """The protocol's side is the same; the greedy answers are compared, whatever they say."""
        checks = switching.compare(old.endpoint, new.endpoint)

        assert set(switching.different(checks)) <= {"greedy answers", "an answer that just fits", "why a short answer ends"}

    @pytest.mark.engine
    def test_the_stop_string_is_one_that_the_answer_has(self, old):
        """Its answer ends before the word; a word that never comes would be obeyed by everyone."""
        check = switching.stop_string(old.endpoint, old.endpoint)

        assert (check.old, check.new, check.same) == ("ends before it", "ends before it", True)

    @pytest.mark.engine
    def test_a_shorter_context_is_noticed(self, old):
        """A prompt that the old server took is refused by the new one."""
        with serving.serve("llama-cpp", slots=1, context=256, extra=("--threads", "1")) as small:
            checks = switching.compare(old.endpoint, small.endpoint)

        assert "a prompt beyond the context" in switching.different(checks)

    @pytest.mark.engine
    def test_a_reply_says_what_came(self, old):
        """The limit, the count and the reason."""
        reply = switching.ask(old.endpoint, switching.LONG, 8)

        assert (reply.status, reply.finish_reason, reply.output_tokens) == (200, "length", 8)
        assert str(reply) == f"length, {reply.prompt_tokens} in, 8 out"

    def test_a_refusal_is_its_status(self):
        """There is nothing else to say of it."""

        assert str(Reply(400)) == "HTTP 400"

    def test_different_names_the_checks_that_failed(self):
        """In their order."""
        checks = [Check("a", "1", "1", True), Check("b", "1", "2", False), Check("c", "1", "2", False)]

        assert switching.different(checks) == ["b", "c"]

    @pytest.mark.engine
    def test_a_server_that_is_away_is_an_error_and_no_difference(self, old):
        """httpx says that nothing listens."""
        import dataclasses

        away = dataclasses.replace(old.endpoint, base_url=f"http://127.0.0.1:{serving.free_port()}/v1")
        with pytest.raises(httpx.ConnectError):
            switching.ask(away, "Hello", 4)


PAGE = """\
# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:time_to_first_token_seconds_sum{engine="0"} 1.5
vllm:time_to_first_token_seconds_count{engine="0"} 3.0
vllm:generation_tokens_total{engine="0"} 120.0
"""


class TestMetrics:
    """One page, one reading."""

    def test_a_page_is_read(self):
        """Engines are summed, a mean is sum over count, and what is missing is None."""
        found = operating.read(PAGE, "vllm")

        assert found == operating.Reading(running=4, waiting=0, mean_ttft_s=0.5, output_tokens=120)

    def test_a_mean_of_nothing_is_none(self):
        """No request yet: no time, and not 0."""
        page = "vllm:time_to_first_token_seconds_sum 0\nvllm:time_to_first_token_seconds_count 0\n"

        assert operating.read(page, "vllm").mean_ttft_s is None

    def test_an_engine_without_names_is_said(self):
        """With those that have some."""
        with pytest.raises(metrics.Unreadable, match="no names are known for the metrics of 'transformers'"):
            operating.read(PAGE, "transformers")

    @pytest.mark.engine
    def test_a_real_server_is_watched_at_work(self, new):
        """Its counters grow, and something was seen running."""
        before = operating.reading(new)
        with operating.watched(new) as seen:
            switching.ask(new.endpoint, switching.LONG, 60)

        assert operating.most(seen).running >= 1
        assert [look.at_s for look in seen] == sorted(look.at_s for look in seen)
        assert operating.reading(new).output_tokens - before.output_tokens == 60

    def test_the_most_of_each_field(self):
        """Each field has its own largest value; a field that was never there stays None."""
        seen = [operating.Reading(running=1, waiting=5), operating.Reading(running=4)]

        assert operating.most(seen) == operating.Reading(running=4, waiting=5)
        assert operating.most([]) == operating.Reading()


class TestHealthAndStop:
    """Alive, hung, drained, stopped."""

    @pytest.mark.engine
    def test_a_server_that_works_is_healthy(self, new):
        """HTTP 200."""

        assert operating.health(new) == "200"

    @pytest.mark.engine
    def test_a_halted_server_gives_no_answer(self, monkeypatch):
        """Its port is open and nobody is there; the check does not hang with it."""
        monkeypatch.setattr(operating, "HEALTH_TIMEOUT_S", 0.5)
        with serving.serve("llama-cpp", **SIZE) as server:
            server.suspend()

            assert operating.health(server) == "no answer in 0.5 s"

    @pytest.mark.engine
    def test_a_server_at_work_is_drained_when_its_answer_has_ended(self, new):
        """Not before: it waits."""
        replies = []
        client = threading.Thread(target=lambda: replies.append(switching.ask(new.endpoint, switching.LONG, 40)))
        client.start()
        while not operating.reading(new).running:
            pass

        assert operating.drained(new, timeout_s=0) is False
        assert operating.drained(new) is True
        client.join(5)
        assert replies[0].output_tokens == 40

    @pytest.mark.engine
    def test_stopped_in_mid_answer_nothing_is_left(self):
        """The client gets some word, and every process of the server has ended."""
        with serving.serve("llama-cpp", **SIZE) as server:
            family = server.processes()
            stopped = operating.stop_in_mid_answer(server, tokens=200, begun_s=0.3, patience_s=3)

            assert stopped.answer
            assert not any(process.is_running() for process in family)
            assert operating.health(server).startswith("no connection")

    @pytest.mark.engine
    def test_a_server_that_does_not_heed_the_signal_is_killed(self, monkeypatch):
        """And has no seconds."""
        monkeypatch.setattr(operating, "STOP_TIMEOUT_S", 0.5)
        with serving.serve("llama-cpp", **SIZE) as server:
            family = server.processes()
            server.suspend()
            stopped = operating.stop_in_mid_answer(server, begun_s=0.1, patience_s=0.5)

            assert stopped.seconds is None and stopped.answer == "nothing in 0.5 s"
            assert not any(process.is_running() for process in family)
