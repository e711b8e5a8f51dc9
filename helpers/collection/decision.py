"""What the decision knows of the records, the claims and the calculator, and the page and the picture made of it.

    python -m helpers.collection.decision

writes ``helpers/lessons/decision/facts.json``, ``vis/decision.html`` and ``vis/decision.svg``. A test holds each against
what would be written now, so none can grow old unseen. No figure is typed: each is read from the newest record.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

from helpers import cli, frameworks, paths, records
from helpers.collection import claims
from helpers.gpu.cases import PLAIN, SHORT
from helpers.gpu.recorded import read, scaled, today
from helpers.lessons.decision import choose, commands, drawing
from helpers.lessons.scaling import parallelism
from helpers.studies import conformance, throughput
from helpers.weights import sizes

VIS = paths.REPOSITORY / "vis"
TYPES = ("bfloat16", "fp8", "int8", "q8_0", "q4_0")
BITS = {PLAIN: 16, SHORT: 16, "f16": 16, "fp8 weights": 8, "q8_0": 8}  # of a weight, by a life's option
APART = 100  # users with whom seconds for an input and for an output token are worked out


def facts() -> dict:
    """Everything that ``choose.toml`` does not say itself."""
    return {
        "evidence": {"cpu": [_on_cpu()], "gpu": _on_gpus()},
        "alone": _alone(),
        "probes": _probes(),
        "models": _models(),
        "blocks": {dtype: list(sizes.blocks()[dtype]) for dtype in TYPES},
        "commands": commands.templates(),
        "claims": {claim.id: _claim(claim) for claim in claims.load()},
    }


def _short(value: float | None) -> float | None:
    """Four digits of it."""
    return None if value is None else float(f"{value:.4g}")


def _row(framework: str, row: str, users: int, rate: Mapping, ttft: Mapping | None, tpot: Mapping | None) -> dict:
    """A level of a record: figures in tokens/s and seconds, four digits of each."""
    told = {key: _short(rate[key]) for key in ("median", "low", "high")}
    seconds = {"ttft_s": _short(ttft and ttft["median"]), "tpot_s": _short(tpot and tpot["median"])}
    return {"framework": framework, "row": row, "users": users, **told, **seconds}


def _on_cpu() -> dict:
    """The newest record of the servers on a CPU."""
    found = records.load(throughput.NAME)
    source, plan = found["provenance"], found["provenance"]["plan"]
    of = {name: levels for name, levels in found["engines"].items() if name != throughput.BATCH}
    rows = [
        _row(
            frameworks.get(name).kernel, f"{frameworks.label(name, False)}, {frameworks.get(name).dtype}", level["users"],
            level["output_tokens_per_s"], level["ttft_s"], level["tpot_s"],
        )
        for name, levels in of.items()
        for level in levels if level["output_tokens_per_s"]
    ]  # fmt: skip
    one_user = {
        frameworks.get(name).kernel: level["output_tokens_per_s"]
        for name, levels in of.items()
        for level in levels
        if frameworks.get(name).dtype == "bf16" and level["users"] == 1 and name not in frameworks.INSTEAD_OF_KERNELS
    }
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in source["machine"]["cpu_flags"]]
    return {
        "machine": ", ".join([source["machine"]["cpu"], f"{source['machine']['cores']} cores", *has]), "gpus": 1,
        "weights": source["model"], **_size(source["model"]), "memory_gib": source["machine"]["memory_gib"],
        "input": plan["input_tokens"], "shape": f"{plan['input_tokens']} tokens in, {plan['output_tokens']} out",
        "date": source["date"][:10], "rows": rows,
        "way": "by the servers", "equal_bits": _equal({16: one_user}), "token_seconds": {},
    }  # fmt: skip


def _on_gpus() -> list[dict]:
    """The records of servers on one data-centre GPU, the newest first."""
    speeds = _on_gpu(read.load("speed"), read.token_seconds(APART))
    now = today.load()
    return sorted([_on_gpu(now, read.token_seconds(APART, now)), speeds], key=lambda one: one["date"], reverse=True)


def _on_gpu(found: Mapping, apart: Mapping[str, tuple[float, float]]) -> dict:
    """A record of the servers on a data-centre GPU; of Transformers, which was not served there, a static batch."""
    lives = [one for one in read.lives(found, "server", "offline") if one["work"] == "server" or _static(one)]
    rows = []
    for one in lives:
        levels = {row["users"]: row for row in one["rows"] if row["kind"] == "level"}
        firsts = read.first_tokens(one)
        for users, rate in read.rates(one).items():
            tpot = levels.get(users, {}).get("tpot_s")
            rows += [_row(one["engine"], read.label(one), users, rate, firsts.get(users), tpot)] if rate else []
    shape = found.get("shape") or found["provenance"]["shape"]
    dates, gpu = sorted(one["date"][:10] for one in lives), found["provenance"]["machine"]["gpus"][0]
    sent, made = _lengths(lives)
    return {
        "machine": f"one {gpu}", "gpus": 1, "memory_gib": _memory(gpu), "input": sent,
        "weights": f"random, shape of {shape}", **_size(shape), "shape": f"{sent} tokens in, {made} out", "date": dates[-1],
        "rows": rows,
        "way": "by their own APIs", "equal_bits": _equal(_by_bits(found)),
        "token_seconds": {name: [_short(second) for second in both] for name, both in apart.items()},
    }  # fmt: skip


def _alone() -> list[dict]:
    """What one framework made of a model, or on several GPUs, with which no other was compared; by its own API."""
    found = scaled.load()
    gpu = found["provenance"]["machine"]["gpus"][0]
    return [
        {
            "framework": one["engine"], "model": one["shape"], "gpus": one["gpus"], "row": f"{read.label(one)}{parts}",
            "machine": f"{one['gpus']} x {gpu}", "date": one["date"][:10], "users": users,
            **{key: _short(rate[key]) for key in ("median", "low", "high")},
        }
        for name, one in found["lives"].items()
        if one["work"] == "offline" and (one["shape"] != scaled.LLAMA or one["gpus"] > 1)
        for parts in [name.partition(one["shape"])[2]]  # ", TP2" of a key
        for users, rate in read.rates(one).items() if rate
    ]  # fmt: skip


def _by_bits(found: Mapping) -> dict[int, dict[str, Mapping]]:
    """What the engines' own APIs made for one user, by bits of a weight and by framework."""
    by_bits: dict[int, dict[str, Mapping]] = {16: {}, 8: {}}
    for one in read.lives(found, "offline"):
        rate = read.rates(one).get(1)
        if rate and one["engine"] != "transformers" and one["option"] in BITS:
            by_bits[BITS[one["option"]]].setdefault(one["engine"], rate)
    return by_bits


