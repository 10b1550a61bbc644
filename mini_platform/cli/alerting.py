"""Incidents and who is told of them."""

import os
from typing import Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_table, say

SHOWN = {
    "incident_id": "id",
    "kind": "kind",
    "message": "message",
    "since": "since",
    "times": "times",
    "closed_at": "closed",
    "told": "told",
}
"""What is listed of an incident, with headings."""

alerts = typer.Typer(help="List and close incidents; test who is told of them.", no_args_is_help=True)


@alerts.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per incident and line.")] = False,
) -> None:
    """List what is wrong, and who was told of it."""
    from mini_platform.operations.detection import look
    from mini_platform.operations.incidents import listed

    platform = open_platform()
    with platform.engine.begin() as conn:
        look(conn, platform, platform.datasets)
        rows = [dict(row._mapping) for row in listed(conn, closed=everything)]
    if as_json:
        print_json(rows)
    else:
        print_table(SHOWN, rows, "Nothing is wrong, as far as the last look saw.")


@alerts.command()
def close(incident: Annotated[int, typer.Argument(metavar="ID", help="As listed.")]) -> None:
    """Close an incident that will not go away by itself, such as a file that was corrected under another name.

    The same thing that went wrong once is not told of again; when it goes wrong anew, it is.
    """
    import getpass

    from mini_platform.operations import incidents

    with open_platform().engine.begin() as conn:
        if not incidents.close(conn, incident, getpass.getuser()):
            raise MistakeError(f"There is no open incident {incident}. See: mini-platform alerts list")
    say(f"Incident {incident} is closed.")


@alerts.command()
def test() -> None:
    """Send a message by every URL of MINI_PLATFORM_ALERTS. Exit code 1 if one did not take it."""
    from mini_platform.config.settings import load_settings
    from mini_platform.operations.alerts import AlertsError, services

    settings = load_settings()
    try:
        told = services(settings)
    except AlertsError as error:
        raise MistakeError(str(error)) from error
    if not told:
        raise MistakeError("MINI_PLATFORM_ALERTS is not set: nobody is told of anything.")
    body = f"This is what an alert looks like. It was sent by `mini-platform alerts test` on {os.uname().nodename}."
    failures = {service.name: service.send("Mini Platform: test", f"{body}\n{settings.links_url}") for service in told}
    for name, failure in failures.items():
        typer.echo(f"{name}: {failure or 'told'}")
    if any(failures.values()):
        raise typer.Exit(1)
