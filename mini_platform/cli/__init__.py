"""The command `mini-platform`: one module per group of commands.

Here: the list of commands. In the modules: the arguments and the output of each command. Not here: what the platform does.

Modules of commands import nothing heavy at their top (Dagster, polars, SQLAlchemy, pydantic), so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.alerting import alerts
from mini_platform.cli.database import db, psql, url
from mini_platform.cli.drafting import new
from mini_platform.cli.errors import ErrorReportingGroup
from mini_platform.cli.exporting import export
from mini_platform.cli.forgetting import forget
from mini_platform.cli.inspecting import check, explain, verify
from mini_platform.cli.keys import key
from mini_platform.cli.listing import files, rejects
from mini_platform.cli.loading import adopt, load, reprocess
from mini_platform.cli.operating import backup, doctor, metabase, purge, restore
from mini_platform.cli.sampling import sample
from mini_platform.cli.server import down, serve, status, up
from mini_platform.cli.starting import init
from mini_platform.cli.syncing import sources, sync
from mini_platform.config.project import use_project

app = typer.Typer(
    name="mini-platform",
    cls=ErrorReportingGroup,
    help="Load files into trusted Postgres tables. Exit codes: 0 success, 1 an error in the data or the platform, "
    "2 wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"mini-platform {version('mini-platform')}")
        raise typer.Exit


@app.callback()
def use(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--project", metavar="FOLDER", help="Folder of the project; by default the nearest one upwards.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:  # fmt: skip
    """Choose the project."""
    if folder is not None:
        use_project(folder)


GROUPS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Platform": (init, up, down, status, serve),
    "Load": (load, sync, reprocess, forget, adopt),
    "Inspect": (files, sources, rejects, explain, verify, export),
    "Operate": (doctor, backup, restore, purge, metabase),
    "Tools": (new, check, sample, url),
}
for group, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)
app.add_typer(alerts, name="alerts", rich_help_panel="Operate")
app.add_typer(key, name="key", rich_help_panel="Platform")
app.add_typer(db, name="db", rich_help_panel="Operate")
# All arguments after `psql` are passed to psql, even -h.
app.command(
    rich_help_panel="Tools",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)(psql)
