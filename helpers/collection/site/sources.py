"""The records that a page is made of, each with the file that it stands in."""

from __future__ import annotations

from collections.abc import Mapping

from helpers import paths, records


def every(name: str) -> list[tuple[str, dict]]:
    """Every record called ``name``, the newest first: its file in the repository, and what it holds."""
    files = sorted(records.FOLDER.glob(f"*/{name}.*.json"), key=records.age, reverse=True)
    return [(file.relative_to(paths.REPOSITORY).as_posix(), records.read(file)) for file in files]


def newest(name: str) -> list[tuple[str, dict]]:
    """Of each machine the newest record called ``name``, the newest first."""
    found: dict[str, tuple[str, dict]] = {}
    for file, record in every(name):
        found.setdefault(file.rpartition("/")[0], (file, record))
    return list(found.values())


def where(machine: Mapping) -> str:
    """A record's machine in a few words: its GPU, or its processor with the number of cores."""
    return machine["gpus"][0] if machine["gpus"] else f"{machine['cpu']}, {machine['cores']} cores"
