"""Test processes at once: each has cores of its own.

Engines take the cores that their process may use, so that two of them never share one: their threads
would wait for each other.
"""

import os

LONGEST = "test_site.py"  # of the quick tier


def cores(worker: str, workers: int, available: set[int]) -> set[int]:
    """The cores of ``worker`` (gw0, gw1, ...) of ``workers``: neighbours, and nobody else's."""
    share = len(available) // workers
    at = int(worker.removeprefix("gw")) * share
    return set(sorted(available)[at : at + share])


def keep_to(worker: str, workers: int) -> None:
    """Restrict this process, and what it starts, to its cores; without effect where a system cannot (macOS), or cores lack."""
    if hasattr(os, "sched_setaffinity") and (mine := cores(worker, workers, os.sched_getaffinity(0))):
        os.sched_setaffinity(0, mine)


def longest_first(items: list) -> None:
    """Begin with the longest file of the quick tier: begun late, it would end alone."""
    items.sort(key=lambda item: item.path.name != LONGEST)
