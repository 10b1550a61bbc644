"""Starting, stopping and looking at the platform's processes."""

from typing import Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_facts, print_json

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it running.")
    ] = False,
) -> None:
    """Start Postgres and Dagster, and load what is dropped into the data folders. Ctrl-C stops everything."""
    from mini_platform.cli.supervisor import commands

    raise typer.Exit(commands.up(detach=detach))


def down() -> None:
    """Stop the platform, and check that nothing of it is left running."""
    from mini_platform.cli.supervisor import commands

    raise typer.Exit(commands.down())


def serve(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="code-server, webserver, daemon or api.")],
) -> None:
    """Run one process of the platform in the foreground, as a container does; `up` runs all of them."""
    from mini_platform.cli import service as services
    from mini_platform.config.settings import load_settings

    if service not in services.SERVICES:
        raise MistakeError(f"There is no service {service!r}. The services are: {', '.join(services.SERVICES)}.")
    services.serve(service, load_settings())


def status(as_json: Json = False) -> None:
    """Show what runs, and where."""
    from mini_platform.cli.supervisor import commands

    found = commands.status()
    if as_json:
        print_json([found])
    else:
        print_facts({name.replace("_", " "): value for name, value in found.items()})
