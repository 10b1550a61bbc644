"""Checkpoints: the progress of each source's sync, and the state of its pages.

Every change increments `step`, and applies only if `step` still has the value that this process wrote. If two processes sync
one source, the later writer fails with `SyncOvertakenError`, and no page is landed twice. No lock is held during requests.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, case, delete, func, insert, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.sources import ApiSource
from mini_platform.landing import paging
from mini_platform.warehouse import ledger
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import checkpoints, pages

RESUME_WITHIN = dt.timedelta(days=1)
"""An older sync is not resumed: cursors expire."""
MAX_PAUSE = dt.timedelta(days=1)
"""Upper limit for the pause that a source requests."""


class SyncOvertakenError(Exception):
    """Another process continues the sync; the work of this one since its last step is rolled back."""


class WaitingError(Exception):
    """The source requested a pause that is not over."""


@dataclass(frozen=True)
class KnownPage:
    """The stored state of the page at a URL, and the hash of its request."""

    request: str
    row: Row[Any] | None


@dataclass
class Checkpoint:
    """The checkpoint of one source, as of this process's last step."""

    engine: Engine
    dataset: str
    source: ApiSource
    row: Row[Any]

    def known(self, url: str) -> KnownPage:
        """Return the stored state of the page at a URL."""
        request = _sha256(url)
        with self.engine.connect() as conn:
            row = conn.execute(select(pages).where(self._own_rows(pages), pages.c.request == request)).first()
        return KnownPage(request, row)

    def equal_pages(self, request: str, rows_sha256: str) -> tuple[int | None, int]:
        """Return the number of the first other page of this sync with the same rows, and the number of such pages."""
        statement = select(func.min(pages.c.page), func.count()).where(
            self._own_rows(pages),
            pages.c.rows_sha256 == rows_sha256,
            pages.c.sync == self.row.sync,
            pages.c.rows > 0,
            pages.c.request != request,
        )
        with self.engine.connect() as conn:
            first, count = conn.execute(statement).one()
        return first, count

    def advance(
        self, request: str, page: paging.ApiPage, *, sha256: str, etag: str | None, arrival: ledger.Arrival | None
    ) -> Row[Any] | None:
        """Move the checkpoint past a page and register the page in the ledger, in one transaction.

        Returns:
            The ledger row of the page; None without an arrival.

        Raises:
            SyncOvertakenError: another process moved the checkpoint.
        """
        values = {
            "sync": self.row.sync,
            "page": self.row.pages + 1,
            "etag": etag,
            "sha256": sha256,
            "rows_sha256": page.rows_sha256,
            "rows": page.rows,
            "next": page.next,
        }
        statement = upsert(pages).values(dataset=self.dataset, source=self.source.name, request=request, **values)
        landed = None
        # The ledger row, the state of the page and the new position are committed together. A process that is killed before
        # the commit leaves the position at this page, so that the next run requests it again; one that is killed after it
        # never lands the page a second time. `_move` comes last: it raises if another process changed `step` meanwhile, and
        # that rolls the whole transaction back.
        with self.engine.begin() as conn:
            if arrival is not None:
                (landed,) = ledger.register(conn, self.dataset, [arrival], self.source.channel)
            conn.execute(statement.on_conflict_do_update(index_elements=["dataset", "source", "request"], set_=values))
            if page.next is None:
                conn.execute(delete(pages).where(self._own_rows(pages), pages.c.sync < self.row.sync))
            row = self._move(
                conn,
                position=page.next,
                pages=checkpoints.c.pages + 1,
                pages_landed=checkpoints.c.pages_landed + int(arrival is not None),
                rows=checkpoints.c.rows + (page.rows if arrival is not None else 0),
                **(self._success() if page.next is None else {}),
            )
            failpoint("sync.before_commit")
        self.row = row
        failpoint("sync.after_commit")
        return landed

    def fail(self, reason: str, *, resumable: bool, seconds: float | None) -> None:
        """Store why the sync stopped. Without `resumable` the next sync starts from the first page.

        Raises:
            SyncOvertakenError: another process continues the sync.
        """
        position = checkpoints.c.position if resumable else None
        pause = None if seconds is None else func.clock_timestamp() + min(dt.timedelta(seconds=seconds), MAX_PAUSE)
        failpoint("sync.before_end")
        with self.engine.begin() as conn:
            now = func.clock_timestamp()
            if (
                not resumable
            ):  # The next page of an unchanged page may have expired: the next sync requests each page in full.
                conn.execute(update(pages).where(self._own_rows(pages), pages.c.etag.is_not(None)).values(etag=None))
            row = self._move(conn, position=position, last_failed=now, last_error=reason, not_before=pause)
        self.row = row
        failpoint("sync.after_end")

    def _success(self) -> dict[str, Any]:
        last_full_sync = case((checkpoints.c.whole, checkpoints.c.begun_at), else_=checkpoints.c.whole_begun_at)
        return {
            "last_succeeded": func.clock_timestamp(),
            "last_error": None,
            "succeeded_begun_at": checkpoints.c.begun_at,
            "whole_begun_at": last_full_sync,
        }

    def _move(self, conn: Connection, **values: Any) -> Row[Any]:
        statement = update(checkpoints).where(self._own_rows(checkpoints), checkpoints.c.step == self.row.step)
        row = conn.execute(statement.values(step=checkpoints.c.step + 1, **values).returning(checkpoints)).first()
        if row is None:
            raise SyncOvertakenError
        return row

    def _own_rows(self, table: Any) -> Any:
        return (table.c.dataset == self.dataset) & (table.c.source == self.source.name)


