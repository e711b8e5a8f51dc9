"""What a server says of itself on its Prometheus page ``/metrics``, beside what the client saw of it.

Each engine names the same things differently; what it does not say is ``None``, never 0. While a repeat runs, a thread
fetches the page about once a second and keeps the few lines that have a known name: they are parsed afterwards, as parsing
would keep the interpreter from the client's event loop. A look costs the server the making of its page.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from helpers.bench import client, connection
from helpers.bench.client import Endpoint
from helpers.bench.connection import Reply
from helpers.bench.timing import Level, Sample

EVERY_S, FIRST_LOOK_S = 1.0, 0.2  # looks during a repeat; the first one is early, as a repeat may be short
TIMEOUT_S = 5  # for a whole page
REDIRECTS, MOST_REDIRECTS = (301, 302, 307, 308), 3
GAUGES = ("running", "waiting", "kv_used")


class Unreadable(RuntimeError):
    """A figure that a server does not say; the message is the reason and, where there is one, the next step."""


@dataclass(frozen=True)
class Reading:
    """One look at ``/metrics``. ``mean_ttft_s`` is the mean since the start; ``kv_used`` a share, 0 to 1."""

    running: float | None = None
    waiting: float | None = None
    mean_ttft_s: float | None = None
    kv_used: float | None = None
    prompt_tokens: float | None = None  # since the start
    output_tokens: float | None = None
    at_s: float | None = field(default=None, compare=False)  # time.perf_counter(), where it was watched


NAMES = {  # engine's kernel: field of a Reading to the metric's name; a mean has two, sum and count
    "vllm": {
        "running": "vllm:num_requests_running", "waiting": "vllm:num_requests_waiting",
        "mean_ttft_s": ("vllm:time_to_first_token_seconds_sum", "vllm:time_to_first_token_seconds_count"),
        "kv_used": "vllm:kv_cache_usage_perc",
        "prompt_tokens": "vllm:prompt_tokens_total", "output_tokens": "vllm:generation_tokens_total",
    },
    "sglang": {
        "running": "sglang:num_running_reqs", "waiting": "sglang:num_queue_reqs",
        "mean_ttft_s": ("sglang:time_to_first_token_seconds_sum", "sglang:time_to_first_token_seconds_count"),
        "kv_used": "sglang:token_usage",
        "prompt_tokens": "sglang:prompt_tokens_total", "output_tokens": "sglang:generation_tokens_total",
    },
    "llama-cpp": {
        "running": "llamacpp:requests_processing", "waiting": "llamacpp:requests_deferred",
        "prompt_tokens": "llamacpp:prompt_tokens_total", "output_tokens": "llamacpp:tokens_predicted_total",
    },
}  # fmt: skip
# engine's kernel: the counter of prompt tokens from the prefix cache, and a metric that shows that it is counted: a counter
# with labels is on the page only when it is no longer 0
HITS = {
    "vllm": ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits_total"),
    "sglang": ("sglang:cached_tokens_total", "sglang:max_total_num_tokens"),
    "llama-cpp": ("llamacpp:prompt_tokens_cached_total", "llamacpp:prompt_tokens_cached_total"),
}


def _every_name() -> Iterator[str]:
    for names in (*(of.values() for of in NAMES.values()), *HITS.values()):
        for name in names:
            yield from (name,) if isinstance(name, str) else name


KNOWN = tuple(sorted({name.encode() for name in _every_name()}))  # what a line that is kept begins with


def rows(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    """All samples of the metric ``name`` in Prometheus' text format: (labels, value) each."""
    families = text_string_to_metric_families(page)
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == name]


def value(page: str, name: str | tuple[str, str], *, share: bool = False) -> float | None:
    """The sum over all labels of one metric, or the mean of two; ``None`` if the page has none of it.

    Of a ``share``, the largest: two engines whose caches are full by a half are not one full cache.
    """
    if isinstance(name, tuple):
        total, count = (value(page, one) for one in name)
        return total / count if total is not None and count else None
    found = [one for _, one in rows(page, name)]
    return (max if share else sum)(found) if found else None


def read(page: str, kernel: str) -> Reading:
    """A :class:`Reading` of the text ``page`` of an engine of ``kernel``; :class:`Unreadable` without names of its metrics."""
    if kernel not in NAMES:
        raise Unreadable(f"no names are known for the metrics of {kernel!r}: there are {', '.join(NAMES)}")
    return Reading(**{figure: value(page, name, share=figure == "kv_used") for figure, name in NAMES[kernel].items()})


