"""What a cell of a notebook reads and what it makes, by its text alone: the names that it needs from earlier cells and those
that it leaves behind, or changes, for later ones.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from IPython.core.inputtransformer2 import TransformerManager

MUTATORS = {  # of lists, dictionaries and sets
    "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault",
    "sort", "update",
}  # fmt: skip
FROM_KERNEL = re.compile(r"%%in\s.*-o\s+(\w+)")


@dataclass(frozen=True)
class Names:
    """``read``: names that must be there before the cell runs; ``made``: those that it binds or changes.

    ``functions`` are those that it defines, each with what its body reads and changes when it is called.
    """

    read: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    functions: Mapping[str, Names] = field(default_factory=dict)


def parsed(source: str) -> ast.Module:
    """The tree of ``source``; :class:`SyntaxError` as ever.

    Once more where CPython before 3.11.8 miscounts its own depth when something else is parsed meanwhile (gh-106905).
    """
    try:
        return ast.parse(source)
    except SystemError:
        return ast.parse(source)


def of(source: str, known: Mapping[str, Names] | None = None) -> Names:
    """The names of the cell ``source``; ``known`` are the functions of earlier cells. Nothing for what is no Python."""
    try:
        tree = parsed(TransformerManager().transform_cell(source))
    except SyntaxError:
        return Names()
    functions, read, made = dict(known or {}), set(), set()
    new: dict[str, Names] = {}
    for statement in _steps(tree.body):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions[statement.name] = new[statement.name] = _when_called(statement)
        one = _called(_now(statement), functions)
        read |= one.read - made
        made |= one.made
    made |= set(FROM_KERNEL.findall(source.partition("\n")[0]))
    return Names(frozenset(read), frozenset(made), new)


def _steps(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """``body`` in the order in which names are read and bound: a loop reads its sequence, binds its variable, then goes on."""
    for one in body:
        first = [getattr(one, name) for name in ("test", "iter", "type") if isinstance(getattr(one, name, None), ast.expr)]
        bound = [one.target] if isinstance(one, (ast.For, ast.AsyncFor)) else []
        bound += [ast.Name(one.name, ast.Store())] if isinstance(one, ast.ExceptHandler) and one.name else []
        for item in getattr(one, "items", []):
            first.append(item.context_expr)
            bound += [item.optional_vars] if item.optional_vars else []
        parts = [getattr(one, name, []) for name in ("body", "handlers", "orelse", "finalbody")]
        if not any(parts) or isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield one
            continue
        yield from map(ast.Expr, first)
        yield from (ast.Assign([target], ast.Constant(None), lineno=1) for target in bound)
        for part in parts:
            yield from _steps(part)


def _now(statement: ast.stmt) -> Names:
    """What a statement reads and makes when it is reached; the body of a function is not."""
    top, defined = _table(statement), isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
    read = {one.get_name() for one in top.get_symbols() if one.is_referenced()}
    read |= {
        node.target.id for node in ast.walk(statement) if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    made = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported() or one.is_namespace()}
    if not defined:
        for child in top.get_children():
            read |= _globals(child)
        made |= set(_changed(statement)) & (read | made)
    return Names(frozenset(read), frozenset(made))


def _when_called(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Names:
    """What the body of a function reads of the notebook's names, and which of them it changes."""
    read = set().union(*(_globals(child) for child in _table(function).get_children()))
    return Names(frozenset(read), frozenset(set(_changed(function)) & read))


def _called(one: Names, functions: Mapping[str, Names]) -> Names:
    """``one`` with what the functions that it names read and change, and those that they name."""
    read, made, ahead = set(one.read), set(one.made), [name for name in one.read if name in functions]
    done: set[str] = set()
    while ahead:
        if (name := ahead.pop()) not in done:
            done.add(name)
            read |= functions[name].read
            made |= functions[name].made
            ahead += [other for other in functions[name].read if other in functions]
    return Names(frozenset(read), frozenset(made))


def _table(statement: ast.stmt) -> symtable.SymbolTable:
    return symtable.symtable(ast.unparse(statement), "cell", "exec")


def _globals(table: symtable.SymbolTable) -> set[str]:
    """The names of the notebook that a scope and those inside it read."""
    own = {one.get_name() for one in table.get_symbols() if one.is_referenced() and one.is_global()}
    return own.union(*(_globals(child) for child in table.get_children()))


def _changed(statement: ast.AST) -> Iterator[str]:
    """The names whose value a statement changes in place: ``x[i] =``, ``x.y =``, ``x.append()``."""
    for node in ast.walk(statement):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            yield from _root(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
            yield from _root(node.func)


def _root(node: ast.AST) -> Iterator[str]:
    """The name at the beginning of ``a.b[c].d``."""
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id
