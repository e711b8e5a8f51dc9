"""The bench without the collection: its wheel in an environment of its own, used from another folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.bench.truth_script import Script
from helpers.bench.truth_server import TruthServer
from helpers.paths import REPOSITORY

SOURCES = ("helpers", "pyproject.toml", "LICENSE")  # what a wheel is built from
ENGINES = ("jupyter_client", "zmq", "IPython", "torch", "transformers", "vllm", "sglang", "llama_cpp", "xllamacpp", "ray")
FAST = ("--input-tokens", "8", "--output-tokens", "4", "--users", "2", "--requests", "4", "--quiet")
UV = os.environ.get("UV") or shutil.which("uv") or next(map(str, REPOSITORY.glob(".venvs/uv/bin/uv")), None)


def ran(command: list, **how) -> subprocess.CompletedProcess:
    """``command``, with a failure that shows what it wrote; its Python finds what is installed and nothing else."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env=env, **how)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def cached(*command) -> None:
    """A command of uv with what its cache holds, so that no network is needed; what is not there is fetched."""
    try:
        ran([UV, *command, "--offline"])
    except AssertionError:
        ran([UV, *command])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a ``build/`` that lies here may hold files that are gone."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name)
    if UV:
        cached("build", "--quiet", "--wheel", "--out-dir", target, source)
    else:
        ran([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source])
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The interpreter of a fresh environment with the wheel and what it declares, in the lab's versions."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    python = folder / "bin" / "python"
    pins = REPOSITORY / "requirements" / "lab.txt"
    if UV:
        ran([UV, "venv", "--quiet", "--python", sys.executable, folder])
        cached("pip", "install", "--quiet", "--python", python, "--constraint", pins, wheel)
    else:
        ran([sys.executable, "-m", "venv", folder])
        ran([python, "-m", "pip", "install", "--quiet", "--constraint", pins, wheel])
    return python


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder that is not the repository."""
    return tmp_path_factory.mktemp("elsewhere")


def modules(python: Path, folder: Path, code: str) -> set[str]:
    """The names of the packages that ``code`` has loaded at its end."""
    said = ran([python, "-c", f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"], cwd=folder)
    return set(said.stdout.splitlines()[-1].split())


def test_every_data_file_is_in_the_wheel(wheel):
    """What lies in helpers/ and is committed lies in the wheel too."""
    listed = ran(["git", "ls-files", "helpers"], cwd=REPOSITORY).stdout.splitlines()

    assert sorted(set(listed) - set(zipfile.ZipFile(wheel).namelist())) == []


def test_the_environment_has_what_is_declared_and_no_more(installed, elsewhere):
    """No library of notebooks and none of an engine comes with the bench, and uvloop is not needed."""
    find = f"import importlib.util as u; print([n for n in {(*ENGINES, 'uvloop', 'httpx', 'gguf')} if u.find_spec(n)])"

    assert ran([installed, "-c", find], cwd=elsewhere).stdout.strip() == "[]"


@pytest.mark.parametrize("code", ["import helpers.bench", "import helpers.bench.__main__", "import helpers.bench.truth_server"])
def test_nothing_of_an_engine_is_loaded(elsewhere, code):
    """In the lab, which has jupyter_client and zmq: they are not loaded, and no room but the bench."""
    rooms = "import sys; print(*{n for n in sys.modules if n.startswith('helpers.')})"
    loaded = ran([sys.executable, "-c", f"{code}\n{rooms}"], cwd=elsewhere).stdout.split()

    assert modules(Path(sys.executable), elsewhere, code) & set(ENGINES) == set()
    ground = {"cli", "formatting", "machine", "paths", "records", "tokenizer"}
    assert {name.split(".")[1] for name in loaded} <= {"bench", *ground}


def test_it_measures_from_another_folder(installed, elsewhere):
    """The truth server's own timing comes back, with the figures in a file there."""
    with TruthServer(Script(first_s=0.05, gap_s=0.01)) as server:
        command = [installed, "-m", "helpers.bench", "--base-url", server.base_url, "--model", "truth", *FAST]
        run = ran([*command, "--no-self-test", "--json", "figures.json"], cwd=elsewhere)
    (level,) = json.loads((elsewhere / "figures.json").read_text())["levels"]

    assert run.stderr == "" and "tokens counted by: server_usage" in run.stdout
    assert level["errors"] == 0
    assert 0.05 <= level["ttft_s"]["median"] < 0.1 and 0.009 < level["tpot_s"]["median"] < 0.03


def test_it_tests_itself_without_uvloop(installed, elsewhere):
    """A missing uvloop is no error: the server of the self-test runs on asyncio's loop. One load of it, and what was served."""
    code = "from helpers.bench import selftest; seen = selftest.load(2, 4, 16); print([one['tokens'] for one in seen.served])"
    run = ran([installed, "-c", code], cwd=elsewhere)

    assert (run.stderr, run.stdout) == ("", "[16, 16, 16, 16]\n")


def test_a_missing_library_is_one_line(installed, elsewhere):
    """A tokenizer in a GGUF, without gguf: the file, the reason, the next step."""
    command = ["-m", "helpers.bench", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--tokenizer", "x.gguf"]
    run = subprocess.run([installed, *command], capture_output=True, text=True, timeout=60, cwd=elsewhere)

    reason = "tokenizer 'x.gguf' cannot be read without the library gguf: install gguf, or give a folder with tokenizer.json"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"{reason}\n")


def without_data(wheel: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    """The lab's Python with the code of ``wheel`` and without one data file of it."""
    with zipfile.ZipFile(wheel) as whole:
        whole.extractall(folder, [name for name in whole.namelist() if name.endswith(".py") and "sgl_stand_in" not in name])
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, cwd=folder, env=env)


def lacking(name: str) -> str:
    """What is said of a data file that is not there: the file, the reason, the next step."""
    return f"installed without its data file {name}: reinstall it whole, with pip install --force-reinstall"


def test_a_command_without_its_data_file_ends_in_one_line(wheel, tmp_path):
    """No traceback."""
    run = without_data(wheel, tmp_path, "-m", "helpers.weights.capacity", "--list")

    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"{lacking('helpers/weights/shapes.toml')}\n")


def test_every_data_file_that_is_missing_is_named(wheel, tmp_path):
    """Whoever reads it, the same line; the stand-in's folder, which is put into PYTHONPATH, is looked at before that."""
    code = """
import importlib
from helpers import paths
for reader in ("collection.document _tables", "collection.quiz load", "lessons.decision.choose rules",
               "lessons.quantization.perplexity text", "lessons.scaling.parallelism table",
               "lessons.structured.schemas _file", "weights.shapes rows"):
    name, call = reader.split()
    try:
        getattr(importlib.import_module("helpers." + name), call)()
    except paths.MissingData as error:
        print(error)
for file in ("lessons/decision/page.html", "servers/sgl_stand_in/sgl_kernel.py"):
    try:
        paths.present(paths.REPOSITORY / "helpers" / file)
    except paths.MissingData as error:
        print(error)
"""
    run = without_data(wheel, tmp_path, "-c", code)
    files = [
        "collection/document.toml", "collection/quiz.toml", "lessons/decision/choose.toml",
        "lessons/quantization/alice.txt",
        "lessons/scaling/parallelism.toml", "lessons/structured/cases.json", "weights/shapes.toml",
        "lessons/decision/page.html", "servers/sgl_stand_in/sgl_kernel.py",
    ]  # fmt: skip

    assert (run.stderr, run.stdout.splitlines()) == ("", [lacking(f"helpers/{file}") for file in files])
