"""Backup of the database and the raw store, consistent with each other, while the platform keeps running.

One snapshot of the database defines the backup: pg_dump writes it, and the raw files that its ledger names are copied. Raw
files never change, and none is removed meanwhile (`retention.PENDING_DELETES`), so the copy needs no snapshot.

pg_dump is used because it is part of the wheel of the embedded server and of every other server. Staged rows are left out:
they are created again from the raw files.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, select, text

from mini_platform.landing.retention import PENDING_DELETES
from mini_platform.operations import archive
from mini_platform.operations.archive import BackupError, Manifest
from mini_platform.operations.places import FILES
from mini_platform.platform import Platform
from mini_platform.storage.store import RawStore, sha256_of
from mini_platform.warehouse.locks import shared_lock
from mini_platform.warehouse.tables import files

Progress = Callable[[int, str | None], None]
"""Callable that takes the number of bytes done, and the next step or None."""

TABLES = text(
    "SELECT format('%I.%I', nspname, relname) AS name FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE nspname = ANY(:schemas) AND relkind IN ('r', 'p') AND relpersistence <> 'u' ORDER BY 1"
)
"""Select of the tables whose rows are dumped: unlogged ones can be filled again."""
WORD = "mini-platform backup"
"""Fixed word whose hashes identify the keys."""


@dataclass(frozen=True)
class Backup:
    """A backup that was made.

    Attributes:
        name: name of its folder.
        manifest: manifest of its content.
        copied: number of raw files that were not in the folder yet.
    """

    name: str
    manifest: Manifest
    copied: int


def backup(platform: Platform, folder: Path, progress: Progress, *, secrets: bool = False) -> Backup:
    """Write a backup into a folder, beside existing ones.

    Args:
        platform: platform to back up; it may be running.
        folder: folder of backups, created for its owner only if missing: a backup holds everything, personal data too.
        progress: called for each file and step.
        secrets: include the keys of the hashes of personal data and of cursors.

    Raises:
        BackupError: pg_dump is missing, too old or failed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = dt.datetime.now(dt.UTC)
    while (folder / (name := now.strftime("%Y%m%dT%H%M%SZ"))).exists():  # Another one was made in this second.
        time.sleep(0.1)
        now = dt.datetime.now(dt.UTC)
    with _new_folder(folder, name) as making, shared_lock(platform.engine, PENDING_DELETES):
        with _snapshot(platform.engine) as (conn, snapshot):
            program, pg_dump = archive.programs(conn, archive.server_version(conn))
            postgres = archive.server_version(conn)
            raw_rows = conn.execute(_kept_raw_files()).all()
            rows = {t: conn.scalar(text(f"SELECT count(*) FROM {t}")) or 0 for t in _tables(conn)}  # noqa: S608 - quoted by format
            progress(0, "Dumping the database")
            _dump(program / "pg_dump", platform.url, snapshot, making / "database.dump")
        copied, missing = _copy_raw(platform.store, folder, raw_rows, progress)
        copied_secrets = _copy_secrets(platform.settings.home, making) if secrets else []
        sums = making / "SHA256SUMS"
        with sums.open("w", encoding="utf-8") as out:
            others = (path for place in FILES if place.back_up for path in place.back_up(platform, making))
            for path in (
                making / "database.dump",
                *(making / "secrets" / secret for secret in copied_secrets),
                *others,
            ):
                with path.open("rb") as source:
                    out.write(f"{sha256_of(source)}  {name}/{path.relative_to(making)}\n")
            out.writelines(
                f"{row.sha256}  raw/{row.sha256[:2]}/{row.sha256}\n" for row in raw_rows if row.sha256 not in missing
            )
        manifest = Manifest(
            created_at=now.isoformat(timespec="seconds"),
            mini_platform=version("mini-platform"),
            dagster=version("dagster"),
            postgres=postgres,
            pg_dump=pg_dump,
            sums_sha256=hashlib.sha256(sums.read_bytes()).hexdigest(),
            rows=rows,
            raw_files=len(raw_rows) - len(missing),
            raw_bytes=sum(row.bytes for row in raw_rows if row.sha256 not in missing),
            raw_missing=sorted(missing),
            keyring=fingerprint(platform),
            secrets=copied_secrets,
        )
        (making / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return Backup(name, manifest, copied)


def expire(folder: Path, keep: int) -> list[str]:
    """Remove all but the newest backups of a folder, and the raw files that none of the remaining ones names.

    Returns:
        Names of the removed backups.
    """
    with archive.locked_folder(folder):
        return _expire(folder, keep)


def _expire(folder: Path, keep: int) -> list[str]:
    names = archive.backups(folder)
    old = names[:-keep]
    for name in old:
        (folder / name / "manifest.json").unlink()  # Without its manifest it is not a backup.
        shutil.rmtree(folder / name)
    if old:
        needed = {path for name in names[-keep:] for _, path in archive.read_sums(folder, name)}
        for path in (folder / "raw").glob("??/*"):
            if str(path.relative_to(folder)) not in needed:
                path.unlink()
    return old


def fingerprint(platform: Platform) -> list[str]:
    """Return the hash of a fixed word by each key of personal data; empty if no key exists."""
    if platform.settings.pii_keys is None and not (platform.settings.home / "pii.key").exists():
        return []
    return list(platform.keyring.digests(WORD))


def _kept_raw_files() -> Select[Any]:
    """Return the select of the raw files that are kept according to the ledger."""
    is_kept = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
    return select(files.c.sha256, files.c.bytes).where(*is_kept).distinct().order_by(files.c.sha256)


def _tables(conn: Connection) -> Sequence[str]:
    return conn.execute(TABLES, {"schemas": list(archive.DUMPED)}).scalars().all()


@contextmanager
def _new_folder(folder: Path, name: str) -> Iterator[Path]:
    """Yield a folder that gets its name once its content is complete and on disk; remove remains of killed backups."""
    with archive.locked_folder(folder):
        for remains in folder.glob(".making-*"):
            shutil.rmtree(remains)
        making = folder / f".making-{name}"
        making.mkdir(mode=0o700)
        yield making
        os.sync()
        making.rename(folder / name)


@contextmanager
def _snapshot(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """Open a transaction with one snapshot, and yield it with the name by which pg_dump uses the same snapshot."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        conn.execute(text("SET LOCAL statement_timeout = 0"))
        conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield conn, str(conn.scalar(text("SELECT pg_export_snapshot()")))


def _dump(program: Path, url: str, snapshot: str, target: Path) -> None:
    schemas = [f"--schema={name}" for name in archive.DUMPED]
    options = ["--format=custom", "--no-owner", "--no-acl", "--no-unlogged-table-data", f"--snapshot={snapshot}"]
    process = archive.start(program, url, *options, *schemas, f"--file={target}")
    error = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode:
        raise BackupError(f"pg_dump failed: {error}")


def _copy_raw(store: RawStore, folder: Path, raw_rows: Sequence[Row[Any]], progress: Progress) -> tuple[int, set[str]]:
    """Copy raw files that are not in the folder; return their number, and the hashes of those missing or damaged."""
    copied, missing = 0, set()
    progress(0, "Copying raw files")
    target = RawStore(folder / "raw")
    target.sweep()
    for row in raw_rows:
        copy = target.path(row.sha256)
        if not copy.exists() or copy.stat().st_size != row.bytes:
            copy.unlink(missing_ok=True)
            if not store.copy(row.sha256, target):
                missing.add(row.sha256)
                continue
            copied += 1
        progress(row.bytes, None)
    return copied, missing


def _copy_secrets(home: Path, making: Path) -> list[str]:
    names = [name for name in archive.SECRETS if (home / name).exists()]
    if names:
        (making / "secrets").mkdir(mode=0o700)
    for name in names:
        archive.copy_private(home / name, making / "secrets" / name)
    return names
