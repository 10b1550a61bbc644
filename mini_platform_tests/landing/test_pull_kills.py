"""`kill -9` of a process that pulls, at every fault point: the next pull goes on, and every row stands once in production."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from mini_platform.config.faultpoints import PULL_POINTS
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import checkpoints
from mini_platform_tests.support import pull_worker
from mini_platform_tests.support.api_server import Api, Reply, Request, serving, things

PAGES = 4
ONCE = ("pull.before_begin", "pull.after_begin")
"""Points that a pull comes by once."""
ONLY_AFTER_FAILURES = ("pull.before_end", "pull.after_end")
LANDING = ("land.copying", "pull.page_kept")
"""Points on the way of a page with rows; the last page has none."""


def page(request: Request) -> Reply:
    number = int(request.query["page"])
    return Reply(things(2 * number - 1, 2 * number) if number <= PAGES else [])


@dataclass
class Yard:
    """A server, a platform, and processes that pull."""

    api: Api
    platform: Platform
    environment: dict[str, str]
    log: Path
    started: list[Any] = field(default_factory=list)

    def pull(self, fault: str = "") -> int:
        """Pull in a process of its own; its exit code, negative for a signal."""
        environment = self.environment | ({"MINI_PLATFORM_FAULT": fault} if fault else {})
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([pull_worker.__name__])
        process = context.Process(target=pull_worker.main, args=(environment, self.log), daemon=True)
        process.start()
        self.started.append(process)
        process.join(60)
        assert process.exitcode is not None, f"still at work: {self.log.read_text()}"
        return process.exitcode

    def kill_at(self, fault: str) -> None:
        assert self.pull(fault) == -signal.SIGKILL, f"the fault {fault} never fired: {self.log.read_text()}"

    def finish(self) -> None:
        assert self.pull() == 0, self.log.read_text()

    @property
    def checkpoint(self) -> Any:
        with self.platform.engine.connect() as conn:
            return conn.execute(select(checkpoints)).one()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.platform.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(query))]

    def check(self, crawl: int = 1) -> None:
        """Every page was landed once, every row was inserted once, and the checkpoint says so."""
        process(self.platform, pull_worker.DATASET, run_id="test")
        landed = self.rows("SELECT name, version, status, rows_read, rows_inserted FROM ops.files ORDER BY file_id")
        names = [f"api/{crawl}/page-{number:06}.json" for number in range(1, PAGES + 1)]
        assert landed == [(name, 1, "loaded", 2, 2) for name in names]
        ids = self.rows("SELECT source, source_id FROM production.records ORDER BY source_id::int")
        assert ids == [("api", str(number)) for number in range(1, 2 * PAGES + 1)]
        row = self.checkpoint
        assert (row.position, row.pages, row.pages_landed, row.rows) == (None, PAGES + 1, PAGES, 2 * PAGES)
        assert (row.crawl, row.last_error) == (crawl, None)
        assert row.last_succeeded is not None


@pytest.fixture
def yard(platform: Platform, database_url: str, home: Path, data: Path) -> Iterator[Yard]:
    with serving(page) as api:
        settings = {
            "DATABASE_URL": database_url,
            "MINI_PLATFORM_HOME": str(home),
            "MINI_PLATFORM_DATA": str(data),
            "MINI_PLATFORM_PULL__RECORDS_API__URL": api.url,
            "MINI_PLATFORM_PULL_NETWORKS": "127.0.0.0/8",
        }
        made = Yard(api, platform, settings, home.with_name("pull.log"))
        yield made
        for process in made.started:
            process.kill()
            process.join()


def test_undisturbed(yard: Yard) -> None:
    yard.finish()
    yard.check()


@pytest.mark.parametrize("point", [*[p for p in PULL_POINTS if p not in ONLY_AFTER_FAILURES], "land.copying"])
def test_killed(point: str, yard: Yard) -> None:
    """At the first page, at the second that comes, and again: one death after the other in one crawl."""
    times = [1] if point in ONCE else [1, 2, 1]
    for number in times:
        yard.kill_at(f"{point}:{number}")
    asked = len(yard.api.requests)
    yard.finish()
    yard.check()
    if point not in ONCE:
        assert len(yard.api.requests) - asked < PAGES + 1, "it went on, and did not begin anew"


@pytest.mark.parametrize("point", [p for p in PULL_POINTS if p not in (*ONCE, *ONLY_AFTER_FAILURES, *LANDING)])
def test_killed_at_the_end(point: str, yard: Yard) -> None:
    yard.kill_at(f"{point}:{PAGES + 1}")
    if point == "pull.after_commit":
        yard.check()
        return
    yard.finish()
    yard.check()


@pytest.mark.parametrize("point", ONLY_AFTER_FAILURES)
@pytest.mark.parametrize("status", [500, 404])
def test_killed_while_a_failure_is_noted(point: str, status: int, yard: Yard) -> None:
    yard.api.answer = lambda request: Reply(status=status) if request.query["page"] == "3" else page(request)
    yard.kill_at(point)
    noted = yard.checkpoint.last_error is not None
    assert noted == (point == "pull.after_end")
    begun_anew = noted and status == 404
    yard.api.answer = page
    yard.finish()
    if not begun_anew:
        yard.check()
        return
    row = yard.checkpoint
    # The new crawl is a whole one: it lands the first two pages again, and their rows are the same.
    assert (row.crawl, row.position, row.pages, row.last_error) == (2, None, PAGES + 1, None)


def test_a_raw_file_that_no_ledger_row_names_does_no_harm(yard: Yard) -> None:
    yard.kill_at("pull.page_kept")
    kept = list((yard.platform.store.folder).glob("??/*"))
    assert len(kept) == 1
    assert yard.rows("SELECT * FROM ops.files") == []
    yard.finish()
    yard.check()
    assert kept[0].exists(), "the same bytes again are the same file"
