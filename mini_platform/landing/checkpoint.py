"""Checkpoints: how far each source is synced, and what is known of its pages.

Every change counts the step up and is made only where the step is the one that this process left: of two processes that sync
one source, the one that was overtaken stops, and no page is landed twice. No lock is held while a source is waited for.
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

GO_ON_WITHIN = dt.timedelta(days=1)
"""A sync that began longer ago is not continued: cursors run out."""
LEFT_ALONE = dt.timedelta(days=1)
"""No source is left alone for longer, whatever it asks for."""


class SyncOvertakenError(Exception):
    """Another process goes on with the sync: what was done here since its last step is rolled back."""


class WaitingError(Exception):
    """The source asked to be left alone for a while."""


@dataclass(frozen=True)
class Known:
    """What is known of the page that a request asks for, and who met it."""

    request: str
    row: Row[Any] | None


@dataclass
class Checkpoint:
    """The checkpoint of one source, as this process left it."""

    engine: Engine
    dataset: str
    source: ApiSource
    now: Row[Any]

    def known(self, url: str) -> Known:
        """What is known of a page."""
        request = _sha256(url)
        with self.engine.connect() as conn:
            row = conn.execute(select(pages).where(self._mine(pages), pages.c.request == request)).first()
        return Known(request, row)

    def repeated(self, request: str, rows_sha256: str) -> tuple[int | None, int]:
        """Number of the first other page of this sync that has the same rows, and how many there are."""
        same = select(func.min(pages.c.page), func.count()).where(
            self._mine(pages),
            pages.c.rows_sha256 == rows_sha256,
            pages.c.sync == self.now.sync,
            pages.c.rows > 0,
            pages.c.request != request,
        )
        with self.engine.connect() as conn:
            first, count = conn.execute(same).one()
        return first, count

    def passed(
        self, request: str, page: paging.ApiPage, *, sha256: str, etag: str | None, arrival: ledger.Arrival | None
    ) -> Row[Any] | None:
        """Step over a page: write it into the ledger, if it is to be landed, in one transaction with the checkpoint.

        Returns:
            The ledger's row.

        Raises:
            SyncOvertakenError: another process stepped over it.
        """
        known = {
            "sync": self.now.sync,
            "page": self.now.pages + 1,
            "etag": etag,
            "sha256": sha256,
            "rows_sha256": page.rows_sha256,
            "rows": page.rows,
            "next": page.next,
        }
        keep = upsert(pages).values(dataset=self.dataset, source=self.source.name, request=request, **known)
        landed = None
        with self.engine.begin() as conn:
            if arrival is not None:
                (landed,) = ledger.register(conn, self.dataset, [arrival], self.source.channel)
            conn.execute(keep.on_conflict_do_update(index_elements=["dataset", "source", "request"], set_=known))
            if page.next is None:
                conn.execute(delete(pages).where(self._mine(pages), pages.c.sync < self.now.sync))
            moved = self._move(
                conn,
                position=page.next,
                pages=checkpoints.c.pages + 1,
                pages_landed=checkpoints.c.pages_landed + int(arrival is not None),
                rows=checkpoints.c.rows + (page.rows if arrival is not None else 0),
                **(self._success() if page.next is None else {}),
            )
            failpoint("sync.before_commit")
        self.now = moved
        failpoint("sync.after_commit")
        return landed

    def failed(self, why: str, *, goes_on: bool, seconds: float | None) -> None:
        """Note why the sync stopped; unless it goes on, the next one begins anew.

        Raises:
            SyncOvertakenError: another process goes on with it.
        """
        position = checkpoints.c.position if goes_on else None
        pause = None if seconds is None else func.clock_timestamp() + min(dt.timedelta(seconds=seconds), LEFT_ALONE)
        failpoint("sync.before_end")
        with self.engine.begin() as conn:
            now = func.clock_timestamp()
            if not goes_on:  # What an unchanged page led to may have run out: the next sync asks for each page in full.
                conn.execute(update(pages).where(self._mine(pages), pages.c.etag.is_not(None)).values(etag=None))
            moved = self._move(conn, position=position, last_failed=now, last_error=why, not_before=pause)
        self.now = moved
        failpoint("sync.after_end")

    def _success(self) -> dict[str, Any]:
        whole = case((checkpoints.c.whole, checkpoints.c.begun_at), else_=checkpoints.c.whole_begun_at)
        return {
            "last_succeeded": func.clock_timestamp(),
            "last_error": None,
            "succeeded_begun_at": checkpoints.c.begun_at,
            "whole_begun_at": whole,
        }

    def _move(self, conn: Connection, **values: Any) -> Row[Any]:
        statement = update(checkpoints).where(self._mine(checkpoints), checkpoints.c.step == self.now.step)
        moved = conn.execute(statement.values(step=checkpoints.c.step + 1, **values).returning(checkpoints)).first()
        if moved is None:
            raise SyncOvertakenError
        return moved

    def _mine(self, table: Any) -> Any:
        return (table.c.dataset == self.dataset) & (table.c.source == self.source.name)


def begin(engine: Engine, dataset: str, source: ApiSource, url: str) -> Checkpoint:
    """Go on with the sync that is under way, or begin a new one.

    Raises:
        WaitingError: the source asked to be left alone.
    """
    target = _sha256(repr((url, source.paging, source.page_size, source.since, source.suffix)))
    failpoint("sync.before_begin")
    with engine.begin() as conn:
        advisory_lock(conn, "sync", dataset, source.name)
        key = (checkpoints.c.dataset == dataset) & (checkpoints.c.source == source.name)
        # The server's clock, as for every other time in the row.
        found = conn.execute(select(checkpoints, func.clock_timestamp().label("now")).where(key)).first()
        if found and found.not_before and found.not_before > found.now and found.target == target:
            raise WaitingError(f"The source asked to be left alone until {found.not_before:%Y-%m-%d %H:%M:%S %Z}.")
        values = {"last_started": func.clock_timestamp(), "not_before": None}
        if found is None or not _goes_on(found, target):
            values |= _new_sync(found, source, target)
        if found is None:
            statement: Any = insert(checkpoints).values(dataset=dataset, source=source.name, step=1, **values)
        else:
            statement = update(checkpoints).where(key).values(step=checkpoints.c.step + 1, **values)
        row = conn.execute(statement.returning(checkpoints)).one()
    failpoint("sync.after_begin")
    return Checkpoint(engine, dataset, source, row)


def _goes_on(found: Row[Any], target: str) -> bool:
    return found.position is not None and found.target == target and found.now - found.begun_at < GO_ON_WITHIN


def _new_sync(found: Row[Any] | None, source: ApiSource, target: str) -> dict[str, Any]:
    """What a new sync begins with. Nothing that is known of another target holds for this one."""
    known = found if found is not None and found.target == target else None
    last_whole = known.whole_begun_at if known is not None else None
    whole = known is None or last_whole is None or known.now - last_whole >= source.whole_every
    since = None if whole or known is None or not source.since else known.succeeded_begun_at - source.overlap
    forgotten = {} if known is not None else {"succeeded_begun_at": None, "whole_begun_at": None}
    return {
        **forgotten,
        "sync": found.sync + 1 if found is not None else 1,
        "target": target,
        "position": paging.first(source),
        "whole": whole,
        "begun_at": func.clock_timestamp(),
        "since": since,
        "pages": 0,
        "pages_landed": 0,
        "rows": 0,
    }


def stored(conn: Connection, dataset: str | None = None) -> Sequence[Row[Any]]:
    """The checkpoints of a dataset, or of all."""
    mine = true() if dataset is None else checkpoints.c.dataset == dataset
    return conn.execute(select(checkpoints).where(mine).order_by(checkpoints.c.dataset, checkpoints.c.source)).all()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
