"""Does it fit? Weights and KV cache against a memory, before anything is loaded.

    python -m helpers.weights.capacity --model Llama-3.1-8B --memory-gib 80 --users 100 --context 4096
    python -m helpers.weights.capacity --list

Exact arithmetic on the model's shape (``shapes``): weights = parameters x bytes per value, KV cache =
users x context x bytes per token, less where layers keep only the last tokens, or a state (``layers``). What an
engine takes besides is not known from a shape: ``usable`` keeps a part of the memory for it. The speed is a bound
(``bounds``): each step reads the weights once and the whole KV cache of every user.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from helpers import cli, machine, paths
from helpers.weights import bounds, models, shapes, sizes
from helpers.weights.files import ModelError
from helpers.weights.sizes import GIB

USABLE = 0.9  # vLLM's default is 0.92 of a GPU, TensorRT-LLM's 0.9 of what is free
SMALLER = ("fp8", "q8_0", "q4_0")  # what is proposed where a type does not fit


@dataclass(frozen=True)
class Fit:
    """What was asked, the bytes it takes, and what would fit; ``say`` is all of it in one line."""

    model: str
    dtype: str  # of the weights
    kv_dtype: str
    users: int
    context: int  # tokens of each user, prompt and answer
    memory_bytes: int
    usable_bytes: int
    weights_bytes: int
    kv_bytes_per_token: int
    sheet: shapes.Sheet | None = None  # where it is known, other types are proposed and the context has a limit
    tokens_per_s: float | None = None  # at most, all users together; None without a bandwidth
    limited_by: str | None = None  # "memory" or "compute"
    note: str = ""  # why the KV cache is too much, or why there is no bound on the speed
    counted: str = "users"
    cache: sizes.Cache | None = None  # where not every layer keeps every token

    @property
    def kv_bytes(self) -> int:
        """KV cache of all users at their full context."""
        return self.users * self._cache.bytes(self.context)

    @property
    def _cache(self) -> sizes.Cache:
        return self.cache or sizes.Cache(self.kv_bytes_per_token, 1)

    @property
    def _room_bytes(self) -> int:
        """What the weights leave."""
        return max(0, self.usable_bytes - self.weights_bytes)

    @property
    def needed_bytes(self) -> int:
        """Weights and KV cache."""
        return self.weights_bytes + self.kv_bytes

    @property
    def fits(self) -> bool:
        """Whether both fit the usable memory."""
        return self.needed_bytes <= self.usable_bytes

    @property
    def pool_tokens(self) -> int | None:
        """Tokens of one KV cache that fit beside the weights; ``None`` where it grows no more, as with windows alone."""
        return self._cache.tokens(self._room_bytes)

    @property
    def most_users(self) -> int:
        """Users of ``context`` tokens that fit; 0 where not even one does."""
        return int(self._room_bytes // self._cache.bytes(self.context))

    @property
    def longest_context(self) -> int:
        """Tokens that each of ``users`` can have, at most what the model knows."""
        most = self._cache.tokens(self._room_bytes // self.users)
        known = self.sheet.shape.context if self.sheet else self.context
        return known if most is None else min(most, known) if self.sheet else most

    @property
    def would_fit(self) -> tuple[str, ...]:
        """What fits this memory instead, in words; empty where only another model or memory does."""
        found = []
        if self.most_users:
            found.append(f"{self.most_users:,} {self.counted}")
        if self.longest_context:
            found.append(f"{self.longest_context:,} tokens for each of {self.users:,}")
        return (*found, *(self._smaller() if self.sheet and not self.fits else ()))

    def _smaller(self) -> list[str]:
        """The first smaller type of the KV cache, else of the weights too, with which all of it fits."""
        of_weights = _below(self.weights_bytes, lambda dtype: sizes.bytes_of(self.sheet.parameters, dtype))
        of_user = _below(self._cache.bytes(self.context), lambda dtype: sizes.cache(self.sheet.shape, dtype).bytes(self.context))
        for dtype, weights in of_weights.items():
            for kv_dtype, user in of_user.items():
                if weights + self.users * user <= self.usable_bytes:
                    changed = (f"weights as {dtype}" if dtype else "", f"a KV cache as {kv_dtype}" if kv_dtype else "")
                    return [" and ".join(filter(None, changed))]
        return []

    @property
    def say(self) -> str:
        """The answer in one line."""
        usable = f"{_gib(self.usable_bytes)} usable of {_gib(self.memory_bytes)}"
        there = usable if self.usable_bytes != self.memory_bytes else f"{_gib(self.memory_bytes)} free"
        each = f"{self.users:,} {self.counted} x {self.context:,} tokens x {self.kv_bytes_per_token / 2**10:.1f} KiB{self._kept}"
        line = (
            f"{self.model} {'fits' if self.fits else 'does not fit'}: weights {_gib(self.weights_bytes)} ({self.dtype}) + "
            f"KV cache {_gib(self.kv_bytes)} ({each}, {self.kv_dtype}) = {_gib(self.needed_bytes)}, {there}; "
        )
        if not self.fits:
            line += f"what would fit: {', or '.join(self.would_fit) or 'a smaller model or more memory'}"
            return line + (f"; {self.note}" if self.note else "")
        line += f"at most {self.most_users:,} {self.counted}, or {self.longest_context:,} tokens each"
        speed = f"; at most {self.tokens_per_s:,.0f} tokens/s ({self.limited_by})" if self.tokens_per_s else ""
        return line + speed + (f"; {self.note}" if self.note else "")

    @property
    def _kept(self) -> str:
        """What the product before it leaves out."""
        cache, said = self._cache, ""
        if cache.windowed:
            said += f", {cache.windowed} of {cache.full + cache.windowed} layers keep the last {cache.window:,}"
        if cache.state_bytes:
            said += f", and a state of {cache.state_bytes / 2**20:.1f} MiB each"
        return said

    def __str__(self) -> str:
        return self.say

    def to_dict(self) -> dict:
        """For JSON: the fields, without the model's sheet, and what follows from them."""
        derived = ("kv_bytes", "needed_bytes", "fits", "pool_tokens", "most_users", "longest_context", "would_fit")
        return {k: v for k, v in asdict(self).items() if k not in ("sheet", "cache")} | {
            name: getattr(self, name) for name in derived
        }


