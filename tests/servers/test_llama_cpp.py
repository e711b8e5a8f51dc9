"""llama.cpp's server: its own program where there is one, else the wheel's; what is asked of the program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from helpers import kernels, machine
from helpers.servers import engines, install, llama_cpp, serving

SYSTEM_INFO = "import json, llama_cpp; print(json.dumps(llama_cpp.llama_print_system_info().decode()))"
REQUEST = engines.Start("python", "model.gguf", 8080, slots=4, context=512, name="m", kv_bytes_per_token=1)


@pytest.fixture
def mock_program(tmp_path, monkeypatch):
    """A folder with a `llama-server` of this test, which says what the real one says of itself."""
    program = tmp_path / "llama-server"
    program.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "--version) echo 'version: 1234 (abc)' >&2;;\n"
        "--help) echo '--spec-type none,draft-simple,ngram-simple   how to draft (default: none)';;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv(llama_cpp.BINARIES, str(tmp_path))
    return tmp_path


def _options(command: list[str]) -> dict[str, str]:
    return dict(zip(command, command[1:]))


def test_the_wheel_is_taken_where_there_is_no_program(monkeypatch):
    """In llama-cpp's own interpreter, with the same slots, context and threads."""
    monkeypatch.setattr(llama_cpp, "binaries", lambda: None)
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    command = llama_cpp.command(REQUEST)

    assert command[:3] == ["python", "-m", "helpers.servers.xllamacpp_server"]
    assert [_options(command)[name] for name in ("--slots", "--context", "--threads", "--gpu-layers")] == ["4", "512", "3", "0"]


def test_the_program_is_told_the_same(mock_program, monkeypatch):
    """All slots' context in one number, on loopback, and so much log that the KV cache's size is in it."""
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    command = llama_cpp.command(REQUEST)
    options = _options(command)

    assert command[0] == f"{mock_program}/llama-server" and options["--host"] == "127.0.0.1"
    assert [options[name] for name in ("--parallel", "--ctx-size", "--threads", "--n-gpu-layers")] == ["4", "2048", "3", "999"]
    assert options["--verbosity"] == llama_cpp.KV_CACHE_VERBOSITY


@pytest.mark.parametrize(
    ("gpu", "cpu_flags", "said"),
    [(False, ["amx_int8", "avx512f"], "off"), (False, ["avx512f"], "on"), (True, ["amx_int8"], "on")],
)
def test_flash_attention_is_off_only_where_amx_computes(gpu, cpu_flags, said, mock_program, monkeypatch):
    """Elsewhere it is the program's own choice, which is on: the option is not given."""
    monkeypatch.setattr(machine, "has_gpu", lambda: gpu)
    monkeypatch.setattr(machine, "cpu_flags", lambda: cpu_flags)

    assert llama_cpp.attention() == said
    assert _options(llama_cpp.command(REQUEST)).get("--flash-attn", "on") == said


def test_every_option_of_ours_has_the_programs_name():
    """Drafts and the template for tools go to both."""
    assert engines.get("llama-cpp").tool_flags[0] == "--chat-template-file"


@pytest.mark.engine
def test_the_program_is_asked_for_its_version_and_its_kinds_of_drafts(mock_program):
    """A record names the program then, and no package."""
    assert llama_cpp.version() == "1234 (abc)"
    assert llama_cpp.draft_kinds() == ["draft-simple", "ngram-simple"]
    assert install.versions(engines.get("llama-cpp")) == {"llama.cpp": "1234 (abc)"}


@pytest.mark.engine
def test_the_wheel_knows_its_kinds_of_drafts():
    """Asked in llama-cpp's kernel, where it is installed."""
    code = "import json; from helpers.servers import llama_cpp; llama_cpp.binaries = lambda: None; "
    code += "print(json.dumps(llama_cpp.draft_kinds()))"
    asked = subprocess.run([kernels.interpreter("llama-cpp"), "-c", code], capture_output=True, text=True, check=True)

    assert "ngram-simple" in json.loads(asked.stdout) and "none" not in json.loads(asked.stdout)


