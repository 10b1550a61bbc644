"""The registry: the declared datasets, the file of each, and the further modules that belong to it.

Here: finding them in a package or a folder, as the setting names it, in Python and in YAML, and the further modules of a
dataset that is a folder. Not here: the content of a declaration (`dataset.py`, `from_yaml.py`), nor its use.

    datasets/stations.py              a dataset as one file, which defines `dataset = Dataset(…)`
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

from mini_platform.config.project import project
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset

SETTING = "MINI_PLATFORM_DATASETS"
YAML_FILE = "defs.yaml"
YAML_FOLDER = "defs"
"""Folder of the components in a project that `create-dagster` made: beside the datasets."""

T = TypeVar("T")


class RegistryError(DeclarationError):
    """The package or folder of the datasets does not exist, or one of its files is invalid; the message is a sentence."""


@cache
def registry_of(place: str) -> Registry:
    """Return the registry of a package or folder. It is cached, so that a file is imported once in a process.

    Args:
        place: name of a package, or path of a folder.
    """
    return Registry(place)


def configured() -> Registry:
    """Return the registry of the package or folder that the settings name."""
    from mini_platform.config.settings import load_settings  # Imports pydantic.

    return registry_of(load_settings().datasets)


class Registry:
    """The datasets that are declared in one package or folder. Modules are imported on first access."""

    def __init__(self, place: str) -> None:
        """Store the name of a package, or the path of a folder, which has a / in it."""
        self.place = place

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Return every declared dataset by name: those in Python, in the order of their files, then those in YAML.

        Raises:
            RegistryError: a Python file does not declare a valid dataset.
            YamlError: a YAML file does not declare a valid dataset.
            DeclarationError: two datasets would share a name that must be unique.
        """
        declared = [*self.in_python, *self.in_yaml]
        refuse_collisions(declared)
        return {dataset.name: dataset for dataset in declared}

    @cached_property
    def in_python(self) -> dict[Dataset, ModuleType]:
        """Return the datasets that are declared in Python, each with its module."""
        return {_dataset_in(module): module for module in self._modules()}

    @cached_property
    def in_yaml(self) -> dict[Dataset, Path]:
        """Return the datasets that are declared in YAML, each with its file."""
        if not self.yaml_files:
            return {}
        from mini_platform.declare.from_yaml import read_yaml  # Imports pydantic and yaml.

        return {dataset: path for path in self.yaml_files for dataset in read_yaml(path)}

    @cached_property
    def yaml_files(self) -> tuple[Path, ...]:
        """Return the files that may declare datasets in YAML."""
        return _yaml_files(self.folder)

    @cached_property
    def folder(self) -> Path:
        """Return the folder of their files, into which new ones are written, too.

        Raises:
            RegistryError: the package or folder does not exist.
        """
        if "/" not in self.place:
            return Path(next(iter(_package_named(self.place).__path__)))
        if not Path(self.place).is_dir():
            raise RegistryError(f"{SETTING} names the folder {self.place}, which does not exist.")
        return Path(self.place)

    def files(self) -> list[Path]:
        """Return the files of datasets that exist now, with those of their further modules; none is imported."""
        return [*sorted(self.folder.rglob("*.py")), *_yaml_files(self.folder)]

    def own_modules(self, name: str, datasets: Iterable[str]) -> list[ModuleType]:
        """Return the modules of this name, such as `routes`, in the folders of these datasets.

        Raises:
            RegistryError: a module cannot be imported.
        """
        folders = {dataset.name: module for dataset, module in self.in_python.items() if hasattr(module, "__path__")}
        names = [f"{folders[dataset].__name__}.{name}" for dataset in datasets if dataset in folders]
        return [_import_module(full_name) for full_name in names if importlib.util.find_spec(full_name)]

    def _modules(self) -> list[ModuleType]:
        package = _package_of(self.folder) if "/" in self.place else _package_named(self.place)
        names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")
        return [_import_module(f"{package.__name__}.{name}") for name in names]


def own_value(module: ModuleType, variable: str, kind: type[T]) -> T:
    """Return the value of a variable of a dataset's module.

    Raises:
        RegistryError: the variable is missing, or of another type.
    """
    if not hasattr(module, variable):
        raise RegistryError(
            f"{module.__file__} does not define `{variable}`, which should be of the type {kind.__name__}."
        )
    value = getattr(module, variable)
    if not isinstance(value, kind):
        raise RegistryError(
            f"{module.__file__}: `{variable}` is of the type {type(value).__name__}, and should be of {kind.__name__}."
        )
    return value


def _dataset_in(module: ModuleType) -> Dataset:
    if not hasattr(module, "dataset"):
        raise RegistryError(
            f"{module.__file__} declares no dataset: it should say `dataset = Dataset(…)`. If it is not meant to declare "
            "one, let its name begin with an underscore."
        )
    return own_value(module, "dataset", Dataset)


def _yaml_files(folder: Path) -> tuple[Path, ...]:
    folders = (folder, folder.parent / YAML_FOLDER)
    return tuple(sorted({path for folder in folders for path in folder.rglob(YAML_FILE)}))


def _package_named(name: str) -> ModuleType:
    """Import and return a package.

    Raises:
        RegistryError: the package does not exist, or is a module.
    """
    project().make_importable()
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = f"there is no module {error.name}. The path of a folder has a / in it."
        raise RegistryError(f"{SETTING} names the package {name}, and {reason}") from error
    if not hasattr(package, "__path__"):
        raise RegistryError(f"{SETTING} names {name}, which is the file {package.__file__} and not a package.")
    return package


def _package_of(folder: Path) -> ModuleType:
    """Return a package for a folder, so that its files can import each other: `from . import _shared`."""
    # The name is derived from the path: two folders with files of the same names do not clash in `sys.modules`.
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


def _import_module(name: str) -> ModuleType:
    """Import and return the module of a dataset.

    Raises:
        RegistryError: the module cannot be imported; the message names the file and the line.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # A module of a user may raise anything when it is imported.
        message = str(error) if isinstance(error, DeclarationError) else f"{type(error).__name__}: {error}"
        raise RegistryError(f"{_origin(name, error)}: {message}") from error


def _origin(name: str, error: Exception) -> str:
    """Return the file of a module, and its line that raised an error, as `FILE, line N`."""
    spec = importlib.util.find_spec(name)
    file = str(spec.origin) if spec else name
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}" if lines else file
