"""Schemas, what makes one impossible, and answers that are validated whatever was promised."""

import json

import jinja2
import pytest
from offenders import over

from helpers.bench.client import Endpoint
from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.lessons.structured import questions, schemas
from helpers.lessons.structured.questions import Answer
from helpers.lessons.structured.schemas import SchemaError
from helpers.servers import constraints, engines, serving

AGE = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["age"],
    "additionalProperties": False,
}


class TestCases:
    """The data file."""

    def test_there_are_enough(self):
        """At least 12 schemas and 40 prompts, each bound to a schema."""

        assert len(schemas.named()) >= 12
        assert len(schemas.cases()) == 40
        assert {case.schema_name for case in schemas.cases()} == set(schemas.named())

    def test_no_prompt_stands_twice(self):
        """Forty different questions."""

        assert len({case.prompt for case in schemas.cases()}) == 40

    @over(lambda: {name: {"name": name} for name in schemas.named()}, "name")
    def test_a_schema_can_be_asked_for_and_tells_right_from_wrong(self, name):
        """It is possible, takes its example and refuses the wrong one."""
        right, wrong = schemas.examples()[name]
        validator = schemas.validator(schemas.named()[name])

        assert schemas.check_schema(schemas.named()[name]) is None
        assert (validator.is_valid(right), validator.is_valid(wrong)) == (True, False)

    def test_what_the_schemas_cover(self):
        """Enums, patterns, bounds, unions, recursion, tuples and formats are among them."""
        text = json.dumps(list(schemas.named().values()))
        wanted = "enum pattern minimum maximum minItems maxItems anyOf $ref const prefixItems format".split()

        assert [keyword for keyword in wanted if f'"{keyword}"' not in text] == []

    def test_unicode_is_among_them(self):
        """Keys and values beyond ASCII."""

        assert not json.dumps(list(schemas.named().values()), ensure_ascii=False).isascii()

    def test_the_first_of_each_and_flat_ones_only(self):
        """The selections that notebooks use."""

        assert len(schemas.cases(of_each=1)) == len(schemas.named())
        assert all(case.flat for case in schemas.cases(flat=True)) and schemas.cases(flat=True)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (schemas.impossible()["contradiction"], "schema.age: minimum 10 is above maximum 3: no value satisfies it"),
        (schemas.impossible()["endless"], "schema.next: needs itself without end: no value satisfies it"),
        (schemas.impossible()["lookahead"], "schema.properties.word: pattern '^(?!no).*$' looks around or back"),
        (schemas.impossible()["nowhere"], "schema.properties.age: $ref '#/$defs/age' leads nowhere: define it under $defs"),
        (schemas.impossible()["unknown type"], "schema.type: 'int' is not valid under any of the given schemas: not a JSON"),
        ({"$ref": "https://example.org/x.json"}, "schema: $ref 'https://example.org/x.json' lies outside"),
        ({"type": "string", "pattern": "(a"}, "schema.pattern: '(a' is not a 'regex'"),
        ({"type": "string", "pattern": r"(a)\1"}, r"schema: pattern '(a)\\1' looks around or back"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "schema: minLength 5 is above maxLength 2"),
        ({"type": "array", "minItems": 1, "items": False}, "schema.items: false allows nothing"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "schema.a: false allows nothing"),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "schema: no integer lies between 1.2 and 1.8"),
        ({"type": "number", "exclusiveMinimum": 3, "maximum": 3}, "schema: no number is above 3 and below 3"),
        ({"type": "string", "enum": [1, 2]}, "schema: none of [1, 2] follows the rest of it"),
        ({"anyOf": [False, {"type": "string", "const": 1}]}, "schema.anyOf.0: false allows nothing"),
        ({"allOf": [{"type": "string", "minLength": 2, "maxLength": 1}]}, "schema.allOf.0: minLength 2 is above maxLength 1"),
        (False, "schema: false allows nothing"),
        ({"const": float("nan")}, "the schema is not JSON"),
        ({"const": {1, 2}}, "the schema is not JSON"),
        ("object", "schema: 'object' is not of type"),
    ],
)
def test_an_impossible_schema_is_refused_in_one_line(schema, reason):
    """The place, the reason, the next step."""
    with pytest.raises(SchemaError) as caught:
        schemas.check_schema(schema)

    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"minLength": 5, "maxLength": 2},  # every number follows it
        {"type": ["integer", "null"], "minimum": 5, "maximum": 2},  # null does
        {"type": "array", "items": False},  # the empty array does
        {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["next"]},
        {"type": "object", "properties": {"a": False}},
        {"type": "number", "minimum": 3, "maximum": 3},
        {"type": "string", "pattern": r"^\(?[=!]\\1$"},  # escaped: nothing looks around or back
        {"anyOf": [False, {"type": "string"}]},
    ],
)
def test_a_schema_that_some_value_follows_is_not_refused(schema):
    """Limits bind values of their own type, and recursion may end."""

    assert schemas.check_schema(schema) is None


