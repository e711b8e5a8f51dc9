"""sglang-router before several servers: one address, and its policy decides which of them answers. Runs where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx

from helpers import kernels
from helpers.bench.client import Endpoint
from helpers.servers import guard
from helpers.servers.serving import HOST, Server, free_port, wait

KERNEL = "deploy"
POLICIES = ("cache_aware", "power_of_two", "random", "round_robin")  # its others are for prefill and decode apart
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Router:
    """A running router: what the client is given, and where it counts."""

    endpoint: Endpoint
    metrics_url: str

    def page(self) -> str:
        """The text of its ``/metrics``."""
        return httpx.get(self.metrics_url, trust_env=False).raise_for_status().text


@contextmanager
def gateway(servers: Sequence[Server], policy: str) -> Iterator[Endpoint]:
    """The endpoint of a :func:`router` before ``servers`` for the length of a ``with`` block."""
    with router(servers, policy) as running:
        yield running.endpoint


@contextmanager
def router(servers: Sequence[Server], policy: str) -> Iterator[Router]:
    """A router before ``servers`` for the length of a ``with`` block; then none of its processes is left.

    Raises ``ValueError`` for a policy that is none of :data:`POLICIES` or without servers, before anything is started, and
    :class:`~helpers.servers.serving.ServerError` with the router's own reason and its log if it does not start.
    """
    if policy not in POLICIES or not servers:
        raise ValueError(
            f"policy={policy!r} over {len(servers)} servers: give a server or more, and one of {', '.join(POLICIES)}"
        )
    port = free_port()
    metrics = free_port((port,))
    with guard.guarded(_command(servers, policy, port, metrics), kernels.process_environment(KERNEL), name="gateway") as running:
        wait("sglang-router", running, port, START_TIMEOUT_S, "/readiness")
        endpoint = replace(servers[0].endpoint, base_url=f"http://{HOST}:{port}/v1", token_ids=False)  # it reads texts alone
        yield Router(endpoint, f"http://{HOST}:{metrics}/metrics")


def _command(servers: Sequence[Server], policy: str, port: int, metrics: int) -> list[str]:
    """Its metrics have a port of their own, which is open to every network unless it is told otherwise."""
    addresses = [server.base_url.removesuffix("/v1") for server in servers]
    return [
        kernels.interpreter(KERNEL), "-m", "sglang_router.launch_router", "--worker-urls", *addresses, "--policy", policy,
        "--host", HOST, "--port", str(port), "--prometheus-host", HOST, "--prometheus-port", str(metrics),
        "--log-level", "warn",
    ]  # fmt: skip
