"""Forget: remove all data of a person from tables, raw files and the drop folder, and record that in the ledger.

The operation can be repeated; if its process is killed, repeat it: the raw files without the person are on disk before the
transaction that changes the database, and the old ones are removed after it.

Others may land, load and forget at the same time. Files are searched before the locks are taken, and the searched versions are
compared with the current ones once the locks are held: if a file arrived, or the person got another row, the search is
repeated. A row is deleted only if it is known which files hold its earlier values; those files are queued.

Not here: how a file is rewritten without a person (`landing/erasing.py`), the command, Dagster.
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
from mini_platform.operations.dropped_files import rewriting_of, scratch
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
"""Searches before giving up: if others loaded rows of the person during each of them, every file is queued instead of only
those that are known to hold the earlier values of the rows."""


@dataclass
class Forgotten:
    """The result of forgetting a person.

    Attributes:
        rows: number of deleted rows by table, such as `production.orders`.
        files: a dict per raw file with records of the person: its id, name, number of records and action.
        dropped_files: a dict per file in the drop folder or another file place (`operations/places.py`), without an id.
        queued: ids of files that are loaded again, as they hold earlier values of a deleted row, or rows with its key that
            were rejected as duplicates.
        unread: sentences about files that could not be searched.
    """

    rows: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    dropped_files: list[dict[str, Any]] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """True if no data of the person was found."""
        return not (any(self.rows.values()) or self.files or self.dropped_files)

    def count(self, table: Table, rows: int) -> None:
        """Add to the number of rows deleted from a table."""
        self.rows[table.fullname] = self.rows.get(table.fullname, 0) + rows

    def as_dict(self) -> dict[str, Any]:
        """Return the result as dicts and lists."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Erased:
    """A raw file with records of the person, and the file that replaces it; None if it cannot be rewritten."""

    row: Row[Any]
    search: Search
    new: ledger.Arrival | None


