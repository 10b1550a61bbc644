"""Help, examples, the version, and what a shell completes."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from mini_platform.cli import app
from mini_platform.datasets import all_datasets
from mini_platform_tests.support.command import here


def walk(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with its words."""
    yield path, command
    for name, member in getattr(command, "commands", {}).items():
        yield from walk(member, *path, name)


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_help_ends_with_an_example_that_parses(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    *_, last_line = here(*path, "--help").stdout.strip().splitlines()
    program, *words = shlex.split(last_line.strip().removeprefix("Example: "))
    assert program == "mini-platform"
    assert words[: len(path)] == list(path) or hasattr(COMMANDS[path], "commands")
    command = COMMANDS[()]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    for name in (word for word in words if word.endswith((".txt", ".csv"))):
        (tmp_path / name).touch()
    command.make_context(None, words).close()


def test_version() -> None:
    assert here("--version").stdout == f"mini-platform {version('mini-platform')}\n"


def completed(line: str, **environment: str) -> list[str]:
    """Return what bash would offer for the last word of a line."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_MINI_PLATFORM_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "mini_platform.cli"]
    result = subprocess.run(
        command, env={**os.environ, **words, **environment}, capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    return result.stdout.split()


def test_a_shell_completes_commands_options_and_datasets(tmp_path: Path) -> None:
    assert completed("mini-platform expl") == ["explain"]
    assert "--dry-run" in completed("mini-platform purge --")
    assert completed("mini-platform load we") == ["weather"]
    (tmp_path / "meters.py").write_text("import polars, nothing\ndataset = Dataset(name='water', table='meters')\n")
    (tmp_path / "gas.py").write_text("dataset: Dataset = Dataset(name=NAME)\n")
    (tmp_path / "broken.py").write_text("dataset = (")
    (tmp_path / "heat").mkdir()
    (tmp_path / "heat" / "defs.yaml").write_text("type: x\nattributes:\n  name: heat\n---\n- nonsense\n")
    assert completed("mini-platform files ", MINI_PLATFORM_DATASETS=f"{tmp_path}/") == ["gas", "heat", "water"]
    assert completed("mini-platform files ", MINI_PLATFORM_API_PORT="nonsense") == []


def test_datasets_are_completed_without_importing_them() -> None:
    code = (
        "import sys; from typer import Context; from typer.core import TyperGroup; from mini_platform.cli.completion "
        "import dataset_names as names; print(*names(Context(TyperGroup()))); print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, modules = result.stdout.splitlines()
    assert names.split() == sorted(all_datasets())
    assert not {"polars", "dagster", "sqlalchemy", "pandera"} & set(modules.split())


def test_datasets_of_another_project_are_completed(tmp_path: Path) -> None:
    (tmp_path / "acme" / "datasets").mkdir(parents=True)
    (tmp_path / "acme" / "__init__.py").touch()
    (tmp_path / "acme" / "datasets" / "water.py").write_text("dataset = Dataset(name='water')\n")
    (tmp_path / "pyproject.toml").write_text("[tool.mini_platform]\npackage = 'acme'\n")
    assert completed(f"mini-platform --project {tmp_path} load ") == ["water"]
    assert completed(f"mini-platform --project {tmp_path}/nowhere load ") == []


SLOW_STEP = """
import sys, time
from mini_platform.cli import output
output.SILENT_SECONDS = output.BRIEF_SECONDS = 0.1
with output.doing("Sleeping"):
    time.sleep(1)
with output.doing("Nothing"):
    pass
with output.progress_bar("Reading", None):
    time.sleep(0.4)
output.print_message("Done.")
"""


def test_what_takes_long_says_so_and_a_terminal_forgets_it() -> None:
    piped = subprocess.run([sys.executable, "-c", SLOW_STEP], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("", "Sleeping…\nReading…\nDone.\n")
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", SLOW_STEP], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert shown.startswith("Sleeping…\r\x1b[2K")
    assert "Nothing" not in shown
    assert "Reading" in shown
