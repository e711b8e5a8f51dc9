"""What one installed framework says and does about quantized weights; run by its own interpreter.

    python -m helpers.lessons.quantization.probes transformers

prints a JSON list with one entry per method of :data:`helpers.lessons.quantization.support.METHODS`. A registry
is read where there is one. Transformers quantizes a tiny random model and computes with it,
llama.cpp a matrix; the large engines are asked which of their kernels this machine can run.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from helpers.lessons.quantization.support import METHODS


def _cell(method: str, supported: bool | None, here: bool | None, known: str, detail: str) -> dict:
    return {"method": method, "supported": supported, "here": here, "known": known, "detail": detail}


def _line(error: BaseException) -> str:
    """An error in some words: its type and the beginning of its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:90].rstrip('. ')}" if lines else type(error).__name__


def _missing(*packages: str) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name.replace("-", "_")) is None]


def transformers() -> list[dict]:
    """Quantize a tiny model with each method and let it answer; what is only in the mapping is said so."""
    import torch
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as known

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        _tiny_model(folder)
        tries = {
            "INT8": {"torchao": _torchao("Int8WeightOnlyConfig"), "bitsandbytes_8bit": _bits(load_in_8bit=True)},
            "INT4": {
                "bitsandbytes_4bit": _bits(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
            },
            "FP8": {"fp8": lambda: transformers.FineGrainedFP8Config(), "torchao": _torchao("Float8WeightOnlyConfig")},
        }
        cells = [_tried(method, folder, {k: v for k, v in of.items() if k in known}) for method, of in tries.items()]
    asking = {"GPTQ": ("optimum", "gptqmodel"), "AWQ": ("gptqmodel",), "MXFP4": ("kernels",), "NVFP4": ("kernels",)}
    found = {method: _asks_for(method, known, packages) for method, packages in asking.items()}
    found["GGUF"] = _cell("GGUF", "gguf" in known, True, "in the package", _gguf_in_transformers())
    return cells + [found[method] for method in METHODS if method in found]


def _asks_for(method: str, known: Mapping, packages: Sequence[str]) -> dict:
    """A cell of a quantizer of Transformers that wants other packages first: not here, if one of them is missing."""
    key = method.lower()
    what = f"its quantizer {key!r} needs {' and '.join(packages)}"
    return _cell(method, key in known, False if _missing(*packages) else None, "in the package", what)


def _tiny_model(folder: str) -> None:
    """One layer of random weights, in sizes that blocks of 128 fit."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": 256}
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def _torchao(name: str) -> Callable:
    def make():
        from transformers import TorchAoConfig

        return TorchAoConfig(getattr(importlib.import_module("torchao.quantization"), name)())

    return make


def _bits(**options) -> Callable:
    def make():
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(**options)

    return make


def _tried(method: str, folder: str, tries: dict[str, Callable]) -> dict:
    """One cell: which of ``tries`` ran, else why none did."""
    ran, failed = [], []
    for key, make in tries.items():
        try:
            _forward(folder, make())
            ran.append(key)
        except Exception as error:  # any of these libraries may fail in its own way: the reason is the finding
            failed.append(f"{key} did not run: {_line(error)}")
    if ran:
        return _cell(method, True, True, "ran here", "; ".join([f"{', '.join(ran)} ran", *failed]))
    return _cell(method, bool(tries), False, "in the package", "; ".join(failed) or "not in its mapping")


def _forward(folder: str, config) -> None:
    """Load the tiny model quantized and compute with it; ``RuntimeError`` if its weights stayed as they were."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"dtype": torch.bfloat16, "device_map": device}
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, **options)
    linear = model.model.layers[0].mlp.up_proj
    if type(linear) is torch.nn.Linear and type(linear.weight) is torch.nn.Parameter:
        raise RuntimeError("loaded, but its weights are not quantized")
    with torch.no_grad():
        logits = model(torch.arange(8, device=device)[None]).logits
    if not torch.isfinite(logits).all():
        raise RuntimeError("its answer is not finite")


def _gguf_in_transformers() -> str:
    try:
        from transformers.integrations.gguf.utils import is_gguf_arch_supported
    except ImportError:
        return "loads GGUF and unpacks it"
    return "keeps the blocks packed" if is_gguf_arch_supported("llama") else "loads GGUF, unpacks a Llama's to bf16"


