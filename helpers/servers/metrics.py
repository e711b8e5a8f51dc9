"""What each engine's own server says of its KV pool and of its prefix cache, while it runs.

A configured size is a wish; these figures are read from the engine: its ``/metrics`` page or its
log. Figures that an engine does not give are ``None`` with the reason, never 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from helpers.bench import checks, server_metrics
from helpers.bench.server_metrics import Unreadable, rows
from helpers.servers import serving

TOLERANCE = 0.02  # of the formula's bytes per token
TIMEOUT_S = 10
SGLANG_GAUGE = "sglang:kv_cache_memory_usage_gb"
_LLAMA_CPP_CACHE = re.compile(
    r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells, +(\d+) layers, +\d+/(\d+) seqs\)"
)  # MiB, cells of a stream, layers, streams


@dataclass(frozen=True)
class Pool:
    """The KV memory an engine has set aside; ``tokens`` and ``bytes`` are ``None`` where it does not say.

    ``tokens`` can be given to requests. ``spare_tokens`` are allocated as well and never given to
    one: SGLang's first page and Transformers' first two sectors take what padding writes. ``held_tokens`` is set
    where layers hold different numbers: how many a layer holds on average, so that bytes per token stay comparable.
    """

    engine: str
    tokens: int | None
    bytes: int | None
    source: str  # where it was read, or why it was not
    spare_tokens: int = 0
    held_tokens: float | None = None

    @property
    def held(self) -> float | None:
        """The tokens that ``bytes`` hold, spare ones included; on average over the layers."""
        return self.held_tokens or (None if self.tokens is None else self.tokens + self.spare_tokens)

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes over all tokens that they hold."""
        return None if self.bytes is None or not self.held else self.bytes / self.held


@dataclass(frozen=True)
class Verdict:
    """``good`` is ``None`` where nothing could be checked; ``line`` says what was compared, in one line."""

    good: bool | None
    line: str


def pool(server: serving.Server) -> Pool:
    """The KV pool of ``server``, asked now: a suspended server is asked inside its ``awake()``.

    ``llama.cpp``, ``vLLM`` and ``SGLang`` know it from the start on; Transformers makes it for its first request.
    """
    try:
        return Pool(server.engine.title, *_POOLS[server.engine.kernel](server))
    except Unreadable as reason:
        return Pool(server.engine.title, None, None, str(reason))


def check_pool(found: Pool, kv_bytes_per_token: int, tolerance: float = TOLERANCE) -> Verdict:
    """Compare what the engine set aside for a token with the formula, ``helpers.weights.sizes.kv_bytes_per_token``."""
    if found.bytes_per_token is None:
        return Verdict(None, f"{found.engine}: KV pool not measurable: {found.source}")
    off = found.bytes_per_token / kv_bytes_per_token - 1
    line = (
        f"{found.engine}: {found.bytes} bytes for {found.held:.0f} tokens of KV pool are "
        f"{found.bytes_per_token:.0f} a token, the formula says {kv_bytes_per_token}: {off:+.2%} ({found.source})"
    )
    return Verdict(abs(off) <= tolerance, line)


def cache_hits(server: serving.Server) -> checks.Hits:
    """The engine's own total of prompt tokens served from its prefix cache; it only grows."""
    try:
        return checks.Hits(*_HITS[server.engine.kernel](server))
    except Unreadable as reason:
        return checks.Hits(None, str(reason))


def cached_tokens(server: serving.Server) -> int | None:
    """:func:`cache_hits` without its source: take it before and after, the difference is the block's."""
    return cache_hits(server).tokens


def beginning(server: serving.Server, names: str) -> dict[str, float]:
    """The samples of its ``/metrics`` whose names begin with ``names``, by name and labels; empty if it gives no page."""
    try:
        page = metrics_page(server)
    except Unreadable:
        return {}
    lines = (line.rpartition(" ") for line in page.splitlines() if line.startswith(names))
    return {name: float(value) for name, _, value in lines}


def metrics_page(server: serving.Server) -> str:
    """The text of ``/metrics``; :class:`Unreadable` if the server does not give it."""
    return _asked(server, "/metrics").text


def _asked(server: serving.Server, route: str, **params) -> httpx.Response:
    """What ``server`` answers on ``route``; :class:`Unreadable` if it does not, or without success."""
    url = server.base_url.removesuffix("/v1") + route
    try:
        answer = httpx.get(url, params=params, timeout=TIMEOUT_S, trust_env=False, follow_redirects=True)
    except httpx.HTTPError as error:
        reason = "timed out" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
        raise Unreadable(f"{route} did not answer ({reason}): ask inside server.awake()") from None
    if answer.status_code != 200:
        raise Unreadable(f"{route} answers HTTP {answer.status_code}: the server was started without it")
    return answer


def _only(page: str, name: str) -> tuple[dict[str, str], float]:
    """The one sample of ``name``. Several are several ranks, whose shares this does not put together."""
    found = rows(page, name)
    if len(found) != 1:
        raise Unreadable(f"/metrics has {len(found)} values of {name} where one is expected")
    return found[0]


def _count(labels: dict[str, str], name: str) -> int | None:
    value = labels.get(name, "")
    return int(value) if value.isdecimal() else None


def _vllm_pool(server: serving.Server) -> tuple[int, int, str]:
    return vllm_pool(metrics_page(server), server.log.read_text(errors="replace"))


