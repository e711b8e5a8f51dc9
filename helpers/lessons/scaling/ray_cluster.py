"""A Ray cluster, somewhere else or started here: on loopback only, silent, and gone afterwards.

Ray is imported only inside functions: the kernel ``deploy`` has it. What runs on the cluster is in
:mod:`helpers.lessons.scaling.replicas`.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 15  # for a cluster to say that it is one; Ray itself waits for minutes
STOP_TIMEOUT_S = 15
MARK = "HELPERS_CLUSTER"  # in the environment of every process of a cluster that was started here
LOOPBACK = ("127.", "::1", "::ffff:127.")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray's default; it would write the token into the home folder
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: else Ray takes the network's address and opens its ports there
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# A worker that ends would kill the guard of its engine, and the engine would stay: the guard ends it (helpers.servers.guard).
WORKERS = {"RAY_kill_child_processes_on_worker_exit": "0"}


class ScalingError(RuntimeError):
    """A cluster or its replicas that cannot be had: the thing, the reason, the next step."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to; ``mark`` is empty where it was not started here."""

    address: str
    mark: str = ""

    def processes(self) -> list[psutil.Process]:
        """Every process of a cluster started here, the engines inside it included."""
        return [process for process in psutil.process_iter() if self.mark and _marked(process, self.mark)]

    def replicas(self) -> list[psutil.Process]:
        """The processes of Ray Serve's replicas on this machine."""
        return [process for process in self.processes() if title(process).startswith("ray::ServeReplica")]

    def engines(self) -> list[psutil.Process]:
        """The engines that replicas and askers of this machine hold: what runs under a guard."""
        return [process for process in self.processes() if "helpers.servers.guard" in _parents_command(process)]

    def listening(self) -> list[tuple[str, str, int]]:
        """Process, address and port of everything that accepts connections, this process included."""
        found = []
        for process in [psutil.Process(), *self.processes()]:
            with suppress(psutil.Error):
                ports = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                found += [(title(process) or process.name(), at.ip, at.port) for at in ports]
        return found

    def open_to_others(self) -> list[tuple[str, str, int]]:
        """What of :meth:`listening` another machine could reach."""
        return [entry for entry in self.listening() if not entry[1].startswith(LOOPBACK)]


@contextmanager
def cluster(address: str | None = None, *, cpus: int = 2) -> Iterator[Cluster]:
    """Connect to the cluster at ``address`` (``host:port``), or start one here, on loopback, for a ``with`` block.

    Raises :class:`ScalingError` in one line, within seconds, if nothing answers at ``address``. However
    the block ends, a cluster that was started here is gone, its engines and its files with it.
    """
    if address is None:
        with _own(cpus) as started:
            yield started
        return
    _check(address)
    import ray

    _hush()
    ray.init(address=address, runtime_env={"env_vars": WORKERS}, log_to_driver=False, logging_level="ERROR")
    try:
        yield Cluster(address)
    finally:
        ray.shutdown()


@contextmanager
def _own(cpus: int) -> Iterator[Cluster]:
    sweep(Path(_short_folder()))
    folder, mark = tempfile.mkdtemp(prefix=f"ray-{os.getpid()}-", dir=_short_folder()), secrets.token_hex(8)
    started = Cluster("", mark)
    atexit.register(_end, started, folder)  # a notebook that fails in the middle leaves its block open
    try:
        os.environ.update(QUIET)
        with _silent():
            import ray

            _hush()
        with _environment({MARK: mark, **WORKERS}), _silent():
            ray.init(
                num_cpus=cpus, include_dashboard=False, _node_ip_address=HOST, _temp_dir=folder,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
        started = replace(started, address=ray.get_runtime_context().gcs_address)
        if found := started.open_to_others():
            raise ScalingError(f"Ray listens beyond this machine ({found[0][0]} at {found[0][1]}:{found[0][2]}): it was ended")
        yield started
    finally:
        atexit.unregister(_end)
        _end(started, folder)


def sweep(folder: Path) -> None:
    """Remove the files of clusters in ``folder`` whose owner was killed and could not do it."""
    for path in folder.glob("ray-*-*"):
        owner = path.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _short_folder() -> str:
    """Where a session's sockets fit: their whole path may have 107 characters."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 30 or not os.access("/tmp", os.W_OK) else "/tmp"


def _hush() -> None:
    """Ray, Ray Data and Ray Serve say only what is an error, and draw no bars."""
    from ray import serve  # noqa: F401 - it sets the level of its logger when it is imported
    from ray._private import worker
    from ray.data import DataContext

    for name in ("ray", "ray.data", "ray.serve", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    worker.print_to_stdstream = lambda *_, **__: None  # "a worker died": into whatever is printed at that moment
    warnings.filterwarnings("ignore", module="ray")
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False


def _end(started: Cluster, folder: str) -> None:
    """Shut Serve and Ray down; what is left of the cluster's processes is ended by force, its files are removed."""
    import ray
    from ray import serve

    with suppress(Exception):
        serve.shutdown()
    ray.shutdown()
    psutil.wait_procs(started.processes(), timeout=STOP_TIMEOUT_S)
    while left := started.processes():
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


def _check(address: str) -> None:
    """:class:`ScalingError` unless a Ray cluster answers at ``address``: ``ray.init`` would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    next_step = "start one there with `ray start --head`, or give no address to get one here"
    if not host or not port.isdecimal():
        raise ScalingError(f"cluster address {address!r} is not host:port: give one like 10.0.0.5:6379")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScalingError(f"no cluster answers at {address} ({reason}): {next_step}") from None
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        good = subprocess.run(ask, capture_output=True, timeout=ANSWER_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        good = False
    if not good:
        raise ScalingError(f"what listens at {address} does not answer as a Ray cluster: {next_step}")


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what Ray's C++ part writes to standard error, past ``sys.stderr``: that it heeds RAY_BACKEND_LOG_LEVEL."""
    usual, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.dup2(usual, 2)
        os.close(usual)
        os.close(nowhere)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)


def _marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error):
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    return False


def _parents_command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error, AttributeError):
        return process.parent().cmdline()
    return []


def title(process: psutil.Process) -> str:
    """The name a process gives itself, without folders; empty if it has ended."""
    with suppress(psutil.Error, IndexError):
        return Path(process.cmdline()[0]).name if "/" in process.cmdline()[0] else process.cmdline()[0]
    return ""
