"""Kernelspecs, and ``%%in``: a cell that runs in another framework's kernel."""

import json
import signal
import sys
import threading

import psutil
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client import KernelManager
from leftovers import command, wait_until

from helpers import kernels, paths
from helpers.kernels import MissingKernel, RemoteCellError
from helpers.servers import install


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository without kernels; Jupyter's other folders are out of sight."""
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    return tmp_path


@pytest.fixture
def shell(monkeypatch):
    """An IPython shell with the extension loaded; its kernels are ended afterwards."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "helpers.kernels")
    yield shell
    kernels.stop()
    InteractiveShell.clear_instance()


def test_a_kernelspec_names_its_interpreter_and_is_quiet(repository):
    """The interpreter in the metadata, telemetry off, and no PYTEST_CURRENT_TEST in the kernel."""
    spec = json.loads(install.kernelspec("vllm", "vLLM", sys.executable).read_text())

    assert spec["metadata"]["interpreter"] == kernels.interpreter("vllm") == sys.executable
    assert spec["argv"][5:8] == ["-u", "PYTEST_CURRENT_TEST", sys.executable]
    assert spec["env"]["HF_HUB_DISABLE_TELEMETRY"] == spec["env"]["DO_NOT_TRACK"] == spec["env"]["HF_HUB_OFFLINE"] == "1"
    assert spec["display_name"] == "vLLM"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups on Windows")
def test_what_a_killed_kernel_had_started_ends_with_it(repository):
    """As an engine loaded in a notebook; an interrupt before, which the group of processes gets as well, changes nothing."""
    install.kernelspec("lab", "Lab", sys.executable)
    manager = KernelManager(kernel_name="lab", kernel_spec_manager=kernels.specs())
    manager.start_kernel()
    client, printed = manager.blocking_client(), []
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        stays = "['sh', '-c', 'trap \"\" INT; exec sleep 600']"  # an interrupt alone does not end it
        start = f"import os, subprocess; print(subprocess.Popen({stays}).pid, os.getpid())"
        client.execute_interactive(start, timeout=60, output_hook=lambda one: printed.append(one["content"].get("text", "")))
        child, kernel = (psutil.Process(int(pid)) for pid in "".join(printed).split())
        manager.interrupt_kernel()
        kernel.kill()
        assert wait_until(lambda: not manager.is_alive() and not command(child))  # asking it also buries the kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_module_is_asked_with_the_kernels_own_variables(repository):
    """What lies in a folder that only the kernelspec names is found."""
    (repository / "asked.py").write_text("print('\"here\"')")
    install.kernelspec("vllm", "vLLM", sys.executable, env={"PYTHONPATH": str(repository)})

    assert kernels.ask("vllm", "asked") == "here"


def test_a_kernel_that_is_not_installed(repository):
    """One line with the command that installs it."""
    with pytest.raises(MissingKernel, match=r"^the kernel 'sglang' is not installed: run `nox -s tour -- sglang`$"):
        kernels.interpreter("sglang")
    assert not kernels.installed("sglang")


def test_a_kernel_whose_interpreter_has_gone(repository):
    """An environment that was deleted is told from one that never was."""
    install.kernelspec("vllm", "vLLM", "/no/such/python")

    with pytest.raises(MissingKernel, match=r"names no interpreter that is there \(/no/such/python\): run `nox -s"):
        kernels.interpreter("vllm")


def test_kernels_share_no_history(shell, capsys):
    """Two that write to one database can find it locked, and say so in a cell's output."""
    shell.run_cell_magic("in", "lab", "print(get_ipython().history_manager.enabled)")
    assert capsys.readouterr().out == "False\n"


