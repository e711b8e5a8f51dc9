"""One small class for each engine with a Python API: load, generate greedily, say what it holds.

``generate(prompts, tokens)`` returns the number of tokens of each answer, and the times to the first
token where the engine tells them (else an empty list).
"""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress


class VLLM:
    """vLLM's ``LLM``."""

    def __init__(self, job: dict):
        from vllm import LLM

        self.llm = LLM(model=job["folder"], disable_log_stats=False, **job["arguments"])

    def holds(self) -> dict:
        """The KV pool's tokens."""
        cache = self.llm.llm_engine.vllm_config.cache_config
        return {"pool_tokens": cache.num_gpu_blocks * cache.block_size if cache.num_gpu_blocks else None}

    def generate(self, prompts: list[list[int]], tokens: int) -> tuple[list[int], list[float]]:
        from vllm import SamplingParams

        how = SamplingParams(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False)
        answers = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], how, use_tqdm=False)
        firsts = [answer.metrics.first_token_latency for answer in answers if answer.metrics]
        return [len(answer.outputs[0].token_ids) for answer in answers], firsts

    def close(self) -> None:
        with suppress(Exception):  # the guard ends what is left
            self.llm.llm_engine.engine_core.shutdown()


class SGLang:
    """SGLang's ``Engine``."""

    def __init__(self, job: dict):
        import sglang

        self.engine = sglang.Engine(model_path=job["folder"], log_level="info", **job["arguments"])

    def holds(self) -> dict:
        """The KV pool's tokens, and SGLang's own account of its memory in GiB, which it calls GB."""
        state = self.engine.get_server_info()["internal_states"][0]
        said = state.get("memory_usage") or {}
        return {"pool_tokens": said.get("token_capacity"), "memory_usage_gib": said}

    def generate(self, prompts: list[list[int]], tokens: int) -> tuple[list[int], list[float]]:
        how = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        answers = self.engine.generate(input_ids=prompts, sampling_params=how)
        return [answer["meta_info"]["completion_tokens"] for answer in answers], []

    def close(self) -> None:
        self.engine.shutdown()


class Transformers:
    """``generate`` on a static batch, one by one, ``generate_batch``, or with a static cache that is compiled."""

    def __init__(self, job: dict):
        if job["option"] == "expandable segments":  # of torch's allocator: it can grow a block, so fewer are left over
            os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self.torch, self.way, self.device = torch, job["option"], job["device"]
        config = AutoConfig.from_pretrained(job["folder"])
        started = time.perf_counter()
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        self.model, self.init_s = model.eval(), time.perf_counter() - started
        self.model.generation_config.eos_token_id = None  # every answer has the asked length
        self.model.generation_config.pad_token_id = 0

    def holds(self) -> dict:
        return {"weights_bytes": self.weights_bytes, "torch_bytes": self._allocated()}

    @property
    def weights_bytes(self) -> int:
        return sum(values.numel() * values.element_size() for values in self.model.parameters())

    def _allocated(self) -> int | None:
        return self.torch.cuda.memory_allocated() if self.device == "cuda" else None

    def generate(self, prompts: list[list[int]], tokens: int) -> tuple[list[int], list[float]]:
        if self.way == "one by one":
            return self._one_by_one(prompts, tokens)
        if self.way == "generate_batch":
            return self._continuous(prompts, tokens), []
        return self._static(prompts, tokens), []

    def _static(self, prompts: list[list[int]], tokens: int) -> list[int]:
        ids = self.torch.tensor(prompts, device=self.device)
        extra = {"cache_implementation": "static"} if self.way.startswith("static cache") else {}
        with self.torch.inference_mode():
            answers = self.model.generate(
                ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
                do_sample=False, **extra,
            )  # fmt: skip
        self._wait()
        return [answers.shape[1] - ids.shape[1]] * len(prompts)

    def _one_by_one(self, prompts: list[list[int]], tokens: int) -> tuple[list[int], list[float]]:
        """One after the other: who stands behind waits for all before, and then for a first token, counted as a step."""
        counts, firsts, started = [], [], time.perf_counter()
        for prompt in prompts:
            began = time.perf_counter()
            counts += self._static([prompt], tokens)
            firsts.append(began - started + (time.perf_counter() - began) / tokens)
        return counts, firsts

    def _continuous(self, prompts: list[list[int]], tokens: int) -> list[int]:
        from transformers import GenerationConfig

        how = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        with self.torch.no_grad():  # not inference_mode: its scheduler writes these tensors in a thread of its own
            answers = self.model.generate_batch(inputs=prompts, generation_config=how, progress_bar=False)
        self._wait()
        if wrong := [answer.error for answer in answers.values() if answer.error]:
            raise RuntimeError(f"generate_batch: {wrong[0]}")
        return [len(answer.generated_tokens) for answer in answers.values()]

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def peak(self, prompts: list[list[int]], tokens: int) -> dict:
        """The most torch had allocated, and reserved, during one ``generate``, and whether it fitted."""
        torch, on_gpu, weights = self.torch, self.device == "cuda", {"weights_bytes": self.weights_bytes}
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            self._static(prompts, tokens)
        except torch.OutOfMemoryError as error:
            reserved = torch.cuda.max_memory_reserved()
            said = " ".join(str(error).split())[:300]
            return {"fits": False, "peak_bytes": None, "reserved_bytes": reserved, "reason": said, **weights}
        allocated, reserved = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (None, None)
        return {"fits": True, "peak_bytes": allocated, "reserved_bytes": reserved, **weights}

    def close(self) -> None:
        pass


class TensorRTLLM:
    """TensorRT-LLM's ``LLM``; written after its documentation and not run by us (see :mod:`helpers.servers.tensorrt_llm`)."""

    def __init__(self, job: dict):
        from tensorrt_llm import LLM
        from tensorrt_llm.llmapi import KvCacheConfig

        reuse = KvCacheConfig(enable_block_reuse=False)
        self.llm = LLM(model=job["folder"], kv_cache_config=reuse, **job["arguments"])

    def holds(self) -> dict:
        return {}

    def generate(self, prompts: list[list[int]], tokens: int) -> tuple[list[int], list[float]]:
        from tensorrt_llm import SamplingParams

        answers = self.llm.generate(prompts, SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True))
        return [len(answer.outputs[0].token_ids) for answer in answers], []

    def close(self) -> None:
        self.llm.shutdown()


ENGINES = {"vllm": VLLM, "sglang": SGLang, "transformers": Transformers, "tensorrt-llm": TensorRTLLM}
