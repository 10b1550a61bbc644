"""Commands for incidents and the alerts about them."""

import os
from typing import Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, print_json, print_message, print_table

COLUMNS = {
    "incident_id": "id",
    "kind": "kind",
    "message": "message",
    "since": "since",
    "times": "times",
    "closed_at": "closed",
    "notified": "notified",
}
"""Fields of an incident that are listed, with headings."""

alerts = typer.Typer(help="List and close incidents, and test the alerts about them.", no_args_is_help=True)


@alerts.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Include closed incidents.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """List open incidents, and the services that were notified of them.

    Example: mini-platform alerts list --all
    """
    from mini_platform.operations.detection import update_incidents
    from mini_platform.operations.incidents import list_incidents

    platform = open_platform()
    with doing("Looking for incidents"), platform.engine.begin() as conn:
        update_incidents(conn, platform, platform.datasets)
        rows = [dict(row._mapping) for row in list_incidents(conn, closed=everything)]
    if as_json:
        print_json(rows)
    else:
        print_table(COLUMNS, rows, "No open incidents.")


@alerts.command()
def close(incident: Annotated[int, typer.Argument(metavar="ID", help="Id of the incident, as listed.")]) -> None:
    """Close an incident that does not end by itself, such as a file that was corrected under another name.

    No further alert is sent about this occurrence; a new occurrence is a new incident.

    Example: mini-platform alerts close 7
    """
    import getpass

    from mini_platform.operations import incidents

    with open_platform().engine.begin() as conn:
        if not incidents.close(conn, incident, getpass.getuser()):
            raise MistakeError(f"There is no open incident {incident}. See: mini-platform alerts list")
    print_message(f"Incident {incident} is closed.")


@alerts.command()
def test() -> None:
    """Send a test message to every URL of MINI_PLATFORM_ALERTS. Exit code 1 if one of them fails.

    Example: mini-platform alerts test
    """
    from mini_platform.config.settings import load_settings
    from mini_platform.operations.alerts import AlertsError, services

    settings = load_settings()
    try:
        alert_services = services(settings)
    except AlertsError as error:
        raise MistakeError(str(error)) from error
    if not alert_services:
        raise MistakeError("MINI_PLATFORM_ALERTS is not set: no alerts are sent.")
    body = f"This is a test alert, sent by `mini-platform alerts test` on {os.uname().nodename}."
    with doing("Sending a test message"):
        failures = {
            service.name: service.send("Mini Platform: test", f"{body}\n{settings.links_url}")
            for service in alert_services
        }
    for name, failure in failures.items():
        typer.echo(f"{name}: {failure or 'sent'}")
    if any(failures.values()):
        raise typer.Exit(1)
