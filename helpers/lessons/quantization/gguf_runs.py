"""What a GGUF file costs to load, how fast it decodes and what it answers, inside llama.cpp.

Loading is measured in a process of its own for each file, so that no memory of an earlier one
counts. Decoding is measured in one process that has all files loaded, in turns, so that a
machine that slows down slows all of them. Both run in the interpreter of the kernel ``llama-cpp``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from helpers import kernels, machine, memory
from helpers.bench import checks
from helpers.lessons.quantization import gguf_types

CONTEXT = 512
PROMPT = "Once upon a time"


class LlamaCppError(RuntimeError):
    """A file that llama.cpp did not load or run: the reason in one line."""


@dataclass(frozen=True)
class Loaded:
    """What loading one file costs, its pages already in the system's cache. ``None``: not measurable here."""

    load_s: float
    mapped_bytes: int | None  # pages of the file in this process after a first answer: the system may drop them
    anonymous_bytes: int | None  # added beside it: buffers, KV cache, weights stored again in another order


@dataclass(frozen=True)
class Decoded:
    """One user's decode speed, a figure per repeat, and greedy answers to :data:`helpers.bench.checks.PROMPTS`."""

    tokens_per_s: tuple[float, ...]
    answers: tuple[tuple[str, ...], ...]  # pieces, one per token


def load(paths: Mapping[str, Path]) -> dict[str, Loaded]:
    """Load each file in a process of its own; :class:`helpers.weights.files.ModelError`, ``MissingKernel`` before any starts."""
    _check(paths)
    return {name: Loaded(**_ask("load", str(path))) for name, path in paths.items()}


def decode(paths: Mapping[str, Path], *, repeats: int = 5, tokens: int = 32, answer_tokens: int = 24) -> dict[str, Decoded]:
    """Decode with all files in turns: a warm-up, then ``repeats`` of ``tokens`` each; then the answers, once."""
    if min(repeats, tokens, answer_tokens) < 1:
        raise ValueError(f"repeats={repeats}, tokens={tokens}, answer_tokens={answer_tokens}: each must be at least 1")
    _check(paths)
    numbers = ["--repeats", str(repeats), "--tokens", str(tokens), "--answer-tokens", str(answer_tokens)]
    found = _ask("decode", *numbers, *map(str, paths.values()))
    return {
        name: Decoded(tuple(each["tokens_per_s"]), tuple(map(tuple, each["answers"])))
        for name, each in zip(paths, found, strict=True)
    }


def _check(paths: Mapping[str, Path]) -> None:
    for path in paths.values():
        gguf_types.contents(path)  # refuses a file that is not whole


def _ask(*arguments: str):
    try:
        return kernels.ask("llama-cpp", "helpers.lessons.quantization.gguf_runs", *arguments)
    except kernels.AskError as error:
        raise LlamaCppError(f"llama.cpp: {error}") from None


def llama(path: Path, context: int = CONTEXT, **more):
    """A ``llama_cpp.Llama`` with every core and, where the build can, the GPU; ``more`` are its other arguments."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=context, verbose=False, n_threads=machine.cores(), n_threads_batch=machine.cores(),
        n_gpu_layers=-1 if llama_cpp.llama_supports_gpu_offload() else 0, **more,
    )  # fmt: skip


def greedy(model, prompt: str, tokens: int) -> list[int]:
    """The ids of exactly ``tokens`` greedy tokens: an end token does not end it."""
    model.reset()
    return list(islice(model.generate(model.tokenize(prompt.encode()), temp=0.0), tokens))


def decode_rate(model, tokens: int) -> float:
    """Tokens per second of the decode steps alone, by llama.cpp's own counters."""
    import llama_cpp

    llama_cpp.llama_perf_context_reset(model.ctx)
    greedy(model, PROMPT, tokens)
    seen = llama_cpp.llama_perf_context(model.ctx)
    return seen.n_eval / seen.t_eval_ms * 1e3


def _load(path: Path) -> dict:
    import llama_cpp

    llama_cpp.llama_backend_init()
    before, started = memory.here(), time.perf_counter()
    model = llama(path)
    load_s = time.perf_counter() - started
    greedy(model, PROMPT, 2)  # touches every page that a step reads
    after = memory.here().anonymous_bytes
    added = None if after is None or before.anonymous_bytes is None else after - before.anonymous_bytes
    return {"load_s": load_s, "mapped_bytes": memory.mapped_bytes(path), "anonymous_bytes": added}


def _decode(paths: Sequence[Path], repeats: int, tokens: int, answer_tokens: int) -> list[dict]:
    loaded = [llama(path) for path in paths]
    rates: list[list[float]] = [[] for _ in loaded]
    for turn in range(repeats + 1):  # the first is the warm-up
        for i in list(range(len(loaded)))[:: 1 if turn % 2 else -1]:
            rates[i].append(decode_rate(loaded[i], tokens))
    return [{"tokens_per_s": of[1:], "answers": _answers(model, answer_tokens)} for of, model in zip(rates, loaded)]


def _answers(model, tokens: int) -> list[list[str]]:
    found = [greedy(model, prompt.text, tokens) for prompt in checks.PROMPTS]
    return [[model.detokenize([token], special=True).decode(errors="replace") for token in ids] for ids in found]


def main() -> int:
    """Measure in this interpreter; prints JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=("load", "decode"))
    parser.add_argument("files", nargs="+", type=Path)
    for name, default in (("repeats", 5), ("tokens", 32), ("answer-tokens", 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    try:
        if options.what == "load":
            found = _load(options.files[0])
        else:
            found = _decode(options.files, options.repeats, options.tokens, options.answer_tokens)
    except (RuntimeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
