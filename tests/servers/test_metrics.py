"""What each engine's server says of its KV pool and prefix cache, from its real words."""

import subprocess

import httpx
import pytest

from helpers import kernels
from helpers.bench import checks
from helpers.bench.checks import Hits
from helpers.bench.timing import Sample
from helpers.servers import metrics, serving
from helpers.servers.metrics import Pool, Unreadable

KV = 23_040  # SmolLM2-135M in bf16: 30 layers x 3 KV heads x 2 x 64 x 2 bytes

VLLM = """# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="32",kv_cache_memory_bytes="7372800",kv_cache_size_tokens="320",num_gpu_blocks="10"} 1.0
"""
SGLANG = """sglang:max_total_num_tokens{model_name="SmolLM2",tp_rank="0"} 258.0
sglang:kv_cache_memory_usage_gb{model_name="SmolLM2",tp_rank="0"} 0.005557537078857422
sglang:page_size{model_name="SmolLM2",tp_rank="0"} 1.0
"""
SGLANG_LOADS = {"loads": [{"dp_rank": 0, "memory": {"kv_cache_gb": 0.006, "token_capacity": 258}}]}
LLAMA_CPP = """0.00.314.750 I llama_kv_cache:        CPU KV buffer size =     0.00 MiB
0.00.32 I llama_kv_cache: size =   11.25 MiB (   256 cells,  30 layers,  2/2 seqs), K (f16):    5.62 MiB, V (f16):    5.62 MiB
"""
GEMMA = """0.00.1 I llama_context: constructing llama_context
0.00.2 I llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells
0.00.3 I llama_kv_cache: size =   48.00 MiB (  4096 cells,   3 layers,  4/4 seqs), K (f16):   24.00 MiB, V (f16):   24.00 MiB
0.00.4 I llama_kv_cache_iswa: creating     SWA KV cache, size = 1024 cells
0.00.5 I llama_kv_cache: size =   60.00 MiB (  1024 cells,  15 layers,  4/4 seqs), K (f16):   30.00 MiB, V (f16):   30.00 MiB
"""
TRANSFORMERS = "KV cache: 320 tokens and 64 spare ones in 8847360 bytes\n"


@pytest.mark.parametrize(
    ("said", "pool"),
    [
        (lambda: metrics.vllm_pool(VLLM, ""), (320, 7_372_800)),
        (lambda: metrics.sglang_pool(SGLANG), (258, 259 * KV)),
        (lambda: metrics.llama_cpp_pool(LLAMA_CPP), (512, 512 * KV)),
        (lambda: metrics.transformers_pool(TRANSFORMERS), (320, 384 * KV)),
    ],
    ids=["vllm", "sglang", "llama-cpp", "transformers"],
)
def test_what_each_engine_says(said, pool):
    """Tokens and bytes, as each engine's version of today writes them."""

    assert said()[:2] == pool


def test_llama_cpps_two_pools_of_a_model_with_windows_are_one():
    """Gemma 3 270M, 4 slots of 4,096 tokens: 48 and 60 MiB; a token that every layer keeps takes 18 KiB."""
    found = Pool("llama.cpp", *metrics.llama_cpp_pool(GEMMA))

    assert (found.tokens, found.bytes) == (16_384, 108 * 2**20)
    assert metrics.check_pool(found, 18 * 2**10).line.startswith(
        "llama.cpp: 113246208 bytes for 6144 tokens of KV pool are 18432 a token, the formula says 18432: +0.00% (the log's"
    )


def test_the_pool_of_a_draft_model_is_not_the_models():
    """Its context is made after the model's."""
    begin = "0.00.1 I llama_context: constructing llama_context\n"
    draft = LLAMA_CPP.replace("30 layers", "10 layers").replace("11.25", "3.75")

    assert metrics.llama_cpp_pool(begin + LLAMA_CPP + begin + draft)[:2] == (512, 512 * KV)


def test_sglang_without_a_gauge_of_its_bytes():
    """What /v1/loads says of the one rank, and where it comes from; several ranks are not put together."""
    gib = metrics.sglang_gib(SGLANG_LOADS)
    page = "\n".join(line for line in SGLANG.splitlines() if metrics.SGLANG_GAUGE not in line)

    assert metrics.sglang_pool(page, gib) == (258, round(0.006 * 2**30), "/v1/loads, three decimals of a GiB", 1)
    with pytest.raises(Unreadable, match="^/v1/loads has the memory of 2 ranks where one is expected$"):
        metrics.sglang_gib({"loads": 2 * SGLANG_LOADS["loads"]})


@pytest.mark.engine
def test_transformers_5_17_keeps_two_tensors_for_each_layer():
    """Four blocks of 32 and two spare ones, said as the newer release says it; asked where Transformers is."""
    code = """
import torch
from types import SimpleNamespace
from helpers.servers import transformers_server
layer = torch.zeros(6 * 32, 3, 64, dtype=torch.bfloat16)
layers = {"key_cache": 30 * [layer], "value_cache": 30 * [layer]}
mock_cache = SimpleNamespace(**layers, num_blocks=4, block_size=32, cache_shape=layer.shape)
print(transformers_server.said(mock_cache))
"""
    asked = subprocess.run([kernels.interpreter("transformers"), "-c", code], capture_output=True, text=True, check=True)

    assert metrics.transformers_pool(asked.stdout)[:2] == (128, 192 * KV)


