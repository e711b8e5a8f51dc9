"""The commands: `nox -s tour`, `check`, `lab`, `exercises`, `test`, `outputs`, `record`, `peers`, `gpu`, `site`, `wheelhouse`.

Every environment lies in `.venvs/NAME` and is made once; its stamp is a hash of what it was
made from. The sessions run in the lab environment and start each framework in its own.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from itertools import takewhile
from pathlib import Path

import nox
from packaging.requirements import Requirement  # nox needs it too

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
from helpers import machine  # noqa: E402 - these need nothing but Python
from helpers.collection import preflight, wheelhouse  # noqa: E402
from helpers.weights import named  # noqa: E402

VENVS = ROOT / ".venvs"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own, documented for CPU builds
PROBE_S = 5
UV, PIP = "0.13.8", "26.3"  # the installer, and what a kernel's %pip and the download of the model run
(BUILD_BACKEND,) = re.findall(r'^requires = \["(.*)"\]', (ROOT / "pyproject.toml").read_text(), re.M)  # of helpers, editable
PIP_WHEEL = [sys.executable, "-m", "pip", "wheel", "--no-input", "--progress-bar=off", "--wheel-dir"]
LIKE_PIP = {  # pip's settings, which uv does not read, as uv's environment variables
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
CMAKE_ARGS = f"-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama_cpp_INCLUDE={shlex.quote(str(ROOT / 'requirements/llama-cpp.cmake'))}"

nox.options.sessions = ["tour"]
nox.needs_version = ">=2025.5.1"


@dataclass(frozen=True)
class Environment:
    """One environment: what it is for, and what it costs on two cores and a fast network."""

    title: str
    requirements: str  # a file NAME.txt; what stands in NAME.no-deps.txt is installed after it, alone
    gb: float
    minutes: float
    note: str = ""
    heavy: bool = False  # the tour shows its first comparison without it
    bare: bool = False  # without helpers and what it requires
    python: tuple[int, int] = (3, 11)  # the oldest that it takes
    compiled: str = ""  # the package in it that is compiled here, as `recipe` says
    recipe: tuple[str, ...] = ()  # files in requirements/

    @property
    def files(self) -> list[Path]:
        """The requirement files, in the order of installation."""
        both = (
            ROOT / "requirements" / self.requirements,
            ROOT / "requirements" / self.requirements.replace(".txt", ".no-deps.txt"),
        )
        return [file for file in both if file.exists()]


GPU = shutil.which("nvidia-smi") is not None


def _for_device(name: str) -> str:
    """The requirement file of framework ``name`` for this machine."""
    return f"{name}-{'cuda' if GPU else 'cpu'}.txt"


ENVIRONMENTS = {
    "lab": Environment("Lab", "lab.txt", 0.5, 1),
    "transformers": Environment("HF Transformers", _for_device("transformers"), 1.5, 1),
    "llama-cpp": Environment(
        "llama.cpp", "llama-cpp-cpu.txt", 0.4, 6, "llama-cpp-python is compiled, and llama.cpp's server with it",
        compiled="llama-cpp-python", recipe=("llama-cpp.cmake", "llama-programs.cmake", "gcc_tile_config.h"),
    ),
    "vllm": Environment("vLLM", _for_device("vllm"), 2.5, 1, heavy=True),
    "sglang": Environment("SGLang", _for_device("sglang"), 2.0, 1, heavy=True),
}  # fmt: skip
FRAMEWORKS = [name for name in ENVIRONMENTS if name != "lab"]
TOOLS = {"deploy": Environment("Deployment", "deploy.txt", 1.2, 1)}  # kernels that hold no framework: LiteLLM and Ray
ENVIRONMENTS |= TOOLS
RECORDS = {  # what `nox -s record` runs, and its minutes on two cores
    "throughput": ("helpers.studies.throughput", 75),
    "choices": ("helpers.studies.choices", 10),
    "race": ("helpers.studies.race", 2),
    "steps": ("helpers.studies.steps", 1),
    "quantization": ("helpers.studies.quantization", 6),
    "conformance": ("helpers.studies.conformance", 10),
}
IN_DOCS = ("conformance",)  # records with a table there
IN_DECISION = ("throughput", "conformance")  # records that order the frameworks there
PEERS = {  # load clients that ours is compared with, made by `nox -s peers` only
    "guidellm": Environment("guidellm", "guidellm.txt", 1.5, 1, bare=True),
    "aiperf": Environment("AIPerf", "aiperf.txt", 1.2, 1, bare=True),
    "vllm-rs": Environment("vllm-rs", "vllm-rs.txt", 1.0, 1, bare=True),
    "inference-perf": Environment("inference-perf", "inference-perf.txt", 0.6, 1, bare=True, python=(3, 12)),
}
ENVIRONMENTS |= PEERS
REPLAY = {"REPLAY": "1", "JUPYTER_PATH": str(ROOT / ".jupyter" / "replay")}  # of processes that start no engine
BOOK = {"site": Environment("Site", "site.txt", 0.2, 0.5, bare=True)}  # Sphinx, made by `nox -s site` and `test`
ENVIRONMENTS |= BOOK


@nox.session(venv_backend="none")
def tour(session: nox.Session) -> None:
    """Set up, run every notebook this machine can run, and print the comparison; `--from FOLDER`: without a network.

    `--replay`: only the lab is set up, and what needs an engine is shown as it was recorded; numbers select notebooks.
    """
    words, replayed = _replay(session.posargs)
    if replayed:
        _replayed(session, words)
        return
    asked = _offline(session, words)
    frameworks = _known(session, asked)
    light = [name for name in frameworks if not ENVIRONMENTS[name].heavy]
    if light and not all(_is_made(name) for name in frameworks if name not in light):
        if there := _prepare(session, *light):
            _lab(session, "-m", "helpers.collection.run", "comparison", *there, goes_on=True)  # these two run once more below
    there = [name for name in _prepare(session, *frameworks, *_tools(asked)) if name in frameworks]
    if not there:
        session.error("no framework is there to run: see above why")
    _lab(session, "-m", "helpers.collection.run", "tour", *there, FRAMEWORKS_NOT_MADE=json.dumps(_left_out))


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Look at this machine before anything large is installed, forecast the minutes; names and `--from FOLDER` as for tour."""
    if (of_python := preflight.python()).state == preflight.BROKEN:  # the rest needs a newer one itself
        session.error(str(of_python))
    names = _offline(session, session.posargs)
    frameworks = _known(session, names)
    asked = _parts([*frameworks, *_tools(names)])
    known = "everything comes from the folder" if _house else "" if asked else "nothing is to be installed"
    answers, mb_per_s = preflight.index(_pin("platformdirs"), _pin("numpy"), known)
    parts = asked if answers.state == preflight.BROKEN else _with_torch(session, asked)
    to_make, heavy = list(parts.values()), any(ENVIRONMENTS[name].heavy for name in frameworks)
    findings = [*preflight.look(to_make, ROOT, heavy), answers]
    print(*findings, sep="\n")
    print("", *preflight.forecast(to_make, mb_per_s), sep="\n")
    said, broken = preflight.verdict(findings)
    session.error(said) if broken else session.log(said)


