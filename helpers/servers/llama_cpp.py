"""llama.cpp's server: its own program, compiled here with the library or named by :data:`BINARIES`, else a wheel's.

``llama-server`` is compiled for this machine, from the source and with the flags of the library that
llama-cpp-python loads. Where there was no compiler the wheel ``xllamacpp`` serves, built for every
processor with AVX2: :func:`unused` says what it leaves unused. Both take the same options for drafts
and chat templates.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from jupyter_client.kernelspec import NoSuchKernel

from helpers import frameworks, kernels, machine
from helpers.servers import constraints, flags
from helpers.servers.engine import Drafting, Engine, Start
from helpers.weights import sizes

BINARIES = "LLAMA_CPP_BIN"  # in llama-cpp's kernelspec or the environment: where llama-server and llama-batched-bench are
INSTRUCTIONS = {  # by llama.cpp's names and the processor's, as /proc/cpuinfo has them
    "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX_VNNI": "avx_vnni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni", "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8",
}  # fmt: skip
STEP_TOKENS, CELLS = 512, 256  # its defaults: tokens of one step (--ubatch-size), and what a window's cells are a multiple of
KV_CACHE_VERBOSITY = "4"  # at 3, its default, the log does not say how large the KV cache is

# It ignores tools where the model's chat template has no place for them, as the default model's.
TOOLS_TEMPLATE = Path(__file__).with_name("tools_template.jinja")


def named_binaries() -> str | None:
    """The folder with llama.cpp's own programs that the kernelspec names, else the environment; ``None`` without one."""
    try:
        return kernels.environment("llama-cpp").get(BINARIES) or os.environ.get(BINARIES)
    except NoSuchKernel:
        return os.environ.get(BINARIES)


def compiled_binaries() -> str | None:
    """The folder of llama-cpp-python's libraries, if its programs were compiled with them."""
    try:
        environment = Path(kernels.interpreter("llama-cpp")).parent.parent
    except kernels.MissingKernel:
        return None
    found = environment.glob("lib/python*/site-packages/llama_cpp/lib/llama-server")
    return next((str(program.parent) for program in found), None)


def binaries() -> str | None:
    """The folder with llama.cpp's own programs; ``None`` where the wheel serves."""
    return named_binaries() or compiled_binaries()


def command(start: Start) -> list[str]:
    """What starts the server, on every core: its default is half of them."""
    if folder := binaries():
        more = {
            "threads": machine.cores(), "gpu_layers": _gpu_layers(), "report_slots": True,
            "verbosity": KV_CACHE_VERBOSITY,
        }  # fmt: skip
        if attention() == "off":
            more |= {"attention": "off"}
        return [*program(folder, start), *flags.options("llama-cpp", **more)]
    return wheel(start)


def unfit() -> str | None:
    """Why llama.cpp cannot serve here: the wheel's code needs AVX2 on an x86 processor; what is compiled here fits any."""
    if binaries():
        return None
    said = machine.cpu_flags()
    if "avx2" in said or not any(flag.startswith(("sse", "ssse")) for flag in said):
        return None
    return "the ready-made wheel needs a processor with AVX2: install a compiler and run `nox -s tour -- llama-cpp` again"


def attention() -> str:
    """``on`` or ``off``: flash attention, as it was measured to be faster; on is the program's own choice.

    Off with AMX, where it gave a fifth to a third more tokens; on AMD without AMX on gave more, as the record `choices` has it.
    """
    return "off" if not machine.has_gpu() and "amx_int8" in machine.cpu_flags() else "on"


def _gpu_layers() -> str:
    """All of any model, or none where there is no GPU."""
    return "999" if machine.has_gpu() else "0"


def wheel(start: Start) -> list[str]:
    """What starts the server of the wheel, on every core."""
    return [
        start.python, "-m", "helpers.servers.xllamacpp_server", "--model", str(start.weights), "--port", str(start.port),
        "--slots", str(start.slots), "--context", str(start.context), "--threads", str(machine.cores()),
        "--gpu-layers", _gpu_layers(),
    ]  # fmt: skip


def program(folder: str, start: Start) -> list[str]:
    """The program in ``folder`` and what it is told of ``start``, on loopback."""
    return [
        f"{folder}/llama-server",
        *flags.options(
            "llama-cpp", weights=start.weights, name=start.name, host="127.0.0.1", port=start.port, slots=start.slots,
            pool_tokens=start.slots * start.context, metrics=True,
            prompt_cache_mib=0,  # else it copies the KV cache of prompts that are done to the machine's memory
        ),
    ]  # fmt: skip


