"""Retention of rows: those that are kept as long as the settings say are removed in bounded batches.

Not here: raw files (`landing/retention.py`), what is staged, which goes with the next load (`staging.py`), production, which is
kept. The ledger is kept, too: it says how many rows a file had rejected when they themselves are gone.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Table, delete, func, literal_column, select

from mini_platform.warehouse import audit
from mini_platform.warehouse.locks import lose_when_frozen
from mini_platform.warehouse.tables import quality_report

BATCH_ROWS = 10_000
"""Rows that are deleted in one transaction: it takes a fraction of a second, and no load waits for it."""

CTID: ColumnElement[Any] = literal_column("ctid")


def older(table: Table, moment: str, age: dt.timedelta) -> Select[tuple[dt.datetime]]:
    """Rows of a table that were written longer ago than this, by the column that says when."""
    return select(table.c[moment]).where(table.c[moment] < func.now() - age)


def old_measures(age: dt.timedelta) -> Select[tuple[dt.datetime]]:
    """Rows of the quality report that are older than this, but for the latest of each table: it is still said of it."""
    moment, later = quality_report.c.measured_at, quality_report.alias()
    latest = select(func.max(later.c.measured_at)).where(later.c.table_name == quality_report.c.table_name)
    return select(moment).where(moment < func.now() - age, moment < latest.scalar_subquery())


def remove(engine: Engine, table: Table, old: Select[tuple[dt.datetime]]) -> int:
    """Delete what a select finds in a table, a batch at a time; returns how many rows went."""
    removed, batch = 0, BATCH_ROWS
    while batch == BATCH_ROWS:
        with engine.begin() as conn:
            lose_when_frozen(conn)
            some = old.with_only_columns(CTID).limit(BATCH_ROWS)
            batch = conn.execute(delete(table).where(CTID.in_(some))).rowcount
            if batch:
                audit.record(conn, "purged", table.fullname, rows=batch)
        removed += batch
    return removed
