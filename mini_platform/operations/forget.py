"""Forget: everything that is known of a person goes, out of tables, raw files and the drop folder; the ledger says so.

It can be repeated, and a process that is killed in the middle of it is made up for by repeating it: the raw files without the
person are on disk before the transaction that changes the database, the old ones go after it.

Others may land, load and forget meanwhile. Files are searched before the locks are taken, and what was searched is compared
with what is there once they are held: where a file came, or the person got another row, it is searched again. A row is deleted
only where it is known which files hold what it was before; they are queued.

Not here: how a file is written without a person (`landing/erasing.py`), how it is asked for, Dagster.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Table,
    and_,
    delete,
    false,
    func,
    or_,
    select,
    tuple_,
    update,
)

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.rules import KEY_ONCE
from mini_platform.landing import retention
from mini_platform.landing.erasing import Person, Search, erase
from mini_platform.operations.dropped_files import outcome_of, scratch
from mini_platform.operations.place import Erasure
from mini_platform.operations.places import FILES
from mini_platform.rows.protection import normalized
from mini_platform.rows.validation import dtype
from mini_platform.storage.store import RawStore, sha256_of
from mini_platform.warehouse import audit, first_loaded, ledger, places
from mini_platform.warehouse.aggregates import refresh
from mini_platform.warehouse.dirty_groups import mark
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import among, dataset_tables, files
from mini_platform.warehouse.validated_rows import RawFiles

PASSES = 5
"""After so many searches during each of which others loaded rows of the person, every file is queued instead of those that
are known to hold what the rows were before."""


@dataclass
class Forgotten:
    """What was done.

    Attributes:
        rows: deleted rows by table, such as `production.orders`.
        files: of each raw file with records of the person: its id, name, how many, and what became of it.
        dropped_files: the same of files in the drop folder, and wherever else files are (`operations/places.py`).
        queued: ids of files that are loaded again, as they hold what a deleted row was before, or rows with its key that were
            rejected as doubled.
        unread: sentences about files that could not be searched.
    """

    rows: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    dropped_files: list[dict[str, Any]] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether nothing of the person was found."""
        return not (any(self.rows.values()) or self.files or self.dropped_files)

    def count(self, table: Table, rows: int) -> None:
        """Add rows that were deleted from a table."""
        self.rows[table.fullname] = self.rows.get(table.fullname, 0) + rows

    def as_dict(self) -> dict[str, Any]:
        """As dicts and lists."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Erased:
    """A raw file with records of the person, and what takes its place: None if nothing can."""

    row: Row[Any]
    found: Search
    new: ledger.Arrival | None


@dataclass
class _Searched:
    """What is known of the person so far.

    Attributes:
        person: with every key that a row of theirs was seen to have.
        versions: the files that were searched with these keys, each with the SHA-256 that it had, or has without the person.
        shared: keys of the person that others' rows have too, by file.
        unread: sentences about files that could not be searched, by file.
    """

    person: Person
    versions: set[tuple[int, str]] = field(default_factory=set)
    shared: dict[int, list[pl.DataFrame]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    def learn(self, keys: pl.DataFrame) -> None:
        """Take more keys into account: whether others have them is to be asked of every file again."""
        if not (new := self.unknown(keys)).is_empty():
            self.person = replace(self.person, keys=pl.concat([self.person.keys, new]))
            self.versions.clear()

    def unknown(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Those of some keys that were not searched for."""
        return keys.join(self.person.keys, on=keys.columns, how="anti")

    def lacks(self, row: Row[Any]) -> bool:
        """True if this version of a file was not searched."""
        return (row.file_id, row.sha256) not in self.versions


def forget(
    engine: Engine,
    dataset: Dataset,
    text: str,
    raw: RawFiles,
    store: RawStore,
    dropped: Path,
    progress: Callable[[int], None] | None = None,
) -> Forgotten:
    """Forget the person who has this value in a hashed column.

    Args:
        engine: of the database.
        dataset: whose.
        text: the value in clear.
        raw: where the raw files are, how they are read, and the keys.
        store: of the raw files.
        dropped: the drop folder of the dataset.
        progress: called with the bytes of each raw file that was searched.

    Raises:
        ValueError: the dataset has no hashed columns, or the value is empty.
    """
    hashed = [column.name for column in dataset.stored_columns if column.personal == "hash"]
    if not hashed or raw.keyring is None:
        raise ValueError(f"{dataset.name} has no hashed columns: nobody can be found in it")
    if not normalized(text):
        raise ValueError("an empty value is nobody's")
    digests = raw.keyring.digests(text)
    is_theirs = _is_theirs(dataset, digests)
    done = Forgotten()
    with engine.connect() as conn:
        known = _Searched(Person(normalized(text), _keys(conn, dataset, is_theirs), raw.keyring))

    def erase_known_files() -> None:
        for number in itertools.count(1):
            with engine.connect() as conn:
                if number <= PASSES:
                    known.learn(_keys(conn, dataset, is_theirs))
                rows = [row for row in _versions(conn, dataset) if known.lacks(row)]
            erased = _search(engine, dataset, rows, raw, store, known, progress)
            failpoint("forget.files_written")
            with engine.begin() as conn:
                finished = _erase(conn, dataset, digests, erased, known, done, at_once=number >= PASSES)
                failpoint("forget.before_commit")
            failpoint("forget.after_commit")
            if finished:
                return

    erase_known_files()
    for place in FILES:
        if place.erase:
            erased = place.erase(Erasure(engine, dataset, known.person, raw, dropped))
            done.dropped_files += erased.files
            done.unread += erased.unread
    failpoint("forget.folder_cleaned")
    erase_known_files()  # What was landed from there just before: what is landed from now on is what was cleaned.
    done.unread += known.unread.values()
    retention.sweep(engine, store)
    retention.sweep_unknown(engine, store)
    store.sweep()
    return done


