"""Whatever a source or an inbox says that it delivered is in production, or among the rejects, exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, text, update

from mini_platform.config.faultpoints import INBOX_POINTS, SYNC_POINTS
from mini_platform.landing import checkpoint, folder, inbox_work, upload
from mini_platform.landing import sync as syncing
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import inboxes
from mini_platform_tests.support.api_server import serving
from mini_platform_tests.support.deliverer import killed, sync, visit
from mini_platform_tests.support.deliveries import NAMES, PAGINGS, Files, Source, things
from mini_platform_tests.support.inbox_harness import InboxHarness

LANDING, TIDYING = INBOX_POINTS[:3], INBOX_POINTS[4:]
"""Points of a visit that lands, and of one that puts away what was loaded."""


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


class Killed(BaseException):
    """The process is gone, as far as what it does next is concerned."""


@contextlib.contextmanager
def killed_at(points: tuple[str, ...], rng: random.Random, how_often: float) -> Iterator[None]:
    """Let what comes by these points end there now and then, as a kill does: without another word."""

    def failpoint(name: str) -> None:
        if name in points and rng.random() < how_often:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        for module in (syncing, checkpoint, inbox_work):
            patch.setattr(module, "failpoint", failpoint)
        yield


@pytest.fixture
def things_platform(platform: Platform) -> Platform:
    create_all(platform.engine, [things()])
    return platform


def work(platform: Platform) -> None:
    """Do the work of runs until no file waits."""
    process(platform, things(), run_id="test")


def query_rows(platform: Platform, query: str) -> list[Any]:
    with platform.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(query))]


def production(platform: Platform) -> dict[str, int]:
    rows = query_rows(platform, "SELECT id, n FROM production.things")
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def accounted(platform: Platform) -> None:
    """Every file was loaded once, and all of its rows are counted."""
    states = query_rows(platform, "SELECT DISTINCT status FROM ops.files")
    assert set(states) <= {("loaded",), ("unchanged",)}
    (counts,) = query_rows(platform, "SELECT sum(rows_rejected) FROM ops.files WHERE status = 'loaded'")
    assert query_rows(platform, "SELECT count(*) FROM quarantine.things") == [(counts[0] or 0,)]


# Sources


@pytest.mark.parametrize("kills", [0.0, 0.05], ids=["alive", "killed"])
@pytest.mark.parametrize("paging", sorted(PAGINGS))
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.faults) for n in range(1, 3))])
def test_a_source_that_goes_wrong_in_every_way(things_platform: Platform, seed: int, paging: str, kills: float) -> None:
    platform, rng = things_platform, random.Random(f"{seed} {paging} {kills}")  # noqa: S311
    source = Source(paging, rng, [(f"r{number}", number) for number in range(rng.randint(3, 12))])
    deaths = 0
    with serving(source.answer) as api:
        for _ in range(4):
            source.change()
            source.wrong = 0.25
            if kills:
                fault = f"{rng.choice(SYNC_POINTS[:-2])}:{rng.randint(1, 2)}"
                deaths += killed(sync, paging, api.url, source.valid, fault=fault)
            with killed_at(SYNC_POINTS, rng, kills):
                for _ in range(2):
                    with contextlib.suppress(Killed):
                        sync(platform, paging, api.url, source.valid)
            source.wrong = 0.0
            settled = [sync(platform, paging, api.url, source.valid) for _ in range(3)][-1]
            assert settled.state == "succeeded", settled.why
            work(platform)
            accounted(platform)
            stored_rows, last = production(platform), dict(source.delivered)
            assert {name: stored_rows.get(name) for name, number in source.rows if number is not None} == {
                name: number for name, number in source.rows if number is not None
            }
            assert set(stored_rows) <= set(last), "nothing came from elsewhere"
            assert {n for n, number in source.delivered if number is None} == {
                name for (name,) in query_rows(platform, "SELECT DISTINCT id FROM quarantine.things")
            }
    assert not kills or deaths


# Inboxes


@pytest.fixture
def box(harness: InboxHarness) -> InboxHarness:
    create_all(harness.platform.engine, [things()])
    return replace(harness, dataset=things())


KEPT = ".kept"
"""A file that keeps its folder, and is left alone as all whose names begin with a dot."""


def stands(harness: InboxHarness, files: Files) -> None:
    """Let the inbox hold what it should, and nothing else beside what was put away."""
    # Or rclone removes the folder with its last object, and does not see it when it is there again.
    (harness.folder / KEPT).touch()
    for path in harness.folder.iterdir():
        if path.is_file() and path.name not in (KEPT, *files.standing):
            path.unlink()
    for name, data in files.standing.items():
        path = harness.folder / name
        if not path.exists() or path.read_bytes() != data:
            harness.put(name, data)
            at = (
                next(files.count) + 1_000_000
            )  # Each writing has a time of its own, also on servers that know only seconds.
            os.utime(path, (at, at))
    harness.refresh()


def visited(harness: InboxHarness, rng: random.Random, kills: float, points: Sequence[str]) -> bool:
    """Visits until there is nothing to do, two of which may die, one of them in a process of its own; whether that did."""
    death, on_s3 = False, "endpoint" in harness.settings
    fault = rng.choice([point for point in points if on_s3 or point != "inbox.copied"])  # Elsewhere a file is renamed.
    # Where two looks have to agree, the second one has something to do.
    last = points == LANDING and not on_s3
    with killed_at(INBOX_POINTS, rng, kills):
        for in_a_process in (not last, last):
            with contextlib.suppress(Killed):
                if in_a_process:
                    death = killed(visit, harness.name, harness.settings, fault=fault)
                else:
                    harness.visit()
            harness.age()
            with harness.platform.engine.begin() as conn:  # They gave no sign of life for a minute.
                conn.execute(update(inboxes).values(held_until=func.now()))
    for _ in range(2):
        harness.visit()
        harness.age()
    return death


def test_an_inbox_whose_files_come_and_go(box: InboxHarness) -> None:
    go_through(box, seed=0, after="archive", kills=0.1, rounds=1 if "endpoint" in box.settings else 3)


@pytest.mark.faults
@pytest.mark.parametrize("after", ["keep", "archive", "delete"])
@pytest.mark.parametrize("seed", range(1, 2))
def test_an_inbox_whose_files_come_and_go_often(box: InboxHarness, seed: int, after: str) -> None:
    go_through(box, seed=seed, after=after, kills=0.1, rounds=5)


def go_through(box: InboxHarness, *, seed: int, after: str, kills: float, rounds: int) -> None:
    harness, rng = box.using(after=after), random.Random(f"{seed} {after}")  # noqa: S311
    files, deaths = Files(rng), 0
    for _ in range(rounds):
        files.change()
        stands(harness, files)
        deaths += visited(harness, rng, kills, LANDING)
        files.record_fetched()
        work(harness.platform)
        deaths += visited(harness, rng, kills, TIDYING)
        if after != "keep":
            files.standing.clear()
            assert not [path for path in harness.folder.iterdir() if path.is_file() and path.name != KEPT], (
                "all of it was put away"
            )
        accounted(harness.platform)
        assert production(harness.platform) == files.production()
        landed = harness.ledger("name", "status", "rows_rejected")
        assert [status for _, status, _ in landed].count("loaded") == len(files.delivered)
        assert sum(rejected or 0 for _, status, rejected in landed if status == "loaded") == len(files.delivered)
    assert deaths


# All channels at once


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.faults) for n in range(1, 3))])
def test_all_channels_of_a_dataset_at_the_same_instant(things_platform: Platform, tmp_path: Path, seed: int) -> None:
    """A drop folder, an upload, a payload, a sync and an inbox, some by the same names, while runs stage and load."""
    platform, rng, dataset = things_platform, random.Random(seed), things()  # noqa: S311
    source = Source("numbers", rng, [(f"r{number}", number) for number in range(10)])
    boxes = InboxHarness(platform, tmp_path / "box", {"url": f"file://{tmp_path / 'box'}"}, dataset)
    drop, sent = tmp_path / "drop", Files(rng)
    for name in NAMES:
        sent.old[f"{name}.csv"] = [sent._content(f"{name}.csv") for _ in range(3)]
        boxes.put(f"{name}.csv", sent._content(f"box/{name}"))
        path = drop / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sent.old[f"{name}.csv"][0])
        os.utime(path, (1, 1))
    boxes.visit()
    boxes.age()
    start, working = Barrier(6), [True]

    def dropped() -> None:
        for _ in range(3):
            entries = folder.look(drop, dataset)
            list(folder.land(platform.engine, dataset, platform.store, entries))

    def uploaded(channel: str, version: int) -> None:
        for name, contents in sent.old.items():
            with platform.store.receive() as arriving:
                arriving.write(contents[version])
                upload.land(platform.engine, dataset, name, arriving, channel)

    def runs() -> None:
        while working[0]:
            work(platform)
            time.sleep(0.01)

    channels: list[Callable[[], Any]] = [
        dropped,
        lambda: uploaded("upload", 1),
        lambda: uploaded("post", 2),
        lambda: sync(platform, source.paging, api.url, source.valid),
        boxes.visits,
    ]

    def at_once(channel: Callable[[], Any]) -> None:
        start.wait(30)
        channel()

    with serving(source.answer) as api, ThreadPoolExecutor(6) as pool:
        running = pool.submit(at_once, runs)
        try:
            for future in [pool.submit(at_once, channel) for channel in channels]:
                future.result()
        finally:
            working[0] = False
        running.result()
    work(platform)
    accounted(platform)
    # The last arrival wins, by the ledger's sequence: what is in production is what its files say in their order.
    expected = {name: number for name, number in source.rows if number is not None}
    arrivals = query_rows(
        platform, "SELECT sha256 FROM ops.files WHERE status = 'loaded' AND channel <> 'api:api' ORDER BY file_id"
    )
    came = Files(rng, delivered=[("", platform.store.path(sha256).read_bytes()) for (sha256,) in arrivals])
    assert production(platform) == expected | came.production()
    versions = query_rows(platform, "SELECT name, version FROM ops.files WHERE same_as IS NULL ORDER BY name, version")
    names = {name for name, _ in versions}
    assert {f"{name}.csv" for name in NAMES} | {f"partner/{name}.csv" for name in NAMES} <= names
    for name in names:
        entries = [version for other, version in versions if other == name]
        assert entries == list(range(1, len(entries) + 1)), "every version once"
        if name in sent.old:
            assert len(entries) >= 3, "each of three different contents was landed"
