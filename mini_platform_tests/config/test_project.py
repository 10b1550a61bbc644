from __future__ import annotations

import os
from pathlib import Path

import pytest

from mini_platform.config.project import DAGSTER_YAML, VARIABLE, ProjectError, project, use_project
from mini_platform.config.settings import load_settings
from mini_platform.dagster.instance import prepare_instance
from mini_platform_tests.support.repository import PROJECT


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("MINI_PLATFORM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.chdir(tmp_path)


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_this_repository_is_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT / "docs")
    here = project()
    assert (here.folder, here.datasets, here.definitions) == (
        PROJECT,
        "mini_platform.datasets",
        "mini_platform.definitions",
    )
    assert (PROJECT / "dagster.yaml").read_text() == DAGSTER_YAML.read_text()


def test_the_nearest_folder_with_the_table_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = written(tmp_path / "outer", "[tool.mini_platform]")
    inner = written(outer / "my-inner", "[tool.mini_platform]")
    written(inner / "library", "[project]\nname = 'other'")
    monkeypatch.chdir(inner / "library")
    assert (project().folder, project().package) == (inner, "my_inner")
    assert use_project(Path("../..")).folder == outer
    settings = load_settings()
    assert (settings.home, settings.datasets) == (outer / ".state", "outer.datasets")
    assert (prepare_instance(settings) / "dagster.yaml").read_text() == DAGSTER_YAML.read_text()


def test_a_project_of_create_dagster_has_its_package_in_src(tmp_path: Path) -> None:
    folder = written(tmp_path / "any", "[tool.mini_platform]\n[tool.dg.project]\nroot_module = 'acme'")
    (folder / "src" / "acme").mkdir(parents=True)
    (folder / "src" / "acme" / "definitions.py").touch()
    here = use_project(folder)
    assert (here.package, here.root, here.definitions) == ("acme", folder / "src", "acme.definitions")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "{folder} is not in a project: no pyproject.toml in it or above it has [tool.mini_platform]."),
        ("[tool", "{folder}/pyproject.toml is not valid TOML: "),
        ("[tool.mini_platform]\npackages = 'a'", "has 'packages', which is not known; known are: package."),
        ("[tool.mini_platform]\npackage = 'a-b'", "package is 'a-b'; it takes the name of"),
        ("[tool]\nmini_platform = 1", "[tool.mini_platform] is a table"),
    ],
)
def test_what_is_no_project_is_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        written(tmp_path, text)
    with pytest.raises(ProjectError) as error:
        project()
    assert sentence.format(folder=tmp_path) in str(error.value)


def test_a_named_folder_is_not_searched_upwards(tmp_path: Path) -> None:
    written(tmp_path, "[tool.mini_platform]")
    (tmp_path / "inner").mkdir()
    with pytest.raises(ProjectError, match=r"inner is not a project: .*mini-platform init NAME"):
        use_project(tmp_path / "inner")
