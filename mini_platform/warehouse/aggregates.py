"""Aggregates: selects over production and over each other, materialized by upsert; dirty groups alone are computed again."""

from __future__ import annotations

import re
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
"""An empty table that is computed from more rows than this is filled without indexes and constraints."""
OF_VALUES = ("21", "22", "23", "54")
"""Classes of SQLSTATE of what can be computed, and not for these values: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
HELP: Mapping[str, str] = {
    "22012": "divide by func.nullif(…, 0)",
    "22003": "give it a wider type, as type_=BigInteger or .cast(Numeric)",
    "23502": "leave those rows out by where(….is_not(None)), or name them by func.coalesce(…, …)",
    "21000": "take one of them, as by func.max(…)",
}
"""What to declare instead, by SQLSTATE."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: rows written and deleted, and how many groups it computed (None: all)."""

    written: int
    deleted: int
    groups: int | None


@contextmanager
def in_words(dataset: Dataset, computed: Aggregate | View) -> Iterator[None]:
    """Have a select that fails for the rows that there are said in a sentence, which shows no value of personal data.

    Raises:
        DeclarationError: Postgres cannot compute it.
    """
    try:
        yield
    except DBAPIError as error:
        code = str(getattr(error.orig, "pgcode", None))
        if not code.startswith(OF_VALUES):
            raise
        said = str(error.orig.diag.message_primary)  # type: ignore[union-attr]
        if dataset.is_personal:
            said = re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error.orig).__name__).lower()
        raise DeclarationError(
            f"{dataset.name}.{computed.name}: Postgres cannot compute its select for the rows that there are: {said}; "
            f"{HELP.get(code, 'compute it only where it can be, as by case(…)')}. The rows are loaded, and what was computed "
            "before stays"
        ) from None  # Which shows rows.