def vllm() -> list[dict]:
    """The registry, and which kernels this machine can run."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS, get_quantization_config
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        here = _vllm_on_cpu()
    else:
        here = {}
        capability = current_platform.get_device_capability().to_int()
        asked = {"INT8": 75, "INT4": 75, "FP8": "fp8", "GPTQ": "gptq", "AWQ": "awq", "MXFP4": "mxfp4", "NVFP4": "modelopt_fp4"}
        for method, name in asked.items():
            least = name if isinstance(name, int) else get_quantization_config(name).get_min_capability()
            here[method] = (capability >= least, f"from compute capability {least / 10}, this GPU has {capability / 10}")
    names = {"INT8": "compressed-tensors", "INT4": "compressed-tensors", "FP8": "fp8", "GPTQ": "gptq", "AWQ": "awq"}
    names |= {"MXFP4": "mxfp4", "NVFP4": "modelopt_fp4"}
    found = {}
    for method, name in names.items():
        runs, why = here[method]
        found[method] = _cell(method, name in QUANTIZATION_METHODS, runs, "in the package", f"{name!r}; {why}")
    plugins = [point.name for point in metadata.entry_points(group="vllm.general_plugins")]
    there = "gguf" in QUANTIZATION_METHODS or "gguf" in plugins
    found["GGUF"] = _cell("GGUF", there, there, "in the package", "'gguf' is no method; needs the plugin vllm-gguf-plugin")
    return [found[method] for method in METHODS]


def vllm_schemes(model) -> list[str]:
    """How each linear layer of a vLLM model is quantized, for ``LLM.apply_model``: it wants a function from a module."""
    schemes = [getattr(layer, "scheme", None) for layer in model.modules()]
    return [type(scheme).__name__ for scheme in schemes if scheme is not None]


def _vllm_on_cpu() -> dict[str, tuple[bool | None, str]]:
    """For each method, does a kernel for the CPU take it?"""
    import torch
    from vllm import _custom_ops as ops
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import MPLinearLayerConfig
    from vllm.platforms import current_platform
    from vllm.scalar_type import scalar_types

    def takes(kind) -> bool:
        config = MPLinearLayerConfig((576, 576), (576, 576), kind, torch.bfloat16, 32, kind == scalar_types.uint4)
        return any(kernel.can_implement(config)[0] for kernel in linear._POSSIBLE_KERNELS[current_platform._enum])

    def fp4(known) -> tuple[bool, str]:
        there = bool(known.get(current_platform._enum))
        return there, "a kernel for linear layers" if there else "no kernel for linear layers on CPUs"

    eight = [k.__name__ for k in linear._POSSIBLE_INT8_KERNELS[current_platform._enum] if k.is_supported()[0]]
    symmetric, with_zeros = takes(scalar_types.uint4b8), takes(scalar_types.uint4)
    try:
        ops.scaled_fp8_quant(torch.ones(2, 16, dtype=torch.bfloat16))
        fp8 = (True, "rounding to fp8 ran")
    except Exception as error:
        fp8 = (False, f"rounding to fp8 fails: {_line(error)}")
    return {
        "INT8": (bool(eight), f"W8A8 kernel {eight[0]}" if eight else "no kernel for W8A8"),
        "INT4": (symmetric, "W4A16 kernel, bf16 only" if symmetric else "no kernel for W4A16"),
        "FP8": fp8,
        "GPTQ": (symmetric, "the W4A16 kernel takes it" if symmetric else "no kernel"),
        "AWQ": (with_zeros, "the W4A16 kernel takes it" if with_zeros else "no kernel"),
        "MXFP4": fp4(linear._POSSIBLE_MXFP4_KERNELS),
        "NVFP4": fp4(linear._POSSIBLE_NVFP4_KERNELS),
    }


def sglang() -> list[dict]:
    """The choices of its argument, and on a CPU the list of its methods there."""
    import torch

    try:
        from sglang.srt.arg_groups.choices import QUANTIZATION_CHOICES
    except ModuleNotFoundError:  # 0.5.15 has it elsewhere
        from sglang.srt.server_args import QUANTIZATION_CHOICES
    from sglang.srt.layers.quantization import BASE_QUANTIZATION_METHODS, CPU_QUANTIZATION_METHODS
    from sglang.srt.utils import cpu_has_amx_support

    names = {"INT8": "w8a8_int8", "INT4": "gptq", "FP8": "fp8", "GPTQ": "gptq", "AWQ": "awq", "GGUF": "gguf"}
    names |= {"MXFP4": "mxfp4", "NVFP4": "modelopt_fp4"}
    amx, capability = cpu_has_amx_support(), None
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        capability = 10 * major + minor
    cells = []
    for method, name in names.items():
        if capability is None:
            here = name in CPU_QUANTIZATION_METHODS and amx
            why = "its kernels for CPUs need AMX" if name in CPU_QUANTIZATION_METHODS else "no method for CPUs"
        else:
            least = BASE_QUANTIZATION_METHODS.get(f"{name}_marlin", BASE_QUANTIZATION_METHODS.get(name)).get_min_capability()
            here, why = capability >= least, f"from compute capability {least / 10}, this GPU has {capability / 10}"
        cells.append(_cell(method, name in QUANTIZATION_CHOICES, here, "in the package", f"{name!r}; {why}"))
    return cells


def llama_cpp() -> list[dict]:
    """Its types; a matrix is quantized with each and unpacked again."""
    import llama_cpp

    there = [name.removeprefix("GGML_TYPE_") for name in dir(llama_cpp) if name.startswith("GGML_TYPE_")]
    cells = [_ran(method, there, wanted) for method, wanted in (("INT8", ["Q8_0"]), ("INT4", ["Q4_0", "Q4_1", "Q4_K"]))]
    eights = [name for name in there if "F8" in name or "FP8" in name or "E4M3" in name]
    no_type = f"none of its {len(there)} types"
    cells.append(_cell("FP8", bool(eights), bool(eights), "in the package", ", ".join(eights) or no_type))
    for method in ("GPTQ", "AWQ"):
        types = [name for name in there if method in name]
        cells.append(_cell(method, bool(types), bool(types), "in the package", ", ".join(types) or no_type))
    cells.append(_cell("GGUF", True, True, "in the package", "its own format"))
    return cells + [_ran(method, there, [method]) for method in ("MXFP4", "NVFP4")]


def _ran(method: str, there: Sequence[str], wanted: Sequence[str]) -> dict:
    """A cell of llama.cpp: which of its types ``wanted`` are ``there`` and come back from a round trip."""
    ran = [name for name in wanted if name in there and _round_trip(name)]
    known = "ran here" if ran else "in the package"
    return _cell(method, bool(ran), bool(ran), known, ", ".join(ran) or "none of its types ran")


def _round_trip(name: str) -> bool:
    """Whether ggml quantizes a random matrix to ``name`` and the package ``gguf`` finds its values again."""
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[name]
    values = np.random.default_rng(0).standard_normal((4, 256), np.float32)
    packed = np.zeros(gguf.quant_shape_to_byte_shape(values.shape, kind), np.uint8)
    quantize = _libggml().ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    written = quantize(int(kind), values.ctypes.data, packed.ctypes.data, 0, *values.shape, None)
    unpacked = gguf.quants.dequantize(packed, kind)
    return written == packed.size and float(np.abs(unpacked - values).mean()) < 0.2


def _libggml() -> ctypes.CDLL:
    """llama-cpp-python's, or that of the folder its libraries were told to come from."""
    if folder := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return ctypes.CDLL(os.path.join(folder, "libggml.so"))
    from llama_cpp import _ggml

    return _ggml.libggml


PROBES = {"transformers": transformers, "vllm": vllm, "llama-cpp": llama_cpp, "sglang": sglang}


def main() -> int:
    """Print the cells of the framework named on the command line, as the last line."""
    if len(sys.argv) != 2 or sys.argv[1] not in PROBES:
        print(f"usage: python -m helpers.lessons.quantization.probes {'|'.join(PROBES)}", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)  # bitsandbytes and torchao warn at every call
    cells = PROBES[sys.argv[1]]()
    assert [cell["method"] for cell in cells] == list(METHODS), cells
    print("\n" + json.dumps(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
