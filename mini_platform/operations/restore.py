"""Restore a backup, completely or not at all.

First every file is checked, then raw files are copied back (beside existing ones: their names are their hashes), finally the
database is restored in one transaction: if anything fails, the previous state remains.

Files that arrived after the backup are in the replaced ledger and in the raw store; `replay` lands them again, in their order.
"""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, delete, insert, select, text, update

from mini_platform.config.home import OWNER_ONLY
from mini_platform.operations import archive
from mini_platform.operations.archive import BackupError, Manifest
from mini_platform.operations.backup import Progress, fingerprint
from mini_platform.operations.places import FILES
from mini_platform.platform import Platform
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import audit, ledger
from mini_platform.warehouse.connection import engine
from mini_platform.warehouse.initialize import initialize, is_initialized
from mini_platform.warehouse.migrations import NEWEST
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import api_keys, files, sessions
from mini_platform.warehouse.tables import audit as trail
from mini_platform.warehouse.usable import require_usable

OTHERS = text(
    "SELECT coalesce(nullif(application_name, ''), 'a program without a name') FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY 1"
)
FIRST_NEWER = 17
"""From this version on pg_restore sets `transaction_timeout`, which an older server does not know."""
HEAD_LINES = 40
REFUSE_NEWER = f"""
IF to_regclass('ops.migrations') IS NOT NULL THEN
    IF (SELECT max(number) FROM ops.migrations) > {NEWEST} THEN
        RAISE EXCEPTION 'the backup was made by a newer version of Mini Platform: restore it with that version';
    END IF;
END IF;
"""  # noqa: S608 - a number of our own


@dataclass(frozen=True)
class Restored:
    """The result of a restore.

    Attributes:
        manifest: manifest of the backup.
        raw_files: number of raw files that were copied back; the others existed.
        later: number of files that arrived after the backup was made, according to the replaced ledger.
        replayed: number of these that are pending again.
        erased_later: True if a person was forgotten since: their data is back, and must be forgotten again.
    """

    manifest: Manifest
    raw_files: int
    later: int
    replayed: int
    erased_later: bool


def restore(
    platform: Platform,
    folder: Path,
    name: str,
    progress: Progress,
    *,
    replace: bool = False,
    replay: bool = False,
    other_keys: bool = False,
) -> Restored:
    """Restore a backup.

    Args:
        platform: platform to restore into; nothing may be connected to its database.
        folder: folder of backups.
        name: name of the backup in it.
        progress: called with the bytes of checked files, and with the next step.
        replace: restore even if the platform has files of its own.
        replay: land files again that arrived since the backup.
        other_keys: continue although the keys of personal data differ from those of the backup.

    Raises:
        UnusableDatabaseError: the database is not one for the platform.
        BackupError: it cannot be restored; nothing is changed, except raw files that were copied back.
    """
    manifest = archive.read_manifest(folder, name)
    database = engine(platform.url)
    try:
        require_usable(database)
        with database.connect() as conn:
            _refuse_if_in_use(conn, replace=replace)
            server = archive.server_version(conn)
            if server < manifest.postgres:
                raise BackupError(
                    f"The backup is of Postgres {manifest.postgres}, but the server is Postgres {server}, which is too old."
                )
            program, _ = archive.programs(conn, manifest.pg_dump)
            before, revoked, audit_records = _ledger(conn), _revoked(conn), _audit_since(conn, manifest)
            has_roles = is_initialized(conn)
        _check_files(folder, name, manifest)
        _copy_secrets(platform, folder / name, manifest, other_keys=other_keys)
        copied = _copy_raw(platform.store, folder, name, progress)
        for place in FILES:
            if place.restore:
                place.restore(platform, folder / name)
        progress(0, "Restoring the database")
        database.dispose()
        _load_dump(program, platform.url, folder / name / "database.dump", manifest, server)
        progress(0, "Updating the tables")
        (initialize if has_roles else create_all)(database, platform.datasets.values())
        _revoke(database, revoked)
        _add_audit_records(database, audit_records, manifest, name)
        return _land_later_files(database, platform.store, manifest, before, copied, replay=replay)
    finally:
        database.dispose()