def _equal(by_bits: Mapping[int, Mapping[str, Mapping]]) -> list[dict]:
    """Medians of one user by framework, the fastest first, for each number of bits that llama.cpp and another have."""
    return [
        {"bits": bits, "rates": sorted(([name, _short(rate["median"])] for name, rate in of.items()), key=lambda pair: -pair[1])}
        for bits, of in by_bits.items()
        if "llama-cpp" in of and len(of) > 1
    ]


def _memory(gpu: str) -> int:
    """The memory in the name that a maker gives a GPU (an 80 GB H100 has a little less in GiB)."""
    return next(known["memory_gb"] for name, known in parallelism.table()["gpus"].items() if name in gpu)


def _lengths(lives: Sequence[Mapping]) -> tuple[int, int]:
    """Tokens in and out of the levels that were served."""
    of = next(row for one in lives for row in one["rows"] if row["kind"] == "level")
    return of["prompt_tokens"][0], of["output_tokens"][0]


def _static(one: Mapping) -> bool:
    return one["engine"] == "transformers" and one["option"] == PLAIN


def _probes() -> dict[str, dict[str, str]]:
    """By feature the verdict on each framework's server, of the newest record of probes."""
    cells = records.load(conformance.NAME)["cells"]
    features = dict.fromkeys(feature for of in cells.values() for feature in of)
    return {feature: {name: of[feature]["verdict"] for name, of in cells.items() if feature in of} for feature in features}


def _size(weights: str) -> dict:
    """Name, parameters and those at work on a token of the model that a record's ``weights`` name."""
    (name,) = (name for name in parallelism.known() if name in weights)
    known = parallelism.of(name)
    return {"model": name, "parameters": known.sheet.parameters, "active": known.active}


def _models() -> dict[str, dict]:
    """The calculator's models, the smallest first."""
    found = {name: parallelism.of(name) for name in parallelism.known()}
    ordered = sorted(found, key=lambda name: found[name].sheet.parameters)
    return {name: _model(found[name]) for name in ordered}


def _model(one: parallelism.Partitionable) -> dict:
    return choose.of_sheet(one.sheet, one.config["hub"], one.active, one.routed)


def _claim(claim: claims.Claim) -> dict:
    """A claim, its verdict, and the cell that settles it as an address from ``vis/``; else notebook 14, which has its row."""
    number = claim.notebook or "14"
    place = f"../notebooks/{paths.notebook(number).name}"
    cell = f"#cell-id={claims.cell(claim).id}" if claim.notebook else ""
    return {"claim": claim.claim, "verdict": claim.verdict, "to": place + cell}


def made() -> dict:
    """By path the text of each file that this module writes."""
    known = facts()
    data = choose.checked(choose.completed(choose.rules() | {"facts": known}))
    return {
        choose.FACTS: json.dumps(known, indent=1, ensure_ascii=False) + "\n",
        VIS / "decision.html": drawing.page(data),
        VIS / "decision.svg": drawing.picture(data),
    }


def write() -> None:
    """Write all three."""
    for path, text in made().items():
        paths.write(path, text)
        print(path.relative_to(paths.REPOSITORY))


def main() -> int:
    """The command; returns its exit code."""
    argparse.ArgumentParser(prog="python -m helpers.collection.decision", description=__doc__.splitlines()[0]).parse_args()
    return cli.finish(write, ValueError, records.RecordError, stopped="what was written is whole")


if __name__ == "__main__":
    sys.exit(main())
