"""Each engine as it comes, and with one thing changed: the arguments of its API and of its server.

One table for both, so that the server of a life and the engine of another are set up alike. The names
are those of :mod:`helpers.servers.flags`; an option changes what only this engine has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.gpu import cases, several
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import engines, flags, llama_cpp, sglang, vllm
from helpers.servers.engine import Engine

SLOTS = 128  # requests decoded together, at most: the engines' own default on such a GPU is higher, and starts slower
MEMORY = 0.9  # of the GPU, vLLM; SGLang takes what it finds right

ADAPTERS = {"1 adapter": 1, "8 adapters": 8, "32 adapters": 32}  # held at once
RANK = 16
OFFLOAD_GIB = 8  # of the machine's memory for KV pages; SGLang's are of 10^9 bytes

NIXL = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}  # both roles, so that one start serves both ways


def _moved(more: Mapping = {}, **changed) -> dict:
    """vLLM with its prefix cache, and its KV pages ready to be moved over NIXL."""
    return {"enable_prefix_caching": True, "kv_transfer_config": {**NIXL, **changed}, **more}


OPTIONS: dict[str, dict[str, Mapping]] = {
    "vllm": {
        cases.PLAIN: {},
        "fp8 weights": {"quantization": "fp8"},
        "fp8 weights and KV": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
        "no graphs, no compile": {"enforce_eager": True},
        "no compile": {"compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}},
        "prefix cache": {"enable_prefix_caching": True},
        "fp8 weights, prefix cache": {"quantization": "fp8", "enable_prefix_caching": True},
        cases.SHORT: {},
        "whole prompts": {"enable_chunked_prefill": False},  # it warns that this is not officially supported, and does it
        "chunks of 1024": {"max_num_batched_tokens": 1024},
        "offload": {"enable_prefix_caching": True, "kv_offloading_size": OFFLOAD_GIB},
        "NIXL": _moved(),
        "NIXL, written by the prefill": _moved(kv_connector="NixlPushConnector"),
        "NIXL, pages of 64": _moved({"block_size": 64}),
        "NIXL, through the machine's memory": _moved(kv_buffer_device="cpu"),
        **{name: {"enable_lora": True, "max_loras": held, "max_lora_rank": RANK} for name, held in ADAPTERS.items()},
    },
    "sglang": {
        cases.PLAIN: {},
        "fp8 weights": {"quantization": "fp8"},
        "fp8 weights and KV": {"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"},
        "no graphs": {"disable_decode_cuda_graph": True, "disable_prefill_cuda_graph": True},
        "prefix cache": {"disable_radix_cache": False},
        "fp8 weights, prefix cache": {"quantization": "fp8", "disable_radix_cache": False},
        cases.SHORT: {},
        "whole prompts": {"chunked_prefill_size": -1},
        "chunks of 1024": {"chunked_prefill_size": 1024},
        "chunks of 1024, mixed": {"chunked_prefill_size": 1024, "enable_mixed_chunk": True},
        "NIXL": {"disable_radix_cache": False, "disaggregation_transfer_backend": "nixl"},
        "offload": {"disable_radix_cache": False, "enable_hierarchical_cache": True, "hicache_size": OFFLOAD_GIB},
        # it counts the model without an adapter as one more
        **{name: {"max_loras_per_batch": held + 1, "max_lora_rank": RANK} for name, held in ADAPTERS.items()},
    },
    "llama-cpp": {"q4_0": {}, "q8_0": {}, "f16": {}, "q4_0, sampled on the GPU": {"backend_sampling": True}},
    "transformers": {
        cases.PLAIN: {},
        "one by one": {},
        "generate_batch": {},
        "static cache, compiled": {},
        "expandable segments": {},
    },
    "tensorrt-llm": {cases.PLAIN: {}},
}


class UnknownOption(ValueError):
    """An engine or an option of it that is not measured here."""


@dataclass(frozen=True)
class Setup:
    """What every engine is told of the machine and of the work."""

    gpu: bool
    context: int  # tokens of a request, prompt and answer
    slots: int = SLOTS
    kv_bytes_per_token: int = 0  # for pools sized in bytes, on a CPU
    random: bool = True  # the engine makes random weights itself
    layout: Layout = Layout()
    share: float = MEMORY  # of the GPU, vLLM: less where another engine is beside it
    pool: int = 0  # tokens of the KV pool, if not as many as the engine finds room for

    @property
    def load_format(self) -> str | None:
        """How vLLM and SGLang are told to make random weights up; ``None``: they load what there is."""
        return "dummy" if self.random else None

    @property
    def pool_tokens(self) -> int:
        """The size of the KV pool in tokens: as told; else, on a CPU, every slot full, in pages of 32, and a spare page each."""
        return self.pool or (-(-self.context // 32) + 1) * 32 * self.slots


def check(engine: str, option: str = cases.PLAIN) -> None:
    """Raise :class:`UnknownOption`, naming those there are."""
    if engine not in OPTIONS:
        raise UnknownOption(f"no engine is called {engine!r}: choose from {', '.join(OPTIONS)}")
    if option not in OPTIONS[engine]:
        raise UnknownOption(f"{engine} has no option {option!r}: choose from {', '.join(OPTIONS[engine])}")


def arguments(engine: str, option: str, where: Setup) -> dict:
    """The keyword arguments with which ``engine``'s Python API is started, without the model.

    The prefix cache is off unless ``option`` switches it on.
    """
    check(engine, option)
    common = {"vllm": _vllm, "sglang": _sglang, "tensorrt-llm": _tensorrt_llm}[engine](where)
    return several.merged({**common, **OPTIONS[engine][option]}, several.arguments(engine, where.layout))


def _vllm(where: Setup) -> dict:
    common = flags.named(
        "vllm", dtype="bfloat16", context=where.context, slots=where.slots, prefix_cache=False, load_format=where.load_format
    )
    if where.gpu:
        pool_bytes = where.pool * where.kv_bytes_per_token or None
        return common | flags.named("vllm", memory_share=where.share, pool_bytes=pool_bytes)
    pool_bytes = where.pool_tokens * where.kv_bytes_per_token
    return common | flags.named("vllm", page_tokens=vllm.PAGE_TOKENS, pool_bytes=pool_bytes, eager=True)


def _sglang(where: Setup) -> dict:
    common = flags.named(
        "sglang", dtype="bfloat16", context=where.context, slots=where.slots, no_prefix_cache=True, load_format=where.load_format
    )
    if where.gpu:
        return common | flags.named("sglang", graph_slots=where.slots, pool_tokens=where.pool or None)
    return common | sglang.ON_CPU | flags.named("sglang", pool_tokens=where.pool_tokens)


def _tensorrt_llm(where: Setup) -> dict:
    """Not run by us: no machine of ours could install it. Block reuse, its prefix cache, is switched off by the class."""
    return flags.named("tensorrt-llm", load_format="dummy", dtype="bfloat16", context=where.context, slots=where.slots)


def server(engine: str, option: str, where: Setup) -> Engine:
    """The entry of :mod:`helpers.servers.engines` whose server is started with these arguments."""
    known = engines.get(engine)
    if engine == "llama-cpp":
        if not (folder := llama_cpp.named_binaries()):
            return known
        more = [*flags.options("llama-cpp", gpu_layers="999", attention="on"), *flags.words(OPTIONS[engine][option])]
        return replace(known, command=lambda start: [*llama_cpp.program(folder, start), *more])
    if engine == "transformers":
        return known
    listening = {"vllm": vllm.listening, "sglang": sglang.listening}[engine]
    report = {"report_cached": True} | ({"metrics": True} if engine == "sglang" else {})
    given = [*flags.options(engine, **report), *flags.words(arguments(engine, option, where), negated=engine == "vllm")]
    return replace(known, command=lambda start: [*listening(start), *given])


def batched_bench(folder: str, weights: Path, tokens_in: int, tokens_out: int, users: list[int], gpu: bool) -> list[str]:
    """llama.cpp's offline benchmark: ``users`` in this order within one load of the model."""
    most = max(users) * (tokens_in + tokens_out)
    return [
        f"{folder}/llama-batched-bench", *flags.options("llama-cpp", weights=weights, pool_tokens=most),
        "-npp", str(tokens_in), "-ntg", str(tokens_out), "-npl", ",".join(map(str, users)),
        *flags.options("llama-cpp", gpu_layers="999" if gpu else "0", attention="on"), "--output-format", "jsonl",
    ]  # fmt: skip