class TestJudge:
    """What an answer is, from its text alone."""

    @pytest.mark.parametrize(
        ("text", "finish", "outcome", "keyword"),
        [
            ('{"age": 7}', "stop", "valid", None),
            (' {"age":7}\n', "length", "valid", None),
            ('{"age": 700}', "stop", "violates", "maximum"),
            ('{"age": "7"}', "stop", "violates", "type"),
            ('{"age": 7, "name": "x"}', "stop", "violates", "additionalProperties"),
            ("{}", "stop", "violates", "required"),
            ("I am 7.", "stop", "not JSON", None),
            ("I am 7.", "length", "not JSON", None),
            ('```json\n{"age": 7}\n```', "stop", "not JSON", None),
            ('{"age": 7} and more', "length", "not JSON", None),
            ('{"age": 7', "length", "cut off", None),
            ('{"age": 7', "stop", "not JSON", None),
            ('{"ag', "length", "cut off", None),
            ('{"age": -', "length", "cut off", None),
            ('{"age": 7.', "length", "cut off", None),
            ('{"age": 7e', "length", "cut off", None),
            ('{"age": tr', "length", "cut off", None),
            ("", "length", "cut off", None),
            ('{"age": 7, "age": 8}', "stop", "not JSON", None),
            ('{"age": NaN}', "stop", "not JSON", None),
        ],
    )
    def test_the_outcome_and_the_keyword(self, text, finish, outcome, keyword):
        """Valid, violated (which keyword), no JSON at all, or JSON that was cut off."""
        answer = questions.judge("an engine", AGE, text, finish_reason=finish)

        assert (answer.outcome, answer.keyword) == (outcome, keyword)
        assert answer.outcome in questions.OUTCOMES

    def test_one_line_says_engine_field_and_keyword(self):
        """What a reader sees."""
        answer = questions.judge("vLLM", AGE, '{"age": 700}', asked=("guided_json",), finish_reason="stop")

        assert str(answer) == "vLLM, guided_json: violates: $.age breaks maximum: 700 is greater than the maximum of 120"
        assert answer.ignored

    def test_a_free_answer_ignores_nothing(self):
        """Nothing was asked for."""

        assert not questions.judge("vLLM", AGE, "seven").ignored

    def test_only_a_valid_answer_has_a_value(self):
        """The others say why not."""

        assert questions.judge("vLLM", AGE, '{"age": 7}').value == {"age": 7}
        with pytest.raises(ValueError, match="^vLLM, free: not JSON: Expecting value at character 0 of 'seven'$"):
            _ = questions.judge("vLLM", AGE, "seven").value

    def test_formats_are_checked(self):
        """30 February is no date."""
        answer = questions.judge("vLLM", {"type": "string", "format": "date"}, '"2026-02-30"')

        assert (answer.outcome, answer.keyword) == ("violates", "format")


class MockServer:
    """Says what it is told, as a running server of llama.cpp would."""

    engine = engines.get("llama-cpp")

    def __init__(self, base_url: str):
        self.endpoint = Endpoint(base_url, "mock", fields=self.engine.fields)


class TestAsk:
    """One request, validated; against servers that follow a script."""

    def test_the_request_carries_the_schema_and_no_forced_length(self):
        """OpenAI's field, the chat route, and nothing that keeps the model from ending."""
        with TruthServer(Script()) as mock:
            answer = questions.ask(MockServer(mock.base_url), "How old?", AGE, max_tokens=4)
            (did,) = mock.received

        assert did.path == "/v1/chat/completions"
        assert did.body["response_format"] == constraints.response_format(AGE)["response_format"]
        assert "ignore_eos" not in did.body and did.body["max_tokens"] == 4
        assert (answer.outcome, answer.asked, answer.ignored) == ("not JSON", ("response_format",), True)
        assert (answer.output_tokens, answer.finish_reason) == (4, "length")

    def test_a_free_question_carries_no_constraint(self):
        """``{}`` asks freely."""
        with TruthServer(Script()) as mock:
            answer = questions.ask(MockServer(mock.base_url), "How old?", AGE, with_fields={}, max_tokens=4)
            (did,) = mock.received

        assert "response_format" not in did.body
        assert answer.asked == () and not answer.ignored

    def test_an_http_error_is_a_refusal_with_its_reason(self):
        """The server's own words, in one line."""
        refused = Script(status=400, answer={"error": {"message": "Grammar error:\n no"}})
        with TruthServer(refused) as mock:
            answer = questions.ask(MockServer(mock.base_url), "How old?", AGE, max_tokens=4)

        assert answer.outcome == "refused" and not answer.ignored
        assert answer.error == "HTTP 400: Grammar error: no"

    def test_a_server_that_is_not_there_is_no_refusal(self):
        """It failed: nobody looked at the schema."""
        answer = questions.ask(MockServer("http://127.0.0.1:9/v1"), "How old?", AGE, max_tokens=4)

        assert answer.outcome == "failed"

    @pytest.mark.parametrize("name", schemas.impossible())
    def test_an_impossible_schema_is_never_sent(self, name):
        """Refused before the server hears of it."""
        with TruthServer(Script()) as mock, pytest.raises(SchemaError):
            questions.ask(MockServer(mock.base_url), "How old?", schemas.impossible()[name])

        assert mock.received == []

    def test_no_tokens_no_question(self):
        """A bad argument is refused before anything is sent."""
        with pytest.raises(ValueError, match="^max_tokens=0: an answer has at least one token$"):
            questions.ask(MockServer("http://127.0.0.1:9/v1"), "How old?", AGE, max_tokens=0)

    def test_a_kind_without_a_field_names_those_there_are(self):
        """Transformers' server knows no regular expressions."""
        with pytest.raises(questions.NoField, match="^HF Transformers's server has no field for a regex: it takes schema$"):
            questions.fields(engines.get("transformers"), "regex", "a")

    def test_both_ways_turns_the_order_round(self):
        """Free and constrained, then constrained and free: what drifts hits both."""
        cases = schemas.cases()[:4]
        with TruthServer(Script()) as mock:
            free, forced = questions.both_ways(MockServer(mock.base_url), cases, max_tokens=4)
            sent = ["response_format" in did.body for did in mock.received]

        assert sent == [False, True] + [False, True, True, False] * 2
        assert (len(free), len(forced)) == (4, 4)


