"""The channel of HTTP APIs: a source is asked page by page, and each page becomes a raw file with a row in the ledger.

Here: one sync, from its checkpoint to its end, and what came of it. The steps: `access.py` (where may be asked), `fetch.py` (a
page over HTTP), `paging.py` (which page is next), `checkpoint.py` (how far we are). What is on the pages is validated as of any
other file. A page that changes while a sync is under way does no harm: rows are upserted by their key.

A sync that is killed goes on at the page that was not committed. One that fails goes on there too if the source may
answer better later (time-outs, 5xx, half a page, credentials that ran out), and begins anew where it never will (pages that
repeat, 404).
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Engine, Row

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import ApiSource, HeaderLinkPaginator, Json, PageNumberPaginator
from mini_platform.landing import paging
from mini_platform.landing.checkpoint import Checkpoint, Known, SyncOvertakenError, WaitingError, begin
from mini_platform.landing.fetch import NOT_MODIFIED, AgainError, Answer, Fetcher, SyncError
from mini_platform.storage.access import Access
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.ledger import Arrival

EQUAL_PAGES = 100
"""So many pages of a sync with the same rows are taken for an endless loop, whatever they lead to."""
State = Literal["not configured", "succeeded", "failed", "paused", "waiting", "overtaken"]


@dataclass
class SyncResult:
    """What came of one attempt to sync a source.

    Attributes:
        source: its name.
        state: how it ended. `paused`: the next run goes on; `waiting`: the source asked to be left alone; `overtaken`: another
            process goes on with it.
        why: it ended so, as a sentence.
        sync: its number.
        pages: that were asked for now.
        unchanged: those of them that need not be landed again.
        rows: on the pages that were landed.
        file_ids: of the pages that were landed.
        seconds: it took.
    """

    source: str
    state: State = "not configured"
    why: str | None = None
    sync: int | None = None
    pages: int = 0
    unchanged: int = 0
    rows: int = 0
    file_ids: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the source."""
        return self.state not in ("failed", "waiting")

    def as_dict(self) -> dict[str, Any]:
        """For people and programs."""
        return vars(self) | {"file_ids": list(self.file_ids), "seconds": round(self.seconds, 3)}


def _silent(_sentence: str) -> None:
    """Nobody listens."""


def sync(
    engine: Engine,
    dataset: Dataset,
    source: ApiSource,
    store: RawStore,
    access: Access,
    say: Callable[[str], None] = _silent,
) -> SyncResult:
    """Ask a source for all its pages, or for those that changed, and land them.

    What goes wrong with the source is in the answer and in its checkpoint; what goes wrong here (the database, the disk)
    propagates.

    Args:
        engine: on the platform's database.
        dataset: whose source.
        source: to be synced.
        store: of raw files.
        access: where it is.
        say: told of tries and waits, in sentences.
    """
    done = SyncResult(source.name)
    if access.url is None:
        done.why = "No URL is set for it."
        return done
    started = time.monotonic()
    try:
        checkpoint = begin(engine, dataset.name, source, access.url)
    except WaitingError as error:
        done.state, done.why = "waiting", str(error)
        return done
    done.sync = checkpoint.now.sync
    fetcher = Fetcher(source, access, say)
    store.sweep()
    try:
        _Sync(dataset, source, store, access.url, checkpoint, fetcher, done).run(started + source.sync_seconds)
    except SyncOvertakenError:
        done.state, done.why = "overtaken", "Another process goes on with it."
    finally:
        fetcher.close()
        done.seconds = time.monotonic() - started
    return done


