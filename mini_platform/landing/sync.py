"""The channel of HTTP APIs: a source is requested page by page, and each page becomes a raw file with a row in the ledger.

Here: one sync, from its checkpoint to its end, and its result. The steps: `access.py` (allowed URLs), `fetch.py` (a page over
HTTP), `paging.py` (the next page), `checkpoint.py` (the progress). The rows of a page are validated like those of any other
file. A page that changes during a sync does no harm: rows are upserted by their key.

A sync that is killed resumes at the page that was not committed. One that fails resumes there too if the source may
answer better later (time-outs, 5xx, half a page, expired credentials), and starts again where it never will (pages that
repeat, 404).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine, Row

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import ApiSource, HeaderLinkPaginator, Json, PageNumberPaginator
from mini_platform.landing import paging
from mini_platform.landing.checkpoint import Checkpoint, KnownPage, SyncOvertakenError, WaitingError, begin
from mini_platform.landing.fetch import NOT_MODIFIED, Answer, Fetcher, RetryableError, SyncError
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.storage.access import Access
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.ledger import Arrival

EQUAL_PAGES = 100
"""This many pages of a sync with the same rows are treated as an endless loop, whatever they link to."""
State = Literal["not configured", "succeeded", "failed", "paused", "waiting", "overtaken"]


@dataclass
class SyncResult:
    """The result of one attempt to sync a source.

    Attributes:
        source: name of the source.
        state: how the attempt ended. `paused`: the next run resumes it; `waiting`: the source requested a pause; `overtaken`:
            another process continues the sync.
        why: the reason for the state, as a sentence.
        sync: number of the sync.
        pages: number of pages requested by this attempt.
        unchanged: number of pages that did not change and were not landed again.
        rows: number of rows on the pages that were landed.
        file_ids: ledger ids of the pages that were landed.
        seconds: duration.
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
        """Return True unless the source failed or requested a pause."""
        return self.state not in ("failed", "waiting")

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return vars(self) | {"file_ids": list(self.file_ids), "seconds": round(self.seconds, 3)}


def _ignore(_sentence: str) -> None:
    """Ignore a log message."""


def sync(
    engine: Engine,
    dataset: Dataset,
    source: ApiSource,
    store: RawStore,
    access: Access,
    log: Callable[[str], None] = _ignore,
) -> SyncResult:
    """Request all pages of a source, or those that changed, and land them.

    Errors of the source are in the result and in its checkpoint; errors of the platform (database, disk) propagate.

    Args:
        engine: engine of the platform's database.
        dataset: dataset that declares the source.
        source: source to sync.
        store: store of raw files.
        access: URL and credentials of the source.
        log: callback for messages about tries and waits.
    """
    result = SyncResult(source.name)
    if access.url is None:
        result.why = "No URL is set for this source."
        return result
    started = time.monotonic()
    try:
        checkpoint = begin(engine, dataset.name, source, access.url)
    except WaitingError as error:
        result.state, result.why = "waiting", str(error)
        return result
    result.sync = checkpoint.row.sync
    fetcher = Fetcher(source, access, log)
    store.sweep()
    try:
        _Sync(dataset, source, store, access.url, checkpoint, fetcher, result).run(started + source.sync_seconds)
    except SyncOvertakenError:
        result.state, result.why = "overtaken", "Another process continues this sync."
    finally:
        fetcher.close()
        result.seconds = time.monotonic() - started
    return result


