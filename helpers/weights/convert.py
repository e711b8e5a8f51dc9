"""Make the default GGUF's values into bf16 safetensors and a bf16 GGUF, bit for bit the same, and those into a Q4_0.

Why bf16: it is the dtype in which Transformers is fastest on CPU and GPU, and then two engines
that load the two files compute with the same numbers *and* read the same bytes per step.
Norms stay float32 in GGUF, as llama.cpp wants them, holding the same bf16-rounded values.
Run as ``python -m helpers.weights.convert safetensors`` in the environment of Transformers, and
``python -m helpers.weights.convert gguf-bf16`` in any that has ``gguf``; ``gguf-q4_0``, the type that llama.cpp
repacks for the processor, in llama.cpp's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import cli, machine
from helpers.weights import files, models

FULL = ("No space left", "File too large", "Disk quota", "requested and")  # the last is numpy's, of a write cut short


def to_safetensors(model: models.Model, target: Path) -> None:
    """Write ``model`` (a GGUF or a hub id) as a folder that ``from_pretrained`` loads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, named = model.name, {}
    if model.kind != "hub":
        file = models.weights("gguf", model)
        source, named = file.parent, {"gguf_file": file.name}
    quantization = {"quantization_config": GgufConfig(dequantize=True)} if named else {}
    loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, **named, **quantization)
    loaded.config._name_or_path = model.name
    loaded.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(source, **named)
    if named:
        fields = files.read_gguf(file).fields
        set_special_tokens(tokenizer, fields)
        set_begin(tokenizer, fields)
        set_decoder(tokenizer, fields)
    tokenizer.save_pretrained(target)


def set_special_tokens(tokenizer, fields) -> None:
    """Give ``tokenizer`` the special tokens that a GGUF's ``fields`` name: Transformers 5.17 makes others of it."""
    entries = fields["tokenizer.ggml.tokens"].contents()
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (name := f"tokenizer.ggml.{theirs}_token_id") in fields:
            setattr(tokenizer, f"{ours}_token", entries[int(fields[name].contents())])


def set_begin(tokenizer, fields) -> None:
    """Let ``tokenizer`` begin a text with the token for it where a GGUF's ``fields`` say so: Transformers 5.19 forgets it.

    llama.cpp heeds the field. Without the token a Gemma repeats itself, and the engines would not be given the same text.
    """
    if (name := "tokenizer.ggml.add_bos_token") in fields and fields[name].contents():
        tokenizer.add_bos_token = True
        tokenizer.update_post_processor()


def set_decoder(tokenizer, fields) -> None:
    """Give the ``tokenizer`` of a vocabulary of bytes (GGUF's "gpt2") the decoder of bytes alone.

    Transformers 5.17 puts SentencePiece's steps before it. Texts come out the same, but xgrammar 0.2.1 (in vLLM
    0.25.1 and SGLang 0.5.15) then takes the entries for plain text: spaces are forbidden, "ö" cannot be written.
    """
    from tokenizers.decoders import ByteLevel

    if fields["tokenizer.ggml.model"].contents() == "gpt2":
        tokenizer.backend_tokenizer.decoder = ByteLevel()


def to_bf16_gguf(source: Path, target: Path) -> None:
    """Write ``source`` again with every tensor dequantized and rounded to bf16."""
    import gguf
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    reader = files.read_gguf(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        rounded = quants.quantize(values, GGMLQuantizationType.BF16)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, quants.dequantize(rounded, GGMLQuantizationType.BF16))
        else:
            writer.add_tensor(tensor.name, rounded, raw_dtype=GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, kind: int, allow_requantize: bool = False) -> None:
    """Write the GGUF ``source`` as the file type that llama.cpp numbers ``kind``, with its own quantizer, in this interpreter."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = kind, machine.cores(), allow_requantize
    if code := llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params):
        room = f"{shutil.disk_usage(target.parent).free / 2**20:,.0f} MiB are free there"
        raise files.ModelError(
            f"{source.name} could not be made into file type {kind}: llama.cpp's quantizer returned {code}; {room}"
        )


def to_q4_0_gguf(source: Path, target: Path) -> None:
    """Write ``source``, unquantized, as Q4_0: what ``gguf_types.made("Q4_0")`` of notebook 11 makes."""
    from gguf import LlamaFileType

    quantize(source, target, int(LlamaFileType.MOSTLY_Q4_0))


def main(form: models.Form) -> Path:
    """Make ``form`` of the model that ``MODEL`` names; a finished one is left as it is."""
    model = models.resolve()
    models.check_form(model, form)
    target = models.made_path(form, model)
    if target.exists():
        return target
    with files.staging() as folder:
        made = folder / "made"
        try:
            if form == "safetensors":
                to_safetensors(model, made)
            elif form == "gguf-q4_0":
                to_q4_0_gguf(models.weights("gguf-bf16", model), made)
            else:
                to_bf16_gguf(models.weights("gguf", model), made)
        except Exception as error:  # each library has its own
            if not any(word in str(error) for word in FULL):
                raise
            raise files.ModelError(_no_room(target, error)) from None
        try:
            os.rename(made, target)  # complete or not there; a folder is never put over another
        except OSError:
            if not target.exists():
                raise
    return target


def _no_room(target: Path, error: Exception) -> str:
    free = shutil.disk_usage(target.parent).free
    reason = getattr(error, "strerror", None) or str(error)
    return f"{target.name} could not be written ({reason}): {free / 2**20:,.0f} MiB are free in {target.parent}; nothing was kept"


@contextmanager
def quiet() -> Iterator[None]:
    """Send to a file what libraries write on standard error, bars and warnings, also from C; an exception goes on as it is."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


if __name__ == "__main__":
    if sys.argv[1:] not in (["safetensors"], ["gguf-bf16"], ["gguf-q4_0"]):
        sys.exit("usage: python -m helpers.weights.convert safetensors|gguf-bf16|gguf-q4_0")

    def made() -> int:
        with quiet():
            name = main(sys.argv[1]).name
        return 0 if cli.say(name) else 1

    sys.exit(cli.finish(made, files.ModelError, stopped="nothing was kept"))
