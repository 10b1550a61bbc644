"""Declared datasets as the API serves them."""

from __future__ import annotations

from mini_platform_tests.dashboard.conftest import Opened, opened
from mini_platform_tests.declarations.conftest import Declared, declared

__all__ = ["Declared", "Opened", "declared", "opened"]