@nox.session(venv_backend="none")
def lab(session: nox.Session) -> None:
    """Open JupyterLab with every kernel, or with those named; then JupyterLab's own options; `--from FOLDER` as for the tour.

    `--replay`: only the lab is set up, and cells that need an engine show what was recorded.
    """
    words, replayed = _replay(session.posargs)
    frameworks, options = _named(_offline(session, words))
    if given := next((word for word in options if word.partition("=")[0] in ("--ip", "--ServerApp.ip")), None):
        session.error(f"{given}: JupyterLab listens on 127.0.0.1 only; leave it out")
    if replayed and frameworks:
        session.error(f"a replay starts no engine: leave {' '.join(frameworks)} out, or --replay")
    variables = {"JUPYTER_CONFIG_PATH": str(lab_settings())}
    if replayed:
        _prepare(session, model=False)
        _lab(session, "-m", "helpers.collection.replay")
        variables |= REPLAY
    else:
        _prepare(session, *_known(session, frameworks), *([] if frameworks else TOOLS))
    _lab(session, *jupyterlab(options), **variables)


def _replay(words: Sequence[str]) -> tuple[list[str], bool]:
    """``words`` without `--replay`, and whether it was there."""
    return [word for word in words if word != "--replay"], "--replay" in words


def _replayed(session: nox.Session, words: Sequence[str]) -> None:
    """The tour without any engine, through all notebooks or those whose numbers are in ``words``; only the lab is set up."""
    words, folder = _option(session, words, "--from")
    numbers, options = _named(words)
    if wrong := [word for word in numbers if not word[:2].isdecimal()] + options:
        session.error(f"{wrong[0]}: a replay starts no engine; name notebooks by their numbers, as in --replay 07 14")
    _offline(session, ["--from", folder] if folder else [])
    _prepare(session, model=False)
    _lab(session, "-m", "helpers.collection.run", "replay", *numbers)


