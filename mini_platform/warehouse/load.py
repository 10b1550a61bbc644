"""Load: staged files -> production, quarantine, marks of dirty groups and the ledger, in one transaction per batch.

Set-based SQL only; no row passes through Python. What a batch leaves in production does not depend on the order in which
batches are loaded: the last arrival of a key wins, by the ledger's sequence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    tuple_,
    update,
)

from mini_platform.config.faultpoints import failpoint
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.policies import KeepHighest
from mini_platform.warehouse import first_loaded, ledger, quarantine
from mini_platform.warehouse.bulk import filled_in_bulk, is_empty
from mini_platform.warehouse.dirty_groups import mark
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import NOW, DatasetTables, among, dataset_tables, files, kept_unknown, sql_type
from mini_platform.warehouse.upsert import materialized, upsert

BULK_ROWS = 20_000
"""An empty table that gets more rows than this is filled without indexes: 1M rows in 2 s instead of 6 s.

More rows than this are sampled first, too: the planner would join them as if they were a few."""
LOOKED_UP = 4
"""Rows are looked up one by one in a table that has more than so many times as many."""


def load(worker: ledger.Worker, dataset: Dataset, *, limit: int, only: Sequence[int] | None = None) -> list[int]:
    """Load the staged files of a dataset that nobody else works on.

    Args:
        worker: who holds the leases; the caller keeps them alive by `ledger.lease`.
        dataset: whose files.
        limit: files to take at most.
        only: file ids to choose from; None means all.

    Returns:
        Ids of the files that were loaded.
    """
    done: list[int] = []
    while len(done) < limit and (batch := ledger.claim(worker, dataset.name, "staged", limit - len(done), only)):
        for part in _parts(dataset, batch):
            with worker.engine.begin() as conn:
                failpoint("load.started")
                done += _load_batch(conn, worker, dataset, part)
                failpoint("load.before_commit")
            failpoint("load.after_commit")
    return done


def _parts(dataset: Dataset, batch: Sequence[Row[Any]]) -> list[list[Row[Any]]]:
    """Return the files that are loaded together: all, but for files that are validated again where a row has its place in one.

    Such a row keeps the place in the file that brought it, as that is validated now, though a later one of the batch may say
    the same.
    """
    if _places(dataset) and any(row.loaded_at for row in batch):
        return [[row] for row in sorted(batch, key=lambda row: row.file_id)]
    return [list(batch)]


def _places(dataset: Dataset) -> list[str]:
    """Return the names of the columns that say where a row stands: its file, line, record, source."""
    staged = {column.name for column in dataset.staged_columns}  # Not when it was loaded, which only production has.
    return [c.name for c in dataset.stored_columns if c.system and c.name in staged - set(dataset.key)]


def _load_batch(conn: Connection, worker: ledger.Worker, dataset: Dataset, batch: Sequence[Row[Any]]) -> list[int]:
    advisory_lock(conn, "load", dataset.name, frozen_seconds=worker.lease_seconds)
    conn.execute(text("SET LOCAL work_mem = '256MB'"))
    conn.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
    tables = dataset_tables(dataset)
    batch = _still_staged(conn, worker, dataset, batch)
    ids = [row.file_id for row in batch]
    if not ids:
        return []
    first_loaded.expire(conn, dataset)
    valid = {row.file_id: row.rows_read - row.rows_rejected for row in batch}
    # Of how many different keys the valid rows are known to be: staging looks at the keys of a file that comes alone.
    unique_rows = valid[ids[0]] if len(batch) == 1 and batch[0].keys_unique else None
    empty = is_empty(conn, tables.production)
    if empty and sum(valid.values()) > BULK_ROWS:
        counts = _fill(conn, dataset, tables, ids, unique_rows)
    else:
        if sum(row.rows_read for row in batch) > BULK_ROWS:
            conn.execute(text(f"ANALYZE {conn.dialect.identifier_preparer.format_table(tables.staging)}"))
        again = [row.file_id for row in batch if row.loaded_at is not None]
        counts = _merge(conn, dataset, tables, ids, again, None if again else unique_rows)
    many = sum(row.rows_rejected for row in batch) > BULK_ROWS
    quarantine.write(conn, dataset, ids, [row.file_id for row in batch if row.rows_rejected], many=many)
    failpoint("load.quarantined")
    finished = []
    for row in batch:
        outcome = counts[row.file_id]
        outcome["superseded"] += valid[row.file_id] - sum(outcome.values())
        counters = {f"rows_{name}": outcome[name] for name in ("inserted", "updated", "unchanged", "superseded")}
        finished.append({"file_id": row.file_id, "status": "loaded", "error": None, **counters})
    ledger.move(conn, worker, "staged", finished)
    first_loaded.expire(conn, dataset)
    return ids


def _still_staged(
    conn: Connection, worker: ledger.Worker, dataset: Dataset, batch: Sequence[Row[Any]]
) -> list[Row[Any]]:
    """The files whose rows are all in staging; a crash of the server empties it, and such files are staged again."""
    staging = dataset_tables(dataset).staging
    ids = [row.file_id for row in batch]
    found = select(staging.c._file_id, func.count()).where(among(staging.c._file_id, ids)).group_by("_file_id")
    counts: dict[int, int] = dict(conn.execute(found).tuples().all())
    gone = [row.file_id for row in batch if counts.get(row.file_id, 0) != row.rows_read]
    if gone:
        conn.execute(delete(staging).where(among(staging.c._file_id, gone)))
        ledger.return_to_landed(conn, dataset.name, among(files.c.file_id, gone), files.c.leased_by == worker.owner)
    return [row for row in batch if row.file_id not in gone]


def _valid_rows(
    dataset: Dataset, tables: DatasetTables, ids: Sequence[int], *, distinct: bool, by_file: bool = False
) -> Select[Any]:
    """The valid rows of staged files as typed rows; with `distinct` sorted by key, and only the last row of each.

    With `by_file` of each key the row that counts in each file.
    """
    staging = tables.staging.c
    values = [staging[c.name].cast(c.type).label(c.name) for c in tables.production.c if c.name in staging]
    keys = [value.element for value in values if value.name in dataset.key]
    rows = select(*values).where(among(staging._file_id, ids), staging._rules.is_(None))
    if not distinct:
        return rows
    apart = [*keys, staging._file_id] if by_file else keys
    return rows.distinct(*apart).order_by(*keys, staging._file_id.desc(), *_within_file(dataset, staging))


def _within_file(dataset: Dataset, staging: Any) -> list[ColumnElement[Any]]:
    """The order of rows of one file with the same key: the first of them counts."""
    last = [staging._line.desc(), staging._record.desc()]
    if dataset.duplicates == "first":
        return [staging._line.asc(), staging._record.asc()]
    if isinstance(dataset.duplicates, KeepHighest):
        column = next(c for c in dataset.columns if c.name == dataset.duplicates.column)
        return [staging[column.name].cast(sql_type(column)).desc().nulls_last(), *last]
    return last


def _moments(tables: DatasetTables) -> list[str]:
    """Names of the columns of production that say when a row was written."""
    return [c.name for c in tables.production.c if c.name not in tables.staging.c]


def _fill(
    conn: Connection, dataset: Dataset, tables: DatasetTables, ids: Sequence[int], unique_rows: int | None
) -> defaultdict[int, defaultdict[str, int]]:
    """Fill an empty production table without indexes, which are built afterwards.

    Where the keys are known to be unique, nothing is sorted but what the indexes need: 1.6 s instead of 3 s for 1M rows.
    """
    production = tables.production
    name = conn.dialect.identifier_preparer.format_table(production)
    winners = _valid_rows(dataset, tables, ids, distinct=unique_rows is None)
    rows = first_loaded.with_moments(conn, dataset, winners, _moments(tables))
    with filled_in_bulk(conn, production):
        conn.execute(insert(production).from_select([c.name for c in rows.selected_columns], rows))
        failpoint("load.rows_written")
    failpoint("load.indexes_built")
    conn.execute(text(f"ANALYZE {name}"))
    mark(conn, dataset, None)
    counts: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    if unique_rows is not None:
        counts[ids[0]]["inserted"] = unique_rows
        return counts
    for file_id, count in conn.execute(select(production.c._file_id, func.count()).group_by(production.c._file_id)):
        counts[file_id]["inserted"] = count
    return counts


def _merge(
    conn: Connection,
    dataset: Dataset,
    tables: DatasetTables,
    ids: Sequence[int],
    again: Sequence[int],
    unique_rows: int | None,
) -> defaultdict[int, defaultdict[str, int]]:
    """Merge into production: write what is new or different, and nothing else.

    The rows are joined with production first: `ON CONFLICT DO UPDATE` would lock and log unchanged rows too. Where it is
    known that the valid rows are `unique_rows` different keys of one file, they need not be sorted to find the last of
    each, and the unchanged ones need not be kept to be counted: that halves the time of a reload.
    """
    # Rows of an earlier declaration may have unknown columns, which no later row of theirs has.
    production = kept_unknown(dataset) if _keeps_unknown(conn, tables) else tables.production
    tables = replace(tables, production=production)
    given = {column.name for column in dataset.columns if column.system}
    values = [
        c for c in production.c if c.name in tables.staging.c and c.name not in {*dataset.key, *given, "_file_id"}
    ]
    winners = materialized(conn, "winners", _valid_rows(dataset, tables, ids, distinct=unique_rows is None))
    # Or the planner, which knows nothing of cast values, would hash all of production to look them up.
    conn.execute(text("ANALYZE winners"))
    same_key = and_(*(production.c[name] == winners.c[name] for name in dataset.key))
    differs = _differs(production, winners, [c.name for c in values])
    if again and (places := _places(dataset)):
        # Who stands elsewhere in the same file is another row; in another file, it is the same one come again.
        same_file = production.c._file_id == winners.c._file_id
        differs = or_(differs, and_(same_file, _differs(production, winners, places)))
    later = production.c._file_id > winners.c._file_id
    outcome = case(
        (production.c._file_id.is_(None), "inserted"),
        # A later file of this very batch brought the row, and does not contain it any more, validated again.
        (and_(later, among(production.c._file_id, again)), "updated"),
        (not_(differs), "unchanged"),
        (later, "superseded"),
        else_="updated",
    )
    validated = select(*winners.c, production.c._file_id.label("_brought_by"), outcome.label("_outcome"))
    validated = validated.select_from(winners.outerjoin(production, same_key))
    if unique_rows is not None:
        validated = validated.where(outcome != "unchanged")
    with _looked_up(conn, winners, production):
        incoming = materialized(conn, "incoming", validated)
    if len(ids) > 1 and again:  # An earlier file of this very batch brought the row, and does not say it any more.
        said = _valid_rows(dataset, tables, again, distinct=True, by_file=True).subquery("said")
        theirs = and_(said.c._file_id == incoming.c._brought_by, *(said.c[k] == incoming.c[k] for k in dataset.key))
        same = not_(_differs(said, incoming, [c.name for c in values]))
        is_left = and_(incoming.c._outcome == "unchanged", among(incoming.c._brought_by, again))
        is_left &= and_(incoming.c._brought_by != incoming.c._file_id, not_(exists(select(1).where(theirs, same))))
        conn.execute(update(incoming).where(is_left).values(_outcome="updated"))

    counts: defaultdict[int, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    tally = select(incoming.c._file_id, incoming.c._outcome, func.count()).group_by(
        incoming.c._file_id, incoming.c._outcome
    )
    for file_id, name, count in conn.execute(tally):
        counts[file_id][name] = count
    if unique_rows is not None:
        counts[ids[0]]["unchanged"] = unique_rows - sum(counts[ids[0]].values())

    inserted, updated = (incoming.c._outcome == name for name in ("inserted", "updated"))
    if any(outcomes["inserted"] or outcomes["updated"] for outcomes in counts.values()):
        mark(conn, dataset, select(incoming).where(or_(inserted, updated)))
        moments = _moments(tables)
        rows = select(*(incoming.c[c.name] for c in production.c if c.name not in moments))
        # Asking for conflicts costs half as much again as a plain insert, and it is known that these rows meet none.
        new = first_loaded.with_moments(conn, dataset, rows.where(inserted), moments)
        conn.execute(insert(production).from_select([c.name for c in new.selected_columns], new))
        if any(outcomes["updated"] for outcomes in counts.values()):
            key_of = and_(*(production.c[name] == incoming.c[name] for name in dataset.key))
            mark(conn, dataset, select(production).join(incoming, and_(key_of, updated)))
            first = [column.name for column in dataset.columns if column.system == "first_loaded"]
            changed = rows.where(updated).add_columns(*(NOW.label(name) for name in moments))
            upsert(conn, production, changed, differing=False, kept=first)
        failpoint("load.rows_written")
    if again:
        _retract(conn, dataset, production, incoming, again)
    _requeue_later(conn, dataset, counts)
    return counts


def _keeps_unknown(conn: Connection, tables: DatasetTables) -> bool:
    """True if production has the unknown columns that an earlier declaration kept, and today's does not."""
    name = conn.dialect.identifier_preparer.format_table(tables.production)
    found = text("SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attname = '_extra')")
    return "_extra" not in tables.production.c and bool(conn.scalar(found, {"name": name}))


