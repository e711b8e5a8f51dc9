"""What decides a model's memory: of known models (``shapes.toml``), of a config.json, or of files that are here.

Parameters are counted from the config, matrix by matrix, for the architectures in ``COUNTED``;
another one is refused and not guessed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from helpers import paths
from helpers.weights import files, models, named, sizes
from helpers.weights.files import ModelError

TABLE = Path(__file__).with_name("shapes.toml")
COUNTED = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "deepseek_v2", "deepseek_v3")

QUERY_KEY_NORMS = ("qwen3", "qwen3_moe", "gemma3_text")  # a norm of head_dim values on each of Q and K


@dataclass(frozen=True)
class Sheet:
    """The data sheet of a model: what must be known to say how much memory it takes."""

    name: str
    shape: models.Shape
    attention: Literal["MHA", "GQA", "MQA", "MLA", "none"]
    parameters: int
    looked_up: int  # of them in an input embedding that is not the head too: a step reads one row of it
    experts: bool  # a step reads only some of the parameters
    source: str
    stored_bytes: int | None = None  # of all tensors in its files; None where only a config is known
    quantized: str | None = None  # how, by its config: the parameters then do not give the bytes


def of(model: str | Path | models.Model | Sheet) -> Sheet:
    """The sheet of a known model's name or hub id, a config.json, a folder, a ``.gguf``, or a :class:`models.Model`.

    Raises :class:`ModelError` in one line: an unknown name, a config without a needed field.
    """
    if isinstance(model, Sheet):
        return model
    if isinstance(model, models.Model):
        form = "gguf" if model.kind in ("default", "gguf") else "safetensors"
        return _of_files(models.weights(form, model), model.name)
    for name, sheet in known().items():
        if str(model).lower() in (name.lower(), rows()[name]["hub"].lower()):
            return sheet
    path = Path(model).expanduser()
    if not path.exists():
        asked = f"choose one of {', '.join(known())}, or give a config.json, a folder or a .gguf"
        raise ModelError(f"no model is called {str(model)!r}: {asked}")
    return _of_files(path)


@lru_cache
def rows() -> dict[str, dict]:
    """``shapes.toml``: the config fields of each known model, by name."""
    return tomllib.loads(paths.data(TABLE))


@lru_cache
def known() -> dict[str, Sheet]:
    """The sheets of the models in ``shapes.toml``, by name."""
    return {name: of_config(row, name, f"{row['source']}, {row['read']}") for name, row in rows().items()}


def _of_files(path: Path, name: str | None = None) -> Sheet:
    if named.is_gguf(path):
        return _of_gguf(path, name or path.stem)
    file = path / "config.json" if path.is_dir() else path
    folder = file.absolute().parent.name
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file.name} of {folder} cannot be read ({type(error).__name__}): give a config.json") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file.name} of {folder} is no table of fields: give a model's config.json")
    stored = sizes.stored_bytes(path) if path.is_dir() and list(path.glob("*.safetensors")) else None
    return of_config(config, name or _name(config, file), file.name, stored)


def _name(config: Mapping, file: Path) -> str:
    """What to call a model of which ``file`` is the config: the file's own name, the hub id in it, its folder, its kind."""
    if file.stem != "config":
        return file.stem
    hub, folder = str(config.get("_name_or_path") or ""), file.absolute().parent.name
    return hub if hub.count("/") == 1 and not hub.startswith(("/", ".")) else folder or str(config.get("model_type"))


def _of_gguf(path: Path, name: str) -> Sheet:
    shape, reader = models.shape(models.Model(name, "gguf", path)), files.read_gguf(path)
    values = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    arch = reader.fields["general.architecture"].contents()
    heads = reader.fields.get(f"{arch}.attention.head_count")
    return Sheet(
        name, shape, _attention(shape, models.alike(heads.contents()) if heads else 0), sum(values.values()),
        looked_up=values["token_embd.weight"] if "output.weight" in values else 0,
        experts=any("exps" in tensor for tensor in values), source=path.name, stored_bytes=sizes.stored_bytes(path),
    )  # fmt: skip


