"""What helpers/ imports and what pyproject.toml declares are the same: the base for the bench, the extras for the rest."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from books import NOTEBOOKS, books, code_cells

from helpers.collection import bindings
from helpers.paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CALLED = {
    "cuda": "cuda-bindings",
    "IPython": "ipython",
    "pynvml": "nvidia-ml-py",
    "llama_cpp": "llama-cpp-python",
    "yaml": "pyyaml",
}  # distributions of another name


def name(requirement: str) -> str:
    """The distribution that a requirement names."""
    return re.match(r"[\w.-]+", requirement)[0].lower()


BASE = {name(line) for line in PROJECT["dependencies"]}
EXTRAS = {name(line) for lines in PROJECT["optional-dependencies"].values() for line in lines}


def imports(tree: ast.AST, guarded: bool = False, inside: bool = False) -> Iterator[tuple[str, bool, bool]]:
    """Every import in ``tree``: the module, whether it may fail (or is for types only), whether it is in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, guarded, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, guarded, inside
            if node.module.partition(".")[0] == "helpers":  # a name may be a module
                yield from ((f"{node.module}.{alias.name}", guarded, inside) for alias in node.names)
        catches = isinstance(node, ast.Try) and any("ImportError" in ast.unparse(h.type or node) for h in node.handlers)
        catches |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        deeper = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from imports(node, guarded or catches, inside or deeper)


def module(file: Path) -> str:
    """The dotted name of a file in helpers/."""
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@lru_cache
def found() -> dict[str, list[tuple[str, bool, bool]]]:
    """The imports of every module in helpers/."""
    return {module(file): list(imports(bindings.parsed(file.read_text()))) for file in (REPOSITORY / "helpers").rglob("*.py")}


def reached(ahead: set[str]) -> set[str]:
    """The modules ``ahead`` and those that they import when they are imported."""
    seen = set()
    while ahead:
        seen |= ahead
        ahead = {named for one in ahead for named, _, inside in found()[one] if named in found() and not inside} - seen
    return seen


def of_bench() -> set[str]:
    """What the bench imports of helpers/."""
    return reached({one for one in found() if one.startswith("helpers.bench")})


def in_kernels() -> Iterator[tuple[str, str, set[str]]]:
    """Notebook, environment, and the modules of ours that a cell of plain Python imports there, with all that these import."""
    for path in NOTEBOOKS:
        notebook = books()[path.stem]["notebook"]
        for cell in code_cells(notebook):
            first, _, rest = cell.source.partition("\n")
            magic = first.startswith("%%in ")
            environment, code = (first.split()[1], rest) if magic else (notebook.metadata.kernelspec.name, cell.source)
            named = [line for line in code.splitlines() if re.match(r"(from|import) helpers", line)]
            of_ours = {one for one, _, _ in imports(bindings.parsed("\n".join(named)))} & found().keys()
            yield path.stem, environment, reached(of_ours)


def third_party(one: str) -> Iterator[tuple[str, bool, bool]]:
    """The imports of module ``one`` that are neither Python's nor ours, by distribution."""
    for named, guarded, inside in found()[one]:
        top = named.partition(".")[0]
        if top != "helpers" and top not in sys.stdlib_module_names:
            yield CALLED.get(top, top.lower().replace("_", "-")), guarded, inside


def test_the_base_is_what_the_bench_imports():
    """The bench runs with the base alone; what it imports beyond that it can do without, and says so."""
    needed: dict[str, set[str]] = {}
    used = set()
    for one in of_bench():
        for library, guarded, inside in third_party(one):
            used.add(library)
            # in the ground's functions libraries may be the notebooks', which call them
            if not guarded and not (inside and not one.startswith("helpers.bench")):
                needed.setdefault(library, set()).add(one)

    assert {library: sorted(where) for library, where in needed.items() if library not in BASE} == {}, "undeclared"
    assert sorted(BASE - used) == [], "declared and not imported"


def test_the_rest_is_in_an_extra():
    """What any module imports is declared, and what is declared is imported by one."""
    where: dict[str, list[str]] = {}
    for one in found():
        for library, _, _ in third_party(one):
            where.setdefault(library, []).append(one)

    assert {library: ones for library, ones in where.items() if library not in BASE | EXTRAS} == {}, "undeclared"
    assert sorted((BASE | EXTRAS) - where.keys()) == [], "declared and not imported"


def test_a_kernel_has_what_its_cells_import():
    """A notebook's cells import modules of ours in an environment that has only some of their libraries."""
    lacking: dict[str, set[str]] = {}
    for notebook, environment, modules in in_kernels():
        files = [f for f in (REPOSITORY / "requirements").glob(f"{environment}*.txt") if "cuda" not in f.name]
        if not files:  # TensorRT-LLM: its notebook runs without an environment of ours
            continue
        pinned = "".join(file.read_text() for file in files)
        has = BASE | set(map(str.lower, re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", pinned, re.M)))
        needed = {library for one in modules for library, guarded, inside in third_party(one) if not guarded and not inside}
        lacking.setdefault(f"{notebook} in {environment}", set()).update(needed - has)

    assert lacking, "no cell was looked at"
    assert {where: sorted(names) for where, names in lacking.items() if names} == {}, "not in its requirements"


def test_every_environment_pins_what_it_needs():
    """Every environment has a version for the base and for what reads weights, the lab for all of the collection."""
    lacking = {}
    extras = {extra: set(map(name, lines)) for extra, lines in PROJECT["optional-dependencies"].items()}
    for file in (REPOSITORY / "requirements").glob("*.txt"):
        if re.search(r"constraints|no-deps|cuda|guidellm|aiperf|vllm-rs|inference-perf|site", file.name):
            continue
        text = file.read_text()
        text += "".join((file.parent / used).read_text() for used in re.findall(r"^-c (\S+)", text, re.M))
        needed = BASE | extras["collection" if file.name == "lab.txt" else "weights"]
        lacking[file.name] = sorted(needed - set(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==", text, re.M)))

    assert {file: names for file, names in lacking.items() if names} == {}, "not pinned"
