"""Commands that start and stop the platform's processes and show their status."""

from typing import Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, end_step, print_facts, print_json

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def up(
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", "-d", help="Return when the platform is ready, and leave it running in the background."
        ),
    ] = False,
) -> None:
    """Start Postgres, Dagster and the API, and load files that are dropped into the data folders. Ctrl-C stops everything.

    Example: mini-platform up --detach
    """
    with doing("Starting"):
        from mini_platform.cli.supervisor import commands
    raise typer.Exit(commands.up(detach=detach))


def down() -> None:
    """Stop the platform, and check that none of its processes is left.

    Example: mini-platform down
    """
    with doing("Stopping"):
        from mini_platform.cli.supervisor import commands
    raise typer.Exit(commands.down())


def serve(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="code-server, webserver, daemon, api or watchdog.")],
) -> None:
    """Run one service of the platform in the foreground, as in a container; `up` runs all of them.

    Example: mini-platform serve api
    """
    from mini_platform.cli import service as services
    from mini_platform.config.settings import load_settings

    if service not in services.SERVICES:
        raise MistakeError(f"There is no service {service!r}. The services are: {', '.join(services.SERVICES)}.")
    end_step()
    services.serve(service, load_settings())


def status(as_json: Json = False) -> None:
    """Show the processes of the platform, and their addresses.

    Example: mini-platform status --json
    """
    with doing("Looking at the processes"):
        from mini_platform.cli.supervisor import commands

        facts = commands.status()
    if as_json:
        print_json([facts])
    else:
        facts["parts"] = commands.describe(facts["parts"])
        print_facts({name.replace("_", " "): value for name, value in facts.items()})
