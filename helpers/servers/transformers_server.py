"""Transformers' own server, which also says how large its KV cache is and which prefixes it reuses.

Used as ``python -m helpers.servers.transformers_server serve MODEL ...``, with the arguments of
``transformers serve``. Nothing is computed in another way; its log has a line for the KV cache
and one for each prompt that begins with tokens the cache holds, which no answer reports.
"""

from transformers.cli.transformers import main
from transformers.generation.continuous_batching import cache, continuous_api


def said(pool) -> str:
    """What the log says of ``pool``, a paged cache: tokens, those that take what padding writes, bytes of all."""
    if hasattr(pool, "cache_tensor"):
        held = _bytes(pool.cache_tensor)
        # layers with a window and without one are groups that share it: a token takes some of each
        per_token = sum(one.bytes_per_block // one.tokens_per_page for one in pool.cache_allocators.values())
        tokens = pool.num_sectors * pool.bytes_per_sector // per_token
        spare = held // per_token - tokens
    else:  # 5.17: two tensors for each layer
        held = sum(map(_bytes, (*pool.key_cache, *pool.value_cache)))
        count, tokens = pool.num_blocks, pool.block_size
        spare = pool.cache_shape[0] - count * tokens
        tokens *= count
    return f"KV cache: {tokens} tokens and {spare} spare ones in {held} bytes"


def _bytes(tensor) -> int:
    return tensor.numel() * tensor.element_size()


class SpokenCache(cache.PagedAttentionCache):
    """The paged cache, saying its size when it is made and every hit."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        print(said(self), flush=True)

    def search_prefix_match(self, *args, **kwargs) -> int:
        """The prompt's first tokens that are in the cache already; 0 while prefix sharing is off."""
        tokens = super().search_prefix_match(*args, **kwargs)
        if tokens:
            print(f"KV cache: prefix match of {tokens} tokens", flush=True)
        return tokens


if __name__ == "__main__":
    continuous_api.PagedAttentionCache = SpokenCache
    main()
