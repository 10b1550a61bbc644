"""Datasets are found by the name of a package or by a folder; what is wrong with one of their files is a sentence."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from sqlalchemy import inspect
from typer.testing import CliRunner

from mini_platform.cli import app
from mini_platform.cli.errors import USAGE
from mini_platform.declare.registry import Registry, RegistryError
from mini_platform.platform import Platform

METERS = """
from mini_platform import Dataset, Field, RowModel


class Meter(RowModel):
    meter: str = Field("Number of the meter", str_length={"max_value": 20})


dataset = Dataset(name="meters", table="meters", description="Meters.", rows=Meter, key=("meter",))
"""
YAML = """\
type: mini_platform.components.Dataset
attributes: {name: NAME, model: PACKAGE.meters.Meter, key: meter}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody's package of datasets, which has one, and is made for this test."""
    folder = tmp_path / f"acme_{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "meters.py").write_text(METERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_package_and_a_folder_of_files_folders_and_yaml(package: Path) -> None:
    (package / "_shared.py").write_text("TABLE = 'of_sites'")
    (package / "sites").mkdir()
    site = METERS.replace('name="meters", table="meters"', 'name="sites", table=TABLE')
    (package / "sites" / "__init__.py").write_text(f"from .._shared import TABLE\n{site}")
    (package / "sites" / "routes.py").write_text("router = 7")
    for folder, name in ((package, "inside"), (package.parent / "defs", "beside")):
        (folder / name).mkdir(parents=True)
        (folder / name / "defs.yaml").write_text(YAML.replace("NAME", name).replace("PACKAGE", package.name))
    for place in (package.name, str(package)):
        registry = Registry(place)
        assert set(registry.datasets) == {"meters", "sites", "inside", "beside"}
        assert list(registry.datasets)[:2] == ["meters", "sites"], "in the order of their files, YAML last"
        assert registry.datasets["sites"].table == "of_sites"
        assert registry.folder == package
        assert {path.name for path in registry.files()} == {
            "_shared.py", "meters.py", "__init__.py", "routes.py", "defs.yaml"
        }  # fmt: skip
        assert registry.own_values("routes", "router", int, registry.datasets) == [7]
        assert registry.own_values("routes", "router", int, ["meters", "inside"]) == []
        assert registry.invalid == []
        for variable, message in (
            ("router", "`router` is of the type int, and should be of dict"),
            ("DASHBOARDS", "does not define `DASHBOARDS`"),
        ):
            assert registry.own_values("routes", variable, dict, registry.datasets) == []
            (invalid,) = registry.invalid
            assert (invalid.name, invalid.file) == ("sites", package / "sites" / "routes.py")
            assert message in invalid.message
        assert "sites" in registry.datasets, "without its routes"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("x = 1", None, r"wrong\.py: it declares no dataset: it should say `dataset = Dataset\(…\)`"),
        ("dataset = 1", None, r"wrong\.py: `dataset` is of the type int, and should be of Dataset"),
        ("x = 1\nx = (", 2, r"wrong\.py, line 2: SyntaxError: "),
        ("x = 1\n\nimport not_there", 3, r"wrong\.py, line 3: ModuleNotFoundError: No module named 'not_there'"),
        (METERS.replace('"meter",', '"day",'), 9, r"wrong\.py, line 9: dataset meters: "),
    ],
)
def test_a_file_that_declares_none_is_named(package: Path, content: str, line: int | None, message: str) -> None:
    (package / "wrong.py").write_text(content)
    for place in (package.name, str(package)):
        registry = Registry(place)
        assert list(registry.datasets) == ["meters"], "the other one stays"
        (invalid,) = registry.invalid
        assert re.search(message, invalid.message)
        assert (invalid.file, invalid.line) == (package / "wrong.py", line)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("not_there.datasets", "names the package not_there.datasets, and there is no module not_there. The path"),
        ("json.decoder", r"names json\.decoder, which is the file .*decoder\.py and not a package"),
        ("/not/there", "names the folder /not/there, which does not exist"),
    ],
)
def test_a_place_that_is_not_there_is_named(place: str, message: str) -> None:
    with pytest.raises(RegistryError, match=f"^MINI_PLATFORM_DATASETS {message}"):
        _ = Registry(place).datasets


def test_the_setting_chooses(package: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_DATASETS", str(package))
    platform = Platform()
    assert list(platform.datasets) == ["meters"]
    assert "meters" in inspect(platform.engine).get_table_names("production")
    for place, message in (
        ("/not/there", "MINI_PLATFORM_DATASETS names the folder /not/there, which does not exist."),
        ("my datasets", "MINI_PLATFORM_DATASETS is not valid: "),
    ):
        monkeypatch.setenv("MINI_PLATFORM_DATASETS", place)
        result = CliRunner().invoke(app, ["files"])
        assert (result.exit_code, result.stdout) == (USAGE, "")
        assert result.stderr.startswith(message)
