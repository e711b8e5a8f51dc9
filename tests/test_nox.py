"""The commands of nox: what they refuse before they set anything up."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import httpx
import nbformat
import psutil
import pytest
from jupyter_client import BlockingKernelClient
from leftovers import wait_until

from helpers import paths
from helpers.collection import notebooks, replay
from helpers.servers import serving


def nox(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "NO_COLOR": "1", **variables}
    command = [sys.executable, "-m", "nox", "-f", str(paths.REPOSITORY / "noxfile.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("session", ["tour", "lab", "test"])
def test_a_bad_model_is_refused_before_anything_is_set_up(session):
    """One line, and no environment is looked at."""
    ran = nox("-s", session, MODEL="/no/such/model.gguf")

    assert ran.returncode == 1
    assert "/no/such/model.gguf is not there: give the path of a .gguf file" in ran.stderr
    assert "install" not in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["olama"], "no framework is called olama: choose from transformers"),
        (["transformers", "--ip=0.0.0.0"], "--ip=0.0.0.0: JupyterLab listens on 127.0.0.1 only"),
        (["--replay", "--ip=0.0.0.0"], "--ip=0.0.0.0: JupyterLab listens on 127.0.0.1 only"),
        (["vllm", "--replay"], "a replay starts no engine: leave vllm out, or --replay"),
    ],
)
def test_what_the_lab_is_not_opened_with(asked, said):
    """Said before anything is set up."""
    ran = nox("-s", "lab", "--", *asked)

    assert (ran.returncode, said in ran.stderr, "install" in ran.stderr) == (1, True, False), ran.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["tour", "--", "--from", "/no/such/house"],
            "/no/such/house is no folder: give the one that `nox -s wheelhouse` has made",
        ),
        (["tour", "--", "transformers", "--from"], "--from names no folder: write --from FOLDER"),
        (
            ["tour", "--", "--replay", "vllm"],
            "vllm: a replay starts no engine; name notebooks by their numbers, as in",
        ),
        (["tour", "--", "--replay", "07", "--all"], "--all: a replay starts no engine; name notebooks by their numbers"),
        (["wheelhouse", "--", "olama"], "no framework is called olama: choose from transformers"),
        (["wheelhouse", "--", "--to", "/proc/house"], "/proc/house cannot be written to"),
        (["check", "--", "olama"], "no framework is called olama: choose from transformers"),
    ],
)
def test_a_folder_or_a_framework_that_will_not_do(asked, said):
    """Said before anything is fetched or set up."""
    ran = nox("-s", *asked)

    assert (ran.returncode, said in ran.stderr, "installing" in ran.stderr) == (1, True, False), ran.stderr


@pytest.fixture(scope="module")
def noxfile():
    """The noxfile as a module."""
    spec = importlib.util.spec_from_file_location("noxfile", paths.REPOSITORY / "noxfile.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["noxfile"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["noxfile"]


@pytest.mark.parametrize(
    ("words", "names", "options"),
    [([], [], []), (["a", "b"], ["a", "b"], []), (["a", "--port", "1"], ["a"], ["--port", "1"]), (["-y"], [], ["-y"])],
)
def test_names_come_first_and_options_follow(noxfile, words, names, options):
    """An option's value is no name of a framework."""
    assert noxfile._named(words) == (names, options)


def test_the_check_of_a_python_that_is_too_old_ends_with_its_remedy(noxfile, monkeypatch):
    """With mocks of nox and of that Python: nothing else is asked, since it would need a newer one itself."""
    said = []

    class Session:
        posargs = ()

        def error(self, text):
            said.append(text)
            raise SystemExit

    found = noxfile.preflight.python((3, 10, 1))
    monkeypatch.setattr(noxfile.preflight, "python", lambda: found)
    with pytest.raises(SystemExit):
        noxfile.check(Session())

    assert said == ["broken  Python    3.10.1 is too old; run nox with Python 3.11 or 3.12"]


@pytest.mark.parametrize(("user", "asks"), [(0, True), (1000, False)])
def test_root_is_allowed_and_nobody_else_asks(noxfile, monkeypatch, user, asks):
    """With a mock of the user."""
    monkeypatch.setattr(noxfile.os, "geteuid", lambda: user)

    assert ("--allow-root" in noxfile.jupyterlab()) is asks


