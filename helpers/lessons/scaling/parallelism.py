"""A model over several GPUs: what each holds, which bytes move over which link for a step, and whether it pays.

Four ways to divide the work, which combine: tensor parallelism (TP) cuts every matrix, pipeline parallelism
(PP) the list of layers, expert parallelism (EP) the list of experts, data parallelism (DP) the requests. Exact
arithmetic on the model's shape (:mod:`helpers.weights.shapes`); times are bounds: weights read once, the matrices'
arithmetic, and each transfer at the link's full speed after its latency. Left out: the embedding's own
all-reduce and the gathering of logits, once for a step; what an engine does at the same time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from helpers import paths
from helpers.weights import models, shapes, sizes

TABLE = Path(__file__).with_name("parallelism.toml")
ALL_REDUCES = 2  # of a layer's forward pass: behind attention and behind the feed-forward part (Megatron-LM, 2019)
USABLE = 0.92  # of a GPU's memory: vLLM's default


class LayoutError(ValueError):
    """A way to divide a model that does not exist: the thing, the reason, the next step."""


@lru_cache
def table() -> dict[str, dict]:
    """``parallelism.toml``: ``models``, ``gpus``, ``links`` and ``published`` figures, each with its source."""
    return tomllib.loads(paths.data(TABLE))


@dataclass(frozen=True)
class Layout:
    """``tp`` x ``pp`` x ``dp`` GPUs; with ``ep`` the experts of a layer lie whole on the tp x dp GPUs of its stage."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: bool = False

    def __post_init__(self):
        if min(self.tp, self.pp, self.dp) < 1:
            raise LayoutError(f"TP {self.tp}, PP {self.pp}, DP {self.dp}: each is at least 1")

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.dp

    @property
    def ep_size(self) -> int:
        """GPUs over which the experts of one layer lie."""
        return self.tp * self.dp if self.ep else 1

    @property
    def exchanges(self) -> bool:
        """Whether tokens travel to their experts: between copies of the attention. Inside a TP group every GPU has all of them.

        So do the engines: vLLM's ``use_all2all_kernels`` asks for more than one copy.
        """
        return self.ep and self.dp > 1

    def __str__(self) -> str:
        parts = [f"{name}{size}" for name, size in (("TP", self.tp), ("PP", self.pp), ("DP", self.dp)) if size > 1]
        return " x ".join([*parts, *(["EP"] if self.ep else [])]) or "one GPU"


@dataclass(frozen=True)
class Partitionable:
    """A model's sheet, and what of its config decides how it can be cut."""

    sheet: shapes.Sheet
    config: Mapping

    @property
    def name(self) -> str:
        return self.sheet.name

    def count(self, key: str, default: int | None = None) -> int:
        return models.reader(self.config, self.name)(key, default)

    @property
    def experts(self) -> int:
        """Routed experts of a layer; 0 in a dense model."""
        return shapes.experts(self.config)

    @property
    def expert_layers(self) -> int:
        return self.sheet.shape.layers - self.count("first_k_dense_replace", 0) if self.experts else 0

    @property
    def expert(self) -> int:
        """Parameters of one routed expert."""
        return 3 * self.sheet.shape.hidden * self.count("moe_intermediate_size") if self.experts else 0

    @property
    def routed(self) -> int:
        """Parameters of all experts among which tokens are divided; 0 in a dense model."""
        return self.expert_layers * self.experts * self.expert

    @property
    def active(self) -> int:
        """Parameters that work on a token: all but the routed experts it is not sent to."""
        idle = self.experts - self.count("num_experts_per_tok", 0)
        return self.sheet.parameters - self.expert_layers * idle * self.expert


def known() -> dict[str, dict]:
    """The config fields of every model, by name: those of ``shapes.toml`` and the larger ones of ``parallelism.toml``."""
    return {**shapes.rows(), **table()["models"]}


def of(name: str) -> Partitionable:
    """The model called ``name`` in ``shapes.toml`` or ``parallelism.toml``; :class:`LayoutError` lists them."""
    rows = known()
    found = {known.lower(): known for known in rows}.get(name.lower())
    if found is None:
        raise LayoutError(f"no model is called {name!r}: choose one of {', '.join(rows)}")
    row = rows[found]
    return Partitionable(shapes.of_config(row, found, f"{row['source']}, {row['read']}"), row)


def check(model: Partitionable, layout: Layout) -> None:
    """:class:`LayoutError` in one line where the engines would refuse, too."""
    heads, kv_heads, layers = model.count("num_attention_heads"), model.sheet.shape.kv_heads, model.sheet.shape.layers
    if heads % layout.tp:
        fits = ", ".join(str(n) for n in range(1, 33) if heads % n == 0)
        raise LayoutError(f"{model.name}: TP {layout.tp} does not divide its {heads} attention heads: take one of {fits}")
    if not model.sheet.shape.latent and kv_heads % layout.tp and layout.tp % kv_heads:
        raise LayoutError(f"{model.name}: TP {layout.tp} and its {kv_heads} KV heads do not divide each other")
    if layout.pp > layers:
        raise LayoutError(f"{model.name}: {layout.pp} stages for {layers} layers: at most one stage a layer")
    if layout.ep and not model.experts:
        raise LayoutError(f"{model.name} is dense: without experts there is no EP; use TP, PP or DP")


