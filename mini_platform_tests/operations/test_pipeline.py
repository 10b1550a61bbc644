"""The pipeline from raw bytes to analytics on a real Postgres, held to the oracle row for row.

In whatever order, in however many batches, by however many workers, and however often files are loaded: the tables must
be what `oracle.py` says of the arrivals. What is drawn is drawn anew each day (`support/drawn.py`).
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, text, update

from mini_platform import Dataset, Field, RejectLimit
from mini_platform.warehouse import ledger, quarantine
from mini_platform.warehouse.load import load
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.staging import stage
from mini_platform.warehouse.tables import files
from mini_platform.warehouse.validated_rows import RawFiles
from mini_platform_tests.support import drawn
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.oracle import Oracle, Rules
from mini_platform_tests.support.pipeline_harness import (
    HEADER,
    PipelineHarness,
    csv_of,
    random_arrivals,
    sample,
    seeded,
)


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def harness(engine: Engine, tmp_path: Path) -> PipelineHarness:
    return PipelineHarness(engine, tmp_path / "raw")


# Any way of loading gives the same tables


def test_one_batch(harness: PipelineHarness) -> None:
    harness.land(*random_arrivals(drawn.seed(), 12))
    harness.run()
    harness.check()


def test_each_file_by_itself_in_its_turn(harness: PipelineHarness) -> None:
    harness.using(batch_files=1)
    harness.land(*random_arrivals(drawn.seed(), 10))
    harness.run()
    harness.check(sequential=True)


def test_a_run_for_every_arrival(harness: PipelineHarness) -> None:
    for name, data in random_arrivals(seed=7, count=8):
        harness.land((name, data))
        harness.run()
        harness.check(sequential=True)


@pytest.mark.parametrize("number", range(2))
def test_in_any_order_and_in_any_batches(harness: PipelineHarness, number: int) -> None:
    seed = 2 * drawn.seed() + number
    ids = harness.land(*random_arrivals(seed, 9))
    rng = seeded(seed)
    rng.shuffle(ids)
    while ids:
        batch, ids = ids[: rng.randint(1, 3)], ids[rng.randint(1, 3) :]
        harness.run(batch)
    harness.run()
    harness.check()


def test_staged_in_one_order_and_loaded_in_another(harness: PipelineHarness) -> None:
    ids = harness.land(*random_arrivals(drawn.seed(), 8))
    for file_id in reversed(ids):
        harness.stage([file_id])
    for file_id in seeded(drawn.seed()).sample(ids, len(ids)):
        harness.load([file_id])
    harness.run()
    harness.check()


def test_a_late_file_makes_way_for_a_later_one_that_repeats_what_was_there(harness: PipelineHarness) -> None:
    """The third file repeats the first, so it leaves no trace on the row; the second, loaded last, must not win."""
    first, second, third = harness.land(
        ("1.csv", csv_of("A,2024-01-01,1,0")),
        ("2.csv", csv_of("A,2024-01-01,2,0")),
        ("3.csv", csv_of("A,2024-01-01,1,0")),
    )
    for file_id in (first, third, second):
        harness.run([file_id])
    assert harness.status(third).status == "landed", "it must be asked again"
    harness.run()
    harness.check()


CELLS = st.tuples(
    st.sampled_from(["A", "B", "\u00a0B", "é", "e\u0301", "", "x" * 65]),
    st.sampled_from(["2024-01-01", "2024-01-02", "2024-02-30", "9999-01-01", ""]),
    st.sampled_from(["1", "1.0", "2", "-0", "", "nan", "1e309", "61"]),
    st.sampled_from(["0", "3", "", "-1", "1,5"]),
)
LINES = st.one_of(
    CELLS.map(lambda cells: ",".join(f'"{cell}"' if "," in cell else cell for cell in cells)),
    st.sampled_from(["", "A", "a,b,c,d,e", '"', '"A\n",2024-01-01,1,1', 'A,2024-01-01,1,"', HEADER.strip(), "\0"]),
)
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(["a.csv", "b.csv"]),
        st.lists(LINES, max_size=6).map(lambda lines: csv_of(*lines)),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=ARRIVALS)
def test_any_arrivals(engine: Engine, raw_folder: Path, arrivals: list[tuple[str, bytes, bool]]) -> None:
    empty_everything(engine)
    harness = PipelineHarness(engine, raw_folder, under(SMALL_TOO))
    harness.oracle = Oracle(SMALL_TOO)
    for name, data, run_now in arrivals:
        harness.land((name, data))
        if run_now:
            harness.run()
    harness.run()
    harness.check()


def empty_everything(engine: Engine) -> None:
    with engine.begin() as conn:
        for table in ("ops.files", "ops.dirty_groups", *(t.fullname for t in tables_of(weather))):
            conn.execute(text(f"TRUNCATE {table} RESTART IDENTITY"))


def test_an_empty_table_is_filled_in_bulk(harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over BULK_ROWS rows another way is taken: without indexes, which must all be there afterwards."""
    for module in ("aggregates", "load"):
        monkeypatch.setattr(f"mini_platform.warehouse.{module}.BULK_ROWS", 1000)
    good, dirty = sample(1000, 0, seed=1), sample(2000, 0.6, seed=2)
    harness.land(("good.csv", good), ("dirty.csv", dirty))
    before = indexes(harness)
    harness.run()
    harness.check(sequential=False)
    with harness.engine.connect() as conn:
        assert (conn.scalar(text("SELECT count(*) FROM quarantine.measurements")) or 0) > 1000
    assert indexes(harness) == before
    assert len(before) == 3
    harness.land(("more.csv", sample(300, 0, seed=3)))
    harness.run()
    harness.check()


