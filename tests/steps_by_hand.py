"""A mock of a record of steps, written by hand: few requests, tokens and blocks, so that a test can say what is right."""

from __future__ import annotations

LIMITS = {"max_num_seqs": 2, "max_num_batched_tokens": 6, "max_model_len": 16}


def request(joins_step: int, prompt_tokens: int, output_tokens: int, like: str | None = None, like_tokens: int = 0) -> dict:
    return {
        "joins_step": joins_step, "prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "like": like,
        "like_tokens": like_tokens,
    }  # fmt: skip


def step(scheduled: dict, computed: dict, blocks: dict, contents: str, waiting: str = "", ended: str = "") -> dict:
    """A step of 10 ms and one more for each token; three passes that differ by 2 ms.

    ``contents`` has a digit, or a dot for nothing, for each block from the first; names have one letter each.
    """
    took = 10.0 + sum(scheduled.values())
    return {
        "took_ms": [took, took - 2, took + 2], "scheduled": scheduled, "computed": {**dict.fromkeys(scheduled, 0), **computed},
        "blocks": blocks, "contents": [None, *(None if one == "." else int(one) for one in contents)],
        "waiting": list(waiting), "ended": list(ended),
    }  # fmt: skip


def run(requests: dict, *steps: dict) -> dict:
    return {"requests": requests, "steps": [{**one, "at_ms": [100.0 * number] * 3} for number, one in enumerate(steps)]}


def record() -> dict:
    """Two slots, six tokens a step, six blocks of two tokens. In ``cache`` B and D begin like A, and C needs room."""
    batch = run(
        {"A": request(0, 2, 3), "B": request(0, 6, 2), "C": request(1, 2, 1)},
        step({"A": 2, "B": 4}, {}, {"A": [1], "B": [2, 3]}, "123..."),
        step({"A": 1, "B": 2}, {"A": 2, "B": 4}, {"A": [1, 4], "B": [2, 3, 5]}, "123.4.", "C"),
        step({"A": 1, "B": 1}, {"A": 3, "B": 6}, {"A": [1, 4], "B": [2, 3, 5, 6]}, "12354.", "C", "AB"),
        step({"C": 2}, {}, {"C": [6]}, "123546", "", "C"),
    )
    cache = run(
        {"A": request(0, 4, 2), "B": request(1, 4, 2, "A", 2), "C": request(3, 6, 1), "D": request(4, 5, 1, "A", 4)},
        step({"A": 4}, {}, {"A": [1, 2]}, "12...."),
        step({"A": 1, "B": 2}, {"A": 4, "B": 2}, {"A": [1, 2, 3], "B": [1, 4]}, "12.3..", "", "A"),
        step({"B": 1}, {"B": 4}, {"B": [1, 4, 5]}, "12.3..", "", "B"),
        step({"C": 6}, {}, {"C": [6, 3, 2]}, "1543.6", "", "C"),
        step({"D": 3}, {"D": 2}, {"D": [1, 5, 4]}, "154.26", "", "D"),
    )
    machine = {"cpu": "a mock", "cores": 1, "gpus": []}
    return {
        "pool": {"blocks": 7, "block_tokens": 2},
        "runs": {"cache": cache, "batch": batch},
        "provenance": {
            "date": "2026-01-01T00:00:00+00:00", "machine": machine, "model": "tiny", "versions": {"vllm": {"vllm": "1"}},
            "arguments": {}, "limits": LIMITS, "passes": 4, "warm_ups": 1,
        },
    }  # fmt: skip
