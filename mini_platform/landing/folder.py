"""The drop folder: which files stand there, which of them count, and how they are landed.

Names of dropped files are data, never paths: a file is opened by its entry in the folder, and nothing is ever written there.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from mini_platform.storage.names import SETTLE_SECONDS, display_name, kind_of, unwanted
from mini_platform.storage.store import RawStore, sha256_of
from mini_platform.warehouse import ledger
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import audit, inbox

GROWING = "it may still be growing"
LAND_FILES = 500
"""Files landed in one transaction."""
THREADS = 8
"""Files copied at the same time: most of the time of a small one is the wait until the disk has it."""
CHANGED = "it changed while it was read"
UNREADABLE = "the platform may not read it"


@dataclass(frozen=True)
class DroppedFile:
    """A file in a drop folder.

    Attributes:
        name: as the ledger has it; bytes that are not UTF-8 are shown as an escape.
        path: to open it by.
        signature: changes whenever the file is written, replaced or renamed.
        skip_reason: why it does not count; None if it does.
        blocked: whether it will not count until somebody helps.
        changed_at: when it was last written, replaced or renamed, as a time stamp.
    """

    name: str
    path: Path
    signature: str
    skip_reason: str | None = None
    blocked: bool = False
    changed_at: float = 0.0

    @property
    def is_read(self) -> bool:
        """Whether it is a file of the dataset, now or in a second."""
        return self.skip_reason in (None, GROWING)


def _why_left_alone(name: str, info: os.stat_result, suffixes: Sequence[str], now: float) -> str | None:
    why = unwanted(name, kind_of(info.st_mode), suffixes)
    return GROWING if why is None and 0 <= now - info.st_mtime < SETTLE_SECONDS else why


def signature(info: os.stat_result) -> str:
    """What changes whenever a file is written, replaced or renamed."""
    return f"{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"


def look(folder: Path, dataset: Dataset, now: float | None = None) -> list[DroppedFile]:
    """Everything in a drop folder, in the order of the names; nothing is opened. An absent folder is empty."""
    moment = time.time() if now is None else now
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Gone between the two calls.
                reason = _why_left_alone(entry.name, info, dataset.suffixes, moment)
                blocked = reason is None and not os.access(entry.path, os.R_OK)
                reason = UNREADABLE if blocked else reason
                path = Path(entry.path)
                found.append(
                    DroppedFile(display_name(entry.name), path, signature(info), reason, blocked, info.st_ctime)
                )
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda file: file.name)


def changed(conn: Connection, dataset: Dataset, found: Iterable[DroppedFile]) -> list[DroppedFile]:
    """Those files that count and are not, by their signature, what was last hashed under their name."""
    known = select(inbox.c.name, inbox.c.signature).where(inbox.c.dataset == dataset.name)
    signatures = dict(conn.execute(known).tuples().all())
    return [file for file in found if file.skip_reason is None and signatures.get(file.name) != file.signature]


def land(
    engine: Engine, dataset: Dataset, store: RawStore, found: Sequence[DroppedFile], channel: str = "folder"
) -> Iterator[tuple[DroppedFile, Row[Any] | None]]:
    """Copy files into the raw store and write them into the ledger.

    Yields:
        Each file with its ledger row; or with None, and the reason why it is left alone, where it cannot be had: it
        changed or vanished while it was read, it may not be read, or there is no room for it. The next look may have it.
    """
    store.sweep()
    for start in range(0, len(found), LAND_FILES):
        arrivals: list[tuple[DroppedFile, ledger.Arrival]] = []
        gone: list[tuple[DroppedFile, ledger.Arrival]] = []
        part = found[start : start + LAND_FILES]
        with engine.connect() as conn:
            current = ledger.current_versions(conn, dataset.name, [file.name for file in part])
            begun = conn.scalar(select(func.clock_timestamp()))
        with ThreadPoolExecutor(THREADS) as pool:
            taken = list(pool.map(_take, part, repeat(store), [current.get(file.name) for file in part]))
            for file, first in zip(part, taken, strict=True):
                # A large file that found no room may have taken that of small ones for a while.
                again = isinstance(first, DroppedFile) and first.blocked
                arrival = _take(file, store, current.get(file.name)) if again else first
                if isinstance(arrival, DroppedFile):
                    yield arrival, None
                else:
                    arrivals.append((file, arrival))
        with engine.begin() as conn:
            advisory_lock(conn, "register", dataset.name)
            if channel == "folder":
                gone = _forgotten(conn, dataset, arrivals, begun)
                retention.to_drop(conn, [arrival.sha256 for _, arrival in gone])
                arrivals = [item for item in arrivals if item not in gone]
            rows = ledger.register(conn, dataset.name, [arrival for _, arrival in arrivals], channel)
            if channel == "folder":
                _remember(conn, dataset, [(file, row) for (file, _), row in zip(arrivals, rows, strict=True)])
            failpoint("land.before_commit")
        failpoint("land.after_commit")
        yield from ((replace(file, skip_reason=CHANGED), None) for file, _ in gone)
        yield from zip((file for file, _ in arrivals), rows, strict=True)


def _take(file: DroppedFile, store: RawStore, current: Row[Any] | None) -> ledger.Arrival | DroppedFile:
    """Bytes of a file into the raw store; the file and the reason where it is left alone."""
    changed = replace(file, skip_reason=CHANGED)
    try:
        # Not following a link and not blocking on a FIFO that took the file's place since the look.
        handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        return replace(file, skip_reason=UNREADABLE, blocked=True)
    except OSError:
        return changed
    before = os.fstat(handle)
    # Written to since the look, it may go on growing. A file named by its user has no signature.
    changed_since = file.signature and file.signature != signature(before)
    if changed_since or not stat.S_ISREG(before.st_mode):
        os.close(handle)
        return changed
    with os.fdopen(handle, "rb") as source:
        try:
            if current is not None and _holds(source, before.st_size, store, current):
                arrival = ledger.Arrival(file.name, current.sha256, current.bytes)
            else:
                source.seek(0)
                arrival = ledger.Arrival(file.name, *store.put(source))
                failpoint("land.raw_file_kept")
        except NoRoomError as error:
            return replace(file, skip_reason=error.strerror, blocked=True)
        after = os.fstat(handle)
    still = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and arrival.size == after.st_size
    return arrival if still else changed


def _forgotten(
    conn: Connection,
    dataset: Dataset,
    arrivals: Sequence[tuple[DroppedFile, ledger.Arrival]],
    begun: dt.datetime | None,
) -> list[tuple[DroppedFile, ledger.Arrival]]:
    """Files that were rewritten since they were read, and since a person was forgotten, who may be in what was read."""

    def is_rewritten(file: DroppedFile) -> bool:
        try:
            return signature(file.path.stat(follow_symlinks=False)) != file.signature
        except OSError:  # It was removed, perhaps for that reason.
            return True

    if rewritten := [item for item in arrivals if item[0].signature and is_rewritten(item[0])]:
        forgot = and_(audit.c.dataset == dataset.name, audit.c.subject.is_(None), audit.c.action == "forgot")
        if conn.scalar(select(exists().where(forgot, audit.c.at >= begun))):
            return rewritten
    return []


def _holds(source: BinaryIO, size: int, store: RawStore, current: Row[Any]) -> bool:
    """Whether an open file is the current version of its name, and the raw store has that or had it: then it is only hashed."""
    known = size == current.bytes and (current.raw_dropped_at is not None or store.size(current.sha256) is not None)
    return known and sha256_of(source) == current.sha256


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
    new = {"signature": statement.excluded.signature, "file_id": statement.excluded.file_id}
    conn.execute(statement.on_conflict_do_update(index_elements=["dataset", "name"], set_=new), rows)