def prefix_hit_tokens(page: str, kernel: str) -> int | None:
    """Prompt tokens from the prefix cache since the server's start; ``None`` where this version does not count them."""
    name, sign = HITS[kernel]
    return round(value(page, name) or 0) if sign in page else None


def kernel_of(page: str) -> str | None:
    """Whose page it is, by how the names on it begin; ``None``: of nobody whose names are known."""
    begins = {kernel: names["running"].partition(":")[0] + ":" for kernel, names in NAMES.items()}
    return next((kernel for kernel, begin in begins.items() if f"\n{begin}" in f"\n{page}"), None)


class Page:
    """The page ``/metrics`` of an endpoint, beside its ``/v1``."""

    def __init__(self, endpoint: Endpoint):
        url = urlsplit(endpoint.base_url)
        path = f"{url.path.rstrip('/').removesuffix('/v1')}/metrics"
        self.endpoint = endpoint
        self.url = url._replace(netloc=url.netloc.rpartition("@")[2], path=path).geturl()

    def known_lines(self) -> str:
        """The lines that have a known name, as they are now; :class:`Unreadable` if all of the page is not here in time."""
        reply = client.run(self._asked())
        if reply.problem or not reply.whole:
            raise Unreadable(f"/metrics did not answer ({reply.problem or 'it closed before the end'})")
        if reply.status != 200:
            raise Unreadable(f"/metrics answers HTTP {reply.status}")
        page = b"".join(part for _, part in reply.parts)
        return b"\n".join(line for line in page.splitlines() if line.startswith(KNOWN)).decode(errors="replace") + "\n"

    async def _asked(self) -> Reply:
        """The answer, after redirects on the same server (SGLang's, to ``/metrics/``): the key is for no other one."""
        try:
            async with asyncio.timeout(TIMEOUT_S):  # for all of it: a server may send a byte now and then
                reply, url = await self._get(self.url), self.url
                for _ in range(MOST_REDIRECTS):
                    url = urljoin(url, reply.headers.get("location", ""))
                    if reply.status not in REDIRECTS or urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                        break
                    reply = await self._get(url)
                return reply
        except TimeoutError:
            return Reply(0, problem=f"no end within {TIMEOUT_S:g} s")
        except connection.Refused as reason:
            return Reply(0, problem=str(reason))

    async def _get(self, url: str) -> Reply:
        connected = await self.endpoint.connect(TIMEOUT_S)
        try:
            return await connected.send(self._request(urlsplit(url)))
        finally:
            connected.close()

    def _request(self, url: SplitResult) -> bytes:
        key = f"Authorization: Bearer {self.endpoint.api_key}\r\n" if self.endpoint.api_key else ""
        path = url._replace(scheme="", netloc="", fragment="").geturl()
        return f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\n{key}Connection: close\r\n\r\n".encode()


@dataclass(frozen=True)
class Looks:
    """The page's known lines before a repeat, after it, and during it."""

    before: str
    after: str
    during: tuple[str, ...] = ()


