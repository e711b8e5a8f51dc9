"""How each engine should be run on this CPU, measured in turns and written down: ``python -m helpers.studies.choices``.

Three parts, each kept as soon as it is measured: vLLM with its model compiled and eager; llama.cpp's server on three types
and with flash attention the other way; and one file in llama-cpp-python's process, in llama.cpp's server and in
``llama-bench``, which must agree if the server is built and started as well as the library is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx

from helpers import cli, formatting, kernels, machine, records
from helpers.bench import client, measure, stats, timing, workload
from helpers.bench.client import EndpointError
from helpers.lessons.quantization import gguf_runs
from helpers.servers import engines, flags, install, llama_cpp, metrics, serving
from helpers.servers.serving import Server
from helpers.weights import models
from helpers.weights.files import ModelError

if TYPE_CHECKING:
    import pandas as pd

NAME = "choices"
INPUT_TOKENS = 128
START_TIMEOUT_S = 900  # vLLM compiles its model
ALIKE = ("machine", "model", "versions")
FILE = "llama-cpp-q4_0"  # the engine whose file all three programs read
TIMEOUT_S = 300
TURNS, REQUESTS = 6, 3  # of the three programs, and of each in a turn: six turns give an interval
WAYS = ("library", "server", "llama-bench")
TITLES = {"library": "llama-cpp-python, in its process", "server": "llama-server", "llama-bench": "llama-bench"}


class ChoicesError(RuntimeError):
    """What cannot be compared here: the reason and the next step in one line."""


def record(parts: Sequence[str]) -> dict:
    """Measure ``parts`` (names of :data:`PARTS`) and save the record when all are there; returns it."""
    here, left_out = engines.at_hand()
    needed = {"vllm" if part == "vllm" else FILE for part in parts}
    if missing := {engine: left_out[engine] for engine in sorted(needed) if engine in left_out}:
        raise ChoicesError("; ".join(f"{name} cannot be compared: {reason}" for name, reason in missing.items()))
    if FILE in needed and not llama_cpp.binaries():
        raise ChoicesError("llama.cpp's own programs are not here, only the wheel's server: run `nox -s tour -- llama-cpp`")
    versions = {engine.name: install.versions(engine) for engine in here if engine.name in ("vllm", FILE)}
    source = records.provenance(model=models.resolve().name, versions=versions, input_tokens=INPUT_TOKENS)
    kept = records.resume(NAME, source, lambda known, new: records.difference(known, new, ALIKE)) or {}
    found = {**kept, "provenance": source}
    for part in parts:
        if part not in found:
            started = time.monotonic()
            found[part] = PARTS[part]()
            records.keep(NAME, found)
            print(f"{part}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    if all(part in found for part in PARTS):
        records.save(NAME, found)
    return found


def measure_vllm() -> dict:
    """vLLM eager and compiled, in turns: levels of 1, 10 and 100 users, and the seconds of each start, no compilation kept."""
    vllm = engines.get("vllm")
    with tempfile.TemporaryDirectory() as cache:
        both = [_called(vllm, "eager", cache), _called(engines.compiled(vllm), "compiled", cache)]
        return _levels(both, {1: 3, 10: 20, 100: 100}, output_tokens=32, timeout_s=START_TIMEOUT_S)


def _called(engine: engines.Engine, name: str, cache: str) -> engines.Engine:
    """``engine`` under another name, which keeps what it compiles in the folder ``cache``."""
    return replace(engine, name=name, command=lambda start: ["env", f"VLLM_CACHE_ROOT={cache}", *engine.command(start)])


def measure_llama_cpp() -> dict:
    """llama.cpp's server on its types as it is started here, and Q4_0 and bf16 with flash attention the other way, in turns."""
    other = {"on": "off", "off": "on"}[llama_cpp.attention()]
    more, several = flags.options("llama-cpp", attention=other), {}
    for engine in llama_cpp.ROWS:
        several[engine.dtype] = replace(engine, name=engine.dtype)
        if engine.dtype != "Q4_1":
            name = f"{engine.dtype}, flash attention {other}"
            several[name] = replace(engine, name=name, command=lambda start, e=engine: [*e.command(start), *more])
    return _levels(list(several.values()), {1: 3, 10: 20}, output_tokens=64)


