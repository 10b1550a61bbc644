"""The wheel and its environment, once for all tests of this folder: they take most of the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_platform_tests.support.installed import Environment, built_wheel, installed


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    return built_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A clean environment with the core alone; nothing may have been written into it at the end."""
    with installed(tmp_path_factory.mktemp("environment") / "venv", wheel) as environment:
        yield environment
