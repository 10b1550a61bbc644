"""Layout of a backup on disk, and the Postgres programs that write and read it.

    DIR/raw/ab/ab12…             raw files by their SHA-256, shared by all backups in DIR: each is copied once
    DIR/20261121T030000Z/        one backup
        database.dump            of pg_dump, in its custom format
        SHA256SUMS               every file of this backup; `cd DIR && sha256sum -c 20261121T030000Z/SHA256SUMS` checks it, too
        manifest.json            versions, counts, the hash of SHA256SUMS
        secrets/                 only if requested

Not here: how a backup is made (`backup.py`) and restored (`restore.py`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, make_url, text

from mini_platform.storage.store import sha256_of
from mini_platform.warehouse import embedded
from mini_platform.warehouse.connection import libpq_url
from mini_platform.warehouse.tables import SCHEMAS
from mini_platform.warehouse.tls import link

DUMPED = (*SCHEMAS, "dagster")
"""Schemas of a backup, with Dagster's run history: the history of loads is needed after a disaster, too."""
SECRETS = ("pii.key", "web.secret")
"""Private files under `home`: the keys of the hashes, and the secret that encrypts cursors."""
NAME = re.compile(r"\d{8}T\d{6}Z")


class BackupError(RuntimeError):
    """A backup cannot be made, or cannot be restored; the message is a sentence that names what is wrong."""


class Manifest(BaseModel, extra="forbid"):
    """The manifest of a backup.

    Attributes:
        format: version of the layout of the folder.
        created_at: when its snapshot was taken, in UTC.
        mini_platform: version that made it.
        dagster: version whose run history is in it.
        postgres: major version of the server it was taken from.
        pg_dump: major version of the program that wrote the dump.
        sums_sha256: SHA-256 of SHA256SUMS.
        rows: number of rows of each table, in the snapshot.
        raw_files: number of raw files in it.
        raw_bytes: total size of the raw files.
        raw_missing: SHA-256 of files in the ledger that were missing or damaged in the raw store.
        keyring: hashes of a fixed word by the keys of personal data, to compare the keys; empty without keys.
        secrets: names of the files in secrets/.
    """

    format: Literal[1] = 1
    created_at: str
    mini_platform: str
    dagster: str
    postgres: int
    pg_dump: int
    sums_sha256: str
    rows: dict[str, int]
    raw_files: int
    raw_bytes: int
    raw_missing: list[str]
    keyring: list[str]
    secrets: list[str]


def backups(folder: Path) -> list[str]:
    """Return the names of the complete backups in a folder, the oldest first."""
    return sorted(path.parent.name for path in folder.glob("*/manifest.json") if NAME.fullmatch(path.parent.name))


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder against other backups; the operating system releases the lock with this process at the latest.

    Raises:
        BackupError: another backup is being written.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupError(f"Another backup is being made in {folder}.") from None
    finally:
        os.close(handle)


def read_manifest(folder: Path, name: str) -> Manifest:
    """Read the manifest of a backup.

    Raises:
        BackupError: it is damaged, or of an unknown version.
    """
    path = folder / name / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        location = ".".join(map(str, error.errors()[0]["loc"]))
        raise BackupError(
            f"{path} is damaged, or of another version: {location or error.errors()[0]['msg']}"
        ) from error


def read_sums(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield SHA-256 and path below the folder of every file of a backup."""
    with (folder / name / "SHA256SUMS").open(encoding="utf-8") as lines:
        for line in lines:
            sha256, _, path = line.rstrip("\n").partition("  ")
            yield sha256, path


def check_file(path: Path, sha256: str) -> None:
    """Check that a file of a backup still has its original bytes.

    Raises:
        BackupError: it is damaged or missing.
    """
    try:
        with path.open("rb") as source:
            if sha256_of(source) == sha256:
                return
    except FileNotFoundError:
        raise BackupError(f"The backup is damaged: {path} is missing.") from None
    raise BackupError(f"The backup is damaged: {path} does not have the bytes that were written.")


def copy_private(source: Path, target: Path) -> None:
    """Copy a file so that only its owner can read it."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        copy.write(source.read_bytes())


def server_version(conn: Connection) -> int:
    """Return the major version of the server."""
    return int(conn.scalar(text("SHOW server_version_num"))) // 10_000


def programs(conn: Connection, least: int) -> tuple[Path, int]:
    """Return folder and major version of the Postgres programs to use: those on the PATH, or the wheel's.

    Args:
        conn: connection to the server. If it is encrypted, the wheel's programs are not usable: they are built without TLS.
        least: major version of the server, or of the program that wrote a dump: an older pg_dump refuses both. Of the
            suitable programs the oldest is used: it has the fewest features that an older server does not know.

    Raises:
        BackupError: no suitable programs exist.
    """
    folders: dict[int, Path] = {}
    on_path = shutil.which("pg_dump")
    encrypted = bool(link(conn).protocol)
    for path in (Path(on_path) if on_path else None, None if encrypted else _wheel_program()):
        if path and (path.with_name("psql")).exists():
            output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if number := re.search(r"(\d+)", output):
                folders[int(number[1])] = path.parent
    suitable = sorted(version for version in folders if version >= least)
    if not suitable:
        raise BackupError(
            f"pg_dump, pg_restore and psql of Postgres {least} or later are needed"
            f"{', and the ones that come with the platform do not support TLS' if encrypted else ''}: put them on the PATH."
        )
    return folders[suitable[0]], suitable[0]


def _wheel_program() -> Path | None:
    try:
        return embedded.binary("pg_dump")
    except embedded.EmbeddedPostgresError:
        return None


def start(program: Path, url: str | None, *arguments: str, **more: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
    """Start a Postgres program; pass the password in the environment, as all users of the machine can see arguments."""
    command, environment = [str(program), *arguments], _environment()
    if url:
        database = make_url(url)
        command.append(f"--dbname={libpq_url(database._replace(password=None))}")
        if database.password:
            environment["PGPASSWORD"] = str(database.password)
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload, no-any-return]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PGAPPNAME": "mini_platform_backup"}
