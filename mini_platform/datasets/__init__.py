"""The datasets of the platform: one module each, with a `Dataset` named `dataset`. Adding a file here adds a dataset.

Others are declared in YAML, in files `../defs/<name>/defs.yaml`; see `from_yaml.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from mini_platform.dataset import Dataset

YAML_FOLDER = Path(__file__).parent.parent / "defs"


@cache
def python_datasets() -> dict[str, Dataset]:
    """Every dataset that a module here declares, by name, in the order of the modules."""
    found: dict[str, Dataset] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        _add(found, importlib.import_module(f"{__name__}.{module.name}").dataset)
    return found


@cache
def yaml_files() -> tuple[Path, ...]:
    """The files that may declare datasets in YAML."""
    return tuple(sorted(YAML_FOLDER.rglob("defs.yaml")))


@cache
def all_datasets() -> dict[str, Dataset]:
    """Every declared dataset by name: those in Python, then those in YAML.

    Raises:
        ValueError: two of them have one name or one table, or a YAML file declares none.
    """
    found = dict(python_datasets())
    if files := yaml_files():
        from mini_platform.from_yaml import read_yaml  # Brings pydantic and yaml.

        for dataset in (dataset for path in files for dataset in read_yaml(path)):
            _add(found, dataset)
    return found


def _add(found: dict[str, Dataset], dataset: Dataset) -> None:
    if dataset.name in found:
        raise ValueError(f"two dataset files declare the name {dataset.name!r}")
    if other := next((known.name for known in found.values() if known.table == dataset.table), None):
        raise ValueError(f"the datasets {other} and {dataset.name} have one table, {dataset.table!r}")
    found[dataset.name] = dataset
