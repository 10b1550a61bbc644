"""The project: the folder with somebody's datasets, data, settings and state. This repository is one, too.

    --project FOLDER                   an option of `mini-platform`
    MINI_PLATFORM_PROJECT              a variable of the environment, which processes pass on to those they start
    the nearest folder upwards         whose pyproject.toml has the table `[tool.mini_platform]`

Here: finding the project, and the names of its modules. Not here: its settings (`settings.py`), making one.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

VARIABLE = "MINI_PLATFORM_PROJECT"
FILE, TABLE = "pyproject.toml", "mini_platform"
MARKER = f"[tool.{TABLE}]"
KEYS = ("package",)
"""Keys of the table."""
DAGSTER_YAML, SETTINGS_EXAMPLE = (Path(__file__).with_name(name) for name in ("dagster.yaml", ".env.example"))
"""Files of a new project. The first is also the instance of a project that has none."""
HOW_TO = "Make one with `mini-platform init NAME`, change into its folder, or name it: --project FOLDER"


class ProjectError(RuntimeError):
    """There is no project, or its pyproject.toml is not valid; the message is a sentence."""


@dataclass(frozen=True)
class Project:
    """A project.

    Attributes:
        folder: folder with pyproject.toml; relative paths of settings begin here.
        package: name of its Python package.
    """

    folder: Path
    package: str

    @property
    def root(self) -> Path:
        """Return the folder that contains the package: that of the project, or `src` in it."""
        source = self.folder / "src"
        return source if (source / self.package).is_dir() else self.folder

    @property
    def datasets(self) -> str:
        """Return the name of the package that declares its datasets."""
        return f"{self.package}.datasets"

    @property
    def datasets_folder(self) -> Path:
        """Return the folder of that package."""
        return self.root / self.package / "datasets"

    @property
    def definitions(self) -> str:
        """Return the name of the module that Dagster loads: its own `definitions`, else the platform's."""
        own = self.root / self.package / "definitions.py"
        return f"{self.package}.definitions" if own.is_file() else "mini_platform.definitions"

    def make_importable(self) -> None:
        """Put the folder of its package on the path of imports, unless the package can be imported already."""
        if find_spec(self.package) is None and str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))


def project() -> Project:
    """Return the project of this process. A folder is looked at once.

    Raises:
        ProjectError: there is none, or its pyproject.toml is not valid.
    """
    named = os.environ.get(VARIABLE)
    return _project_at(Path(named).expanduser().resolve()) if named else _nearest(Path.cwd())


def use_project(folder: Path) -> Project:
    """Make a folder the project of this process and of those that it starts.

    Raises:
        ProjectError: the folder is no project.
    """
    os.environ[VARIABLE] = str(folder.expanduser().resolve())
    return project()


@lru_cache
def _nearest(start: Path) -> Project:
    for folder in (start, *start.parents):
        if (folder / FILE).is_file() and TABLE in _tool(folder):
            return _project_in(folder)
    raise ProjectError(f"{start} is not in a project: no pyproject.toml in it or above it has {MARKER}. {HOW_TO}.")


@lru_cache
def _project_at(folder: Path) -> Project:
    if not (folder / FILE).is_file() or TABLE not in _tool(folder):
        raise ProjectError(f"{folder} is not a project: it has no pyproject.toml with {MARKER}. {HOW_TO}.")
    return _project_in(folder)


def _tool(folder: Path) -> dict[str, Any]:
    """Return the tables `tool` of a folder's pyproject.toml.

    Raises:
        ProjectError: the file cannot be read.
    """
    path = folder / FILE
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ProjectError(f"{path} is not valid TOML: {error}.") from error
    return tool if isinstance(tool, dict) else {}


def _project_in(folder: Path) -> Project:
    tool = _tool(folder)
    table, dagster = tool[TABLE], tool.get("dg", {}).get("project", {})
    path = f"{folder / FILE}: {MARKER}"
    if not isinstance(table, dict):
        raise ProjectError(f"{path} is a table; write it in square brackets.")
    if unknown := sorted(set(table) - set(KEYS)):
        raise ProjectError(f"{path} has {unknown[0]!r}, which is not known; known are: {', '.join(KEYS)}.")
    # A project that create-dagster made names its package already.
    package = table.get("package") or dagster.get("root_module") or re.sub(r"\W", "_", folder.name)
    if not isinstance(package, str) or not package.isidentifier():
        raise ProjectError(f"{path}: package is {package!r}; it takes the name of the project's Python package.")
    return Project(folder, package)