def _is_theirs(dataset: Dataset, digests: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row of production is the person's."""
    ((_, columns),) = places.erased(dataset, "with its files")
    return _holds(columns, digests)


def _holds(columns: Sequence[Column[Any]], digests: Sequence[str]) -> ColumnElement[bool]:
    return or_(false(), *(column.in_(digests) for column in columns))


def _keys(conn: Connection, dataset: Dataset, theirs: ColumnElement[bool]) -> pl.DataFrame:
    production = dataset_tables(dataset).production
    rows = conn.execute(select(*(production.c[name] for name in dataset.key)).where(theirs)).all()
    types = {column.name: dtype(column) for column in dataset.columns}
    return pl.DataFrame([tuple(r) for r in rows], schema={name: types[name] for name in dataset.key}, orient="row")


def _versions(conn: Connection, dataset: Dataset) -> Sequence[Row[Any]]:
    kept = select(files).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    return conn.execute(kept.order_by(files.c.file_id)).all()


def _search(
    engine: Engine,
    dataset: Dataset,
    rows: Sequence[Row[Any]],
    raw: RawFiles,
    store: RawStore,
    known: _Searched,
    progress: Callable[[int], None] | None,
) -> list[_Erased]:
    """Search raw files, and keep those without the person beside them; others are only noted in what is known."""
    erased: list[_Erased] = []
    for row in rows:
        new = None
        known.versions.add((row.file_id, row.sha256))
        known.unread.pop(row.file_id, None)
        with scratch(store.folder) as target:
            try:
                path = raw.path(row.sha256)
                found, written = erase(dataset, path, row.name, row.channel, raw.limits, known.person, target)
            except FileNotFoundError:
                known.unread[row.file_id] = f"{row.name} (file {row.file_id}): its raw file is missing."
                continue
            if written:
                with target.open("rb") as source, engine.begin() as conn:
                    # Should it never come to be the file's, it is removed: another person may be in it, to be forgotten later.
                    retention.to_drop(conn, [sha256_of(source)])
                with target.open("rb") as source:
                    new = ledger.Arrival(row.name, *store.put(source))
        if progress:
            progress(row.bytes)
        known.shared[row.file_id] = found.shared
        if found.unread:
            known.unread[row.file_id] = f"{row.name} (file {row.file_id}) could not be searched: {found.unread}"
        elif found.lines or found.mentioned:
            erased.append(_Erased(row, found, new))
    return erased


def _erase(
    conn: Connection,
    dataset: Dataset,
    digests: Sequence[str],
    erased: Sequence[_Erased],
    known: _Searched,
    done: Forgotten,
    *,
    at_once: bool,
) -> bool:
    """Everything in the database, in one transaction; False if there is more to search.

    Args:
        conn: the transaction.
        dataset: whose.
        digests: what the person stands as in the tables.
        erased: files with records of the person.
        known: what was searched.
        done: what was done, which this adds to.
        at_once: delete rows of the person even where it is not known which files hold what they were before.
    """
    advisory_lock(conn, "register", dataset.name)
    advisory_lock(conn, "load", dataset.name)
    tables = dataset_tables(dataset)
    is_theirs = _is_theirs(dataset, digests)
    noted = [item for item in erased if _note(conn, dataset, item)]
    retention.to_drop(conn, [item.row.sha256 for item in noted])
    if dataset.duplicates == "reject":  # A row that was rejected for hers may be the only one with its key by now.
        rejected = and_(files.c.status == "loaded", files.c.rule_counts.has_key(KEY_ONCE))
        theirs = among(files.c.file_id, [item.row.file_id for item in noted])
        done.queued += ledger.return_to_landed(conn, dataset.name, rejected, theirs)
    for item in noted:
        if item.new:
            known.versions.add((item.row.file_id, item.new.sha256))
        outcome = outcome_of(item.row.name, item.found, written=item.new is not None)
        done.files.append({"file_id": item.row.file_id, **outcome})
    lines = [
        (item.row.file_id, *line) for item in noted for line in zip(item.found.lines, item.found.records, strict=True)
    ]
    for table, columns in places.erased(dataset, "at once"):
        done.count(table, _delete(conn, table, _holds(columns, digests), lines))
    for item in erased:
        if item not in noted:  # It changed meanwhile, as where another person was forgotten.
            known.versions.discard((item.row.file_id, item.row.sha256))
    missed = [row for row in _versions(conn, dataset) if known.lacks(row)]
    certain = known.unknown(_keys(conn, dataset, is_theirs)).is_empty() and "loaded" not in {r.status for r in missed}
    if certain or at_once:
        _delete_rows(conn, dataset, is_theirs, known if certain else None, done)
    if noted or any(done.rows.values()):
        audit.record(conn, "forgot", dataset=dataset.name, files=[item.row.file_id for item in noted])
    for aggregate in dataset.aggregates:
        refresh(conn, dataset, aggregate, tables.rows(aggregate))
    for table, columns in places.erased(dataset, "after computing"):
        if columns:
            done.count(table, _delete(conn, table, _holds(columns, digests)))
    return (certain or at_once) and not missed


def _delete(
    conn: Connection, table: Table, theirs: ColumnElement[bool], lines: Sequence[tuple[int, int, int]] = ()
) -> int:
    """Delete the person's rows from a table, and what stands there of these lines of files; returns how many went."""
    count = conn.execute(delete(table).where(theirs)).rowcount
    if not {"_file_id", "_line", "_record"} <= set(table.c.keys()):
        return count
    for start in range(0, len(lines), 1000):
        here = tuple_(table.c._file_id, table.c._line, table.c._record).in_(lines[start : start + 1000])
        count += conn.execute(delete(table).where(here)).rowcount
    return count


def _delete_rows(
    conn: Connection,
    dataset: Dataset,
    theirs: ColumnElement[bool],
    known: _Searched | None,
    done: Forgotten,
) -> None:
    """Delete the person's rows of production; queue the files that hold what they were before: all, where nothing is known."""
    production = dataset_tables(dataset).production
    mark(conn, dataset, select(production).where(theirs))
    shared = [frame for frames in known.shared.values() for frame in frames] if known else []
    for keys in pl.concat(shared).unique().iter_slices(1000) if shared else ():
        others = tuple_(*(production.c[name] for name in dataset.key)).in_(keys.rows())
        first_loaded.remember(conn, dataset, and_(theirs, others))
    count = conn.execute(delete(production).where(theirs)).rowcount
    done.count(production, count)
    if not count:
        return
    holding = files.c.status == "loaded"
    if known:
        holding = and_(holding, among(files.c.file_id, [file_id for file_id, keys in known.shared.items() if keys]))
    done.queued += ledger.return_to_landed(conn, dataset.name, holding)
    first_loaded.expire(conn, dataset)  # The raw files that hold it may have gone since they were searched.


def _note(conn: Connection, dataset: Dataset, item: _Erased) -> bool:
    """What the ledger says of a file from now on; False, and nothing, if it, or what was written of it, has changed since.

    A file that waits to be loaded is read anew, whoever holds it now.
    """
    row, new = item.row, item.new
    values: dict[str, Any] = {
        "erased_at": func.now(),
        "rows_erased": func.coalesce(files.c.rows_erased, 0) + len(item.found.lines),
    }
    values |= {"sha256": new.sha256, "bytes": new.size} if new else {"raw_dropped_at": func.now()}
    searched = and_(files.c.file_id == row.file_id, files.c.sha256 == row.sha256, files.c.raw_dropped_at.is_(None))
    if new and not retention.keep(conn, new.sha256):
        return False
    if not conn.execute(update(files).where(searched).values(values)).rowcount:
        retention.to_drop(conn, [new.sha256] if new else [])
        return False
    if new:
        same = {"sha256": new.sha256, "bytes": new.size}
        conn.execute(update(files).where(files.c.same_as == row.file_id).values(same))
    pending = and_(files.c.file_id == row.file_id, files.c.status.in_(ledger.PENDING))
    staging = dataset_tables(dataset).staging
    if conn.scalar(select(func.count()).where(pending)):
        conn.execute(delete(staging).where(staging.c._file_id == row.file_id))
        if new:
            ledger.return_to_landed(conn, dataset.name, pending)
        else:
            why = f"its raw file was dropped, as a person in it was to be forgotten: {item.found.problem}"
            free = {"leased_by": None, "leased_until": None}
            conn.execute(update(files).where(pending).values(status="failed", error=why, **free))
    return True