class Watch:
    """Looks at the page around and during each repeat; ``kernel`` is whose page it is.

    :class:`Unreadable` in one line where there is none, or nothing on it has a known name.
    """

    def __init__(self, endpoint: Endpoint):
        self.page = Page(endpoint)
        self.kernel = kernel_of(self.page.known_lines())
        if self.kernel is None:
            raise Unreadable(f"/metrics has no name that is known here: those of {', '.join(NAMES)} are")
        self.looks: dict[int | float, list[Looks | None]] = {}  # of each load, one a repeat; None: the page did not come

    @contextmanager
    def repeat(self, load: int | float) -> Iterator[None]:
        """A repeat under ``load`` is sent within this."""
        before, seen, done = self._look(), [], threading.Event()
        thread = threading.Thread(target=self._keep_looking, args=(seen, done), name="helpers.bench.metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(TIMEOUT_S)
        after = self._look()
        whole = before is not None and after is not None
        self.looks.setdefault(load, []).append(Looks(before, after, tuple(seen)) if whole else None)

    def _keep_looking(self, seen: list[str], done: threading.Event) -> None:
        wait_s = FIRST_LOOK_S
        while not done.wait(wait_s):
            begun = time.perf_counter()
            look = self._look()
            if look is not None and not done.is_set():  # one that came after the end is of an idle server
                seen.append(look)
            wait_s = max(EVERY_S - (time.perf_counter() - begun), 0.0)

    def _look(self) -> str | None:
        try:
            return self.page.known_lines()
        except Unreadable:  # late under load: the next look tells
            return None

    def of(self, level: Level) -> dict | None:
        """What the server said during ``level``, see :func:`beside`; ``None`` without a repeat whose page came.

        What was kept of it goes: a load may come again.
        """
        looks = self.looks.pop(level.users or level.rate_per_s, ())
        pairs = [(block, look) for block, look in zip(level.blocks, looks) if look is not None]
        try:
            return beside(pairs, self.kernel) if pairs else None
        except ValueError:  # not Prometheus' text format any more
            return None


def beside(pairs: Sequence[tuple[Sequence[Sample], Looks]], kernel: str) -> dict:
    """The server's own figures beside the client's, of repeats with the looks at its page.

    ``running``, ``waiting`` and ``kv_used`` (a share) have the ``mean`` and the ``most`` of the looks during the repeats.
    ``ttft_s`` has the mean of the ``server``'s histogram between before and after, the ``client``'s mean of the same
    repeats, their ``difference``, and how many requests each has counted: others may ask the server too.
    """
    during = [read(page, kernel) for _, looks in pairs for page in looks.during]
    grown = [_grown(looks, lambda page: prefix_hit_tokens(page, kernel)) for _, looks in pairs]
    return {
        "engine": kernel,
        "looks": len(during),
        **{name: _gauge(during, name) for name in GAUGES},
        "prefix_hit_tokens": None if None in grown else sum(grown),
        "ttft_s": _ttft(pairs, NAMES[kernel].get("mean_ttft_s")),
    }


def _grown(looks: Looks, figure) -> float | None:
    """How much a counter grew; ``None`` where it is not there, or the server was started anew."""
    before, after = figure(looks.before), figure(looks.after)
    return None if after is None or before is None or after < before else after - before


def _gauge(during: Sequence[Reading], name: str) -> dict[str, float] | None:
    seen = [getattr(one, name) for one in during if getattr(one, name) is not None]
    return {"mean": round(float(np.mean(seen)), 4), "most": round(max(seen), 4)} if seen else None


def _ttft(pairs: Sequence[tuple[Sequence[Sample], Looks]], names: tuple[str, str] | None) -> dict | None:
    if names is None:
        return None
    total_s, count = ([_grown(looks, lambda page, name=name: value(page, name)) for _, looks in pairs] for name in names)
    ours = [s.ttft_s for block, _ in pairs for s in block if s.error is None and s.ttft_s is not None]
    if None in total_s or None in count or not sum(count) or not ours:
        return None
    server, mean = sum(total_s) / sum(count), float(np.mean(ours))
    counted = {"server_requests": round(sum(count)), "client_requests": len(ours)}
    return {"server": server, "client": mean, "difference": mean - server, **counted}


def line(found: Mapping | None) -> str | None:
    """The same in words; ``None``: there is nothing to say."""
    if not found:
        return None
    said, ttft = [], found["ttft_s"]
    if ttft:
        said.append(f"TTFT {ttft['server']:.4f} s in the mean, the client's {ttft['client']:.4f} s ({told_difference(ttft)})")
    said += [f"{name} {told_gauge(found, name)}" for name in ("running", "waiting") if found[name]]
    said += [f"KV cache used {told_gauge(found, 'kv_used')}"] if found["kv_used"] else []
    if found["prefix_hit_tokens"] is not None:
        said.append(f"{found['prefix_hit_tokens']:,} prompt tokens from its prefix cache")
    return f"the server's own metrics ({found['engine']}): {', '.join(said)}" if said else None


def told_gauge(found: Mapping, name: str) -> str:
    """``3.2, at most 4``; ``-``: not said."""
    if not (seen := found[name]):
        return "-"
    mean, high = (f"{seen[of]:.1%}" if name == "kv_used" else f"{seen[of]:.3g}" for of in ("mean", "most"))
    return f"{mean}, at most {high}"


def told_difference(ttft: Mapping) -> str:
    """How much later the client had its first token, with both counts of requests where they are not the same."""
    said = f"{ttft['difference'] * 1e3:+.2f} ms"
    theirs, ours = ttft["server_requests"], ttft["client_requests"]
    return said if theirs == ours else f"{said}; it counts {theirs} requests, the client {ours}"
