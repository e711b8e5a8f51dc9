"""A tokenizer's entries by token id: from a tokenizer.json or a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path


class TokenizerError(ValueError):
    """A tokenizer that cannot be read: the file, the reason, what can."""


def entries(source: str | Path) -> list[str]:
    """The entries of the tokenizer at ``source``: a folder with tokenizer.json, that file, or a ``.gguf``.

    A list by token id; an id without an entry is an empty string.
    """
    path = Path(source).expanduser()
    try:
        if path.suffix.lower() == ".gguf":
            return of_gguf(path)
        return of_json(path / "tokenizer.json" if path.is_dir() else path)
    except ImportError:
        asked = "install gguf, or give a folder with tokenizer.json"
        raise TokenizerError(f"tokenizer {str(source)!r} cannot be read without the library gguf: {asked}") from None
    except (OSError, LookupError, TypeError, ValueError) as error:
        asked = "give a folder with tokenizer.json, that file, or a .gguf"
        raise TokenizerError(f"tokenizer {str(source)!r} cannot be read ({type(error).__name__}): {asked}") from None


def of_gguf(path: Path) -> list[str]:
    """The entries that a GGUF file carries."""
    import gguf  # numpy and a second of imports: only where a GGUF is read

    return gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()


def of_json(file: Path) -> list[str]:
    """The entries of a tokenizer.json, whose vocabulary is a table of ids or, in unigram models, a list of entries and scores."""
    found = json.loads(file.read_text())["model"]["vocab"]
    if isinstance(found, list):
        return [entry for entry, _ in found]
    by_id = {token_id: entry for entry, token_id in found.items()}
    return [by_id.get(i, "") for i in range(max(by_id) + 1)]
