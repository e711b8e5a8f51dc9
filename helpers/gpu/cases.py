"""What is measured on GPUs: a run is a list of lives, the most important first.

A life is one start of one engine: which engine, what is done with it, and with which option. A budget of time that is
too short then costs the least important ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from helpers.lessons.scaling.parallelism import Layout

LONG = {"input_tokens": 1024, "output_tokens": 32}  # the common prefix: it is the prompts that matter
ROOM = {"context": 1024 + 128 + 32, "prefix": LONG}
PLAIN = "as it comes"
SHORT = "short context"  # as it comes, with no more room than 128 tokens in and out take: what the other options are beside
WHOLE = {"stream": False, "stream_options": None}
WAYS = {  # a way's request fields, beside those of :class:`helpers.bench.client.Endpoint`
    "streamed": {},
    "in one piece": WHOLE,
    "in one piece, one sampler": {**WHOLE, "samplers": ["top_k"], "top_k": 1},  # instead of llama.cpp's whole chain
    "in one piece, sampled on the GPU": {**WHOLE, "backend_sampling": True},
}


@dataclass(frozen=True)
class Life:
    """One start of one engine.

    ``work`` names what is done (an entry of ``helpers.gpu.tasks.WORKS``), ``option`` what is changed of the engine (an entry of
    ``helpers.gpu.variants.OPTIONS``). It is started only if ``least_s`` seconds are left, what it needs at the least. Without a
    ``shape`` of its own it has the run's; ``layout`` says over how many GPUs it lies, and how.
    """

    engine: str
    work: str
    option: str
    least_s: float
    given: Mapping = field(default_factory=dict)  # more for the work: lengths, users, tasks
    shape: str = ""
    layout: Layout = Layout()

    @property
    def key(self) -> str:
        several = str(self.layout) if self.layout.gpus > 1 else ""
        return ", ".join(filter(None, (self.engine, self.work, self.option, self.shape, several)))


def speed() -> list[Life]:
    """128 tokens in, 128 out, offline and through the servers; with it, 100 users with a common prefix.

    Offline the prefix cache is off, in the server it is on, as it is by default; prompts with nothing in
    common find nothing in it.
    """
    return [
        Life("vllm", "offline", PLAIN, 90, ROOM | {"tasks": ["speed", "prefix"]}),
        Life("vllm", "server", "prefix cache", 100, ROOM),
        Life("sglang", "offline", PLAIN, 120, ROOM | {"tasks": ["speed", "prefix"]}),
        Life("sglang", "server", "prefix cache", 120, ROOM),
        Life("llama-cpp", "offline", "q4_0", 30),
        Life("llama-cpp", "server", "q4_0", 40),
        Life("transformers", "offline", PLAIN, 70),
        Life("llama-cpp", "offline", "f16", 50),
        Life("llama-cpp", "server", "f16", 50),
        Life("transformers", "offline", "one by one", 70, {"users": [1, 10], "repeats": 1}),
        Life("machine", "instrument", PLAIN, 45),
        Life("transformers", "offline", "generate_batch", 80),
        Life("tensorrt-llm", "offline", PLAIN, 120),  # where it is installed; else its reason is recorded
    ]


def memory() -> list[Life]:
    """1,024 tokens in: the roof, llama.cpp's pool and prefix, where Transformers runs out of memory."""
    search = {
        "input_tokens": 1024, "output_tokens": 128, "tasks": ["memory"], "search_tokens": 4, "most_users": 1024,
        "each_probe": True,  # what is recorded: a search that was recorded without its probes is made again
    }  # fmt: skip
    pool = {"context": ROOM["context"], "tell_pool": True}
    return [
        Life("machine", "roof", PLAIN, 15),
        Life("transformers", "memory", PLAIN, 60, search),
        Life("transformers", "memory", "expandable segments", 60, search),
        Life("llama-cpp", "prefix", "q4_0", 60, ROOM),
        Life("llama-cpp", "pool", "q4_0", 15, pool),
        Life("llama-cpp", "pool", "f16", 30, pool),
    ]


