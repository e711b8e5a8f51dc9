"""What a model's layers keep of a context: every token, only the last ones (a sliding window), or a state of fixed size.

Read from a hub's config.json or from a GGUF header, by the rules of the engines where these leave something out.
Windows: ``DynamicCache`` in Transformers' ``cache_utils.py`` (no ``layer_types``: every layer has the window) and
``load_swa_pattern`` in llama.cpp's ``src/models``. States: ``n_embd_r`` and ``n_embd_s`` in llama.cpp's
``src/llama-hparams.cpp``, in float32. A config does not give a state's size in one way for all: there, a hybrid is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from helpers.weights.files import ModelError

PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "gpt-oss": 2, "olmo2": 4}  # the last is full
SWITCHED = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # no window unless use_sliding_window says so
FULL, WINDOW = ("full_attention", "attention"), "sliding_attention"
STATE_FIELDS = (  # of a config.json whose model has layers with a state
    "mamba_d_state", "mamba_d_conv", "ssm_state_size", "ssm_cfg", "state_size", "linear_conv_kernel_dim", "conv_L_cache",
    "lru_width", "attn_layer_period", "full_attention_interval", "hybrid_override_pattern", "linear_attn_config",
)  # fmt: skip
RECURRENT = ("mamba", "mamba2")
BESIDE = ("falcon-h1",)  # a state and a KV cache in every layer
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}  # every so many-th layer has a KV cache, the others a state
BY_HEADS = ("jamba", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "plamo2")  # no KV heads: a state
STATE_SIGNS = (".ssm.", ".wkv.", ".shortconv.", ".kda.", ".linear_attention.", ".recurrent_layers")
STATE_BYTES_PER_VALUE = 4


@dataclass(frozen=True)
class Kept:
    """Counts of layers, and what they keep for one sequence."""

    caching: int  # layers with a KV cache
    windowed: int = 0  # those of them that keep the last `window` tokens only
    window: int = 0  # tokens
    state_bytes: int = 0  # of all layers with a state together, whatever the length
    bound: str = ""  # why the KV cache is an upper bound


def of_config(config: Mapping, name: str, layers: int) -> Kept | None:
    """What the ``layers`` of a config.json keep; ``None``: every one every token. :class:`ModelError` for a hybrid."""
    kinds = config.get("layer_types") or []
    stateful = sorted({kind for kind in kinds if kind not in FULL and "attention" not in kind or "linear" in kind})
    if stateful or any(config.get(field) for field in STATE_FIELDS) or config.get("layers_block_type"):
        which = " and ".join(stateful) or next((f for f in STATE_FIELDS if config.get(f)), "layers_block_type")
        raise ModelError(f"{name} is a hybrid ({which}): its config does not size what these layers keep; give its GGUF")
    window = config.get("sliding_window")
    if config.get("use_sliding_window", config.get("model_type") not in SWITCHED) is False:
        window = None
    if window is not None and (type(window) is not int or window < 0):
        raise ModelError(f"{name} does not say its shape: sliding_window is {window!r} in its config, which is no count")
    if others := sorted(set(kinds) - {*FULL, WINDOW}):
        return Kept(layers, bound=f"{' and '.join(others)} is not counted")
    if not window or (kinds and WINDOW not in kinds):
        return None
    return Kept(layers, kinds.count(WINDOW) if kinds else _windowed(config, layers), window)


def _windowed(config: Mapping, layers: int) -> int:
    """The layers with a window where the config does not list them."""
    kind = config.get("model_type")
    if kind in SWITCHED:  # from this layer on
        return max(0, layers - config.get("max_window_layers", 0))
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or PERIODS.get(kind)
    return layers - layers // period if period else layers


def of_gguf(key: Callable, arch: str, layers: int, names: Mapping) -> Kept | None:
    """What the ``layers`` of a GGUF keep; ``None``: every one every token.

    ``key(name, default)`` reads the header's ``ARCH.name``, ``names`` are all of its keys. :class:`ModelError` for
    layers with a state that is not sized here.
    """
    kept = _states(key, arch, layers)
    if kept is None and any(sign in name for name in names for sign in STATE_SIGNS):
        raise ModelError(f"the state that layers of a {arch!r} keep is not sized here: choose a decoder like Llama or Jamba")
    kept = kept or Kept(layers)
    window = key("attention.sliding_window", 0)
    if window and kept.caching:
        kept = _with_window(kept, window, key("attention.sliding_window_pattern", PERIODS.get(arch, 0)), arch)
    return None if kept == Kept(layers) else kept


def _with_window(kept: Kept, window: int, pattern: int | list, arch: str) -> Kept:
    windowed = None
    if isinstance(pattern, list):
        windowed = sum(map(bool, pattern))
    elif pattern and arch in PERIODS:
        windowed = kept.caching - kept.caching // pattern
    elif arch in ("lfm2", "lfm2moe"):
        windowed = kept.caching
    if windowed is None:
        bound = f"its header names a window of {window} tokens, but not the layers that have it"
        return Kept(kept.caching, state_bytes=kept.state_bytes, bound=bound)
    return Kept(kept.caching, windowed, window, kept.state_bytes)


def _states(key: Callable, arch: str, layers: int) -> Kept | None:
    """The layers with a KV cache and the bytes of the others' states; ``None`` where no rule is known."""
    if arch in RECURRENT:
        caching, stateful = 0, layers
    elif arch in BESIDE:
        caching, stateful = layers, layers
    elif arch in INTERVALS:
        caching = layers // key("full_attention_interval", INTERVALS[arch])
        stateful = layers - caching
    elif arch in BY_HEADS:
        heads, feeding = key("attention.head_count_kv"), key("feed_forward_length", 0)
        per_layer = heads if isinstance(heads, list) else layers * [heads]
        caching = sum(map(bool, per_layer))
        feeding = feeding if isinstance(feeding, list) and arch.startswith("nemotron") else layers * [0]
        stateful = sum(not kv and not fed for kv, fed in zip(per_layer, feeding))
    else:
        return None
    return Kept(caching, state_bytes=stateful * _state_values(key) * STATE_BYTES_PER_VALUE)


def _state_values(key: Callable) -> int:
    """Values of one layer's state: of a short convolution, or of a Mamba block's convolution and its recurrence."""
    if kernel := key("shortconv.l_cache", 0):
        return key("embedding_length") * (kernel - 1)
    inner, state = key("ssm.inner_size"), key("ssm.state_size")
    return (key("ssm.conv_kernel") - 1) * (inner + 2 * key("ssm.group_count", 0) * state) + state * inner
