"""The rooms of `helpers/`: each imports from the ground, from itself and from rooms before it; nothing goes round in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from helpers import paths
from helpers.collection import bindings

HELPERS = paths.REPOSITORY / "helpers"
ROOMS = ("pictures", "bench", "weights", "servers", "lessons", "studies", "gpu", "collection")
# as their notebooks
LESSONS = ("race", "memory", "structured", "speculation", "quantization", "deployment", "scaling", "decision")
READS = "helpers.gpu.recorded"
STRANGERS = {("weights", "bench")}  # in that order, and yet they know nothing of each other


def modules() -> dict[str, Path]:
    """Every module by its dotted name; the stand-in for SGLang's kernels is no module of ours."""
    files = (file for file in HELPERS.rglob("*.py") if "sgl_stand_in" not in file.parts)
    return {".".join(file.relative_to(HELPERS.parent).with_suffix("").parts): file for file in files}


def imports(source: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and module of every import from helpers in ``source``, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(bindings.parsed(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.startswith("helpers."))
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "helpers":
            inner = (f"{node.module}.{name.name}" for name in node.names)
            yield from ((node.lineno, name if name in known else node.module) for name in inner)


def room(module: str) -> str:
    """The folder that ``module`` is in; ``ground`` for those beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else "ground"


def forbidden(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``, or ``None``."""
    if imported.startswith("."):
        return "is relative: write the whole name"
    here, there = room(module), room(imported)
    if (here, there) == ("lessons", "lessons"):
        own, other = module.split(".")[2], imported.split(".")[2]
        return "is a later lesson" if LESSONS.index(other) > LESSONS.index(own) else None
    if imported.startswith(READS) and here == "gpu" and not module.startswith(READS) and module != "helpers.gpu.__main__":
        return "reads records: what measures needs none"
    if there in ("ground", here):
        return None
    if here == "ground" or ROOMS.index(there) > ROOMS.index(here):
        return f"builds on {here}"
    return "is no business of that room" if (here, there) in STRANGERS else None


def upward(sources: dict[str, str]) -> list[str]:
    """A line for each import that goes the wrong way."""
    found = []
    for module, source in sources.items():
        for line, imported in imports(source, set(sources)):
            if reason := forbidden(module, imported):
                found.append(f"{module}, line {line}: {imported} {reason}")
    return found


def circles(sources: dict[str, str]) -> list[str]:
    """A line for each circle of imports: the modules in it."""
    edges = {
        module: sorted({name for _, name in imports(source, set(sources))} & set(sources)) for module, source in sources.items()
    }
    found, done = [], set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            found.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for name in edges[module]:
                visit(name, [*way, module])
            done.add(module)

    for module in edges:
        visit(module, [])
    return found


def sources() -> dict[str, str]:
    """The text of every module."""
    return {module: file.read_text() for module, file in modules().items()}


def test_imports_go_downward():
    """Each that does not is named with its line."""
    assert upward(sources()) == []


def test_no_circle():
    """Each one there is is named."""
    assert circles(sources()) == []


def test_an_import_that_goes_up_is_found():
    """Also inside a function, of a whole module, of a stranger, a later lesson, what reads records where they are made."""
    known = {
        "helpers.memory": "", "helpers.bench.timing": "def late():\n from helpers.servers import engines\n",
        "helpers.servers.engines": "import helpers.gpu.runs\n", "helpers.gpu.runs": "from helpers import memory\n",
        "helpers.weights.files": "from helpers.bench.timing import Sample\n", "helpers.lessons.scaling.ray": "",
        "helpers.lessons.memory.roof": "from helpers.lessons.scaling import ray\nfrom . import other\n",
        "helpers.gpu.work.offline": "from helpers.gpu.recorded.read import lives\n",
        "helpers.gpu.recorded.read": "from helpers.gpu import runs\n",
    }  # fmt: skip

    assert upward(known) == [
        "helpers.bench.timing, line 2: helpers.servers.engines builds on bench",
        "helpers.servers.engines, line 1: helpers.gpu.runs builds on servers",
        "helpers.weights.files, line 1: helpers.bench.timing is no business of that room",
        "helpers.lessons.memory.roof, line 1: helpers.lessons.scaling.ray is a later lesson",
        "helpers.lessons.memory.roof, line 2: . is relative: write the whole name",
        "helpers.gpu.work.offline, line 1: helpers.gpu.recorded.read reads records: what measures needs none",
    ]


def test_a_circle_is_found():
    """With all who are in it."""
    known = {"helpers.a": "from helpers import b", "helpers.b": "from helpers import c", "helpers.c": "from helpers.a import x"}

    assert circles(known) == ["helpers.a -> helpers.b -> helpers.c -> helpers.a"]


def test_every_folder_has_a_charter_and_nothing_else():
    """One to five lines of text, no code."""
    wrong = []
    for file in HELPERS.rglob("__init__.py"):
        tree = bindings.parsed(file.read_text())
        text = ast.get_docstring(tree) or ""
        if len(tree.body) != 1 or not 1 <= len([line for line in text.splitlines() if line.strip()]) <= 5:
            wrong.append(str(file.relative_to(HELPERS)))
    assert wrong == []


def test_the_tree_has_every_room():
    """Each, and every module of the ground, stands there with a line of its own; the README leads to it."""
    (tree,) = re.findall(r"^```text\n(.*?)^```$", (paths.REPOSITORY / "docs" / "layout.md").read_text(), re.M | re.S)
    ground = [f"{file.stem}.py" for file in HELPERS.glob("[!_]*.py")]
    rooms = [f"{name}/" for name in (*ROOMS, *LESSONS)]
    assert [name for name in (*ground, *rooms) if f" {name} " not in tree] == []
    assert "](docs/layout.md)" in (paths.REPOSITORY / "README.md").read_text()
