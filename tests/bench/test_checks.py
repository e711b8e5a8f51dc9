"""What the guards find in answers: each is shown a good case and the fault it is there for."""

from dataclasses import replace

import pytest

from helpers.bench import checks
from helpers.bench.client import EndpointError
from helpers.bench.timing import Sample
from helpers.servers import engines, serving

GOOD = Sample(0, (1, 2), prompt_tokens=16, output_tokens=8, token_source="server_usage", cached_tokens=0)
ASKED = {"input_tokens": 16, "output_tokens": 8}


class TestAgreement:
    """How far greedy answers go along with the reference's."""

    @pytest.mark.parametrize(
        ("reference", "other", "share"),
        [
            ([" a", " b", " c", " d"], [" a", " b", " c", " d"], 1),
            ([" a", " b", " c", " d"], [" a b", " c d"], 1),  # two tokens in each event
            ([" a", " b", " c", " d"], " a b x d", 0.5),
            ([" a", " bee", " c", " d"], " a be c d", 0.25),  # half a token is none
            ([" a", " b", " c", " d"], " a b c", 0.75),
            ([" a", " b", " c", " d"], " a b c d e", 0.75),  # goes on where the reference ends
            ([" a", " b", " c", " d"], "", 0),
            (" a b c d", " a b c d", 1),
            (" a b c d", " a b", 0.5),  # characters where there are no pieces
            (" a b", " a b c d", 0.5),
            ("", "", 1),
        ],
    )
    def test_the_share_before_the_first_difference(self, reference, other, share):
        """Of the reference's tokens, or of characters if it is one text."""

        assert checks.agreed_share(reference, other) == share

    def test_of_several_engines(self):
        """Mean share and number of prompts that agree throughout, for all but the reference."""
        answers = {"transformers": [[" a", " b"], [" c", " d"]], "vllm": [" a b", " c x"], "sglang": [" a b", " c d"]}
        found = checks.agreement(answers, "transformers")

        assert found == {"vllm": checks.Agreement((1.0, 0.5)), "sglang": checks.Agreement((1.0, 1.0))}
        assert (found["vllm"].mean_share, found["vllm"].whole, found["sglang"].whole) == (0.75, 1, 2)
        assert str(found["vllm"]) == "75% of the first tokens agree, all of them for 1 of 2 prompts"

    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            ({"vllm": ["a"]}, "reference 'transformers' has no answers: choose one of vllm"),
            ({"transformers": ["a"], "vllm": []}, "answers per engine: {'transformers': 1, 'vllm': 0}: give each the same"),
            ({"transformers": [], "vllm": []}, "answers per engine: {'transformers': 0, 'vllm': 0}: give each the same"),
        ],
    )
    def test_answers_that_cannot_be_compared(self, answers, message):
        """No reference, other prompts, none."""
        with pytest.raises(ValueError) as caught:
            checks.agreement(answers, "transformers")
        assert str(caught.value).startswith(message)


class TestProblems:
    """What makes samples another measurement than the asked one."""

    def test_the_asked_work_has_none(self):
        """Exact lengths, nothing cached; a failed request is counted elsewhere."""
        failed = Sample(0, error="refused: nobody there")

        assert checks.problems([GOOD, GOOD, failed], **ASKED, cache_hits=0) == []

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"output_tokens": 7}, "output length: 1 of 2 answers have 7 tokens, 8 were asked for"),
            ({"prompt_tokens": 17}, "prompt length: 1 of 2 answers have 17 tokens, 16 were asked for"),
            ({"cached_tokens": 12}, "prefix cache: 1 of 2 answers report 12 cached prompt tokens, 0 are allowed"),
        ],
    )
    def test_one_answer_of_two_is_enough(self, change, line):
        """And the line says what came and what was asked for."""

        assert checks.problems([GOOD, replace(GOOD, **change)], **ASKED) == [line]

    def test_hits_that_only_the_engine_counted(self):
        """The answers say nothing of a cache."""
        silent = replace(GOOD, cached_tokens=None)

        assert checks.problems([silent], **ASKED, cache_hits=0) == []
        assert checks.problems([silent], **ASKED, cache_hits=32) == [
            "prefix cache: the engine counted 32 cached prompt tokens, 0 are allowed"
        ]

    def test_a_single_token_by_chance_is_none(self):
        """Two of many prompts begin with the same word: 8 of 1,600 prompt tokens are fine, 9 are not."""
        many = [GOOD] * 99

        assert checks.problems([*many, replace(GOOD, cached_tokens=1)], **ASKED, cache_hits=8) == []
        assert len(checks.problems([*many, replace(GOOD, cached_tokens=1)], **ASKED, cache_hits=9)) == 1

    def test_a_cache_that_was_asked_for_is_none(self):
        """A conversation wants its hits."""

        assert checks.problems([replace(GOOD, cached_tokens=12)], **ASKED, cached=True, cache_hits=12) == []

    def test_no_answer_at_all_is_not_good(self):
        """Every request failed, or there was none."""

        assert checks.problems([], **ASKED) == ["no request succeeded: nothing was measured"]

    def test_what_the_server_does_not_report_is_said(self):
        """No problem, and no proof either."""
        silent = Sample(0, (1, 2), output_tokens=8, token_source="events")

        assert checks.problems([silent], **ASKED) == []
        assert checks.unproven([silent]) == [
            "output length: not reported by the server, events were counted",
            "prompt length: not reported by the server",
            "prefix cache: neither the engine nor its answers report hits",
        ]
        assert checks.unproven([GOOD]) == checks.unproven([replace(GOOD, cached_tokens=None)], cache_hits=0) == []


@pytest.mark.engine
def test_the_engines_answers_are_asked_for_and_compared():
    """Same bf16 weights: most first tokens agree; an engine agrees with itself, and not with answers to other prompts."""
    pair = [engines.get("transformers"), engines.get("llama-cpp-bf16")]
    with serving.side_by_side(pair, slots=2, context=64) as servers:
        endpoints = {name: server.endpoint for name, server in servers.items()}

        def awake(name: str):
            return servers[name].awake()

        answers = checks.first_tokens(endpoints, awake=awake)
        again = checks.first_tokens({"again": endpoints["transformers"]}, awake=lambda name: awake("transformers"))
        with pytest.raises(EndpointError, match="^transformers gave no 64 tokens to compare: too long: "):
            checks.first_tokens(endpoints, k=64, awake=awake)
    others = answers["transformers"][1:] + answers["transformers"][:1]
    found = checks.agreement({**answers, **again, "others": others}, "transformers")

    assert found["again"].whole == len(checks.PROMPTS)
    assert found["others"].mean_share < 0.25
    assert 0.5 < found["llama-cpp-bf16"].mean_share <= 1
