"""Forget: everything that is known of a person goes, out of tables, raw files and the drop folder; the ledger says so.

It can be repeated, and a process that is killed in the middle of it is made up for by repeating it: what is in the database
changes in one transaction, the raw files without the person are on disk before it, the old ones go after it.

Not here: how a file is written without a person (`landing/erasing.py`), how it is asked for, Dagster.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, delete, func, or_, select, tuple_, update

from mini_platform.dataset import Dataset
from mini_platform.faultpoints import reach
from mini_platform.landing import folder, retention
from mini_platform.landing.erasing import Person, Search, erase
from mini_platform.landing.store import RawStore, sha256_of
from mini_platform.protection import normalized
from mini_platform.validation import dtype
from mini_platform.warehouse import audit, ledger
from mini_platform.warehouse.aggregates import refresh, touch
from mini_platform.warehouse.judged_rows import RawFiles
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import among, dataset_tables, files, inbox

PASSES = 5
"""Files may arrive while the others are searched: they are searched too, so many times at most."""


@dataclass
class Forgotten:
    """What was done.

    Attributes:
        rows: deleted rows by table, such as `production.orders`.
        files: of each raw file with records of the person: its id, name, how many, and what became of it.
        dropped_files: the same of files in the drop folder.
        queued: ids of files that are loaded again, as they hold what a deleted row was before.
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

    def as_dict(self) -> dict[str, Any]:
        """As dicts and lists."""
        return asdict(self)


@dataclass(frozen=True)
class _Erased:
    """A raw file with records of the person, and what takes its place: None if nothing can."""

    row: Row[Any]
    found: Search
    new: ledger.Arrival | None


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
    done = Forgotten()
    searched: set[int] = set()
    for _ in range(PASSES):
        with engine.connect() as conn:
            person = Person(normalized(text), _keys(conn, dataset, _is_theirs(dataset, digests)))
            rows = [row for row in _versions(conn, dataset) if row.file_id not in searched]
        if searched and not rows:
            break
        searched |= {row.file_id for row in rows}
        erased, sharing = _search(dataset, rows, raw, store, person, done, progress)
        reach("forget.files_written")
        with engine.begin() as conn:
            _erase(conn, dataset, digests, erased, sharing, done)
            reach("forget.before_commit")
        reach("forget.after_commit")
    retention.sweep(engine, store)
    store.sweep()
    _clean_folder(engine, dataset, dropped, raw, person, done)
    return done


def _is_theirs(dataset: Dataset, digests: Sequence[str]) -> Callable[[Any], ColumnElement[bool]]:
    hashed = [column.name for column in dataset.columns if column.personal == "hash"]
    return lambda table: or_(*(table.c[name].in_(digests) for name in hashed if name in table.c))


def _keys(conn: Connection, dataset: Dataset, theirs: Callable[[Any], ColumnElement[bool]]) -> pl.DataFrame:
    production = dataset_tables(dataset).production
    rows = conn.execute(select(*(production.c[name] for name in dataset.key)).where(theirs(production))).all()
    types = {column.name: dtype(column) for column in dataset.columns}
    return pl.DataFrame([tuple(r) for r in rows], schema={name: types[name] for name in dataset.key}, orient="row")


def _versions(conn: Connection, dataset: Dataset) -> Sequence[Row[Any]]:
    kept = select(files).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    return conn.execute(kept.order_by(files.c.file_id)).all()


@contextlib.contextmanager
def _scratch(folder_: Path) -> Iterator[Path]:
    """A path for a file that is made and then moved; its name is one that is swept where a process was killed."""
    folder_.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".arriving-", dir=folder_)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _search(
    dataset: Dataset,
    rows: Sequence[Row[Any]],
    raw: RawFiles,
    store: RawStore,
    person: Person,
    done: Forgotten,
    progress: Callable[[int], None] | None,
) -> tuple[list[_Erased], list[int]]:
    """Search raw files, and keep those without the person beside them; also ids of files that share a key."""
    erased: list[_Erased] = []
    sharing: list[int] = []
    for row in rows:
        new = None
        with _scratch(store.folder) as target:
            try:
                found, written = erase(dataset, raw.path(row.sha256), row.name, row.door, raw.limits, person, target)
            except FileNotFoundError:
                done.unread.append(f"{row.name} (file {row.file_id}): its raw file is missing.")
                continue
            if written:
                with target.open("rb") as source:
                    new = ledger.Arrival(row.name, *store.put(source))
        if progress:
            progress(row.bytes)
        if found.shares_key:
            sharing.append(row.file_id)
        if found.unread:
            done.unread.append(f"{row.name} (file {row.file_id}) could not be searched: {found.unread}")
        elif found.lines or found.mentioned:
            erased.append(_Erased(row, found, new))
            done.files.append({"file_id": row.file_id, **_outcome(row.name, found, written=new is not None)})
    return erased, sharing


