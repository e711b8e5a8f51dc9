"""sglang-router before several servers: one address, and its policy decides which of them answers. Runs where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from helpers import kernels
from helpers.bench.client import Endpoint
from helpers.servers import guard
from helpers.servers.serving import HOST, Server, free_port, wait

KERNEL = "deploy"
POLICIES = ("cache_aware", "power_of_two", "random", "round_robin")  # its others are for prefill and decode apart
START_TIMEOUT_S = 60


@contextmanager
def gateway(servers: Sequence[Server], policy: str) -> Iterator[Endpoint]:
    """The endpoint of a router before ``servers`` for the length of a ``with`` block; then none of its processes is left.

    Raises ``ValueError`` for a policy that is none of :data:`POLICIES` or without servers, before anything is started, and
    :class:`~helpers.servers.serving.ServerError` with the router's own reason and its log if it does not start.
    """
    if policy not in POLICIES or not servers:
        raise ValueError(
            f"policy={policy!r} over {len(servers)} servers: give a server or more, and one of {', '.join(POLICIES)}"
        )
    port = free_port()
    with guard.guarded(_command(servers, policy, port), kernels.process_environment(KERNEL), name="gateway") as running:
        wait("sglang-router", running, port, START_TIMEOUT_S, "/readiness")
        address = f"http://{HOST}:{port}/v1"
        yield replace(servers[0].endpoint, base_url=address, token_ids=False)  # its policies compare texts


def _command(servers: Sequence[Server], policy: str, port: int) -> list[str]:
    """Its metrics have a port of their own, which is open to every network unless it is told otherwise."""
    addresses = [server.base_url.removesuffix("/v1") for server in servers]
    return [
        kernels.interpreter(KERNEL), "-m", "sglang_router.launch_router", "--worker-urls", *addresses, "--policy", policy,
        "--host", HOST, "--port", str(port), "--prometheus-host", HOST, "--prometheus-port", str(free_port()),
        "--log-level", "warn",
    ]  # fmt: skip