def options() -> list[Life]:
    """Each engine with one thing changed; then a real, small model with drafts and a JSON schema; last what takes longest."""
    order = {
        "vllm": ("fp8 weights", "no graphs, no compile", "fp8 weights and KV", "no compile", "prefix cache"),
        "sglang": ("fp8 weights", "no graphs", "fp8 weights and KV", "prefix cache"),
    }
    turns = [(engine, names[i]) for i in range(5) for engine, names in order.items() if i < len(names)]
    changed = [Life(engine, "offline", option, 80 if engine == "vllm" else 100) for engine, option in turns]
    several = {"tasks_per_user": 8}  # a single answer is over in some hundredths of a second
    masks = several | {"decoder": "bytes"}  # those recorded without had masks for another vocabulary (helpers.weights.convert)
    real = [Life("llama-cpp", "real", "plain", 50, several), *(Life(e, "real", "plain", 50, masks) for e in ("vllm", "sglang"))]
    drafts = [Life(engine, "real", "n-gram drafts", 50, several) for engine in ("llama-cpp", "vllm")]
    reasons = [
        Life("vllm", "offline", SHORT, 80),  # the others' setting: beside it they differ in one thing
        Life("llama-cpp", "server", "q4_0, sampled on the GPU", 60, {"users": [100]}),  # its bench does not sample at all
        Life("llama-cpp", "streaming", "q4_0", 40, {"ways": list(WAYS)}),  # nor does it hand a token to anybody
        Life("sglang", "offline", SHORT, 100),
    ]
    slow = [Life("transformers", "offline", "static cache, compiled", 120, {"users": [1, 100]})]
    return [*changed[:4], *real, *drafts, *reasons[:3], *changed[4:], *reasons[3:], *slow]


LLAMA, MOE, LARGE, OLD = "Llama-3.1-8B", "Qwen3-30B-A3B", "Llama-3.1-70B", "Llama-2-7B"
LIMITS = {"ttft_s": 0.5, "tpot_s": 0.05}  # what a request must keep to count for the goodput
BRIEF = {"tasks": ["speed", "prefill"], "prefill_tokens": [2048, 8192], "context": 8192 + 256 + 32}
LONGER = [[1024, 1024, [1, 100]], [8192, 256, [1, 32]]]  # tokens in, out, and the users of each
FULL = BRIEF | {"tasks": ["speed", "prefill", "longer"], "longer": LONGER}
OLD_FULL = {"tasks": ["speed", "prefill"], "prefill_tokens": [2048], "context": 2048 + 32}


PREFILLS = {  # a GPU that only prefills is busy for five sixths of the time with the first load, and too slow for the last rate
    "ways": ["together", "apart"], "context": BRIEF["context"], "slots": 256, "pool": 2**18,
    "users": 32, "requests": 2, "input_tokens": 1024, "output_tokens": 256,
    "long_tokens": 8192, "long_output_tokens": 16, "every_s": 0.5, "most_long": 60,
    "arrivals": {"input_tokens": 2048, "output_tokens": 128, "rates_per_s": [8, 16, 24], "seconds": 12},
}  # fmt: skip


def arrivals(gpus: int) -> dict:
    """Requests that arrive at random, at rates that rise until hardly one in two keeps :data:`LIMITS`; more for more GPUs."""
    rates = [gpus * rate for rate in (8, 16, 24, 32, 40, 48)]
    return {"input_tokens": 1024, "output_tokens": 128, "rates_per_s": rates, "seconds": 12, "limits": LIMITS, "least": 0.5}


def _served(gpus: int, **more) -> dict:
    """The context of the API's lives, so that an engine finds what it has compiled for them; slots enough for every rate."""
    return {"context": FULL["context"], "slots": 512, "arrivals": arrivals(gpus), **more}