def indexes(harness: PipelineHarness) -> list[str]:
    query = text(
        "SELECT indexdef FROM pg_indexes WHERE schemaname IN ('production', 'quarantine') AND tablename = :table ORDER BY 1"
    )
    with harness.engine.connect() as conn:
        return list(conn.execute(query, {"table": harness.dataset.table}).scalars())


# Again


def test_the_same_files_again_touch_nothing(harness: PipelineHarness) -> None:
    last = {f"{n}.csv": sample(60, 0.2, seed=n) for n in range(4)}
    harness.land(*last.items())
    harness.run()
    before = harness.physical()
    assert all(before.values())
    ids = harness.land(*last.items())
    assert [harness.status(i).status for i in ids] == ["unchanged"] * 4
    assert harness.stage() == harness.load() == []
    harness.refresh()
    harness.check()
    assert harness.physical() == before


def test_the_same_rows_under_another_name_write_no_row(harness: PipelineHarness) -> None:
    data = sample(60, 0, seed=1)
    harness.land(("a.csv", data))
    harness.run()
    before = harness.physical()
    (again,) = harness.land(("b.csv", data))
    harness.run()
    assert harness.status(again).rows_unchanged == 60
    harness.check(sequential=True)
    assert harness.physical() == before


@pytest.mark.parametrize("batch", [1, 1000])
def test_a_redrive_under_the_same_rules_changes_no_row(harness: PipelineHarness, batch: int) -> None:
    harness.using(batch_files=batch)
    harness.land(*random_arrivals(3, 10))
    harness.run()
    before = harness.physical(quarantined=False)
    harness.reprocess()
    harness.run()
    harness.check()
    assert harness.physical(quarantined=False) == before


def test_one_name_with_its_old_bytes_again_is_a_third_version(harness: PipelineHarness) -> None:
    a, b = csv_of("A,2024-01-01,1,0", "B,2024-01-01,1,0"), csv_of("A,2024-01-01,2,0", "C,2024-01-01,2,0")
    for data in (a, b, a):
        harness.land(("f.csv", data))
        harness.run()
        harness.check(sequential=True)
    with harness.engine.connect() as conn:
        versions = conn.execute(select(files.c.version, files.c.status).order_by(files.c.file_id)).all()
        values = dict(conn.execute(text("SELECT station_id, temp_c FROM production.measurements")).all())
    assert versions == [(1, "loaded"), (2, "loaded"), (3, "loaded")]
    assert values == {"A": 1.0, "B": 1.0, "C": 2.0}