def vllm_pool(page: str, log: str) -> tuple[int, int, str]:
    """Tokens, bytes and source: from the labels of ``vllm:cache_config_info``, what is missing there from the log."""
    labels, _ = _only(page, "vllm:cache_config_info")
    blocks, size = _count(labels, "num_gpu_blocks"), _count(labels, "block_size")
    tokens = _count(labels, "kv_cache_size_tokens") or (blocks * size if blocks and size else None)
    bytes_, source = _count(labels, "kv_cache_memory_bytes"), "vllm:cache_config_info"
    if bytes_ is None and (said := re.findall(r"Available KV cache memory: ([\d.]+) GiB", log)):
        bytes_, source = round(float(said[-1]) * 2**30), "vllm:cache_config_info and the log's GiB, two decimals"
    if tokens is None or bytes_ is None:
        raise Unreadable("neither vllm:cache_config_info nor the log gives both the tokens and the bytes")
    return tokens, bytes_, source


def _sglang_pool(server: serving.Server) -> tuple[int, int, str, int]:
    page = metrics_page(server)
    return sglang_pool(page, None if rows(page, SGLANG_GAUGE) else sglang_gib(sglang_loads(server)))


def sglang_pool(page: str, gib: float | None = None) -> tuple[int, int, str, int]:
    """Tokens, bytes, source and spare tokens of SGLang's pool, from its gauges; the bytes are ``gib`` where no gauge has them.

    SGLang's "GB" is 2**30 bytes (``mem_cache/memory_pool.py``); its buffers hold a page more than the pool.
    """
    source = "/v1/loads, three decimals of a GiB"
    if not gib:  # none, or too small for three decimals
        gib, source = _only(page, SGLANG_GAUGE)[1], SGLANG_GAUGE
    tokens, page_size = (int(_only(page, f"sglang:{name}")[1]) for name in ("max_total_num_tokens", "page_size"))
    return tokens, round(gib * 2**30), source, page_size


def sglang_loads(server: serving.Server) -> dict:
    """What ``/v1/loads`` says of the memory: 0.5.15 has no gauge of the pool's bytes."""
    return _asked(server, "/v1/loads", include="memory").json()


def sglang_gib(loads: dict) -> float:
    """The pool's GiB, three decimals, of the one rank in ``loads``."""
    ranks = loads.get("loads", [])
    if len(ranks) != 1 or "memory" not in ranks[0]:
        raise Unreadable(f"/v1/loads has the memory of {len(ranks)} ranks where one is expected")
    return ranks[0]["memory"]["kv_cache_gb"]


def _llama_cpp_pool(server: serving.Server) -> tuple[int, int, str, int, float | None]:
    return llama_cpp_pool(server.log.read_text(errors="replace"))


def llama_cpp_pool(log: str) -> tuple[int, int, str, int, float | None]:
    """Tokens, bytes, source, no spare tokens, and those that a layer holds on average: all KV caches of the model together.

    A model with sliding windows has two, one of them for the layers that keep every token. A draft model, loaded after
    it, has its own, which is left out: the lines of the first context are read.
    """
    contexts = log.split("llama_context: constructing")
    said = _LLAMA_CPP_CACHE.findall(contexts[min(1, len(contexts) - 1)])
    if not said:
        raise Unreadable("the log has no line 'llama_kv_cache: size = ...': start the server with more verbosity")
    pools = [(float(mib), int(cells) * int(streams), int(layers)) for mib, cells, layers, streams in said]
    held = sum(tokens * layers for _, tokens, layers in pools) / sum(layers for _, _, layers in pools)
    lines = "line" if len(pools) == 1 else f"{len(pools)} lines, one for each pool"
    source = f"the log's llama_kv_cache {lines}"
    size = round(sum(mib for mib, _, _ in pools) * 2**20)
    return max(tokens for _, tokens, _ in pools), size, source, 0, None if len(pools) == 1 else held


def _transformers_pool(server: serving.Server) -> tuple[int, int, str, int]:
    return transformers_pool(server.log.read_text(errors="replace"))


def transformers_pool(log: str) -> tuple[int, int, str, int]:
    """Tokens, bytes, source and spare tokens, from the line that ``helpers.servers.transformers_server`` adds to the log."""
    said = re.findall(r"KV cache: (\d+) tokens and (\d+) spare ones in (\d+) bytes", log)
    if not said:
        raise Unreadable("the log has no line 'KV cache: ...' yet: it is made for the first request")
    tokens, spare, bytes_ = map(int, said[-1])
    return tokens, bytes_, "its cache object, as said in the log", spare


def _counter(kernel: str) -> Callable[[serving.Server], tuple[int, str]]:
    """A reader of the engine's counter of prompt tokens from its prefix cache."""
    name, sign = server_metrics.HITS[kernel]

    def read(server: serving.Server) -> tuple[int, str]:
        tokens = server_metrics.prefix_hit_tokens(metrics_page(server), kernel)
        if tokens is None:
            raise Unreadable(f"/metrics has no {sign}: this version counts under another name")
        return tokens, name

    return read


def _transformers_hits(server: serving.Server) -> tuple[int, str]:
    log = server.log.read_text(errors="replace")
    if "KV cache: " not in log:
        raise Unreadable("the log says nothing of its KV cache yet: it is made for the first request")
    return sum(map(int, re.findall(r"KV cache: prefix match of (\d+) tokens", log))), "the log's prefix matches"


_POOLS = {"vllm": _vllm_pool, "sglang": _sglang_pool, "llama-cpp": _llama_cpp_pool, "transformers": _transformers_pool}
_HITS = {**{kernel: _counter(kernel) for kernel in server_metrics.HITS}, "transformers": _transformers_hits}
