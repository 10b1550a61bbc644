"""A new project, as far as it is right without being started; the wheel's tests (`wheel/`) start one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mini_platform.config.project import VARIABLE, use_project
from mini_platform.declare.registry import registry_of
from mini_platform.operations import lock
from mini_platform.operations.scaffold import ScaffoldError, scaffold
from mini_platform_tests.support.repository import PROJECT


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, "")  # restored afterwards
    return scaffold(tmp_path / "my-shop").folder


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_bears_its_own_name(shop: Path) -> None:
    files = texts(shop)
    assert [name for name, text in files.items() if "acme" in name or ("acme" in text and name != ".env.example")] == []
    assert {".env.example", ".gitignore", ".dockerignore", ".github/workflows/ci.yml", "dagster.yaml"} < set(files)
    project = use_project(shop)
    assert (project.package, project.definitions) == ("my_shop", "my_shop.definitions")
    assert list(registry_of(str(shop / "my_shop" / "datasets")).datasets) == ["readings"]


def test_it_depends_on_this_installation_and_asks_no_index_for_it(shop: Path) -> None:
    (requirement,) = tomllib.loads((shop / "pyproject.toml").read_text())["project"]["dependencies"]
    assert requirement.startswith("mini-platform @ file:///")  # a clone; of a wheel its hash (`wheel/`)


def test_its_containers_are_those_of_this_repository(shop: Path) -> None:
    own, ours = (yaml.safe_load((folder / "docker-compose.yml").read_text()) for folder in (shop, PROJECT))
    assert set(own["services"]) == {"postgres", "code-server", "webserver", "daemon", "api"}
    for name, service in own["services"].items():
        image = {"image": ours["services"][name]["image"]} if service["image"] == "my_shop" else {}
        assert service | image == ours["services"][name]
    locked = (shop / "image.lock").read_text()
    names = [package.name for package in lock.read(locked) if "--hash=sha256:" in package.block]
    assert names == [package.name for package in lock.runtime((PROJECT / "requirements.lock").read_text())]
    assert set(own["secrets"]) <= set(ours["secrets"])
    hadolint = Path(sys.executable).with_name("hadolint")
    assert subprocess.run([hadolint, shop / "Dockerfile"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("1st", "'1st' cannot name a project: use letters"),
        ("class", "'class' cannot name a project"),
        ("json", "json is another package"),
        ("mini-platform", "mini_platform is another package"),
        ("full", "full exists already and is not empty: choose another folder. Nothing was written."),
    ],
)
def test_what_cannot_be_a_project_is_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = texts(tmp_path)
    with pytest.raises(ScaffoldError) as error:
        scaffold(tmp_path / name)
    assert sentence in str(error.value)
    assert texts(tmp_path) == before
