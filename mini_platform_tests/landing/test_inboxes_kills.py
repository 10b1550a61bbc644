"""`kill -9` of a visit between download, ledger and archive: each file is landed, loaded and put away once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import func, text, update

from mini_platform.config.faultpoints import INBOX_POINTS
from mini_platform.warehouse.tables import inboxes
from mini_platform_tests.support import inbox_worker
from mini_platform_tests.support.inbox_harness import BAD, GOOD, INBOX, InboxHarness

LANDING, TIDYING = INBOX_POINTS[:3], INBOX_POINTS[3:]


def visit_in_a_process(harness: InboxHarness, log: Path, fault: str = "") -> int:
    """The exit code, negative for a signal."""
    names = ("DATABASE_URL", "MINI_PLATFORM_HOME", "MINI_PLATFORM_DATA")
    environment = {name: os.environ[name] for name in names}
    environment |= {f"{INBOX}_PARTNER__{name}".upper(): str(value) for name, value in harness.settings.items()}
    environment |= {"MINI_PLATFORM_FAULT": fault} if fault else {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([inbox_worker.__name__])
    process = context.Process(target=inbox_worker.main, args=(environment, log), daemon=True)
    process.start()
    try:
        process.join(120)
        assert process.exitcode is not None, f"still at work: {log.read_text()}"
    finally:
        process.kill()
        process.join()
    with harness.platform.engine.begin() as conn:  # It gave no sign of life for a minute.
        conn.execute(update(inboxes).values(held_until=func.now()))
    return process.exitcode


@pytest.mark.faults
def test_killed_at_every_point(served: InboxHarness, tmp_path: Path) -> None:
    harness, log = served.using(after="archive"), tmp_path / "visits.log"
    harness.put("good.csv")
    harness.put("bad.csv", BAD)
    on_s3 = "endpoint" in harness.settings
    if not on_s3:
        harness.visit()  # The first of two looks.
        harness.age()
    for point in LANDING:
        assert visit_in_a_process(harness, log, point) == -signal.SIGKILL, log.read_text()
        assert len(harness.ledger()) == (2 if point == "inbox.after_commit" else 0)
    assert visit_in_a_process(harness, log) == 0, log.read_text()
    assert harness.raw() == sorted([GOOD, BAD])
    harness.load()
    for point in TIDYING:
        if on_s3 or point != "inbox.copied":  # Elsewhere a file is renamed.
            assert visit_in_a_process(harness, log, point) == -signal.SIGKILL, log.read_text()
    assert visit_in_a_process(harness, log) == 0, log.read_text()

    ids = {name: file_id for file_id, name in harness.ledger("file_id", "name")}
    good, bad = ids["partner/good.csv"], ids["partner/bad.csv"]
    archived = [f"processed/{good}/good.csv", f"quarantine/{bad}/bad.csv", f"quarantine/{bad}/rejects.csv"]
    assert harness.stands() == sorted(archived)
    assert (harness.folder / f"processed/{good}/good.csv").read_bytes() == GOOD
    assert sorted(harness.ledger()) == [("partner/bad.csv", 1, "refused"), ("partner/good.csv", 1, "loaded")]
    assert harness.known() == {}
    with harness.platform.engine.connect() as conn:
        rows = conn.execute(text("SELECT station_id, temp_c FROM production.measurements")).all()
    assert [tuple(row) for row in rows] == [("OSL", -4.5)]