def ask(
    model: str | Path | models.Model | shapes.Sheet,
    memory_bytes: float,
    *,
    users: int = 1,
    context: int | None = None,
    dtype: str | None = None,
    kv_dtype: str = "bfloat16",
    usable: float = USABLE,
    bandwidth_bytes_per_s: float | None = None,
    flops_per_s: float = math.inf,
) -> Fit:
    """Whether ``model`` fits ``memory_bytes`` for ``users`` users of ``context`` tokens, and what would.

    ``model`` as in :func:`helpers.weights.shapes.of`. ``context`` is by default what the model knows, ``dtype``
    what its files hold, else bfloat16. Raises ``ValueError`` or :class:`ModelError` in one line, so for a quantized
    model of which only the config is known and no ``dtype`` is given.
    """
    sheet = shapes.of(model)
    context = sheet.shape.context if context is None else context
    _check(sheet, memory_bytes, users, context, usable, bandwidth_bytes_per_s, flops_per_s)
    stored = sheet.stored_bytes if dtype is None else None
    if sheet.quantized and not stored and dtype is None:
        raise ModelError(
            f"{sheet.name} is quantized ({sheet.quantized}), and its config does not say its bytes: "
            "give the folder with its files, or a type such as q4_0 for its weights"
        )
    dtype = dtype or ("as stored" if stored else "bfloat16")
    weights = stored or sizes.bytes_of(sheet.parameters, dtype)
    cache, kept = sizes.cache(sheet.shape, kv_dtype), sheet.shape.kept
    bound, notes = None, [f"the KV cache is an upper bound: {kept.bound}"] if kept and kept.bound else []
    if bandwidth_bytes_per_s:
        bound, why_none = _bound(sheet, weights, cache, users, context, bandwidth_bytes_per_s, flops_per_s)
        notes += [why_none] if why_none else []
    return Fit(
        sheet.name, dtype, kv_dtype, users, context, int(memory_bytes), int(memory_bytes * usable), weights,
        cache.bytes_per_token, sheet, bound and bound.tokens_per_s, bound and bound.limited_by, "; ".join(notes), cache=cache,
    )  # fmt: skip


def free_bytes() -> int | None:
    """The memory an engine could take now: of the emptiest GPU if there is one, else of the machine; ``None`` if unknown."""
    if not machine.has_gpu():
        return psutil.virtual_memory().available
    said = [mib.strip() for mib in machine.gpus("memory.free")]
    return max((int(mib) * sizes.MIB for mib in said if mib.isdecimal()), default=None)