def _refuse_if_in_use(conn: Connection, *, replace: bool) -> None:
    if others := sorted(set(conn.execute(OTHERS).scalars())):
        message = (
            f"Clients are connected to the database ({', '.join(others)}): stop them first, with `mini-platform down`."
        )
        raise BackupError(message)
    if not replace and _ledger(conn):
        raise BackupError(
            "This platform has files of its own, which would be lost from its tables: restore into an empty one, "
            "or use --replace."
        )


def _ledger(conn: Connection) -> Sequence[Row[Any]]:
    """Return ledger rows of all versions, in the order of arrival."""
    if conn.scalar(text("SELECT to_regclass('ops.files')")) is None:
        return []
    columns = (
        files.c[n] for n in ("dataset", "name", "version", "sha256", "bytes", "channel", "raw_dropped_at", "erased_at")
    )
    return conn.execute(select(*columns).where(files.c.same_as.is_(None)).order_by(files.c.file_id)).all()


def _revoked(conn: Connection) -> list[dict[str, Any]]:
    """Return the API keys that are revoked now."""
    if conn.scalar(text("SELECT to_regclass('ops.api_keys')")) is None:
        return []
    rows = select(api_keys.c.sha256.label("key"), api_keys.c.revoked_at.label("at")).where(
        api_keys.c.revoked_at.is_not(None)
    )
    return [dict(row) for row in conn.execute(rows).mappings()]


def _revoke(database: Engine, revoked: list[dict[str, Any]]) -> None:
    """Revoke API keys again, and remove all sessions: those revoked or ended after the backup must not come back."""
    with database.begin() as conn:
        conn.execute(delete(sessions))
        if revoked:
            statement = update(api_keys).where(api_keys.c.sha256 == bindparam("key")).values(revoked_at=bindparam("at"))
            conn.execute(statement, revoked)


def _audit_since(conn: Connection, manifest: Manifest) -> list[dict[str, Any]]:
    """Return the audit records since the backup."""
    if conn.scalar(text("SELECT to_regclass('ops.audit')")) is None:
        return []
    columns = [column for column in trail.columns if column.name != "audit_id"]
    rows = select(*columns).where(trail.c.at >= dt.datetime.fromisoformat(manifest.created_at))
    return [dict(row) for row in conn.execute(rows.order_by(trail.c.audit_id)).mappings()]


def _add_audit_records(database: Engine, audit_records: list[dict[str, Any]], manifest: Manifest, name: str) -> None:
    """Add audit records since the backup to the restored trail, which must not lose them."""
    with database.begin() as conn:
        restored = _audit_since(conn, manifest)  # Those within the second of the backup may be in it.
        if missing := [row for row in audit_records if row not in restored]:
            conn.execute(insert(trail), missing)
        audit.record(conn, "restored", name)


def _check_files(folder: Path, name: str, manifest: Manifest) -> None:
    """Check that the backup's own files are undamaged; raw files are checked while they are copied."""
    sums = folder / name / "SHA256SUMS"
    archive.check_file(sums, manifest.sums_sha256)
    for sha256, path in archive.read_sums(folder, name):
        if not path.startswith("raw/"):
            archive.check_file(folder / path, sha256)


def _copy_secrets(platform: Platform, backup: Path, manifest: Manifest, *, other_keys: bool) -> None:
    for name in manifest.secrets:
        target = platform.settings.home / name
        if not target.exists():
            target.parent.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
            archive.copy_private(backup / "secrets" / name, target)
    if not other_keys and not set(manifest.keyring) <= set(fingerprint(platform)):
        raise BackupError(
            "The keys of personal data differ from those of the backup: later rows of a person would get other hashes. "
            f"Restore the old keys (MINI_PLATFORM_PII_KEYS, or {platform.settings.home / 'pii.key'}), "
            "or use --other-keys if they are lost."
        )


