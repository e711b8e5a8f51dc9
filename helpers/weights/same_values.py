"""Proof that the weights an engine loads are the source's values: tensor by tensor, bit for bit.

:mod:`helpers.weights.convert` makes bf16 safetensors and a bf16 GGUF from a GGUF. Here the source is
dequantized again, without torch and without convert's code, rounded to bf16 and compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from helpers.weights import files, models, tensors

SMALL_VALUES = 1_000_000  # a tensor with fewer values is always compared
MOST_VALUES = 300_000_000  # up to here all tensors are compared, about 10 s; of a larger model a seeded sample is
SEED = 0
CHECK = 1  # raise it when the comparison changes: verdicts kept before then count no more
PLAIN = ("F32", "F16", "BF16")
COMPUTED = ("rope_freqs.weight",)  # stands in some GGUFs, computed from the config
SAME_ROWS = ("qwen2", "qwen3")  # architectures whose rows are in the same order in both formats; "llama" is not one


@dataclass(frozen=True)
class WeightsProof:
    """What was compared with the source GGUF, and which tensors differ (by their GGUF names).

    ``source_dtypes`` and ``dtypes`` count tensors; ``dequantized`` names those that were
    quantized in the source.
    """

    form: str
    source_sha256: str
    made_sha256: str
    source_dtypes: dict[str, int]
    dtypes: dict[str, int]
    dequantized: tuple[str, ...]
    checked: str  # "all tensors", or which
    tensors_checked: int
    values_checked: int
    differing: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.differing

    def __str__(self) -> str:
        what = f"{self.form}: {self.values_checked:,} values of {self.tensors_checked} tensors ({self.checked})"
        source = f"the GGUF {self.source_sha256[:12]}, {len(self.dequantized)} of its tensors dequantized, rounded to bf16"
        if self.differing:
            return f"{what}: {len(self.differing)} tensors differ from {source}: {', '.join(self.differing[:5])}"
        return f"{what} equal {source}"


@dataclass(frozen=True)
class Stored:
    """A tensor of a made file. ``bits()``: its bf16 bits, flat, rows in GGUF's order; ``None`` if bf16 cannot hold them."""

    dtype: str
    bits: Callable[[], np.ndarray | None]


def weights_proof(form: models.Form, model: models.Model | None = None) -> WeightsProof:
    """Compare ``model``'s weights made in ``form`` with the GGUF they were made from.

    A good verdict is kept beside them and counts as long as both contents stay what they are.
    Raises :class:`helpers.weights.files.ModelError` if nothing was made, or where rows have an unknown order.
    """
    model = model or models.resolve()
    if form == "gguf-q4_0":
        raise files.ModelError(f"{model.name} as {form} is rounded once more: its values are others, so nothing to compare")
    if form == "gguf" or model.kind not in ("default", "gguf"):
        raise files.ModelError(f"{model.name} as {form} is loaded as it is: nothing was made of it, so nothing to compare")
    source, made = models.weights("gguf", model), models.weights(form, model)
    hashes = {"source_sha256": files.sha256(source), "made_sha256": content_sha256(made)}
    kept = made.with_name(made.name + ".proof.json")
    proof = _kept(kept, hashes) or compare(source, made, form, hashes)
    if proof.same:
        with files.staging() as folder:
            (folder / "proof").write_text(json.dumps({"check": CHECK, **asdict(proof)}))
            os.replace(folder / "proof", kept)
    return proof


