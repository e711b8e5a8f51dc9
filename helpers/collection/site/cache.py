"""The cache: which blocks of the KV cache each request holds in each step, which are shared, kept, evicted; the step in words.

The words are made here, for the table and for the script, which shows one step at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from helpers import plots
from helpers.collection.site import stepped
from helpers.collection.site.stepped import blocks, tokens

RUN = "cache"
COLOURS = (*plots.COLOURS, "#CC79A7", "#56B4E9")  # the rest of Okabe and Ito's
HEADS = ("", "Began, ms", "Took, ms", "Computed, tokens", "Blocks held", "Of whom", "Kept", "Evicted", "In the record")
OF_REQUEST = ("", "Prompt, tokens", "Answer, tokens", "Begins like", "Joined before step", "Found in the cache", "Ended in step")


def html(found: Sequence[tuple[str, Mapping]]) -> str:
    """The part of the page that is made of the records ``found`` with their files."""
    tables = stepped.Tables(OF_REQUEST, _of_request, HEADS, _cells, _about)
    return stepped.html("caches", [played(file, record) for file, record in found], tables)


def played(file: str, record: Mapping) -> dict:
    """A record's run as the script and the tables take it."""
    run, pool = record["runs"][RUN], record["pool"]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(run["requests"])}
    return {
        "title": stepped.title(record), "file": file, "blocks": pool["blocks"] - 1, "block_tokens": pool["block_tokens"],
        "requests": [{"name": name, "colour": colours[name], **of_request(run, name)} for name in run["requests"]],
        "steps": [_step(run, pool["block_tokens"], number) for number in range(len(run["steps"]))],
    }  # fmt: skip


def of_request(run: Mapping, name: str) -> dict:
    """What was asked for ``name``, what of it was found in the cache, and when it began and ended."""
    began = next(number for number, step in enumerate(run["steps"]) if name in step["scheduled"])
    (ended,) = (number for number, step in enumerate(run["steps"]) if name in step["ended"])
    return {
        **run["requests"][name],
        "found_tokens": run["steps"][began]["computed"][name],
        "began_step": began,
        "ended_step": ended,
    }


def kept(step: Mapping) -> list[int]:
    """The blocks that nobody holds and that who begins alike would find."""
    held = {block for own in step["blocks"].values() for block in own}
    return [block for block, content in enumerate(step["contents"]) if content and block not in held]


def evicted(run: Mapping, number: int) -> list[int]:
    """The blocks whose content is lost in step ``number``, because somebody takes them."""
    if number == 0:
        return []
    before, now = (run["steps"][one]["contents"] for one in (number - 1, number))
    return [block for block, content in enumerate(before) if content and now[block] != content]


def begun(run: Mapping, number: int) -> list[str]:
    """The requests that are first computed in step ``number``."""
    before = run["steps"][number - 1]["blocks"] if number else {}
    return [name for name in run["steps"][number]["blocks"] if name not in before]


def taken(run: Mapping, block_tokens: int, number: int) -> dict[str, list[int]]:
    """By request the blocks that it gets in step ``number``, without those that it finds in the cache."""
    step, new = run["steps"][number], begun(run, number)
    had = {
        name: step["computed"][name] // block_tokens if name in new else len(run["steps"][number - 1]["blocks"][name])
        for name in step["blocks"]
    }
    return {name: own[had[name] :] for name, own in step["blocks"].items() if own[had[name] :]}


def _step(run: Mapping, block_tokens: int, number: int) -> dict:
    step = run["steps"][number]
    return {
        **stepped.times(step), "held": step["blocks"], "kept": kept(step), "evicted": evicted(run, number),
        "stored": {name: step["computed"][name] + count for name, count in step["scheduled"].items()},
        "tokens": sum(step["scheduled"].values()),
        "said": " ".join(_said(run, block_tokens, number)), "at": stepped.pointer(RUN, number),
    }  # fmt: skip


