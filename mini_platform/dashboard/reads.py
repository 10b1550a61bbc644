"""What several pages ask of the ledger; each page's own selects stand with the page."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, exists, func, not_, or_, select, text

from mini_platform.dataset import Dataset
from mini_platform.warehouse import changes
from mini_platform.warehouse.ledger import HOLDS, PENDING
from mini_platform.warehouse.tables import checkpoints, files, quality_report

COUNTED = 2_000_000
"""Rows up to which a table is counted when a page is made (0.1 s); of larger ones the server's estimate is shown."""
DONE = ("loaded", "refused", "failed")

later = files.alias("later")
superseded = exists().where(
    later.c.dataset == files.c.dataset,
    later.c.name == files.c.name,
    later.c.file_id > files.c.file_id,
    later.c.same_as.is_(None),
    later.c.status == "loaded",
)
"""Whether a later version of the same file was loaded, so that nobody needs to care about this one."""
LOADS = 30
"""Files that are the last ones."""


@dataclass(frozen=True)
class Rows:
    """How many rows a table has; `exact` unless it is large."""

    count: int
    exact: bool = True

    def __str__(self) -> str:
        """With a sign where it is an estimate."""
        return f"{self.count:,}" if self.exact else f"≈ {self.count:,}"


def rows_of(conn: Connection, table: Table) -> Rows:
    """The rows of a table."""
    estimate = conn.scalar(
        text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)"),
        {"name": f'"{table.schema}"."{table.name}"'},
    )
    if estimate is not None and estimate > COUNTED:
        return Rows(round(estimate, -4), exact=False)
    return Rows(conn.scalar(select(func.count()).select_from(table)) or 0)


def state(conn: Connection) -> str:
    """A short text that changes whenever the ledger, rows or aggregates do."""
    seen = conn.execute(
        select(
            func.max(files.c.file_id),
            func.max(files.c.staged_at),
            func.max(files.c.loaded_at),
            func.sum(files.c.attempts),
            func.count().filter(files.c.status.in_(PENDING)),
            func.count().filter(files.c.status.in_(("refused", "failed"))),
            select(func.sum(checkpoints.c.step)).scalar_subquery(),
            select(func.max(quality_report.c.measured_at)).scalar_subquery(),
        )
    ).one()
    return hashlib.sha256(repr((*seen, changes.state(conn))).encode()).hexdigest()[:16]


def versions(dataset: str | None = None) -> Select[Any]:
    """Files of a dataset, or of all; without arrivals that changed nothing."""
    chosen = select(files).where(files.c.same_as.is_(None))
    return chosen if dataset is None else chosen.where(files.c.dataset == dataset)


def last_files(conn: Connection, dataset: Dataset, limit: int = LOADS) -> list[RowMapping]:
    """The files that were dealt with last, the newest first."""
    chosen = versions(dataset.name).where(files.c.status.in_(DONE)).order_by(files.c.file_id.desc()).limit(limit)
    return list(conn.execute(chosen).mappings())


def totals(conn: Connection) -> Mapping[str, RowMapping]:
    """What the ledger says of each dataset: its files by what became of them, and when the newest was loaded."""
    chosen = (
        select(
            files.c.dataset,
            func.count().label("files"),
            func.count().filter(files.c.status.in_(PENDING)).label("pending"),
            func.count().filter(files.c.status == "loaded").label("loaded"),
            func.max(files.c.loaded_at).filter(HOLDS).label("loaded_at"),
            func.min(files.c.arrived_at).filter(files.c.status.in_(PENDING)).label("waiting_since"),
        )
        .where(files.c.same_as.is_(None))
        .group_by(files.c.dataset)
    )
    return {row["dataset"]: row for row in conn.execute(chosen).mappings()}


def troubled(conn: Connection, datasets: Sequence[str], since: dt.datetime) -> list[RowMapping]:
    """Files since then that were refused, failed or had rejects, and were not corrected since; the newest first."""
    wrong = or_(files.c.status.in_(("refused", "failed")), (files.c.status == "loaded") & (files.c.rows_rejected > 0))
    chosen = versions().where(files.c.dataset.in_(datasets), wrong, not_(superseded), files.c.arrived_at >= since)
    return list(conn.execute(chosen.order_by(files.c.file_id.desc())).mappings())


def broken(conn: Connection, dataset: Dataset) -> Counter[str]:
    """Rule -> rows that broke it in the last files, but for files that were corrected since."""
    last = versions(dataset.name).where(files.c.status.in_(DONE), not_(superseded))
    last = last.order_by(files.c.file_id.desc()).limit(LOADS).with_only_columns(files.c.rule_counts)
    counts: Counter[str] = Counter()
    for rules in conn.scalars(last):
        counts.update(rules or {})
    return +counts


def pulls(conn: Connection) -> Mapping[tuple[str, str], RowMapping]:
    """How far each source is pulled, by dataset and source."""
    return {(row["dataset"], row["source"]): row for row in conn.execute(select(checkpoints)).mappings()}


def latest_quality(conn: Connection, table: str) -> dict[str, RowMapping]:
    """The last figures of a table, by column."""
    chosen = (
        select(quality_report)
        .distinct(quality_report.c.column_name)
        .where(quality_report.c.table_name == table)
        .order_by(quality_report.c.column_name, quality_report.c.measured_at.desc(), quality_report.c.run_id.desc())
    )
    return {row["column_name"]: row for row in conn.execute(chosen).mappings()}
