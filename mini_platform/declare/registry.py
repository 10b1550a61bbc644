"""The registry: which datasets are declared, in which file each of them is, and what else is its own.

Here: finding them by the configured name of a package or by a folder, in Python and in YAML, and the further modules of a
dataset that is a folder. Not here: what a declaration says (`dataset.py`, `from_yaml.py`), nor what is made of it.

    datasets/stations.py              a dataset as one file, which says `dataset = Dataset(…)`
    datasets/meters/__init__.py       a dataset as a folder: its declaration,
    datasets/meters/routes.py         its own HTTP paths, in `router`,
    datasets/meters/metabase.py       its own dashboards in Metabase, in `DASHBOARDS`
    datasets/_shared.py               not a dataset: its name begins with an underscore
    datasets/…/defs.yaml              datasets in YAML; in a project of Dagster's they may be in `defs` beside `datasets`
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset

SETTING = "MINI_PLATFORM_DATASETS"
YAML_FILE = "defs.yaml"
YAML_FOLDER = "defs"
"""Where a project that `create-dagster` made has its components: beside the datasets."""

T = TypeVar("T")


class RegistryError(DeclarationError):
    """The datasets are not where the setting says, or a file of theirs is wrong; the message is a sentence."""


@cache
def registry_of(place: str) -> Registry:
    """Return the registry of a place, always the same one: a file is imported once in a process.

    Args:
        place: name of a package, or path of a folder.
    """
    return Registry(place)


def configured() -> Registry:
    """Return the registry of the place that the settings name."""
    from mini_platform.config.settings import load_settings  # Brings pydantic.

    return registry_of(load_settings().datasets)


class Registry:
    """The datasets that are declared in one place. Nothing is imported before it is asked for."""

    def __init__(self, place: str) -> None:
        """Take the name of a package, or the path of a folder, which has a / in it."""
        self.place = place

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Every declared dataset by name: those in Python, in the order of their files, then those in YAML.

        Raises:
            RegistryError: a Python file declares none.
            YamlError: a YAML file declares none.
            DeclarationError: two of them would have one name somewhere.
        """
        declared = [*self.in_python, *self.in_yaml]
        refuse_collisions(declared)
        return {dataset.name: dataset for dataset in declared}

    @cached_property
    def in_python(self) -> dict[Dataset, ModuleType]:
        """The datasets that are declared in Python, each with its module."""
        return {_dataset_in(module): module for module in self._modules()}

    @cached_property
    def in_yaml(self) -> dict[Dataset, Path]:
        """The datasets that are declared in YAML, each with its file."""
        if not self.yaml_files:
            return {}
        from mini_platform.declare.from_yaml import read_yaml  # Brings pydantic and yaml.

        return {dataset: path for path in self.yaml_files for dataset in read_yaml(path)}

    @cached_property
    def yaml_files(self) -> tuple[Path, ...]:
        """The files that may declare datasets in YAML."""
        return _yaml_files(self.folder)

    @cached_property
    def folder(self) -> Path:
        """Where their files are, and where a new one is written.

        Raises:
            RegistryError: there is no such package or folder.
        """
        if "/" not in self.place:
            return Path(next(iter(_package_named(self.place).__path__)))
        if not Path(self.place).is_dir():
            raise RegistryError(f"{SETTING} names the folder {self.place}, which is not there.")
        return Path(self.place)

    def files(self) -> list[Path]:
        """Return the files that declare datasets and what is their own, as they are now; none is imported."""
        return [*sorted(self.folder.rglob("*.py")), *_yaml_files(self.folder)]

    def own_modules(self, name: str, datasets: Iterable[str]) -> list[ModuleType]:
        """Return the modules of this name, such as `routes`, that are in the folders of these datasets.

        Raises:
            RegistryError: one of them cannot be imported.
        """
        folders = {dataset.name: module for dataset, module in self.in_python.items() if hasattr(module, "__path__")}
        names = [f"{folders[dataset].__name__}.{name}" for dataset in datasets if dataset in folders]
        return [_imported(full_name) for full_name in names if importlib.util.find_spec(full_name)]

    def _modules(self) -> list[ModuleType]:
        package = _package_of(self.folder) if "/" in self.place else _package_named(self.place)
        names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")
        return [_imported(f"{package.__name__}.{name}") for name in names]


def own_value(module: ModuleType, word: str, kind: type[T]) -> T:
    """Return what a module of a dataset says by a word.

    Raises:
        RegistryError: it says nothing by it, or something of another type.
    """
    if not hasattr(module, word):
        raise RegistryError(f"{module.__file__} says nothing by `{word}`, which should be of the type {kind.__name__}.")
    value = getattr(module, word)
    if not isinstance(value, kind):
        raise RegistryError(
            f"{module.__file__}: `{word}` is of the type {type(value).__name__}, and should be of {kind.__name__}."
        )
    return value


def _dataset_in(module: ModuleType) -> Dataset:
    if not hasattr(module, "dataset"):
        raise RegistryError(
            f"{module.__file__} declares no dataset: it should say `dataset = Dataset(…)`. The name of a file that is to "
            "declare none begins with an underscore."
        )
    return own_value(module, "dataset", Dataset)


def _yaml_files(folder: Path) -> tuple[Path, ...]:
    folders = (folder, folder.parent / YAML_FOLDER)
    return tuple(sorted({path for folder in folders for path in folder.rglob(YAML_FILE)}))


def _package_named(name: str) -> ModuleType:
    """Return a package that can be imported.

    Raises:
        RegistryError: there is no such package.
    """
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        why = f"there is no module {error.name}. The path of a folder has a / in it."
        raise RegistryError(f"{SETTING} names the package {name}, and {why}") from error
    if not hasattr(package, "__path__"):
        raise RegistryError(f"{SETTING} names {name}, which is the file {package.__file__} and not a package.")
    return package


def _package_of(folder: Path) -> ModuleType:
    """Return a package made of a folder, so that its files can import each other: `from . import _shared`."""
    name = f"datasets_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    if name not in sys.modules:
        init = folder / "__init__.py"
        loader = SourceFileLoader(name, str(init)) if init.is_file() else None
        spec = ModuleSpec(name, loader, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
        if loader is not None:
            loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _imported(name: str) -> ModuleType:
    """Return the module of a dataset, imported.

    Raises:
        RegistryError: it cannot be imported; the message names the file and the line.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # What a module does when it is imported is its own; its error is told with the line.
        what = str(error) if isinstance(error, DeclarationError) else f"{type(error).__name__}: {error}"
        raise RegistryError(f"{_origin(name, error)}: {what}") from error


def _origin(name: str, error: Exception) -> str:
    """Return the file of a module, and the line of it that an error came from, as `FILE, line N`."""
    spec = importlib.util.find_spec(name)
    file = str(spec.origin) if spec else name
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}" if lines else file