def refresh(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    """Bring the table of an aggregate up to date with production, in the caller's transaction.

    The aggregates that it reads are brought up to date before, once its own marks are taken: so they know all that the
    groups to be computed refer to, whatever is loaded meanwhile. All of them are locked before that (see `locks.py`).

    Args:
        conn: the caller's transaction.
        dataset: whose aggregate.
        aggregate: the declaration.
        rows: the aggregate's select.

    Raises:
        DeclarationError: the select has two rows of one key, or cannot be computed for the rows that there are.
    """
    with in_words(dataset, aggregate):
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
    given = func.jsonb_array_elements(literal(f"[{','.join(filter(None, marks))}]").cast(JSONB)).table_valued("value")
    keys = select(*(given.c.value.cast(JSONB)[k].astext.cast(column.type) for k, column in groups.items()))
    inside = tuple_(*(table.c[k] for k in groups)).in_(keys)
    rows = rows.where(tuple_(*groups.values()).in_(keys))
    return _merge(conn, dataset, aggregate, rows, inside, len(marks))


def _is_bulk(conn: Connection, production: Table, table: Table) -> bool:
    """Whether an empty table is to be filled from many rows."""
    if not is_empty(conn, table):
        return False
    some = select(literal(1)).select_from(production).limit(BULK_ROWS + 1).subquery()
    return (conn.scalar(select(func.count()).select_from(some)) or 0) > BULK_ROWS


def _fill(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    """Fill an empty table without its indexes and constraints, which are built afterwards."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    fresh = None
    if aggregate.surrogate or dataset_tables(dataset).examined[aggregate.name].unique is None:
        fresh = _computed(conn, dataset, aggregate, rows)
        rows = _numbered(conn, dataset, aggregate, fresh) if aggregate.surrogate else select(fresh)
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
    inside: ColumnElement[bool],
    groups: int | None,
) -> Refreshed:
    """Write the rows that differ, and delete those that are inside of what was computed and not among them."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    fresh = _computed(conn, dataset, aggregate, rows)
    numbered = _numbered(conn, dataset, aggregate, fresh) if aggregate.surrogate else select(fresh)
    same = and_(*(fresh.c[k] == table.c[k] for k in aggregate.key))
    gone = conn.execute(delete(table).where(inside, not_(exists(select(1).select_from(fresh).where(same)))))
    held, computed = (conn.scalar(select(func.count()).select_from(t)) or 0 for t in (table, fresh))
    if table.foreign_key_constraints and computed - held > BULK_ROWS and owns(conn, table):
        # Many new rows: whether they refer to something is asked once for all, and not row by row.
        drop_foreign_keys(conn, table)
        written = upsert(conn, table, numbered)
        build_foreign_keys(conn, table)
    else:
        written = upsert(conn, table, numbered)
    fresh.drop(conn)
    return Refreshed(written, gone.rowcount, groups)


def _computed(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Table:
    """The computed rows; where it was not known before, it is looked whether their keys are unique."""
    fresh = materialized(conn, "fresh", rows)
    tables = dataset_tables(dataset)
    if tables.examined[aggregate.name].unique is None:
        stored = tables.aggregates[aggregate.name]
        key = [fresh.c[name].cast(stored.c[name].type) for name in aggregate.key]
        if conn.execute(select(*key).group_by(*key).having(func.count() > 1).limit(1)).first() is not None:
            raise DeclarationError(
                f"{dataset.name}.{aggregate.name}: several rows of its select have one key ({', '.join(aggregate.key)}): "
                "group by its key, or add to the key what else tells the rows apart"
            )
    return fresh


def _numbered(conn: Connection, dataset: Dataset, aggregate: Aggregate, fresh: Table) -> Select[Any]:
    """Computed rows with their surrogates; a key that has none is given the next number."""
    numbers = dataset_tables(dataset).surrogates[aggregate.name]
    same = and_(*(fresh.c[k] == numbers.c[k] for k in aggregate.key))
    new = select(*(fresh.c[k] for k in aggregate.key)).where(not_(exists(select(1).select_from(numbers).where(same))))
    conn.execute(insert(numbers).from_select(list(aggregate.key), new.order_by(*(fresh.c[k] for k in aggregate.key))))
    return select(numbers.c[str(aggregate.surrogate)], *fresh.c).join_from(fresh, numbers, same)


def differences(conn: Connection, dataset: Dataset, aggregate: Aggregate, limit: int = 20) -> list[dict[str, Any]]:
    """Compute an aggregate from production anew and compare it with its table; writes nothing.

    Returns:
        One item per differing group: its key, and stored and computed values (None where the group is missing).

    Raises:
        DeclarationError: it cannot be computed for the rows that there are.
    """
    tables = dataset_tables(dataset)
    stored = tables.aggregates[aggregate.name]
    rows = tables.rows(aggregate)
    inexact = errors(rows)
    known = {name: f"_error_{n}" for n, (name, error) in enumerate(inexact.items()) if error is not None}
    if known:
        rows = rows.add_columns(*(inexact[name].label(error) for name, error in known.items()))  # type: ignore[union-attr]
    if aggregate.surrogate:
        found, numbers = rows.subquery(), tables.surrogates[aggregate.name]
        given = and_(*(found.c[k] == numbers.c[k] for k in aggregate.key))
        rows = select(numbers.c[aggregate.surrogate], *found.c).select_from(found.outerjoin(numbers, given))
    computed = rows.subquery("computed")
    same = and_(*(stored.c[k] == computed.c[k] for k in aggregate.key))
    values = [c for c in stored.c if c.name not in aggregate.key]

    def differs(name: str) -> ColumnElement[bool]:
        a = stored.c[name]
        b = computed.c[name].cast(a.type)  # As it would be stored.
        close: ColumnElement[bool] = false()
        if name in known:
            close = func.abs(a - b) <= computed.c[known[name]]
        elif name not in inexact and isinstance(a.type, Double):
            close = func.abs(a - b) <= GUESS * func.greatest(func.abs(a), func.abs(b))
        return and_(a.is_distinct_from(b), not_(func.coalesce(close, False)))

    first = aggregate.key[0]
    statement = (
        select(
            *(func.coalesce(stored.c[k], computed.c[k]).label(k) for k in aggregate.key),
            *(stored.c[v.name].label(f"a_{v.name}") for v in values),
            *(computed.c[v.name].label(f"b_{v.name}") for v in values),
        )
        .select_from(stored.join(computed, same, full=True))
        .where(or_(stored.c[first].is_(None), computed.c[first].is_(None), *(differs(v.name) for v in values)))
        .limit(limit)
    )
    with in_words(dataset, aggregate):
        differing = conn.execute(statement).mappings().all()
    return [
        {
            "key": {k: row[k] for k in aggregate.key},
            "stored": {v.name: row[f"a_{v.name}"] for v in values},
            "computed": {v.name: row[f"b_{v.name}"] for v in values},
        }
        for row in differing
    ]
