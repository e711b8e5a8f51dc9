"""What runs on a cluster: objects that hold an engine's own server each, for Ray Data and for Ray Serve.

Ray Data hands rows to :class:`Asker` objects, Ray Serve hands requests to :class:`Replica` objects; Ray starts
them, watches them and starts them again, on one machine or on many. Nothing here routes a request.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

import httpx

from helpers.bench import client
from helpers.bench.workload import Prompt
from helpers.lessons.deployment import operating
from helpers.lessons.scaling import manifests, ray_cluster
from helpers.servers import engines, serving
from helpers.weights import models

# A kept connection may be closed by the engine in the moment in which the next request goes out.
NEW_EACH_TIME = httpx.Limits(max_connections=None, max_keepalive_connections=0)
ALIVE_TIMEOUT_S = 20  # a busy engine is slow to say that it is well


class _Engine:
    """An engine's own server that lives as long as this object, and no longer than this process."""

    def __init__(self, engine: str = "llama-cpp", threads: int | None = None, **options):
        self._stack = ExitStack()
        extra = ("--threads", str(threads)) if threads else ()  # the last of two counts
        self.server = self._stack.enter_context(serving.serve(engine, extra=extra, **options))
        self.endpoint = replace(self.server.endpoint, token_ids=False)

    @property
    def alive(self) -> bool:
        """Whether the engine answers: it may have ended a moment ago, and its guard not yet."""
        return operating.health(self.server, ALIVE_TIMEOUT_S) == "200"

    def __del__(self):
        if hasattr(self, "_stack"):
            self._stack.close()


class Asker(_Engine):
    """For ``map_batches``: answers each row's ``prompt``. A row that cannot be answered gets its reason in ``error``.

    ``options`` are those of :func:`helpers.servers.serving.serve`. If the engine is gone, this process ends: Ray
    starts another and gives it the batch again.
    """

    def __init__(self, output_tokens: int = 16, **options):
        super().__init__(**options)
        self.output_tokens = output_tokens

    def __call__(self, batch: dict) -> dict:
        samples = client.run(self._ask([Prompt(str(text)) for text in batch["prompt"]]))
        if any(sample.error for sample in samples) and not self.alive:
            self._stack.close()  # the engine's log goes
            os._exit(1)
        return {
            **batch,
            "text": [sample.text for sample in samples],
            "error": [sample.error or "" for sample in samples],
            "process": [os.getpid()] * len(samples),
        }

    async def _ask(self, prompts: list[Prompt]) -> list:
        return await asyncio.gather(*(client.request(self.endpoint, prompt, self.output_tokens) for prompt in prompts))


@dataclass(frozen=True)
class Asked:
    """A request through a Serve handle; a prefix-aware router reads ``prompt``."""

    prompt: str
    output_tokens: int = 1


class Replica(_Engine):
    """For Ray Serve: passes each HTTP request on to its own engine, and the answer back as it comes."""

    def __init__(self, **options):
        _only_here()
        super().__init__(**options)
        base_url = self.server.base_url.removesuffix("/v1")
        self.http = httpx.AsyncClient(base_url=base_url, timeout=120, trust_env=False, limits=NEW_EACH_TIME)

    async def __call__(self, request):
        from starlette.responses import JSONResponse, StreamingResponse

        kind, body = request.headers.get("content-type", "application/json"), await request.body()
        asked = self.http.build_request(request.method, request.url.path, content=body, headers={"content-type": kind})
        try:
            answer = await self.http.send(asked, stream=True)
        except httpx.HTTPError as error:
            return JSONResponse({"error": f"the engine of this replica is gone ({type(error).__name__})"}, 503)
        headers = {"content-type": answer.headers.get("content-type", kind), "x-replica": str(os.getpid())}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, headers, background=_Closing(answer))

    async def ask(self, asked: Asked) -> dict:
        """One request without HTTP in front: who answered, how much of the prompt was in its cache, and the engine's own TTFT."""
        sample = await client.request(self.endpoint.cached(), Prompt(asked.prompt), asked.output_tokens)
        counts = {"prompt": sample.prompt_tokens, "cached": sample.cached_tokens}
        return {"process": os.getpid(), **counts, "ttft_s": sample.ttft_s, "error": sample.error}

    def check_health(self) -> None:
        """Called by Serve; a replica whose engine is gone is replaced."""
        if not self.alive:
            self._stack.close()  # Serve kills a replica that is not well: its engine's log goes now
            raise RuntimeError("the engine of this replica has ended")

    def engine_url(self) -> str:
        """Where the engine of this replica answers, on its own machine."""
        return self.server.base_url


