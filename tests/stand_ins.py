"""Stand-ins for what the cells of the claims look at, and for each claim what would be there if its verdict were false.

A check is a few conditions on values that an engine, a package or a record gave. Here each function gives such values, as
they are on the committed page, so that the check can be run without an engine. Its decorator has a statement for each
claim: what it changes is what the check would meet if the verdict were false. Nothing here was measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace as StandIn

import numpy as np

from helpers import frameworks
from helpers.collection import document, document_figures
from helpers.gpu.recorded import read, tables, today
from helpers.lessons.memory import allocation
from helpers.lessons.quantization import support as quant_support
from helpers.lessons.scaling import launch
from helpers.lessons.structured import features
from helpers.studies import standings
from helpers.weights import shapes, sizes

Values = dict[str, object]
WORLDS: dict[str, tuple[Callable[[], Values], str]] = {}  # a claim to its check's values and the statement that contradicts it


def contradicted(**statements: str) -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """Keep a function that gives the values of one check, and a statement for each claim that rests on it."""

    def keep(values: Callable[[], Values]) -> Callable[[], Values]:
        WORLDS.update({id: (values, statement) for id, statement in statements.items()})
        return values

    return keep


class Inputs(dict):
    """What a tokenizer of Transformers returns: a mapping whose entries are attributes too."""

    __getattr__ = dict.__getitem__


def figure(median: float) -> StandIn:
    return StandIn(median=median, low=median, high=median)


def level(users: int, rate: float, ttft_s: float, samples: int = 4) -> StandIn:
    """One number of users of a measurement, without a failure."""
    one = StandIn(prompt_tokens=64, output_tokens=32, token_source="server_usage")
    latency = {"ttft_s": {"median": ttft_s}}
    given = {"users": users, "output_tokens_per_s": figure(rate), "latency": latency.__getitem__}
    return StandIn(**given, samples=[one] * samples, error_kinds={})


def levels() -> dict[str, list[StandIn]]:
    """Three engines with 1 and 10 users."""
    rates = {"transformers": (21, 95), "vllm": (34, 180), "llama-cpp-q4_0": (120, 160)}
    return {name: [level(n, rate, 0.1 * n) for n, rate in zip((1, 10), two)] for name, two in rates.items()}


# 02 · HF Transformers


@contradicted(C002="output = output[:, :5]")  # without a GPU no token comes
def generated() -> Values:
    output = np.arange(21).reshape(1, 21)
    model = StandIn(generate=lambda **how: output)
    return {
        "output": output, "inputs": Inputs(input_ids=np.zeros((1, 5))), "fixed": {}, "model": model,
        "torch": StandIn(equal=np.array_equal),
    }  # fmt: skip


@contradicted(
    C029="seen.hidden_states = seen.hidden_states[-1:]",  # the last state alone can be read
    C081="likely.indices = [np.int64(8)]",  # the logits that are read are not those that generate uses
)
def looked_inside() -> Values:
    return {
        "np": np, "likely": StandIn(indices=[np.int64(7)]), "new_tokens": [np.int64(7)],
        "seen": StandIn(hidden_states=[0] * 31), "shape": StandIn(layers=30),
    }  # fmt: skip


@contradicted(C001='said["merged"] = said["base"]', C024="losses = [9.4, 9.6]")  # it does not learn
def trained() -> Values:
    said = {"base": " are birds", "adapter": " learned it.", "merged": " learned it."}
    return {"losses": [9.4, 7.4, 5.3, 3.0, 1.6], "said": said, "lora": StandIn(LEARNED=" learned it.")}


@contradicted(C027="finished.sort(key=lambda one: list(limits).index(one.request_id))")  # each waits for the one before
def left_one_by_one() -> Values:
    limits = {"long": 36, "short": 4, "middle": 16}
    ends = ("short", "middle", "long")
    finished = [StandIn(request_id=name, generated_tokens=[0] * limits[name]) for name in ends]
    return {"limits": limits, "finished": finished}


@contradicted(C030='today = ""', C031='old = "Hello, world and so on"')  # no text; the limit of 6 is kept
def pipelines() -> Values:
    return {"tokenizer": StandIn(tokenize=str.split), "old": "Hello, world-building " + "word " * 100, "today": "word " * 20}


# 03 · vLLM


@contradicted(**dict.fromkeys(("C006", "C038", "C042"), "output.outputs[0].token_ids = []"))  # nothing comes on a CPU
def generated_by_vllm() -> Values:
    output = StandIn(outputs=[StandIn(token_ids=list(range(16)))])
    llm = StandIn(generate=lambda *asked, **how: [output])
    return {"output": output, "llm": llm, "fixed": None}


@contradicted(C032="rate[32] = rate[8] = rate[1]")  # requests in turn
def batched() -> Values:
    return {"rate": {1: figure(32), 8: figure(210), 32: figure(528)}}


@contradicted(C034="cache.num_gpu_blocks, cache.block_size = 8, 1024")  # one room of full length for each request
def pages_of_vllm() -> Values:
    cache = StandIn(num_gpu_blocks=256, block_size=32, kv_cache_max_concurrency=8.0)
    asked = {"per_token": 23_040, "pool": {"kv_cache_memory_bytes": 8192 * 23_040}, "longest": 1024}
    return {"cache": cache, "pages": lambda tokens: -(-tokens // cache.block_size), **asked}


@contradicted(C036='timed.error = "HTTP 404"')
def asked_over_http() -> Values:
    return {"timed": StandIn(error=None, prompt_tokens=32, output_tokens=16)}


@contradicted(C035="before, after = len(long.event_ns), 0")  # the short one waits until the long one has ended
def decoded_together() -> Values:
    return {"one_core": False, "before": 18, "after": 71, "long": StandIn(event_ns=[0] * 96)}


@contradicted(C044="llm.generate = lambda prompts, *how, **more: [empty] * len(prompts)")  # the snippet gives nothing
def drawn_at_random() -> Values:
    texts = iter(("an answer", "another", "a third", "a fourth"))
    result = lambda text: StandIn(outputs=[StandIn(token_ids=[0] * 20 * len(text.split()), text=text)])  # noqa: E731
    llm = StandIn(generate=lambda prompts, *how, **more: [result(next(texts)) for _ in prompts])
    return {"llm": llm, "SamplingParams": dict, "empty": result("")}


# 04 · llama.cpp


class Llama:
    """Answers 24 tokens, always the same."""

    def __call__(self, prompt: str, **how: object) -> dict:
        return {"usage": {"completion_tokens": 24}, "choices": ["Paris."]}

    def reset(self) -> None: ...


@contradicted(
    C009='output = {"usage": {"completion_tokens": 0}, "choices": []}',  # nothing comes on two cores
    C048='output = {"usage": {"completion_tokens": 0}, "choices": []}',
)
def answered_by_llama() -> Values:
    return {"llm": Llama(), "output": Llama()(""), "fixed": {}}


@contradicted(C054="anonymous_added = 300 * 2**20")  # more than the weights in 16 bits
def held_by_llama() -> Values:
    return {
        "state_bytes": 623_149, "llm": StandIn(n_tokens=27), "per_token": 23_040, "on_gpu": False,
        "file_mapped": 92 * 2**20, "anonymous_added": 29 * 2**20, "small": 24 * 2**20, "large": 90 * 2**20,
        "sizes": StandIn(weights_bytes={"gguf": 96_576_768}.__getitem__),
        "bounds": StandIn(work=lambda form: StandIn(parameters=134_515_008)), "shape": StandIn(kept=None),
    }  # fmt: skip


@contradicted(
    C045="weights = weights + 1",  # there are no such blocks
    C047='read["gguf-q4_0"] = read["gguf-bf16"]',
    C056="block = block[:16]",  # four bits, as the name says
)
def unpacked() -> Values:
    weights = np.arange(32, dtype=np.float32)
    tensor = StandIn(data=None, tensor_type=None)
    return {
        "np": np, "quants": StandIn(dequantize=lambda data, kind: np.arange(64, dtype=np.float32)), "tensor": tensor,
        "weights": weights, "block": np.zeros(18, np.uint8), "read": {"gguf-q4_0": 89_941_248, "gguf-bf16": 269_100_288},
    }  # fmt: skip


@contradicted(
    C012="together[32] = 1",  # more slots, and nothing is shared
    C089="together[32] = 1",
    C096='found[1][1] = level(8, 100, found[1][0].latency("ttft_s")["median"])',  # nobody waits
)
def slots() -> Values:
    return {"level": level, "together": {1: 1, 32: 8}, "found": {1: [level(1, 97, 0.052), level(8, 100, 0.880)]}}


@contradicted(C055="main_runs = True")
def main_is_gone() -> Values:
    return {"main_runs": False, "hello": {"usage": {"completion_tokens": 50}}}


# 05 · SGLang


def completion(text: str, tokens: int = 16, finish_reason: str = "length") -> StandIn:
    """What the `openai` client returns for one prompt."""
    choice = StandIn(text=text, finish_reason=finish_reason)
    return StandIn(choices=[choice], usage=StandIn(completion_tokens=tokens))


@contradicted(C014="output.usage.completion_tokens = 0")  # nothing comes on a CPU
def generated_by_sglang() -> Values:
    api = StandIn(completions=StandIn(create=lambda **how: completion(" Paris.")))
    return {"api": api, "fixed": {}, "named": {}, "output": completion(" Paris.")}


@contradicted(C059="cached.update(dict.fromkeys(cached, 0))")  # nothing is shared
def radix() -> Values:
    return {"cached": {"root": 0, "a": 300, "b": 300, "c": 300, "a, then more": 350}}


@contradicted(C066="warm_s = cold_s")  # found, and as slow as before
def cold_and_warm() -> Values:
    rounds = {"cold": [(0, 0.400), (0, 0.386)], "warm": [(299, 0.139), (299, 0.134)]}
    return {**rounds, "cold_s": 0.393, "warm_s": 0.1365, "machine": StandIn(has_gpu=lambda: False)}


@contradicted(C060='forked["tips"] = ["", ""]')  # the forks say nothing
def programs() -> Values:
    told = {"cached_tokens": 20, "prompt_tokens": 27}
    forked = {"tips": ["A walk.", "No lamp."], "told": [told, told]}
    return {"state": {"answer": "It is Paris.", "size": "small"}, "forked": forked}


@contradicted(
    C058='cut.choices[0].text = "{}"',  # valid although it was cut
    C062='kept.choices[0].text = \'{"city": "Rome"}\'',  # over HTTP the schema is not kept
)
def schema_over_http() -> Values:
    import json

    kept = completion('{"name": "Mike", "population": 10000000}', finish_reason="stop")
    return {"json": json, "kept": kept, "cut": completion('{\n  "name')}


@contradicted(C067="sgl.gen_json = print")
def gen_json() -> Values:
    import json

    program = StandIn(run=lambda **how: {"data": '{"name": "Rome", "population": 1}'})
    sgl = StandIn(function=lambda function: program, gen=print)
    ended = StandIn(process=StandIn(poll=lambda: 0))
    return {"json": json, "sgl": sgl, "schema": {}, "running": StandIn(close=lambda: None), "server": ended}


# 07 · Throughput and latency


@contradicted(C146='measured["vllm"][1].error_kinds = {"HTTP 404": 3}')  # a server that the client cannot talk to
def the_same_work() -> Values:
    return {"measured": levels()}


@contradicted(
    C026='gain["transformers"] = 35 / 30',  # as the document has it
    C086='gain["transformers"] = 35 / 30',
    **dict.fromkeys(("C005", "C008", "C041"), 'gain["vllm"] = 1'),  # no more for ten than for one
    C043='measured["vllm"][1] = level(10, 180, 0.1)',  # the first token is not later
)
def ten_users() -> Values:
    gain = {"transformers": 4.5, "vllm": 5.3, "llama-cpp-q4_0": 1.3}
    machine = StandIn(has_gpu=lambda: False, multiplies_bf16=lambda: True)
    return {"measured": levels(), "level": level, "gain": gain, "machine": machine}


@contradicted(C061='talk[frameworks.label("llama-cpp-q4_0")]["cached in turn 3"] = 0')  # no other than SGLang has such a cache
def conversation() -> Values:
    names = ("transformers", "vllm", "llama-cpp-q4_0")
    row = {"turn 3, ms": 125, "new, ms": 200, "cached in turn 3": 128}
    talk = {frameworks.label(name): dict(row) for name in names}
    machine = StandIn(has_gpu=lambda: False)
    return {"talk": talk, "servers": dict.fromkeys(names), "frameworks": frameworks, "machine": machine}


def span(median: float) -> dict[str, float]:
    """A figure of a record, its repeats 2 % apart."""
    return {"median": median, "low": 0.99 * median, "high": 1.01 * median}


@contradicted(
    C080='record["engines"]["llama-cpp"] = [{"users": n, "output_tokens_per_s": span(900)} for n in (1, 10, 100)]',  # always
    C028='record["guards"]["transformers"]["kv_pool"]["good"] = None',  # its server has no pool that can be read
)
def a_hundred_users() -> Values:
    rates = {"transformers": (21, 95, 44), "vllm": (42, 240, 440), "llama-cpp": (97, 112, 135), "llama-cpp-bf16": (60, 100, 120)}
    engines = {
        name: [{"users": n, "output_tokens_per_s": span(rate)} for n, rate in zip((1, 10, 100), three)]
        for name, three in rates.items()
    }
    record = {"engines": engines, "guards": {name: {"kv_pool": {"good": True}} for name in engines}}
    return {"record": record, "span": span, "frameworks": frameworks, "standings": standings}


@contradicted(
    C010='del rates["llama-cpp"]',  # on a GPU it did not run
    C052='rates["llama-cpp"][100], rates["vllm"][100] = rates["vllm"][100], rates["llama-cpp"][100]',
    C084='rates["llama-cpp"][100] = {"median": 1.2 * rates["vllm"][100]["median"]}',  # llama.cpp is ahead
    C098='prefix["SGLang, prefix"]["common"] = prefix["SGLang, prefix"]["own"]',  # found in the cache, and not sooner
)
def served() -> Values:
    gpu = today.load()
    rates, prefix = ({name: dict(of) for name, of in found(gpu).items()} for found in (read.served, read.prefix_firsts))
    ways = {"vllm": "as it comes", "sglang": "as it comes", "llama-cpp": "q4_0"}
    kept = {name: read.server_share(gpu, name, 100, option) for name, option in ways.items()}
    given = StandIn(served=lambda gpu: rates, levels=read.levels, prefix_firsts=lambda gpu: prefix, every_rate=read.every_rate)
    return {"read": given, "gpu": gpu, "rates": rates, "prefix": prefix, "kept": kept, "standings": standings}


@contradicted(C016='large.loc["SGLang", "100 users, measured"] = "1.0"')  # no more for a hundred than for one
def factors() -> Values:
    return {"large": document_figures.gains_on_gpu(read.served(read.load("speed")))}


# 08 · Memory


@contradicted(C100='of_7b["bfloat16"] /= 2', C101='of_7b["q4_0"] *= 2')
def of_7b() -> Values:
    parameters = shapes.of("Llama-2-7B").parameters
    return {
        "of_7b": {kind: sizes.bytes_of(parameters, kind) for kind in ("bfloat16", "q4_0")},
        "stored": {"safetensors": 269_030_016, "gguf": 96_576_768},
        "computed": {"safetensors": 269_030_016, "gguf": 84_071_880},
    }


@contradicted(C107='rows["Llama-3.1-8B"] = rows["Llama-2-7B"]')  # the same at the same size
def bytes_per_token() -> Values:
    known = shapes.known().items()
    return {"rows": {name: {"KiB per token": sizes.kv_bytes_per_token(sheet.shape) / 2**10} for name, sheet in known}}


@contradicted(C106='verdicts["llama-cpp"].good = False')  # one engine keeps a token in other bytes
def pools_of_four() -> Values:
    verdicts = {name: StandIn(good=True) for name in ("transformers", "vllm", "sglang", "llama-cpp")}
    return {"verdicts": verdicts}


@contradicted(
    C102='each["HuggingFace"] = 2048',  # the figures would be enough for users with a prompt
    C103='each["vLLM"] = 2048',
    C104='fewer_bits["q4_0"] = 2048',
    C105="hundred = lambda common, own: [1.5, 1.5]",  # sharing is no matter of the prompts
)
def hundred_users() -> Values:
    shape = shapes.of("Llama-2-7B").shape
    per = {"Llama-2-7B": sizes.kv_bytes_per_token(shape)}
    document = {"HuggingFace": 10, "vLLM": 2, "llama.cpp": 1}
    fewer = {kind: round(1e9 / sizes.kv_bytes_per_token(shape, kind) / 100) for kind in ("q8_0", "q4_0")}

    def hundred(common: int, own: int) -> list[float]:
        starts = range(10_000, 1_010_000, 10_000)
        users = [tuple(range(common)) + tuple(range(start, start + own)) for start in starts]
        requests = [allocation.Request(user, output_tokens=1) for user in users]
        two_ways = allocation.shared(requests, 1), allocation.paged(requests, 1)
        return [way.peak.reserved * per["Llama-2-7B"] / 1e9 for way in two_ways]

    each = {name: round(gb * 1e9 / per["Llama-2-7B"] / 100) for name, gb in document.items()}
    return {"each": each, "fewer_bits": fewer, "per": per, "hundred": hundred}


# 09 · Structured output


@contradicted(
    C065='probed["vllm"]["tool calls"].verdict = features.IGNORES',  # SGLang alone calls a function
    C082='found["llama.cpp, response_format"][1][0].valid = False',
)
def forms() -> Values:
    def answers(valid: bool) -> list[StandIn]:
        return [StandIn(valid=valid, finish_reason="stop"), StandIn(valid=False, finish_reason="length")]

    names = ("HF Transformers, xgrammar", "llama.cpp, response_format", "vLLM, response_format", "SGLang, response_format")
    probed = {name: {"tool calls": StandIn(verdict=features.WORKS)} for name in ("llama-cpp", "vllm", "sglang")}
    found = {name: (answers(False)[1:], answers(True)) for name in names}
    return {"found": found, "probed": probed, "features": features}


@contradicted(C063='masked["constrained / free"] = "1.00"')
def masks() -> Values:
    day, other = {"vLLM": 1.41, "llama.cpp": 1.69}, {"vLLM": 1.18, "SGLang": 1.45, "llama.cpp": 1.56}
    return {"masked": tables.answers(), "each_day": {"one day": day, "another": other}}


@contradicted(C110='wrong.value = "Paris"')
def valid_and_wrong() -> Values:
    return {"wrong": StandIn(valid=True, value="Tokyo")}


# 10 · Speculative decoding


def counts(tokens_per_step: float, acceptance: float = 0.5) -> StandIn:
    return StandIn(tokens_per_step=tokens_per_step, acceptance=acceptance)


@contradicted(C115='assisted["runs"]["copy"]["ids"] = [9]')  # other tokens than without
def assisted_and_lookup() -> Values:
    found = {task: {"plain": {"ids": [1, 2]}} for task in ("copy", "free")}
    runs = {task: {"ids": [1, 2]} for task in found}
    values = {"found": found, "assisted": {"runs": runs}, "same": {"HF Transformers": True}, "on_gpu": False}
    return values | {"refusals": {"two at once": "assisted generate is only supported for batch_size = 1"}}


@contradicted(C116='ngram["copy"].tokens_per_step = 1.0')  # nothing is accepted
def ngrams() -> Values:
    said = {"copy": {"same": True}, "free": {"same": True}}
    ngram = {"copy": counts(3.0, 0.8), "free": counts(1.09, 0.5)}
    return {"same": {}, "vllm_said": said, "ngram": ngram, "on_gpu": False}


@contradicted(C117='llama_kinds = ["draft-simple", "draft-eagle3"]')  # all of them need a model
def without_a_draft() -> Values:
    simple = {"copy": counts(3.2), "free": counts(1.03)}
    kinds = ["draft-simple", "draft-eagle3", "ngram-simple"]
    return {"same": {}, "equal": {"copy": True, "free": True}, "on_gpu": False, "simple": simple, "llama_kinds": kinds}


@contradicted(C118="algorithms = []")
def algorithms() -> Values:
    names = ["DFLASH", "UNO", "DSPARK", "EAGLE", "EAGLE3", "FROZEN_KV_MTP", "STANDALONE", "NGRAM"]
    return {"algorithms": names}


# 11 · Quantization


@contradicted(
    C051='scored["Q8_0"].kl = scored["Q4_0"].kl',  # every type loses alike
    C130='scored["Q8_0"].kl = 9.0',  # the file is there and says something else
    C131='scored["Q4_0"].kl = 9.0',
)
def scored() -> Values:
    def quality(kl: float, ratio_se: float = 0.02) -> StandIn:
        return StandIn(kl=kl, ratio_se=ratio_se, perplexity=21.4, perplexity_se=2.4)

    kl = {"Q4_K_M": 0.056, "Q4_0": 0.251, "Q4_1, the source": 0.003}
    return {"scored": {name: quality(value) for name, value in kl.items()} | {"Q8_0": quality(0.004, 0.004)}}


@contradicted(C125='layers[0] = "UnquantizedLinearMethod"')
def int8_layers() -> Values:
    models = StandIn(shape=lambda: StandIn(layers=30))
    return {"layers": ["CompressedTensorsW8A8Int8"] * 120, "models": models, "w8a8": 24.8, "lost": {"bf16": {"perplexity": 24.1}}}


def no_longer(framework: str, method: str) -> str:
    """The statement after which ``framework`` answers the opposite for ``method``."""
    return f"answer({framework!r}, {method!r}, turned=True)"


def only_read(framework: str, method: str) -> str:
    """The statement after which nothing was computed with it here."""
    return f"answer({framework!r}, {method!r}, known='in the package')"


@contradicted(
    C120=only_read("transformers", "INT8"),
    C121=only_read("transformers", "INT4"),
    C122=only_read("transformers", "FP8"),
    C123=no_longer("transformers", "GPTQ"),
    C124=no_longer("transformers", "AWQ"),
    C126=no_longer("vllm", "INT4"),
    C127=no_longer("vllm", "FP8"),
    C128=no_longer("vllm", "GPTQ"),
    C129=no_longer("vllm", "AWQ"),
    C132=no_longer("llama-cpp", "FP8"),
    C133=no_longer("llama-cpp", "GPTQ"),
    C134=no_longer("llama-cpp", "AWQ"),
    C135=no_longer("sglang", "INT8"),
    C136=no_longer("sglang", "INT4"),
    C137=no_longer("sglang", "FP8"),
    C138=no_longer("sglang", "GPTQ"),
    C139=no_longer("sglang", "AWQ"),
)
def who_takes_what() -> Values:
    support = [cell for name in quant_support.FRAMEWORKS for cell in quant_support.cited(name)]
    ran = (("transformers", "INT8"), ("transformers", "INT4"), ("transformers", "FP8"), ("llama-cpp", "INT4"))
    support = quant_support.with_runs(support, dict.fromkeys(ran, "scored above"))

    def answer(framework: str, method: str, turned: bool = False, **changes: object) -> None:
        (i,) = [i for i, cell in enumerate(support) if (cell.framework, cell.method) == (framework, method)]
        support[i] = replace(support[i], supported=support[i].supported != turned, **changes)

    said = document.by_framework("quantization")
    return {"support": support, "quant_support": quant_support, "said": said, "answer": answer}


# 12 to 14 · Deployment, scaling, the decision


@contradicted(C109='done["stalled"][0][0].error, done["stalled"][0][0].text = "Timeout", None')  # a request is lost
def no_request_lost() -> Values:
    def answers() -> tuple[list[StandIn], list[StandIn]]:
        return [StandIn(error=None, text="so", by=by) for by in ("remote", "local")], [
            StandIn(error=None, text="so", by="private")
        ]

    done = {fault: answers() for fault in ("killed", "stalled", "overloaded", "limited")}
    return {"done": done, "sent": [5, 2], "stalled": {"cooldown": answers()[0]}}


@contradicted(C114='second[0] = StandIn(text="tea", by="structured", error=None)')  # nobody takes over, or without the schema
def routed() -> Values:
    form = '{"item": "tea", "quantity": 3}'
    first = [StandIn(text=form, by="structured", error=None), StandIn(text="so", by="private", error=None)]
    second = [StandIn(text=form, by="batch", error=None), StandIn(text=None, by=None, error="Connection error.")]
    return {"first": first, "second": second, "order_pipeline": order_pipeline(), "StandIn": StandIn}


def order_pipeline() -> object:
    from helpers.lessons.deployment import order_pipeline

    return order_pipeline


@contradicted(C113='snippet = snippet.replace("sglang", "sglang as sgl")')  # sgl is a name
def snippet_stops() -> Values:
    return {"clash": {"torch": ("2.13.0", "2.14.1")}, "snippet": "import sglang\nsgl.set_default_backend(...)"}


@contradicted(C037="vllm_took = vllm_took[1:]")  # its parser refuses a line with --tensor-parallel-size
def parsed() -> Values:
    usual = {"tensor_parallel_size": 8, "nnodes": 2, "enable_expert_parallel": True, "max_model_len": 8192}
    return {"launch": launch, "vllm_took": [usual] * (len(launch.examples("vllm")) + 1)}


@contradicted(
    C004='gpu.loc["HF Transformers, static batch", "100 users"] = gpu.loc["vLLM, offline", "100 users"]',  # a batch is as fast
)
def gained_on_gpu() -> Values:
    large = document_figures.gains_on_gpu(read.served())
    return {"gpu": tables.throughput(), "now": today.throughput(), "large": large, "document_figures": document_figures}


@contradicted(C087='held.loc["HF Transformers, static batch", "most users"] = "100 fit"')  # whatever PyTorch is told
def a_hundred_in_a_batch() -> Values:
    return {"gpu": tables.throughput(), "held": tables.memory_use()}


@contradicted(C085='taken = Counter({"vLLM or SGLang": taken.total()})')  # what it does not ask changes nothing
def open_cases() -> Values:
    return {"taken": Counter({"vLLM or SGLang": 40, "llama.cpp": 8}), "Counter": Counter}


# 15 · References and glossary


@contradicted(C111="clash.clear()")  # one environment holds both
def clashes() -> Values:
    names = ("torch", "numba", "compressed-tensors", "xgrammar")
    return {"clash": dict.fromkeys(names, ("0.1", "0.2"))}


@contradicted(C112="clash.clear()")
def one_script() -> Values:
    return clashes() | {"read": {"share": 0.92}}


@contradicted(C021="sglang_requires.clear()")
def requirements() -> Values:
    return {"re": re, "vllm_requires": ["torch", "transformers>=5"], "sglang_requires": ["transformers==5.19.0"]}


@contradicted(
    C013='sglang_says += " It is made for structured output."',
    C057='sglang_says = "SGLang is a structured generation language with RadixAttention"',
)
def described() -> Values:
    return {"sglang_says": "an open-source inference framework, optimized for agentic workloads"}


@contradicted(C023='counted = ["200K+"]')
def models_counted() -> Values:
    return {"counted": ["1M+"]}


@contradicted(C040='read["arguments"].remove("logits_processors")')
def arguments_of_vllm() -> Values:
    return {"read": {"arguments": ["model", "tensor_parallel_size", "logits_processors"]}}


@contradicted(C053="gguf.MODEL_ARCH = gguf.MODEL_ARCH[:100]")
def architectures() -> Values:
    return {"gguf": StandIn(MODEL_ARCH=["one"] * 126)}


@contradicted(C068="undefined.clear()")  # every name is defined
def defined_nowhere() -> Values:
    return {"undefined": ["my_schema", "sgl"]}
