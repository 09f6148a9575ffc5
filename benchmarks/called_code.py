"""Which functions of the recipes a piece of work calls, and their code as text, to notice when a recorded result is outdated.

A list of files would name much that takes no part. So the work is run once with a record of its calls, and a result
depends on the bodies of those functions, on what their modules define beside functions, and on nothing else: no comment,
docstring, annotation or message of an error, and no function that is not called.
"""

from __future__ import annotations

import ast
import contextlib
import cProfile
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import TypeVar

ROOT = Path(__file__).parents[1] / "recipes/gog_recipes"
LIBRARIES = ("gog_recipes", "torch", "transformers", "peft")
"""Packages whose imports decide what is called."""
Functions = dict[str, list[str]]
"""Names of functions (`Decoder.step`) by the path of their module below ROOT."""
Tree = TypeVar("Tree", bound=ast.AST)


@contextlib.contextmanager
def record() -> Iterator[Functions]:
    """Notes functions below ROOT that this thread calls inside the context; complete at its end.

    cProfile notes them, because a tracer in Python would make the work several times as slow.
    """
    found, profile = Functions(), cProfile.Profile(builtins=False)
    profile.enable()
    try:
        yield found
    finally:
        profile.disable()
        for code in (each.code for each in profile.getstats() if isinstance(each.code, CodeType)):
            path, name = Path(code.co_filename), code.co_qualname.partition(".<locals>")[0]
            is_function = code.co_flags & inspect.CO_NEWLOCALS  # the body of a class is not
            if is_function and path.is_relative_to(ROOT) and not name.startswith("<"):
                found.setdefault(str(path.relative_to(ROOT)), []).append(name)


def joined(one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]) -> Functions:
    """The functions of both, in order."""
    return {path: sorted({*one.get(path, ()), *other.get(path, ())}) for path in sorted({*one, *other})}


def text(functions: Mapping[str, Sequence[str]]) -> list[str]:
    """What the modules of these functions come down to; a module that is gone is empty."""
    paths = [(ROOT / path, names) for path, names in functions.items()]
    return [program(path.read_text(), names) if path.exists() else "" for path, names in paths]


def program(source: str, functions: Sequence[str]) -> str:
    """A module's syntax tree as text, as far as calls of these functions depend on it.

    >>> program('"A module."\\nx = 1  # one\\ndef f(): ...', []) == program("x = 1", [])
    True
    """
    return ast.dump(_Called(functions).visit(ast.parse(source)))


class _Called(ast.NodeTransformer):
    def __init__(self, functions: Sequence[str]) -> None:
        self._functions, self._classes = set(functions), list[str]()

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            return None
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            return None
        found: ast.AST | None = super().visit(node)
        return found

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self._classes.append(node.name)
        made: ast.ClassDef = self.generic_visit(node)
        self._classes.pop()
        return made

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if ".".join([*self._classes, node.name]) not in self._functions:
            return ast.Name(node.name) if self._classes else None  # a new method may override another
        node.body = [each for each in map(_Inside().visit, node.body) if each]
        node.args, node.returns = _Inside().visit(node.args), None
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        return node if any(each.name.partition(".")[0] in LIBRARIES for each in node.names) else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return node if (node.module or "").partition(".")[0] in LIBRARIES else None


class _Inside(ast.NodeTransformer):
    """Inside a function that is called."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            return None
        if isinstance(node, ast.Raise):
            return ast.Raise()
        found: ast.AST | None = super().visit(node)
        return found

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node
