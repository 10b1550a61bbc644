"""Restore: a backup becomes the platform again, whole or not at all.

First every file is checked, then raw files are brought back (beside those that are there: their names are their hashes), at
last the database, in one transaction: where anything fails, what was there before is there still.

What arrived after the backup is in the ledger that is replaced and in the raw store; `replay` lands it again, in its order.
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

from sqlalchemy import Connection, Engine, Row, bindparam, insert, select, text, update

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
from mini_platform.warehouse.tables import api_keys, files
from mini_platform.warehouse.tables import audit as trail

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
        RAISE EXCEPTION 'it was made by a newer version of Mini Platform: restore it by that version';
    END IF;
END IF;
"""  # noqa: S608 - a number of our own


@dataclass(frozen=True)
class Restored:
    """What was done.

    Attributes:
        manifest: of the backup.
        raw_files: brought back; the others were there.
        later: files that arrived after the backup was made, as far as the ledger that was replaced knew.
        replayed: of those, how many wait to be loaded again.
        erased_later: whether a person was forgotten since: they are back, and must be forgotten again.
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
        platform: becomes what the backup was; nothing may be connected to its database.
        folder: of backups.
        name: of the backup in it.
        progress: told of the bytes of files that are checked, and of what goes on.
        replace: a platform that has files of its own.
        replay: land again what arrived since.
        other_keys: go on although the keys of personal data are not those of the backup.

    Raises:
        BackupError: it cannot be restored; nothing is changed then, but for raw files that were brought back.
    """
    manifest = archive.read_manifest(folder, name)
    made = engine(platform.url)
    try:
        with made.connect() as conn:
            _refuse_if_in_use(conn, replace=replace)
            server = archive.server_version(conn)
            if server < manifest.postgres:
                raise BackupError(
                    f"The backup is of Postgres {manifest.postgres}, and the server is {server}: it is too old."
                )
            program, _ = archive.programs(conn, manifest.pg_dump)
            before, revoked, done = _ledger(conn), _revoked(conn), _done_since(conn, manifest)
            has_roles = is_initialized(conn)
        _check(folder, name, manifest)
        _bring_secrets(platform, folder / name, manifest, other_keys=other_keys)
        brought = _bring_raw(platform.store, folder, name, progress)
        for place in FILES:
            if place.bring_back:
                place.bring_back(platform, folder / name)
        progress(0, "Restoring the database")
        made.dispose()
        _load_dump(program, platform.url, folder / name / "database.dump", manifest, server)
        progress(0, "Looking at the tables")
        (initialize if has_roles else create_all)(made, platform.datasets.values())
        _revoke(made, revoked)
        _remember(made, done, manifest, name)
        return _account(made, platform.store, manifest, before, brought, replay=replay)
    finally:
        made.dispose()


def _refuse_if_in_use(conn: Connection, *, replace: bool) -> None:
    if others := sorted(set(conn.execute(OTHERS).scalars())):
        said = (
            f"Something is connected to the database ({', '.join(others)}): stop it first, with `mini-platform down`."
        )
        raise BackupError(said)
    if not replace and _ledger(conn):
        raise BackupError(
            "This platform has files of its own, which would be lost from its tables: restore into an empty one, "
            "or say --replace."
        )


def _ledger(conn: Connection) -> Sequence[Row[Any]]:
    """What arrived, in its order."""
    if conn.scalar(text("SELECT to_regclass('ops.files')")) is None:
        return []
    columns = (
        files.c[n] for n in ("dataset", "name", "version", "sha256", "bytes", "channel", "raw_dropped_at", "erased_at")
    )
    return conn.execute(select(*columns).where(files.c.same_as.is_(None)).order_by(files.c.file_id)).all()


def _revoked(conn: Connection) -> list[dict[str, Any]]:
    """The keys of the API that are revoked now."""
    if conn.scalar(text("SELECT to_regclass('ops.api_keys')")) is None:
        return []
    rows = select(api_keys.c.sha256.label("key"), api_keys.c.revoked_at.label("at")).where(
        api_keys.c.revoked_at.is_not(None)
    )
    return [dict(row) for row in conn.execute(rows).mappings()]


def _revoke(made: Engine, revoked: list[dict[str, Any]]) -> None:
    """A key that was revoked after the backup must not let anybody in again."""
    if revoked:
        statement = update(api_keys).where(api_keys.c.sha256 == bindparam("key")).values(revoked_at=bindparam("at"))
        with made.begin() as conn:
            conn.execute(statement, revoked)


def _done_since(conn: Connection, manifest: Manifest) -> list[dict[str, Any]]:
    """What the audit trail has of the time after the backup."""
    if conn.scalar(text("SELECT to_regclass('ops.audit')")) is None:
        return []
    columns = [column for column in trail.columns if column.name != "audit_id"]
    rows = select(*columns).where(trail.c.at >= dt.datetime.fromisoformat(manifest.created_at))
    return [dict(row) for row in conn.execute(rows.order_by(trail.c.audit_id)).mappings()]


def _remember(made: Engine, done: list[dict[str, Any]], manifest: Manifest, name: str) -> None:
    """The audit trail goes on: what was done since the backup was done, whatever became of it."""
    with made.begin() as conn:
        known = _done_since(conn, manifest)  # within the second in which it was made
        if later := [row for row in done if row not in known]:
            conn.execute(insert(trail), later)
        audit.record(conn, "restored", name)


