"""From the command to the first answer: with empty caches, again with what the first start has left in them, and without them.

The caches are those in which an engine keeps what it has compiled; they lie in a folder of this life's own. FlashInfer's is left
as it is: the modules that engines need of it may have been compiled elsewhere, and doing it again takes minutes. The weights lie
in the page cache, but for llama.cpp's cold start: it compiles nothing, and its file is taken out of that cache before.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from helpers.bench import client, workload
from helpers.bench.timing import Sample
from helpers.gpu import random_model, session
from helpers.gpu.cases import Life
from helpers.gpu.session import Log, Setting
from helpers.gpu.work import together
from helpers.servers.serving import Server
from helpers.weights import models

COLD, WARM, WITHOUT = "cold", "warm", "no compile cache"
OF_ALL = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "CUDA_CACHE_PATH": "cuda"}
FOLDERS = {  # each cache's variable, and its folder
    "vllm": {**OF_ALL, "VLLM_CACHE_ROOT": "vllm"},
    "sglang": {
        **OF_ALL, "SGLANG_CACHE_DIR": "sglang", "SGLANG_JIT_CACHE_DIR": "sglang-jit", "SGLANG_DG_CACHE_DIR": "deep-gemm",
        "TVM_FFI_CACHE_DIR": "tvm-ffi",
    },
    "llama-cpp": {"CUDA_CACHE_PATH": "cuda"},
}  # fmt: skip
OFF = {"VLLM_DISABLE_COMPILE_CACHE": "1"}
PHASES = {  # what the engines' logs say of the seconds of a start: vLLM 0.32.0, SGLang 0.5.23; llama.cpp's has none
    "weights": r"Model loading took \S+ GiB memory and ([\d.]+) seconds|Load weight end\. elapsed=([\d.]+) s",
    "compile": r"torch\.compile (?:and initial profiling/warmup run together )?took ([\d.]+) s in total",
    "kernels": r"JIT kernel warmup finished in ([\d.]+)s",
    "graphs": r"Graph capturing finished in ([\d.]+) secs|Capture [^\n]* end\. [^\n]*?elapsed=([\d.]+) s",
}
TOKENS, REQUESTS = {"input_tokens": 128, "output_tokens": 16}, 3


def run(life: Life, setting: Setting, log: Log, left_s: float) -> bool:
    """A start for each of the ``ways`` in ``life.given``, one after the other; a row for each."""
    end, took_s = time.monotonic() + left_s, 0.0
    weights, prompts = session.model(life, setting), _prompts(setting)  # made before any clock runs
    with tempfile.TemporaryDirectory(prefix="gpu-caches-") as folder:
        for way in life.given["ways"]:
            left = end - time.monotonic()
            if left < took_s:
                log.row("stopped", reason=f"the start {way} was left out: {left:.0f} s were left")
                return False
            if way == COLD and life.engine == "llama-cpp":
                forget(weights.path)
            began = time.monotonic()
            told = variables(life.engine, Path(folder), way)
            with session.started(life, replace(setting, users=(1,)), log, left, variables=told) as server:
                firsts = [_asked(server, prompt) for prompt in prompts]
                phases = phases_s(server.log.read_text(errors="replace"))
                log.row("start", way=way, **figures(server.startup_s, firsts), phases_s=phases)
            took_s = time.monotonic() - began
    return True


def variables(engine: str, folder: Path, way: str) -> dict[str, str]:
    """Where ``engine`` keeps what it compiles, within ``folder``; and without its compile cache, that it has none."""
    return {name: str(folder / own) for name, own in FOLDERS[engine].items()} | (OFF if way == WITHOUT else {})


def forget(file: Path) -> None:
    """Take ``file`` out of the page cache: it is read from the disk next."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())  # what was not written yet would stay
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def figures(ready_s: float, samples: Sequence[Sample]) -> dict:
    """Of a start: when the server was ready, when its first answer had ended if it was asked at once, and each answer's TTFT."""
    return {"ready_s": ready_s, "first_answer_s": ready_s + samples[0].e2e_s, "ttft_s": [sample.ttft_s for sample in samples]}


def phases_s(log: str) -> dict[str, float]:
    """Seconds of each of :data:`PHASES` that ``log`` tells, those of a phase together; what it does not tell is left out."""
    told = {name: [float("".join(groups)) for groups in re.findall(pattern, log)] for name, pattern in PHASES.items()}
    return {name: sum(seconds) for name, seconds in told.items() if seconds}


def _prompts(setting: Setting) -> list[workload.Prompt]:
    vocabulary = models.vocabulary(random_model.model(setting.shape, "safetensors"))
    return workload.prompts(REQUESTS, TOKENS["input_tokens"], seed="start", vocabulary=vocabulary)


def _asked(server: Server, prompt: workload.Prompt) -> Sample:
    sample = client.run(client.request(server.endpoint, prompt, TOKENS["output_tokens"]))
    return together.answered([sample], "the first answers")[0]
