"""Seeded prompts of exact length, the same for every engine.

A prompt is a sequence of vocabulary entries that are each one whole word with its leading
space (`` time``, `` great``). Byte-level BPE and SentencePiece tokenizers split text at such
words first, so the text tokenizes back to exactly these ids: a server that takes token ids
and one that takes text are given the same thing, and ``usage.prompt_tokens`` proves it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

WORD_MARKS = ("\u0120", "\u2581")  # how byte-level BPE and SentencePiece write a leading space

COMMON_WORDS = (
    "the of and to in is that for it as was with be by on not he this are or his from at which but have an had they "
    "you were their one all we can her has there been if more when will would who so no out up into do any your what "
    "some them could other than then its about time only our two may over first these such new should after like "
    "people also many use where how way work well life long world year day part last place great same old high"
).split()  # fallback where the vocabulary is unknown: one token each in the tokenizers in common use


@dataclass(frozen=True)
class Prompt:
    """``token_ids`` is ``None`` where the vocabulary is not known."""

    text: str
    token_ids: tuple[int, ...] | None = None
    messages: tuple[tuple[str, str], ...] = ()  # (role, text) of each on the chat route; empty: the text is the user's only one


def words(vocabulary: Sequence[str]) -> list[tuple[int, str]]:
    """The entries of ``vocabulary`` that are a space and a plain lower-case word: (id, text)."""
    found = []
    for token_id, entry in enumerate(vocabulary):
        if entry[:1] in WORD_MARKS and entry[1:].isascii() and entry[1:].isalpha() and entry[1:].islower():
            found.append((token_id, " " + entry[1:]))
    return found


def pool(vocabulary: Sequence[str] | None) -> list[tuple[int | None, str]]:
    """The words that prompts are drawn from: (id, text); common ones without ids where the vocabulary is unknown."""
    return words(vocabulary) if vocabulary is not None else [(None, " " + word) for word in COMMON_WORDS]


def prompts(
    count: int,
    input_tokens: int,
    *,
    seed: int | str,
    vocabulary: Sequence[str] | None = None,
    order: int | str | None = None,
    skip: int = 0,
) -> list[Prompt]:
    """``count`` prompts of ``input_tokens`` tokens, different from their first token on, the same for the same ``seed``.

    The different first token keeps prefix caches from helping. Calls that share an ``order`` and
    ``skip`` what the others took have no first token in common, until all words are used up.
    Raises ``ValueError`` for sizes below one and for more prompts than the vocabulary has first words.
    """
    if count < 1 or input_tokens < 1:
        raise ValueError(f"{count} prompts of {input_tokens} tokens: both must be at least 1")
    known, draw = pool(vocabulary), random.Random(seed)
    if vocabulary is not None and count > len(known):
        raise ValueError(f"{count} prompts, but the vocabulary has {len(known)} words to begin with: ask for fewer requests")
    if order is not None:
        shuffled = random.Random(order).sample(known, len(known))
        firsts = [shuffled[(skip + i) % len(known)] for i in range(count)]
    else:
        firsts = draw.sample(known, count) if count <= len(known) else draw.choices(known, k=count)
    made = []
    for first in firsts:
        entries = [first, *draw.choices(known, k=input_tokens - 1)]
        ids = None if vocabulary is None else tuple(token_id for token_id, _ in entries)
        made.append(Prompt("".join(text for _, text in entries), ids))
    return made


def arrivals(count: int, rate_per_s: float, seed: int | str) -> list[float]:
    """Seconds at which ``count`` requests arrive at random, a Poisson process: the same for the same ``seed``.

    Raises ``ValueError`` for a rate that is not above 0.
    """
    if not rate_per_s > 0:
        raise ValueError(f"rate_per_s={rate_per_s}: requests arrive at a rate above 0")
    draw = random.Random(seed)
    return list(accumulate(draw.expovariate(rate_per_s) for _ in range(count)))


def turns(lengths: Sequence[int], *, seed: int | str, vocabulary: Sequence[str] | None = None) -> list[Prompt]:
    """Prompts of rising ``lengths`` in tokens, each the beginning of the next, as the turns of a conversation are."""
    (whole,) = prompts(1, max(lengths), seed=seed, vocabulary=vocabulary)
    entries = [f" {word}" for word in whole.text.split()]
    return [Prompt("".join(entries[:length]), whole.token_ids and whole.token_ids[:length]) for length in lengths]


def sha256(prompts: Sequence[Prompt], output_tokens: int) -> str:
    """A hash of the whole workload: two runs with the same one sent the same requests."""
    content = [[p.text, p.token_ids] for p in prompts] + [output_tokens]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
