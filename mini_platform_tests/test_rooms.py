"""The rooms of the tests: those of what they test, and `support/` for whatever helps them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mini_platform_tests.support import rings
from mini_platform_tests.support.repository import PROJECT

TESTS = PROJECT / "mini_platform_tests"
OTHERS = {"support", "faults", "browser", "benchmarks", "declarations", "nasty", "replaced", "roles", "wheel"}
"""What runs through all rooms."""
FILES = sorted(path for path in TESTS.rglob("*.py"))
NO_HELPERS = {
    path.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".")
    for path in FILES
    if path.name.startswith("test_") or path.name == "conftest.py"
}
"""Modules that nothing imports."""


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, or may import."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {name for name in modules if name.startswith("mini_platform_tests.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_helpers_are_no_tests(path: Path) -> None:
    assert not imported(path) & NO_HELPERS


def test_every_room_of_tests_is_one_of_the_platform() -> None:
    rooms = {path.name for path in (PROJECT / "mini_platform").iterdir() if path.is_dir()}
    assert {path.parent.relative_to(TESTS).parts[0] for path in FILES if path.parent != TESTS} - OTHERS <= rooms


def test_slow_modules_are_modules() -> None:
    known = {(path.relative_to(TESTS).parts[0], path.stem) for path in FILES}
    assert {(room, name) for room, names in rings.SLOW.items() for name in names} <= known