def begin(engine: Engine, dataset: str, source: ApiSource, url: str) -> Checkpoint:
    """Resume the sync that is in progress, or start a new one.

    Raises:
        WaitingError: the source requested a pause that is not over.
    """
    target = _sha256(repr((url, source.paging, source.page_size, source.since, source.suffix)))
    failpoint("sync.before_begin")
    with engine.begin() as conn:
        advisory_lock(conn, "sync", dataset, source.name)
        key = (checkpoints.c.dataset == dataset) & (checkpoints.c.source == source.name)
        # The database's clock, as for every other time in the row.
        existing = conn.execute(select(checkpoints, func.clock_timestamp().label("now")).where(key)).first()
        if existing and existing.not_before and existing.not_before > existing.now and existing.target == target:
            raise WaitingError(f"The source asked for no requests until {existing.not_before:%Y-%m-%d %H:%M:%S %Z}.")
        values = {"last_started": func.clock_timestamp(), "not_before": None}
        if existing is None or not _is_resumable(existing, target):
            values |= _new_sync(existing, source, target)
        if existing is None:
            statement: Any = insert(checkpoints).values(dataset=dataset, source=source.name, step=1, **values)
        else:
            statement = update(checkpoints).where(key).values(step=checkpoints.c.step + 1, **values)
        row = conn.execute(statement.returning(checkpoints)).one()
    failpoint("sync.after_begin")
    return Checkpoint(engine, dataset, source, row)


def _is_resumable(existing: Row[Any], target: str) -> bool:
    return (
        existing.position is not None and existing.target == target and existing.now - existing.begun_at < RESUME_WITHIN
    )


def _new_sync(existing: Row[Any] | None, source: ApiSource, target: str) -> dict[str, Any]:
    """Return the initial column values of a new sync. State of another target (URL, paging) is discarded."""
    # A full sync requests every page without `since` and ETags. It is due if nothing is known of this target, if no full
    # sync ever succeeded, or if the last one is older than `whole_every`. Else `since` is the start of the last successful
    # sync minus the declared overlap, for rows that became visible late.
    known = existing if existing is not None and existing.target == target else None
    last_full_sync = known.whole_begun_at if known is not None else None
    full = known is None or last_full_sync is None or known.now - last_full_sync >= source.whole_every
    since = None if full or known is None or not source.since else known.succeeded_begun_at - source.overlap
    reset = {} if known is not None else {"succeeded_begun_at": None, "whole_begun_at": None}
    return {
        **reset,
        "sync": existing.sync + 1 if existing is not None else 1,
        "target": target,
        "position": paging.first(source),
        "whole": full,
        "begun_at": func.clock_timestamp(),
        "since": since,
        "pages": 0,
        "pages_landed": 0,
        "rows": 0,
    }


def load_checkpoints(conn: Connection, dataset: str | None = None) -> Sequence[Row[Any]]:
    """Return the checkpoints of a dataset, or of all datasets."""
    condition = true() if dataset is None else checkpoints.c.dataset == dataset
    return conn.execute(
        select(checkpoints).where(condition).order_by(checkpoints.c.dataset, checkpoints.c.source)
    ).all()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