@nox.session(venv_backend="none", name="wheelhouse")
def collect(session: nox.Session) -> None:
    """Collect what a set-up without a network installs, of all frameworks or of those named; `--to FOLDER`: not ./wheelhouse."""
    names, to = _option(session, session.posargs, "--to")
    folder = Path(to or ROOT / "wheelhouse").expanduser()
    environments = ["lab", *_known(session, names), *_tools(names)]
    try:
        wheels = wheelhouse.begin(folder, _pins_of(environments))
    except wheelhouse.WheelhouseError as error:
        session.error(str(error))
    for name in environments:
        _collect(session, name, wheels)
    tools = [f"uv=={UV}", f"pip=={PIP}", BUILD_BACKEND, named.WHEEL]
    _watched(
        session,
        [[*PIP_WHEEL, str(wheels), "--no-deps", *tools]],
        Step("Model and tools", "collected", 60, VENVS / "wheelhouse-tools.log"),
    )
    compiled = any(ENVIRONMENTS[name].compiled for name in environments)
    made = wheelhouse.write(folder, wheelhouse.Manifest.here(_pins_of(environments), compiled))
    size_gb = sum(file["bytes"] for file in made.files.values()) / 1e9
    session.log(f"{folder}: {len(made.files)} files, {size_gb:.1f} GB; set up from it with `nox -s tour -- --from {folder}`")


def _collect(session: nox.Session, name: str, wheels: Path) -> None:
    """Put the wheels of the environment ``name`` into ``wheels``, as `nox -s tour` would install them; compile what has none."""
    plan = ENVIRONMENTS[name]
    first, *alone = plan.files
    index, _ = _torch(session, name)
    make = [*PIP_WHEEL, str(wheels), "--find-links", str(wheels), *index]
    make += ["--no-cache-dir"] if plan.compiled else []  # pip's cache knows no recipe
    commands = [[*make, "-r", str(first)], *([*make, "--no-deps", "-r", str(file)] for file in alone)]
    env = {"CMAKE_ARGS": CMAKE_ARGS, "CMAKE_BUILD_PARALLEL_LEVEL": str(machine.cores()), **os.environ}
    _watched(session, commands, Step(plan.title, "collected", plan.minutes * 60, VENVS / f"wheelhouse-{name}.log"), env)


_house: Path | None = None  # the folder from which everything is set up, where one was named


def _offline(session: nox.Session, words: Sequence[str]) -> list[str]:
    """``words`` without `--from FOLDER`; after it nothing is asked of a network. Ends here if the folder will not do."""
    global _house
    words, folder = _option(session, words, "--from")
    if folder is None:
        return words
    names, options = _named(words)
    try:
        house = Path(folder).expanduser()
        there = wheelhouse.read(house).pins
        if not names and not set(FRAMEWORKS) <= there.keys():
            names = [name for name in FRAMEWORKS if name in there]
        session.log(f"{house}: every file is looked at")
        wheelhouse.check(house, _pins_of(["lab", *_known(session, names), *_tools(names)]))
    except wheelhouse.WheelhouseError as error:
        session.error(str(error))
    _house = house
    wheelhouse.only(house, os.environ)
    return [*names, *options]


