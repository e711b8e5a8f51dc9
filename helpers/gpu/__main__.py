"""The command: ``python -m helpers.gpu RUN ...|notebooks|finish NAME|kernelspecs FOLDER|tables``; ``--help`` names the runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers import cli, kernels, machine, records
from helpers.gpu import cases, device, kernelspecs, runs
from helpers.gpu.recorded import read, tables
from helpers.gpu.session import Setting
from helpers.weights.files import ModelError


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.gpu", description=__doc__.splitlines()[0])
    add = parser.add_argument
    named = f"{', '.join(cases.RUNS)}; all ({', '.join(read.RUNS)})"
    add("what", nargs="+", help=f"{named}; notebooks; finish NAME; kernelspecs FOLDER; tables")
    add("--engines", default="", help="only these, with commas (machine: the roof and the client itself)")
    add("--shape", default="Llama-2-7B", help="tiny, or a Llama of helpers/weights/shapes.toml (default Llama-2-7B)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help="cpu only rehearses")
    add("--numbers", default="", help="of the notebooks: only these, with commas")
    add("--gpus", default="", help="only these, with commas, as CUDA_VISIBLE_DEVICES names them (default: all)")
    add("--lives", default="", help="only these, with semicolons, in this order: `vllm, offline, as it comes, Llama-3.1-8B, TP2`")
    add("--users", default="1,10,100")
    add("--repeats", type=int, default=3)
    add("--budget-s", type=float, default=1e9, help="end cleanly within so many seconds")
    add("--out", type=Path, help="a folder that gets a copy of the record after every figure")
    return parser.parse_args(argv)


def _setting(options: argparse.Namespace) -> Setting:
    where = options.device
    if where == "auto":
        where = "cuda"  # the runs are for a GPU; without one they say so
    users = tuple(int(n) for n in options.users.split(","))
    if not users or min(users) < 1 or options.repeats < 1:
        raise ValueError(f"--users {options.users} --repeats {options.repeats}: give numbers of at least 1")
    return Setting(options.shape, where, users, options.repeats, _gpus(options, where))


def _gpus(options: argparse.Namespace, where: str) -> tuple[str, ...]:
    """The GPUs to use: those named, else those that the environment leaves, else all; a rehearsal has one unless told."""
    named = options.gpus or (os.environ.get(machine.VISIBLE, "") if where == "cuda" else "0")
    if named:
        return tuple(one.strip() for one in named.split(","))
    return tuple(machine.gpus("index")) or ("0",)


def _measure(options: argparse.Namespace) -> int:
    setting = _setting(options)
    only = [engine for engine in options.engines.split(",") if engine]
    lives = [key.strip() for key in options.lives.split(";") if key.strip()]
    wanted = list(read.RUNS) if options.what == ["all"] else options.what
    for name in wanted:
        runs.chosen(name, only)  # names are checked before anything starts
    runs.check_lives(wanted, lives)
    runs.check(setting, wanted)
    return runs.all_of(wanted, setting, only=only, lives=lives, budget_s=options.budget_s, out=options.out)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 (the reason is printed), 75 (run again for the rest), 130/143 (stopped)."""
    options = _arguments(argv)
    errors = (device.DeviceError, ModelError, records.RecordError, kernels.MissingKernel, ValueError)
    return cli.finish(lambda: _do(options), *errors, stopped="what was measured is kept")


def _do(options: argparse.Namespace) -> int | None:
    """What was asked for; ``None`` or an exit code."""
    match options.what:
        case ["finish", name]:
            print(f"saved: {runs.finish(name).name}")
        case ["kernelspecs", folder]:
            print(", ".join(kernelspecs.write(Path(folder))))
        case ["notebooks"]:
            from helpers.gpu import notebooks  # needs nbformat, which the runs do not

            return notebooks.run(options.budget_s, options.out, [number for number in options.numbers.split(",") if number])
        case ["tables"]:
            print(tables.text())
        case _:
            return _measure(options)
    return None


if __name__ == "__main__":
    sys.exit(main())
