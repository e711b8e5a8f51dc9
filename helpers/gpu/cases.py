"""What is measured on a GPU: a run is a list of lives, the most important first.

A life is one start of one engine: which engine, what is done with it, and with which option. A budget of time that is
too short then costs the least important ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    ``helpers.gpu.variants.OPTIONS``). It is started only if ``least_s`` seconds are left, what it needs at the least.
    """

    engine: str
    work: str
    option: str
    least_s: float
    given: Mapping = field(default_factory=dict)  # more for the work: lengths, users, tasks

    @property
    def key(self) -> str:
        return f"{self.engine}, {self.work}, {self.option}"


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


RUNS = {"speed": speed, "memory": memory, "options": options}
