"""Datasets that a test declares itself."""

from mini_platform_tests.support.trial import declared

__all__ = ["declared"]
