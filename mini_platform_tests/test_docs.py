"""The documentation: every command and link in it works, its examples run, and it is built without a warning and served."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from fastapi import FastAPI

from mini_platform import Dataset
from mini_platform.cli import app
from mini_platform.config import project
from mini_platform.config.settings import Settings
from mini_platform.operations.checking import check
from mini_platform.web.pages.help import POLICY, Help
from mini_platform.web.problems import handle_problems
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.web import listening

PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
HISTORY = {PROJECT / "docs" / "renames.md", PROJECT / "CHANGELOG.md"}
"""Pages that name what is no more."""
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
COMMAND = re.compile(r"(?:^|[`\s|])mini-platform ([a-z][^`\n#|]*)")
MAKE = re.compile(r"(?:^ {4}|`)make ([a-z-]+)(?: ARGS=\"?([^`\"\n#]*))?", re.MULTILINE)
VARIABLE = re.compile(r"\bMINI_PLATFORM_[A-Z0-9_]+(?<!_)\b")
VARIABLES = {project.VARIABLE} | {
    str(getattr(field.validation_alias, "choices", [field.validation_alias or f"MINI_PLATFORM_{name}"])[0]).upper()
    for name, field in Settings.model_fields.items()
}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
each_current_page = pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in HISTORY], ids=lambda page: page.relative_to(PROJECT).as_posix()
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for groups in LINK.findall(page.read_text()):
        link = "".join(groups)
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_current_page
def test_commands_are_there_with_their_options(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in COMMAND.findall(page.read_text()):
        words, command = shlex.split(line.replace("…", "").strip(" .,;:")), root
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        if command.name == "psql":  # The rest is psql's.
            continue
        options = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options, line


@each_current_page
def test_targets_of_make_are_there_with_their_files(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for target, arguments in MAKE.findall(page.read_text()):
        assert target in targets
        for path in re.findall(r"mini_platform_tests/\S+", arguments):
            assert (PROJECT / path).exists(), path


@each_current_page
def test_tests_are_there(page: Path) -> None:
    for path, name in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text()):
        assert re.search(rf"^def {name}\(", (PROJECT / "mini_platform_tests" / path).read_text(), re.MULTILINE), name


def test_every_threat_has_its_test() -> None:
    rows = re.findall(r"^\| (?!who|---).*\|$", (PROJECT / "docs" / "threat-model.md").read_text(), re.MULTILINE)
    assert rows
    assert [row for row in rows if "::test_" not in row.split("|")[-2]] == []


@each_current_page
def test_settings_are_there(page: Path) -> None:
    for variable in VARIABLE.findall(page.read_text()):
        assert variable.removesuffix("_FILE").partition("__")[0] in VARIABLES, variable


@pytest.mark.parametrize(
    "page",
    [
        PROJECT / "README.md",
        *(PROJECT / "docs" / "how-to" / name for name in ("declare-a-dataset.md", "use-a-pandera-model.md")),
    ],
)
def test_the_example_is_a_dataset(page: Path) -> None:
    example, *_ = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "stations"}
    exec(compile(example, str(page), "exec"), names)  # noqa: S102 - our own example
    assert isinstance(names["dataset"], Dataset)
    assert check(names["dataset"]) == []


@each_page
def test_python_is_python(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(block)


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("help")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        "-b",
        "html",
        "-d",
        str(folder / "trees"),
    ]
    subprocess.run([*command, str(PROJECT / "docs"), str(folder / "html")], check=True, timeout=200)
    return folder / "html"


def test_the_reference_has_every_word_setting_and_command(built: Path) -> None:
    reference = {path.stem: path.read_text() for path in (built / "reference").glob("*.html")}
    for name in ("reject_limit", "unexpected_columns", "null_tokens", "skip_initial_space", "api_sources"):
        assert f">{name}<" in reference["declaration"], name
    for variable in VARIABLES:
        assert variable in reference["settings"], variable
    commands: Any = typer.main.get_command(app)
    for name in commands.commands:
        assert f">{name}<" in reference["command-line"] or f">{name} " in reference["command-line"], name


def test_it_is_served_and_a_missing_build_is_explained(built: Path, tmp_path: Path) -> None:
    site = FastAPI()
    handle_problems(site)
    site.mount("/help", Help(built))
    site.mount("/clone", Help(tmp_path / "nowhere"))
    with listening(site) as origin, httpx.Client(base_url=f"http://{origin}", follow_redirects=True) as client:
        answer, missing = client.get("/help/"), client.get("/clone/")
        assert client.get("/help/reference/settings.html").status_code == 200
        assert client.get("/help/nowhere.html").status_code == 404
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, POLICY)
    assert "<title>Mini Platform</title>" in answer.text
    assert (missing.status_code, "run `make docs`" in missing.json()["detail"]) == (404, True)
