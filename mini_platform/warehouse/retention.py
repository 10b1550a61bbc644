"""Retention of rows: rows older than the settings keep them are removed in bounded batches.

Not here: raw files (`landing/retention.py`), staged rows, which the next load removes (`staging.py`), production, which is
kept. The ledger is kept, too: it has the number of rejected rows of a file when the rows themselves are removed.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, Table, delete, func, literal_column, select

from mini_platform.warehouse import audit
from mini_platform.warehouse.locks import lose_when_frozen
from mini_platform.warehouse.tables import quality_report, sessions

BATCH_ROWS = 10_000
"""Number of rows deleted in one transaction: it takes a fraction of a second, and no load waits for it."""

CTID: ColumnElement[Any] = literal_column("ctid")


def rows_older_than(table: Table, timestamp: str, age: dt.timedelta) -> Select[tuple[dt.datetime]]:
    """Select the rows of a table that are older than this, by the column with the time of writing."""
    return select(table.c[timestamp]).where(table.c[timestamp] < func.now() - age)


def old_measurements(age: dt.timedelta) -> Select[tuple[dt.datetime]]:
    """Select the rows of the quality report that are older than this, except the latest of each table, which is still shown."""
    measured_at, later = quality_report.c.measured_at, quality_report.alias()
    latest = select(func.max(later.c.measured_at)).where(later.c.table_name == quality_report.c.table_name)
    return select(measured_at).where(measured_at < func.now() - age, measured_at < latest.scalar_subquery())


def ended_sessions() -> Select[tuple[dt.datetime]]:
    """Select the sessions of the dashboard that are over: none can be used again, and the audit trail has them."""
    return select(sessions.c.opened_at).where(sessions.c.ended_at.is_not(None) | (sessions.c.expires_at < func.now()))


def remove(engine: Engine, table: Table, old: Select[tuple[dt.datetime]]) -> int:
    """Delete the rows that a select finds in a table, a batch at a time; return the number of deleted rows."""
    removed, batch = 0, BATCH_ROWS
    while batch == BATCH_ROWS:
        with engine.begin() as conn:
            lose_when_frozen(conn)
            ctids = old.with_only_columns(CTID).limit(BATCH_ROWS)
            batch = conn.execute(delete(table).where(CTID.in_(ctids))).rowcount
            if batch:
                audit.record(conn, "purged", table.fullname, rows=batch)
        removed += batch
    return removed
