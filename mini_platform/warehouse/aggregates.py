"""Aggregates: selects over production and each other, materialized by upsert; only dirty groups are recomputed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    Table,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import changes
from mini_platform.warehouse.bulk import build_foreign_keys, drop_foreign_keys, filled_in_bulk, is_empty, owns
from mini_platform.warehouse.dirty_groups import MOST_GROUPS, take
from mini_platform.warehouse.exactness import GUESS, errors
from mini_platform.warehouse.locks import lock_aggregates
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.upsert import materialized, upsert

BULK_ROWS = 20_000
"""An empty table is filled without indexes and constraints if production has more rows than this."""
VALUE_ERROR_CLASSES = ("21", "22", "23", "54")
"""SQLSTATE classes of errors that depend on values, not on the statement: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
REMEDIES: Mapping[str, str] = {
    "22012": "divide by func.nullif(…, 0)",
    "22003": "give it a wider type, as type_=BigInteger or .cast(Numeric)",
    "23502": "leave those rows out by where(….is_not(None)), or name them by func.coalesce(…, …)",
    "21000": "take one of them, as by func.max(…)",
}
"""SQLSTATE -> advice what to declare instead."""


@dataclass(frozen=True)
class Refreshed:
    """The result of a refresh: rows written and deleted, and the number of groups computed (None: all)."""

    written: int
    deleted: int
    groups: int | None


@contextmanager
def translate_errors(dataset: Dataset, computed: Aggregate | View) -> Iterator[None]:
    """Raise errors of a select that fails for the present values as a sentence, which shows no value.

    Raises:
        DeclarationError: Postgres cannot compute the select.
    """
    try:
        yield
    except DBAPIError as error:
        code = str(getattr(error.orig, "pgcode", None))
        if not code.startswith(VALUE_ERROR_CLASSES):
            raise
        raise DeclarationError(
            f"{dataset.name}.{computed.name}: Postgres cannot compute its select for the present rows: {error.orig}; "
            f"{REMEDIES.get(code, 'compute it only for rows where that is possible, as by case(…)')}. The rows are loaded, and "
            "earlier results stay"
        ) from None  # The original error shows rows.