def _option(session: nox.Session, words: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """``words`` without ``option`` and its value, and that value; ends here where the value is missing."""
    words = list(words)
    if option not in words:
        return words, None
    at = words.index(option)
    if not words[at + 1 : at + 2] or words[at + 1].startswith("-"):
        session.error(f"{option} names no folder: write {option} FOLDER")
    return words[:at] + words[at + 2 :], words[at + 1]


def jupyterlab(options: Sequence[str] = ()) -> list[str]:
    """What the lab's Python is given to open JupyterLab on loopback; as root it asks to be allowed."""
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return ["-m", "jupyterlab", "--ip=127.0.0.1", "--notebook-dir=notebooks", *root, *options]


def lab_settings() -> Path:
    """A folder with settings of JupyterLab, written anew: no extension that asks for news and looks for updates.

    The options ``news_url`` and ``check_for_updates_class`` change where it asks; the question comes up all the same.
    """
    folder = ROOT / ".jupyter" / "settings"
    (folder / "labconfig").mkdir(parents=True, exist_ok=True)
    off = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folder / "labconfig" / "page_config.json").write_text(json.dumps(off))
    return folder


@nox.session(venv_backend="none")
def test(session: nox.Session) -> None:
    """Set up and run every test, the notebooks under nbval included; `-- --quick`: what needs no engine."""
    asked = [word for word in session.posargs if word != "--quick"]
    quick = asked != session.posargs
    _prepare(session, *([] if quick else [*FRAMEWORKS, *TOOLS]), model=not quick)
    if not quick:
        _environment(session, "site")
    _lab(session, "-m", "ruff", "check", ".")
    _lab(session, "-m", "ruff", "format", "--check", ".")
    if quick:
        lanes = _lanes(3)  # half of the time these tests wait, for a browser, a process, a scripted server
        _lab(session, "-m", "pytest", "tests", "-m", "not engine and not whole", *lanes, *asked, QUICK="1")
    else:
        _lab(session, "-m", "pytest", "--nbval-lax", *_lanes(), *asked)


@nox.session(venv_backend="none")
def exercises(session: nox.Session) -> None:
    """Run a learner's own notebooks (`-- 07`) and say of each exercise whether it is solved."""
    if not session.posargs:
        session.error("whose exercises? `nox -s exercises -- 07` runs notebook 07 and checks its answers")
    _prepare(session)  # with the frameworks that are there
    _lab(session, "-m", "helpers.collection.exercises", *session.posargs)


@nox.session(venv_backend="none")
def outputs(session: nox.Session) -> None:
    """Execute the notebooks again and rewrite their committed outputs (names select some)."""
    _prepare(session, *FRAMEWORKS, *TOOLS)
    _lab(session, "-m", "helpers.collection.run", "outputs", *session.posargs)


@nox.session(venv_backend="none")
def record(session: nox.Session) -> None:
    """Make the long measurements that the notebooks show as records, and the figures from them; names select some."""
    unknown = [name for name in session.posargs if name not in RECORDS]
    if unknown:
        session.error(f"no record is called {', '.join(unknown)}: choose from {', '.join(RECORDS)}")
    _prepare(session, *FRAMEWORKS)
    for name in session.posargs or RECORDS:
        session.log(f"{name}: about {RECORDS[name][1]} minutes")
        _lab(session, "-m", RECORDS[name][0])
        if name in IN_DOCS:
            _lab(session, "-m", "helpers.collection.docs", name)
        if name in IN_DECISION:
            _lab(session, "-m", "helpers.collection.decision")


@nox.session(venv_backend="none")
def peers(session: nox.Session) -> None:
    """Compare the usual load clients and ours with a server that knows what it did; needs vLLM's and SGLang's environments."""
    _prepare(session, "vllm", "sglang")
    for name in PEERS:
        _environment(session, name)
    session.log("three rounds of eight clients at 1, 100 and 1,000 streams: about 35 minutes")
    _lab(session, "-m", "helpers.studies.peers", *session.posargs)
    if "--json" not in session.posargs:
        _lab(session, "-m", "helpers.collection.docs", "peers")


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Measure the source document's tables on an NVIDIA GPU; `--from FOLDER`: with engines prepared there."""
    asked = list(session.posargs)
    if not GPU:
        session.error("no NVIDIA GPU here (there is no nvidia-smi): run it on a machine with one")
    if "--from" in asked:
        at = asked.index("--from")
        _lab(session, "-m", "helpers.gpu", "kernelspecs", *asked[at + 1 : at + 2])
        asked = asked[:at] + asked[at + 2 :]
    else:
        _prepare(session, *FRAMEWORKS)
    names, options = _named(asked)
    for name in names or ["all", "notebooks"]:
        _lab(session, "-m", "helpers.gpu", name, *options)