def of_config(config: Mapping, name: str, source: str = "config.json", stored_bytes: int | None = None) -> Sheet:
    """The sheet that the fields of a config.json give; :class:`ModelError` names the field that is missing."""
    quantized = _quantized(config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config"))
    config = config.get("text_config") or config
    shape = models.shape_of(config, name)
    if (kind := config.get("model_type")) not in COUNTED:
        counted = ", ".join(COUNTED)
        raise ModelError(f"{name} is of model_type {kind!r}, whose parameters are not counted here: only those of {counted}")
    tied = config.get("tie_word_embeddings", kind == "gemma3_text")  # its configs leave out what is Transformers' default
    embedding = shape.vocabulary * shape.hidden
    layers = sum(_layer(config, name, shape, index) for index in range(shape.layers))
    return Sheet(
        name, shape, _attention(shape, config["num_attention_heads"]),
        parameters=layers + shape.hidden + embedding * (1 if tied else 2),
        looked_up=0 if tied else embedding,
        experts=experts(config) > 0, source=source, stored_bytes=stored_bytes, quantized=quantized,
    )  # fmt: skip


def experts(config: Mapping) -> int:
    """Routed experts of a layer, 0 in a dense model: DeepSeek and Qwen count them under different names."""
    return config.get("n_routed_experts") or config.get("num_experts") or 0


def _quantized(how: Mapping | None) -> str | None:
    """A ``quantization_config`` in words, such as "awq, 4 bits"; ``None`` without one."""
    if not how:
        return None
    bits = how.get("bits") or ("4" if how.get("load_in_4bit") else "8" if how.get("load_in_8bit") else None)
    return f"{how.get('quant_method', 'quantization_config')}" + (f", {bits} bits" if bits else "")


def _attention(shape: models.Shape, heads: int) -> str:
    if not shape.caching:
        return "none"
    if shape.latent:
        return "MLA"
    return "MHA" if shape.kv_heads == heads else "MQA" if shape.kv_heads == 1 else "GQA"


def _layer(config: Mapping, name: str, shape: models.Shape, index: int) -> int:
    """Parameters of layer ``index``: attention, the feed-forward part, two norms (Gemma 3: four)."""
    hidden, number = shape.hidden, models.reader(config, name)
    norms = 4 if config["model_type"] == "gemma3_text" else 2
    attention = latent_attention(number, hidden) if shape.latent else plain_attention(config, number, shape)
    if not (count := experts(config)) or index < config.get("first_k_dense_replace", 0):
        return attention + 3 * hidden * number("intermediate_size") + norms * hidden
    router = count * hidden + (count if config["model_type"] == "deepseek_v3" else 0)
    shared = 0 if config["model_type"] == "qwen3_moe" else number("n_shared_experts")
    width = number("moe_intermediate_size") * (count + shared)
    return attention + 3 * hidden * width + router + 2 * hidden


def plain_attention(config: Mapping, number, shape: models.Shape) -> int:
    """Q, K, V and O; Qwen2 has a bias on the first three, Qwen3 and Gemma 3 a norm on each of Q and K."""
    kind, queries, keys = config["model_type"], number("num_attention_heads") * shape.head_dim, shape.kv_heads * shape.head_dim
    matrices = 2 * shape.hidden * (queries + keys)
    biased = queries + 2 * keys if kind == "qwen2" or config.get("attention_bias") else 0
    biased += shape.hidden if config.get("attention_bias") else 0
    return matrices + biased + (2 * shape.head_dim if kind in QUERY_KEY_NORMS else 0)


def latent_attention(number, hidden: int) -> int:
    """MLA: queries directly or through a narrow matrix, one latent for keys and values, and O (DeepSeek-V2, 2024)."""
    heads, rank, rope = number("num_attention_heads"), number("kv_lora_rank"), number("qk_rope_head_dim")
    query, value = number("qk_nope_head_dim") + rope, number("v_head_dim")
    q_rank = number("q_lora_rank", 0)
    queries = q_rank * (hidden + 1 + heads * query) if q_rank else hidden * heads * query
    latent = hidden * (rank + rope) + rank + rank * heads * (query - rope + value)
    return queries + latent + heads * value * hidden