def _levels(several: Sequence[engines.Engine], requests: Mapping[int, int], output_tokens: int, **options) -> dict:
    """Serve ``several`` side by side and measure each at the numbers of users in ``requests``, in alternating blocks."""
    plans = [measure.Plan((n,), INPUT_TOKENS, output_tokens, requests=count, settle=False) for n, count in requests.items()]
    size = {"slots": max(requests), "context": INPUT_TOKENS + output_tokens + 32}
    vocabulary = models.vocabulary()
    with serving.side_by_side(several, **size, **options) as servers:
        endpoints = {name: server.endpoint for name, server in servers.items()}
        levels: dict[str, list[dict]] = {name: [] for name in servers}
        for plan in plans:
            done = measure.compare(
                endpoints, plan, vocabulary=vocabulary, awake=lambda name: servers[name].awake(),
                hits=lambda name: metrics.cache_hits(servers[name]),
            )  # fmt: skip
            for name, (level,) in done.items():
                levels[name].append(level.to_dict())
        return {
            "output_tokens": output_tokens,
            "levels": levels,
            "startup_s": {name: round(server.startup_s, 1) for name, server in servers.items()},
            "arguments": {name: list(server.arguments) for name, server in servers.items()},
        }


def measure_same_file() -> dict:
    """Prefill and decode of one file in three programs, by the programs' own counters, in turns; TTFT where there is a user."""
    engine, path = engines.get(FILE), models.weights(engines.get(FILE).form)
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    with serving.side_by_side([engine], slots=1, context=512) as servers:
        server = servers[engine.name]
        ask: dict[str, Callable[[int], dict]] = {
            "library": lambda turn: kernels.ask(
                "llama-cpp", "helpers.studies.choices", "--library", str(path), given=json.dumps(_ids(turn, "library"))
            ),
            "server": lambda turn: _of_server(server, turn),
            "llama-bench": lambda turn: _of_bench(path),
        }
        for turn in range(TURNS + 1):  # the first is the warm-up
            for way in WAYS[:: 1 if turn % 2 else -1]:
                runs[way].append(ask[way](turn))
        build = llama_cpp.build(server.log.read_text(errors="replace"), machine.facts()["cpu_flags"])
    return {"weights": engine.dtype, "file": path.name, "build": build, "runs": {way: of[1:] for way, of in runs.items()}}


def _prompts(turn: int, way: str) -> list[workload.Prompt]:
    return workload.prompts(2 * REQUESTS, INPUT_TOKENS, seed=f"{way}, turn {turn}", vocabulary=models.vocabulary())


def _ids(turn: int, way: str) -> list[list[int]]:
    return [list(prompt.token_ids) for prompt in _prompts(turn, way)[:REQUESTS]]


def _of_server(server: Server, turn: int) -> dict:
    """What one user sees of the server, and what it says of itself."""
    seen, counted = _prompts(turn, "server")[:REQUESTS], _prompts(turn, "server")[REQUESTS:]
    with server.awake():
        samples = [client.run(client.request(server.endpoint, prompt, INPUT_TOKENS)) for prompt in seen]
        own = [_timings(server, prompt) for prompt in counted]
    if wrong := next((sample.error for sample in samples if sample.error), None):
        raise ChoicesError(f"{server.engine.title}'s server gave no answer to measure: {wrong}")
    return {
        "prefill_tokens_per_s": median(one["prompt_per_second"] for one in own),
        "decode_tokens_per_s": median(one["predicted_per_second"] for one in own),
        "client_decode_tokens_per_s": median(1 / sample.tpot_s for sample in samples if sample.tpot_s),
        "ttft_s": median(sample.ttft_s for sample in samples),
    }