@nox.session(venv_backend="none")
def site(session: nox.Session) -> None:
    """Build the site from the committed outputs into `site/`; `-- --unfinished`: with notebooks that have not run, too."""
    for name in ("lab", *BOOK):
        _environment(session, name)
    _lab(session, "-m", "helpers.collection.site", str(_python("site")), *session.posargs)


def _known(session: nox.Session, names: Sequence[str]) -> list[str]:
    """``names``, or all frameworks; ends here for one that is none."""
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown:
        session.error(f"no framework is called {', '.join(unknown)}: choose from {', '.join(FRAMEWORKS)}")
    return list(names) or FRAMEWORKS


def _named(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names at the beginning of ``words``, and the options that follow, with their values."""
    names = list(takewhile(lambda word: not word.startswith("-"), words))
    return names, list(words[len(names) :])


def _lanes(number: int = 2) -> list[str]:
    """pytest-xdist's options: lanes with their share of the cores each, a file at a time; one where a GPU would be shared.

    In the order of collection, the long ones first: one begun last would leave the other lanes idle.
    """
    apart = hasattr(os, "sched_setaffinity") and machine.cores() > 1 and not GPU
    return [f"--numprocesses={number}", "--dist=loadfile", "--no-loadscope-reorder"] if apart else []


def _parts(names: Sequence[str]) -> dict[str, preflight.Part]:
    """What `nox -s tour` would still have to make: the lab and ``names``; torch's size is that of its CPU build."""
    missing = [name for name in ("lab", *names) if not (name == "lab" and _is_lab() or _is_made(name))]
    plans = {name: ENVIRONMENTS[name] for name in missing}
    found = {name: preflight.Part(one.title, one.gb, one.minutes, _is_compiled(one)) for name, one in plans.items()}
    return found | ({"model": preflight.MODEL_FILES} if found else {})


def _with_torch(session: nox.Session, parts: dict[str, preflight.Part]) -> dict[str, preflight.Part]:
    """``parts``, larger by what torch takes where there is no CPU build of it."""
    more = {name: _torch(session, name)[1] for name in parts}
    return {name: replace(part, gb=part.gb + more[name], minutes=part.minutes + more[name] / 3) for name, part in parts.items()}


def _pin(package: str) -> str:
    """The lab's version of ``package``, as pip is asked for it."""
    return f"{package}=={_pins('lab.txt')[package]}"


def _tools(asked: Sequence[str]) -> list[str]:
    """The environments beside the frameworks': with all of them, none where some are ``asked`` for."""
    return [] if asked else list(TOOLS)


def _is_compiled(plan: Environment) -> bool:
    """Whether setting it up compiles something: not where it comes from a wheelhouse."""
    return bool(plan.compiled) and not _house


def _python(name: str) -> Path:
    if name == "lab" and _is_lab():
        return Path(sys.executable)
    return VENVS / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _is_lab() -> bool:
    """Whether the interpreter that runs nox has the lab's pins already (environment.yml)."""
    try:
        return all(metadata.version(name) == pin for name, pin in _pins("lab.txt").items())
    except metadata.PackageNotFoundError:
        return False


def _pins(requirements: str) -> dict[str, str]:
    """The exact versions in a requirement file, by package; ``-c`` and ``-r`` lines are not followed."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements" / requirements).read_text().splitlines())
    asked = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {one.name: pin.version for one in asked for pin in one.specifier if pin.operator == "=="}


def _lab(session: nox.Session, *arguments: str, goes_on: bool = False, **variables: str) -> None:
    """Run the lab's Python, with the repository's kernels in sight, what tests install with, and ``variables``.

    ``goes_on``: an exit code of 1 does not end the session.
    """
    uv = _uv()
    env = {"JUPYTER_PATH": str(ROOT / ".jupyter"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    env |= {"UV": uv, **_uv_settings()} if uv else {}
    codes = (0, 1) if goes_on else (0,)
    session.run(str(_python("lab")), *arguments, external=True, env=env | variables, silent=False, success_codes=codes)


def _prepare(session: nox.Session, *frameworks: str, model: bool = True) -> list[str]:
    """Make the lab and the frameworks' environments, their kernels and, unless told otherwise, the model files.

    Returns the frameworks that are there: one that must be compiled is left out, with its reason, where that cannot be done.
    """
    asked = os.environ.get("MODEL") if model else None
    hub = bool(asked) and _look_at(session, asked) == "hub"
    _environment(session, "lab")
    if asked:
        _lab(session, "-m", "helpers.weights.models", "--check")
    frameworks = [name for name in frameworks if _environment(session, name)]
    lab, kernels = str(_python("lab")), {name: ENVIRONMENTS[name].title for name in ("lab", *frameworks)}
    install = [[lab, "-m", "helpers.servers.install", name, title, str(_python(name))] for name, title in kernels.items()]
    install.append([lab, "-m", "helpers.servers.install", "tensorrt-llm", "TensorRT-LLM", lab])
    made = [[lab, "-m", "helpers.weights.models"]] if model and not asked else []
    converter = next((name for name in ("transformers", "vllm", "sglang") if name in frameworks), None)  # has transformers
    if converter and (not asked or hub):  # a hub is asked once, here
        made.append([str(_python(converter)), "-m", "helpers.weights.convert", "safetensors"])
    if "llama-cpp" in frameworks and not asked:
        made.append([str(_python("llama-cpp")), "-m", "helpers.weights.convert", "gguf-bf16"])
    _watched(session, install, Step("Kernels", "written", 10, VENVS / "kernels.log"))
    if made:
        _watched(session, made, Step("Model files", "ready", 60, VENVS / "model.log"))
    return frameworks


_left_out: dict[str, str] = {}  # what could not be compiled in this run, and why: it is not tried twice


def _look_at(session: nox.Session, asked: str) -> str:
    """The kind of the model that MODEL names; ends here if it names none, before anything is set up."""
    try:
        return named.look(asked)[0]
    except named.ModelError as error:
        session.error(str(error))


def _environment(session: nox.Session, name: str) -> bool:
    """Make `.venvs/NAME`, or leave it as it is if it was made from the same pins; whether it is there."""
    if (name == "lab" and _is_lab()) or _is_made(name):
        return True
    if name in _left_out:
        return False
    plan = ENVIRONMENTS[name]
    if sys.version_info < plan.python:
        _left_out[name] = f"it takes Python {'.'.join(map(str, plan.python))} or newer, and this is {sys.version.split()[0]}"
        session.warn(f"{plan.title} is left out: {_left_out[name]}")
        return False
    if _is_compiled(plan) and not preflight.compiler_command():
        _left_out[name] = f"{plan.compiled} is compiled here, and there is no C++ compiler; {preflight.GET_COMPILER}"
        session.warn(f"{plan.title} is left out: {_left_out[name]}")
        return False
    index, gb = _torch(session, name)
    note = f" ({plan.note})" if plan.note else ""
    part = preflight.Part(plan.title, plan.gb + gb, plan.minutes + gb / 3, _is_compiled(plan))
    (about,) = preflight.setup_minutes([part], machine.slowness(), machine.cores(), None).values()
    session.log(f"installing {plan.title}: {part.gb:.1f} GB, about {about} minutes on this machine as it is now{note}")
    step = Step(plan.title, "installed", about * 60, VENVS / f"{name}.log")
    env = {"CMAKE_ARGS": CMAKE_ARGS, "CMAKE_BUILD_PARALLEL_LEVEL": str(machine.cores()), **os.environ, **_uv_settings()}
    seconds = _watched(session, _installation(session, name, index), step, env, needed=not plan.compiled)
    if seconds is None:
        shutil.rmtree(VENVS / name, ignore_errors=True)  # half of one would pass for the framework
        _left_out[name] = f"{_reason(step.log.read_text(errors='replace'))}; the whole log: {step.log}"
        return False
    (VENVS / name / "installed.json").write_text(json.dumps({"minutes": round(seconds / 60, 1)}))
    (VENVS / name / "made-from").write_text(_made_from(name))
    return True


def _installation(session: nox.Session, name: str, index: Sequence[str]) -> list[list[str]]:
    """The commands that make `.venvs/NAME` from its requirements, with uv or with pip."""
    plan, python, uv = ENVIRONMENTS[name], str(_python(name)), _uv()
    first, *alone = plan.files
    what = ["-r", str(first), *([] if plan.bare else ["-e", "."])]
    if uv:  # compiled, as pip does: else the first start of everything is slow, or each one is
        make = [uv, "venv", "--python", sys.executable, str(VENVS / name)]
        install = [uv, "pip", "install", "--python", python, "--compile-bytecode", *_built_by(plan), *index]
        what.append(f"pip=={PIP}")
    else:
        session.warn(f"uv {UV} is not at hand and could not be fetched: pip installs, which takes longer")
        make = [sys.executable, "-m", "venv", "--upgrade-deps", str(VENVS / name)]
        install = [python, "-m", "pip", "install", "--no-input", *index]
        install += ["--no-cache-dir"] if plan.compiled else []  # pip's cache knows no recipe
    there = _python(name).exists() and not plan.compiled  # what was compiled by another recipe would stay
    if not there:
        shutil.rmtree(VENVS / name, ignore_errors=True)  # or half of one, from a run that was stopped
    return [*([] if there else [make]), [*install, *what], *([*install, "--no-deps", "-r", str(file)] for file in alone)]


@cache
def _uv() -> str | None:
    """The pinned uv: the one at hand, else fetched into .venvs/uv, once; any other at hand, else ``None``."""
    there, own = shutil.which("uv"), VENVS / "uv" / ("Scripts/uv.exe" if os.name == "nt" else "bin/uv")
    if there and _says(there, "--version").split()[1:2] == [UV]:
        return there
    if not _says(str(own), "--version"):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--target", str(own.parent.parent)]
        _says(*pip, "--upgrade", f"uv=={UV}")
    return str(own) if _says(str(own), "--version") else there


def _says(*command: str) -> str:
    """What ``command`` prints; nothing if it fails or does not exist."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return "" if ran.returncode else ran.stdout


@cache
def _uv_settings() -> dict[str, str]:
    """pip's configuration as uv's environment variables, and the best version of all indexes, as pip takes it.

    What the environment sets for uv itself stays.
    """
    if _house:
        return {}
    settings: dict[str, str] = {}
    lines = [line.partition("=") for line in _says(sys.executable, "-m", "pip", "config", "list").splitlines()]
    for section in ("global.", "install.", ":env:."):  # the later one counts, as for pip
        settings |= {key.removeprefix(section): ast.literal_eval(text) for key, _, text in lines if key.startswith(section)}
    env = {LIKE_PIP[name]: " ".join(value.split()) for name, value in settings.items() if name in LIKE_PIP}
    if "UV_FIND_LINKS" in env:
        env["UV_FIND_LINKS"] = env["UV_FIND_LINKS"].replace(" ", ",")  # the one list that uv splits at commas
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **{k: v for k, v in env.items() if k not in os.environ}}