def as_kept(cache: sizes.Cache, context: int) -> sizes.Cache:
    """``cache`` as the server lays it out for slots of ``context`` tokens: a window has room for one step more.

    ``llama_kv_cache_iswa`` in its ``src/llama-kv-cache-iswa.cpp``: min(context, window + step), whole multiples of 256.
    """
    if not cache.windowed:
        return cache
    return replace(cache, window=-(-min(context, cache.window + STEP_TOKENS) // CELLS) * CELLS)


def fields(output_tokens: int) -> dict:
    """Request fields for an answer of exactly ``output_tokens``, its prefix cache off."""
    return {"ignore_eos": True, "cache_prompt": False}


def drafting(how: Drafting) -> list[str]:
    """Options that make the server draft."""
    if how.model:
        return flags.options("llama-cpp", drafting="draft-simple", draft_model=how.model, draft_tokens=how.tokens)
    return flags.options("llama-cpp", drafting="ngram-simple", ngram=how.ngram, ngram_draft_tokens=how.tokens)


def version() -> str | None:
    """What the program says of itself."""
    said = _said("--version")
    found = re.search(r"version: (.+)", said)
    return found and found.group(1).strip()


def compiled_from() -> str | None:
    """What the named programs were compiled from, as the file ``COMPILED_FROM`` beside them says: not all of them know."""
    folder = named_binaries()
    file = Path(folder) / "COMPILED_FROM" if folder else None
    return file.read_text().strip() if file and file.exists() else None


def draft_kinds() -> list[str]:
    """How its server can draft, by the names of ``--spec-type``; in llama-cpp's kernel where there is no program."""
    if binaries():
        names = re.search(r"--spec-type (\S+)", _said("--help"))[1].split(",")
    else:
        import xllamacpp

        members = xllamacpp.common_speculative_type.__members__
        names = [name.removeprefix("COMMON_SPECULATIVE_TYPE_").lower().replace("_", "-") for name in members]
    return [name for name in names if name not in ("none", "count")]


def instructions(said: str) -> set[str] | None:
    """The instruction sets that a llama.cpp was compiled for, as it says in its log or in ``system_info``; ``None``: unsaid."""
    line = next((line for line in said.splitlines() if "CPU :" in line), None)
    return line and {name for name, on in re.findall(r"(\w+) = (\d)", line.partition("CPU :")[2]) if on == "1"}


def unused(said: str, cpu_flags: Iterable[str]) -> list[str] | None:
    """The instruction sets of a processor with ``cpu_flags`` that the build leaves unused, of those that llama.cpp has code for.

    ``None`` where the build does not say.
    """
    compiled_for = instructions(said)
    if compiled_for is None:
        return None
    return [name for name, flag in INSTRUCTIONS.items() if flag in set(cpu_flags) and name not in compiled_for]


def build(said: str, cpu_flags: Iterable[str]) -> str:
    """What to know of the build that wrote ``said``, its log: whose it is, and what of the processor it leaves unused."""
    whose = "compiled for this processor" if binaries() else "the ready-made wheel"
    left = unused(said, cpu_flags)
    if left is None:
        return f"{whose}, which does not say what it was built for"
    names = ", ".join(left)
    return f"{whose}, " + (f"leaves {names} unused" if left else "uses all its instruction sets that llama.cpp has code for")


def _said(option: str) -> str:
    command, env = [f"{binaries()}/llama-server", option], kernels.process_environment("llama-cpp")
    ran = subprocess.run(command, capture_output=True, text=True, env=env)
    return ran.stderr + ran.stdout


_COMMON = {
    "packages": ("xllamacpp",), "command": command, "fields": fields, "cache_fields": {"cache_prompt": True},
    "drafting": drafting, "constraints": constraints.LLAMA_CPP, "unfit": unfit,
    "tool_flags": tuple(flags.options("llama-cpp", template=TOOLS_TEMPLATE)),
}  # fmt: skip
# What it repacks for the processor and is fastest with, what the model is shipped as, and the values the others load.
ROWS = tuple(Engine(**vars(frameworks.get(name)), **_COMMON) for name in ("llama-cpp-q4_0", "llama-cpp", "llama-cpp-bf16"))
