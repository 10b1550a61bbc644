"""Commands for the keys of the HTTP API: create, list and revoke them, and end their sessions."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_message, print_table

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mini_platform.web.auth.keys import ApiKey

COLUMNS = {
    "prefix": "prefix",
    "name": "name",
    "scopes": "scopes",
    "state": "state",
    "created_at": "created",
    "expires_at": "expires",
    "last_used_at": "last used",
}
"""Fields of a key that are listed, with headings."""
SESSION_COLUMNS = {"prefix": "key", "opened_at": "logged in", "last_used_at": "last used", "expires_at": "expires"}
"""Fields of a session that are listed, with headings."""

key = typer.Typer(
    help="Create, list and revoke the keys of the HTTP API, and end their sessions.", no_args_is_help=True
)


@key.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Purpose of the key.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="read, write or admin; for one dataset read:DATASET or write:DATASET, which personal data always requires. "
            "Can be repeated."
        ),
    ],
    expires: Annotated[
        str,
        typer.Option(
            metavar="90d|2027-01-31|never", help="Days until it expires, or the last day on which it is valid (UTC)."
        ),
    ] = "90d",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Create a key and print it. It is shown only once: the platform does not store it.

    Example: mini-platform key create dashboard --scope read --expires 30d
    """
    from mini_platform.declare.registry import configured
    from mini_platform.web.auth import keys

    expires_at = _expiry(expires)
    try:
        registry = configured()
        scopes = keys.checked_scopes(scope, [*registry.datasets, *(invalid.name for invalid in registry.invalid)])
    except ValueError as error:
        raise MistakeError(str(error)) from error
    if not name.strip():
        raise MistakeError("A key needs a name that says what it is for.")
    with open_platform().engine.begin() as conn:
        secret = keys.create(conn, name.strip(), scopes, expires_at)
    prefix = secret[:11]
    if as_json:
        print_json(
            [{"key": secret, "prefix": prefix, "name": name.strip(), "scopes": scopes, "expires_at": expires_at}]
        )
    else:
        typer.echo(secret)
    until = f"until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "forever"
    print_message(f"The key is shown only once. It is valid {until}; revoke it with: mini-platform key revoke {prefix}")


@key.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False) -> None:
    """List all keys, also expired and revoked ones, without their secret parts, and the open sessions of the dashboard.

    Example: mini-platform key list
    """
    from mini_platform.web.auth import keys, sessions

    with open_platform().engine.connect() as conn:
        rows = [vars(key) for key in keys.listed(conn)]
        opened = [vars(session) for session in sessions.listed(conn)]
    if as_json:
        times = [name for name in SESSION_COLUMNS if name != "prefix"]
        for row in rows:
            of_key = [session for session in opened if session["key_id"] == row["key_id"]]
            row["sessions"] = [{name: session[name] for name in times} for session in of_key]
        print_json({name: row[name] for name in ("key_id", *COLUMNS, "revoked_at", "sessions")} for row in rows)
        return
    print_table(COLUMNS, rows, "There are no keys. See: mini-platform key create --help")
    if opened:
        prefixes = {row["key_id"]: row["prefix"] for row in rows}
        typer.echo("\nOpen sessions of the dashboard:")
        print_table(SESSION_COLUMNS, [{**row, "prefix": prefixes[row["key_id"]]} for row in opened], "")


@key.command()
def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="First characters of the key, as listed.")],
) -> None:
    """Revoke a key at once; its sessions end with it. It stays in the list.

    Example: mini-platform key revoke mp_3fa2c1d
    """
    from mini_platform.web.auth import keys, sessions

    with open_platform().engine.begin() as conn:
        known = _named(conn, prefix)
        sessions.end_all(conn, known)
        keys.revoke(conn, known.prefix)
    print_message(f"The key {known.prefix} ({known.name}) is revoked.")


@key.command("log-out")
def log_out(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="First characters of the key, as listed.")],
) -> None:
    """End all sessions of the dashboard that were opened with a key. The key stays valid.

    Example: mini-platform key log-out mp_3fa2c1d
    """
    from mini_platform.rows.wording import plural
    from mini_platform.web.auth import sessions

    with open_platform().engine.begin() as conn:
        known = _named(conn, prefix)
        ended = sessions.end_all(conn, known)
    print_message(f"{plural(ended, 'session')} of the key {known.prefix} ({known.name}) ended.")


def _named(conn: Connection, prefix: str) -> ApiKey:
    """Return the key with this prefix; the whole key names it, too.

    Raises:
        MistakeError: there is none.
    """
    from mini_platform.web.auth import keys

    match = keys.FORM.fullmatch(prefix)
    known = keys.by_prefix(conn, match[1] if match else prefix)
    if known is None:
        raise MistakeError(f"There is no key {prefix[:11]!r}. See: mini-platform key list")
    return known


def _expiry(text: str) -> dt.datetime | None:
    """Return the time at which a key expires; None for never.

    Raises:
        MistakeError: the text cannot be parsed, or is in the past.
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
        raise MistakeError(f"--expires {text!r}: use days such as 90d, a date such as 2027-01-31, or never.") from None
    if expires_at <= now:
        raise MistakeError(f"--expires {text}: that is in the past; the key would never be valid.")
    return expires_at