@pytest.mark.parametrize(
    ("session", "asked", "last", "variables"),
    [
        ("lab", ["--replay", "--no-browser"], "--no-browser", {"REPLAY": "1"}),
        ("tour", ["--replay", "07", "14"], "14", {}),
        ("tour", ["--replay"], "replay", {}),
    ],
)
def test_a_replay_sets_up_the_lab_alone(noxfile, monkeypatch, session, asked, last, variables):
    """With mocks of the set-up and of the lab's Python: no framework and no model is prepared."""
    prepared, ran = [], []
    monkeypatch.setattr(noxfile, "_prepare", lambda session, *names, model=True: prepared.append((names, model)))
    monkeypatch.setattr(noxfile, "_lab", lambda session, *arguments, **given: ran.append((arguments[-1], given)))
    monkeypatch.setattr(noxfile, "lab_settings", lambda: "settings")

    class Session:
        posargs = asked

    getattr(noxfile, session)(Session())

    assert prepared == [((), False)]
    assert ran[-1][0] == last and variables.items() <= ran[-1][1].items()


@contextmanager
def open_lab(noxfile, folder, **variables):
    """JupyterLab as `nox -s lab -- --no-browser --port PORT` starts it, with ``variables``; its address, once it answers."""
    noxfile.ROOT = folder  # its settings are written there
    port, token = serving.free_port(), "secret"
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    settings = {"JUPYTER_CONFIG_PATH": str(noxfile.lab_settings()), "JUPYTER_CONFIG_DIR": str(folder / "mine")}
    env, command = os.environ | settings | variables, [sys.executable, *noxfile.jupyterlab(options)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=paths.REPOSITORY, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/lab?token={token}"
    try:
        assert wait_until(lambda: process.poll() is not None or answers(address), 60), (folder / "log").read_text()
        assert process.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(20)


def answers(address: str) -> bool:
    try:
        return httpx.get(address, trust_env=False, follow_redirects=True).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_lab_of_a_replay_shows_a_notebooks_own_output(noxfile, tmp_path, monkeypatch):
    """Really started: the kernel that JupyterLab gives a notebook starts no engine and finds what it was committed with."""
    monkeypatch.setattr(replay, "FOLDER", tmp_path / "replay")
    variables = {**noxfile.REPLAY, "JUPYTER_PATH": str(replay.kernelspecs())}
    path = paths.notebook("07")
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    (at,) = (at for at, cell in enumerate(code) if cell.source.startswith("here, left_out ="))
    with open_lab(noxfile, tmp_path, **variables) as address:
        asked = {"path": path.name, "type": "notebook", "name": path.name, "kernel": {"name": "lab"}}
        own = httpx.Client(headers={"Authorization": "token secret"}, trust_env=False, timeout=60)
        kernel = own.post(f"{address.partition('/lab')[0]}/api/sessions", json=asked).json()["kernel"]["id"]
        *_, shown = run_in(kernel, [cell.source for cell in code[: at + 1]])

    assert shown[0].startswith("left out: a replay starts no engine") and "; below: recorded on " in shown[0]
    assert shown[1:] == [notebooks.plain(output) for output in code[at].outputs]


def run_in(kernel: str, cells: list[str]) -> list[list[str]]:
    """The text of each output of each cell in the running kernel with this id."""
    (process,) = (one for one in psutil.process_iter() if f"kernel-{kernel}.json" in " ".join(command_line(one)))
    file = next(word for word in process.cmdline() if word.endswith(f"kernel-{kernel}.json"))
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    client.start_channels()
    try:
        client.kernel_info(reply=True, timeout=60)  # wait_for_ready calls a busy kernel dead after a second
        return [outputs_of(client, source) for source in cells]
    finally:
        client.stop_channels()


def outputs_of(client: BlockingKernelClient, source: str) -> list[str]:
    said: list[dict] = []
    client.execute_interactive(source, timeout=60, output_hook=lambda message: said.append(message["content"]))
    return [notebooks.plain(output) for output in said if "text" in output or "data" in output]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_the_lab_opens_and_asks_nothing(noxfile, tmp_path, browser):
    """Really started, as whoever runs this; no question about news, and no address but its own."""
    with open_lab(noxfile, tmp_path) as address:
        page = httpx.get(address, trust_env=False, follow_redirects=True).text
        told = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)[1])
        tab, asked = browser.new_page(), []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        tab.wait_for_selector(".jp-Launcher, .jp-FileBrowser", timeout=60_000)
        tab.wait_for_load_state("networkidle")
        tab.wait_for_timeout(500)  # a question would have come before
        text = tab.inner_text("body")

    assert "notified about official Jupyter news" not in text
    assert "@jupyterlab/apputils-extension:announcements" in told["disabledExtensions"]
    assert [url for url in asked if not re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", url)] == []
