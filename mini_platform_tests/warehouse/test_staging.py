"""Slow files: whoever waits with one is in production before it is read. By order, never by the clock."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from mini_platform.warehouse import ledger
from mini_platform.warehouse.judged_rows import (
    GATHERED_ROWS,
    MALFORMED_BYTES,
    SLOW_BYTES,
    JudgedRows,
    RawFiles,
    Tally,
)
from mini_platform.warehouse.staging import MANY_ROWS, stage
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.flow import HEADER, Flow, csv_of

LINES = SLOW_BYTES // MALFORMED_BYTES + 1


@pytest.fixture
def flow(engine: Engine, tmp_path: Path) -> Flow:
    made = Flow(engine, tmp_path / "raw")
    made.others_first = True
    return made


def poison(lines: int = LINES) -> bytes:
    """Small, and slow: no line of it has the right fields."""
    return (HEADER + "A\n" * lines).encode()


def wide(*rows: str) -> bytes:
    """Slow by its size alone: its rows are padded with blanks, which are trimmed."""
    width = 100_000
    lines = [f"{' ' * (width - len(row))}{row}\n".encode() for row in rows]
    return HEADER.encode() + b"".join(lines * (SLOW_BYTES // width // len(rows) + 1))


def arrive(flow: Flow, *arrivals: tuple[str, bytes]) -> list[int]:
    """Files arrive, without the oracle, which takes a minute for what cannot be read."""
    taken = [ledger.Arrival(name, *flow.store.put(io.BytesIO(data))) for name, data in arrivals]
    with flow.engine.begin() as conn:
        return [row.file_id for row in ledger.register(conn, flow.dataset.name, taken, "tests")]


def good(number: int) -> tuple[str, bytes]:
    return f"{number}.csv", csv_of(f"A,2024-01-{number:02},{number},0")


def statuses(flow: Flow, ids: list[int]) -> list[str]:
    return [flow.status(file_id).status for file_id in ids]


def staged_rows(flow: Flow, file_id: int) -> int:
    staging = dataset_tables(flow.dataset).staging
    with flow.engine.connect() as conn:
        return conn.scalar(select(func.count()).where(staging.c._file_id == file_id)) or 0


@pytest.mark.parametrize("first", [True, False])
def test_a_slow_file_comes_after_the_others_are_loaded(flow: Flow, first: bool) -> None:
    arrivals = [good(1), good(2), good(3)]
    arrivals.insert(0 if first else 3, ("! poison.csv", poison()))
    ids = arrive(flow, *arrivals)
    slow = ids.pop(0 if first else 3)
    assert flow.stage() == ids
    row = flow.status(slow)
    assert (row.status, row.attempts, row.leased_by, row.leased_until) == ("landed", 0, None, None)
    assert row.set_aside_at is not None
    assert staged_rows(flow, slow) == 0
    flow.load()
    assert statuses(flow, [*ids, slow]) == ["loaded"] * 3 + ["landed"]
    assert flow.stage() == [slow]
    flow.load()
    row = flow.status(slow)
    assert (row.status, row.set_aside_at, row.rows_rejected) == ("refused", None, LINES)


def test_one_killed_between_staging_and_load_leaves_the_others_first(flow: Flow) -> None:
    slow, *others = arrive(flow, ("! poison.csv", poison()), good(1), good(2))
    flow.stage()
    assert flow.stage() == [], "their rows are staged and wait to be loaded, which the slow one would delay"
    flow.load()
    assert statuses(flow, others) == ["loaded", "loaded"]
    assert flow.stage() == [slow]


def test_whoever_stages_by_hand_gets_everything_the_slow_file_last(flow: Flow) -> None:
    flow.others_first = False
    slow, *others = arrive(flow, ("! poison.csv", poison()), good(1), good(2))
    assert flow.stage() == [*others, slow]
    flow.run()


def test_a_slow_file_waits_for_all_that_came_before_it_was_set_aside_and_for_no_more(flow: Flow) -> None:
    slow, *others = arrive(flow, ("! poison.csv", poison()), *map(good, range(1, 6)))
    runs: list[list[int]] = []
    newcomers: list[int] = []
    for number in range(10, 14):
        with ledger.lease(flow.worker):
            runs.append(stage(flow.worker, flow.dataset, RawFiles(flow.store.path), limit=2))
        flow.load()
        newcomers += arrive(flow, good(number))
    assert runs == [others[:2], others[2:4], [others[4], newcomers[0]], [slow, newcomers[1]]]


def test_one_slow_file_at_a_time_while_others_arrive(flow: Flow) -> None:
    """The second slow file is due, and yet those that came while the first one was read are published before it."""
    one, two, *others = arrive(flow, ("1.csv", poison()), ("2.csv", poison(LINES + 1)), good(1), good(2))
    assert flow.stage() == others
    flow.load()
    arrived: list[int] = []

    def arrives(_bytes: int, _rows: int) -> None:
        if not arrived:
            arrived.extend(arrive(flow, good(3)))

    with ledger.lease(flow.worker):
        taken = stage(flow.worker, flow.dataset, RawFiles(flow.store.path), limit=1000, progress=arrives)
    assert taken == [one, *arrived]
    flow.load()
    assert flow.stage() == [two]


def test_slow_files_with_nobody_beside_them_are_taken_in_their_order_in_one_run(flow: Flow) -> None:
    ids = flow.land(("a.csv", wide("A,2024-01-01,1,0")), ("b.csv", wide("A,2024-01-01,2,0", "B,2024-01-01,2,0")))
    assert flow.stage() == ids
    assert flow.load() == ids
    flow.refresh()
    flow.check()


def test_the_last_arrival_wins_whatever_was_set_aside(flow: Flow) -> None:
    before = csv_of("A,2024-01-01,1,0", "B,2024-01-01,1,0", "C,2024-01-01,1,0")
    ids = flow.land(
        ("1.csv", before),
        ("2.csv", wide("A,2024-01-01,2,0", "B,2024-01-01,2,0", "D,2024-01-01,2,0")),
        ("3.csv", csv_of("A,2024-01-01,3,0", "D,2024-01-01,3,0")),
    )
    assert flow.stage() == [ids[0], ids[2]]
    flow.load()
    flow.run()
    flow.check()
    assert statuses(flow, ids) == ["loaded"] * 3


def test_rows_of_a_large_refused_file_do_not_stay_in_staging(flow: Flow) -> None:
    (slow,) = arrive(flow, ("poison.csv", poison(MANY_ROWS + 1)))
    flow.run()
    assert statuses(flow, [slow]) == ["refused"]
    assert staged_rows(flow, slow) == 0
    quarantine = dataset_tables(flow.dataset).quarantine
    with flow.engine.connect() as conn:
        assert conn.scalar(select(func.count()).select_from(quarantine)) == MANY_ROWS + 1


def test_malformed_records_are_sent_on_before_they_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "slow.csv").write_bytes(poison(12 * GATHERED_ROWS))
    slow = Tally(1, "slow.csv", "tests", tmp_path / "slow.csv")
    blocks = list(JudgedRows(weather, {1: slow}, RawFiles(lambda _: slow.path), None).as_csv())
    assert sum(block.count(b"\n") for block in blocks) == 12 * GATHERED_ROWS
    assert len(blocks) > 2
