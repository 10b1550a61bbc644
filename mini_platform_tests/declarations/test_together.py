"""Forget, reprocess and load together: what one does while another is in the middle ends as if one came after the other.

The other one is called where a file has just been searched or read (`progress`), so that each race comes out the same each
time. Kills and freezes at the fault points: `faults/test_pairs.py`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import FromClause, Select, func, select, text, update

from mini_platform import Aggregate, Dataset, Field, RejectLimit, RowModel
from mini_platform.landing import folder, retention
from mini_platform.operations.forget import PASSES, Forgotten, forget
from mini_platform.warehouse import ledger
from mini_platform.warehouse.load import load
from mini_platform.warehouse.staging import stage
from mini_platform.warehouse.tables import COUNTERS, files, pending_deletes
from mini_platform_tests.support import pairs
from mini_platform_tests.support.look import everything
from mini_platform_tests.support.pairs import ANN, BOB, csv
from mini_platform_tests.support.trial import Declared, Trial


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


class Member(pairs.Member):
    n: int = Field("Number of things", le=100)


def by_number(m: FromClause) -> Select[Any]:
    """Things of each number."""
    return select(m.c.n, func.count().label("members")).group_by(m.c.n)


MEMBERS = Dataset(
    name="mem",
    table="mem",
    description="Members",
    rows=Member,
    key=("nr",),
    unexpected_columns="refuse",
    aggregates=(
        Aggregate(by_number, key=("n",), chart=("n", "members"), columns={"n": ("Things",), "members": ("Members",)}),
    ),
)


def members(**changed: Any) -> Dataset:
    return dataclasses.replace(MEMBERS, **changed)


class StricterMember(pairs.Member):
    n: int = Field("Number of things", le=10)


def forgetting(trial: Trial, value: str = ANN, progress: Callable[[int], None] | None = None) -> Forgotten:
    platform = trial.platform
    dropped = platform.settings.data / trial.dataset.name
    raw = platform.raw_files(trial.dataset)
    return forget(platform.engine, trial.dataset, value, raw, platform.store, dropped, progress)


def once(action: Callable[[], object], times: int = 1) -> Callable[..., None]:
    """A progress callback that does something the first time, or the first times, it is called."""
    left = iter(range(times))

    def called(*_: object) -> None:
        if next(left, None) is not None:
            action()

    return called


def in_order(trial: Trial, *gone: str) -> None:
    """Nothing waits, every figure adds up, every raw file is one of the ledger's, and nothing is left of who is gone."""
    assert trial.differences() == {}
    with trial.platform.engine.connect() as conn:
        for row in conn.execute(select(files).where(files.c.same_as.is_(None))):
            assert row.status in ("loaded", "refused", "failed")
            assert row.leased_by is None
            assert row.status != "loaded" or row.rows_read == sum(getattr(row, name) for name in COUNTERS)
        hashes = select(files.c.sha256).where(files.c.raw_dropped_at.is_(None))
        named = set(conn.execute(hashes).scalars())
        assert conn.scalar(select(func.count()).select_from(pending_deletes)) == 0
        assert trial.dataset.table != "mem" or conn.scalar(text("SELECT count(*) FROM ops.gone_mem")) == 0
    assert {path.name for path in trial.platform.store.folder.glob("??/*")} == named
    for person in gone:
        marks = [mark.encode() for mark in (person, *trial.platform.keyring.digests(person))]
        for place, content in everything(trial.platform, trial.platform.settings.data):
            assert place.endswith("arriving") or not any(mark in content for mark in marks), place


# Forget beside others


def test_a_row_that_was_rejected_for_the_persons_is_validated_again(declared: Declared) -> None:
    trial = declared(members(duplicates="reject", reject_limit=RejectLimit(share=1)))
    row = trial.load("one.csv", csv((1, BOB, 11), (1, ANN, 22), (2, BOB, 33)))
    assert (row.rows_rejected, trial.rows("nr", "n")) == (2, [("2", 33)])
    assert forgetting(trial).queued == [row.file_id]
    trial.run()
    assert trial.rows("nr", "n") == [("1", 11), ("2", 33)]
    in_order(trial, ANN)


