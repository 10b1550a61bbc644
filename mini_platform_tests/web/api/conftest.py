"""Declared datasets as the API serves them."""

from mini_platform_tests.support.pages import opened
from mini_platform_tests.support.trial import declared

__all__ = ["declared", "opened"]
