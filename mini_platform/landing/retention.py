"""Retention: raw files are removed once they are older than their dataset's retention, and the ledger records that.

Removal has two steps, of which the second can be repeated: a transaction with the ledger inserts a row into
`ops.pending_deletes`; then the file is deleted, and the row with it. If a process is killed in between, the next one finishes.
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
LOOKUP_BATCH = 1000
"""The number of raw files that are looked up in the ledger at once."""
FINISHED = ("loaded", "refused", "failed")


def over_age(dataset: Dataset, age: dt.timedelta) -> ColumnElement[bool]:
    """Return the condition that a raw file exists, is older than this, and no load waits for it."""
    return and_(
        files.c.dataset == dataset.name,
        files.c.same_as.is_(None),
        files.c.raw_dropped_at.is_(None),
        files.c.status.in_(FINISHED),
        files.c.arrived_at < func.now() - age,
    )


def due(conn: Connection, dataset: Dataset, age: dt.timedelta | None) -> bool:
    """Return True if raw files are due for removal."""
    return age is not None and bool(conn.scalar(select(exists(select(files.c.file_id).where(over_age(dataset, age))))))


def drop_old(engine: Engine, dataset: Dataset, store: RawStore, age: dt.timedelta | None) -> Sequence[Row[Any]]:
    """Remove the raw files of a dataset that are older than this, and those that an earlier call did not finish.

    Returns:
        The ledger rows of the files whose raw file was removed now.
    """
    dropped: Sequence[Row[Any]] = []
    if age is not None:
        with engine.begin() as conn:
            lose_when_frozen(conn)
            statement = update(files).where(over_age(dataset, age)).values(raw_dropped_at=func.now()).returning(files)
            dropped = conn.execute(statement).all()
            to_drop(conn, [row.sha256 for row in dropped])
            audit.record_all(conn, "dropped the raw file", [row.file_id for row in dropped], dataset=dataset.name)
            failpoint("retention.before_commit")
        failpoint("retention.noted")
    sweep(engine, store, wait=False)
    return dropped


def to_drop(conn: Connection, hashes: Sequence[str]) -> None:
    """Mark raw files for removal, in the transaction after which no file of the ledger needs them."""
    if hashes:
        statement = insert(pending_deletes).on_conflict_do_nothing()
        conn.execute(statement, [{"sha256": sha256} for sha256 in sorted(set(hashes))])


def keep(conn: Connection, sha256: str) -> bool:
    """Cancel the removal of a raw file that a file of the ledger needs; return False if it is, or may be, removed already."""
    return conn.execute(delete(pending_deletes).where(pending_deletes.c.sha256 == sha256)).rowcount > 0


def sweep(engine: Engine, store: RawStore, *, wait: bool = True) -> int:
    """Remove the raw files that are marked, unless a file of the ledger needs them again; return how many were removed.

    Args:
        engine: engine of the database.
        store: store of raw files.
        wait: True to wait for a backup that reads them; otherwise they are left to the next sweep.
    """
    with engine.begin() as conn:
        if not advisory_lock(conn, PENDING_DELETES, wait=wait):
            return 0
        # Rows that another transaction cancels or inserts at this moment are skipped.
        marked = conn.execute(select(pending_deletes.c.sha256).with_for_update(skip_locked=True)).scalars().all()
        if not marked:
            return 0
        has_raw_file = (files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
        needed = select(files.c.sha256).where(files.c.sha256.in_(marked), *has_raw_file)
        unused = set(marked) - set(conn.execute(needed).scalars())
        for sha256 in unused:
            store.remove(sha256)
        failpoint("retention.removed")
        conn.execute(delete(pending_deletes).where(pending_deletes.c.sha256.in_(marked)))
    return len(unused)


def sweep_unknown(engine: Engine, store: RawStore) -> int:
    """Remove raw files that no file of the ledger has, as left by landings that were killed long ago; return how many.

    They may contain a person who was forgotten since. A file that is arriving now is too young to be removed.
    """
    removed, old = 0, list(store.left_over())
    for start in range(0, len(old), LOOKUP_BATCH):
        part = old[start : start + LOOKUP_BATCH]
        with engine.begin() as conn:
            advisory_lock(conn, PENDING_DELETES)
            needed = select(files.c.sha256).where(files.c.sha256.in_(part), files.c.raw_dropped_at.is_(None))
            for sha256 in set(part) - set(conn.execute(needed).scalars()):
                store.remove(sha256)
                removed += 1
    return removed
