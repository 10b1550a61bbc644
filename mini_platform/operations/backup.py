"""Backup: the database and the raw store, consistent with each other, while everything goes on.

One snapshot of the database says what is in the backup: pg_dump writes it, and the raw files that its ledger names are
copied. Raw files never change, and none is removed meanwhile (`retention.PENDING_DELETES`), so the copy needs no snapshot.

pg_dump, because it ships in the wheel of the embedded server and comes with every other one. What is staged is left out: it
is made again from the raw files.
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
"""Called with the bytes that are done, and with what comes next."""

TABLES = text(
    "SELECT format('%I.%I', nspname, relname) AS name FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE nspname = ANY(:schemas) AND relkind IN ('r', 'p') AND relpersistence <> 'u' ORDER BY 1"
)
"""Those whose rows are dumped: what is unlogged can be made again."""
WORD = "mini-platform backup"
"""What the keys are tried on."""


@dataclass(frozen=True)
class Backup:
    """A backup that was made.

    Attributes:
        name: of its folder.
        manifest: of what is in it.
        copied: raw files that were not in the folder yet.
    """

    name: str
    manifest: Manifest
    copied: int


def backup(platform: Platform, folder: Path, progress: Progress, *, secrets: bool = False) -> Backup:
    """Write a backup into a folder, beside those that are there.

    Args:
        platform: to be backed up; it may be at work.
        folder: made if missing, for its owner only: a backup holds everything, personal data too.
        progress: told of each file.
        secrets: whether the keys of the hashes of personal data and of the dashboard's cookies are part of it.

    Raises:
        BackupError: pg_dump is missing, too old or failed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = dt.datetime.now(dt.UTC)
    while (folder / (name := now.strftime("%Y%m%dT%H%M%SZ"))).exists():  # made this very second
        time.sleep(0.1)
        now = dt.datetime.now(dt.UTC)
    with _made_whole(folder, name) as making, shared_lock(platform.engine, PENDING_DELETES):
        with _snapshot(platform.engine) as (conn, snapshot):
            program, pg_dump = archive.programs(conn, archive.server_version(conn))
            postgres = archive.server_version(conn)
            raw = conn.execute(_kept()).all()
            rows = {t: conn.scalar(text(f"SELECT count(*) FROM {t}")) or 0 for t in _tables(conn)}  # noqa: S608 - quoted by format
            progress(0, "Dumping the database")
            _dump(program / "pg_dump", platform.url, snapshot, making / "database.dump")
        copied, missing = _copy_raw(platform.store, folder, raw, progress)
        kept = _copy_secrets(platform.settings.home, making) if secrets else []
        sums = making / "SHA256SUMS"
        with sums.open("w", encoding="utf-8") as out:
            others = (path for place in FILES if place.back_up for path in place.back_up(platform, making))
            for path in (making / "database.dump", *(making / "secrets" / kept_name for kept_name in kept), *others):
                with path.open("rb") as source:
                    out.write(f"{sha256_of(source)}  {name}/{path.relative_to(making)}\n")
            out.writelines(
                f"{row.sha256}  raw/{row.sha256[:2]}/{row.sha256}\n" for row in raw if row.sha256 not in missing
            )
        manifest = Manifest(
            created_at=now.isoformat(timespec="seconds"),
            mini_platform=version("mini-platform"),
            dagster=version("dagster"),
            postgres=postgres,
            pg_dump=pg_dump,
            sums_sha256=hashlib.sha256(sums.read_bytes()).hexdigest(),
            rows=rows,
            raw_files=len(raw) - len(missing),
            raw_bytes=sum(row.bytes for row in raw if row.sha256 not in missing),
            raw_missing=sorted(missing),
            keyring=fingerprint(platform),
            secrets=kept,
        )
        (making / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    return Backup(name, manifest, copied)


def expire(folder: Path, keep: int) -> list[str]:
    """Remove all backups of a folder but the newest, and the raw files that none of those names.

    Returns:
        Names of the backups that went.
    """
    with archive.alone(folder):
        return _expire(folder, keep)


def _expire(folder: Path, keep: int) -> list[str]:
    names = archive.backups(folder)
    old = names[:-keep]
    for name in old:
        (folder / name / "manifest.json").unlink()  # from here on it is no backup
        shutil.rmtree(folder / name)
    if old:
        needed = {path for name in names[-keep:] for _, path in archive.read_sums(folder, name)}
        for path in (folder / "raw").glob("??/*"):
            if str(path.relative_to(folder)) not in needed:
                path.unlink()
    return old


def fingerprint(platform: Platform) -> list[str]:
    """What each key of personal data makes of a fixed word; nothing if no key was ever made."""
    if platform.settings.pii_keys is None and not (platform.settings.home / "pii.key").exists():
        return []
    return list(platform.keyring.digests(WORD))


def _kept() -> Select[Any]:
    """The raw files that the ledger says are kept."""
    kept = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
    return select(files.c.sha256, files.c.bytes).where(*kept).distinct().order_by(files.c.sha256)


def _tables(conn: Connection) -> Sequence[str]:
    return conn.execute(TABLES, {"schemas": list(archive.DUMPED)}).scalars().all()


@contextmanager
def _made_whole(folder: Path, name: str) -> Iterator[Path]:
    """A folder that gets its name once everything is in it and on disk; what killed backups left is removed."""
    with archive.alone(folder):
        for left in folder.glob(".making-*"):
            shutil.rmtree(left)
        making = folder / f".making-{name}"
        making.mkdir(mode=0o700)
        yield making
        os.sync()
        making.rename(folder / name)


@contextmanager
def _snapshot(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """A transaction that sees one moment, and the name under which pg_dump sees the same."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as conn, conn.begin():
        conn.execute(text("SET LOCAL statement_timeout = 0"))
        conn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield conn, str(conn.scalar(text("SELECT pg_export_snapshot()")))


def _dump(program: Path, url: str, snapshot: str, target: Path) -> None:
    schemas = [f"--schema={name}" for name in archive.DUMPED]
    options = ["--format=custom", "--no-owner", "--no-acl", "--no-unlogged-table-data", f"--snapshot={snapshot}"]
    dumping = archive.start(program, url, *options, *schemas, f"--file={target}")
    said = dumping.communicate()[1].decode(errors="replace").strip()
    if dumping.returncode:
        raise BackupError(f"pg_dump failed: {said}")


def _copy_raw(store: RawStore, folder: Path, raw: Sequence[Row[Any]], progress: Progress) -> tuple[int, set[str]]:
    """Copy the raw files that are not in the folder; returns how many, and those that could not be had whole."""
    copied, missing = 0, set()
    progress(0, "Copying raw files")
    target = RawStore(folder / "raw")
    target.sweep()
    for row in raw:
        there = target.path(row.sha256)
        if not there.exists() or there.stat().st_size != row.bytes:
            there.unlink(missing_ok=True)
            if not store.copy(row.sha256, target):
                missing.add(row.sha256)
                continue
            copied += 1
        progress(row.bytes, None)
    return copied, missing


def _copy_secrets(home: Path, making: Path) -> list[str]:
    found = [name for name in archive.SECRETS if (home / name).exists()]
    if found:
        (making / "secrets").mkdir(mode=0o700)
    for name in found:
        archive.copy_private(home / name, making / "secrets" / name)
    return found