def test_a_row_that_became_the_persons_while_files_were_searched(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.load("one.csv", csv((1, BOB, 11), (2, ANN, 22)))
    since = trial.rows("nr", "since")[0]
    result = forgetting(trial, progress=once(lambda: trial.load("two.csv", csv((1, ANN, 33)))))
    assert result.queued == [1]
    trial.run()
    assert trial.rows("nr", "n") == [("1", 11)]
    assert trial.rows("nr", "since") == [since]
    in_order(trial, ANN)
    trial.reprocess()
    assert trial.rows("nr", "n") == [("1", 11)]


def test_files_and_rows_that_come_during_every_search(declared: Declared) -> None:
    """It comes to an end, and nobody's row is lost, though after some searches it is not known any more who has which."""
    trial = declared(MEMBERS)
    trial.load("bob.csv", csv(*((number, BOB, number) for number in range(PASSES + 3))))
    number = iter(range(PASSES + 2))

    def another() -> None:
        nr = next(number)
        trial.load(f"{nr}.csv", csv((nr, ANN, 99)))

    forgetting(trial, progress=once(another, PASSES + 2))
    trial.run()
    assert trial.rows("n") == [(n,) for n in range(PASSES + 3)]
    in_order(trial, ANN)


def test_two_persons_at_once(declared: Declared) -> None:
    """Neither brings back the other by the file that it wrote."""
    trial = declared(MEMBERS)
    trial.load("one.csv", csv((1, ANN, 1), (2, BOB, 2), (3, "eve@example.org", 3)))
    result = forgetting(trial, progress=once(lambda: forgetting(trial, BOB)))
    assert [item["records"] for item in result.files] == [1]
    assert trial.rows("nr") == [("3",)]
    assert trial.file(1).rows_erased == 2
    in_order(trial, ANN, BOB)


def test_the_row_that_another_ones_row_replaced_in_the_same_file(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.load("one.csv", csv((1, BOB, 1), (1, ANN, 2)))
    forgetting(trial)
    trial.run()
    assert trial.rows("nr", "n") == [("1", 1)]
    in_order(trial, ANN)


class Named(RowModel):
    mail: str = Field("Address", personal="hash")
    name: str = Field("Name", personal="hash")


def test_a_key_that_is_hashed_is_known_again(declared: Declared) -> None:
    """Somebody else, by the name that is forgotten, has the same address in an earlier file."""
    trial = declared(
        Dataset(name="named", table="named", description="x", rows=Named, key=("mail",), unexpected_columns="refuse")
    )
    trial.load("one.csv", f"mail,name\n{ANN},Ann\n")
    trial.load("two.csv", f"mail,name\n{ANN},Ann Marker\n")
    forgetting(trial, "ann marker")
    trial.run()
    assert trial.rows("name") == [(trial.platform.keyring.digests("Ann")[0],)]
    in_order(trial, "ann marker")


def test_a_file_that_is_staged_while_a_person_in_it_is_forgotten(declared: Declared) -> None:
    """Whoever reads it has lost it, and reads what is left of it the next time."""
    trial = declared(MEMBERS)
    trial.land("one.csv", csv((1, BOB, 11), (2, ANN, 22)))
    worker = trial.platform.worker("staging")
    with pytest.raises(ledger.LeaseLostError), ledger.lease(worker):
        stage(worker, MEMBERS, trial.platform.raw_files(MEMBERS), limit=9, progress=once(lambda: forgetting(trial)))
    trial.run()
    assert trial.rows("nr", "n") == [("1", 11)]
    in_order(trial, ANN)


def test_a_file_that_is_staged_and_not_loaded(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.load("one.csv", csv((1, BOB, 11)))
    trial.land("two.csv", csv((1, ANN, 22), (2, BOB, 2)))
    worker = trial.platform.worker("staging")
    stage(worker, MEMBERS, trial.platform.raw_files(MEMBERS), limit=9)
    forgetting(trial)
    trial.run()
    assert trial.rows("nr", "n") == [("1", 11), ("2", 2)]
    in_order(trial, ANN)


def test_a_raw_file_that_is_too_old_while_it_is_searched(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.load("one.csv", csv((1, ANN, 11), (2, BOB, 22)))
    platform, age = trial.platform, dt.timedelta(0)
    forgetting(trial, progress=once(lambda: retention.drop_old(platform.engine, MEMBERS, platform.store, age)))
    assert (trial.rows("nr"), trial.file(1).rows_erased) == ([("2",)], None)
    in_order(trial, ANN)


def test_a_dropped_file_that_was_read_before_it_was_cleaned(declared: Declared) -> None:
    """Its bytes wait to be landed while the person is forgotten: they are not, and the next look lands what is left."""
    trial = declared(MEMBERS)
    platform = trial.platform
    inbox = platform.settings.data / "mem"
    inbox.mkdir(parents=True)
    (inbox / "one.csv").write_text(csv((1, ANN, 11), (2, BOB, 22)))
    dropped_files = folder.look(inbox, MEMBERS, now=2**40)
    put = type(platform.store).put

    class Slow(type(platform.store)):  # type: ignore[misc]
        def put(self, source: Any) -> tuple[str, int]:
            stored = put(self, source)
            forgetting(trial)
            return stored

    slow = Slow(platform.store.folder)
    ((file, row),) = folder.land(platform.engine, MEMBERS, slow, dropped_files)
    assert (row, file.skip_reason) == (None, folder.CHANGED)
    retention.sweep(platform.engine, platform.store)
    list(folder.land(platform.engine, MEMBERS, platform.store, folder.look(inbox, MEMBERS, now=2**40)))
    trial.run()
    assert trial.rows("nr") == [("2",)]
    in_order(trial, ANN)


# Shares


@pytest.mark.parametrize(
    ("erased", "rejected_of_hers"), [(4, 0), (4, 2), (5, 0)], ids=["good rows", "rejects too", "more than half"]
)
def test_a_file_that_lost_rows_is_not_refused_for_it(declared: Declared, erased: int, rejected_of_hers: int) -> None:
    trial = declared(members(reject_limit=RejectLimit(share=0.5, min_rows=0)))
    hers = [(number, ANN, 1) for number in range(erased)]
    rejects = [(20 + number, ANN if number < rejected_of_hers else BOB, 1000) for number in range(4)]
    others = [(40 + number, BOB, 1) for number in range(6 - erased)]
    assert trial.load("one.csv", csv(*hers, *rejects, *others)).rows_rejected == 4
    forgetting(trial)
    trial.reprocess()
    file = trial.file(1)
    assert (file.status, file.rows_rejected, file.rows_erased) == (
        "loaded",
        4 - rejected_of_hers,
        erased + rejected_of_hers,
    )
    assert len(trial.rows("nr")) == len(others)
    in_order(trial, ANN)


def test_a_file_of_which_too_much_is_rejected_is_refused_all_the_same(declared: Declared) -> None:
    trial = declared(members(reject_limit=RejectLimit(share=0.5, min_rows=0)))
    rows = [(1, ANN, 1), *((number, BOB, 1000) for number in range(2, 5))]
    assert trial.load("one.csv", csv(*rows)).status == "refused"
    forgetting(trial)
    trial.reprocess()
    assert trial.file(1).error.startswith("3 of 3 rows (1 more were of erased persons) are rejected")


# When a row was first loaded


def test_first_loaded_outlives_what_does_not_end_the_row(declared: Declared) -> None:
    """The newest file loses its row by a new rule: what it was before comes back, and is the same row."""
    trial = declared(MEMBERS)
    for name, n in (("a.csv", 5), ("b.csv", 50), ("c.csv", 5), ("b.csv", 51)):
        trial.load(name, csv((1, BOB, n)))
    since = trial.rows("since")
    trial.dataset = members(rows=StricterMember)
    trial.reprocess(4)
    assert trial.rows("n", "since") == [(5, *since[0])]
    trial.dataset = MEMBERS
    trial.reprocess()
    assert trial.rows("n", "since") == [(51, *since[0])]
    in_order(trial)


class Seat(RowModel):
    hall: str = Field("Hall")
    seat: str = Field("Seat")
    n: int = Field("Number of things", le=100)
    since: dt.datetime = Field("When it was first loaded", system="first_loaded")


class StricterSeat(RowModel):
    hall: str = Field("Hall")
    seat: str = Field("Seat")
    n: int = Field("Number of things", le=10)
    since: dt.datetime = Field("When it was first loaded", system="first_loaded")


def test_first_loaded_where_the_key_has_another_order_than_the_columns(declared: Declared) -> None:
    seats = Dataset(name="seat", table="seat", description="x", rows=Seat, key=("seat", "hall"))
    trial = declared(replace(seats, reject_limit=RejectLimit(share=1)))
    for name, n in (("a.csv", 5), ("b.csv", 50)):
        trial.load(name, f"hall,seat,n\nh,s,{n}\n")
    since = trial.rows("since")
    trial.dataset = replace(seats, rows=StricterSeat, reject_limit=RejectLimit(share=1))
    trial.reprocess(2)
    assert trial.rows("hall", "seat", "n", "since") == [("h", "s", 5, *since[0])]


def test_first_loaded_where_a_file_is_refused_that_was_loaded(declared: Declared) -> None:
    trial = declared(members(reject_limit=RejectLimit(share=0.5, min_rows=0)))
    trial.load("a.csv", csv((1, BOB, 5)))
    trial.load("b.csv", csv((1, BOB, 50), (2, BOB, 60)))
    since = trial.rows("nr", "since")
    trial.dataset = members(rows=StricterMember, reject_limit=trial.dataset.reject_limit)
    trial.reprocess(2)
    assert trial.file(2).status == "refused"
    assert trial.rows("nr", "since") == since[:1]
    in_order(trial)
    # Number 2 has ended: no file held it any more.
    trial.dataset = MEMBERS
    trial.reprocess(2)
    again = trial.rows("nr", "since")
    assert again[0] == since[0]
    assert again[1] > since[1]
    in_order(trial)


def test_first_loaded_in_bulk(declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all of many rows are gone, what comes back fills an empty table."""
    monkeypatch.setattr("mini_platform.warehouse.load.BULK_ROWS", 2)
    trial = declared(MEMBERS)
    trial.load("a.csv", csv(*((number, BOB, 5) for number in range(5))))
    trial.load("b.csv", csv(*((number, BOB, 50) for number in range(4))))
    since = trial.rows("nr", "since")
    with trial.platform.engine.begin() as conn:
        conn.execute(text("DELETE FROM production.mem WHERE nr = '4'"))
    trial.dataset = members(rows=StricterMember)
    trial.reprocess(2)
    assert trial.rows("nr", "since")[:4] == since[:4]
    in_order(trial)


def test_first_loaded_of_a_row_that_a_new_file_brings_while_older_ones_wait(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.load("a.csv", csv((1, BOB, 50), (2, BOB, 50)))
    trial.load("b.csv", csv((3, BOB, 5)))
    since = trial.rows("nr", "since")
    trial.dataset = members(rows=StricterMember, reject_limit=RejectLimit())
    with trial.platform.engine.begin() as conn:
        ledger.reprocess(conn, "mem", 1)
    worker = replace(trial.platform.worker("one"), batch_files=1)
    stage(worker, trial.dataset, trial.platform.raw_files(trial.dataset), limit=1)
    load(worker, trial.dataset, limit=1)
    assert trial.file(2).status == "landed", "it is asked for what the rows were before"
    trial.load("c.csv", csv((1, BOB, 7)))
    trial.load("d.csv", csv((2, BOB, 7)))
    loaded_at = dict(trial.rows("nr", "since"))
    assert loaded_at["3"] == dict(since)["3"]
    assert loaded_at["2"] > dict(since)["2"], "no file had it any more when it came again"
    in_order(trial)


def test_first_loaded_of_a_row_of_the_forgotten(declared: Declared) -> None:
    """The row of a key lives on where somebody else has it, and nothing is remembered of a key that nobody else has."""
    trial = declared(MEMBERS)
    trial.load("a.csv", csv((1, ANN, 1), (2, ANN, 1)))
    trial.load("b.csv", csv((1, BOB, 2)))
    trial.load("c.csv", csv((1, ANN, 3)))
    since = trial.rows("since")[0]
    forgetting(trial)
    assert trial.table("ops.gone_mem", "nr") == [("1",)]
    trial.run()
    assert trial.rows("nr", "n", "since") == [("1", 2, *since)]
    in_order(trial, ANN)


# Reprocess beside load


def test_what_is_staged_is_validated_again_too(declared: Declared) -> None:
    trial = declared(MEMBERS)
    trial.land("a.csv", csv((1, BOB, 5), (2, BOB, 50), (3, BOB, 5)))
    stage(trial.platform.worker("test"), MEMBERS, trial.platform.raw_files(MEMBERS), limit=9)
    with trial.platform.engine.begin() as conn:
        conn.execute(update(files).values(leased_by=None, leased_until=None))
    trial.dataset = members(rows=StricterMember)
    trial.reprocess()
    assert trial.rows("nr") == [("1",), ("3",)]
    in_order(trial)


def test_a_file_that_is_loaded_and_queued_while_another_worker_goes_from_file_to_file(declared: Declared) -> None:
    """Its staged rows are replaced when it is staged again: else every key would be there twice."""
    trial = declared(members(duplicates="reject"))
    raw = trial.platform.raw_files(MEMBERS)
    for number in (1, 2):
        trial.land(f"{number}.csv", csv((number, BOB, 5)))
    slow, quick = (replace(trial.platform.worker(name), batch_files=1) for name in ("slow", "quick"))

    def other() -> None:
        stage(quick, trial.dataset, raw, limit=1)
        load(quick, trial.dataset, limit=1)
        with trial.platform.engine.begin() as conn:
            ledger.reprocess(conn, "mem", 2)

    stage(slow, trial.dataset, raw, limit=9, progress=once(other))
    load(slow, trial.dataset, limit=9)
    assert [(trial.file(number).status, trial.file(number).rows_rejected) for number in (1, 2)] == [("loaded", 0)] * 2
    trial.run()
    in_order(trial)
