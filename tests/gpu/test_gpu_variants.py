"""The arguments of each engine: one table for its API and its server, one thing changed by each option."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from helpers import paths
from helpers.gpu import cases, kernelspecs, session, tasks, variants
from helpers.servers import engines, flags, llama_cpp

GPU = variants.Setup(gpu=True, context=288)
REQUEST = engines.Start("python", Path("folder"), 8000, 100, 288, "name", 0)


def test_keyword_arguments_become_options():
    """True is a switch, false is left out or negated, a table is JSON."""
    given = {"enforce_eager": True, "enable_prefix_caching": False, "max_num_seqs": 128, "compilation_config": {"mode": 0}}
    assert flags.words(given, negated=True) == [
        "--enforce-eager", "--no-enable-prefix-caching", "--max-num-seqs", "128", "--compilation-config", '{"mode": 0}',
    ]  # fmt: skip
    assert flags.words({"disable_radix_cache": False}, negated=False) == []


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_option_changes_what_it_names_and_nothing_else(engine):
    """Every other argument is that of the engine as it comes."""
    plain = variants.arguments(engine, cases.PLAIN, GPU)
    for option, changed in variants.OPTIONS[engine].items():
        assert variants.arguments(engine, option, GPU) == plain | dict(changed)
        same = option in (cases.PLAIN, cases.SHORT)  # the second is given another context, and no other argument
        assert same or dict(changed).items() - plain.items() if engine == "sglang" else True


@pytest.mark.parametrize(("engine", "off"), [("vllm", "--no-enable-prefix-caching"), ("sglang", "--disable-radix-cache")])
def test_the_server_is_started_with_the_same_arguments(engine, off):
    """The prefix cache is off as it comes, and on where the option says so; random weights, loopback only."""
    commands = [variants.server(engine, option, GPU).command(REQUEST) for option in (cases.PLAIN, "prefix cache")]
    assert [off in command for command in commands] == [True, False]
    assert all(command[command.index("--load-format") + 1] == "dummy" for command in commands)
    assert all(command[command.index("--host") + 1] == "127.0.0.1" for command in commands)


def test_a_real_model_is_loaded_and_not_made_up():
    """Without ``random`` no engine is told to invent its weights."""
    real = variants.Setup(gpu=True, context=2048, random=False)
    assert not any("load_format" in variants.arguments(engine, cases.PLAIN, real) for engine in ("vllm", "sglang"))


def test_llama_cpp_runs_its_own_programs_where_they_are(monkeypatch):
    """The folder in its kernelspec or the environment decides between the binary and the wheel's server."""
    monkeypatch.setattr(llama_cpp.kernels, "environment", lambda kernel: {})
    monkeypatch.delenv(llama_cpp.BINARIES, raising=False)
    monkeypatch.setattr(llama_cpp, "compiled_binaries", lambda: None)  # those are for this processor
    assert variants.server("llama-cpp", "q4_0", GPU).command(REQUEST)[:3] == ["python", "-m", "helpers.servers.xllamacpp_server"]
    monkeypatch.setenv(llama_cpp.BINARIES, "/there")
    command = variants.server("llama-cpp", "q4_0", GPU).command(REQUEST)
    assert command[0] == "/there/llama-server" and command[command.index("--ctx-size") + 1] == "28800"
    on_gpu = variants.server("llama-cpp", "q4_0, sampled on the GPU", GPU).command(REQUEST)
    assert on_gpu == [*command, "--backend-sampling"]


@pytest.mark.parametrize(
    ("engine", "option", "line"),
    [
        ("vlm", "", "no engine is called 'vlm': choose from vllm, sglang, llama-cpp, transformers, tensorrt-llm"),
        ("sglang", "fp4", "sglang has no option 'fp4': choose from as it comes, fp8 weights, fp8 weights and KV, no graphs, prefix cache, fp8 weights, prefix cache, short context, whole prompts, chunks of 1024, chunks of 1024, mixed, NIXL, offload, 1 adapter, 8 adapters, 32 adapters"),  # noqa: E501
    ],
)  # fmt: skip
def test_an_unknown_engine_or_option_names_those_there_are(engine, option, line):
    """One line, before anything starts."""
    with pytest.raises(variants.UnknownOption) as refused:
        variants.check(engine, option)
    assert str(refused.value) == line


def test_every_life_of_every_run_can_be_started():
    """Its engine and option exist, its key is its own, and its need of time is told."""
    for make in cases.RUNS.values():
        lives = make()
        assert len({one.key for one in lives}) == len(lives)
        for one in lives:
            assert one.work in tasks.WORKS
            if one.engine != "machine" and one.work not in ("real", "in turns"):  # whose options are no engine's
                variants.check(one.engine, one.option)
            assert one.least_s > 0


def test_a_run_measures_what_matters_most_first():
    """Offline and server of both serving engines come before anything else."""
    first = [(one.engine, one.work) for one in cases.speed()[:4]]
    assert first == [("vllm", "offline"), ("vllm", "server"), ("sglang", "offline"), ("sglang", "server")]


def test_kernelspecs_of_prepared_folders_keep_engines_apart(tmp_path, monkeypatch):
    """Each engine runs its own interpreter, which finds the collection behind its packages; only what is there gets a kernel."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path / "repository")
    packages = tmp_path / "vllm-env/lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    router = str(packages).replace("vllm-env", "deploy-env")
    prepared = ("vllm-env/bin/python3", "vllm-extras/site/triton_cache", "llama/llama-server", "deploy-env/bin/python3")
    for there in ("lab/site", *prepared, packages, router):
        (tmp_path / there).mkdir(parents=True)
    assert kernelspecs.write(tmp_path) == ["lab", "deploy", "vllm", "llama-cpp", "tensorrt-llm"]
    assert kernelspecs.interpreter("deploy", tmp_path) == str(tmp_path / "deploy-env/bin/python3")
    assert kernelspecs.interpreter("vllm", tmp_path) == str(tmp_path / "vllm-env/bin/python3")
    assert (packages / kernelspecs.THIS_COLLECTION).read_text() == f"{tmp_path / 'repository'}\n"
    vllm, llama = (kernelspecs.environment(kernel, tmp_path) for kernel in ("vllm", "llama-cpp"))
    assert "PYTHONPATH" not in vllm and vllm["TRITON_CACHE_DIR"] == str(tmp_path / "vllm-extras/site/triton_cache")
    assert llama[llama_cpp.BINARIES] == str(tmp_path / "llama") and llama["LD_PRELOAD"] == "libstdc++.so.6"
    assert llama["PYTHONPATH"].split(":") == [str(tmp_path / "lab/site"), str(tmp_path / "repository")]


def test_an_engines_process_finds_the_collection():
    """Its environment is its kernelspec's, with the repository last in its path."""
    env = session.environment("lab")
    assert env["PYTHONPATH"].split(":")[-1] == str(paths.REPOSITORY)
