"""The datasets of the platform: one module each, with a `Dataset` named `dataset`. Adding a file here adds a dataset."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from mini_platform.dataset import Dataset


@cache
def all_datasets() -> dict[str, Dataset]:
    """Every declared dataset by name, in the order of the names.

    Raises:
        ValueError: two modules declare datasets of one name.
    """
    found: dict[str, Dataset] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        dataset = importlib.import_module(f"{__name__}.{module.name}").dataset
        if dataset.name in found:
            raise ValueError(f"two dataset files declare the name {dataset.name!r}")
        found[dataset.name] = dataset
    return found
