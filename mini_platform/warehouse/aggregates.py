"""Aggregates: selects over production, materialized by upsert; only the groups that were touched are computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from mini_platform.dataset import Aggregate, Dataset
from mini_platform.warehouse.locks import advisory_lock
from mini_platform.warehouse.tables import dataset_tables, touched
from mini_platform.warehouse.upsert import materialized, upsert

TOUCHED_GROUPS = 10_000
"""With more touched groups than this, computing all of them in one scan is cheaper than looking each one up."""
TOLERANCE = 1e-9
"""Relative difference up to which floating-point sums, whose last bits depend on the order of the rows, are equal."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: rows written and deleted, and how many groups it computed (None: all)."""

    written: int
    deleted: int
    groups: int | None


def touch(conn: Connection, dataset: Dataset, rows: Select[Any] | None) -> None:
    """Record, in the transaction that changes rows, which groups must be computed again.

    Args:
        conn: the transaction that changes the rows.
        dataset: whose aggregates.
        rows: rows of production, as they are before or after the change; None means every group.
    """
    for aggregate in dataset.aggregates:
        names = (literal(dataset.name), literal(aggregate.name))
        if rows is None:
            marks = select(*names, literal(None, JSONB(none_as_null=True)))
        else:
            source = rows.subquery()
            groups = select(*(source.c[name] for name in aggregate.key)).distinct().limit(TOUCHED_GROUPS + 1).subquery()
            pairs = [item for name in aggregate.key for item in (literal(name), groups.c[name])]
            marks = select(*names, func.jsonb_build_object(*pairs)).select_from(groups)
        conn.execute(insert(touched).from_select(["dataset", "aggregate", "group_key"], marks))


def stale(conn: Connection, dataset: Dataset) -> bool:
    """Whether groups wait to be computed again: a run that loads files and dies leaves nothing but such marks."""
    return bool(conn.scalar(select(exists(select(touched.c.touch_id).where(touched.c.dataset == dataset.name)))))


def refresh(conn: Connection, dataset: Dataset, aggregate: Aggregate, rows: Select[Any]) -> Refreshed:
    """Bring the table of an aggregate up to date with production, in the caller's transaction.

    Args:
        conn: the caller's transaction.
        dataset: whose aggregate.
        aggregate: the declaration.
        rows: the aggregate's select over production.
    """
    tables = dataset_tables(dataset)
    table = tables.aggregates[aggregate.name]
    advisory_lock(conn, "aggregate", dataset.name, aggregate.name)
    mine = and_(touched.c.dataset == dataset.name, touched.c.aggregate == aggregate.name)
    marks = conn.execute(delete(touched).where(mine).returning(touched.c.group_key)).scalars().all()
    if not marks:
        return Refreshed(0, 0, 0)
    inside: ColumnElement[bool] = true()
    groups = None
    if None not in marks and len(marks) <= TOUCHED_GROUPS:
        groups = len(marks)
        given = func.jsonb_array_elements(literal(list(marks), JSONB)).table_valued("value")
        keys = select(*(given.c.value.cast(JSONB)[k].astext.cast(tables.production.c[k].type) for k in aggregate.key))
        inside = tuple_(*(table.c[k] for k in aggregate.key)).in_(keys)
        rows = rows.where(tuple_(*(tables.production.c[k] for k in aggregate.key)).in_(keys))
    fresh = materialized(conn, f"fresh_{table.name}", rows)
    written = upsert(conn, table, select(fresh))
    same = and_(*(fresh.c[k] == table.c[k] for k in aggregate.key))
    gone = conn.execute(delete(table).where(inside, not_(exists(select(1).select_from(fresh).where(same)))))
    fresh.drop(conn)
    return Refreshed(written, gone.rowcount, groups)


def differences(conn: Connection, dataset: Dataset, aggregate: Aggregate, limit: int = 20) -> list[dict[str, Any]]:
    """Compute an aggregate from production anew and compare it with its table; writes nothing.

    Returns:
        One item per differing group: its key, and stored and computed values (None where the group is missing).
    """
    tables = dataset_tables(dataset)
    stored = tables.aggregates[aggregate.name]
    computed = aggregate.select(tables.production).subquery("computed")
    same = and_(*(stored.c[k] == computed.c[k] for k in aggregate.key))
    values = [c for c in stored.c if c.name not in aggregate.key]

    def differs(name: str) -> ColumnElement[bool]:
        a, b = stored.c[name], computed.c[name]
        if isinstance(a.type, Double):
            close = func.abs(a - b) <= TOLERANCE * func.greatest(func.abs(a), func.abs(b))
            return and_(a.is_distinct_from(b), not_(func.coalesce(close, False)))
        return a.is_distinct_from(b)

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
    return [
        {
            "key": {k: row[k] for k in aggregate.key},
            "stored": {v.name: row[f"a_{v.name}"] for v in values},
            "computed": {v.name: row[f"b_{v.name}"] for v in values},
        }
        for row in conn.execute(statement).mappings()
    ]
