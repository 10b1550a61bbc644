"""Retention: raw files are removed once they are older than their dataset keeps them, and the ledger says so.

Removing a file is two steps, of which the second can be repeated: the ledger's transaction notes it in `ops.pending_deletes`;
then the file goes, and the note with it. A process that is killed between them leaves the note to the next one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import audit
from mini_platform.warehouse.locks import advisory_lock, lose_when_frozen
from mini_platform.warehouse.tables import files, pending_deletes

PENDING_DELETES = "pending_deletes"
"""The lock under which raw files are removed; a backup holds it, shared, while it copies them."""
LOOKED_UP = 1000
"""Raw files about which the ledger is asked at once."""
DONE = ("loaded", "refused", "failed")


def over_age(dataset: Dataset, age: dt.timedelta) -> ColumnElement[bool]:
    """Whether a raw file is kept that is older than this, and that no load waits for."""
    return and_(
        files.c.dataset == dataset.name,
        files.c.same_as.is_(None),
        files.c.raw_dropped_at.is_(None),
        files.c.status.in_(DONE),
        files.c.arrived_at < func.now() - age,
    )


def due(conn: Connection, dataset: Dataset, age: dt.timedelta | None) -> bool:
    """Whether raw files wait to be removed."""
    return age is not None and bool(conn.scalar(select(exists(select(files.c.file_id).where(over_age(dataset, age))))))


def drop_old(engine: Engine, dataset: Dataset, store: RawStore, age: dt.timedelta | None) -> Sequence[Row[Any]]:
    """Remove the raw files of a dataset that are older than this, and what an earlier call left.

    Returns:
        The ledger rows of the files whose raw file went now.
    """
    dropped: Sequence[Row[Any]] = []
    if age is not None:
        with engine.begin() as conn:
            lose_when_frozen(conn)
            gone = update(files).where(over_age(dataset, age)).values(raw_dropped_at=func.now()).returning(files)
            dropped = conn.execute(gone).all()
            to_drop(conn, [row.sha256 for row in dropped])
            audit.record_all(conn, "dropped the raw file", [row.file_id for row in dropped], dataset=dataset.name)
            failpoint("retention.before_commit")
        failpoint("retention.noted")
    sweep(engine, store, wait=False)
    return dropped


def to_drop(conn: Connection, hashes: Sequence[str]) -> None:
    """Note raw files that are to be removed, in the transaction after which no file of the ledger needs them."""
    if hashes:
        statement = insert(pending_deletes).on_conflict_do_nothing()
        conn.execute(statement, [{"sha256": sha256} for sha256 in sorted(set(hashes))])


def keep(conn: Connection, sha256: str) -> bool:
    """Take back the note of a raw file that a file of the ledger is to have; False if it is, or may be, removed already."""
    return conn.execute(delete(pending_deletes).where(pending_deletes.c.sha256 == sha256)).rowcount > 0


def sweep(engine: Engine, store: RawStore, *, wait: bool = True) -> int:
    """Remove the raw files that are noted, unless the ledger names them again; returns how many went.

    Args:
        engine: of the database.
        store: of the raw files.
        wait: for a backup that is under way and reads them; else they are left to the next sweep.
    """
    with engine.begin() as conn:
        if not advisory_lock(conn, PENDING_DELETES, wait=wait):
            return 0
        # A note that somebody takes back at this moment, or writes again, is not waited for.
        noted = conn.execute(select(pending_deletes.c.sha256).with_for_update(skip_locked=True)).scalars().all()
        if not noted:
            return 0
        kept = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
        needed = select(files.c.sha256).where(files.c.sha256.in_(noted), *kept)
        unneeded = set(noted) - set(conn.execute(needed).scalars())
        for sha256 in unneeded:
            store.remove(sha256)
        failpoint("retention.removed")
        conn.execute(delete(pending_deletes).where(pending_deletes.c.sha256.in_(noted)))
    return len(unneeded)


def sweep_unknown(engine: Engine, store: RawStore) -> int:
    """Remove raw files that no file of the ledger has, as landings leave them that were killed long ago; returns how many.

    They may hold somebody who was forgotten since. One that is arriving now is young.
    """
    removed, old = 0, list(store.left_over())
    for start in range(0, len(old), LOOKED_UP):
        part = old[start : start + LOOKED_UP]
        with engine.begin() as conn:
            advisory_lock(conn, PENDING_DELETES)
            kept = select(files.c.sha256).where(files.c.sha256.in_(part), files.c.raw_dropped_at.is_(None))
            for sha256 in set(part) - set(conn.execute(kept).scalars()):
                store.remove(sha256)
                removed += 1
    return removed