def _timings(server: Server, prompt: workload.Prompt) -> dict:
    """The server's own count of one answer."""
    body = {"prompt": prompt.token_ids, "n_predict": INPUT_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    url = f"{server.base_url.removesuffix('/v1')}/completion"
    return httpx.post(url, json=body, timeout=TIMEOUT_S, trust_env=False).raise_for_status().json()["timings"]


def _of_bench(path: Path) -> dict:
    """llama-bench on as many tokens, on every core, with the attention that our server is started with."""
    command = [
        f"{llama_cpp.binaries()}/llama-bench", "-m", str(path), "-p", str(INPUT_TOKENS), "-n", str(INPUT_TOKENS),
        "-r", str(REQUESTS), "-t", str(machine.cores()), "-fa", llama_cpp.attention(), "-ngl", "0", "-o", "json",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, env=kernels.process_environment("llama-cpp"))
    if ran.returncode:
        raise ChoicesError(f"llama-bench failed: {(ran.stderr.strip().splitlines() or ['it wrote nothing'])[-1]}")
    tests = json.loads(ran.stdout)
    prefill = next(test for test in tests if test["n_prompt"])
    decode = next(test for test in tests if test["n_gen"])
    return {"prefill_tokens_per_s": median(prefill["samples_ts"]), "decode_tokens_per_s": median(decode["samples_ts"])}


def in_process(path: Path, prompts: Sequence[Sequence[int]]) -> dict:
    """What llama-cpp-python does with ``prompts`` here, with the server's attention; the first once more before, as a warm-up."""
    model = gguf_runs.llama(path, flash_attn=llama_cpp.attention() == "on")
    found = [_answer(model, ids) for ids in (list(reversed(prompts[0])), *prompts)][1:]
    return {name: median(one[name] for one in found) for name in found[0]}


def _answer(model, ids: Sequence[int]) -> dict:
    """One greedy answer, by llama.cpp's counters, and the time until its first token was there."""
    import llama_cpp as library

    model.reset()
    library.llama_perf_context_reset(model.ctx)
    started = time.perf_counter()
    answer = model.generate(list(ids), temp=0.0)
    next(answer)
    ttft_s = time.perf_counter() - started
    for _ in range(INPUT_TOKENS - 1):
        next(answer)
    seen = library.llama_perf_context(model.ctx)
    return {
        "prefill_tokens_per_s": seen.n_p_eval / seen.t_p_eval_ms * 1e3,
        "decode_tokens_per_s": seen.n_eval / seen.t_eval_ms * 1e3,
        "ttft_s": ttft_s,
    }


PARTS: dict[str, Callable[[], dict]] = {
    "same_file": measure_same_file, "llama_cpp": measure_llama_cpp, "vllm": measure_vllm,
}  # fmt: skip


def table(part: Mapping) -> pd.DataFrame:
    """A pandas table of the record's ``vllm`` or ``llama_cpp``: a row a choice, tokens/s, TTFT and decode by users, the start."""
    import pandas as pd

    rows = {}
    for name, levels in part["levels"].items():
        rows[name] = {"start, s": f"{part['startup_s'][name]:.0f}"}
        for level in levels:
            users = formatting.users_told(level["users"])
            rows[name] |= {
                f"{users}: tokens/s": formatting.told(level["output_tokens_per_s"], none="none"),
                f"{users}: TTFT, ms": formatting.told(level["ttft_s"], scale=1000, none="none"),
                f"{users}: TPOT, ms": formatting.told(level["tpot_s"], ".1f", scale=1000, none="none"),
            }
    return pd.DataFrame(rows).T


def same_file(part: Mapping) -> pd.DataFrame:
    """A pandas table of the record's ``same_file``: each program's rates, and its ratio to the library's."""
    import pandas as pd

    rows = {
        TITLES[way]: {
            "prefill, tokens/s": _figure(runs, "prefill_tokens_per_s"),
            "/ library": _ratio(part, way, "prefill_tokens_per_s"),
            "decode, tokens/s": _figure(runs, "decode_tokens_per_s"),
            "/ library ": _ratio(part, way, "decode_tokens_per_s"),
            "decode that a client sees": _figure(runs, "client_decode_tokens_per_s"),
            "TTFT, ms": _figure(runs, "ttft_s", 1000),
        }
        for way, runs in part["runs"].items()
    }
    return pd.DataFrame(rows).T


def _figure(runs: Sequence[Mapping], name: str, scale: float = 1) -> str:
    found = timing.figure(run.get(name) for run in runs)
    return formatting.told(found and vars(found), scale=scale)


def ratio(part: Mapping, way: str, name: str) -> stats.Difference | None:
    """How many times the library's rate ``name`` the program ``way`` has, turn by turn."""
    of = [[run[name] for run in part["runs"][one]] for one in (way, "library")]
    return stats.difference(*of, names=(TITLES[way], TITLES["library"]))


def _ratio(part: Mapping, way: str, name: str) -> str:
    if way == "library":
        return "1.00"
    found = ratio(part, way, name)
    return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})" if found.low else f"{found.ratio:.2f}"


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    parser = argparse.ArgumentParser(prog="python -m helpers.studies.choices", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)  # how this module asks llama-cpp's kernel
    options = parser.parse_args()
    if options.library:
        print(json.dumps(in_process(options.library, json.load(sys.stdin))))
        return 0
    if unknown := [part for part in options.parts if part not in PARTS]:
        sys.exit(f"there is no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")

    def program() -> None:
        found = record(options.parts or list(PARTS))
        for part in PARTS:
            if part in found:
                print((same_file if part == "same_file" else table)(found[part]).to_string(), flush=True)

    errors = (
        ChoicesError, serving.ServerError, EndpointError, ModelError, records.RecordError, kernels.AskError,
        kernels.MissingKernel, httpx.HTTPError,
    )  # fmt: skip
    return cli.finish(program, *errors, stopped="the parts that were measured are kept")


if __name__ == "__main__":
    sys.exit(main())
