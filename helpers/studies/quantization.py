"""Every GGUF type of the model on the whole text, as a record: ``python -m helpers.studies.quantization``.

Contents, loading, decode speed in turns, greedy answers, perplexity, KL divergence and top-1
agreement, beside the roof of this machine. Each part is kept as soon as it is measured, and a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import cli, formatting, kernels, records
from helpers.bench import checks, timing
from helpers.lessons.memory import bandwidth
from helpers.lessons.quantization import gguf_runs, gguf_types, perplexity
from helpers.servers import engines, install
from helpers.weights import bounds, models, sizes
from helpers.weights.files import ModelError, sha256

if TYPE_CHECKING:
    import pandas as pd

NAME = "quantization"
REFERENCE = "bf16"
AT_ONCE = 3  # types scored in one process: what is kept then costs a few minutes at most
ALIKE = ("machine", "versions", "weights", "text_sha256")


def record(names: list[str]) -> dict:
    """Measure ``names``, types of the unquantized weights, and save the record; returns it."""
    for name in names:
        gguf_types.check(name)
    source = gguf_types.unquantized()
    paths = {REFERENCE: source} | {name: gguf_types.made(name, source) for name in names}
    found = _draft(_provenance(source))
    for start in range(0, len(names), AT_ONCE):
        _score(found, paths, names[start : start + AT_ONCE])
    found["contents"] = {name: asdict(gguf_types.contents(path)) for name, path in paths.items()}
    found["loads"] = {name: asdict(each) for name, each in gguf_runs.load(paths).items()}
    decoded = gguf_runs.decode(paths, repeats=7)
    found["decode_tokens_per_s"] = {name: _spread(each.tokens_per_s) for name, each in decoded.items()}
    agreed = checks.agreement({name: each.answers for name, each in decoded.items()}, REFERENCE)
    found["greedy"] = {
        name: {"mean_share": each.mean_share, "whole": each.whole, "prompts": len(each.shares)} for name, each in agreed.items()
    }
    found["roof"] = bandwidth.roof().to_dict()
    found["kv_bytes_per_token"] = sizes.kv_bytes_per_token(models.shape())
    records.save(NAME, found)
    return found


def _score(found: dict, paths: Mapping[str, Path], names: list[str]) -> None:
    """Score those of ``names`` that an earlier run did not, and keep what is there."""
    missing = [name for name in names if name not in found["quality"]]
    if not missing:
        return
    started = time.monotonic()
    scored = perplexity.measure({name: paths[name] for name in (REFERENCE, *missing)}, REFERENCE)
    found["quality"] |= {name: asdict(each) for name, each in scored.items()}
    records.keep(NAME, found)
    print(f"{', '.join(missing)}: scored in {time.monotonic() - started:.0f} s", flush=True)


def _provenance(source: Path) -> dict:
    text = perplexity.text()
    return records.provenance(
        model=models.resolve().name,
        weights={"source_sha256": sha256(source)},
        versions={"llama-cpp": _versions()},
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        text_characters=len(text),
        context=perplexity.CONTEXT,
    )


def _versions() -> dict[str, str]:
    return install.versions(replace(engines.get("llama-cpp"), packages=("llama-cpp-python",)))


def _draft(source: dict) -> dict:
    """What an earlier run kept, if it was made alike; else an empty record."""
    kept = records.resume(NAME, source, partial(records.difference, keys=ALIKE))
    return {**(kept or {"quality": {}}), "provenance": source}


def _spread(values) -> dict:
    figure = timing.figure(values)
    return {"median": figure.median, "low": figure.low, "high": figure.high}


def table(found: Mapping) -> pd.DataFrame:
    """The record as a pandas table, a row per type, the most bits first."""
    import pandas as pd

    roof = bounds.Roof(**found["roof"])
    rows = {name: _row(found, name, roof) for name in found["contents"]}
    order = sorted(rows, key=lambda name: -found["contents"][name]["tensors_bytes"])
    return pd.DataFrame([rows[name] for name in order], index=pd.Index(order, name="type"))


def _row(found: Mapping, name: str, roof: bounds.Roof) -> dict:
    inside, quality, speed = found["contents"][name], found["quality"][name], found["decode_tokens_per_s"][name]
    work = bounds.Work(inside["tensors_bytes"], found["kv_bytes_per_token"], inside["values"])
    reading = bounds.decode_bound(work, replace(roof, flops_per_s=math.inf))  # the arithmetic is not float32's
    share = bounds.share(speed["median"], reading)

    def pair(value: str, scale: float = 1, digits: int = 3) -> str:
        if quality[value] is None:
            return ""
        return f"{quality[value] * scale:.{digits}f} ± {quality[value + '_se'] * scale:.{digits}f}"

    return {
        "MB": round(inside["file_bytes"] / 1e6, 1),
        "bits per weight": round(8 * inside["tensors_bytes"] / inside["values"], 2),
        "load, s": round(found["loads"][name]["load_s"], 2),
        "tokens/s": formatting.told(speed),
        "share of the bandwidth": bounds.share_text(share, reading),
        "perplexity": pair("perplexity", digits=2),
        "ratio to bf16": pair("ratio"),
        "KL, nats": pair("kl"),
        "same top token, %": pair("top1", 100, 1),
        "greedy, %": f"{100 * found['greedy'][name]['mean_share']:.0f}" if name in found["greedy"] else "",
    }


def main() -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 130/143 (stopped)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default=",".join(gguf_types.COMMON), help="GGUF types, with commas")
    options = parser.parse_args()
    errors = (
        gguf_types.UnknownType, ModelError, kernels.MissingKernel, perplexity.PerplexityError, gguf_runs.LlamaCppError,
        records.RecordError, bandwidth.RooflineError,
    )  # fmt: skip

    def program() -> None:
        record(options.types.split(","))

    return cli.finish(program, *errors, stopped="what was scored is kept")


if __name__ == "__main__":
    sys.exit(main())
