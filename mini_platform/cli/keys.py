"""Keys of the HTTP API: making, listing and revoking them."""

import datetime as dt
import re
from typing import Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_table, say

SHOWN = {
    "prefix": "prefix",
    "name": "name",
    "scopes": "scopes",
    "state": "state",
    "created_at": "created",
    "expires_at": "expires",
    "last_used_at": "last used",
}
"""What is listed of a key, with headings."""

key = typer.Typer(help="Make, list and revoke the keys of the HTTP API.", no_args_is_help=True)


@key.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="read, write or admin; in one dataset read:DATASET or write:DATASET, which personal data always need. "
            "May be given several times."
        ),
    ],
    expires: Annotated[
        str, typer.Option(metavar="90d|2027-01-31|never", help="In so many days, or with the end of a day in UTC.")
    ] = "90d",
) -> None:
    """Make a key and print it, once: it is kept nowhere."""
    from mini_platform.declare.registry import configured
    from mini_platform.web.auth import keys

    expires_at = _expiry(expires)
    try:
        scopes = keys.checked_scopes(scope, configured().datasets)
    except ValueError as error:
        raise MistakeError(str(error)) from error
    if not name.strip():
        raise MistakeError("A key needs a name that says what it is for.")
    with open_platform().engine.begin() as conn:
        made = keys.create(conn, name.strip(), scopes, expires_at)
    typer.echo(made)
    until = f"until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "for ever"
    say(f"This is the only time that it is shown. It is good {until}; mini-platform key revoke {made[:11]} ends it.")


@key.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="One JSON object per key and line.")] = False) -> None:
    """List every key that was ever made, without what is secret of it."""
    from mini_platform.web.auth import keys

    with open_platform().engine.connect() as conn:
        rows = [vars(key) for key in keys.listed(conn)]
    if as_json:
        print_json({name: row[name] for name in ("key_id", *SHOWN, "revoked_at")} for row in rows)
    else:
        print_table(SHOWN, rows, "There are no keys. See: mini-platform key create --help")


@key.command()
def revoke(prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Its first characters, as listed.")]) -> None:
    """End a key at once. It stays listed, and stays ended."""
    from mini_platform.web.auth import keys

    found = keys.FORM.fullmatch(prefix)
    with open_platform().engine.begin() as conn:
        revoked = keys.revoke(conn, found[1] if found else prefix)
    if revoked is None:
        raise MistakeError(f"There is no key {prefix[:11]!r}. See: mini-platform key list")
    say(f"The key {revoked.prefix} ({revoked.name}) lets nobody in any more.")


def _expiry(text: str) -> dt.datetime | None:
    """When a key expires.

    Raises:
        MistakeError: that cannot be read, or is over.
    """
    now = dt.datetime.now(dt.UTC)
    if text == "never":
        return None
    try:
        if days := re.fullmatch(r"(\d{1,6})d", text, re.ASCII):
            expires_at = now + dt.timedelta(days=int(days[1]))
        else:
            end = dt.date.fromisoformat(text) + dt.timedelta(days=1)
            expires_at = dt.datetime.combine(end, dt.time(), dt.UTC)
    except (ValueError, OverflowError):
        raise MistakeError(
            f"--expires {text!r}: it should be days such as 90d, a date such as 2027-01-31, or never."
        ) from None
    if expires_at <= now:
        raise MistakeError(f"--expires {text}: that is over; the key would let nobody in.")
    return expires_at