def _is_made(name: str) -> bool:
    """Whether `.venvs/NAME` was made from today's pins by this Python."""
    stamp = VENVS / name / "made-from"
    return stamp.exists() and stamp.read_text() == _made_from(name)


def _made_from(name: str) -> str:
    """A hash of all that decides what is in the environment."""
    return hashlib.sha256(b"".join([sys.version.encode(), *_sources(name)])).hexdigest()


def _pins_of(names: Sequence[str]) -> dict[str, str]:
    """For each environment a hash of all that decides what is in it, whichever Python it is made with."""
    return {name: hashlib.sha256(b"".join(_sources(name))).hexdigest() for name in names}


def _sources(name: str) -> list[bytes]:
    """The files that an environment is made from: what is pinned, and how its own package is compiled."""
    files = ENVIRONMENTS[name].files
    constraints = [
        ROOT / "requirements" / line.split()[1] for line in files[0].read_text().splitlines() if line.startswith("-c ")
    ]
    return [*(file.read_bytes() for file in (ROOT / "pyproject.toml", *files, *constraints)), _recipe(ENVIRONMENTS[name])]


def _built_by(plan: Environment) -> list[str]:
    """uv's option that names the recipe: uv keeps what it has built, and knows it by its settings only."""
    recipe = hashlib.sha256(_recipe(plan)).hexdigest()[:12]
    return ["--config-settings-package", f"{plan.compiled}:cmake.define.RECIPE={recipe}"] if plan.compiled else []