def _said(run: Mapping, block_tokens: int, number: int) -> Iterator[str]:
    """Step ``number`` in sentences."""
    step, new, lost = run["steps"][number], taken(run, block_tokens, number), evicted(run, number)
    for name in begun(run, number):
        yield from _begins(run, block_tokens, number, name)
    for name, own in new.items():
        yield f"{name} takes {blocks(own)}."
    if lost:
        yield f"To make room, what {blocks(lost)} kept is evicted."
    for name in step["ended"]:
        yield _ends(step, name)
    if not new and not step["ended"]:
        yield "No block changes hands: what is computed goes into blocks that are held already."


def _begins(run: Mapping, block_tokens: int, number: int, name: str) -> Iterator[str]:
    """How ``name`` begins: like whom, what of its prompt is found, and what of it would have been but for evictions."""
    asked, step = run["requests"][name], run["steps"][number]
    count = step["computed"][name]
    own = step["blocks"][name][: count // block_tokens]
    if not asked["like"]:
        yield f"{name} begins; nothing of its {asked['prompt_tokens']} prompt tokens is in the cache."
        return
    whole = asked["like_tokens"] == asked["prompt_tokens"]
    first = "all" if whole else f"the first {asked['like_tokens']}"
    yield f"{name} begins; {first} of its {asked['prompt_tokens']} prompt tokens are {asked['like']}'s."
    others = [one for one, held in step["blocks"].items() if one != name and set(own) & set(held)]
    whose = f"{stepped.verb(others, 'holds', 'hold')} too" if others else "nobody held"
    if own:
        yield f"{count} are found in {blocks(own)}, which {whose}; {asked['prompt_tokens'] - count} are left to compute."
    if gone := missed(run, block_tokens, number, name):
        yield f"{len(gone) * block_tokens} more stood in {blocks(gone)} and were evicted since."


def missed(run: Mapping, block_tokens: int, number: int, name: str) -> list[int]:
    """The blocks in which ``name`` would have found more of its prompt, had what they kept not been evicted before."""
    asked, found = run["requests"][name], run["steps"][number]["computed"][name] // block_tokens
    full = min(asked["like_tokens"], asked["prompt_tokens"] - 1) // block_tokens
    last = next((one for one in reversed(run["steps"][:number]) if asked["like"] in one["blocks"]), None)
    if last is None:
        return []
    then, now = last["contents"], run["steps"][number - 1]["contents"]  # in its own step the block may have been filled again
    return [block for block in last["blocks"][asked["like"]][found:full] if then[block] and now[block] != then[block]]


def _ends(step: Mapping, name: str) -> str:
    """What ``name`` gives back at its end, and what becomes of it."""
    own, others = step["blocks"][name], [one for one in step["blocks"] if one not in step["ended"]]
    parts = []
    for one in others:
        if both := [block for block in own if block in step["blocks"][one]]:
            parts.append(f"{one} still holds {stepped.spans(both)}")
    alone = [block for block in own if not any(block in step["blocks"][one] for one in others)]
    full = [block for block in alone if step["contents"][block]]
    parts += [f"{stepped.spans(full)} {'is' if len(full) == 1 else 'are'} kept for who begins alike"] if full else []
    free = [block for block in alone if block not in full]
    parts += [f"{stepped.spans(free)} {'is' if len(free) == 1 else 'are'} free, not full"] if free else []
    return f"{name} has its last token and gives back {blocks(own)}: {'; '.join(parts)}."


def _of_request(one: Mapping) -> list:
    like = f"{one['like']}, {tokens(one['like_tokens'])}" if one["like"] else "nobody"
    return [one["prompt_tokens"], one["output_tokens"], like, one["joins_step"], tokens(one["found_tokens"]), one["ended_step"]]


def _about(one: Mapping) -> str:
    return f"{one['blocks']} blocks of {tokens(one['block_tokens'])}"


def _cells(step: Mapping) -> list[str]:
    held = sorted({block for own in step["held"].values() for block in own})
    whose = "; ".join(f"{name}: {stepped.spans(own)}" for name, own in step["held"].items())
    others = (stepped.spans(step[key]) or "-" for key in ("kept", "evicted"))
    return [f"{step['at_ms']:,.1f}", step["took"], str(step["tokens"]), str(len(held)), whose, *others]