@dataclass(frozen=True)
class Share:
    """What the fullest GPU of a layout holds; ``copied`` is the part of the weights that other GPUs of its TP group hold too."""

    model: str
    layout: Layout
    weights_bytes: int
    copied_bytes: int
    kv_bytes_per_token: int  # on this GPU, of a token that its replica serves
    kv_copies: int  # GPUs of a TP group that hold the same KV values
    experts: int  # whole experts of a layer on this GPU; 0 where they are cut

    def pool_tokens(self, memory_bytes: float, usable: float = USABLE) -> int:
        """Tokens of KV cache beside the weights; 0 where not even the weights fit."""
        return max(0, int(memory_bytes * usable) - self.weights_bytes) // self.kv_bytes_per_token

    def fits(self, memory_bytes: float, usable: float = USABLE) -> bool:
        return self.weights_bytes < memory_bytes * usable


def share(name: str, layout: Layout, dtype: str = "bfloat16", kv_dtype: str = "bfloat16") -> Share:
    """What the fullest GPU holds. :class:`LayoutError` for a layout or a name that does not exist."""
    model = of(name)
    check(model, layout)
    shape, tp = model.sheet.shape, layout.tp
    layers = -(-shape.layers // layout.pp)
    cut, kv, whole = _attention_parts(model)
    kv_share = max(1, shape.kv_heads // tp) / shape.kv_heads
    expert_share = -(-model.experts // layout.ep_size) if layout.ep else model.experts / tp
    expert_layers = min(layers, model.expert_layers)
    feed = _feed_forward(model, layers, expert_layers) / tp + expert_layers * expert_share * model.expert
    ends = shape.vocabulary * shape.hidden * _ends(model, layout) / tp  # the vocabulary is cut by TP
    router = expert_layers * _router(model)
    copied = layers * whole + router + layers * kv * (kv_share - 1 / tp)
    values = layers * (cut / tp + kv * kv_share + whole) + feed + ends + router + shape.hidden
    per_token = sizes.kv_bytes_per_token(shape, kv_dtype) * layers / shape.layers
    return Share(
        name, layout, sizes.bytes_of(round(values), dtype), sizes.bytes_of(round(copied), dtype),
        round(per_token * (1 if shape.latent else kv_share)), tp if shape.latent else max(1, tp // shape.kv_heads),
        -(-model.experts // layout.ep_size) if layout.ep else 0,
    )  # fmt: skip


def _attention_parts(model: Partitionable) -> tuple[int, int, int]:
    """Parameters of a layer's attention and norms: cut by TP, cut by KV head, whole on every GPU."""
    shape, norms = model.sheet.shape, 2 * model.sheet.shape.hidden
    number = models.reader(model.config, model.name)
    if shape.latent:
        total, q_rank = shapes.latent_attention(number, shape.hidden), number("q_lora_rank", 0)
        narrow = (shape.hidden + 1) * q_rank + shape.hidden * shape.latent + number("kv_lora_rank")
        return total - narrow, 0, narrow + norms
    total = shapes.plain_attention(model.config, number, shape)
    keys_and_values = 2 * (shape.hidden + (model.config["model_type"] == "qwen2")) * shape.kv_heads * shape.head_dim
    per_head = 2 * shape.head_dim if model.config["model_type"] in shapes.QUERY_KEY_NORMS else 0
    return total - keys_and_values - per_head, keys_and_values, norms + per_head


def _feed_forward(model: Partitionable, layers: int, expert_layers: int) -> int:
    """Parameters of the dense layers' feed-forward parts and of the shared experts."""
    dense = 3 * model.sheet.shape.hidden * model.count("intermediate_size")
    return (layers - expert_layers) * dense + expert_layers * model.count("n_shared_experts", 0) * model.expert


def _router(model: Partitionable) -> int:
    return model.experts * (model.sheet.shape.hidden + (model.config["model_type"] == "deepseek_v3"))


def _ends(model: Partitionable, layout: Layout) -> int:
    """Matrices of vocabulary x hidden on the fullest GPU: of embedding and head, a pipeline's end stage has one."""
    return 1 if layout.pp > 1 or model.config.get("tie_word_embeddings") else 2


def traffic(name: str, layout: Layout, dtype: str = "bfloat16", dispatch: str = "fp8") -> dict[str, float]:
    """Bytes that one GPU sends for a token on its way through the GPU's stage, by the kind of parallelism that needs them.

    TP: ring all-reduces of a hidden vector, 2 (n - 1) / n of it each. PP: a hidden vector to the next stage (the last
    one sends none). EP over copies (:attr:`Layout.exchanges`): to ``num_experts_per_tok`` experts as ``dispatch`` and back
    as ``dtype``, (n - 1) / n of them on other GPUs. DP: nothing. TP's and EP's bytes are sent by every GPU of a group, for
    all of the group's tokens; of several stages they are the mean.
    """
    model = of(name)
    check(model, layout)
    vector = sizes.bytes_of(model.sheet.shape.hidden, dtype)
    return {
        "TP": all_reduces(model, layout) * vector * 2 * (layout.tp - 1) / layout.tp / layout.pp,
        "PP": float(vector) if layout.pp > 1 else 0.0,
        "EP": _exchanged_bytes(model, layout, dispatch, dtype) / layout.pp if layout.exchanges else 0.0,
        "DP": 0.0,
    }


def _exchanged_bytes(model: Partitionable, layout: Layout, dispatch: str, dtype: str) -> float:
    return model.expert_layers * exchange_bytes(model.name, layout.ep_size, dispatch, dtype)


def all_reduces(model: Partitionable, layout: Layout) -> int:
    """All-reduces of one token's way; in a layer whose GPUs exchange tokens the second one gives way to two all-to-alls."""
    if layout.tp == 1:
        return 0
    return ALL_REDUCES * model.sheet.shape.layers - (model.expert_layers if layout.exchanges else 0)


def exchange_bytes(name: str, ep_size: int, dispatch: str = "fp8", combine: str = "bfloat16", shared: bool = False) -> float:
    """Bytes a token moves in one layer's dispatch and combine; ``shared``: to the shared expert as well, as DeepSeek does."""
    model = of(name)
    paths = model.count("num_experts_per_tok") + (model.count("n_shared_experts", 0) if shared else 0)
    there_and_back = sizes.bytes_of(model.sheet.shape.hidden, dispatch) + sizes.bytes_of(model.sheet.shape.hidden, combine)
    return paths * there_and_back * (ep_size - 1) / ep_size


@dataclass(frozen=True)
class StepTimes:
    """Bounds of one step's parts, seconds: weights read and arithmetic on one GPU, and waiting for links."""

    read_s: float
    compute_s: float
    wire_s: float

    @property
    def seconds(self) -> float:
        """The slower of reading and computing, and then the links: nothing overlaps."""
        return max(self.read_s, self.compute_s) + self.wire_s


def step(
    name: str, layout: Layout, *, tokens: int = 1, link: str = "NVLink", between: str | None = None, gpu: str = "H100",
    dtype: str = "bfloat16",
) -> StepTimes:  # fmt: skip
    """One forward pass of ``tokens`` tokens of one replica: so many users decoding, or a prompt of that length.

    TP goes over ``link``, PP and EP over ``between`` (by default ``link``, too); names of ``parallelism.toml``. The
    KV cache is left out. A mixture of experts reads those that some token is sent to, the tokens being independent.
    """
    model, card = of(name), _row("gpus", gpu)
    if tokens < 1:
        raise LayoutError(f"tokens={tokens}: a step has at least one")
    check(model, layout)
    near, far = _row("links", link), _row("links", between or link)
    stage, pp = traffic(name, layout, dtype), layout.pp
    waits = all_reduces(model, layout) * (near["base_us"] + 2 * (layout.tp - 1) * near["step_us"])
    hops = (layout.pp - 1) + (2 * model.expert_layers if layout.exchanges else 0)
    return StepTimes(
        read_s=read_bytes(name, layout, tokens=tokens, dtype=dtype) / (card["bandwidth_gb_per_s"] * 1e9),
        compute_s=2 * model.active * tokens / layout.tp / flops_per_s(gpu, dtype),
        wire_s=(waits + hops * (far["base_us"] + far["step_us"])) / 1e6
        + tokens * (pp * stage["TP"] / near["gb_per_s"] + ((pp - 1) * stage["PP"] + pp * stage["EP"]) / far["gb_per_s"]) / 1e9,
    )


def flops_per_s(gpu: str, dtype: str = "bfloat16") -> float:
    """FLOP/s of the data sheet of ``gpu`` with weights of ``dtype``."""
    return _row("gpus", gpu)["fp8_tflops" if dtype == "fp8" else "bf16_tflops"] * 1e12


def read_bytes(name: str, layout: Layout, *, tokens: int = 1, dtype: str = "bfloat16") -> float:
    """Bytes of weights that each GPU of a TP group reads in a step of ``tokens`` tokens of one replica, all stages together."""
    model = of(name)
    whole = share(name, Layout(layout.tp, 1, layout.dp, layout.ep), dtype).weights_bytes
    idle = (1 - model.count("num_experts_per_tok", 0) / model.experts) ** (tokens * layout.dp) if model.experts else 0.0
    experts = sizes.bytes_of(model.expert_layers * model.experts * model.expert, dtype) / (
        layout.ep_size if layout.ep else layout.tp
    )
    looked_up = sizes.bytes_of(model.sheet.looked_up, dtype) / layout.tp
    return whole - looked_up - idle * experts


def pays(name: str, tp: int, **options) -> bool:
    """Whether a step of TP ``tp`` is faster than on one GPU, fitting or not; ``options`` as in :func:`step`."""
    return step(name, Layout(tp), **options).seconds < step(name, Layout(), **options).seconds


def _row(kind: str, name: str) -> dict:
    rows = table()[kind]
    if name not in rows:
        raise LayoutError(f"no {kind.removesuffix('s')} is called {name!r}: choose one of {', '.join(rows)}")
    return rows[name]