ALIKE = {  # of prompts that begin alike, in a turn: 256 requests, so that three turns support a 99th percentile
    "groups": 32, "each": 8, "common_tokens": 2048, "own_tokens": 64, "output_tokens": 32, "users": 32,
}  # fmt: skip
KILLED = {  # two copies are about as busy with so many users as they can be, and one has slots for all of them
    "users": 128, "requests": 3000, "input_tokens": 1024, "output_tokens": 128, "seconds": 30, "kill_s": 10,
}  # fmt: skip


def routed(gpus: int) -> dict:
    """For copies behind a router: the arrivals of :func:`_served`, with as many slots a copy as an engine has here otherwise."""
    return {"context": FULL["context"], "arrivals": arrivals(gpus), "shared": ALIKE, "killed": KILLED}


def scaling() -> list[Life]:
    """One model over several GPUs, and copies of it: beside each the same engine on one GPU.

    Those that need more GPUs than the machine has are left out (:func:`helpers.gpu.runs.chosen`).
    """
    two, four, cached = Layout(2), Layout(4), "prefix cache"
    experts = [Layout(), two, Layout(2, ep=True), four, Layout(4, ep=True)]
    return [
        *(Life("machine", "links", PLAIN, 20, layout=layout) for layout in (two, four)),
        *(Life(engine, "offline", PLAIN, 90, FULL, LLAMA, layout)
          for layout in (Layout(), two, four) for engine in ("vllm", "sglang")),
        *(Life("vllm", "offline", "fp8 weights", 100, BRIEF, LARGE, layout) for layout in (two, four)),
        *(Life("vllm", "offline", PLAIN, 90, BRIEF, MOE, layout) for layout in experts),
        *(Life(engine, "server", cached, 120, _served(1), LLAMA) for engine in ("vllm", "sglang")),
        *(Life("vllm", "server", cached, 100, _served(layout.gpus, users=[]), LLAMA, layout)
          for layout in (two, Layout(dp=2), four, Layout(dp=4))),
        Life("vllm", "offline", PLAIN, 90, BRIEF, LLAMA, Layout(pp=2)),
        *(Life("vllm", "offline", "fp8 weights", 100, BRIEF, LARGE, layout) for layout in (Layout(pp=2), Layout(2, 2))),
        *(Life("sglang", "server", cached, 100, _served(layout.gpus, users=[]), LLAMA, layout)
          for layout in (two, four)),
        Life("sglang", "offline", PLAIN, 90, BRIEF, MOE),
        *(Life("sglang", "offline", PLAIN, 90, BRIEF, MOE, layout) for layout in (two, four)),
        Life("vllm", "routed", cached, 180, routed(2), LLAMA, Layout(dp=2)),
        Life("vllm", "offline", PLAIN, 100, BRIEF, LARGE, two),
        *_apart(Layout(dp=2)),
    ]  # fmt: skip


def _apart(two: Layout) -> list[Life]:
    """Prefill and decoding apart against the same GPUs together: vLLM's servers do both in one start, SGLang's one of them."""
    ways = {way: PREFILLS | {"ways": [way]} for way in PREFILLS["ways"]}
    return [
        Life("vllm", "apart", "NIXL", 200, PREFILLS, LLAMA, two),
        Life("sglang", "apart", "NIXL", 150, ways["apart"], LLAMA, two),
        Life("sglang", "apart", "prefix cache", 150, ways["together"], LLAMA, two),
        *(Life("vllm", "apart", option, 200, PREFILLS, LLAMA, two)
          for option in ("NIXL, written by the prefill", "NIXL, pages of 64", "NIXL, through the machine's memory")),
    ]  # fmt: skip


FEWER = {  # as for the others, at rates that its server reaches
    "context": 1024 + 128 + 32, "slots": 128, "users": [], "arrivals": {**arrivals(1), "rates_per_s": [1, 2, 4, 6, 8, 12]},
}  # fmt: skip
TALKS = {"context": 4096, "users": 32, "requests": 2, "turns": 4, "input_tokens": 512, "output_tokens": 128}