# Rules that changed


def under(rules: Rules) -> Dataset:
    """The weather dataset with other limits, over the same tables."""
    low, high = rules.temp_c
    least, most = rules.precip_mm
    body = dict(vars(weather.rows)) | {
        "temp_c": Field("Mean air temperature", unit="°C", in_range={"min_value": low, "max_value": high}),
        "precip_mm": Field("Precipitation", unit="mm/day", in_range={"min_value": least, "max_value": most}),
    }
    return replace(
        weather,
        rows=type(
            "Measurement",
            weather.rows.__bases__,
            {k: v for k, v in body.items() if k not in ("__dict__", "__weakref__")},
        ),
        reject_limit=RejectLimit(share=rules.refuse_share, rows=rules.refuse_rows, min_rows=rules.min_rows),
    )


STRICTER = Rules(temp_c=(-90, 20), refuse_share=1)
LAXER = Rules(temp_c=(-90, 200), precip_mm=(-10, 2000), refuse_share=1)
SMALL_TOO = Rules(min_rows=0)


def test_laxer_rules_bring_rows_in(harness: PipelineHarness) -> None:
    harness.dataset, harness.oracle = under(SMALL_TOO), Oracle(SMALL_TOO)
    (file_id,) = harness.land(("a.csv", csv_of("A,2024-01-01,99,0", "B,2024-01-01,1,0", "B,2024-01-02,1,-5")))
    harness.run()
    assert harness.status(file_id).status == "refused"
    harness.reprocess(under(LAXER), rules=LAXER)
    harness.run()
    harness.check()
    assert harness.status(file_id).rows_inserted == 3


def test_stricter_rules_take_rows_back_and_what_was_there_before_returns(harness: PipelineHarness) -> None:
    harness.land(
        ("1.csv", csv_of("A,2024-01-01,1,0", "B,2024-01-01,2,0")),
        ("2.csv", csv_of("A,2024-01-01,30,0", "C,2024-01-01,30,0", "D,2024-01-01,4,0")),
    )
    harness.run()
    harness.check()
    harness.reprocess(under(STRICTER), rules=STRICTER)
    harness.run()
    harness.check()
    with harness.engine.connect() as conn:
        values = dict(conn.execute(text("SELECT station_id, temp_c FROM production.measurements")).all())
    assert values == {"A": 1.0, "B": 2.0, "D": 4.0}


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_rules_changed_back_and_forth(harness: PipelineHarness, batch: int) -> None:
    harness.using(batch_files=batch)
    rng = seeded(drawn.seed() + batch)
    arrivals = [
        (
            f"{n % 3}.csv",
            csv_of(
                *(
                    f"{rng.choice('ABC')},2024-01-0{rng.randint(1, 3)},{rng.choice((1, 30, 30, 99))},{rng.choice((-5, 0))}"
                    for _ in range(rng.randint(1, 6))
                )
            ),
        )
        for n in range(6)
    ]
    lenient = Rules(refuse_share=1)
    harness.dataset, harness.oracle = under(lenient), Oracle(lenient)
    harness.land(*arrivals)
    for rules in (lenient, STRICTER, LAXER, lenient):
        harness.reprocess(under(rules), rules=rules)
        harness.run()
        harness.check()


def test_a_file_that_stricter_limits_refuse_is_taken_back_whole(harness: PipelineHarness) -> None:
    """The third file repeats the second and left no trace, but is what remains once the second is refused."""
    harness.land(
        ("1.csv", csv_of("A,2024-01-01,1,0", "B,2024-01-01,1,0")),
        ("2.csv", csv_of("A,2024-01-01,2,0", "B,2024-01-01,2,0", "C,2024-01-01,2,0", "C,2024-02-30,2,0")),
        ("3.csv", csv_of("B,2024-01-01,2,0")),
    )
    harness.run()
    harness.check()
    rules = Rules(refuse_share=0.1, min_rows=0)
    harness.reprocess(under(rules), rules=rules)
    harness.run()
    harness.check()


