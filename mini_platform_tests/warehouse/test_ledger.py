"""The ledger by itself: versions, claims, leases, transitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine, Row, func, select, update

from mini_platform.warehouse import ledger
from mini_platform.warehouse.ledger import Arrival, Worker
from mini_platform.warehouse.tables import files


@pytest.fixture
def worker(engine: Engine) -> Worker:
    return Worker(engine, "worker")


def register(engine: Engine, *arrivals: tuple[str, str], dataset: str = "weather", size: int = 10) -> list[Row[tuple]]:
    with engine.begin() as conn:
        return list(ledger.register(conn, dataset, [Arrival(name, sha, size) for name, sha in arrivals], "test"))


def rows(engine: Engine) -> Sequence[Row[tuple]]:
    with engine.connect() as conn:
        return conn.execute(select(files).order_by(files.c.file_id)).all()


def claim(worker: Worker, limit: int = 100, only: Sequence[int] | None = None) -> list[str]:
    return [row.name for row in ledger.claim(worker, "weather", "landed", limit, only)]


def attempted(engine: Engine, name: str, times: int) -> None:
    """Set the attempts of a file, as if so many workers had died on it."""
    with engine.begin() as conn:
        conn.execute(update(files).where(files.c.name == name).values(attempts=times, leased_until=None))


# Arrivals


@pytest.mark.parametrize("together", [True, False])
def test_versions_of_a_name(engine: Engine, together: bool) -> None:
    arrivals = [("f", "a"), ("f", "a"), ("f", "b"), ("g", "a"), ("f", "a"), ("f", "a")]
    calls = [arrivals] if together else [[arrival] for arrival in arrivals]
    returned = [row for call in calls for row in register(engine, *call)]
    stored = [(row.name, row.version, row.sha256, row.status, row.same_as) for row in rows(engine)]
    assert stored == [
        ("f", 1, "a", "landed", None),
        ("f", 1, "a", "unchanged", 1),
        ("f", 2, "b", "landed", None),
        ("g", 1, "a", "landed", None),
        ("f", 3, "a", "landed", None),
        ("f", 3, "a", "unchanged", 5),
    ]
    assert [row.file_id for row in returned] == [1, 2, 3, 4, 5, 6]


def test_no_arrivals(engine: Engine) -> None:
    assert register(engine) == []


def test_names_of_different_datasets_are_different(engine: Engine) -> None:
    register(engine, ("f", "a"))
    register(engine, ("f", "a"), dataset="sales")
    assert [(row.dataset, row.version, row.status) for row in rows(engine)] == [
        ("weather", 1, "landed"),
        ("sales", 1, "landed"),
    ]


def test_arrivals_at_the_same_time_get_versions_of_their_own(engine: Engine) -> None:
    barrier = threading.Barrier(4)

    def arrive(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            register(engine, ("f", f"{number}.{turn}"))

    threads = [threading.Thread(target=arrive, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.version for row in rows(engine)] == list(range(1, 21))


@pytest.mark.parametrize("name", ["line\nbreak", 'it\'s "it"', "x" * 255, "ünï😀", "a\\b", "%s", ""])
def test_any_name(engine: Engine, name: str) -> None:
    register(engine, (name, "a"), (name, "b"))
    with engine.connect() as conn:
        assert ledger.current_versions(conn, "weather", [name])[name].version == 2


# Claims


def test_claims_in_the_order_of_arrival_up_to_the_limit(engine: Engine, worker: Worker) -> None:
    register(engine, *((f"f{n}", "a") for n in range(5)))
    assert claim(worker, limit=2) == ["f0", "f1"]
    assert claim(replace(worker, batch_files=2)) == ["f2", "f3"]
    assert claim(worker) == ["f4"]
    assert claim(worker) == []
    with engine.connect() as conn:
        assert ledger.pending(conn, "weather") == 0


def test_claims_of_chosen_files(engine: Engine, worker: Worker) -> None:
    ids = [row.file_id for row in register(engine, ("a", "x"), ("b", "x"), ("c", "x"))]
    assert claim(worker, only=[ids[2], ids[0]]) == ["a", "c"]
    assert claim(worker, only=[]) == []
    assert claim(worker) == ["b"]


def test_a_batch_is_closed_before_it_is_too_large(engine: Engine, worker: Worker) -> None:
    third = ledger.BATCH_BYTES // 3 + 1
    register(engine, *((f"f{n}", "a") for n in range(5)), size=third)
    assert claim(worker) == ["f0", "f1", "f2"], "a file that begins below the bound still fits"
    assert claim(worker) == ["f3", "f4"]


def test_a_huge_file_goes_alone(engine: Engine, worker: Worker) -> None:
    register(engine, ("huge", "a"), size=10 * ledger.BATCH_BYTES)
    register(engine, ("small", "a"))
    assert claim(worker) == ["huge"]
    assert claim(worker) == ["small"]


def test_a_claim_holds_until_its_lease_runs_out(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"))
    assert claim(replace(worker, owner="first", lease_seconds=0.3)) == ["f"]
    assert claim(replace(worker, owner="second")) == []
    time.sleep(0.4)
    assert claim(replace(worker, owner="second")) == ["f"]
    assert rows(engine)[0].leased_by == "second"
    assert rows(engine)[0].attempts == 2


def test_claims_at_the_same_time_share_nothing(engine: Engine, worker: Worker) -> None:
    register(engine, *((f"f{n}", "a") for n in range(40)))
    names: list[str] = []
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        while mine := claim(replace(worker, owner=str(number), batch_files=3)):
            names.extend(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(f"f{n}" for n in range(40))


def test_what_died_before_comes_alone_and_after_the_others(engine: Engine, worker: Worker) -> None:
    register(engine, *((name, "a") for name in "abcd"))
    attempted(engine, "a", 2)
    attempted(engine, "b", 1)
    assert claim(worker) == ["c", "d"]
    assert claim(worker) == ["b"]
    assert claim(worker) == ["a"]


def died(worker: Worker) -> list[str]:
    """Return the names of the files that a run takes next, and dies with."""
    names = [row.name for row in ledger.claim(worker, "weather", "landed", 100, order=ledger.OTHERS_FIRST)]
    with worker.engine.begin() as conn:
        conn.execute(update(files).values(leased_until=func.clock_timestamp()))
    return names


def test_what_died_alone_waits_until_the_others_are_loaded(engine: Engine, worker: Worker) -> None:
    register(engine, *((name, "a") for name in "abc"))
    assert died(worker) == ["a", "b", "c"]
    assert died(worker) == ["a"]
    assert claim(worker) == ["b"]
    with engine.begin() as conn:
        ledger.move(conn, worker, "landed", [{"file_id": 2, "status": "staged"}])
    assert claim(worker, only=[3]) == ["c"]
    with engine.begin() as conn:
        ledger.move(conn, worker, "landed", [{"file_id": 3, "status": "refused"}])
    assert died(worker) == [], "the rows of b are staged"
    (row,) = ledger.claim(worker, "weather", "staged", 100)
    assert (row.name, row.deferred_at) == ("b", None), "what was well this time is no different from others"
    with engine.begin() as conn:
        zero = dict.fromkeys(("rows_inserted", "rows_updated", "rows_unchanged", "rows_superseded"), 0)
        counted = {"rows_read": 0, "rows_rejected": 0, **zero}
        ledger.move(conn, worker, "staged", [{"file_id": 2, "status": "loaded", **counted}])
    register(engine, ("d", "a"))
    assert died(worker) == ["a"], "it was due before d came"
    assert died(worker) == ["d"], "it died again, and waits again"


def test_an_interrupted_run_says_nothing_against_its_files(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"))
    attempted(engine, "f", 1)

    def interrupted() -> None:
        with ledger.lease(worker):
            assert claim(worker) == ["f"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (rows(engine)[0].attempts, rows(engine)[0].deferred_at) == (1, None)


def test_what_is_set_aside_was_not_tried(engine: Engine, worker: Worker) -> None:
    register(engine, ("a", "a"), ("b", "a"))
    claim(worker)
    with engine.begin() as conn:
        ledger.defer(conn, replace(worker, owner="other"), [1])
    assert rows(engine)[0].leased_by == "worker"
    with engine.begin() as conn:
        ledger.defer(conn, worker, [1])
    assert (rows(engine)[0].attempts, rows(engine)[0].leased_by) == (0, None)
    with engine.begin() as conn:
        ledger.return_to_landed(conn, "weather")
    assert rows(engine)[0].deferred_at is None


def test_what_died_too_often_is_given_up(engine: Engine, worker: Worker) -> None:
    register(engine, ("a", "a"), ("b", "a"))
    attempted(engine, "a", 5)
    attempted(engine, "b", 4)
    assert claim(worker) == ["b"]
    given_up = rows(engine)[0]
    assert given_up.status == "failed"
    assert given_up.error == "gave up: its process died 5 times, see the log of its run"
    with engine.begin() as conn:
        assert len(ledger.return_to_landed(conn, "weather", files.c.status == "failed")) == 1
    assert (rows(engine)[0].status, rows(engine)[0].attempts, rows(engine)[0].error) == ("landed", 0, None)


def test_a_file_is_not_given_up_while_somebody_works_on_it(engine: Engine, worker: Worker) -> None:
    register(engine, ("a", "a"))
    attempted(engine, "a", 4)
    assert claim(worker) == ["a"]
    assert rows(engine)[0].attempts == 5
    assert claim(replace(worker, owner="other")) == []
    assert rows(engine)[0].status == "landed"


# Leases


def test_a_lease_is_kept_alive_and_given_back(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"))
    short = replace(worker, lease_seconds=0.3)
    with ledger.lease(short):
        assert claim(short) == ["f"]
        time.sleep(1)
        assert claim(replace(worker, owner="other")) == []
    assert rows(engine)[0].leased_by is None
    assert claim(replace(worker, owner="other")) == ["f"]


def test_a_lease_is_given_back_after_an_error(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"))

    def die() -> None:
        with ledger.lease(worker):
            assert claim(worker) == ["f"]
            raise LookupError

    with pytest.raises(LookupError):
        die()
    assert rows(engine)[0].leased_until is None


def test_only_ones_own_lease_is_given_back(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"), ("g", "a"))
    other = replace(worker, owner="other")
    with ledger.lease(worker):
        assert claim(worker, limit=1) == ["f"]
        assert claim(other) == ["g"]
    assert [row.leased_by for row in rows(engine)] == [None, "other"]


# Transitions


def test_a_move_is_made_by_the_holder_of_the_lease_alone(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"), ("g", "a"))
    claim(worker)
    moves = [{"file_id": n, "status": "failed", "error": "because"} for n in (1, 2)]
    with pytest.raises(ledger.LeaseLostError, match="2 of 2 files"), engine.begin() as conn:
        ledger.move(conn, replace(worker, owner="other"), "landed", moves)
    with pytest.raises(ledger.LeaseLostError, match="2 of 2 files"), engine.begin() as conn:
        ledger.move(conn, worker, "staged", moves)
    with engine.begin() as conn:
        conn.execute(update(files).where(files.c.file_id == 2).values(leased_by="other"))
    with pytest.raises(ledger.LeaseLostError, match="1 of 2 files"), engine.begin() as conn:
        ledger.move(conn, worker, "landed", moves)
    assert [row.status for row in rows(engine)] == ["landed", "landed"]
    with engine.begin() as conn:
        ledger.move(conn, worker, "landed", moves[:1])
    moved = rows(engine)[0]
    assert (moved.status, moved.error, moved.attempts, moved.leased_by) == ("failed", "because", 0, None)


def test_a_move_of_nothing(engine: Engine, worker: Worker) -> None:
    with engine.begin() as conn:
        ledger.move(conn, worker, "landed", [])


def test_an_arrival_of_unchanged_bytes_is_never_queued(engine: Engine, worker: Worker) -> None:
    register(engine, ("f", "a"), ("f", "a"))
    with engine.begin() as conn:
        assert len(ledger.return_to_landed(conn, "weather")) == 1
    assert [row.status for row in rows(engine)] == ["landed", "unchanged"]
    assert claim(worker) == ["f"]


def test_pending_counts_what_waits_and_nobody_holds(engine: Engine, worker: Worker) -> None:
    register(engine, *((name, "a") for name in "abcd"))
    register(engine, ("e", "a"), dataset="sales")
    with engine.begin() as conn:
        conn.execute(update(files).where(files.c.name == "b").values(status="staged"))
        conn.execute(update(files).where(files.c.name == "c").values(status="refused"))
    with engine.connect() as conn:
        assert ledger.pending(conn, "weather") == 3
    assert claim(worker, limit=1) == ["a"]
    with engine.connect() as conn:
        assert ledger.pending(conn, "weather") == 2
        assert conn.scalar(select(func.count()).select_from(files)) == 5
