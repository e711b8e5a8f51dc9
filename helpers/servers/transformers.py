"""HF Transformers: ``transformers serve`` with continuous batching, started through :mod:`transformers_server`."""

from __future__ import annotations

import json

from helpers import frameworks, machine
from helpers.servers import flags
from helpers.servers.engine import Engine, Start

PAGE_TOKENS = 32


def command(start: Start) -> list[str]:
    """What starts the server."""
    pages = start.pool_tokens(PAGE_TOKENS) // PAGE_TOKENS  # a pool without a spare page stalls
    return [
        start.python, "-m", "helpers.servers.transformers_server", "serve", str(start.weights),
        *flags.options(
            "transformers", host="127.0.0.1", port=start.port, device="cuda" if machine.has_gpu() else "cpu",
            dtype="bfloat16", attention="sdpa", continuous_batching=True, page_tokens=PAGE_TOKENS, pool_pages=pages,
            step_tokens=512,  # its default on a CPU is sized for all of the RAM
        ),
    ]  # fmt: skip


def fields(output_tokens: int) -> dict:
    """Request fields for an answer of exactly ``output_tokens``.

    The server takes no ``ignore_eos``: token -1 never comes. With continuous batching the sampling of
    the first request serves all later ones, so every request of ours is greedy.
    """
    config = {"max_new_tokens": output_tokens, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    return {"generation_config": json.dumps(config)}


ENGINE = Engine(
    **vars(frameworks.get("transformers")), packages=("transformers", "torch"),
    command=command, fields=fields, token_ids=False, named_by_path=True,
)  # fmt: skip
