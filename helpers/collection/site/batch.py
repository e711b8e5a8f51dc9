"""The batch: what each request does in each step of an engine, waiting, prefill or decode, and the step in words.

The words are made here, for the table and for the script, which shows one step at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from helpers.collection.site import stepped
from helpers.collection.site.stepped import named, tokens, verb

RUN = "batch"
HEADS = ("", "Began, ms", "Took, ms", "Tokens", "Prefill, tokens", "Decode, 1 token each", "Waiting", "Ended", "In the record")
OF_REQUEST = ("", "Prompt, tokens", "Answer, tokens", "Joined before step", "In prefill", "First token in step", "Ended in step")


def html(found: Sequence[tuple[str, Mapping]]) -> str:
    """The part of the page that is made of the records ``found`` with their files."""
    tables = stepped.Tables(OF_REQUEST, _of_request, HEADS, _cells, _about)
    return stepped.html("batches", [played(file, record) for file, record in found], tables)


def played(file: str, record: Mapping) -> dict:
    """A record's run as the script and the tables take it."""
    run, limits = record["runs"][RUN], record["provenance"]["limits"]
    return {
        "title": stepped.title(record), "file": file, "most_tokens": limits["max_num_batched_tokens"],
        "slots": limits["max_num_seqs"],
        "requests": [{"name": name, **of_request(run, name)} for name in run["requests"]],
        "steps": [_step(run, limits, number) for number in range(len(run["steps"]))],
    }  # fmt: skip


def work(run: Mapping, number: int) -> tuple[dict[str, int], list[str]]:
    """What step ``number`` computes: by request its tokens of prefill, and the names of those in decode."""
    step, asked = run["steps"][number], run["requests"]
    prefill = {name: count for name, count in step["scheduled"].items() if step["computed"][name] < asked[name]["prompt_tokens"]}
    return prefill, [name for name in step["scheduled"] if name not in prefill]


def of_request(run: Mapping, name: str) -> dict:
    """What was asked for ``name``, and the numbers of the steps in which it was in prefill, and had ended."""
    asked = run["requests"][name]
    prefill = [number for number in range(len(run["steps"])) if name in work(run, number)[0]]
    (ended,) = (number for number, step in enumerate(run["steps"]) if name in step["ended"])
    kept = ("prompt_tokens", "output_tokens", "joins_step")
    return {**{key: asked[key] for key in kept}, "prefill_steps": prefill, "ended_step": ended}


def _step(run: Mapping, limits: Mapping, number: int) -> dict:
    step = run["steps"][number]
    prefill, decode = work(run, number)
    return {
        **stepped.times(step), "prefill": prefill, "decode": decode, "waiting": step["waiting"], "ended": step["ended"],
        "said": " ".join(_said(run, limits, number)), "at": stepped.pointer(RUN, number),
    }  # fmt: skip


def _said(run: Mapping, limits: Mapping, number: int) -> Iterator[str]:
    """Step ``number`` in sentences."""
    step, (prefill, decode) = run["steps"][number], work(run, number)
    whole, of_prompts, most = sum(step["scheduled"].values()), sum(prefill.values()), limits["max_num_batched_tokens"]
    if prefill and decode:
        yield f"{tokens(whole)} in one step: {of_prompts} of prefill and {len(decode)} of decode."
    else:
        yield f"{tokens(whole)}{', all' if whole > 1 else ''} of {'prefill' if prefill else 'decode'}."
    for name, count in prefill.items():
        yield _of_prompt(name, step["computed"][name], count, run["requests"][name]["prompt_tokens"])
    if decode:
        yield f"{verb(decode, 'gets', 'get')} one token{' each' if len(decode) > 1 else ''}."
    if step["waiting"]:
        why = f": the step is full with {most}" if whole == most else ""
        if len(step["blocks"]) == limits["max_num_seqs"]:
            why = f": all {limits['max_num_seqs']} slots are taken"
        yield f"{verb(step['waiting'], 'waits', 'wait')}{why}."
    if step["ended"]:
        yield f"{verb(step['ended'], 'has its last token and leaves', 'have their last tokens and leave')}."


def _of_prompt(name: str, before: int, count: int, prompt: int) -> str:
    """A request's prefill in words: from which to which token, and whether its first token comes out."""
    if count == prompt:
        return f"{name}: its whole prompt of {tokens(prompt)}, and its first token comes out."
    out = ": the prompt is whole, and its first token comes out" if before + count == prompt else ""
    return f"{name}: tokens {before + 1} to {before + count} of its prompt of {prompt}{out}."


def _of_request(one: Mapping) -> list:
    prefill = one["prefill_steps"]
    steps = f"step {prefill[0]}" if len(prefill) == 1 else f"steps {stepped.spans(prefill)}"
    return [one["prompt_tokens"], one["output_tokens"], one["joins_step"], steps, prefill[-1], one["ended_step"]]


def _about(one: Mapping) -> str:
    return f"at most {one['slots']} requests and {tokens(one['most_tokens'])} in each"


def _cells(step: Mapping) -> list[str]:
    prefill = ", ".join(f"{name} {count}" for name, count in step["prefill"].items())
    whole = sum(step["prefill"].values()) + len(step["decode"])
    others = (named(step[key]) or "-" for key in ("decode", "waiting", "ended"))
    return [f"{step['at_ms']:,.1f}", step["took"], str(whole), prefill or "-", *others]
