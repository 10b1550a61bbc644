"""A project as create-dagster 1.13 writes it, with the marker added: every part knows the same datasets."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from mini_platform import load_defs
from mini_platform.cli import app
from mini_platform.config.project import VARIABLE, project
from mini_platform.declare.registry import Registry, configured

PYPROJECT = """
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "PACKAGE"
registry_modules = ["PACKAGE.components.*"]

[tool.mini_platform]
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
MODEL = """
import pandera.polars as pa


class Meter(pa.DataFrameModel):
    "Meters of a house."

    meter_id: str = pa.Field(str_length={"min_value": 1})
    kwh: float = pa.Field(ge=0)
"""
COMPONENT = """
type: mini_platform.components.Dataset
attributes: {name: meters, model: PACKAGE.models.Meter, key: meter_id}
"""
OWN = """
import dagster as dg


@dg.asset
def report() -> int:
    return 1
"""


@pytest.fixture
def shop(platform: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the project; its package is called otherwise in each test, as modules are imported once."""
    package, root = f"shop_{uuid.uuid4().hex}", tmp_path / "shop"
    files = {
        "pyproject.toml": PYPROJECT,
        "src/PACKAGE/__init__.py": "",
        "src/PACKAGE/definitions.py": DEFINITIONS,
        "src/PACKAGE/models.py": MODEL,
        "src/PACKAGE/defs/__init__.py": "",
        "src/PACKAGE/defs/assets.py": OWN,
        "src/PACKAGE/defs/meters/defs.yaml": COMPONENT,
    }
    for name, text in files.items():
        path = root / name.replace("PACKAGE", package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("PACKAGE", package))
    monkeypatch.setenv(VARIABLE, str(root))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return root


def assets(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}


def test_components_are_known_everywhere_and_the_projects_own_assets_stay_its_own(shop: Path) -> None:
    assert list(configured().datasets) == ["meters"]
    result = CliRunner().invoke(app, ["check"])
    assert (result.exit_code, result.stdout) == (0, "meters: 2 columns, 11 rules are fine\n")
    from_folder = dg.load_from_defs_folder(path_within_project=project().root / project().package)
    for defs in (from_folder, load_defs()):
        assert {"report", "meters/meters", "meters/quality_report"} <= assets(defs)
    # What it returns goes to the IO manager that the project has, which need not be ours.
    assert (
        from_folder.get_implicit_global_asset_job_def()
        .execute_in_process(asset_selection=[dg.AssetKey("report")])
        .success
    )


def test_a_dataset_is_drafted_into_a_package_that_was_not_there(shop: Path) -> None:
    sample = shop / "cities.csv"
    sample.write_text("city,inhabitants\nOslo,700000\nBergen,290000\n")
    result = CliRunner().invoke(app, ["new", "cities", "--from", str(sample)])
    assert result.exit_code == 0, result.output
    assert (project().datasets_folder / "__init__.py").is_file()
    assert list(Registry(project().datasets).datasets) == ["cities", "meters"]