def test_a_redrive_of_one_file_takes_its_rows_back_and_asks_the_others(harness: PipelineHarness) -> None:
    """The third file repeats the first, and left no trace; the first alone is validated again, and loses the row."""
    arrivals = (
        ("1.csv", csv_of("A,2024-01-01,30,0", "B,2024-01-01,1,0")),
        ("2.csv", csv_of("C,2024-01-01,2,0")),
        ("3.csv", csv_of("A,2024-01-01,30,0", "C,2024-01-01,2,0")),
    )
    harness.using(batch_files=1)
    first, _, third = harness.land(*arrivals)
    harness.run()
    harness.dataset, harness.oracle = under(STRICTER), harness.oracle.trusted_by(STRICTER)
    with harness.engine.begin() as conn:
        assert len(ledger.return_to_landed(conn, "weather", files.c.file_id == first)) == 1
    harness.run()
    harness.check()
    assert harness.status(third).rows_rejected == 1


# Limits


def test_a_file_over_its_limit_is_refused_whole(harness: PipelineHarness) -> None:
    harness.dataset, harness.oracle = under(SMALL_TOO), Oracle(SMALL_TOO)
    over, under_it = csv_of("A,2024-01-01,x,0", "B,2024-01-01,y,0", "C,2024-01-01,1,0"), csv_of("D,2024-01-01,1,0")
    first, second = harness.land(("over.csv", over), ("under.csv", under_it))
    harness.run()
    harness.check()
    refused = harness.status(first)
    assert refused.status == "refused"
    assert refused.error == (
        "2 of 3 rows are rejected, more than the dataset allows (50%); most often: temp_c_is_number (2 rows)"
    )
    with harness.engine.connect() as conn:
        rejected = list(quarantine.rejects(conn, weather, file_id=first))
    assert [(r["line"], r["column"], r["value"], r["rule"], r["reason"]) for r in rejected] == [
        (2, "temp_c", "x", "temp_c_is_number", "temp_c is not a number"),
        (3, "temp_c", "y", "temp_c_is_number", "temp_c is not a number"),
    ]
    assert harness.status(second).status == "loaded"


@pytest.mark.parametrize(
    ("rejected", "rules", "status"),
    [
        (1, SMALL_TOO, "loaded"),  # a half is not more than a half
        (2, SMALL_TOO, "refused"),
        (2, Rules(refuse_share=1, min_rows=0), "loaded"),
        (1, Rules(refuse_share=0, min_rows=2), "refused"),
        (1, Rules(refuse_share=0, min_rows=3), "loaded"),
        (0, Rules(refuse_share=0, min_rows=0), "loaded"),
        (1, Rules(refuse_share=1, refuse_rows=1), "loaded"),
        (2, Rules(refuse_share=1, refuse_rows=1), "refused"),
    ],
)
def test_where_a_limit_lies(harness: PipelineHarness, rejected: int, rules: Rules, status: str) -> None:
    harness.dataset, harness.oracle = under(rules), Oracle(rules)
    bad = [f"A,2024-02-3{n},1,0" for n in range(rejected)]
    (file_id,) = harness.land(("f.csv", csv_of(*bad, *(["B,2024-01-01,1,0"] if rejected < 2 else []))))
    harness.run()
    harness.check()
    assert harness.status(file_id).status == status


def test_a_file_of_fewer_than_100_rows_is_never_refused_for_its_share(harness: PipelineHarness) -> None:
    small, large = harness.land(*((f"{n}.csv", csv_of(*["A,2024-01-01,x,0"] * n)) for n in (99, 100)))
    harness.run()
    harness.check()
    loaded, refused = harness.status(small), harness.status(large)
    assert (loaded.status, loaded.rows_inserted, loaded.rows_rejected, loaded.error) == ("loaded", 0, 99, None)
    assert (refused.status, refused.rows_rejected) == ("refused", 100)
    assert refused.error.startswith(
        "100 of 100 rows are rejected, more than the dataset allows (50% of at least 100 rows)"
    )
    with harness.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM quarantine.measurements")) == 199
        assert conn.scalar(text("SELECT count(*) FROM production.measurements")) == 0