def _copy_raw(store: RawStore, folder: Path, name: str, progress: Progress) -> int:
    copied = 0
    for sha256, path in archive.read_sums(folder, name):
        if not path.startswith("raw/"):
            continue
        source = folder / path
        try:
            size = source.stat().st_size
            if store.size(sha256) != size:
                archive.check_file(source, sha256)
                store.remove(sha256)
                with source.open("rb") as stream:
                    store.put(stream)
                copied += 1
        except FileNotFoundError:
            raise BackupError(f"The backup is damaged: {source} is missing.") from None
        progress(size, None)
    return copied


def _load_dump(programs: Path, url: str, dump: Path, manifest: Manifest, server: int) -> None:
    """Replace the schemas by those of a dump, in one transaction that also checks the number of rows."""
    reading = archive.start(
        programs / "pg_restore", None, "--no-owner", "--no-acl", "--file=-", str(dump), stdout=subprocess.PIPE
    )
    writing = archive.start(
        programs / "psql", url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1",
        "--set=VERBOSITY=terse",  # details of an error quote rows
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with reading, writing:
        try:
            _pipe(reading, writing, manifest, server)
        except BrokenPipeError:  # psql has failed; its error is reported below.
            reading.kill()
        errors = [process.stderr.read() if process.stderr else b"" for process in (writing, reading)]
    if writing.returncode or reading.returncode:
        message = " ".join((errors[0] or errors[1]).decode(errors="replace").split())
        raise BackupError(f"The database could not be restored and is unchanged: {message}")


def _pipe(reading: subprocess.Popen[bytes], writing: subprocess.Popen[bytes], manifest: Manifest, server: int) -> None:
    """Copy the script of pg_restore to psql; it is committed only if pg_restore has succeeded."""
    if reading.stdout is None or writing.stdin is None:
        raise AssertionError("both must be pipes")
    script, target = reading.stdout, writing.stdin
    with target:
        target.write(_script_start().encode())
        for _ in range(HEAD_LINES):
            line = script.readline()
            if server >= FIRST_NEWER or not line.startswith(b"SET transaction_timeout"):
                target.write(line)
        shutil.copyfileobj(script, target)
        if reading.wait() == 0:
            target.write(_script_end(manifest).encode())


def _script_start() -> str:
    return (
        "BEGIN;\nSET client_min_messages = warning;\nSET LOCAL lock_timeout = '30s';\n"
        f"DROP SCHEMA IF EXISTS {', '.join(archive.DUMPED)} CASCADE;\n"
    )


def _script_end(manifest: Manifest) -> str:
    """Return the end of the script: check that every table has the rows of the snapshot, and mark grants as outdated.

    Leases are released: no process works any more on files that were leased when the backup was made.
    """
    row_checks = "".join(
        f"IF (SELECT count(*) FROM {table}) <> {rows} THEN RAISE EXCEPTION '{table} does not have its {rows} rows'; END IF;\n"  # noqa: S608
        for table, rows in manifest.rows.items()
    )
    return (
        f"\nDO $check$ BEGIN\n{REFUSE_NEWER}{row_checks}END $check$;\n"
        "UPDATE ops.files SET leased_by = NULL, leased_until = NULL WHERE leased_by IS NOT NULL;\n"
        "DELETE FROM ops.fingerprints WHERE name = 'ops';\nCOMMIT;\nANALYZE;\n"
    )


def _land_later_files(
    database: Engine, store: RawStore, manifest: Manifest, before: Sequence[Row[Any]], copied: int, *, replay: bool
) -> Restored:
    with database.begin() as conn:
        known = {(row.dataset, row.name, row.version) for row in _ledger(conn)}
        later = [row for row in before if (row.dataset, row.name, row.version) not in known]
        to_land = (
            [row for row in later if row.raw_dropped_at is None and store.size(row.sha256) is not None]
            if replay
            else []
        )
        for (dataset, channel), rows in groupby(to_land, key=lambda row: (row.dataset, row.channel)):
            ledger.register(conn, dataset, [ledger.Arrival(row.name, row.sha256, row.bytes) for row in rows], channel)
    erased = any(row.erased_at and row.erased_at.isoformat() > manifest.created_at for row in before)
    return Restored(manifest, copied, len(later), len(to_land), erased)
