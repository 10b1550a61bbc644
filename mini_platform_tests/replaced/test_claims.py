"""The lists of claims: every test that they name exists, and every claim has a test or a reason."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from mini_platform_tests.support.claims import SYSTEMS, Claim
from mini_platform_tests.support.repository import PROJECT

FOLDER = PROJECT / "mini_platform_tests"


def claims_of(system: str) -> list[Claim]:
    return list(import_module(f"mini_platform_tests.replaced.test_{system}").CLAIMS)


def functions_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_claim_names_tests_that_exist_or_a_reason(system: str) -> None:
    claims = claims_of(system)
    assert len({claim.text for claim in claims}) == len(claims)
    assert [claim.text for claim in claims if claim.state == "held" and not claim.tests] == []
    assert [claim.text for claim in claims if claim.state != "held" and not claim.reason] == []
    named = sorted({test.partition("::")[::2] for claim in claims for test in claim.tests})
    assert [f"{path}::{test}" for path, test in named if not (FOLDER / path).is_file()] == []
    assert [f"{path}::{test}" for path, test in named if test not in functions_in(FOLDER / path)] == []
