"""The language of code and tests: docstrings are plain technical English, names are the field's (CONTRIBUTING.md, Words)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from mini_platform_tests.support.repository import PROJECT

DUMPS = PROJECT / "mini_platform_tests" / "support" / "dumps"
"""Declarations of dumped databases, whose comments are their docstrings of then."""
FILES = sorted(
    path
    for room in ("mini_platform", "mini_platform_tests")
    for path in (PROJECT / room).rglob("*.py")
    if DUMPS not in path.parents
)
NO_BEGINNING = {
    "as",
    "how",
    "likewise",
    "of",
    "that",
    "those",
    "what",
    "where",
    "whether",
    "which",
    "who",
    "whose",
    "why",
}
"""First words of a docstring that leave open what a function returns or does."""
DIALECT = {"asked", "door", "found", "judge", "judged", "meant", "said", "stood", "told", "twins", "wanted"}
"""Words that say that something happened to a value, and not what it is: they are in no name."""
ALONE = {"done", "given", "kept", "made", "seen", "taken"}
"""The same of these, where they are the whole name: `seen_at` says what it is."""


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every file."""
    return {path.relative_to(PROJECT).as_posix(): ast.parse(path.read_text()) for path in FILES}


def definitions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield node


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a file gives to something, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def test_docstrings_say_what_is_returned_or_done() -> None:
    assert [
        f"{file}, line {getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"
        for file, tree in trees().items()
        for node in definitions(tree)
        if (text := ast.get_docstring(node)) and text.split()[0].lower().strip(",.:;") in NO_BEGINNING
    ] == []


def test_names_say_what_a_value_is() -> None:
    assert [
        f"{file}, line {line}: {name}"
        for file, tree in trees().items()
        for name, line in bound_names(tree)
        if name in ALONE or DIALECT.intersection(re.findall(r"[a-z]+", name.lower()))
    ] == []
