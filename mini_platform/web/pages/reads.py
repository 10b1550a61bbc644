"""Selects on the ledger that several pages share; each page's own selects are in its module."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy import Connection, RowMapping, Select, Table, case, column, func, not_, select, text

from mini_platform.declare.dataset import Dataset
from mini_platform.operations import sample_data
from mini_platform.operations.detection import corrected
from mini_platform.warehouse import changes
from mini_platform.warehouse.ledger import IN_PRODUCTION, PENDING
from mini_platform.warehouse.tables import checkpoints, files, incidents, quality_report
from mini_platform.web.auth.guard import may
from mini_platform.web.site import Site

COUNTED = 2_000_000
"""Maximum rows of a table that is counted for a page (0.1 s); for larger ones the server's estimate is shown."""
DONE = ("loaded", "refused", "failed")

LOADS = 30
"""Number of last files that are evaluated."""


@dataclass(frozen=True)
class Rows:
    """The number of rows of a table; exact unless the table is large."""

    count: int
    exact: bool = True

    def __str__(self) -> str:
        """Return the number, with a sign if it is an estimate."""
        return f"{self.count:,}" if self.exact else f"≈ {self.count:,}"


def rows_of(conn: Connection, table: Table) -> Rows:
    """Return the number of rows of a table."""
    name = func.to_regclass(f'"{table.schema}"."{table.name}"')
    estimate = select(column("reltuples")).select_from(text("pg_class")).where(column("oid") == name).scalar_subquery()
    is_large = func.coalesce(estimate, 0) > COUNTED
    # The server counts only where it has to.
    counted = case((is_large, 0), else_=select(func.count()).select_from(table).scalar_subquery())
    rows, about = conn.execute(select(counted, case((is_large, estimate)))).one()
    return Rows(rows) if about is None else Rows(round(int(about), -4), exact=False)


def state(conn: Connection) -> str:
    """Return a short text that changes whenever the ledger, rows or aggregates change."""
    figures = conn.execute(
        select(
            func.max(files.c.file_id),
            func.max(files.c.staged_at),
            func.max(files.c.loaded_at),
            func.sum(files.c.attempts),
            func.count().filter(files.c.status.in_(PENDING)),
            func.count().filter(files.c.status.in_(("refused", "failed"))),
            select(func.sum(checkpoints.c.step)).scalar_subquery(),
            select(func.max(quality_report.c.measured_at)).scalar_subquery(),
            select(func.max(func.greatest(incidents.c.seen_at, incidents.c.closed_at))).scalar_subquery(),
        )
    ).one()
    return hashlib.sha256(repr((*figures, changes.state(conn))).encode()).hexdigest()[:16]


def versions(dataset: str | None = None) -> Select[Any]:
    """Return a select of the files of a dataset or of all, without arrivals of unchanged bytes."""
    chosen = select(files).where(files.c.same_as.is_(None))
    return chosen if dataset is None else chosen.where(files.c.dataset == dataset)


def last_files(conn: Connection, dataset: Dataset, limit: int = LOADS) -> list[RowMapping]:
    """Return the files that were processed last, newest first."""
    chosen = versions(dataset.name).where(files.c.status.in_(DONE)).order_by(files.c.file_id.desc()).limit(limit)
    return list(conn.execute(chosen).mappings())


def totals(conn: Connection) -> Mapping[str, RowMapping]:
    """Return the ledger's totals of each dataset: files by status, and the time of the last load."""
    chosen = (
        select(
            files.c.dataset,
            func.count().label("files"),
            func.count().filter(files.c.status.in_(PENDING)).label("pending"),
            func.count().filter(files.c.status == "loaded").label("loaded"),
            func.max(files.c.loaded_at).filter(IN_PRODUCTION).label("loaded_at"),
        )
        .where(files.c.same_as.is_(None))
        .group_by(files.c.dataset)
    )
    return {row["dataset"]: row for row in conn.execute(chosen).mappings()}


def broken(conn: Connection, dataset: Dataset) -> Counter[str]:
    """Return rule -> rows that failed it in the last files, except in files that were corrected since."""
    last = versions(dataset.name).where(files.c.status.in_(DONE), not_(corrected))
    last = last.order_by(files.c.file_id.desc()).limit(LOADS).with_only_columns(files.c.rule_counts)
    counts: Counter[str] = Counter()
    for rules in conn.scalars(last):
        counts.update(rules or {})
    return +counts


def sampled(request: Request, conn: Connection, datasets: Iterable[Dataset]) -> set[str]:
    """Return the names of the datasets that have only sample data, and to which the caller may send files."""
    site: Site = request.app.state.site
    names = [dataset.name for dataset in datasets if may(request, "write", dataset)]
    return sample_data.has_samples_only(conn, site.settings.data, names) if names else set()


def latest_quality(conn: Connection, table: str) -> dict[str, RowMapping]:
    """Return the latest statistics of a table, by column."""
    chosen = (
        select(quality_report)
        .distinct(quality_report.c.column_name)
        .where(quality_report.c.table_name == table)
        .order_by(quality_report.c.column_name, quality_report.c.measured_at.desc(), quality_report.c.run_id.desc())
    )
    return {row["column_name"]: row for row in conn.execute(chosen).mappings()}
