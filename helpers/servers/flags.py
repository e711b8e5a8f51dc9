"""What each engine calls a setting: the one table of names that every command and every Python API call is made with.

A name is written as the engine's Python API has it, with underscores. On its command line the same
name has dashes (:func:`words`); llama.cpp and Transformers have the command line only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

FLAGS: dict[str, dict[str, str]] = {
    "transformers": {
        "host": "host", "port": "port", "device": "device", "dtype": "dtype", "attention": "attn_implementation",
        "continuous_batching": "continuous_batching", "page_tokens": "cb_block_size", "pool_pages": "cb_num_blocks",
        "step_tokens": "cb_max_batch_tokens", "quantization": "quantization",
    },
    "vllm": {
        "weights": "model", "name": "served_model_name", "host": "host", "port": "port", "dtype": "dtype",
        "context": "max_model_len", "slots": "max_num_seqs",
        "page_tokens": "block_size", "pool_bytes": "kv_cache_memory_bytes",
        "report_cached": "enable_prompt_tokens_details", "memory_share": "gpu_memory_utilization", "eager": "enforce_eager",
        "prefix_cache": "enable_prefix_caching", "load_format": "load_format", "drafting": "speculative_config",
        "tools": "enable_auto_tool_choice", "tool_parser": "tool_call_parser", "kv_transfer": "kv_transfer_config",
        "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size", "ep": "enable_expert_parallel",
        "dp_here": "data_parallel_size_local", "dp_head": "data_parallel_address", "dp_port": "data_parallel_rpc_port",
        "dp_first": "data_parallel_start_rank", "no_http": "headless",
        "machines": "nnodes", "machine": "node_rank", "head": "master_addr", "head_port": "master_port",
        "quantization": "quantization", "runner": "runner", "serve_adapters": "enable_lora", "adapters": "lora_modules",
        "adapters_at_once": "max_loras", "adapters_in_memory": "max_cpu_loras", "adapter_rank": "max_lora_rank",
        "kv_dtype": "kv_cache_dtype", "reasoning_parser": "reasoning_parser",
    },
    "sglang": {
        "weights": "model_path", "name": "served_model_name", "host": "host", "port": "port", "dtype": "dtype",
        "context": "context_length", "slots": "max_running_requests", "pool_tokens": "max_total_tokens",
        "report_cached": "enable_cache_report", "metrics": "enable_metrics", "memory_share": "mem_fraction_static",
        "device": "device", "attention": "attention_backend", "sampling": "sampling_backend",
        "no_overlap": "disable_overlap_schedule", "no_prefix_cache": "disable_radix_cache", "load_format": "load_format",
        "graph_slots": "cuda_graph_max_bs_decode", "tool_parser": "tool_call_parser",
        "tp": "tp_size", "pp": "pp_size", "dp": "attn_dp_size", "ep": "ep_size",
        "machines": "nnodes", "machine": "node_rank", "head": "dist_init_addr",
        "transfer": "disaggregation_transfer_backend", "role": "disaggregation_mode",
        "role_port": "disaggregation_bootstrap_port",
        "quantization": "quantization", "embeds": "is_embedding", "adapters": "lora_paths",
        "adapters_at_once": "max_loras_per_batch", "adapters_in_memory": "max_loaded_loras", "adapter_rank": "max_lora_rank",
        "kv_dtype": "kv_cache_dtype", "reasoning_parser": "reasoning_parser",
    },
    "llama-cpp": {
        "weights": "model", "name": "alias", "host": "host", "port": "port", "slots": "parallel", "pool_tokens": "ctx_size",
        "metrics": "metrics", "report_slots": "slots", "prompt_cache_mib": "cache_ram", "threads": "threads",
        "gpu_layers": "n_gpu_layers", "verbosity": "verbosity", "attention": "flash_attn", "template": "chat_template_file",
        "drafting": "spec_type", "draft_model": "spec_draft_model", "draft_tokens": "spec_draft_n_max",
        "ngram": "spec_ngram_simple_size_n", "ngram_draft_tokens": "spec_ngram_simple_size_m",
        "embeds": "embeddings", "projector": "mmproj", "adapters": "lora", "chat_template_tools": "jinja",
        "keys_dtype": "cache_type_k", "values_dtype": "cache_type_v",
    },
    "tensorrt-llm": {
        "host": "host", "port": "port", "dtype": "dtype", "context": "max_seq_len", "slots": "max_batch_size",
        "load_format": "load_format", "tp": "tp_size", "pp": "pp_size", "ep": "ep_size", "config": "config",
    },
}  # fmt: skip


def named(engine: str, **settings) -> dict[str, object]:
    """``settings`` under ``engine``'s own names, in the order given; one that is ``None`` is left out.

    Raises ``KeyError`` for a setting that the engine does not have.
    """
    return {FLAGS[engine][setting]: value for setting, value in settings.items() if value is not None}


def words(options: Mapping[str, object], *, negated: bool = False, dashes: bool = True) -> list[str]:
    """Options as a command line has them: ``{"max_num_seqs": 4}`` is ``--max-num-seqs 4``.

    True is a switch; False is ``--no-name`` where ``negated``, else left out; a table is JSON. TensorRT-LLM's
    command line keeps the underscores (``dashes=False``).
    """
    found: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-') if dashes else name}"
        if value is True:
            found.append(option)
        elif value is False:
            found += [option.replace("--", "--no-", 1)] if negated else []
        else:
            found += [option, json.dumps(value) if isinstance(value, Mapping) else str(value)]
    return found


def options(engine: str, **settings) -> list[str]:
    """``settings`` as ``engine``'s command line has them."""
    return words(named(engine, **settings), negated=engine == "vllm", dashes=engine != "tensorrt-llm")
