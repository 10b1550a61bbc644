"""Operations on one small dataset, each as a process does it: what `test_pairs.py` runs at once, and one after the other.

The dataset has what the operations change: a hashed column, rejects, an aggregate, when a row was first loaded, and keys that
several persons have in turn.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import FromClause, Select, func, select, text, update

from mini_platform import Aggregate, Dataset, Field, RowModel
from mini_platform.config.faultpoints import FORGETTING, MIGRATING, POINTS, REPROCESSING, RETAINING
from mini_platform.landing import folder, retention
from mini_platform.operations.forget import forget as forget_person
from mini_platform.operations.processing import process
from mini_platform.operations.processing import refresh as refresh_aggregate
from mini_platform.platform import Platform
from mini_platform.warehouse import ledger
from mini_platform.warehouse.dirty_groups import mark
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import files, inbox
from mini_platform_tests.support import worker

ANN, BOB, EVE = "ann@example.org", "bob@example.org", "eve@example.org"
AGE = dt.timedelta(days=30)
OLD = "one.csv"
"""Name of the file whose raw file is past its retention."""


class Member(RowModel):
    nr: str = Field("Number", str_length={"min_value": 1, "max_value": 20})
    mail: str = Field("Address", personal="hash")
    n: int = Field("Number of things", le=1000)
    since: dt.datetime = Field("When it was first loaded", system="first_loaded")


def by_person(m: FromClause) -> Select[Any]:
    """Things of each person."""
    return select(m.c.mail, func.count().label("members"), func.sum(m.c.n).label("things")).group_by(m.c.mail)


COLUMNS = {"mail": ("Person",), "members": ("Rows",), "things": ("Things",)}
DATASET = Dataset(
    name="mem",
    table="mem",
    description="Members",
    rows=Member,
    key=("nr",),
    unexpected_columns="refuse",
    aggregates=(Aggregate(by_person, key=("mail",), chart=("mail", "members"), columns=COLUMNS),),
)
OTHERWISE = dataclasses.replace(
    DATASET,
    aggregates=(
        Aggregate(by_person, key=("mail",), chart=("mail", "members"), columns=COLUMNS | {"mail": ("Whose",)}),
    ),
)
"""Another declaration of the dataset, as in a new version of the project: its aggregate is dropped and computed again."""


def csv(*rows: tuple[object, ...]) -> str:
    return "\n".join(["nr,mail,n", *(",".join(map(str, row)) for row in rows), ""])


LOADED = {
    OLD: csv((1, BOB, 11), (2, ANN, 12), (3, EVE, 5000), (4, BOB, 14), (5, ANN, 5000)),
    "two.csv": csv((1, ANN, 21), (4, EVE, 24), (6, EVE, 26)),
}
NEW = {
    "three.csv": csv((6, ANN, 36), (2, BOB, 32), (7, EVE, 37), (8, EVE, 8000)),
    "four.csv": csv((6, BOB, 46), (9, ANN, 49)),
}


def load(platform: Platform) -> None:
    """Land and load the files in the drop folder."""
    process(platform, DATASET)


def take(platform: Platform) -> None:
    """Load the pending files, without landing any."""
    with platform.engine.connect() as conn:
        waiting = conn.scalars(select(files.c.file_id)).all()
    process(platform, DATASET, waiting)


def reprocess_all(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        ledger.reprocess(conn, "mem")
    take(platform)


def reprocess_one(platform: Platform) -> None:
    with platform.engine.begin() as conn:
        ledger.reprocess(conn, "mem", conn.scalar(select(files.c.file_id).where(files.c.name == "two.csv")))
    take(platform)


def forget(platform: Platform) -> None:
    dropped = platform.settings.data / "mem"
    forgotten = forget_person(platform.engine, DATASET, ANN, platform.raw_files(DATASET), platform.store, dropped)
    assert forgotten.unread == [], forgotten.unread
    take(platform)


def retain(platform: Platform) -> None:
    """Remove raw files that are past their retention."""
    retention.drop_old(platform.engine, DATASET, platform.store, AGE)


def refresh(platform: Platform) -> None:
    for aggregate in DATASET.aggregates:
        refresh_aggregate(platform, DATASET, aggregate)


def migrate(platform: Platform) -> None:
    create_all(platform.engine, [OTHERWISE])


Operation = Callable[[Platform], None]
OPERATIONS: Mapping[str, Operation] = {
    operation.__name__: operation
    for operation in (load, reprocess_all, reprocess_one, forget, retain, refresh, migrate)
}
_TAKING = tuple(p for p in POINTS if not p.startswith("land.") and p != "load.indexes_built")
_AGAIN = tuple(p for p in _TAKING if p != "load.rows_written")  # What is loaded again is as it was.
_LANDING = tuple(p for p in POINTS if p.startswith("land."))
REACHED: Mapping[str, tuple[str, ...]] = {
    "load": (*_LANDING, *_TAKING),
    "reprocess_all": (*REPROCESSING, *_AGAIN),
    "reprocess_one": (*REPROCESSING, *_AGAIN),
    "forget": (*FORGETTING, *_TAKING),
    "retain": RETAINING,
    "refresh": ("aggregate.before_commit", "aggregate.after_commit"),
    "migrate": MIGRATING,
}
"""Fault points that each operation reaches."""


def prepare(platform: Platform) -> None:
    """Prepare the initial state: two loaded files, one of them old, two files in the drop folder, and pending marks."""
    create_all(platform.engine, [DATASET])
    dropped = platform.settings.data / "mem"
    dropped.mkdir(parents=True)
    _drop(dropped, LOADED)
    load(platform)
    with platform.engine.begin() as conn:
        conn.execute(update(files).where(files.c.name == OLD).values(arrived_at=func.now() - 2 * AGE))
        mark(conn, DATASET, None)
    _drop(dropped, NEW)


def know_again(platform: Platform) -> None:
    """Update signatures: files that were copied with their folder count as those that were landed."""
    with platform.engine.begin() as conn:
        for name in conn.scalars(select(inbox.c.name)).all():
            info = (platform.settings.data / "mem" / name).stat()
            conn.execute(update(inbox).where(inbox.c.name == name).values(signature=folder.signature(info)))


def _drop(dropped: Path, contents: Mapping[str, str]) -> None:
    for name, content in contents.items():
        (dropped / name).write_text(content)
        os.utime(dropped / name, (1e9, 1e9))


def finish(platform: Platform, operations: tuple[str, ...]) -> None:
    """Do all remaining work, and the work that recurs: the next look at the folder, the next night."""
    create_all(platform.engine, [DATASET])
    with platform.engine.begin() as conn:  # Of who was killed; a real one waits for them to run out.
        conn.execute(update(files).values(leased_by=None, leased_until=None))
    take(platform)
    dropped = platform.settings.data / "mem"
    while any(file.skip_reason == folder.GROWING for file in folder.look(dropped, DATASET)):
        time.sleep(0.05)  # What was rewritten a moment ago: the next look comes later than that.
    for operation in (load, retain):
        if operation.__name__ in operations:
            operation(platform)
    for path in (*platform.store.folder.glob("??/*"), *platform.store.folder.glob(".arriving-*")):
        os.utime(path, (1e9, 1e9))  # An hour later.
    platform.store.sweep()
    retention.sweep(platform.engine, platform.store)
    retention.sweep_unknown(platform.engine, platform.store)


def state(platform: Platform, begun: dt.datetime) -> dict[str, Any]:
    """Return all that is stored without ids, counters and times, and whether a row was first loaded before the pair."""
    with platform.engine.connect() as conn:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return sorted((tuple(row) for row in conn.execute(text(statement), {"begun": begun})), key=repr)

        return {
            "production": rows("SELECT nr, mail, n, since <= :begun AS lasting FROM production.mem"),
            "quarantine": rows(
                "SELECT name, version, _line, q._rules, q.nr, q.mail, q.n FROM quarantine.mem q JOIN ops.files f "
                "ON file_id = _file_id"
            ),
            "by_person": rows("SELECT * FROM analytics.by_person"),
            "files": rows(
                "SELECT name, version, status, error, sha256, rows_read, rows_rejected, rows_erased, "
                "raw_dropped_at IS NULL AS kept FROM ops.files WHERE same_as IS NULL"
            ),
            "folder": sorted((p.name, p.read_text()) for p in (platform.settings.data / "mem").iterdir()),
        }


def main(environment: Mapping[str, str], log: Path, operation: str) -> None:
    """Run an operation in this process, with exactly these settings and its output in a file."""
    worker.prepare(environment, log)
    OPERATIONS[operation](Platform({"mem": DATASET}))