@dataclass
class _SearchState:
    """The state of a search for a person.

    Attributes:
        person: the person, with the key of every row of theirs that was found.
        versions: files that were searched with these keys, each with its SHA-256 then, or its SHA-256 without the person.
        shared: keys of the person that rows of others have too, by file.
        unread: sentences about files that could not be searched, by file.
    """

    person: Person
    versions: set[tuple[int, str]] = field(default_factory=set)
    shared: dict[int, list[pl.DataFrame]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    def add_keys(self, keys: pl.DataFrame) -> None:
        """Add keys; every file has to be searched again, as rows of others may have them too."""
        if not (new := self.unknown(keys)).is_empty():
            self.person = replace(self.person, keys=pl.concat([self.person.keys, new]))
            self.versions.clear()

    def unknown(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the keys that were not searched for yet."""
        return keys.join(self.person.keys, on=keys.columns, how="anti")

    def is_unsearched(self, row: Row[Any]) -> bool:
        """Return True if this version of a file was not searched."""
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
    """Remove the person who has this value in a hashed column, and return what was removed.

    Args:
        engine: engine of the database.
        dataset: the dataset to remove the person from.
        text: the value in clear text.
        raw: location of the raw files, the limits they are read with, and the keys.
        store: the raw store.
        dropped: the drop folder of the dataset.
        progress: called with the size in bytes of each raw file that was searched.

    Raises:
        ValueError: the dataset has no hashed columns, or the value is empty.
    """
    hashed = [column.name for column in dataset.stored_columns if column.personal == "hash"]
    if not hashed or raw.keyring is None:
        raise ValueError(f"{dataset.name} has no hashed columns, so no person can be found in it")
    if not normalized(text):
        raise ValueError("the value is empty: it identifies nobody")
    digests = raw.keyring.digests(text)
    of_person = _of_person(dataset, digests)
    result = Forgotten()
    with engine.connect() as conn:
        state = _SearchState(Person(normalized(text), _keys(conn, dataset, of_person), raw.keyring))

    def erase_known_files() -> None:
        for number in itertools.count(1):
            with engine.connect() as conn:
                if number <= PASSES:
                    state.add_keys(_keys(conn, dataset, of_person))
                rows = [row for row in _versions(conn, dataset) if state.is_unsearched(row)]
            erased = _search(engine, dataset, rows, raw, store, state, progress)
            failpoint("forget.files_written")
            with engine.begin() as conn:
                finished = _erase(conn, dataset, digests, erased, state, result, at_once=number >= PASSES)
                failpoint("forget.before_commit")
            failpoint("forget.after_commit")
            if finished:
                return

    erase_known_files()
    for place in FILES:
        if place.erase:
            erased = place.erase(Erasure(engine, dataset, state.person, raw, dropped))
            result.dropped_files += erased.files
            result.unread += erased.unread
    failpoint("forget.folder_cleaned")
    erase_known_files()  # Files landed from the folder just before it was cleaned; later ones are clean.
    result.unread += state.unread.values()
    retention.sweep(engine, store)
    retention.sweep_unknown(engine, store)
    store.sweep()
    return result


def _of_person(dataset: Dataset, digests: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a row of production belongs to the person."""
    ((_, columns),) = places.tables_to_erase(dataset, "with its files")
    return _holds(columns, digests)


def _holds(columns: Sequence[Column[Any]], digests: Sequence[str]) -> ColumnElement[bool]:
    return or_(false(), *(column.in_(digests) for column in columns))


def _keys(conn: Connection, dataset: Dataset, of_person: ColumnElement[bool]) -> pl.DataFrame:
    production = dataset_tables(dataset).production
    rows = conn.execute(select(*(production.c[name] for name in dataset.key)).where(of_person)).all()
    types = {column.name: dtype(column) for column in dataset.columns}
    return pl.DataFrame([tuple(r) for r in rows], schema={name: types[name] for name in dataset.key}, orient="row")


def _versions(conn: Connection, dataset: Dataset) -> Sequence[Row[Any]]:
    versions = select(files).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    return conn.execute(versions.order_by(files.c.file_id)).all()


def _search(
    engine: Engine,
    dataset: Dataset,
    rows: Sequence[Row[Any]],
    raw: RawFiles,
    store: RawStore,
    state: _SearchState,
    progress: Callable[[int], None] | None,
) -> list[_Erased]:
    """Search raw files and write those with the person without them; note the others as searched."""
    erased: list[_Erased] = []
    for row in rows:
        new = None
        state.versions.add((row.file_id, row.sha256))
        state.unread.pop(row.file_id, None)
        with scratch(store.folder) as target:
            try:
                path = raw.path(row.sha256)
                search, written = erase(dataset, path, row.name, row.channel, raw.limits, state.person, target)
            except FileNotFoundError:
                state.unread[row.file_id] = f"{row.name} (file {row.file_id}): its raw file is missing."
                continue
            if written:
                with target.open("rb") as source, engine.begin() as conn:
                    # Removed if it never replaces the file: another person may be in it, to be forgotten later.
                    retention.to_drop(conn, [sha256_of(source)])
                with target.open("rb") as source:
                    new = ledger.Arrival(row.name, *store.put(source))
        if progress:
            progress(row.bytes)
        state.shared[row.file_id] = search.shared
        if search.unread:
            state.unread[row.file_id] = f"{row.name} (file {row.file_id}) could not be searched: {search.unread}"
        elif search.lines or search.mentioned:
            erased.append(_Erased(row, search, new))
    return erased


def _erase(
    conn: Connection,
    dataset: Dataset,
    digests: Sequence[str],
    erased: Sequence[_Erased],
    state: _SearchState,
    result: Forgotten,
    *,
    at_once: bool,
) -> bool:
    """Remove the person from the database in one transaction; return False if there is more to search.

    Args:
        conn: the transaction.
        dataset: the dataset to remove the person from.
        digests: hashes of the person's value, as the tables have them.
        erased: files with records of the person.
        state: the state of the search.
        result: the result, which this adds to.
        at_once: delete rows of the person even if it is not known which files hold their earlier values.
    """
    # No other process registers or loads files of the dataset while these locks are held. The files were searched before:
    # `_update_ledger` takes only those whose bytes are still the searched ones. Files that changed or arrived meanwhile are
    # not in `state.versions`, so the function returns False and the caller searches again.
    advisory_lock(conn, "register", dataset.name)
    advisory_lock(conn, "load", dataset.name)
    tables = dataset_tables(dataset)
    of_person = _of_person(dataset, digests)
    noted = [item for item in erased if _update_ledger(conn, dataset, item)]
    retention.to_drop(conn, [item.row.sha256 for item in noted])
    if (
        dataset.duplicates == "reject"
    ):  # A row that was rejected for sharing the person's key may be the only one with it now.
        rejected = and_(files.c.status == "loaded", files.c.rule_counts.has_key(KEY_ONCE))
        in_noted_files = among(files.c.file_id, [item.row.file_id for item in noted])
        result.queued += ledger.return_to_landed(conn, dataset.name, rejected, in_noted_files)
    for item in noted:
        if item.new:
            state.versions.add((item.row.file_id, item.new.sha256))
        rewriting = rewriting_of(item.row.name, item.search, written=item.new is not None)
        result.files.append({"file_id": item.row.file_id, **rewriting})
    lines = [
        (item.row.file_id, *line) for item in noted for line in zip(item.search.lines, item.search.records, strict=True)
    ]
    for table, columns in places.tables_to_erase(dataset, "at once"):
        result.count(table, _delete(conn, table, _holds(columns, digests), lines))
    for item in erased:
        if item not in noted:  # It changed since it was searched, for example as another person was forgotten.
            state.versions.discard((item.row.file_id, item.row.sha256))
    unsearched = [row for row in _versions(conn, dataset) if state.is_unsearched(row)]
    # Once a row is deleted, the files with its earlier values must be loaded again. They are known for certain only if all
    # keys of the person and all loaded files were searched; otherwise (`at_once`) every loaded file is queued.
    certain = state.unknown(_keys(conn, dataset, of_person)).is_empty() and "loaded" not in {
        r.status for r in unsearched
    }
    if certain or at_once:
        _delete_rows(conn, dataset, of_person, state if certain else None, result)
    if noted or any(result.rows.values()):
        audit.record(conn, "forgot", dataset=dataset.name, files=[item.row.file_id for item in noted])
    for aggregate in dataset.aggregates:
        refresh(conn, dataset, aggregate, tables.rows(aggregate))
    for table, columns in places.tables_to_erase(dataset, "after computing"):
        if columns:
            result.count(table, _delete(conn, table, _holds(columns, digests)))
    return (certain or at_once) and not unsearched


def _delete(
    conn: Connection, table: Table, of_person: ColumnElement[bool], lines: Sequence[tuple[int, int, int]] = ()
) -> int:
    """Delete the person's rows from a table, and rows from these lines of files; return the number of deleted rows."""
    count = conn.execute(delete(table).where(of_person)).rowcount
    if not {"_file_id", "_line", "_record"} <= set(table.c.keys()):
        return count
    for start in range(0, len(lines), 1000):
        in_lines = tuple_(table.c._file_id, table.c._line, table.c._record).in_(lines[start : start + 1000])
        count += conn.execute(delete(table).where(in_lines)).rowcount
    return count


def _delete_rows(
    conn: Connection,
    dataset: Dataset,
    of_person: ColumnElement[bool],
    state: _SearchState | None,
    result: Forgotten,
) -> None:
    """Delete the person's rows of production and queue the files with their earlier values: all if `state` is None."""
    production = dataset_tables(dataset).production
    mark(conn, dataset, select(production).where(of_person))
    shared = [frame for frames in state.shared.values() for frame in frames] if state else []
    for keys in pl.concat(shared).unique().iter_slices(1000) if shared else ():
        others = tuple_(*(production.c[name] for name in dataset.key)).in_(keys.rows())
        first_loaded.remember(conn, dataset, and_(of_person, others))
    count = conn.execute(delete(production).where(of_person)).rowcount
    result.count(production, count)
    if not count:
        return
    holding = files.c.status == "loaded"
    if state:
        holding = and_(holding, among(files.c.file_id, [file_id for file_id, keys in state.shared.items() if keys]))
    result.queued += ledger.return_to_landed(conn, dataset.name, holding)
    first_loaded.expire(conn, dataset)  # The raw files that hold them may have been removed since they were searched.


def _update_ledger(conn: Connection, dataset: Dataset, item: _Erased) -> bool:
    """Update the ledger row of a file; return False, changing nothing, if the file or its replacement changed meanwhile.

    A pending file is staged again, whoever holds its lease now.
    """
    row, new = item.row, item.new
    values: dict[str, Any] = {
        "erased_at": func.now(),
        "rows_erased": func.coalesce(files.c.rows_erased, 0) + len(item.search.lines),
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
            reason = f"its raw file was removed, as it held data of a person to be forgotten: {item.search.problem}"
            free = {"leased_by": None, "leased_until": None}
            conn.execute(update(files).where(pending).values(status="failed", error=reason, **free))
    return True