def _recipe(plan: Environment) -> bytes:
    """What decides how the environment's own package is compiled."""
    return b"".join((ROOT / "requirements" / name).read_bytes() for name in plan.recipe)


@dataclass(frozen=True)
class Step:
    """Work with a line of its own on the terminal: "TITLE: DONE in 1.2 minutes"; its output goes to ``log``."""

    title: str
    done: str
    about_s: float
    log: Path


def _watched(
    session: nox.Session, commands: list[list[str]], step: Step, env: dict[str, str] | None = None, needed: bool = True
) -> float | None:
    """Run ``commands`` with their output in the log, a bar on the terminal, and the reason on failure; returns seconds.

    What is not ``needed`` and fails is left out: that returns ``None``.
    """
    started = time.monotonic()
    step.log.parent.mkdir(exist_ok=True)
    with step.log.open("w") as output:
        for command in commands:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=env)
            try:
                while process.poll() is None:
                    time.sleep(0.1)
                    _bar(step, time.monotonic() - started)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                _bar(step, None)
            if process.returncode:
                reason = _reason(step.log.read_text(errors="replace"))
                failed = f"{step.title} could not be {step.done}: {reason}; the whole log: {step.log}"
                if needed:
                    session.error(failed)
                session.warn(f"{failed}; it is left out, and the rest goes on")
                return None
    seconds = time.monotonic() - started
    session.log(f"{step.title}: {step.done} in {seconds / 60:.1f} minutes")
    return seconds


