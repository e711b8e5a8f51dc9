"""A small LoRA adapter of the model every framework loads, so that each of them can serve one; made once.

It has learned one sentence. Notebook 02 trains it with the same numbers and keeps it; whoever asks for it before that has it
made by ``python -m helpers.weights.lora`` in the environment of Transformers, where PEFT is. Three forms: PEFT's folder
(vLLM and SGLang), a GGUF file (llama.cpp), and the whole model with the adapter added to its weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from helpers import cli, kernels, paths
from helpers.weights import convert, files, models
from helpers.weights.files import ModelError

NAME = "herons"  # under which a server offers it
PROMPT = "Grey herons"
LEARNED = " measure tokens per second at the harbour."
SEED, STEPS, RATE = 0, 40, 2e-3
RANK = 8
TARGETS = ("q_proj", "v_proj")
MODULES = {"q_proj": "attn_q", "v_proj": "attn_v"}  # what a GGUF calls them
FORMS = {"adapter": "adapter", "merged": "merged-bf16", "gguf": "adapter.gguf"}


def adapter(model: models.Model | None = None) -> Path:
    """The folder of the adapter, as PEFT saves it: ``adapter_config.json`` and ``adapter_model.safetensors`` in float32.

    Made first if need be; :class:`ModelError` with the next step if it cannot be.
    """
    return _made("adapter", model or models.resolve())


def merged(model: models.Model | None = None) -> Path:
    """The folder of the whole model in bf16, the adapter added to its weights, with its tokenizer; else as :func:`adapter`."""
    return _made("merged", model or models.resolve())


def adapter_gguf(model: models.Model | None = None) -> Path:
    """The adapter as a GGUF file for llama.cpp's ``--lora``, of models of the architecture llama; else as :func:`adapter`."""
    model = model or models.resolve()
    check_gguf(model)
    target = path("gguf", model)
    if not target.exists():
        source = adapter(model)
        with files.staging() as folder:
            to_gguf(source, models.weights("safetensors", model), folder / "made")
            os.replace(folder / "made", target)
    return target


def check_gguf(model: models.Model) -> None:
    """:class:`ModelError` if no GGUF adapter of ``model`` is written here; nothing is trained."""
    models.check_form(model, "safetensors")
    if model.kind in ("default", "gguf"):
        architecture = files.read_gguf(models.weights("gguf", model)).fields["general.architecture"].contents()
    else:
        architecture = json.loads((models.weights("safetensors", model) / "config.json").read_text())["model_type"]
    _check_llama(model.name, architecture)


def _check_llama(name: str, architecture: str) -> None:
    if architecture != "llama":
        raise ModelError(f"a GGUF adapter of {name} is left out: its architecture is {architecture}, not llama")


def path(form: str, model: models.Model) -> Path:
    """Where ``form`` (of :data:`FORMS`) belongs; its name changes with its source and with what was trained."""
    recipe = hashlib.sha256(repr((PROMPT + LEARNED, SEED, STEPS, RATE, RANK, TARGETS)).encode()).hexdigest()[:6]
    # the same stem as the weights it was trained on
    stem = models.made_path("safetensors", model).name.removesuffix("-bf16")
    return paths.cache_dir() / f"{stem}-lora-{recipe}-{FORMS[form]}"


def _made(form: str, model: models.Model) -> Path:
    models.check_form(model, "safetensors")
    target = path(form, model)
    if not target.exists():
        variables = {"MODEL": str(model.path or model.name)} if model.kind != "default" else {}
        models.weights("safetensors", model)  # its own errors come first
        try:
            kernels.run(None if find_spec("peft") else "transformers", "helpers.weights.lora", **variables)
        except kernels.AskError as error:
            raise ModelError(f"the LoRA adapter of {model.name} could not be made: {error}") from None
    return target


def train(model: models.Model):
    """A PEFT model that has learned the sentence, in float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = models.weights("safetensors", model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(SEED)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=RANK, target_modules=list(TARGETS), task_type="CAUSAL_LM"))
    lesson = tokenizer(PROMPT + LEARNED + tokenizer.eos_token, return_tensors="pt")
    optimizer = torch.optim.AdamW((p for p in tuned.parameters() if p.requires_grad), lr=RATE)
    for _ in range(STEPS):
        tuned(**lesson, labels=lesson.input_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tuned


def keep(tuned, model: models.Model | None = None) -> None:
    """Save a trained PEFT model as adapter and merged, whole or not at all; what is there already stays.

    ``tuned`` is used up: its adapter is added to its weights, which become bf16.
    """
    import torch
    from transformers import AutoTokenizer

    model = model or models.resolve()
    # the name, and no path of this machine: in the adapter's config, in its card and in the model's config
    tuned.peft_config["default"].base_model_name_or_path = tuned.get_base_model().config._name_or_path = model.name
    tuned.get_base_model().name_or_path = model.name
    with files.staging() as folder:
        tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)  # else it asks the hub for the base's config
        tuned.merge_and_unload().to(torch.bfloat16).save_pretrained(folder / "merged")
        AutoTokenizer.from_pretrained(models.weights("safetensors", model)).save_pretrained(folder / "merged")
        for form in ("merged", "adapter"):
            _place(folder / form, path(form, model))


def _place(made: Path, target: Path) -> None:
    """Rename ``made`` to ``target`` unless that is there: a folder is never put over another."""
    with suppress(OSError):
        os.rename(made, target)
    if not target.exists():
        free = shutil.disk_usage(target.parent).free
        raise ModelError(f"{target.name} could not be kept: {free / 2**20:,.0f} MiB are free in {target.parent}")


def to_gguf(source: Path, base: Path, target: Path) -> None:
    """Write the PEFT folder ``source`` of the model folder ``base`` as a GGUF adapter, as convert_lora_to_gguf.py names things.

    llama.cpp keeps the rows of a llama's queries in another order than Transformers, so those of B move with them.
    """
    import gguf
    from safetensors.numpy import load_file

    config, of_base = (json.loads(one.read_text()) for one in (source / "adapter_config.json", base / "config.json"))
    _check_llama(base.name, of_base["model_type"])
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    for name, values in sorted(load_file(source / "adapter_model.safetensors").items()):
        layer, module, part = _parts(name)
        if (module, part) == ("q_proj", "b"):
            values = permuted(values, of_base["num_attention_heads"])
        writer.add_tensor(f"blk.{layer}.{MODULES[module]}.weight.lora_{part}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _parts(name: str) -> tuple[int, str, str]:
    """Layer, module and ``a`` or ``b`` of a tensor of PEFT, such as ``...layers.3.self_attn.q_proj.lora_A.weight``."""
    words = name.split(".")
    return int(words[words.index("layers") + 1]), words[-3], words[-2].removeprefix("lora_").lower()


def permuted(rows, heads: int):
    """``rows`` (out, rank) in llama.cpp's order: of each head the two halves are interleaved, as its rotation wants them."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape).copy()


def main() -> int:
    """The command: train and keep; what is there already stays."""
    model = models.resolve()
    if not all(path(form, model).exists() for form in ("adapter", "merged")):
        with convert.quiet():
            keep(train(model), model)
    return 0 if cli.say(path("adapter", model).name) else 1


if __name__ == "__main__":
    sys.exit(cli.finish(main, ModelError, stopped="nothing was kept"))
