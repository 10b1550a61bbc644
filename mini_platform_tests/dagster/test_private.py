"""Private modules of Dagster are named in one file, and have the names that it lists."""

from __future__ import annotations

import re

import pytest

from mini_platform.dagster import private as dagster_private
from mini_platform_tests.support.repository import PROJECT


def test_they_are_named_in_one_file() -> None:
    sources = [path for room in ("mini_platform", "mini_platform_tests") for path in (PROJECT / room).rglob("*.py")]
    private = re.compile(r"\bdagster\w*\._")
    naming = [path.relative_to(PROJECT).as_posix() for path in sources if private.search(path.read_text())]
    assert naming == ["mini_platform/dagster/private.py"]


@pytest.mark.parametrize("name", dagster_private.MODULES)
def test_listed_names_exist(name: str) -> None:
    assert getattr(dagster_private, name) is not None