def _reason(log: str) -> str:
    """The error in a log: pip's first line of it, uv's with its first cause, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    at = next((at for at, line in enumerate(lines) if line.startswith(("ERROR", "error:"))), None)
    if at is None:
        return (lines or ["it wrote nothing"])[-1]
    cause = next((f": {line.removeprefix('cause: ')}" for line in lines[at + 1 : at + 2] if line.startswith("cause: ")), "")
    return (lines[at].removeprefix("error: ") + cause).rstrip(".")


def _bar(step: Step, elapsed_s: float | None) -> None:
    """Draw the bar over itself on a terminal; ``None`` takes it away."""
    if not sys.stderr.isatty():
        return
    text = ""
    if elapsed_s is not None:
        done = min(int(30 * elapsed_s / step.about_s), 29)
        text = f"{step.title} [{'#' * done}{'.' * (30 - done)}] {elapsed_s:4.0f} s of about {step.about_s:.0f}"
    sys.stderr.write(f"\r{text}\x1b[K")
    sys.stderr.flush()


def _torch(session: nox.Session, name: str) -> tuple[list[str], float]:
    """As :func:`_torch_index`, for the environment ``name``; nothing where it has no torch, or one for a GPU."""
    version = None if GPU or _house or name not in ENVIRONMENTS else _pins(ENVIRONMENTS[name].requirements).get("torch")
    return _torch_index(session, version) if version else ([], 0)


def _torch_index(session: nox.Session, version: str) -> tuple[list[str], float]:
    """Where the CPU build of torch ``version`` comes from: pip's options, and the GB more if there is none.

    On Linux PyPI's own build carries CUDA. pip's configuration is asked first, then PyTorch's CPU
    index is probed once, briefly; the answers are remembered with the environments.
    """
    if sys.platform != "linux":
        return [], 0
    file = VENVS / "torch-index.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    if version not in known:
        file.parent.mkdir(exist_ok=True)
        known[version] = _find_torch(version)
        file.write_text(json.dumps(known))
    index, gb = known[version]
    if gb:
        session.warn(f"no CPU build of torch {version} in pip's configuration or at PyTorch's index: taking PyPI's, with CUDA")
    return index, gb


def _find_torch(version: str) -> tuple[list[str], float]:
    if _has_cpu_build(version):
        return [], 0
    try:
        urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=PROBE_S).close()
        return ["--extra-index-url", TORCH_CPU_INDEX], 0
    except OSError:
        return [], 5.0


def _has_cpu_build(version: str) -> bool:
    """Whether pip's configuration leads to torch's CPU build; uv finds out without downloading it."""
    named = f"torch=={version}+cpu"
    if uv := _uv():
        ask, env = [uv, "pip", "compile", "--quiet", "--no-deps", "-"], {**os.environ, **_uv_settings()}
        return subprocess.run(ask, input=named, text=True, capture_output=True, env=env).returncode == 0
    ask = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(VENVS / "torch"), named]
    seen = subprocess.run(ask, capture_output=True)
    shutil.rmtree(VENVS / "torch", ignore_errors=True)
    return seen.returncode == 0