def test_a_file_without_rows_is_loaded(harness: PipelineHarness) -> None:
    (file_id,) = harness.land(("none.csv", HEADER.encode()))
    harness.run()
    harness.check(sequential=True)
    assert harness.status(file_id).status == "loaded"


# What may go wrong between landing and loading


def test_raw_bytes_that_vanished_fail_their_file_alone(harness: PipelineHarness) -> None:
    lost, present = harness.land(("lost.csv", csv_of("A,2024-01-01,1,0")), ("kept.csv", csv_of("B,2024-01-01,1,0")))
    harness.store.path(harness.status(lost).sha256).unlink()
    harness.run()
    failed = harness.status(lost)
    assert failed.status == "failed"
    assert failed.error == f"its raw file is missing: {harness.store.path(failed.sha256)}"
    assert failed.leased_by is None
    assert harness.status(present).status == "loaded"
    assert harness.status(present).rows_inserted == 1


def test_staging_that_a_crash_of_the_server_emptied_is_staged_again(harness: PipelineHarness) -> None:
    ids = harness.land(*random_arrivals(5, 6))
    harness.stage()
    with harness.engine.begin() as conn:
        conn.execute(text("TRUNCATE staging.measurements"))
    loaded = harness.load()
    with_rows = {file.file_id for file in harness.oracle.loaded if file.rows_read}
    assert with_rows
    assert not with_rows & set(loaded)
    assert {harness.status(i).status for i in with_rows} == {"landed"}
    harness.run()
    harness.check()
    assert {harness.status(i).attempts for i in ids} == {0}


def test_half_of_a_files_rows_in_staging_are_not_loaded(harness: PipelineHarness) -> None:
    (file_id,) = harness.land(("a.csv", csv_of("A,2024-01-01,1,0", "B,2024-01-01,1,0")))
    harness.stage()
    with harness.engine.begin() as conn:
        conn.execute(text("DELETE FROM staging.measurements WHERE _line = 2"))
    assert harness.load() == []
    assert harness.status(file_id).status == "landed"
    harness.run()
    harness.check(sequential=True)


@pytest.mark.parametrize("count", [1, 3])
def test_a_file_is_not_blamed_for_a_connection_that_broke(harness: PipelineHarness, count: int) -> None:
    """The server ends the backend in the middle of the COPY and is there again at once."""
    ids = harness.land(*((f"{n}.csv", csv_of(f"A,2024-01-0{n},1,0")) for n in range(1, count + 1)))

    ended = []

    def cut(_bytes: int, _rows: int) -> None:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^COPY'"
        while not ended:  # COPY may not have begun yet.
            with harness.engine.begin() as conn:
                ended.extend(conn.execute(text(query)).all())

    with pytest.raises(psycopg2.OperationalError), ledger.lease(harness.worker):
        stage(harness.worker, weather, RawFiles(harness.store.path), limit=10, progress=cut)
    assert {harness.status(i).status for i in ids} == {"landed"}
    harness.run()
    harness.check()


def test_a_file_that_another_worker_holds_is_left_to_it_until_its_lease_runs_out(harness: PipelineHarness) -> None:
    harness.land(("a.csv", csv_of("A,2024-01-01,1,0", "A,2024-02-30,1,0")))
    with harness.engine.begin() as conn:
        conn.execute(update(files).values(leased_by="other", leased_until=func.now() + dt.timedelta(minutes=1)))
    assert harness.stage() == []
    with harness.engine.begin() as conn:
        conn.execute(update(files).values(leased_until=func.now() - dt.timedelta(seconds=1)))
    harness.run()
    harness.check(sequential=True)


