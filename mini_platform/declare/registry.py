"""The registry: the declared datasets, the file of each, and the further modules that belong to it.

An invalid declaration stops itself only: it is listed with the reason, and the other datasets are as they are without it.

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
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from mini_platform.config.project import project
from mini_platform.declare.collisions import collisions
from mini_platform.declare.columns import DeclarationError, nearest
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.places import Place, place_of

SETTING = "MINI_PLATFORM_DATASETS"
YAML_FILE = "defs.yaml"
IN_FOLDERS = (YAML_FILE, "__init__.py")
"""Files whose folder has the name of the dataset."""
YAML_FOLDER = "defs"
"""Folder of the components in a project that `create-dagster` made: beside the datasets."""

T = TypeVar("T")


class RegistryError(DeclarationError):
    """The package or folder of the datasets cannot be used, or one of its files is invalid."""


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


@dataclass(frozen=True)
class InvalidDeclaration:
    """A declaration that cannot be used.

    Attributes:
        name: name of the dataset; that of its file if it is not known.
        file: the file; None for a dataset that no file of the registry declares.
        message: the reason as a sentence, which names the file.
        line: the line of the file, if it is known.
    """

    name: str
    file: Path | None
    message: str
    line: int | None = None


@dataclass(frozen=True)
class _Declared:
    """A dataset, its file, and its module if it is declared in Python."""

    dataset: Dataset
    file: Path
    module: ModuleType | None = None


def unknown_dataset(name: str, datasets: Iterable[str]) -> str:
    """Return the message that there is no dataset with this name, with the most similar name and all names."""
    names = list(datasets)
    hint = nearest(name, names) or "."
    return f"There is no dataset {name!r}{hint} " + (
        f"The datasets are: {', '.join(names)}." if names else "No dataset is declared."
    )


class Registry:
    """The datasets that are declared in one package or folder. Modules are imported on first access."""

    def __init__(self, place: str) -> None:
        """Store the name of a package, or the path of a folder, which has a / in it."""
        self.place = place
        project().make_importable()  # also for what YAML names
        self._invalid_modules: dict[Path, InvalidDeclaration] = {}

    @property
    def datasets(self) -> dict[str, Dataset]:
        """Return every valid dataset by name: those in Python, in the order of their files, then those in YAML.

        Raises:
            RegistryError: the package or folder cannot be used.
        """
        return {declared.dataset.name: declared.dataset for declared in self._read[0]}

    @property
    def invalid(self) -> list[InvalidDeclaration]:
        """Return the declarations that cannot be used, and the further modules of datasets that could not be imported so far.

        Of two datasets that would share a name that must be unique, the later one is invalid.

        Raises:
            RegistryError: the package or folder cannot be used.
        """
        return [*self._read[1], *self._invalid_modules.values()]

    def why_invalid(self, name: str) -> str | None:
        """Return why the declaration with this name, or in the file or folder with this name, is invalid; else None."""
        for invalid in self._read[1]:
            file = invalid.file
            if name == invalid.name or (file and name == (file.parent.name if file.name in IN_FOLDERS else file.stem)):
                return invalid.message
        return None

    @property
    def file_of(self) -> dict[str, Path]:
        """Return the files of the valid datasets by name."""
        return {declared.dataset.name: declared.file for declared in self._read[0]}

    @cached_property
    def _read(self) -> tuple[list[_Declared], list[InvalidDeclaration]]:
        declared: list[_Declared] = []
        invalid: list[InvalidDeclaration] = []
        for item in (*self._in_python(), *self._in_yaml()):
            if isinstance(item, _Declared):
                declared.append(item)
            else:
                invalid.append(item)
        # A dataset that two modules declare, as one imports it from the other, is the same object: the first one declares it.
        files: dict[Dataset, Path] = {}
        for item in declared:
            files.setdefault(item.dataset, item.file)
        refused = collisions(files)
        for item in declared:
            if collision := refused.get(item.dataset):
                other = f"; the other one is declared in {place_of(collision.other)}" if collision.other else ""
                error = DeclarationError(f"{collision.message}{other}", place_of(item.dataset))
                invalid.append(_invalid(item.dataset.name, item.file, error))
            elif files[item.dataset] != item.file:
                error = DeclarationError(f"`dataset` is the dataset {item.dataset.name} of {files[item.dataset]}")
                invalid.append(_invalid(item.dataset.name, item.file, error))
        valid = [item for item in declared if item.dataset not in refused and files[item.dataset] == item.file]
        return valid, invalid

    def _in_python(self) -> Iterator[_Declared | InvalidDeclaration]:
        if not self.folder.is_dir():
            return
        package = _package_of(self.folder) if "/" in self.place else _package_named(self.place)
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_"):
            try:
                module = _import_module(f"{package.__name__}.{name}")
                yield _Declared(_dataset_in(module), Path(str(module.__file__)), module)
            except RegistryError as error:
                named = re.match(r"dataset (\w+): ", error.sentence)  # As `Dataset` names itself.
                file = self.folder / name / "__init__.py"
                yield _invalid(
                    named[1] if named else name, file if file.exists() else self.folder / f"{name}.py", error
                )

    def _in_yaml(self) -> Iterator[_Declared | InvalidDeclaration]:
        if not self.yaml_files:
            return
        from mini_platform.declare.from_yaml import read_each  # Imports pydantic and yaml.

        for path in self.yaml_files:
            for item in read_each(path):
                if isinstance(item, Dataset):
                    yield _Declared(item, path)
                else:
                    yield _invalid(item.name or path.parent.name, path, item)

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
            # A project may have none yet, or, as one of create-dagster, declare all of them in YAML.
            own = project().datasets_folder
            if self.place == project().datasets and own.parent.is_dir() and not own.exists():
                return own
            return Path(next(iter(_package_named(self.place).__path__)))
        if not Path(self.place).is_dir():
            raise RegistryError(f"{SETTING} names the folder {self.place}, which does not exist.")
        return Path(self.place)

    def files(self) -> list[Path]:
        """Return the files of datasets that exist now, with those of their further modules; none is imported."""
        return [*sorted(self.folder.rglob("*.py")), *_yaml_files(self.folder)]

    def own_values(self, name: str, variable: str, kind: type[T], datasets: Iterable[str]) -> list[T]:
        """Return the value of a variable of each module of this name, such as `routes`, in the folders of these datasets.

        A module that cannot be imported, or does not have the variable, is left out, and is among `invalid` from then on.
        """
        values = []
        chosen = set(datasets)
        for declared in self._read[0]:
            if (
                declared.dataset.name not in chosen
                or declared.module is None
                or not hasattr(declared.module, "__path__")
            ):
                continue
            full_name, file = f"{declared.module.__name__}.{name}", declared.file.with_name(f"{name}.py")
            if importlib.util.find_spec(full_name) is None:
                continue
            try:
                values.append(own_value(_import_module(full_name), variable, kind))
            except RegistryError as error:
                self._invalid_modules[file] = _invalid(declared.dataset.name, file, error)
        return values


def _invalid(name: str, file: Path, error: DeclarationError) -> InvalidDeclaration:
    """Return an invalid declaration by its error, which may be at a place outside of the file that declares the dataset."""
    place = error.place = error.place or Place(str(file))
    return InvalidDeclaration(name, file, str(error), place.line if place.file == str(file) else None)


def own_value(module: ModuleType, variable: str, kind: type[T]) -> T:
    """Return the value of a variable of a dataset's module.

    Raises:
        RegistryError: the variable is missing, or of another type.
    """
    if not hasattr(module, variable):
        raise RegistryError(
            f"it does not define `{variable}`, which should be of the type {kind.__name__}", Place(str(module.__file__))
        )
    value = getattr(module, variable)
    if not isinstance(value, kind):
        raise RegistryError(
            f"`{variable}` is of the type {type(value).__name__}, and should be of {kind.__name__}",
            Place(str(module.__file__)),
        )
    return value


def _dataset_in(module: ModuleType) -> Dataset:
    if not hasattr(module, "dataset"):
        raise RegistryError(
            "it declares no dataset: it should say `dataset = Dataset(…)`. If it is not meant to declare one, let its name "
            "begin with an underscore",
            Place(str(module.__file__)),
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
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = f"there is no module {error.name}. The path of a folder has a / in it."
        raise RegistryError(f"{SETTING} names the package {name}, and {reason}") from error
    except (Exception, SystemExit) as error:  # It may raise anything.
        raise RegistryError(f"{SETTING} names {name}, which fails: {type(error).__name__}: {error}.") from error
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
            try:
                loader.exec_module(sys.modules[name])
            except (Exception, SystemExit) as error:  # It may raise anything.
                del sys.modules[name]
                raise RegistryError(
                    f"{SETTING} names {folder}, whose {init.name} fails: {type(error).__name__}: {error}."
                ) from error
    return sys.modules[name]


def _import_module(name: str) -> ModuleType:
    """Import and return the module of a dataset.

    Raises:
        RegistryError: the module cannot be imported; the message names the file and the line.
    """
    try:
        return importlib.import_module(name)
    except DeclarationError as error:
        raise RegistryError(error.sentence, error.place or _origin(name, error)) from error
    except (Exception, SystemExit) as error:  # A module of a user may raise anything when it is imported.
        raise RegistryError(f"{type(error).__name__}: {error}", _origin(name, error)) from error


def _origin(name: str, error: BaseException) -> Place:
    """Return the file of a module, and its line that raised an error, as far as they are known."""
    spec = importlib.util.find_spec(name)
    folder, _, leaf = name.rpartition(".")
    # A link to nothing has a name, but no module.
    file = str(spec.origin if spec else Path(sys.modules[folder].__path__[0]) / f"{leaf}.py")
    if isinstance(error, SyntaxError) and error.filename == file:
        return Place(file, error.lineno)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return Place(file, lines[-1] if lines else None)