class _Closing:
    """Closes the engine's answer when the client's is done."""

    def __init__(self, answer: httpx.Response):
        self.answer = answer

    async def __call__(self) -> None:
        await self.answer.aclose()


def _only_here() -> None:
    """Keep a replica's port for other replicas on loopback: Serve 2.60 opens it to every network and has no switch for it."""
    if ray_cluster.MARK in os.environ:
        from ray.serve._private import replica

        usual = replica.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: usual(server, address.replace("[::]", ray_cluster.HOST))


def endpoint(base_url: str, context: int | None = None) -> client.Endpoint:
    """Replicas of llama.cpp, or one of them, for :mod:`helpers.bench.measure`; asked with text, by the default model's name."""
    engine = engines.get("llama-cpp")
    told = {"fields": engine.fields, "cache_fields": engine.cache_fields, "context": context}
    return client.Endpoint(base_url, models.resolve().name, **told)


def application(args: dict):
    """What ``serve.yaml`` names as its ``import_path``: copies that are made with ``args``."""
    from ray import serve

    return serve.deployment(Replica).bind(**args)


def deploy(port: int, *, http: bool = True, **options):
    """Run on ``port`` the copies that ``serve.yaml`` describes, with ``options`` in place of its own; returns the handle.

    Raises as :func:`run` does, and :class:`~helpers.lessons.scaling.manifests.ManifestError` for a file that Ray refuses.
    """
    from ray import serve

    args, usual = manifests.copies()
    return run(serve.deployment(Replica).options(**usual | options).bind(**args), port, http=http)


def run(application, port: int, *, timeout_s: float = 30, http: bool = True, **options):
    """``serve.run`` on ``port`` of this machine, in place of what ran there; returns the handle.

    A request that no replica has answered after ``timeout_s`` seconds ends with HTTP 408. Raises
    :class:`~helpers.lessons.scaling.ray_cluster.ScalingError` with the constructor's own reason if no replica can be started.
    """
    from ray import serve

    serve.start(http_options={"host": ray_cluster.HOST, "port": port, "request_timeout_s": timeout_s})
    serve.delete("default")  # at most so many engines at once as are asked for
    try:
        handle = serve.run(application, **options)
        if http:  # a prefix-aware router is for handles: it wants to see a prompt
            _wait(f"http://{ray_cluster.HOST}:{port}/v1/models", timeout_s)
        return handle
    except RuntimeError as error:
        said = [state.message for app in serve.status().applications.values() for state in app.deployments.values()]
        raise ray_cluster.ScalingError(
            f"no replica could be started: {_last_reason(chr(10).join([str(error), *said]))}"
        ) from None


def _wait(url: str, timeout_s: float) -> None:
    """Until Serve's proxy knows the way to the replicas: it hears of them a moment later than ``serve.run``."""
    deadline = time.monotonic() + timeout_s
    while (status := httpx.get(url, timeout=timeout_s, trust_env=False).status_code) != 200:
        if time.monotonic() > deadline:
            raise ray_cluster.ScalingError(f"the replicas run, and their address answers HTTP {status}: see serve.status()")
        time.sleep(0.1)


def _last_reason(text: str) -> str:
    """The last line of a traceback in ``text`` that names an error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*[\w.]*(Error|Missing\w+|UnknownEngine): ", line)]
    return (lines or text.strip().splitlines() or ["Serve gave no reason"])[-1]
