"""The request fields that constrain an answer, as each framework's own server wants them.

A table maps a kind of constraint (``schema``, ``regex``, ``grammar``) to a function from its value
to request fields; a kind that is missing has no field there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

Constraints = Mapping[str, Callable[[object], Mapping]]


def response_format(schema: Mapping | bool) -> dict:
    """OpenAI's own field for a JSON Schema."""
    wanted = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def lark(pattern: str) -> dict:
    """A regular expression as llama.cpp takes it: it has no field for one, but a grammar of one rule in LLGuidance's Lark.

    LLGuidance is a build option that needs Rust: the wheel xllamacpp has it, the server compiled here refuses this.
    """
    return {"grammar": "%llguidance {}\nstart: /" + pattern.replace("/", r"\/") + "/"}


OPENAI = {"schema": response_format}  # Transformers' server takes the field and ignores it
VLLM = {
    "schema": response_format,
    "regex": lambda pattern: {"structured_outputs": {"regex": pattern}},
    "grammar": lambda ebnf: {"structured_outputs": {"grammar": ebnf}},
}
SGLANG = {
    "schema": response_format,
    "regex": lambda pattern: {"regex": pattern},
    "grammar": lambda ebnf: {"ebnf": ebnf},
}
LLAMA_CPP = {"schema": response_format, "regex": lark, "grammar": lambda gbnf: {"grammar": gbnf}}