def _check(folder: Path, name: str, manifest: Manifest) -> None:
    """See that the backup's own files are whole; raw files are checked while they are copied."""
    sums = folder / name / "SHA256SUMS"
    archive.checked(sums, manifest.sums_sha256)
    for sha256, path in archive.read_sums(folder, name):
        if not path.startswith("raw/"):
            archive.checked(folder / path, sha256)


def _bring_secrets(platform: Platform, backup: Path, manifest: Manifest, *, other_keys: bool) -> None:
    for name in manifest.secrets:
        target = platform.settings.home / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            archive.copy_private(backup / "secrets" / name, target)
    if not other_keys and not set(manifest.keyring) <= set(fingerprint(platform)):
        raise BackupError(
            "The keys of personal data are not those of the backup: a person's later rows would not be known as theirs. "
            f"Bring the old ones back (MINI_PLATFORM_PII_KEYS, or {platform.settings.home / 'pii.key'}), "
            "or say --other-keys if they are lost."
        )


def _bring_raw(store: RawStore, folder: Path, name: str, progress: Progress) -> int:
    brought = 0
    for sha256, path in archive.read_sums(folder, name):
        if not path.startswith("raw/"):
            continue
        source = folder / path
        try:
            size = source.stat().st_size
            if store.size(sha256) != size:
                archive.checked(source, sha256)
                store.remove(sha256)
                with source.open("rb") as stream:
                    store.put(stream)
                brought += 1
        except FileNotFoundError:
            raise BackupError(f"The backup is damaged: {source} is missing.") from None
        progress(size, None)
    return brought


def _load_dump(programs: Path, url: str, dump: Path, manifest: Manifest, server: int) -> None:
    """Replace the schemas by those of a dump, in one transaction that also counts what came."""
    reading = archive.start(
        programs / "pg_restore", None, "--no-owner", "--no-acl", "--file=-", str(dump), stdout=subprocess.PIPE
    )
    writing = archive.start(
        programs / "psql", url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1",
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with reading, writing:
        try:
            _pipe(reading, writing, manifest, server)
        except BrokenPipeError:  # psql gave up, and says why
            reading.kill()
        words = [process.stderr.read() if process.stderr else b"" for process in (writing, reading)]
    if writing.returncode or reading.returncode:
        said = " ".join((words[0] or words[1]).decode(errors="replace").split())
        raise BackupError(f"The database could not be restored, and is as it was: {said}")


def _pipe(reading: subprocess.Popen[bytes], writing: subprocess.Popen[bytes], manifest: Manifest, server: int) -> None:
    """The script of pg_restore goes to psql, and is committed only if it came to its end."""
    if reading.stdout is None or writing.stdin is None:
        raise AssertionError("both are pipes")
    script, into = reading.stdout, writing.stdin
    with into:
        into.write(_before().encode())
        for _ in range(HEAD_LINES):
            line = script.readline()
            if server >= FIRST_NEWER or not line.startswith(b"SET transaction_timeout"):
                into.write(line)
        shutil.copyfileobj(script, into)
        if reading.wait() == 0:
            into.write(_after(manifest).encode())


def _before() -> str:
    return (
        "BEGIN;\nSET client_min_messages = warning;\nSET LOCAL lock_timeout = '30s';\n"
        f"DROP SCHEMA IF EXISTS {', '.join(archive.DUMPED)} CASCADE;\n"
    )


def _after(manifest: Manifest) -> str:
    """The end of the script: every table has the rows that the snapshot had; the roles are to be granted anew.

    Whoever worked on a file when the backup was made does so no more: it need not wait until that lease runs out.
    """
    wrong = "".join(
        f"IF (SELECT count(*) FROM {table}) <> {rows} THEN RAISE EXCEPTION '{table} has not its {rows} rows'; END IF;\n"  # noqa: S608
        for table, rows in manifest.rows.items()
    )
    return (
        f"\nDO $check$ BEGIN\n{REFUSE_NEWER}{wrong}END $check$;\n"
        "UPDATE ops.files SET leased_by = NULL, leased_until = NULL WHERE leased_by IS NOT NULL;\n"
        "DELETE FROM ops.fingerprints WHERE name = 'ops';\nCOMMIT;\nANALYZE;\n"
    )


def _account(
    made: Engine, store: RawStore, manifest: Manifest, before: Sequence[Row[Any]], brought: int, *, replay: bool
) -> Restored:
    with made.begin() as conn:
        known = {(row.dataset, row.name, row.version) for row in _ledger(conn)}
        later = [row for row in before if (row.dataset, row.name, row.version) not in known]
        again = (
            [row for row in later if row.raw_dropped_at is None and store.size(row.sha256) is not None]
            if replay
            else []
        )
        for (dataset, channel), rows in groupby(again, key=lambda row: (row.dataset, row.channel)):
            ledger.register(conn, dataset, [ledger.Arrival(row.name, row.sha256, row.bytes) for row in rows], channel)
    erased = any(row.erased_at and row.erased_at.isoformat() > manifest.created_at for row in before)
    return Restored(manifest, brought, len(later), len(again), erased)
