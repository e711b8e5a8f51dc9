"""Copies of one model, a server on each GPU: they know nothing of each other, as where each stands on a machine of its own.

An engine's own data parallelism (``Layout(dp=2)`` in a life of the work "server") is one server that divides its requests itself.
Here somebody in front of the copies does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from helpers import machine
from helpers.gpu import session
from helpers.gpu.cases import Life
from helpers.gpu.device import Nvml
from helpers.gpu.session import Log, Setting
from helpers.lessons.scaling.parallelism import Layout
from helpers.servers import serving
from helpers.servers.serving import Server


@contextmanager
def started(
    life: Life,
    setting: Setting,
    log: Log,
    left_s: float,
    *,
    extra: Sequence[Sequence[str]] = (),
    variables: Sequence[Mapping[str, str]] = (),
) -> Iterator[list[Server]]:
    """A server of ``life`` on each of ``setting.gpus``, all started at the same moment; the first that fails ends the others.

    ``extra`` are options and ``variables`` the variables of each copy, in the order of the GPUs; empty: none. What
    :func:`~helpers.gpu.session.started` notes of a server is noted of all. On a CPU the GPUs are counted only.
    """
    count = len(setting.gpus)
    if any(given and len(given) != count for given in (extra, variables)):
        raise ValueError(f"options of {len(extra)} and variables of {len(variables)} copies on {count} GPUs: give each its own")
    one, level = replace(life, layout=Layout()), Nvml().used_bytes()
    engines = {}
    for number, gpu in enumerate(setting.gpus):
        own = dict(variables[number]) if variables else {}
        own |= {machine.VISIBLE: gpu} if setting.gpu else {}
        engines[f"copy {number}"] = session.told(one, setting, extra[number] if extra else (), own)
    sizes = session.sizes_of(one, setting)
    with serving.at_once(engines, session.model(one, setting), **sizes, timeout_s=left_s) as servers:
        session.note_start(life, log, list(servers.values()), level)
        yield list(servers.values())