@pytest.mark.engine
def test_a_cell_runs_in_the_other_kernel_and_its_output_appears_here(shell, capsys):
    """Another process; both streams arrive."""
    shell.run_cell_magic("in", "llama-cpp", "import os, sys\nprint('there', os.getpid())\nprint('trouble', file=sys.stderr)")
    seen = capsys.readouterr()

    assert seen.out.startswith("there ") and int(seen.out.split()[1]) != psutil.Process().pid
    assert seen.err == "trouble\n"


@pytest.mark.engine
def test_a_value_comes_back(shell):
    """What JSON can carry, under its name."""
    shell.run_cell_magic("in", "llama-cpp -o found", "found = {'tokens': [1, 2], 'ok': True}")

    assert shell.user_ns["found"] == {"tokens": [1, 2], "ok": True}


@pytest.mark.engine
def test_the_kernel_lives_on_between_cells_and_ends_when_told(shell):
    """State is kept; after ``stop`` its process is gone."""
    shell.run_cell_magic("in", "llama-cpp", "import os\nx = 41")
    shell.run_cell_magic("in", "llama-cpp -o both", "both = [x + 1, os.getpid()]")
    answer, pid = shell.user_ns["both"]
    kernels.stop("llama-cpp")

    assert (answer, psutil.pid_exists(pid)) == (42, False)


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also where pytest was started in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_after_an_interrupted_cell_the_next_one_runs(shell, interruptible):
    """And the interrupted one has ended in its kernel."""
    alarm = threading.Timer(1, signal.raise_signal, [signal.SIGINT])
    shell.run_cell_magic("in", "lab", "import time")  # the kernel is up
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        code = "ended = False\ntry:\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    ended = True\n    raise"
        shell.run_cell_magic("in", "lab", code)
    for _ in range(3):
        shell.run_cell_magic("in", "lab -o ended", "1")

    assert shell.user_ns["ended"] is True


def test_a_display_is_updated_in_place(shell, monkeypatch):
    """Under its own id, as a progress bar does; and a cleared output is cleared here."""
    shown = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, *_, **more: shown.append((data, more)))
    monkeypatch.setattr(shell.display_pub, "clear_output", lambda wait: shown.append(wait))
    code = (
        "from IPython.display import clear_output, display\nbar = display(1, display_id='bar')\nbar.update(2)\nclear_output(True)"
    )
    shell.run_cell_magic("in", "lab", code)

    (first, how), (second, again), cleared = shown
    assert (first["text/plain"], second["text/plain"], cleared) == ("1", "2", True)
    assert how["transient"] == again["transient"] == {"display_id": "bar"}
    assert (how.get("update", False), again["update"]) == (False, True)


@pytest.mark.engine
def test_an_error_there_is_an_error_here(shell, capsys):
    """The traceback is shown and the cell fails, so that a test run fails."""
    with pytest.raises(RemoteCellError, match="^ZeroDivisionError: division by zero$"):
        shell.run_cell_magic("in", "llama-cpp", "1 / 0")

    assert "division by zero" in capsys.readouterr().err


@pytest.mark.engine
def test_a_kernel_that_dies_is_said_and_started_again(shell):
    """The next cell gets a new kernel."""
    with pytest.raises(RemoteCellError, match="^the kernel 'llama-cpp' ended while it ran the cell: run its cells again$"):
        shell.run_cell_magic("in", "llama-cpp", "import os\nos._exit(1)")
    shell.run_cell_magic("in", "llama-cpp -o fine", "fine = True")

    assert shell.user_ns["fine"]


@pytest.mark.parametrize("line", ["", "llama-cpp more", "llama-cpp -o"])
def test_a_wrong_line_is_a_usage_error(shell, line):
    """No kernel is started for it."""
    with pytest.raises(UsageError, match="^%%in"):
        shell.run_cell_magic("in", line, "1")

    assert kernels._running == {}


def test_an_unknown_framework_names_the_command(shell):
    """Before anything starts."""
    with pytest.raises(MissingKernel, match="the kernel 'nothing' is not installed"):
        shell.run_cell_magic("in", "nothing", "1")
