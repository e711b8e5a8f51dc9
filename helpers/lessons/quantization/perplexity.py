"""What a quantized model lost: perplexity, KL divergence and top-1 agreement on one text, with their errors.

The text is cut into windows of ``context`` tokens, and the second half of each is scored, so
that every scored token has at least half a window before it (as in llama.cpp's own tool). All
models score the same tokens, so differences from the reference are taken token by token: a
paired difference is known far better than the perplexity itself.

The text that comes with the collection, ``alice.txt``, is from Lewis Carroll, *Alice's Adventures
in Wonderland*, 1865, public domain. A model has probably seen it in training: compare models with
it, do not rate them.

:func:`quality` needs numpy only, whatever computed the logits. :func:`measure` scores GGUF files
in the interpreter of the kernel ``llama-cpp``, which runs this module.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from helpers import kernels, paths
from helpers.lessons.quantization import gguf_runs, gguf_types
from helpers.weights.files import ModelError

CONTEXT = 512
BLOCK = 50  # consecutive tokens whose mean counts as one observation: neighbours are not independent
TEXT = Path(__file__).with_name("alice.txt")

Logits = Callable[[Sequence[int]], np.ndarray]  # token ids -> (tokens, vocabulary)


class PerplexityError(RuntimeError):
    """A text that cannot be scored, or a scoring that failed: the thing, the reason, the next step."""


@dataclass(frozen=True)
class Quality:
    """How well a model predicts the text; ``se`` are standard errors over blocks of tokens.

    What compares with the reference is ``None`` for the reference itself.
    """

    tokens: int  # that were scored
    perplexity: float  # exp of the mean negative log-likelihood per token
    perplexity_se: float
    ratio: float | None = None  # this perplexity over the reference's, from paired differences
    ratio_se: float | None = None
    kl: float | None = None  # nats per token: from the reference's distribution to this one
    kl_se: float | None = None
    top1: float | None = None  # share of tokens where both find the same one most probable
    top1_se: float | None = None


def text() -> str:
    """The text that comes with the collection."""
    return paths.data(TEXT)


def windows(ids: Sequence[int], context: int = CONTEXT, count: int | None = None, bos: Sequence[int] = ()) -> list[list[int]]:
    """Whole windows of ``context`` tokens, at most ``count``; each begins with ``bos`` where the model wants one.

    Raises :class:`PerplexityError` if the text has too few tokens for one, or for ``count``.
    """
    _check_numbers(context, count)
    step = context - len(bos)
    there, wanted = len(ids) // step, count or 1
    if there < wanted:
        need = f"{wanted} window{'s' if wanted > 1 else ''} of {context} need {wanted * step}"
        raise PerplexityError(f"the text has {len(ids)} tokens, {need}: give more text, fewer or shorter windows")
    return [[*bos, *ids[i * step : (i + 1) * step]] for i in range(count or there)]


def _check_numbers(context: int, count: int | None) -> None:
    if context < 8 or (count is not None and count < 1):
        raise ValueError(f"context={context}, windows={count}: give windows of at least 8 tokens, and at least one")


def log_probabilities(logits_of: Logits, of: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """For each window the log-probabilities of its scored tokens' positions, (tokens, vocabulary), float32."""
    return [log_softmax(logits_of(window)[len(window) // 2 : len(window) - 1]) for window in of]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax over the last axis."""
    shifted = np.asarray(logits, np.float32) - np.max(logits, -1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def quality(found: Sequence[np.ndarray], of: Sequence[Sequence[int]], reference: Sequence[np.ndarray] | None = None) -> Quality:
    """The :class:`Quality` of a model from its :func:`log_probabilities` of the windows ``of``.

    ``reference`` are those of the model it is compared with.
    """
    nll = np.concatenate([_nll(each, window) for each, window in zip(found, of)])
    perplexity = float(np.exp(nll.mean()))
    plain = {"tokens": len(nll), "perplexity": perplexity, "perplexity_se": perplexity * standard_error(nll)}
    if reference is None:
        return Quality(**plain)
    difference = nll - np.concatenate([_nll(each, window) for each, window in zip(reference, of)])
    ratio = float(np.exp(difference.mean()))
    kl = np.concatenate([(np.exp(one) * (one - other)).sum(-1) for one, other in zip(reference, found)])
    same = np.concatenate([one.argmax(-1) == other.argmax(-1) for one, other in zip(reference, found)])
    return Quality(
        **plain,
        ratio=ratio, ratio_se=ratio * standard_error(difference),
        kl=float(kl.mean()), kl_se=standard_error(kl),
        top1=float(same.mean()), top1_se=standard_error(same),
    )  # fmt: skip


def _nll(found: np.ndarray, window: Sequence[int]) -> np.ndarray:
    asked = np.asarray(window[len(window) // 2 + 1 :])
    return -found[np.arange(len(asked)), asked].astype(np.float64)


def standard_error(values: np.ndarray, block: int = BLOCK) -> float:
    """The standard error of the mean, from the means of blocks of about ``block`` neighbours; at least two blocks."""
    parts = np.array_split(np.asarray(values, np.float64), max(len(values) // block, 2))
    means = np.array([part.mean() for part in parts])
    return float(means.std(ddof=1) / np.sqrt(len(means)))


def measure(
    paths: Mapping[str, Path], reference: str, *, of: str | None = None, count: int | None = None, context: int = CONTEXT
) -> dict[str, Quality]:
    """Score GGUF files on the text ``of`` (default: all of :func:`text`), compared with ``paths[reference]``.

    ``count`` limits the windows. llama.cpp runs in its own interpreter and has ended when this
    returns. Everything that can be wrong is said before a model is loaded: ``ValueError``,
    :class:`ModelError`, :class:`PerplexityError`, ``MissingKernel``.
    """
    if reference not in paths:
        raise ValueError(f"reference {reference!r} is not among the files: choose one of {', '.join(paths)}")
    _check_numbers(context, count)
    for path in paths.values():
        limit = gguf_types.contents(path).context
        if limit is not None and context > limit:
            raise ModelError(f"context={context}: {path.name} knows {limit} tokens; ask for that or fewer")
    order = [reference, *(name for name in paths if name != reference)]
    options = ["--context", str(context), *(["--windows", str(count)] if count else [])]
    given = text() if of is None else of
    try:
        found = kernels.ask(
            "llama-cpp", "helpers.lessons.quantization.perplexity", *options, *(str(paths[name]) for name in order), given=given
        )
    except kernels.AskError as error:
        raise PerplexityError(str(error)) from None
    return {name: Quality(**each) for name, each in zip(order, found)}


@contextmanager
def llama(path: Path, context: int) -> Iterator[Logits]:
    """llama.cpp's logits of all tokens, for the length of a ``with`` block; only where llama-cpp-python is."""
    model = gguf_runs.llama(path, context, n_batch=context, n_ubatch=context, logits_all=True)

    def logits(ids: Sequence[int]) -> np.ndarray:
        model.reset()
        model.eval(ids)
        return model.scores[: len(ids)]

    try:
        yield logits
    finally:
        model.close()


def _tokens(path: Path, of: str) -> tuple[list[int], list[int], int]:
    """The text's token ids, the one a sequence begins with, if any, and how many there are; no weights are loaded."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    ids, begun = (model.tokenize(of.encode(), add_bos=bos, special=False) for bos in (False, True))
    vocabulary = model.n_vocab()
    model.close()
    return ids, begun[: len(begun) - len(ids)], vocabulary


def _check_memory(of: Sequence[Sequence[int]], vocabulary: int) -> None:
    """The reference's log-probabilities are kept, those of one model more are made, and its logits."""
    rows = sum(len(window) // 2 for window in of)
    wanted, free = 4 * vocabulary * (2 * rows + 4 * len(of[0])), psutil.virtual_memory().available
    if wanted > free:
        sizes = f"{wanted / 2**30:.1f} GiB of log-probabilities do not fit the {free / 2**30:.1f} GiB that are free"
        raise PerplexityError(f"{len(of)} windows: {sizes}; ask for fewer windows")


def main() -> int:
    """Score the files, the first is the reference, on the text from standard input; prints JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--windows", type=int)
    options = parser.parse_args()
    try:
        ids, bos, vocabulary = _tokens(options.files[0], sys.stdin.read())
        of = windows(ids, options.context, options.windows, bos)
        _check_memory(of, vocabulary)
        found, reference = [], None
        for path in options.files:
            with llama(path, options.context) as logits:
                scored = log_probabilities(logits, of)
            found.append(asdict(quality(scored, of, reference)))
            reference = reference or scored
    except (ModelError, PerplexityError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