def today() -> list[Life]:
    """One GPU, shapes of today beside the document's: offline and served, FP8, llama.cpp's types, the long common prefix."""
    long_prefix = {"context": 4096 + 64, "prefix": {"input_tokens": 4096, "output_tokens": 32}}
    both = ("vllm", "sglang")
    return [
        *(Life(engine, "offline", option, 80, given, shape)
          for option, shape, given in (
              ("fp8 weights", LLAMA, BRIEF), (PLAIN, OLD, OLD_FULL), ("fp8 weights", OLD, OLD_FULL),
              ("fp8 weights and KV", LLAMA, BRIEF),
          ) for engine in both),
        *(Life("llama-cpp", "offline", form, 40, {}, LLAMA) for form in ("f16", "q8_0", "q4_0")),
        *(Life(engine, "prefix", "prefix cache", 110, long_prefix, LLAMA) for engine in both),
        Life("llama-cpp", "server", "q4_0", 130, {"context": 1024 + 128 + 32, "slots": 128}, LLAMA),
        Life("llama-cpp", "arrivals", "q4_0", 60, FEWER, LLAMA),
        *(Life(engine, "conversations", option, 100, TALKS, LLAMA)
          for engine, option in (("vllm", "prefix cache"), ("sglang", "prefix cache"), ("llama-cpp", "q4_0"))),
        *(Life("llama-cpp", "offline", form, 40, {}, OLD) for form in ("f16", "q8_0", "q4_0")),
        *(Life(engine, "server", "fp8 weights, prefix cache", 120, _served(1), LLAMA) for engine in both),
        Life("transformers", "offline", PLAIN, 70, {}, LLAMA),
        Life("machine", "roof", PLAIN, 15),
        Life("machine", "instrument", PLAIN, 45),
    ]  # fmt: skip


TURNS = {"users": [1, 4, 16, 64], "tasks_per_user": 8, "least_tasks": 16, "blocks": 6}  # six: the first number with an interval
JSON = {"users": [1, 16, 100], "requests": [14, 84, 588]}  # of a block: whole rounds of the schemas, some for each user
MIXED = {  # the prefill of such a long prompt took 0.21 s on an H200: a fifth of the time
    "context": BRIEF["context"], "users": 32, "requests": 3, "input_tokens": 128, "output_tokens": 256,
    "long_tokens": 8192, "long_output_tokens": 16, "every_s": 1.0, "most_long": 30,
}  # fmt: skip
HELD = {"files": True, "users": 32, "requests": 3, "input_tokens": 128, "output_tokens": 128, "used": [0, 1, 8, 32]}
RETURNS = {  # 8,192 tokens are 1 GiB in this shape: four others are more than a pool of 3 GiB
    "context": 8192 + 256, "pool": 3 * 8448, "slots": 4, "tokens": 8192, "others": 4, "output_tokens": 8,
}  # fmt: skip
STARTS = {"vllm": ["cold", "warm", "no compile cache"], "sglang": ["cold", "warm"], "llama-cpp": ["cold", "warm"]}


def questions() -> list[Life]:
    """What the other runs leave open: each life has what it compares in one start, or beside it in the same lease.

    In a short lease the first of each question are measured; what only completes its table comes behind all of them.
    """
    both = ("vllm", "sglang")
    turns = [  # blocks of about a second: as many tasks as in the lives of options(), of llama.cpp with 64 users fewer
        Life(engine, "in turns", "n-gram drafts", least_s, TURNS | {"tasks_per_user": tasks})
        for engine, least_s, tasks in (("vllm", 150, 8), ("sglang", 140, 8), ("llama-cpp", 60, 2))
    ]
    schemas = [Life(engine, "constrained", PLAIN, 110, JSON) for engine in both]
    mixed = [
        Life(engine, "mixed", option, 110, MIXED, LLAMA)
        for engine, option in (
            ("vllm", "whole prompts"), ("vllm", "chunks of 1024"), ("sglang", PLAIN), ("sglang", "chunks of 1024, mixed"),
            ("vllm", PLAIN), ("sglang", "whole prompts"), ("sglang", "chunks of 1024"),
        )
    ]  # fmt: skip
    held = [
        Life(engine, "adapters", option, 120, HELD | {"adapters": count}, LLAMA)
        for option, count in (("32 adapters", 32), (PLAIN, 0), ("8 adapters", 8), ("1 adapter", 1)) for engine in both
    ]  # fmt: skip
    returns = [Life(engine, "offload", option, 90, RETURNS, LLAMA) for option in ("offload", "prefix cache") for engine in both]
    starts = [
        Life(engine, "start", option, least_s, {"files": True, "ways": STARTS[engine]}, LLAMA)
        for engine, option, least_s in (("vllm", PLAIN, 240), ("sglang", PLAIN, 170), ("llama-cpp", "q4_0", 30))
    ]
    return [*turns, *schemas, *mixed[:4], *held[:4], *returns, *starts, *mixed[4:], *held[4:]]