def timed(tpot_s: float | None, outcome: str = "valid") -> Answer:
    return Answer("vLLM", (), "", outcome, tpot_s=tpot_s)


def test_the_overhead_is_a_ratio_of_medians():
    """One slow answer decides nothing."""

    assert questions.overhead([timed(0.1), timed(0.1), timed(9)], [timed(0.15), timed(None), timed(0.15)]) == pytest.approx(1.5)


def test_without_times_there_is_no_overhead():
    """``None``, not 0."""

    assert questions.overhead([timed(None)], [timed(0.1)]) is None


def test_the_table_counts_what_was_not_valid():
    """And says "not measured" where nothing was."""
    shown = questions.table({"vLLM": ([timed(0.1, "not JSON")], [timed(0.2), timed(None, "cut off")])}).loc["vLLM"]

    assert shown["valid, free"] == "0 of 1" and shown["valid, constrained"] == "1 of 2"
    assert shown["others, constrained"] == "1 cut off" and shown["ratio"] == 2.0


@pytest.fixture(scope="module")
def llama():
    with serving.serve("llama-cpp", slots=1, context=512) as server:
        yield server


class TestLive:
    """A real engine: llama.cpp's server."""

    @pytest.mark.engine
    @over(lambda: {case.schema_name: {"case": case} for case in schemas.cases(of_each=1)}, "case")
    def test_a_constrained_answer_follows_its_schema_or_was_cut_off(self, llama, case):
        """Every schema of the file."""
        answer = questions.ask(llama, case.prompt, case.schema)

        assert answer.outcome in ("valid", "cut off"), str(answer)
        assert answer.finish_reason == ("stop" if answer.valid else "length")

    @pytest.mark.engine
    def test_too_few_tokens_break_it(self, llama):
        """Constrained, and not valid."""
        case = schemas.cases()[0]
        answer = questions.ask(llama, case.prompt, case.schema, max_tokens=4)

        assert (answer.outcome, answer.finish_reason, answer.output_tokens) == ("cut off", "length", 4)

    @pytest.mark.engine
    def test_a_grammar_with_an_error_is_refused_and_the_server_goes_on(self, llama):
        """One line, and the next question is answered."""
        broken = questions.ask(llama, "Hello", AGE, with_fields={"grammar": 'root ::= "a" ('})
        after = questions.ask(llama, "How old is a child? Answer as JSON.", AGE)

        assert broken.outcome == "refused" and "\n" not in broken.error, str(broken)
        assert after.valid

    @pytest.mark.engine
    def test_a_misspelled_field_is_caught(self, llama):
        """The server takes it and answers freely."""
        answer = questions.ask(llama, "Tell me about the sea.", AGE, with_fields={"guided_json": AGE}, max_tokens=16)

        assert answer.ignored and answer.asked == ("guided_json",)


class TestThinkingTemplate:
    """The chat template that opens a thought for a model which was not trained to think."""

    QUESTION = {"role": "user", "content": "Why?"}

    def prompt(self, *messages, **settings) -> str:
        """What the template makes of ``messages``, with the beginning of an answer."""
        template = jinja2.Template(questions.THINKING_TEMPLATE.read_text())
        return template.render(messages=[self.QUESTION, *messages], add_generation_prompt=True, **settings)

    def test_it_opens_a_thought(self):
        """Unless thinking is switched off: then the thought is empty and closed."""

        assert self.prompt().endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n")
        assert self.prompt(enable_thinking=False).endswith("<think>\n\n</think>\n\n")

    def test_a_thought_of_before_stands_between_its_tags(self):
        """From this llama.cpp learns where a thought begins and ends."""
        said = {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}

        assert "assistant\n<think>\nHm.\n</think>\n\nSo.<|im_end|>\n" in self.prompt(said)
        assert "assistant\nSo.<|im_end|>\n" in self.prompt({"role": "assistant", "content": "So."})

    def test_it_has_no_place_for_tools(self):
        """A function is dropped."""

        assert "weather" not in self.prompt(tools=[{"type": "function", "function": {"name": "weather"}}])
