"""The core alone, as `pip install` of the wheel brings it: its packages, its modules, and settings that need an extra."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mini_platform.config.extras import MODULES
from mini_platform.operations import lock
from mini_platform_tests.support.command import objects
from mini_platform_tests.support.drawn import REPORT
from mini_platform_tests.support.installed import RAW_STORE, SETTINGS_OF_EXTRAS, Environment, to_install
from mini_platform_tests.support.repository import PROJECT

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]

IMPORTS = """
import ast, importlib, json, pkgutil
from importlib.util import find_spec
from pathlib import Path
import mini_platform

failed, missing = [], set()
for info in pkgutil.walk_packages(mini_platform.__path__, "mini_platform."):
    path = Path(find_spec(info.name).origin)
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    missing |= {name.partition(".")[0] for name in names if find_spec(name.partition(".")[0]) is None}
    if not info.name.endswith("__main__"):  # It would run.
        try:
            importlib.import_module(info.name)
        except ModuleNotFoundError:
            failed.append(info.name)
print(json.dumps([failed, sorted(missing)]))
"""
"""Print which modules cannot be imported, and which packages are imported anywhere, also within functions, but missing."""


@pytest.fixture(scope="module")
def project(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project outside of any clone, with the datasets of the wheel."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text("[tool.mini_platform]\n")
    settings = {
        "MINI_PLATFORM_DATASETS": "mini_platform.datasets",
        **{setting: value for setting, (_, value) in SETTINGS_OF_EXTRAS.items()},
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return folder


def test_the_core_has_the_locked_versions_and_no_package_of_an_extra(
    environment: Environment, record_property: pytest.RecordProperty
) -> None:
    packages = environment.packages()
    locked = {(each.name, each.version) for each in lock.read((PROJECT / "requirements.lock").read_text())}
    platform = packages.pop("mini-platform")
    assert {(name, each.version) for name, each in packages.items()} <= locked
    every = [Requirement(line) for line in platform.requires or ()]
    assert set(platform.metadata.get_all("Provides-Extra", [])) == {*MODULES, "dg", "all"}
    of_extras = {canonicalize_name(each.name) for each in every if each.marker and "extra" in str(each.marker)}
    of_core = {canonicalize_name(each.name) for each in every if not each.marker}
    assert of_core <= packages.keys()
    # fsspec is needed by Dagster, too; `all` names the others.
    assert packages.keys() & of_extras - of_core == {"fsspec"}
    record_property(REPORT, f"the core: {len(packages)} packages, {environment.megabytes():.0f} MB")


def test_every_module_needs_the_core_alone(environment: Environment, project: Path) -> None:
    result = environment.run("python", "-c", IMPORTS, cwd=project)
    assert result.returncode == 0, result.stderr
    failed, missing = json.loads(result.stdout)
    # Imported only if a setting names such an inbox, and by the tests of a project.
    rest = ("storage.host_keys", "storage.remote_s3", "storage.remote_sftp", "testing")
    assert failed == [f"mini_platform.{name}" for name in rest]
    assert set(missing) == {*MODULES.values(), "aiobotocore", "botocore", "pytest"}


def test_the_doctor_and_commands_say_what_to_install(environment: Environment, project: Path) -> None:
    result = environment.run("mini-platform", "doctor", "--json", cwd=project, **{RAW_STORE: "s3://bucket/raw"})
    problems = {finding["message"] for finding in objects(result.stdout) if finding["level"] == "problem"}
    assert problems == {to_install(setting, extra) for setting, (extra, _) in SETTINGS_OF_EXTRAS.items()} | {
        to_install(RAW_STORE, "s3")
    }
    assert "packages as in the requirements of mini-platform" in result.stdout
    result = environment.run("mini-platform", "alerts", "test", cwd=project)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, to_install("MINI_PLATFORM_ALERTS", "alerts"))