@dataclass
class _Sync:
    """One sync: its parts, and its result so far."""

    dataset: Dataset
    source: ApiSource
    store: RawStore
    base: str
    checkpoint: Checkpoint
    fetcher: Fetcher
    result: SyncResult

    def run(self, end: float) -> None:
        """Request page after page, until the last one, the end of the time, or an error."""
        try:
            while self.checkpoint.row.position is not None:
                if time.monotonic() >= end:
                    self.result.state, self.result.why = "paused", "The next run resumes this sync."
                    return
                self._step()
            self.result.state = "succeeded"
        except SyncError as error:
            self.result.state, self.result.why = "failed", f"Page {self.checkpoint.row.pages + 1}: {error}"
            # A sync that failed on its first page resumes only after a temporary error: there is no progress to keep.
            resumable = error.resumable and (self.checkpoint.row.pages > 0 or isinstance(error, RetryableError))
            self.checkpoint.fail(self.result.why, resumable=resumable, seconds=self._pause(error))

    def _pause(self, error: SyncError) -> float | None:
        """Return the pause in seconds that the source requested, if it is too long to wait for; else None."""
        return error.seconds if error.seconds and error.seconds > self.source.longest_wait else None

    def _step(self) -> None:
        """Request one page, land it if it changed, and move the checkpoint past it."""
        progress = self.checkpoint.row
        if progress.pages >= self.source.max_pages:
            raise SyncError(f"The source has more than {self.source.max_pages:,} pages: it seems to have no end.")
        # A page that this sync already moved past means that the links or cursors form a circle. A page of an earlier sync is
        # requested with its ETag, unless this is a full sync or the next page could not be told from a 304. `read_page` runs
        # within the retries of the fetcher: a body that cannot be parsed is requested again like a failed connection.
        url = paging.url_of(self.source, self.base, progress.position, progress.since)
        known = self.checkpoint.known(url)
        if known.row is not None and known.row.sync == progress.sync:
            raise SyncError(
                f"It was requested before, as page {known.row.page}: the links of the source form a circle."
            )
        etag = (
            known.row.etag if known.row is not None and not progress.whole and self._next_is_known(known.row) else None
        )

        def read_page(answer: Answer) -> tuple[Answer, paging.ApiPage | None]:
            if answer.status != NOT_MODIFIED:
                return answer, self._read(progress.position, answer)
            if etag is None:
                raise SyncError("The source answered 304 (not modified) to a request without an ETag.")
            return answer, None

        answer, page = self.fetcher.fetch(url, etag, read_page)
        failpoint("sync.page_received")
        self.result.pages += 1
        if page is None:
            self._advance_unchanged(known, answer)
        else:
            self._land_page(known, answer, page)

    def _next_is_known(self, row: Row[Any]) -> bool:
        """Return True if a 304 is enough to find the next page: beside the rows of a last page there may be a link by now."""
        return row.next is not None or not isinstance(self.source.paging, HeaderLinkPaginator)

    def _read(self, position: str, answer: Answer) -> paging.ApiPage:
        form = self.dataset.page_format(self.source)
        if isinstance(form, Json):
            return paging.read(self.source, form, self.base, position, answer)
        from mini_platform.rows.readers.files import read_rows  # Brings polars.

        # The file's own reader distinguishes CSV from an error page that was sent with status 200.
        with tempfile.NamedTemporaryFile() as file:
            file.write(answer.body)
            file.flush()
            try:
                blocks = read_rows(
                    self.dataset, Path(file.name), f"page{self.source.suffix}", self.source.channel, ReadLimits()
                )
                rows = sum(block.rows.height + len(block.malformed) for block in blocks)
            except RefusedFileError as error:
                raise RetryableError(f"The page cannot be read: {error}") from error
        return paging.ApiPage(rows, hashlib.sha256(answer.body).hexdigest(), None)

    def _advance_unchanged(self, known: KnownPage, answer: Answer) -> None:
        row = known.row
        assert row is not None  # noqa: S101 - its ETag was sent
        self.result.unchanged += 1
        next_page = (
            paging.next_position(self.base, answer) if isinstance(self.source.paging, HeaderLinkPaginator) else None
        )
        page = paging.ApiPage(row.rows, row.rows_sha256, next_page or row.next)
        self.checkpoint.advance(known.request, page, sha256=row.sha256, etag=answer.etag or row.etag, arrival=None)

    def _repeated_page(self, request: str, page: paging.ApiPage) -> int | None:
        """Return the number of the page with the same rows, if that means that the source makes no progress; else None.

        A source that ignores the page number returns the first page again. With links and cursors the source itself names the
        next page, and pages may be equal: loops are detected by repeated requests, and by a very large number of equal pages.
        """
        first, equal = self.checkpoint.equal_pages(request, page.rows_sha256)
        return first if equal >= (1 if isinstance(self.source.paging, PageNumberPaginator) else EQUAL_PAGES) else None

    def _ignores_paging(self, page: paging.ApiPage) -> bool:
        """Return True if the source sends these rows, all that it has, whatever page and limit are.

        One that ignores the page but not the limit may have more rows, which it does not send.
        """
        numbered = self.source.paging
        if not isinstance(numbered, PageNumberPaginator) or numbered.limit is None:
            return False
        position, other_size = paging.first(self.source), 2 if page.rows == 1 else 1
        url = paging.url_of(replace(self.source, page_size=other_size), self.base, position, self.checkpoint.row.since)
        limited = self.fetcher.fetch(url, None, lambda answer: self._read(position, answer))
        return limited.rows_sha256 == page.rows_sha256

    def _land_page(self, known: KnownPage, answer: Answer, page: paging.ApiPage) -> None:
        sha256 = hashlib.sha256(answer.body).hexdigest()
        repeated = page.rows and self._repeated_page(known.request, page)
        if repeated:
            if repeated < self.checkpoint.row.pages or not self._ignores_paging(page):
                raise SyncError(
                    f"It has the same rows as page {repeated}: the source does not advance to the next page. If one response "
                    "has all of its rows, declare paging=None."
                )
            page = replace(page, next=None)
        unchanged = known.row is not None and known.row.sha256 == sha256 and not self.checkpoint.row.whole
        arrival = None
        if page.rows and not repeated and not unchanged:
            stored, size = self.store.put(io.BytesIO(answer.body))
            failpoint("sync.page_kept")
            progress = self.checkpoint.row
            arrival = Arrival(
                f"{self.source.name}/{progress.sync}/page-{progress.pages + 1:06}{self.source.suffix}",
                stored,
                size,
            )
        row = self.checkpoint.advance(known.request, page, sha256=sha256, etag=answer.etag, arrival=arrival)
        self.result.unchanged += unchanged
        if row is not None:
            self.result.rows += page.rows
            self.result.file_ids.append(row.same_as or row.file_id)