def _differs(one: FromClause, other: FromClause, names: Sequence[str]) -> ColumnElement[bool]:
    """Whether rows of one key have other values; never where all of their columns are the key."""
    if not names:
        return false()
    return tuple_(*(one.c[name] for name in names)).is_distinct_from(tuple_(*(other.c[name] for name in names)))


@contextmanager
def _looked_up(conn: Connection, few: Table, many: Table) -> Iterator[None]:
    """Have rows looked up by key, one by one, in a table that has several times as many.

    The planner, which does not know that it is in memory, would read all of it: 10 s instead of 2 s for 1M rows beside 10M.
    """
    rows = "(SELECT reltuples FROM pg_class WHERE oid = CAST(:{} AS regclass))"
    names = {"few": few.name, "many": conn.dialect.identifier_preparer.format_table(many)}
    joins = ("enable_hashjoin", "enable_mergejoin")
    lookups = conn.scalar(text(f"SELECT {rows.format('few')} * {LOOKED_UP} < {rows.format('many')}"), names)
    for join in joins if lookups else ():
        conn.execute(text(f"SET LOCAL {join} = off"))
    yield
    for join in joins if lookups else ():
        conn.execute(text(f"SET LOCAL {join} TO DEFAULT"))


def _retract(conn: Connection, dataset: Dataset, production: Table, incoming: Table, again: Sequence[int]) -> None:
    """Take back rows that an earlier load of these files brought and that they, validated again, do not contain.

    The other files of the dataset are queued again: one of them may hold what the row was before, or the same value,
    which left no trace on the row.
    """
    key_of = and_(*(production.c[name] == incoming.c[name] for name in dataset.key))
    orphan = and_(among(production.c._file_id, again), not_(exists(select(1).where(key_of))))
    mark(conn, dataset, select(production).where(orphan))
    first_loaded.remember(conn, dataset, orphan)
    if conn.execute(delete(production).where(orphan)).rowcount:
        _requeue_others(conn, dataset, again)