WHEEL = "system_info: n_threads = 2 | CPU : SSE3 = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | OPENMP = 1 | REPACK = 1 | "


@pytest.mark.parametrize(
    ("said", "cpu_flags", "left"),
    [
        (WHEEL, ["avx2", "f16c", "fma"], []),
        (WHEEL, ["avx2", "avx512f", "avx512_vnni", "f16c", "fma", "sse4_1"], ["AVX512", "AVX512_VNNI"]),
        (WHEEL.replace("AVX2 = 1", "AVX2 = 0"), ["avx2"], ["AVX2"]),
        ("listening", ["avx2"], None),
    ],
)
def test_what_a_build_leaves_unused_is_named(said, cpu_flags, left):
    """Of what the processor has and llama.cpp has code for; a log that does not say is no build without faults."""
    assert llama_cpp.unused(said, cpu_flags) == left


@pytest.mark.parametrize(
    ("folder", "cpu_flags", "said"),
    [
        (None, ["avx2", "avx512f"], "the ready-made wheel, leaves AVX512 unused"),
        ("bin", ["avx2"], "compiled for this processor, uses all its instruction sets that llama.cpp has code for"),
    ],
)
def test_a_build_is_told_with_what_it_leaves_unused(folder, cpu_flags, said, monkeypatch):
    """Beside every figure of it."""
    monkeypatch.setattr(llama_cpp, "binaries", lambda: folder)

    assert llama_cpp.build(WHEEL, cpu_flags) == said


@pytest.mark.engine
@pytest.mark.parametrize(
    ("folder", "cpu_flags", "runs"),
    [(None, ["sse4_1"], False), (None, ["avx2", "sse4_1"], True), (None, ["asimd"], True), ("bin", ["sse4_1"], True)],
)
def test_the_wheel_is_not_started_where_its_code_cannot_run(folder, cpu_flags, runs, monkeypatch):
    """It would die of an illegal instruction; what is compiled here fits the processor, and an ARM has a wheel of its own."""
    monkeypatch.setattr(llama_cpp, "binaries", lambda: folder)
    monkeypatch.setattr(machine, "cpu_flags", lambda: cpu_flags)
    monkeypatch.delenv("FRAMEWORKS", raising=False)
    reason = engines.at_hand()[1].get("llama-cpp")

    assert (reason is None) is runs
    assert runs or reason.startswith("the ready-made wheel needs a processor with AVX2: install a compiler")


@pytest.mark.engine
def test_the_programs_that_a_reader_calls_are_compiled_with_the_library():
    """Notebook 04 runs each of them but the batched bench, which the GPU's measurements call."""
    names = {"llama-server", "llama-bench", "llama-batched-bench", "llama-cli", "llama-quantize"}

    assert names <= {program.name for program in Path(llama_cpp.compiled_binaries()).iterdir()}


@pytest.mark.engine
def test_the_server_is_compiled_for_this_machine_as_the_library_is():
    """One source, one compilation: both say the same, and leave nothing unused."""
    library = kernels.ask_code("llama-cpp", SYSTEM_INFO)
    with serving.serve("llama-cpp", slots=1, context=64) as server:
        said = server.log.read_text()

    assert llama_cpp.instructions(said) == llama_cpp.instructions(library)
    assert llama_cpp.unused(said, machine.facts()["cpu_flags"]) == []


def test_programs_that_do_not_know_their_commit_have_a_file_that_says_it(monkeypatch, tmp_path):
    """Only beside named programs; without the file nothing is said."""
    (tmp_path / "llama-server").touch()
    monkeypatch.setenv(llama_cpp.BINARIES, str(tmp_path))
    assert llama_cpp.compiled_from() is None
    (tmp_path / "COMPILED_FROM").write_text("llama-cpp-python 0.3.36, llama.cpp 0c1e57098\n")
    assert llama_cpp.compiled_from() == "llama-cpp-python 0.3.36, llama.cpp 0c1e57098"
    monkeypatch.delenv(llama_cpp.BINARIES)
    assert llama_cpp.compiled_from() is None
