"""The datasets that come with the platform, as examples: `from mini_platform_tests.support.examples import weather`.

A test file that imports one is skipped where it is not declared, and so is a test that takes one as `examples.weather`: all
others can be collected and run there.
"""

from __future__ import annotations

import sys

import pytest

from mini_platform import Dataset
from mini_platform.datasets import all_datasets


def __getattr__(name: str) -> Dataset:
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in all_datasets():
        importer = sys._getframe(1)
        if importer.f_code.co_name == "<module>":  # Pytest would leave it, half made, to those who import from it.
            sys.modules.pop(importer.f_globals["__name__"], None)
        pytest.skip(f"the dataset {name} is not declared here", allow_module_level=True)
    return all_datasets()[name]
