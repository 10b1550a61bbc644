"""The datasets of the platform: one module each, with a `Dataset` named `dataset`. Adding a file here adds a dataset.

Others are declared in YAML, in files `../defs/<name>/defs.yaml`; see `from_yaml.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from mini_platform.collisions import refuse_collisions
from mini_platform.dataset import Dataset

YAML_FOLDER = Path(__file__).parent.parent / "defs"


@cache
def python_datasets() -> dict[str, Dataset]:
    """Every dataset that a module here declares, by name, in the order of the modules.

    Raises:
        DeclarationError: two of them would have one name somewhere.
    """
    modules = sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    return _by_name([importlib.import_module(f"{__name__}.{module.name}").dataset for module in modules])


@cache
def yaml_files() -> tuple[Path, ...]:
    """The files that may declare datasets in YAML."""
    return tuple(sorted(YAML_FOLDER.rglob("defs.yaml")))


@cache
def all_datasets() -> dict[str, Dataset]:
    """Every declared dataset by name: those in Python, then those in YAML.

    Raises:
        DeclarationError: two of them would have one name somewhere.
        YamlError: a YAML file declares none.
    """
    found = list(python_datasets().values())
    if files := yaml_files():
        from mini_platform.from_yaml import read_yaml  # Brings pydantic and yaml.

        found += [dataset for path in files for dataset in read_yaml(path)]
    return _by_name(found)


def _by_name(datasets: list[Dataset]) -> dict[str, Dataset]:
    refuse_collisions(datasets)
    return {dataset.name: dataset for dataset in datasets}
