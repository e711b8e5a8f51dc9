"""The names of a cell: what it reads from earlier ones, what it leaves behind or changes."""

import ast

import pytest

from helpers.collection import bindings


@pytest.mark.parametrize(
    ("source", "read", "made"),
    [
        ("x = y + 1", {"y"}, {"x"}),
        ("x = 1\nprint(x)", {"print"}, {"x"}),
        ("import numpy as np\nnp.ones(n)", {"n"}, {"np"}),
        ("n += 1", {"n"}, {"n"}),
        ("found['a'] = 1", {"found"}, {"found"}),
        ("found['a'].append(x)", {"found", "x"}, {"found"}),
        ("server.port = 1", {"server"}, {"server"}),
        ("[a for a in rows]", {"rows"}, set()),
        ("for name, x in kept.items():\n    print(name, x)", {"kept", "print"}, {"name", "x"}),
        ("with serve() as server:\n    port = server.port", {"serve"}, {"server", "port"}),
        ("try:\n    a = f()\nexcept ValueError as error:\n    print(error)", {"f", "ValueError", "print"}, {"a", "error"}),
        ("answer = await ask(server)", {"ask", "server"}, {"answer"}),
        ("%%in vllm -o seen\nimport vllm\nseen = 1", {"get_ipython"}, {"seen"}),
        ("%load_ext helpers.kernels", {"get_ipython"}, set()),
        ("no python", set(), set()),
    ],
)
def test_the_names_of_a_cell(source, read, made):
    """By its text alone; the variable of a loop or a `with` is bound before its body reads it."""
    names = bindings.of(source)

    assert (names.read, names.made) == (read, made)


def test_a_function_reads_and_changes_where_it_is_called():
    """Its own names stay its own, and those that it reaches through another function count too."""
    known = dict(bindings.of("def keep(one):\n    copy = one\n    found[one] = scale * copy").functions)
    known |= bindings.of("def both():\n    keep(1)", known).functions
    defined, called = bindings.of("def later():\n    return missing"), bindings.of("both()", known)

    assert (defined.read, defined.made) == (set(), {"later"})
    assert called.read == {"both", "keep", "found", "scale"} and called.made == {"found"}


def test_a_python_that_miscounts_is_asked_again(monkeypatch):
    """CPython 3.11.7, once: a mock of its error. A fault of the text is told as ever."""
    parse, told = ast.parse, [SystemError("AST constructor recursion depth mismatch (before=45, after=58)")]
    monkeypatch.setattr(ast, "parse", lambda source: parse(source) if not told else _raise(told.pop()))

    assert isinstance(bindings.parsed("a = 1"), ast.Module) and not told
    with pytest.raises(SyntaxError):
        bindings.parsed("a =")


def _raise(error: Exception):
    raise error