def test_the_lease_is_lost_while_the_file_is_staged(harness: PipelineHarness) -> None:
    """Another worker takes the file in the middle of the COPY: of the slow one's rows none may stay."""
    (file_id,) = harness.land(("a.csv", csv_of("A,2024-01-01,1,0", "B,2024-02-30,1,0")))
    slow = replace(harness.worker, owner="slow")

    def taken_over(_bytes: int, _rows: int) -> None:
        with harness.engine.begin() as conn:
            conn.execute(update(files).values(leased_by="quick"))

    with pytest.raises(ledger.LeaseLostError):
        stage(slow, weather, RawFiles(harness.store.path), limit=10, progress=taken_over)
    with harness.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM staging.measurements")) == 0
        assert conn.scalar(text("SELECT count(*) FROM quarantine.measurements")) == 0
    assert harness.status(file_id).status == "landed"
    with harness.engine.begin() as conn:
        conn.execute(update(files).values(leased_until=None))
    harness.run()
    harness.check(sequential=True)


def test_the_lease_is_lost_while_the_file_is_loaded(harness: PipelineHarness) -> None:
    (file_id,) = harness.land(("a.csv", csv_of("A,2024-01-01,1,0", "B,2024-02-30,1,0")))
    harness.stage()
    slow = replace(harness.worker, owner="slow")
    errors: list[Exception] = []

    def work() -> None:
        try:
            load(slow, weather, limit=10)
        except ledger.LeaseLostError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    with harness.engine.begin() as conn:
        advisory_lock(conn, "load", "weather")  # `slow` claims the file, and then waits for this.
        thread.start()
        while harness.status(file_id).leased_by != "slow":
            time.sleep(0.01)
        with harness.engine.begin() as other:
            other.execute(update(files).values(leased_by="quick"))
    thread.join()
    assert str(errors[0]) == "1 of 1 files were taken over by another process"
    with harness.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM production.measurements")) == 0
        assert conn.scalar(text("SELECT count(*) FROM quarantine.measurements")) == 0
    assert harness.status(file_id).status == "staged"
    with harness.engine.begin() as conn:
        conn.execute(update(files).values(leased_until=None))
    harness.run()
    harness.check(sequential=True)


@pytest.mark.parametrize("batch", [1, 5])
def test_workers_at_the_same_time_load_everything_once(harness: PipelineHarness, batch: int) -> None:
    harness.land(*[(f"{n}.csv", sample(30, 0.2, seed=n % 5)) for n in range(14)], *random_arrivals(11, 6))
    errors: list[BaseException] = []
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        worker = replace(harness.worker, owner=f"worker {number}", batch_files=batch)
        try:
            barrier.wait()
            for _ in range(12):
                with ledger.lease(worker):
                    stage(worker, weather, RawFiles(harness.store.path), limit=100)
                    load(worker, weather, limit=100)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    harness.run()
    harness.check()


def test_a_file_whose_processing_dies_is_tried_alone_and_given_up(harness: PipelineHarness) -> None:
    """A worker that is killed leaves its claims; when they run out, the files come back one at a time, after the others."""
    poison, fellow = harness.land(("poison.csv", csv_of("A,2024-01-01,1,0")), ("b.csv", csv_of("B,2024-01-01,1,0")))
    worker = replace(harness.worker, max_attempts=3)

    def claimed() -> list[int]:
        """Return the files that a worker claims, dies with, and holds until its lease has run out."""
        ids = [row.file_id for row in ledger.claim(worker, "weather", "landed", 10)]
        with harness.engine.begin() as conn:
            conn.execute(update(files).values(leased_until=func.now() - dt.timedelta(seconds=1)))
        return ids

    assert claimed() == [poison, fellow], "never tried: together"
    (fresh,) = harness.land(("c.csv", csv_of("C,2024-01-01,1,0")))
    assert claimed() == [fresh], "what was never tried comes first"
    assert claimed() == [poison], "then one by one"
    assert claimed() == [fellow]
    assert claimed() == [fresh]
    assert [harness.status(i).attempts for i in (poison, fellow, fresh)] == [2, 2, 2]
    harness.run([fellow, fresh])
    assert claimed() == [poison]
    assert claimed() == []
    given_up = harness.status(poison)
    assert given_up.status == "failed"
    assert given_up.error == "gave up: its process died 3 times, see the log of its run"
    harness.reprocess()
    harness.run()
    harness.check()