def again() -> list[Life]:
    """What the runs of today have measured, once more on another day: engines as they come, and each of llama.cpp's types."""
    plain = [one for one in (*scaling(), *today()) if (one.work, one.shape, one.layout) == ("offline", LLAMA, Layout())]
    chosen = {
        ("vllm", PLAIN),
        ("sglang", PLAIN),
        ("vllm", "fp8 weights"),
        *(("llama-cpp", form) for form in ("f16", "q8_0", "q4_0")),
    }
    return [one for one in plain if (one.engine, one.option) in chosen]


SMALL = {
    "context": 512,
    "prefill_tokens": [64, 128],
    "longer": [[64, 48, [1, 2]]],
    "prefix": {"input_tokens": 256, "output_tokens": 8},
}

LITTLE = {  # of a work's own
    "in turns": {"users": [1, 2], "tasks_per_user": 1, "least_tasks": 2, "blocks": 2},
    "constrained": {"users": [1, 2], "requests": [2, 4]},
    "adapters": {"users": 2, "requests": 1, "input_tokens": 16, "output_tokens": 8, "used": [0, 1, 2]},
    "offload": {"pool": 1024, "tokens": 256, "others": 5, "output_tokens": 4, "slots": 2},
    "conversations": {"context": 512, "users": 2, "requests": 1, "turns": 3, "input_tokens": 64, "output_tokens": 16},
    "routed": {
        "shared": {"groups": 4, "each": 4, "common_tokens": 128, "own_tokens": 8, "output_tokens": 4, "users": 4},
        "killed": {"users": 4, "requests": 1000, "input_tokens": 32, "output_tokens": 32, "seconds": 6, "kill_s": 2},
    },
    "apart": {
        "users": 2, "requests": 1, "input_tokens": 128, "output_tokens": 24, "long_tokens": 400, "long_output_tokens": 4,
        "every_s": 0.5, "most_long": 3, "slots": 8, "pool": 0,
    },
    "mixed": {"users": 2, "requests": 1, "input_tokens": 16, "output_tokens": 24, "long_tokens": 400, "every_s": 0.2},
}  # fmt: skip


def rehearsed(life: Life) -> Life:
    """``life`` with a tiny model and little of everything: what a CPU can do in a minute or two.

    A life without a shape, and with no entry in :data:`LITTLE`, is left as it is.
    """
    life = replace(life, given={**life.given, **LITTLE.get(life.work, {})})
    if not life.shape:
        return life
    small = {name: SMALL[name] for name in life.given if name in SMALL}
    if "arrivals" in life.given:
        rates = {"input_tokens": 64, "output_tokens": 16, "rates_per_s": [2, 4], "seconds": 3}
        small["arrivals"] = {**life.given["arrivals"], **rates}
    return replace(life, given={**life.given, **small}, shape="tiny-moe" if life.shape == MOE else "tiny")


RUNS = {
    "speed": speed, "memory": memory, "options": options, "today": today, "scaling": scaling, "questions": questions,
    "again": again,
}  # fmt: skip
