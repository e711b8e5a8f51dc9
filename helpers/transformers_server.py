"""Transformers' own server, which also says how large its KV cache is and which prefixes it reuses.

Used as ``python -m helpers.transformers_server serve MODEL ...``, with the arguments of
``transformers serve``. Nothing is computed in another way; its log has a line for the KV cache
and one for each prompt that begins with tokens the cache holds, which no answer reports.
"""

from transformers.cli.transformers import main
from transformers.generation.continuous_batching import cache, continuous_api


class SpokenCache(cache.PagedAttentionCache):
    """The paged cache, saying its size when it is made and every hit."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        held = self.cache_tensor.numel() * self.cache_tensor.element_size()
        spare = held // self.bytes_per_sector - self.num_sectors  # sectors that take what padding writes
        tokens = self.tokens_per_sector
        print(f"KV cache: {self.num_sectors * tokens} tokens and {spare * tokens} spare ones in {held} bytes", flush=True)

    def search_prefix_match(self, *args, **kwargs) -> int:
        """The prompt's first tokens that are in the cache already; 0 while prefix sharing is off."""
        tokens = super().search_prefix_match(*args, **kwargs)
        if tokens:
            print(f"KV cache: prefix match of {tokens} tokens", flush=True)
        return tokens


if __name__ == "__main__":
    continuous_api.PagedAttentionCache = SpokenCache
    main()
