"""Backing the platform up, restoring it, purging what is old, and asking what ails it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_facts, print_json, print_table, printable, progress_bar, say

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of backups.")]
Json = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


def backup(
    folder: Folder,
    keep: Annotated[int | None, typer.Option(min=1, help="Remove all backups in DIR but the newest.")] = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also the keys of personal data's hashes and of cookies.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Back the database and the raw store up into DIR, consistent with each other, while the platform is at work.

    Raw files are copied once, however many backups are in DIR. It holds everything in clear that the platform holds: guard it
    like the database. Exit code 1 if a raw file is missing or damaged in the store: the rest is backed up.
    """
    from mini_platform.operations.backup import backup as make
    from mini_platform.operations.backup import expire

    platform = open_platform()
    with progress_bar("Backing up", None) as advance:
        made = make(platform, folder, advance, secrets=with_secrets)
    expired = expire(folder, keep) if keep else []
    manifest = made.manifest
    facts = {
        "backup": str(folder / made.name),
        "rows": sum(manifest.rows.values()),
        "raw files": manifest.raw_files,
        "raw bytes": manifest.raw_bytes,
        "copied now": made.copied,
        "removed": expired,
        "secrets": manifest.secrets,
        "raw files missing": manifest.raw_missing,
    }
    if as_json:
        print_json([facts])
    else:
        print_facts({name: value for name, value in facts.items() if value != []})
    if manifest.keyring and "pii.key" not in manifest.secrets:
        say("The keys of personal data are not in it: keep them elsewhere, too, or say --with-secrets.")
    if manifest.raw_missing:
        say(
            f"{len(manifest.raw_missing)} raw files are missing or damaged in the raw store: see `mini-platform verify`."
        )
        raise typer.Exit(1)


def restore(
    folder: Folder,
    at: Annotated[str | None, typer.Option(metavar="NAME", help="Which backup in DIR; the newest by default.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The platform has data of its own: replace it by the backup's.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Land again what arrived since the backup, from the raw store.")
    ] = False,
    other_keys: Annotated[
        bool, typer.Option("--other-keys", help="Go on although the keys of personal data are lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the platform again what it was at a backup in DIR. Stop it first; a failure leaves its tables as they were."""
    from mini_platform.operations import archive
    from mini_platform.operations.restore import restore as bring_back
    from mini_platform.platform import Platform

    names = archive.backups(folder)
    if not names or (at and at not in names):
        which = f"no backup {at}" if at and names else "no backup"
        raise MistakeError(f"There is {which} in {folder}{': ' + ', '.join(names) if names else ''}.")
    name = at or names[-1]
    total = archive.read_manifest(folder, name).raw_bytes
    with progress_bar("Checking", total) as advance:
        done = bring_back(Platform(), folder, name, advance, replace=replace, replay=replay, other_keys=other_keys)
    facts = {
        "restored": str(folder / name),
        "of": done.manifest.created_at,
        "rows": sum(done.manifest.rows.values()),
        "raw files brought back": done.raw_files,
        "arrived since": done.later,
        "to be loaded again": done.replayed,
    }
    if as_json:
        print_json([facts])
    else:
        print_facts(facts)
    if done.manifest.raw_missing:
        say(f"{len(done.manifest.raw_missing)} raw files were not there when the backup was made.")
    if done.later > done.replayed:
        say(f"{done.later - done.replayed} files that arrived since are in no table: they must arrive again.")
    if done.erased_later:
        say("Somebody was forgotten since the backup and is back: forget them again.")


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Remove what is older than the settings keep it: raw files, rejected rows, quality reports, Dagster's runs.

    The job `purge` does the same every night. How long each is kept: MINI_PLATFORM_RAW_RETENTION and its neighbours.
    """
    from mini_platform.cli.context import datasets_named
    from mini_platform.operations.purge import days
    from mini_platform.operations.purge import purge as remove

    platform = open_platform()
    done = list(remove(platform, datasets_named(None), dry_run=dry_run))
    if age := days(platform.settings.run_retention):
        from mini_platform.config.settings import PROJECT

        os.environ.setdefault("DAGSTER_HOME", str(PROJECT))
        from mini_platform.dagster.purging import purge_runs_here

        done.append(purge_runs_here(age, dry_run=dry_run))
    rows = [item.as_dict() for item in done if item.items]
    if as_json:
        print_json(rows)
    else:
        columns = {"what": "would go" if dry_run else "removed", "dataset": "of", "items": "how many", "bytes": "bytes"}
        print_table(columns | {"oldest": "oldest"}, rows, "Nothing is older than it is kept.")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False) -> None:
    """Look for what is wrong with settings, database, inboxes, clock, disk, versions and ports, and say what to do.

    It changes nothing. Exit code 1 if there is a problem.
    """
    from mini_platform.operations.doctor import examine

    found = []
    for result in examine():
        found.append(result)
        if as_json:
            print_json([result.as_dict()])
        else:
            typer.echo(printable(f"{result.level:<8} {result.check:<9} {result.message}"))
            if result.advice:
                typer.echo(printable(f"{'':<18} → {result.advice}"))
    if any(result.level == "problem" for result in found):
        raise typer.Exit(1)


def metabase(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of Metabase, such as http://127.0.0.1:3001.")],
    database: Annotated[
        str,
        typer.Option(
            help="URL of the database as Metabase reaches it, with a login of the role bi, no password in it."
        ),
    ],
    email: Annotated[str, typer.Option(help="Of Metabase's administrator, who is made if nobody set it up yet.")],
    password_file: Annotated[typer.FileText, typer.Option(help="Where the administrator's password stands.")],
    database_password_file: Annotated[typer.FileText, typer.Option(help="Where the password of the login stands.")],
) -> None:
    """Connect Metabase to the database as a role that reads no personal data, and make the dashboards that datasets have.

    Run again, it makes what is missing, and changes nothing else but questions that differ from what they should ask.
    """
    from sqlalchemy import make_url

    from mini_platform.declare.registry import configured
    from mini_platform.operations.metabase import Metabase, dashboards_of

    registry = configured()
    dashboards = dashboards_of(registry, registry.datasets)
    target = make_url(database).set(password=database_password_file.read().strip())
    with Metabase(url, email, password_file.read().strip()) as session:
        done = session.set_up(target, dashboards)
    if not dashboards:
        say("No dataset has dashboards of its own: Metabase is connected, and that is all.")
    for phrase in done or ["all is there"]:
        typer.echo(phrase)