@dataclass
class _Sync:
    """One sync: its parts, and what came of it so far."""

    dataset: Dataset
    source: ApiSource
    store: RawStore
    base: str
    checkpoint: Checkpoint
    fetcher: Fetcher
    done: SyncResult

    def run(self, end: float) -> None:
        """Page after page, until there is none, the time is over, or one cannot be had."""
        try:
            while self.checkpoint.now.position is not None:
                if time.monotonic() >= end:
                    self.done.state, self.done.why = "paused", "The next run goes on with it."
                    return
                self._step()
            self.done.state = "succeeded"
        except SyncError as error:
            self.done.state, self.done.why = "failed", f"Page {self.checkpoint.now.pages + 1}: {error}"
            # A source that lets nobody in, or has no rows at all, interrupted nothing.
            goes_on = error.goes_on and (self.checkpoint.now.pages > 0 or isinstance(error, AgainError))
            self.checkpoint.failed(self.done.why, goes_on=goes_on, seconds=self._pause(error))

    def _pause(self, error: SyncError) -> float | None:
        """For how long the source is to be left alone: its wish that was too long to be waited for."""
        return error.seconds if error.seconds and error.seconds > self.source.longest_wait else None

    def _step(self) -> None:
        """Ask for a page, land it if there is anything new on it, and go on to the next."""
        now = self.checkpoint.now
        if now.pages >= self.source.max_pages:
            raise SyncError(f"The source has more than {self.source.max_pages:,} pages: it seems to have no end.")
        url = paging.url_of(self.source, self.base, now.position, now.since)
        known = self.checkpoint.known(url)
        if known.row is not None and known.row.sync == now.sync:
            raise SyncError(f"It was asked for before, as page {known.row.page}: the source leads round in a circle.")
        etag = known.row.etag if known.row is not None and not now.whole and self._tells_next(known.row) else None

        def take(answer: Answer) -> tuple[Answer, paging.ApiPage | None]:
            if answer.status != NOT_MODIFIED:
                return answer, paging.read(self.source, self._form, self.base, now.position, answer)
            if etag is None:
                raise SyncError("The source says that it has not changed, but was not asked whether it had.")
            return answer, None

        answer, page = self.fetcher.fetch(url, etag, take)
        failpoint("sync.page_received")
        self.done.pages += 1
        if page is None:
            self._pass_unchanged(known, answer)
        else:
            self._pass(known, answer, page)

    def _tells_next(self, row: Row[Any]) -> bool:
        """Whether it is known what follows an unchanged page: beside the last one's rows there may be a link today."""
        return row.next is not None or not isinstance(self.source.paging, HeaderLinkPaginator)

    @property
    def _form(self) -> Json:
        form = self.dataset.page_format(self.source)
        assert form is not None  # noqa: S101 - the declaration was checked
        return form

    def _pass_unchanged(self, known: Known, answer: Answer) -> None:
        row = known.row
        assert row is not None  # noqa: S101 - its ETag was sent
        self.done.unchanged += 1
        following = paging.linked(self.base, answer) if isinstance(self.source.paging, HeaderLinkPaginator) else None
        page = paging.ApiPage(row.rows, row.rows_sha256, following or row.next)
        self.checkpoint.passed(known.request, page, sha256=row.sha256, etag=answer.etag or row.etag, arrival=None)

    def _repeated(self, request: str, page: paging.ApiPage) -> int | None:
        """Number of the page with the same rows, where that means that the source stands still.

        A number that is not understood gives the first page again. By links and cursors the source itself leads on, and
        pages may be equal: those that lead back are known by what they ask for, and only very many are no accident.
        """
        first, equal = self.checkpoint.repeated(request, page.rows_sha256)
        return first if equal >= (1 if isinstance(self.source.paging, PageNumberPaginator) else EQUAL_PAGES) else None

    def _pass(self, known: Known, answer: Answer, page: paging.ApiPage) -> None:
        sha256 = hashlib.sha256(answer.body).hexdigest()
        if page.rows and (other := self._repeated(known.request, page)):
            raise SyncError(f"It has the same rows as page {other}: the source does not go on to the next page.")
        unchanged = known.row is not None and known.row.sha256 == sha256 and not self.checkpoint.now.whole
        arrival = None
        if page.rows and not unchanged:
            kept, size = self.store.put(io.BytesIO(answer.body))
            failpoint("sync.page_kept")
            now = self.checkpoint.now
            arrival = Arrival(f"{self.source.name}/{now.sync}/page-{now.pages + 1:06}{self.source.suffix}", kept, size)
        row = self.checkpoint.passed(known.request, page, sha256=sha256, etag=answer.etag, arrival=arrival)
        self.done.unchanged += unchanged
        if row is not None:
            self.done.rows += page.rows
            self.done.file_ids.append(row.same_as or row.file_id)