def take_back(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> None:
    """Take back every row that an earlier load of these files brought: validated again, they are refused.

    The other files of the dataset are queued again, as in `_retract`. The caller holds the lock of loads.
    """
    production = dataset_tables(dataset).production
    theirs = among(production.c._file_id, file_ids)
    mark(conn, dataset, select(production).where(theirs))
    first_loaded.remember(conn, dataset, theirs)
    if conn.execute(delete(production).where(theirs)).rowcount:
        _requeue_others(conn, dataset, file_ids)


def _requeue_others(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> None:
    ledger.return_to_landed(conn, dataset.name, files.c.status == "loaded", files.c.file_id.not_in(list(file_ids)))


def _requeue_later(conn: Connection, dataset: Dataset, counts: defaultdict[int, defaultdict[str, int]]) -> None:
    """Where a file that was loaded late has changed rows, queue the later arrivals again.

    A later file that held the very value that was there left no trace on the row (unchanged rows are not written), so
    its claim to the row is only known by loading it again.
    """
    late = [file_id for file_id, outcomes in counts.items() if outcomes["updated"]]
    if late:
        later = and_(files.c.status == "loaded", files.c.file_id > min(late), files.c.file_id.not_in(list(counts)))
        ledger.return_to_landed(conn, dataset.name, later)
