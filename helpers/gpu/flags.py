"""Each engine as it comes, and with one thing changed: the arguments of its API and of its server.

One table for both, so that the server of a life and the engine of another are set up alike. What an
engine of another version calls otherwise is changed here and nowhere else in :mod:`helpers.gpu`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from helpers.servers import engines, llama_cpp
from helpers.servers.engines import Engine, Request

PLAIN = "as it comes"
SHORT = "short context"  # as it comes, with no more room than 128 tokens in and out take: what the other options are beside
SLOTS = 128  # requests decoded together, at most: the engines' own default on such a GPU is higher, and starts slower
MEMORY = 0.9  # of the GPU, vLLM; SGLang takes what it finds right

OPTIONS: dict[str, dict[str, Mapping]] = {
    "vllm": {
        PLAIN: {},
        "fp8 weights": {"quantization": "fp8"},
        "fp8 weights and KV": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
        "no graphs, no compile": {"enforce_eager": True},
        "no compile": {"compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}},
        "prefix cache": {"enable_prefix_caching": True},
        SHORT: {},
    },
    "sglang": {
        PLAIN: {},
        "fp8 weights": {"quantization": "fp8"},
        "fp8 weights and KV": {"quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"},
        "no graphs": {"disable_decode_cuda_graph": True, "disable_prefill_cuda_graph": True},
        "prefix cache": {"disable_radix_cache": False},
        SHORT: {},
    },
    "llama-cpp": {"q4_0": {}, "f16": {}, "q4_0, sampled on the GPU": {"backend_sampling": True}},
    "transformers": {PLAIN: {}, "one by one": {}, "generate_batch": {}, "static cache, compiled": {}, "expandable segments": {}},
    "tensorrt-llm": {PLAIN: {}},
}


class UnknownOption(ValueError):
    """An engine or an option of it that is not measured here."""


@dataclass(frozen=True)
class Where:
    """What every engine is told of the machine and of the work."""

    gpu: bool
    context: int  # tokens of a request, prompt and answer
    slots: int = SLOTS
    kv_bytes_per_token: int = 0  # for pools sized in bytes, on a CPU
    random: bool = True  # the engine makes random weights itself

    @property
    def pool_tokens(self) -> int:
        """Where there is no GPU whose memory is taken: enough for every slot, in pages of 32 and one to spare."""
        return (-(-self.context // 32) + 1) * 32 * self.slots


def check(engine: str, option: str = PLAIN) -> None:
    """Raise :class:`UnknownOption`, naming those there are."""
    if engine not in OPTIONS:
        raise UnknownOption(f"no engine is called {engine!r}: choose from {', '.join(OPTIONS)}")
    if option not in OPTIONS[engine]:
        raise UnknownOption(f"{engine} has no option {option!r}: choose from {', '.join(OPTIONS[engine])}")


def arguments(engine: str, option: str, where: Where) -> dict:
    """The keyword arguments of ``engine``'s Python API, model left out; prefix cache off unless the option says so."""
    check(engine, option)
    common = {"vllm": _vllm, "sglang": _sglang, "tensorrt-llm": _tensorrt_llm}[engine](where)
    return {**common, **OPTIONS[engine][option]}


def _vllm(where: Where) -> dict:
    common = {
        "dtype": "bfloat16", "max_model_len": where.context, "max_num_seqs": where.slots, "enable_prefix_caching": False,
        **({"load_format": "dummy"} if where.random else {}),
    }  # fmt: skip
    if where.gpu:
        return common | {"gpu_memory_utilization": MEMORY}
    pool = where.pool_tokens * where.kv_bytes_per_token
    return common | {"block_size": 32, "kv_cache_memory_bytes": pool, "enforce_eager": True}


def _sglang(where: Where) -> dict:
    common = {
        "dtype": "bfloat16", "context_length": where.context, "max_running_requests": where.slots,
        "disable_radix_cache": True, **({"load_format": "dummy"} if where.random else {}),
    }  # fmt: skip
    if where.gpu:
        return common | {"cuda_graph_max_bs_decode": where.slots}
    return common | {
        "device": "cpu", "attention_backend": "torch_native", "sampling_backend": "pytorch", "disable_overlap_schedule": True,
        "max_total_tokens": where.pool_tokens, "mem_fraction_static": 0.3,
    }  # fmt: skip


def _tensorrt_llm(where: Where) -> dict:
    """Not run by us: no machine of ours could install it. Block reuse, its prefix cache, is switched off by the class."""
    return {"load_format": "dummy", "dtype": "bfloat16", "max_seq_len": where.context, "max_batch_size": where.slots}


def server(engine: str, option: str, where: Where) -> Engine:
    """The entry of :mod:`helpers.servers.engines` whose server is started with these arguments."""
    known = engines.get(engine)
    if engine == "llama-cpp":
        if not (folder := llama_cpp.binaries()):
            return known
        on_gpu = ["--n-gpu-layers", "999", "--flash-attn", "on"]
        more = [*on_gpu, *flags(OPTIONS[engine][option], negated=False)]
        return replace(known, command=lambda request: [*llama_cpp.program(folder, request), *more])
    if engine == "transformers":
        return known
    given = arguments(engine, option, where)
    return replace(known, command=lambda request: [*_start(engine, request), *flags(given, negated=engine == "vllm")])


def _start(engine: str, request: Request) -> list[str]:
    """The server's command up to what the arguments say."""
    listen = ["--served-model-name", request.name, "--host", "127.0.0.1", "--port", str(request.port)]
    if engine == "vllm":
        module = "vllm.entrypoints.openai.api_server"
        return [request.python, "-m", module, "--model", str(request.weights), *listen, "--enable-prompt-tokens-details"]
    report = ["--enable-cache-report", "--enable-metrics"]
    return [request.python, "-m", "sglang.launch_server", "--model-path", str(request.weights), *listen, *report]


def flags(given: Mapping, negated: bool) -> list[str]:
    """Keyword arguments as command-line options; ``negated``: a false one is ``--no-name``, else it is left out."""
    words: list[str] = []
    for name, value in given.items():
        option = name.replace("_", "-")
        if value is True:
            words.append(f"--{option}")
        elif value is False:
            words += [f"--no-{option}"] if negated else []
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, Mapping) else str(value)]
    return words


def batched_bench(folder: str, weights, tokens_in: int, tokens_out: int, users: list[int], gpu: bool) -> list[str]:
    """llama.cpp's offline benchmark: ``users`` in this order within one load of the model."""
    most = max(users) * (tokens_in + tokens_out)
    return [
        f"{folder}/llama-batched-bench", "--model", str(weights), "--ctx-size", str(most), "-npp", str(tokens_in),
        "-ntg", str(tokens_out), "-npl", ",".join(map(str, users)), "--n-gpu-layers", "999" if gpu else "0",
        "--flash-attn", "on", "--output-format", "jsonl",
    ]  # fmt: skip