def test_a_batch_ends_at_its_number_of_files(harness: PipelineHarness) -> None:
    ids = harness.land(*((f"{n}.csv", csv_of(f"A,2024-01-0{n},1,0")) for n in range(1, 8)))
    worker = replace(harness.worker, batch_files=3)
    batches = [[row.file_id for row in ledger.claim(worker, "weather", "landed", 5)] for _ in range(3)]
    assert batches == [ids[:3], ids[3:6], ids[6:]]
    assert ledger.claim(worker, "weather", "landed", 5) == []


# Text that COPY, SQL or JSON might take for something else

HOSTILE = [
    r"\N", r"\.", "\\", "\\\\n", "a\tb", 'say ""hi""', "'; DROP TABLE x; --", "{a,b}", "%s %(x)s", "NULL", "null", "\ufeffx",
    "😀👩‍👩‍👧", "\u202egnp", "line\nbreak", "cr\rlf\r\nend", "$1", ":name", "\x01\x1f\x7f", "\u0085x", "\ufffd", "\U0010ffff",
    "=1+1", "E'\\x41'", '\\""', "\ud7ff\ue000",
]  # fmt: skip


def test_any_text_survives_byte_for_byte(harness: PipelineHarness) -> None:
    rows = [f'"{value}",2024-01-01,1,"{value}"' for value in HOSTILE] + [
        f'"{value}",2024-01-01,1,1' for value in HOSTILE
    ]
    rejected, accepted = len(HOSTILE), len(HOSTILE)
    data = ("note, " + HEADER + "".join(f'"{v}",{row}\n' for v, row in zip(HOSTILE * 2, rows, strict=True))).encode()
    (file_id,) = harness.land(("f.csv", data))
    harness.run()
    harness.check(sequential=True)
    row = harness.status(file_id)
    assert (row.rows_inserted, row.rows_rejected) == (accepted, rejected)
    plain = [value.replace('""', '"') for value in HOSTILE]
    with harness.engine.connect() as conn:
        result = conn.execute(
            text("SELECT station_id, precip_mm, _extra->>'note' AS note FROM quarantine.measurements ORDER BY _line")
        )
        quarantined = result.all()
        stations = set(conn.execute(text("SELECT station_id FROM production.measurements")).scalars())
    assert [r.precip_mm for r in quarantined] == plain
    assert [r.note for r in quarantined] == plain
    assert stations == {value.strip("\u0085") for value in plain}


def test_nul_rows_are_quarantined_with_their_text(harness: PipelineHarness) -> None:
    (file_id,) = harness.land(("f.csv", csv_of("A,2024-01-01,1,0", "B\0\0,2024-01-01,1,0", "\0", "C,2024-01-01,1,0")))
    harness.run()
    harness.check(sequential=True)
    with harness.engine.connect() as conn:
        rejected = [
            (r["line"], r["value"], r["rule"], r["reason"]) for r in quarantine.rejects(conn, weather, file_id=file_id)
        ]
    assert rejected == [
        (3, "B␀␀,2024-01-01,1,0", "row_without_nul", "found 2 NUL bytes"),
        (4, "␀", "row_without_nul", "found 1 NUL byte"),
    ]


def test_what_was_rejected_stands_as_it_arrived(harness: PipelineHarness) -> None:
    """The cell at fault keeps its spaces, other cells are cleaned; an empty one is null."""
    harness.dataset, harness.oracle = under(Rules(refuse_share=1)), Oracle(Rules(refuse_share=1))
    harness.land(("f.csv", csv_of("  e\u0301 ,2024-01-01, 12° ,", " ,2024-01-01, 1 ,  ")))
    harness.run()
    harness.check()
    with harness.engine.connect() as conn:
        query = text("SELECT station_id, temp_c, precip_mm FROM quarantine.measurements ORDER BY _line")
        assert conn.execute(query).all() == [("é", " 12° ", None), (" ", "1", None)]
