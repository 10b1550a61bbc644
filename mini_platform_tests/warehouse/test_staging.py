"""Slow files: whoever waits with one is in production before it is read. By order, never by the clock."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from mini_platform.warehouse import ledger, staging, validated_rows
from mini_platform.warehouse.staging import stage
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.validated_rows import (
    MALFORMED_BYTES,
    RawFiles,
    Tally,
    ValidatedRows,
)
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.pipeline_harness import HEADER, PipelineHarness, csv_of

SLOW_BYTES, GATHERED_ROWS, MANY_ROWS = 2**20, 5000, 2000
"""Bounds over which a file is slow, gathered rows are validated and a file is large: a tenth or less of those in production."""
LINES = SLOW_BYTES // MALFORMED_BYTES + 1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, bound in (
        (validated_rows, "SLOW_BYTES", SLOW_BYTES),
        (validated_rows, "GATHERED_ROWS", GATHERED_ROWS),
        (staging, "MANY_ROWS", MANY_ROWS),
    ):
        assert bound * 10 <= getattr(module, name)
        monkeypatch.setattr(module, name, bound)


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def harness(engine: Engine, tmp_path: Path) -> PipelineHarness:
    pipeline_harness = PipelineHarness(engine, tmp_path / "raw")
    pipeline_harness.others_first = True
    return pipeline_harness


def poison(lines: int = LINES) -> bytes:
    """Small, and slow: no line of it has the right fields."""
    return (HEADER + "A\n" * lines).encode()


def wide(*rows: str) -> bytes:
    """Slow by its size alone: its rows are padded with blanks, which are trimmed."""
    width = 10_000
    lines = [f"{' ' * (width - len(row))}{row}\n".encode() for row in rows]
    return HEADER.encode() + b"".join(lines * (SLOW_BYTES // width // len(rows) + 1))


def arrive(harness: PipelineHarness, *arrivals: tuple[str, bytes]) -> list[int]:
    """Files arrive, without the oracle, which takes a minute for what cannot be read."""
    records = [ledger.Arrival(name, *harness.store.put(io.BytesIO(data))) for name, data in arrivals]
    with harness.engine.begin() as conn:
        return [row.file_id for row in ledger.register(conn, harness.dataset.name, records, "tests")]


def good(number: int) -> tuple[str, bytes]:
    return f"{number}.csv", csv_of(f"A,2024-01-{number:02},{number},0")


def statuses(harness: PipelineHarness, ids: list[int]) -> list[str]:
    return [harness.status(file_id).status for file_id in ids]


def staged_rows(harness: PipelineHarness, file_id: int) -> int:
    staging = dataset_tables(harness.dataset).staging
    with harness.engine.connect() as conn:
        return conn.scalar(select(func.count()).where(staging.c._file_id == file_id)) or 0


@pytest.mark.parametrize("first", [True, False])
def test_a_slow_file_comes_after_the_others_are_loaded(harness: PipelineHarness, first: bool) -> None:
    arrivals = [good(1), good(2), good(3)]
    arrivals.insert(0 if first else 3, ("! poison.csv", poison()))
    ids = arrive(harness, *arrivals)
    slow = ids.pop(0 if first else 3)
    assert harness.stage() == ids
    row = harness.status(slow)
    assert (row.status, row.attempts, row.leased_by, row.leased_until) == ("landed", 0, None, None)
    assert row.deferred_at is not None
    assert staged_rows(harness, slow) == 0
    harness.load()
    assert statuses(harness, [*ids, slow]) == ["loaded"] * 3 + ["landed"]
    assert harness.stage() == [slow]
    harness.load()
    row = harness.status(slow)
    assert (row.status, row.deferred_at, row.rows_rejected) == ("refused", None, LINES)


def test_one_killed_between_staging_and_load_leaves_the_others_first(harness: PipelineHarness) -> None:
    slow, *others = arrive(harness, ("! poison.csv", poison()), good(1), good(2))
    harness.stage()
    assert harness.stage() == [], "their rows are staged and wait to be loaded, which the slow one would delay"
    harness.load()
    assert statuses(harness, others) == ["loaded", "loaded"]
    assert harness.stage() == [slow]


def test_whoever_stages_by_hand_gets_everything_the_slow_file_last(harness: PipelineHarness) -> None:
    harness.others_first = False
    slow, *others = arrive(harness, ("! poison.csv", poison()), good(1), good(2))
    assert harness.stage() == [*others, slow]
    harness.run()


def test_a_slow_file_waits_for_all_that_came_before_it_was_set_aside_and_for_no_more(harness: PipelineHarness) -> None:
    slow, *others = arrive(harness, ("! poison.csv", poison()), *map(good, range(1, 6)))
    runs: list[list[int]] = []
    newcomers: list[int] = []
    for number in range(10, 14):
        with ledger.lease(harness.worker):
            runs.append(stage(harness.worker, harness.dataset, RawFiles(harness.store.path), limit=2))
        harness.load()
        newcomers += arrive(harness, good(number))
    assert runs == [others[:2], others[2:4], [others[4], newcomers[0]], [slow, newcomers[1]]]


def test_one_slow_file_at_a_time_while_others_arrive(harness: PipelineHarness) -> None:
    """The second slow file is due, and yet those that came while the first one was read are published before it."""
    one, two, *others = arrive(harness, ("1.csv", poison()), ("2.csv", poison(LINES + 1)), good(1), good(2))
    assert harness.stage() == others
    harness.load()
    arrived: list[int] = []

    def arrives(_bytes: int, _rows: int) -> None:
        if not arrived:
            arrived.extend(arrive(harness, good(3)))

    with ledger.lease(harness.worker):
        file_ids = stage(harness.worker, harness.dataset, RawFiles(harness.store.path), limit=1000, progress=arrives)
    assert file_ids == [one, *arrived]
    harness.load()
    assert harness.stage() == [two]


def test_slow_files_with_nobody_beside_them_are_taken_in_their_order_in_one_run(harness: PipelineHarness) -> None:
    ids = harness.land(("a.csv", wide("A,2024-01-01,1,0")), ("b.csv", wide("A,2024-01-01,2,0", "B,2024-01-01,2,0")))
    assert harness.stage() == ids
    assert harness.load() == ids
    harness.refresh()
    harness.check()


def test_the_last_arrival_wins_whatever_was_set_aside(harness: PipelineHarness) -> None:
    before = csv_of("A,2024-01-01,1,0", "B,2024-01-01,1,0", "C,2024-01-01,1,0")
    ids = harness.land(
        ("1.csv", before),
        ("2.csv", wide("A,2024-01-01,2,0", "B,2024-01-01,2,0", "D,2024-01-01,2,0")),
        ("3.csv", csv_of("A,2024-01-01,3,0", "D,2024-01-01,3,0")),
    )
    assert harness.stage() == [ids[0], ids[2]]
    harness.load()
    harness.run()
    harness.check()
    assert statuses(harness, ids) == ["loaded"] * 3


def test_rows_of_a_large_refused_file_do_not_stay_in_staging(harness: PipelineHarness) -> None:
    (slow,) = arrive(harness, ("poison.csv", poison(MANY_ROWS + 1)))
    harness.run()
    assert statuses(harness, [slow]) == ["refused"]
    assert staged_rows(harness, slow) == 0
    quarantine = dataset_tables(harness.dataset).quarantine
    with harness.engine.connect() as conn:
        assert conn.scalar(select(func.count()).select_from(quarantine)) == MANY_ROWS + 1


def test_malformed_records_are_sent_on_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mini_platform.rows.readers.csv._BLOCK_LINES", 4 * GATHERED_ROWS)
    (tmp_path / "slow.csv").write_bytes(poison(12 * GATHERED_ROWS))
    slow = Tally(1, "slow.csv", "tests", tmp_path / "slow.csv")
    blocks = list(ValidatedRows(weather, {1: slow}, RawFiles(lambda _: slow.path), None).as_csv())
    assert sum(block.count(b"\n") for block in blocks) == 12 * GATHERED_ROWS
    assert len(blocks) > 2
