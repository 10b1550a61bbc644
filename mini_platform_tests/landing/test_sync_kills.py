"""`kill -9` of a process that syncs, at every fault point: the next sync goes on, and every row stands once in production."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from mini_platform.config.faultpoints import SYNC_POINTS
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import checkpoints
from mini_platform_tests.support import sync_worker
from mini_platform_tests.support.api_server import Api, Reply, Request, serving, things

pytestmark = pytest.mark.faults

PAGES = 4
ONCE = ("sync.before_begin", "sync.after_begin")
"""Points that a sync comes by once."""
ONLY_AFTER_FAILURES = ("sync.before_end", "sync.after_end")
LANDING = ("land.copying", "sync.page_kept")
"""Points on the way of a page with rows; the last page has none."""


def page(request: Request) -> Reply:
    number = int(request.query["page"])
    return Reply(things(2 * number - 1, 2 * number) if number <= PAGES else [])


@dataclass
class SyncHarness:
    """A server, a platform, and processes that sync."""

    api: Api
    platform: Platform
    environment: dict[str, str]
    log: Path
    started: list[Any] = field(default_factory=list)

    def sync(self, fault: str = "") -> int:
        """ApiSource in a process of its own; its exit code, negative for a signal."""
        environment = self.environment | ({"MINI_PLATFORM_FAULT": fault} if fault else {})
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([sync_worker.__name__])
        process = context.Process(target=sync_worker.main, args=(environment, self.log), daemon=True)
        process.start()
        self.started.append(process)
        process.join(60)
        assert process.exitcode is not None, f"still at work: {self.log.read_text()}"
        return process.exitcode

    def kill_at(self, fault: str) -> None:
        assert self.sync(fault) == -signal.SIGKILL, f"the fault {fault} never fired: {self.log.read_text()}"

    def finish(self) -> None:
        assert self.sync() == 0, self.log.read_text()

    @property
    def checkpoint(self) -> Any:
        with self.platform.engine.connect() as conn:
            return conn.execute(select(checkpoints)).one()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.platform.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(query))]

    def check(self, sync: int = 1) -> None:
        """Every page was landed once, every row was inserted once, and the checkpoint says so."""
        process(self.platform, sync_worker.DATASET, run_id="test")
        landed = self.rows("SELECT name, version, status, rows_read, rows_inserted FROM ops.files ORDER BY file_id")
        names = [f"api/{sync}/page-{number:06}.json" for number in range(1, PAGES + 1)]
        assert landed == [(name, 1, "loaded", 2, 2) for name in names]
        ids = self.rows("SELECT source, source_id FROM production.records ORDER BY source_id::int")
        assert ids == [("api", str(number)) for number in range(1, 2 * PAGES + 1)]
        row = self.checkpoint
        assert (row.position, row.pages, row.pages_landed, row.rows) == (None, PAGES + 1, PAGES, 2 * PAGES)
        assert (row.sync, row.last_error) == (sync, None)
        assert row.last_succeeded is not None


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def harness(platform: Platform, database_url: str, home: Path, data: Path) -> Iterator[SyncHarness]:
    with serving(page) as api:
        settings = {
            "DATABASE_URL": database_url,
            "MINI_PLATFORM_HOME": str(home),
            "MINI_PLATFORM_DATA": str(data),
            "MINI_PLATFORM_API_SOURCE__RECORDS_API__URL": api.url,
            "MINI_PLATFORM_API_SOURCE_NETWORKS": "127.0.0.0/8",
        }
        sync_harness = SyncHarness(api, platform, settings, home.with_name("sync.log"))
        yield sync_harness
        for process in sync_harness.started:
            process.kill()
            process.join()


def test_undisturbed(harness: SyncHarness) -> None:
    harness.finish()
    harness.check()


@pytest.mark.parametrize("point", [*[p for p in SYNC_POINTS if p not in ONLY_AFTER_FAILURES], "land.copying"])
def test_killed(point: str, harness: SyncHarness) -> None:
    """At the first page, at the second that comes, and again: one death after the other in one sync."""
    times = [1] if point in ONCE else [1, 2, 1]
    for number in times:
        harness.kill_at(f"{point}:{number}")
    requests_before = len(harness.api.requests)
    harness.finish()
    harness.check()
    if point not in ONCE:
        assert len(harness.api.requests) - requests_before < PAGES + 1, "it went on, and did not begin anew"


@pytest.mark.parametrize("point", [p for p in SYNC_POINTS if p not in (*ONCE, *ONLY_AFTER_FAILURES, *LANDING)])
def test_killed_at_the_end(point: str, harness: SyncHarness) -> None:
    harness.kill_at(f"{point}:{PAGES + 1}")
    if point == "sync.after_commit":
        harness.check()
        return
    harness.finish()
    harness.check()


@pytest.mark.parametrize("point", ONLY_AFTER_FAILURES)
@pytest.mark.parametrize("status", [500, 404])
def test_killed_while_a_failure_is_noted(point: str, status: int, harness: SyncHarness) -> None:
    harness.api.answer = lambda request: Reply(status=status) if request.query["page"] == "3" else page(request)
    harness.kill_at(point)
    noted = harness.checkpoint.last_error is not None
    assert noted == (point == "sync.after_end")
    begun_anew = noted and status == 404
    harness.api.answer = page
    harness.finish()
    if not begun_anew:
        harness.check()
        return
    row = harness.checkpoint
    # The new sync is a whole one: it lands the first two pages again, and their rows are the same.
    assert (row.sync, row.position, row.pages, row.last_error) == (2, None, PAGES + 1, None)


def test_a_raw_file_that_no_ledger_row_names_does_no_harm(harness: SyncHarness) -> None:
    harness.kill_at("sync.page_kept")
    raw_paths = list((harness.platform.store.folder).glob("??/*"))
    assert len(raw_paths) == 1
    assert harness.rows("SELECT * FROM ops.files") == []
    harness.finish()
    harness.check()
    assert raw_paths[0].exists(), "the same bytes again are the same file"