def _kept(path: Path, hashes: Mapping[str, str]) -> WeightsProof | None:
    try:
        content = json.loads(path.read_text())
        if content.pop("check") != CHECK or any(content[name] != value for name, value in hashes.items()):
            return None
        return WeightsProof(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, or not ours: compare again
        return None


def content_sha256(path: Path) -> str:
    """The sha256 of a file, or of a folder's safetensors: of their names and hashes."""
    if path.is_file():
        return files.sha256(path)
    found = [[file.name, files.sha256(file)] for file in sorted(path.glob("*.safetensors"))]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def compare(source: Path, made: Path, form: str, hashes: Mapping[str, str]) -> WeightsProof:
    """Dequantize ``source``, round, compare with ``made`` (a GGUF or a folder of safetensors); nothing is kept."""
    reader = files.read_gguf(source)
    given = {tensor.name: tensor for tensor in reader.tensors if tensor.name not in COMPUTED}
    stored = gguf_tensors(made) if made.is_file() else safetensors(made, reader)
    chosen = choose({name: int(tensor.n_elements) for name, tensor in given.items()})
    found = [name for name in chosen if name in stored]
    differing = [name for name in found if not np.array_equal(stored[name].bits(), source_bits(given[name]))]
    return WeightsProof(
        form=form, **hashes,
        source_dtypes=dict(Counter(tensor.tensor_type.name for tensor in given.values())),
        dtypes=dict(Counter(tensor.dtype for tensor in stored.values())),
        dequantized=tuple(name for name, tensor in given.items() if tensor.tensor_type.name not in PLAIN),
        checked="all tensors" if len(chosen) == len(given) else f"all small ones, the others by sample with seed {SEED}",
        tensors_checked=len(found), values_checked=sum(int(given[name].n_elements) for name in found),
        differing=tuple(differing + sorted(set(given) ^ set(stored))),
    )  # fmt: skip


def choose(values: Mapping[str, int], most: int = MOST_VALUES) -> list[str]:
    """The tensors to compare: all if they have ``most`` values or fewer, else all small ones and a seeded sample."""
    if sum(values.values()) <= most:
        return list(values)
    small = {name for name, count in values.items() if count < SMALL_VALUES}
    large = [name for name in values if name not in small]
    random.Random(SEED).shuffle(large)
    taken, room = set(large[:1]), most - sum(values[name] for name in [*small, *large[:1]])
    for name in large[1:]:
        if values[name] <= room:
            taken.add(name)
            room -= values[name]
    return [name for name in values if name in small or name in taken]


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """Finite float32 values as bf16 bits (uint16): to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def source_bits(tensor) -> np.ndarray:
    """A GGUF tensor's values as bf16 bits, flat."""
    from gguf import quants

    return round_to_bf16(quants.dequantize(tensor.data, tensor.tensor_type)).reshape(-1)


def plain_bits(data: np.ndarray, dtype: str) -> np.ndarray | None:
    """Stored bytes as bf16 bits, flat; float32 only where it holds bf16 values (llama.cpp wants norms so), else ``None``."""
    if dtype == "BF16":
        return np.ascontiguousarray(data).view(np.uint16).reshape(-1)
    if dtype == "F32":
        bits = np.ascontiguousarray(data).view(np.uint32).reshape(-1)
        return None if (bits & 0xFFFF).any() else (bits >> 16).astype(np.uint16)
    return None


def gguf_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a bf16 GGUF by name."""
    given = [tensor for tensor in files.read_gguf(path).tensors if tensor.name not in COMPUTED]
    return {t.name: Stored(t.tensor_type.name, lambda t=t: plain_bits(t.data, t.tensor_type.name)) for t in given}


def safetensors(folder: Path, reader) -> dict[str, Stored]:
    """The tensors of a folder of safetensors by the names that the GGUF of ``reader`` gives them."""
    found, name_of = {}, gguf_names(reader)
    for tensor in tensors.of(folder):
        name = name_of(tensor.name) or tensor.name
        found[name] = Stored(tensor.dtype, partial(_rows, tensor, permuted_heads(name, reader)))
    return found


def _rows(tensor: tensors.Tensor, heads: int | None) -> np.ndarray | None:
    """A safetensors tensor's bits. A head's Q and K rows stand there as two halves, in a Llama's GGUF as pairs."""
    bits = plain_bits(tensor.data(), tensor.dtype)
    if bits is None or heads is None:
        return bits
    return bits.reshape(heads, 2, tensor.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(-1)


def gguf_names(reader) -> Callable[[str], str | None]:
    """A function from a Hugging Face tensor's name to the GGUF's; ``None`` if it has no counterpart."""
    import gguf

    architecture = reader.fields["general.architecture"].contents()
    number = next(number for number, title in gguf.MODEL_ARCH_NAMES.items() if title == architecture)
    names = gguf.get_tensor_name_map(number, int(reader.fields[f"{architecture}.block_count"].contents()))
    return lambda name: names.get_name(name, try_suffixes=(".weight", ".bias"))


def permuted_heads(name: str, reader) -> int | None:
    """The number of heads whose rows llama.cpp's converter reorders in the tensor ``name``, or ``None``."""
    architecture = reader.fields["general.architecture"].contents()
    if architecture in SAME_ROWS:
        return None
    if architecture != "llama":
        raise files.ModelError(f"architecture {architecture!r}: the order of its rows in GGUF is not known here")
    heads = reader.fields["llama.attention.head_count"]
    if ".attn_k." in name:
        heads = reader.fields.get("llama.attention.head_count_kv", heads)
    return int(heads.contents()) if ".attn_q." in name or ".attn_k." in name else None
