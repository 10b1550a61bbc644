"""Commands that operate the platform: backup, restore, purge, doctor, and the setup of Metabase."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.context import open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, print_facts, print_json, print_message, print_table, printable, progress_bar

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of backups.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def backup(
    folder: Folder,
    keep: Annotated[int | None, typer.Option(min=1, help="Keep only this many backups in DIR, the newest.")] = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Include the keys of personal data's hashes and of cookies.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Back up the database and the raw store to DIR, consistent with each other, while the platform runs.

    Raw files are copied once, however many backups are in DIR. A backup contains all data in clear: protect it
    like the database. Exit code 1 if a raw file is missing or damaged in the store: the rest is backed up.

    Example: mini-platform backup /mnt/backups --keep 7
    """
    from mini_platform.operations.backup import backup as create_backup
    from mini_platform.operations.backup import expire

    platform = open_platform()
    with progress_bar("Backing up", None) as advance:
        result = create_backup(platform, folder, advance, secrets=with_secrets)
    expired = expire(folder, keep) if keep else []
    manifest = result.manifest
    facts = {
        "backup": str(folder / result.name),
        "rows": sum(manifest.rows.values()),
        "raw files": manifest.raw_files,
        "raw bytes": manifest.raw_bytes,
        "copied now": result.copied,
        "removed": expired,
        "secrets": manifest.secrets,
        "raw files missing": manifest.raw_missing,
    }
    if as_json:
        print_json([facts])
    else:
        print_facts({name: value for name, value in facts.items() if value != []})
    if manifest.keyring and "pii.key" not in manifest.secrets:
        print_message(
            "The backup does not include the keys of personal data: store them elsewhere, too, or use --with-secrets."
        )
    if manifest.raw_missing:
        print_message(
            f"{len(manifest.raw_missing)} raw files are missing or damaged in the raw store: see `mini-platform verify`."
        )
        raise typer.Exit(1)


def restore(
    folder: Folder,
    at: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the backup in DIR; by default the newest.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the data that the platform has now by the backup's.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Land files again that arrived since the backup, from the raw store.")
    ] = False,
    other_keys: Annotated[
        bool, typer.Option("--other-keys", help="Continue although the keys of personal data are lost.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restore the platform from a backup in DIR. Stop the platform first; a failure leaves its tables as they were.

    Example: mini-platform restore /mnt/backups --replace
    """
    from mini_platform.operations import archive
    from mini_platform.operations.restore import restore as restore_backup
    from mini_platform.platform import Platform

    names = archive.backups(folder)
    if not names or (at and at not in names):
        missing = f"no backup {at}" if at and names else "no backup"
        raise MistakeError(f"There is {missing} in {folder}{': ' + ', '.join(names) if names else ''}.")
    name = at or names[-1]
    total = archive.read_manifest(folder, name).raw_bytes
    with progress_bar("Checking", total) as advance:
        result = restore_backup(
            Platform(), folder, name, advance, replace=replace, replay=replay, other_keys=other_keys
        )
    facts = {
        "restored": str(folder / name),
        "of": result.manifest.created_at,
        "rows": sum(result.manifest.rows.values()),
        "raw files brought back": result.raw_files,
        "arrived since": result.later,
        "to be loaded again": result.replayed,
    }
    if as_json:
        print_json([facts])
    else:
        print_facts(facts)
    for note in result.notes:
        print_message(note)
    if result.manifest.raw_missing:
        print_message(f"{len(result.manifest.raw_missing)} raw files were missing when the backup was made.")
    if result.later > result.replayed:
        print_message(
            f"{result.later - result.replayed} files that arrived since the backup are not loaded: deliver them again."
        )
    if result.erased_later:
        print_message("A person was forgotten since the backup, which restored their data: forget them again.")


def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Remove what is older than its retention: raw files, rejected rows, quality reports, Dagster's runs.

    The job `purge` does the same every night. Retention is set by MINI_PLATFORM_RAW_RETENTION and the settings beside it.

    Example: mini-platform purge --dry-run
    """
    from mini_platform.cli.context import open_datasets
    from mini_platform.operations.purge import days
    from mini_platform.operations.purge import purge as remove

    platform, datasets = open_datasets(None)
    with doing("Looking for what is older than its retention"):
        results = list(remove(platform, datasets, dry_run=dry_run))
    if age := days(platform.settings.run_retention):
        from mini_platform.dagster.instance import prepare_instance

        os.environ.setdefault("DAGSTER_HOME", str(prepare_instance(platform.settings)))
        with doing("Looking for Dagster's old runs"):
            from mini_platform.dagster.purging import purge_runs_here

            results.append(purge_runs_here(age, dry_run=dry_run))
    rows = [item.as_dict() for item in results if item.items]
    if as_json:
        print_json(rows)
    else:
        columns = {
            "what": "would be removed" if dry_run else "removed",
            "dataset": "dataset",
            "items": "count",
            "bytes": "bytes",
        }
        print_table(columns | {"oldest": "oldest"}, rows, "Nothing is older than its retention.")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False) -> None:
    """Check settings, database, inboxes, clock, disk, versions and ports, and give advice for each problem.

    Nothing is changed. Exit code 1 if there is a problem.

    Example: mini-platform doctor
    """
    with doing("Checking versions and settings"):
        from mini_platform.operations.doctor import examine

        checks = examine()
        result = next(checks, None)
    results = []
    while result is not None:
        results.append(result)
        if as_json:
            print_json([result.as_dict()])
        else:
            typer.echo(printable(f"{result.level:<8} {result.check:<9} {result.message}"))
            if result.advice:
                typer.echo(printable(f"{'':<18} → {result.advice}"))
        with doing("Checking"):
            result = next(checks, None)
    if any(result.level == "problem" for result in results):
        raise typer.Exit(1)


def metabase(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of Metabase, such as http://127.0.0.1:3001.")],
    database: Annotated[
        str,
        typer.Option(
            help="URL of the database as Metabase reaches it, with a login of the role bi, without a password."
        ),
    ],
    email: Annotated[
        str,
        typer.Option(help="E-mail address of Metabase's administrator, who is created if Metabase is not set up yet."),
    ],
    password_file: Annotated[typer.FileText, typer.Option(help="File with the administrator's password.")],
    database_password_file: Annotated[typer.FileText, typer.Option(help="File with the password of the login.")],
) -> None:
    """Connect Metabase to the database as a role that reads no personal data, and create the dashboards of the datasets.

    A second run creates what is missing, and changes only questions that differ from their declaration.

    Example: mini-platform metabase http://127.0.0.1:3001 --database postgresql://bi@db/data --email me@example.com
    --password-file admin.txt --database-password-file bi.txt
    """
    from sqlalchemy import make_url

    from mini_platform.declare.registry import configured
    from mini_platform.operations.metabase import Metabase, dashboards_of

    registry = configured()
    dashboards = dashboards_of(registry, registry.datasets)
    target = make_url(database).set(password=database_password_file.read().strip())
    for invalid in registry.invalid:
        print_message(f"Left out: {invalid.message}")
    with doing("Setting up Metabase"), Metabase(url, email, password_file.read().strip()) as session:
        changes = session.set_up(target, dashboards)
    if not dashboards:
        print_message("No dataset declares dashboards: only the database was connected.")
    for phrase in changes or ["Everything is up to date."]:
        typer.echo(phrase)