def _outcome(name: str, found: Search, *, written: bool) -> dict[str, Any]:
    outcome = "rewritten without them" if written else f"dropped: {found.problem}"
    return {"name": name, "records": len(found.lines), "outcome": outcome}


def _erase(
    conn: Connection,
    dataset: Dataset,
    digests: Sequence[str],
    erased: Sequence[_Erased],
    sharing: Sequence[int],
    done: Forgotten,
) -> None:
    """Everything in the database, in one transaction."""
    advisory_lock(conn, "register", dataset.name)
    advisory_lock(conn, "load", dataset.name)
    tables = dataset_tables(dataset)
    is_theirs = _is_theirs(dataset, digests)
    for item in erased:
        _note(conn, dataset, item)
    retention.to_drop(conn, [item.row.sha256 for item in erased])
    lines = [(item.row.file_id, line) for item in erased for line in item.found.lines]
    for table in (tables.staging, tables.quarantine):
        count = conn.execute(delete(table).where(is_theirs(table))).rowcount
        for start in range(0, len(lines), 1000):
            here = tuple_(table.c._file_id, table.c._line).in_(lines[start : start + 1000])
            count += conn.execute(delete(table).where(here)).rowcount
        done.rows[table.fullname] = done.rows.get(table.fullname, 0) + count
    production = tables.production
    touch(conn, dataset, select(production).where(is_theirs(production)))
    count = conn.execute(delete(production).where(is_theirs(production))).rowcount
    done.rows[production.fullname] = done.rows.get(production.fullname, 0) + count
    if count and sharing:
        loaded = and_(among(files.c.file_id, sharing), files.c.status == "loaded")
        ledger.return_to_landed(conn, dataset.name, loaded)
        done.queued += sharing
    if erased or any(done.rows.values()):
        audit.record(conn, "forgot", dataset=dataset.name, files=[item.row.file_id for item in erased])
    for aggregate in dataset.aggregates:
        refresh(conn, dataset, aggregate, tables.rows(aggregate))
    for name, table in tables.surrogates.items():
        groups = tables.groups.get(name, {})
        hashed = {column.name for column in dataset.columns if column.personal == "hash"}
        keys = [table.c[key] for key, column in groups.items() if column.name in hashed]
        if keys:
            count = conn.execute(delete(table).where(or_(*(key.in_(digests) for key in keys)))).rowcount
            done.rows[table.fullname] = done.rows.get(table.fullname, 0) + count


def _note(conn: Connection, dataset: Dataset, item: _Erased) -> None:
    """What the ledger says of a file from now on. A file that waits to be loaded is read anew, whoever holds it now."""
    row, new = item.row, item.new
    values: dict[str, Any] = {
        "erased_at": func.now(),
        "rows_erased": func.coalesce(files.c.rows_erased, 0) + len(item.found.lines),
    }
    values |= {"sha256": new.sha256, "bytes": new.size} if new else {"raw_dropped_at": func.now()}
    conn.execute(update(files).where(files.c.file_id == row.file_id).values(values))
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


def _clean_folder(
    engine: Engine, dataset: Dataset, dropped: Path, raw: RawFiles, person: Person, done: Forgotten
) -> None:
    """Rewrite the files that stand in the drop folder, or remove them: or they would be landed again one day."""
    nobody = Person(person.text, person.keys.clear())
    for file in folder.look(dropped, dataset):
        if not file.is_read:
            continue
        with _scratch(dropped) as target:
            try:
                found, written = erase(dataset, file.path, file.name, "folder", raw.limits, nobody, target)
                if not (found.lines or found.mentioned):
                    if found.unread:
                        done.unread.append(f"{file.path} could not be searched: {found.unread}")
                    continue
                if written:
                    target.replace(file.path)
                else:
                    file.path.unlink()
            except FileNotFoundError:
                continue  # Somebody took it away.
            except OSError as error:
                done.unread.append(f"{file.path} could not be rewritten: {error.strerror}")
                continue
        done.dropped_files.append(_outcome(file.name, found, written=written))
        if written:
            _remember(engine, dataset, file)


def _remember(engine: Engine, dataset: Dataset, file: folder.Found) -> None:
    """Tell the inbox that a rewritten file is the current version of its name: it need not be hashed to be known."""
    with engine.begin() as conn:
        current = ledger.current_versions(conn, dataset.name, [file.name]).get(file.name)
        with file.path.open("rb") as source:
            same = current is not None and sha256_of(source) == current.sha256
            signature = folder.signature(os.fstat(source.fileno()))
        if same:
            mine = and_(inbox.c.dataset == dataset.name, inbox.c.name == file.name)
            conn.execute(update(inbox).where(mine).values(signature=signature))
