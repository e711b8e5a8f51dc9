"""Draft models for speculative decoding: checked before an engine starts, or cut from the target itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from helpers import paths, tokenizer
from helpers.weights import files, models, tensors

LAYER = re.compile(r"\.layers\.(\d+)\.")  # how Llama and its like name the tensors of a layer
SMALL_FILES = (".json", ".jinja", ".model", ".txt")  # a model's folder without its weights
CUT = 1  # raise it when cutting changes: drafts cut before are then made again


class DraftError(ValueError):
    """A draft that cannot serve its target, or numbers that cannot be: the thing, the reason, the next step."""


def check_draft(target: Path | str, draft: Path | str) -> None:
    """:class:`DraftError` unless ``draft`` can draft for ``target``: the same vocabulary, and no more parameters.

    Both are folders with safetensors or ``.gguf`` files; ``ModelError`` for one that is not whole.
    """
    target, draft = Path(target), Path(draft)
    for path in (target, draft):
        files.check_gguf(path) if path.suffix.lower() == ".gguf" else files.check_folder(path)
    ours, theirs = _vocabulary(target), _vocabulary(draft)
    if len(ours) != len(theirs):
        sizes = f"its vocabulary has {len(theirs):,} entries, that of {target.name} {len(ours):,}"
        raise DraftError(f"{draft.name} cannot draft: {sizes}; give a draft of the same family")
    for token_id, (one, other) in enumerate(zip(ours, theirs)):
        if one != other:
            differ = f"token {token_id} is {other!r} in its vocabulary and {one!r} in that of {target.name}"
            raise DraftError(f"{draft.name} cannot draft: {differ}; give a draft of the same family")
    sizes = parameters(draft), parameters(target)
    if sizes[0] > sizes[1]:
        than = f"{sizes[0] / 1e6:,.1f} million parameters, more than the {sizes[1] / 1e6:,.1f} million of {target.name}"
        raise DraftError(f"{draft.name} should not draft: it has {than}; exchange the two, or give a smaller draft")


def _vocabulary(path: Path) -> list[str]:
    """The entries by token id; rows that the model has beyond its tokenizer (padding) are empty ones."""
    entries = tokenizer.entries(str(path))
    rows = 0 if path.suffix.lower() == ".gguf" else json.loads((path / "config.json").read_text()).get("vocab_size", 0)
    return entries + [""] * (rows - len(entries))


def parameters(path: Path) -> int:
    """The number of values in all tensors of a folder of safetensors or a ``.gguf`` file."""
    return sum(tensor.values for tensor in tensors.of(path))


def truncated_draft(layers: int, model: models.Model | None = None) -> Path:
    """A folder with ``model``'s first ``layers`` layers, its embedding and its output: a draft of the same vocabulary.

    Made once, in the cache, whole or not at all; its name changes with what it is made from.
    """
    model = model or models.resolve()
    source = models.weights("safetensors", model)
    config = json.loads((source / "config.json").read_text())
    have = config.get("num_hidden_layers", 0)
    if not 0 < layers < have:
        raise DraftError(f"layers={layers}: {model.name} has {have}; give 1 to {have - 1}")
    parts = sorted(file for file in source.iterdir() if file.suffix in (*SMALL_FILES, ".safetensors"))
    state = [CUT, str(source), [(file.name, *file.stat()[6:7], file.stat().st_mtime_ns) for file in parts]]
    tag = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
    made = paths.cache_dir() / f"{model.name.replace('/', '--')}-{tag}-first-{layers}"
    if not made.exists():
        with files.staging() as folder:
            _cut(source, folder / "made", layers, config)
            try:
                os.rename(folder / "made", made)
            except OSError:  # another process was first
                if not made.exists():
                    raise
    files.check_folder(made)
    return made


def _cut(source: Path, target: Path, layers: int, config: Mapping) -> None:
    """Copy ``source`` without the layers from ``layers`` on: the stored bytes of the others, and a changed config."""
    stored = tensors.of(source)
    if not any(LAYER.search(one.name) for one in stored):
        raise files.ModelError(f"{source.name} has no tensors named as Llama's layers are: choose a model like Llama or Qwen")
    target.mkdir()
    for file in source.iterdir():
        if file.suffix in SMALL_FILES and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    per_layer = {key: value[:layers] for key, value in config.items() if key == "layer_types" and isinstance(value, list)}
    (target / "config.json").write_text(json.dumps({**config, **per_layer, "num_hidden_layers": layers}, indent=1))
    kept = [one for one in stored if not (found := LAYER.search(one.name)) or int(found[1]) < layers]
    tensors.write(kept, target / "model.safetensors")