@pytest.mark.engine
def test_groups_of_layers_that_share_transformers_cache():
    """Gemma 3 270M: 3 layers keep every token, 15 a window, 1 KiB each: with a mock of its cache, 18 KiB a token."""
    code = """
from types import SimpleNamespace as Mock
from helpers.servers import transformers_server
page = 32 * 1024
groups = {layers: Mock(bytes_per_block=layers * page, tokens_per_page=32) for layers in (3, 15)}
tensor = Mock(numel=lambda: 102 * 15 * page, element_size=lambda: 1)
cache = Mock(cache_tensor=tensor, cache_allocators=groups, num_sectors=100, bytes_per_sector=15 * page)
print(transformers_server.said(cache))
"""
    asked = subprocess.run([kernels.interpreter("transformers"), "-c", code], capture_output=True, text=True, check=True)
    tokens, size, _, spare = metrics.transformers_pool(asked.stdout)

    assert size / (tokens + spare) == pytest.approx(18 * 2**10, rel=0.001)


def test_vllm_without_the_newer_labels():
    """Blocks times their size, and the log's GiB."""
    page = VLLM.replace('"7372800"', '"None"').replace('"320"', '"None"')

    assert metrics.vllm_pool(page, "INFO Available KV cache memory: 1.50 GiB")[:2] == (320, 1.5 * 2**30)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (lambda: metrics.vllm_pool("", ""), "/metrics has 0 values of vllm:cache_config_info where one is expected"),
        (lambda: metrics.vllm_pool(VLLM.replace('"7372800"', '"None"'), ""), "neither vllm:cache_config_info nor the log"),
        (lambda: metrics.sglang_pool(SGLANG * 2), "/metrics has 2 values of sglang:kv_cache_memory_usage_gb where one is"),
        (lambda: metrics.llama_cpp_pool("listening"), "the log has no line 'llama_kv_cache: size = ...': start the server with"),
        (lambda: metrics.transformers_pool(""), "the log has no line 'KV cache: ...' yet: it is made for the first request"),
    ],
    ids=["vllm", "vllm without bytes", "sglang, two ranks", "llama-cpp", "transformers"],
)
def test_what_is_not_said_is_not_guessed(said, reason):
    """The reason, in one line."""
    with pytest.raises(Unreadable) as caught:
        said()
    assert str(caught.value).startswith(reason)


class TestVerdict:
    """The pool's bytes per token against the formula's."""

    def test_within_two_percent(self):
        """Spare tokens take memory too."""
        verdict = metrics.check_pool(Pool("vLLM", 320, 384 * KV, "its page", spare_tokens=64), KV)

        assert verdict.good is True
        assert verdict.line == (
            "vLLM: 8847360 bytes for 384 tokens of KV pool are 23040 a token, the formula says 23040: +0.00% (its page)"
        )

    @pytest.mark.parametrize(("factor", "good"), [(1.019, True), (1.021, False), (0.979, False), (2, False), (0.5, False)])
    def test_a_wrong_figure_is_found(self, factor, good):
        """A cache in float32 or fp8, a formula without GQA, a page too much."""

        assert metrics.check_pool(Pool("vLLM", 1000, round(1000 * KV * factor), ""), KV).good is good

    def test_not_measurable_is_neither_good_nor_bad(self):
        """And the reason is in the line."""
        verdict = metrics.check_pool(Pool("vLLM", None, None, "/metrics answers HTTP 404"), KV)

        assert (verdict.good, verdict.line) == (None, "vLLM: KV pool not measurable: /metrics answers HTTP 404")


@pytest.mark.parametrize(
    ("before", "after", "reported", "hits"),
    [
        (Hits(32, ""), Hits(96, ""), [None, None], 64),
        (Hits(None, ""), Hits(96, ""), [16, 32], 48),
        (Hits(0, ""), Hits(0, ""), [16, 32], 48),  # a counter that does not count
        (Hits(0, ""), Hits(0, ""), [None, 0], 0),
        (Hits(None, ""), Hits(None, ""), [None, 0], None),
        (Hits(None, ""), Hits(None, ""), [], None),
    ],
)
def test_hits_of_a_block(before, after, reported, hits):
    """The counter's difference or the answers' own figures; ``None`` if neither is known."""
    samples = [Sample(0, cached_tokens=tokens) for tokens in reported]

    assert checks.hits_between(before, after, samples) == hits


def test_a_metrics_page_is_read_by_name_and_label():
    """Names that begin alike are others; a name without labels is one too."""
    page = 'a_total{x="1",y="b, \\"c\\""} 2.0\na_total_created{x="1"} 9e9\na_total 3\n# HELP a_total of all\n'

    assert metrics.rows(page, "a_total") == [({"x": "1", "y": 'b, "c"'}, 2.0), ({}, 3.0)]


@pytest.mark.engine
def test_a_suspended_server_is_not_read_as_empty(monkeypatch):
    """Its page does not come in time: no figure, and what to do."""
    monkeypatch.setattr(metrics, "TIMEOUT_S", 0.5)
    with serving.serve("llama-cpp", slots=2, context=64) as server:
        server.suspend()
        asleep = metrics.cache_hits(server)
        with server.awake():
            awake = metrics.cache_hits(server)

    assert asleep == Hits(None, "/metrics did not answer (timed out): ask inside server.awake()")
    assert awake.tokens == 0


@pytest.mark.engine
def test_a_server_without_metrics_is_said(monkeypatch):
    """A mock of a server's answer: not found is no count of nothing."""
    with serving.serve("llama-cpp", slots=2, context=64) as server:
        monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(404))
        found = metrics.cache_hits(server)

    assert found == Hits(None, "/metrics answers HTTP 404: the server was started without it")
