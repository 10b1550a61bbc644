"""Arguments that several commands take, and how a shell completes them.

Here: names of datasets, read from the files of their declarations without importing these: a shell waits for the answer at each
press of the tab key. Not here: the registry, which commands use (`declare/registry.py`).
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.config.project import project, use_project


def dataset_names(context: typer.Context) -> list[str]:
    """Return the names of the datasets that can be read from the declarations; none, and no error, where they cannot."""
    # Whatever goes wrong, an error would be printed into the user's command line.
    with contextlib.suppress(Exception):
        from mini_platform.config.settings import load_settings

        if folder := context.find_root().params.get("folder"):
            use_project(Path(folder))
        project().make_importable()
        place = load_settings().datasets
        if "/" in place:
            datasets = Path(place)
        else:
            spec = importlib.util.find_spec(place)
            datasets = Path(next(iter((spec and spec.submodule_search_locations) or ())))
        return sorted({*_in_python(datasets), *_in_yaml(datasets), *_in_yaml(datasets.parent / "defs")})
    return []


def _in_python(folder: Path) -> Iterator[str]:
    """Yield the name in each `dataset = Dataset(name="stations", …)`; that of the file if the name is computed."""
    for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py")):
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for node in ast.parse(path.read_bytes()).body:
                match node:
                    case (
                        ast.Assign(targets=[ast.Name(id="dataset")], value=ast.Call(keywords=words))
                        | ast.AnnAssign(target=ast.Name(id="dataset"), value=ast.Call(keywords=words))
                    ):
                        names = [w.value.value for w in words if w.arg == "name" and isinstance(w.value, ast.Constant)]
                        yield str(names[0]) if names else path.stem if path.stem != "__init__" else path.parent.name


def _in_yaml(folder: Path) -> Iterator[str]:
    for path in folder.rglob("defs.yaml"):
        import yaml

        with contextlib.suppress(OSError, ValueError, yaml.YAMLError, AttributeError):
            for document in yaml.safe_load_all(path.read_bytes()):
                if isinstance(name := document.get("attributes", {}).get("name"), str):
                    yield name


DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="Name of the dataset.", autocompletion=dataset_names)
]
DatasetNameOrAll = Annotated[
    str | None,
    typer.Argument(
        metavar="DATASET", help="Name of the dataset; by default all of them.", autocompletion=dataset_names
    ),
]
