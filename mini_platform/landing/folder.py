"""The drop folder: its files, which of them are accepted, and how they are landed.

Names of dropped files are data, never paths: a file is opened by its entry in the folder, and nothing is ever written there.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Engine, Row, and_, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.landing import retention
from mini_platform.storage.errors import NoRoomError
from mini_platform.storage.names import SETTLE_SECONDS, display_name, kind_of, skip_reason
from mini_platform.storage.store import RawStore, sha256_of
from mini_platform.warehouse import ledger
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import audit, inbox

GROWING = "it may still be growing"
LAND_FILES = 500
"""The number of files landed in one transaction."""
THREADS = 8
"""The number of files copied at the same time: a small one mostly waits for the disk to sync."""
CHANGED = "it changed while it was read"
UNREADABLE = "the platform may not read it"


@dataclass(frozen=True)
class DroppedFile:
    """A file in a drop folder.

    Attributes:
        name: name in the ledger; bytes that are not UTF-8 are escaped.
        path: path to open the file by.
        signature: changes whenever the file is written, replaced or renamed.
        skip_reason: why the file is skipped; None if it is not.
        blocked: True if the file is skipped until somebody intervenes.
        changed_at: time stamp of the last write, replacement or renaming.
    """

    name: str
    path: Path
    signature: str
    skip_reason: str | None = None
    blocked: bool = False
    changed_at: float = 0.0

    @property
    def is_read(self) -> bool:
        """Return True if it is a file of the dataset, now or in a second."""
        return self.skip_reason in (None, GROWING)


def _skip_reason(name: str, info: os.stat_result, suffixes: Sequence[str], now: float) -> str | None:
    reason = skip_reason(name, kind_of(info.st_mode), suffixes)
    return GROWING if reason is None and 0 <= now - info.st_mtime < SETTLE_SECONDS else reason


def signature(info: os.stat_result) -> str:
    """Return a text that changes whenever the file is written, replaced or renamed."""
    return f"{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"


def look(
    folder: Path, dataset: Dataset, now: float | None = None, known: Mapping[str, str] | None = None
) -> list[DroppedFile]:
    """Return the files in a drop folder, in the order of their names, without opening any. A missing folder is empty.

    A folder that cannot be listed is returned itself, blocked: what else waits for the dataset goes on.

    Args:
        folder: the drop folder.
        dataset: dataset of the files.
        now: time at which files count as settled.
        known: signatures by name of files that are left out.
    """
    moment = time.time() if now is None else now
    files, known = [], known or {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Removed between the two calls.
                name, current = display_name(entry.name), signature(info)
                if known.get(name) == current:
                    continue  # Before anything else, as 100,000 files may lie there.
                reason = _skip_reason(entry.name, info, dataset.suffixes, moment)
                blocked = reason is None and not os.access(entry.path, os.R_OK)
                reason = UNREADABLE if blocked else reason
                files.append(DroppedFile(name, Path(entry.path), current, reason, blocked, info.st_ctime))
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = f"{folder} cannot be listed: {error.strerror}"
        with suppress(OSError):
            return [DroppedFile(f"{folder.name}/", folder, "", reason, True, folder.stat().st_ctime)]
        return [DroppedFile(f"{folder.name}/", folder, "", reason, True)]
    return sorted(files, key=lambda file: file.name)


def changed(conn: Connection, folder: Path, dataset: Dataset, now: float | None = None) -> list[DroppedFile]:
    """Return the files in a drop folder whose signature differs from the last one hashed under their name.

    Those that are skipped are among them, with the reason.
    """
    signatures = select(inbox.c.name, inbox.c.signature).where(inbox.c.dataset == dataset.name)
    files = look(folder, dataset, now, dict(conn.execute(signatures).tuples().all()))
    # Another process may have landed some since the signatures were read.
    again = signatures.where(inbox.c.name == func.any([file.name for file in files]))
    landed = dict(conn.execute(again).tuples().all()) if files else {}
    return [file for file in files if landed.get(file.name) != file.signature]


def land(
    engine: Engine, dataset: Dataset, store: RawStore, files: Sequence[DroppedFile], channel: str = "folder"
) -> Iterator[tuple[DroppedFile, Row[Any] | None]]:
    """Copy files into the raw store and register them in the ledger.

    Yields:
        Each file with its ledger row; or with None, and the reason in `skip_reason`, if it cannot be landed now: it
        changed or vanished while it was read, it may not be read, or there is no room for it. A later call may land it.
    """
    store.sweep()
    for start in range(0, len(files), LAND_FILES):
        arrivals: list[tuple[DroppedFile, ledger.Arrival]] = []
        outdated: list[tuple[DroppedFile, ledger.Arrival]] = []
        batch = files[start : start + LAND_FILES]
        with engine.connect() as conn:
            current = ledger.current_versions(conn, dataset.name, [file.name for file in batch])
            started = conn.scalar(select(func.clock_timestamp()))
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(_store, batch, repeat(store), [current.get(file.name) for file in batch]))
            for file, result in zip(batch, results, strict=True):
                # A large file that did not fit may have used up the space for small ones for a while.
                may_fit_now = isinstance(result, DroppedFile) and result.blocked
                arrival = _store(file, store, current.get(file.name)) if may_fit_now else result
                if isinstance(arrival, DroppedFile):
                    yield arrival, None
                else:
                    arrivals.append((file, arrival))
        # The bytes are in the raw store before the ledger names them; a landing that is killed in between leaves raw files
        # that `retention.sweep_unknown` removes. The lock serializes landings of the dataset with forgetting a person: after
        # it is taken, files that were rewritten for a person since they were read are dropped from this batch.
        with engine.begin() as conn:
            advisory_lock(conn, "register", dataset.name)
            if channel == "folder":
                outdated = _rewritten_by_forget(conn, dataset, arrivals, started)
                retention.to_drop(conn, [arrival.sha256 for _, arrival in outdated])
                arrivals = [item for item in arrivals if item not in outdated]
            rows = ledger.register(conn, dataset.name, [arrival for _, arrival in arrivals], channel)
            if channel == "folder":
                _remember(conn, dataset, [(file, row) for (file, _), row in zip(arrivals, rows, strict=True)])
            failpoint("land.before_commit")
        failpoint("land.after_commit")
        yield from ((replace(file, skip_reason=CHANGED), None) for file, _ in outdated)
        yield from zip((file for file, _ in arrivals), rows, strict=True)


def _store(file: DroppedFile, store: RawStore, current: Row[Any] | None) -> ledger.Arrival | DroppedFile:
    """Store the bytes of a file in the raw store; return the file with the reason if it is skipped."""
    changed_file = replace(file, skip_reason=CHANGED)
    try:
        # Neither follow a link nor block on a FIFO that replaced the file since the folder was listed.
        handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        return replace(file, skip_reason=UNREADABLE, blocked=True)
    except OSError:
        return changed_file
    before = os.fstat(handle)
    # A file that changed since the folder was listed may still be growing. A file named by its user has no signature.
    changed_since = file.signature and file.signature != signature(before)
    if changed_since or not stat.S_ISREG(before.st_mode):
        os.close(handle)
        return changed_file
    with os.fdopen(handle, "rb") as source:
        try:
            if current is not None and _is_current(source, before.st_size, store, current):
                arrival = ledger.Arrival(file.name, current.sha256, current.bytes)
            else:
                source.seek(0)
                arrival = ledger.Arrival(file.name, *store.put(source))
                failpoint("land.raw_file_kept")
        except NoRoomError as error:
            return replace(file, skip_reason=error.strerror, blocked=True)
        after = os.fstat(handle)
    unchanged = (before.st_size, before.st_mtime_ns) == (
        after.st_size,
        after.st_mtime_ns,
    ) and arrival.size == after.st_size
    return arrival if unchanged else changed_file


def _rewritten_by_forget(
    conn: Connection,
    dataset: Dataset,
    arrivals: Sequence[tuple[DroppedFile, ledger.Arrival]],
    started: dt.datetime | None,
) -> list[tuple[DroppedFile, ledger.Arrival]]:
    """Return files that were rewritten since they were read, if a person was forgotten meanwhile.

    What was read of them may contain the person.
    """

    def is_rewritten(file: DroppedFile) -> bool:
        try:
            return signature(file.path.stat(follow_symlinks=False)) != file.signature
        except OSError:  # It was removed, perhaps because of the person.
            return True

    if rewritten := [item for item in arrivals if item[0].signature and is_rewritten(item[0])]:
        is_forget = and_(audit.c.dataset == dataset.name, audit.c.subject.is_(None), audit.c.action == "forgot")
        if conn.scalar(select(exists().where(is_forget, audit.c.at >= started))):
            return rewritten
    return []


def _is_current(source: BinaryIO, size: int, store: RawStore, current: Row[Any]) -> bool:
    """Return True if an open file is the current version of its name and its bytes are or were stored: then only hash it."""
    comparable = size == current.bytes and (
        current.raw_dropped_at is not None or store.size(current.sha256) is not None
    )
    return comparable and sha256_of(source) == current.sha256


def _remember(conn: Connection, dataset: Dataset, landed: Sequence[tuple[DroppedFile, Row[Any]]]) -> None:
    if not landed:
        return
    rows = [
        {
            "dataset": dataset.name,
            "name": file.name,
            "signature": file.signature,
            "file_id": row.same_as or row.file_id,
        }
        for file, row in landed
    ]
    statement = insert(inbox)
    updated = {"signature": statement.excluded.signature, "file_id": statement.excluded.file_id}
    conn.execute(statement.on_conflict_do_update(index_elements=["dataset", "name"], set_=updated), rows)