def _below(size: int, of: Callable[[str], int]) -> dict[str | None, int]:
    """``size`` under no name, then the types of ``SMALLER`` that take less and that this model can have."""
    found: dict[str | None, int] = {None: size}
    for dtype in SMALLER:
        with suppress(sizes.UnknownDtype):
            found |= {dtype: of(dtype)} if of(dtype) < size else {}
    return found


def _bound(sheet: shapes.Sheet, weights: int, cache: sizes.Cache, users: int, context: int, bandwidth: float, flops: float):
    """The roofline's bound for full contexts, or why there is none."""
    if sheet.experts:
        return None, "no bound on its speed: it has experts, and a step reads only some of them"
    read = sheet.parameters - sheet.looked_up
    work = bounds.Work(round(weights * read / sheet.parameters), cache.bytes_per_token, read, cache=cache)
    roof = bounds.Roof("as given", bandwidth, flops, {}, {}, threads=None, load_average=0, array_bytes=0)
    return bounds.decode_bound(work, roof, users, context), ""


def _check(sheet: shapes.Sheet, memory_bytes, users, context, usable, bandwidth, flops) -> None:
    if users < 1 or context < 1:
        raise ValueError(f"users={users}, context={context}: both must be at least 1")
    if context > sheet.shape.context:
        limit = sheet.shape.context
        raise ValueError(f"context={context}: {sheet.name} knows {limit} tokens; ask for {limit} or fewer")
    for name, value in (("memory_bytes", memory_bytes), ("bandwidth_bytes_per_s", bandwidth), ("flops_per_s", flops)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value}: must be more than 0")
    if math.isinf(memory_bytes):
        raise ValueError(f"memory_bytes={memory_bytes}: give the memory that there is")
    if not 0 < usable <= 1:
        raise ValueError(f"usable={usable}: a share of the memory, more than 0 and at most 1")


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def listing() -> str:
    """The known models, a line each."""
    lines = [f"{'model':<17}{'attention':<11}{'parameters':>16}{'KV/token, 16 bit':>18}{'context':>10}"]
    for name, sheet in shapes.known().items():
        kib = f"{sizes.kv_bytes_per_token(sheet.shape) / 2**10:.1f} KiB"
        lines.append(f"{name:<17}{sheet.attention:<11}{sheet.parameters:>16,}{kib:>18}{sheet.shape.context:>10,}")
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.weights.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="the models that are known by name")
    parser.add_argument("--model", help="a known name or hub id, a config.json, a folder or a .gguf")
    parser.add_argument("--memory-gib", type=float, help="default: what is free here")
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--context", type=int, help="tokens of each user; default: what the model knows")
    parser.add_argument("--dtype", help="of the weights: bfloat16, fp8, q4_0, ...; default: as stored, else bfloat16")
    parser.add_argument("--kv-dtype", default="bfloat16", help=", ".join(sizes.KV_DTYPES))
    parser.add_argument("--usable", type=float, default=USABLE, help="the share of the memory for weights and KV cache")
    parser.add_argument("--bandwidth-gb-per-s", type=float, help="of the memory: gives a bound on tokens/s")
    parser.add_argument("--tflops", type=float, default=math.inf, help="the bound of arithmetic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.error = lambda message: parser.exit(2, f"{message}\n")  # one line, without the usage
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 it fits, 1 it does not or could not be said, 2 bad arguments."""
    given = _arguments(argv)
    try:
        if given.list:
            return 0 if cli.say(listing()) else 1
        if not given.model:
            raise ValueError("no model was named: give --model, or --list for those that are known")
        there = free_bytes() if given.memory_gib is None else given.memory_gib * GIB
        bandwidth = None if given.bandwidth_gb_per_s is None else given.bandwidth_gb_per_s * 1e9
        answer = ask(
            given.model, there, users=given.users, context=given.context, dtype=given.dtype, kv_dtype=given.kv_dtype,
            usable=given.usable, bandwidth_bytes_per_s=bandwidth, flops_per_s=given.tflops * 1e12,
        )  # fmt: skip
    except (ValueError, ModelError, paths.MissingData) as error:
        print(error, file=sys.stderr)
        return 2
    said = cli.say(json.dumps(answer.to_dict()) if given.json else str(answer))
    return 0 if said and answer.fits else 1


if __name__ == "__main__":
    sys.exit(main())