def refresh(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    """Bring the table of an aggregate up to date with production, in the caller's transaction.

    The aggregates that it reads are refreshed after its own marks are taken and before it is computed: so they contain
    whatever the dirty groups refer to, even if files are loaded meanwhile. All are locked before that (see `locks.py`).

    Args:
        conn: connection with the caller's transaction.
        dataset: dataset of the aggregate.
        aggregate: declaration of the aggregate.
        rows: select of the aggregate.

    Raises:
        DeclarationError: the select has two rows of one key, or cannot be computed for the present rows.
    """
    with translate_errors(dataset, aggregate):
        return _refresh(conn, dataset, aggregate, rows)


def _refresh(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    tables = dataset_tables(dataset)
    table = tables.aggregates[aggregate.name]
    lock_aggregates(conn, dataset, aggregate)
    marks = take(conn, dataset, changes.aggregate(aggregate.name))
    if not marks:
        return Refreshed(0, 0, 0)
    changes.note(conn, dataset.name, changes.aggregate(aggregate.name))
    for other in dataset.aggregates:
        if other.name in aggregate.reads:
            refresh(conn, dataset, other, tables.rows(other))
    groups = tables.groups.get(aggregate.name)
    conn.execute(text("SET LOCAL work_mem = '256MB'"))
    conn.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
    if groups is None or None in marks or len(marks) > MOST_GROUPS:
        if _is_bulk(conn, tables.production, table):
            return _fill(conn, dataset, aggregate, rows)
        return _merge(conn, dataset, aggregate, rows, true(), None)
    marked = func.jsonb_array_elements(literal(f"[{','.join(filter(None, marks))}]").cast(JSONB)).table_valued("value")
    keys = select(*(marked.c.value.cast(JSONB)[k].astext.cast(column.type) for k, column in groups.items()))
    in_marked_groups = tuple_(*(table.c[k] for k in groups)).in_(keys)
    rows = rows.where(tuple_(*groups.values()).in_(keys))
    return _merge(conn, dataset, aggregate, rows, in_marked_groups, len(marks))


def _is_bulk(conn: Connection, production: Table, table: Table) -> bool:
    """True if a table is empty and is to be filled from many rows."""
    if not is_empty(conn, table):
        return False
    sample = select(literal(1)).select_from(production).limit(BULK_ROWS + 1).subquery()
    return (conn.scalar(select(func.count()).select_from(sample)) or 0) > BULK_ROWS


def _fill(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    """Fill an empty table without its indexes and constraints; build them afterwards."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    fresh = None
    if aggregate.surrogate or dataset_tables(dataset).examined[aggregate.name].unique is None:
        fresh = _compute(conn, dataset, aggregate, rows)
        rows = _with_surrogates(conn, dataset, aggregate, fresh) if aggregate.surrogate else select(fresh)
    with filled_in_bulk(conn, table):
        written = conn.execute(insert(table).from_select([c.name for c in rows.selected_columns], rows)).rowcount
    if fresh is not None:
        fresh.drop(conn)
    conn.execute(text(f"ANALYZE {conn.dialect.identifier_preparer.format_table(table)}"))
    return Refreshed(written, 0, None)


def _merge(
    conn: Connection,
    dataset: Dataset,
    aggregate: Aggregate,
    rows: Select[Any],
    in_scope: ColumnElement[bool],
    groups: int | None,
) -> Refreshed:
    """Write the rows that differ, and delete rows that are in scope of the computation but not in its result."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    fresh = _compute(conn, dataset, aggregate, rows)
    numbered = _with_surrogates(conn, dataset, aggregate, fresh) if aggregate.surrogate else select(fresh)
    same_key = and_(*(fresh.c[k] == table.c[k] for k in aggregate.key))
    deleted = conn.execute(delete(table).where(in_scope, not_(exists(select(1).select_from(fresh).where(same_key)))))
    stored_count, computed_count = (conn.scalar(select(func.count()).select_from(t)) or 0 for t in (table, fresh))
    if table.foreign_key_constraints and computed_count - stored_count > BULK_ROWS and owns(conn, table):
        # Many new rows: their references are checked by one statement, not row by row.
        drop_foreign_keys(conn, table)
        written = upsert(conn, table, numbered)
        build_foreign_keys(conn, table)
    else:
        written = upsert(conn, table, numbered)
    fresh.drop(conn)
    return Refreshed(written, deleted.rowcount, groups)


def _compute(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Table:
    """Compute the rows into a temporary table; check their keys for uniqueness unless that is known from the select."""
    fresh = materialized(conn, "fresh", rows)
    tables = dataset_tables(dataset)
    if tables.examined[aggregate.name].unique is None:
        stored = tables.aggregates[aggregate.name]
        key = [fresh.c[name].cast(stored.c[name].type) for name in aggregate.key]
        if conn.execute(select(*key).group_by(*key).having(func.count() > 1).limit(1)).first() is not None:
            raise DeclarationError(
                f"{dataset.name}.{aggregate.name}: several rows of its select have one key ({', '.join(aggregate.key)}): "
                "group by its key, or add the columns to the key that distinguish the rows"
            )
    return fresh


def _with_surrogates(conn: Connection, dataset: Dataset, aggregate: Aggregate, fresh: Table) -> Select[Any]:
    """Return a select of the computed rows with their surrogates; keys without one get the next number."""
    numbers = dataset_tables(dataset).surrogates[aggregate.name]
    same_key = and_(*(fresh.c[k] == numbers.c[k] for k in aggregate.key))
    new = select(*(fresh.c[k] for k in aggregate.key)).where(
        not_(exists(select(1).select_from(numbers).where(same_key)))
    )
    conn.execute(insert(numbers).from_select(list(aggregate.key), new.order_by(*(fresh.c[k] for k in aggregate.key))))
    return select(numbers.c[str(aggregate.surrogate)], *fresh.c).join_from(fresh, numbers, same_key)


def differences(conn: Connection, dataset: Dataset, aggregate: Aggregate, limit: int = 20) -> list[dict[str, Any]]:
    """Recompute an aggregate from production and compare it with its table; nothing is written.

    Returns:
        One item per differing group: its key, and stored and computed values (None where the group is missing).

    Raises:
        DeclarationError: it cannot be computed for the present rows.
    """
    tables = dataset_tables(dataset)
    stored = tables.aggregates[aggregate.name]
    rows = tables.rows(aggregate)
    bounds = errors(rows)
    bound_names = {name: f"_error_{n}" for n, (name, bound) in enumerate(bounds.items()) if bound is not None}
    if bound_names:
        rows = rows.add_columns(*(bounds[name].label(bound) for name, bound in bound_names.items()))  # type: ignore[union-attr]
    if aggregate.surrogate:
        selected, numbers = rows.subquery(), tables.surrogates[aggregate.name]
        same_numbered_key = and_(*(selected.c[k] == numbers.c[k] for k in aggregate.key))
        rows = select(numbers.c[aggregate.surrogate], *selected.c).select_from(
            selected.outerjoin(numbers, same_numbered_key)
        )
    computed = rows.subquery("computed")
    same_key = and_(*(stored.c[k] == computed.c[k] for k in aggregate.key))
    values = [c for c in stored.c if c.name not in aggregate.key]

    def differs(name: str) -> ColumnElement[bool]:
        stored_value = stored.c[name]
        computed_value = computed.c[name].cast(stored_value.type)  # As it would be stored.
        is_close: ColumnElement[bool] = false()
        if name in bound_names:
            is_close = func.abs(stored_value - computed_value) <= computed.c[bound_names[name]]
        elif name not in bounds and isinstance(stored_value.type, Double):
            is_close = func.abs(stored_value - computed_value) <= GUESS * func.greatest(
                func.abs(stored_value), func.abs(computed_value)
            )
        return and_(stored_value.is_distinct_from(computed_value), not_(func.coalesce(is_close, False)))

    first = aggregate.key[0]
    statement = (
        select(
            *(func.coalesce(stored.c[k], computed.c[k]).label(k) for k in aggregate.key),
            *(stored.c[v.name].label(f"a_{v.name}") for v in values),
            *(computed.c[v.name].label(f"b_{v.name}") for v in values),
        )
        .select_from(stored.join(computed, same_key, full=True))
        .where(or_(stored.c[first].is_(None), computed.c[first].is_(None), *(differs(v.name) for v in values)))
        .limit(limit)
    )
    with translate_errors(dataset, aggregate):
        differing = conn.execute(statement).mappings().all()
    return [
        {
            "key": {k: row[k] for k in aggregate.key},
            "stored": {v.name: row[f"a_{v.name}"] for v in values},
            "computed": {v.name: row[f"b_{v.name}"] for v in values},
        }
        for row in differing
    ]
