"""Where and when the outputs of a notebook were made, as the run that wrote them noted in its metadata.

Of a notebook as JSON or as nbformat reads it: without that library, whose import every kernel would pay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping

NOT_SAID = "as saved in the notebook, which does not say where"
NOT_MEASURED = {"exercise", "questions"}  # tags of cells whose outputs are no run's


def stamp(notebook: MutableMapping, where: str, day: str) -> None:
    """Note that the outputs were made on the machine ``where`` (in words) on ``day``."""
    noted = {"machine": where, "day": day, "outputs_sha256": _digest(notebook)}
    notebook["metadata"]["collection"]["recorded"] = noted


def where(notebook: Mapping) -> str:
    """Where and when its outputs were made; that it does not say so where nothing was noted, or they are others by now."""
    noted = notebook["metadata"].get("collection", {}).get("recorded")
    if not noted or noted["outputs_sha256"] != _digest(notebook):
        return NOT_SAID
    return f"recorded on {noted['machine']}, {noted['day']}"


def text(value: str | list[str]) -> str:
    """A text of a notebook's file, which has it whole or as a list of its lines."""
    return value if isinstance(value, str) else "".join(value)


def _digest(notebook: Mapping) -> str:
    """A hash of every output's content; exercises are for the reader to run, and questions are written, not measured."""
    taught = [cell for cell in notebook["cells"] if not NOT_MEASURED & set(cell["metadata"].get("tags", []))]
    shown = [[_content(output) for output in cell["outputs"]] for cell in taught if cell.get("outputs")]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def data(output: Mapping) -> dict:
    """What an output shows by its kind, each text whole; empty for a stream."""
    return {kind: value if kind.endswith("json") else text(value) for kind, value in output.get("data", {}).items()}


def _content(output: Mapping) -> str | dict | None:
    return text(output["text"]) if "text" in output else data(output) or None
