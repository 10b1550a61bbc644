"""A new project: `mini-platform init` copies the template, which is a project called acme, under another name.

Here: the files of a project, and the requirement by which it depends on this installation. Not here: finding a project
(`config/project.py`), drafting a dataset (`drafting/`).
"""

from __future__ import annotations

import hashlib
import json
import keyword
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mini_platform.config.project import DAGSTER_YAML, SETTINGS_EXAMPLE
from mini_platform.operations import lock

TEMPLATE = Path(__file__).with_name("template")
NAME = "acme"
"""Name of the template's project, its package and its code location."""
RENAMED = {
    "ci.yml": ".github/workflows/ci.yml",
    "dot-dockerignore": ".dockerignore",
    "dot-gitignore": ".gitignore",
    "project.toml": "pyproject.toml",
}
"""Files that tools would take for their own where the template stands."""
LOCK = Path(__file__).with_name("requirements.lock")
"""The lock of the platform, of which a project's image installs what is needed to run."""
IMAGE_LOCK = """\
# What the image installs besides the platform's wheel: the versions that mini-platform was tested with, by hash.
# After a change of dependencies (needs uv):
#    uv pip compile pyproject.toml --universal --generate-hashes --no-emit-package mini-platform -o image.lock
"""
EXAMPLES = Path(__file__).parents[2] / "datasets"
"""The package of the five datasets that come along."""


class ScaffoldError(ValueError):
    """The project cannot be made; the message is a sentence."""


@dataclass(frozen=True)
class Scaffolded:
    """A project that was made.

    Attributes:
        folder: its folder.
        datasets: names of its datasets.
        wheel: the wheel in it that it depends on; None if it depends on a clone.
    """

    folder: Path
    datasets: list[str]
    wheel: Path | None


def scaffold(folder: Path, *, examples: bool = False) -> Scaffolded:
    """Write a new project into a folder that does not exist or is empty.

    Args:
        folder: the folder; its name becomes that of the project.
        examples: bring the five datasets that come with the platform, with their samples, instead of the small example.

    Raises:
        ScaffoldError: the folder is not empty, its name cannot be that of a project, or the installation's wheel is gone.
    """
    folder = folder.expanduser().absolute()
    package = _package_named(folder.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ScaffoldError(f"{folder} exists already and is not empty: choose another folder. Nothing was written.")
    requirement, wheel = _requirement()
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = source.relative_to(TEMPLATE).as_posix()
        if examples and "readings" in name:
            continue
        text = source.read_text(encoding="utf-8").replace("{requirement}", requirement)
        _write(folder / _renamed(name, package), _with_name(text, package))
    for source in (DAGSTER_YAML, SETTINGS_EXAMPLE):
        _write(folder / source.name, source.read_text(encoding="utf-8"))
    packages = lock.runtime(LOCK.read_text(encoding="utf-8"))
    _write(folder / "image.lock", IMAGE_LOCK + "".join(package.block for package in packages))
    if wheel:
        (folder / "wheels").mkdir()
        shutil.copy(wheel, folder / "wheels" / wheel.name)
    if examples:
        _copy_examples(folder, package)
    datasets = folder / package / "datasets"
    names = sorted(path.stem for path in datasets.iterdir() if path.stem[0] not in "_.")
    for name in names:
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
    return Scaffolded(folder, names, folder / "wheels" / wheel.name if wheel else None)


def _package_named(name: str) -> str:
    """Return the name of the package for that of a folder."""
    package = re.sub(r"[\s.-]+", "_", name).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", package) or keyword.iskeyword(package):
        raise ScaffoldError(f"{name!r} cannot name a project: use letters, digits, - and _, and begin with a letter.")
    if package in sys.stdlib_module_names or package in ("mini_platform", "dagster", "tests", "data", "wheels"):
        raise ScaffoldError(f"{name!r} cannot name a project: {package} is another package. Choose another name.")
    return package


def _with_name(text: str, package: str) -> str:
    return re.sub(rf"\b{NAME}\b", package, text)


def _renamed(name: str, package: str) -> str:
    return RENAMED.get(name) or re.sub(rf"^{NAME}/", f"{package}/", name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _requirement() -> tuple[str, Path | None]:
    """Return the URL by which a project depends on this installation, and its wheel.

    Raises:
        ScaffoldError: it was installed from a wheel that is gone.
    """
    # PEP 610: pip writes where an installation came from. The wheel is copied into the project, so that it can be moved, put
    # into an image and tested elsewhere; hatchling fills in the project's folder.
    origin = json.loads(distribution("mini-platform").read_text("direct_url.json") or "{}")
    path = Path(unquote(urlsplit(origin.get("url", "")).path))
    if "dir_info" in origin:
        return path.as_uri(), None
    if path.suffix != ".whl" or not path.is_file():
        raise ScaffoldError(
            f"The wheel that mini-platform was installed from ({path}) is gone, and a project depends on it by its file: "
            "put it back, or install from another place."
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{{root:uri}}/wheels/{path.name}#sha256={digest}", path


def _copy_examples(folder: Path, package: str) -> None:
    """Copy the five datasets and their samples."""
    for source in EXAMPLES.iterdir():
        if source.is_dir() and source.name[0] not in "_.":
            shutil.copytree(
                source, folder / package / "datasets" / source.name, ignore=shutil.ignore_patterns("__*c*__")
            )
