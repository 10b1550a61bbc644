"""Dirty groups: marks of what must be computed again, for whoever computes something from the rows of a dataset.

Such a consumer (an aggregate is one) parts the rows of production into groups. Each change of rows marks, in its own
transaction, the groups of every consumer that it touches. Who has computed groups takes their marks away: in the transaction
that writes them (`take`), or in two steps, where that is done elsewhere and takes its time (`pending`, then `acknowledge`).
Each has marks of its own, so one that falls behind holds up nobody.

Not here: computing (`aggregates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import changes
from mini_platform.warehouse.tables import among, dataset_tables, dirty_groups

MOST_GROUPS = 10_000
"""With more dirty groups than this, computing all of them in one scan is cheaper than looking each one up."""
OF_AGGREGATES = changes.aggregate("")


@dataclass(frozen=True)
class Consumer:
    """Who computes something from rows of production.

    Attributes:
        name: in `ops.dirty_groups`.
        group: of rows of production, the labelled columns that make the key of a row's group; None where the whole is
            computed at once.
    """

    name: str
    group: Callable[[FromClause], Sequence[ColumnElement[Any]]] | None


@dataclass(frozen=True)
class Pending:
    """Marks as they were read.

    Attributes:
        ids: of the marks.
        groups: keys of the marked groups, as JSON; None where all of them are to be computed.
    """

    ids: Sequence[int]
    groups: frozenset[str] | None


def consumers(dataset: Dataset) -> list[Consumer]:
    """Return everyone who computes something from the rows of a dataset."""
    return [_of_aggregate(dataset, aggregate) for aggregate in dataset.aggregates]


def _of_aggregate(dataset: Dataset, aggregate: Aggregate) -> Consumer:
    name = changes.aggregate(aggregate.name)
    if (columns := dataset_tables(dataset).groups.get(aggregate.name)) is None:
        return Consumer(name, None)
    return Consumer(name, lambda rows: [rows.c[column.name].label(key) for key, column in columns.items()])


def mark(conn: Connection, dataset: Dataset, rows: Select[Any] | None, of: Iterable[Consumer] | None = None) -> None:
    """Mark, in the transaction that changes rows, the groups that must be computed again.

    Args:
        conn: the transaction that changes the rows.
        dataset: whose.
        rows: rows of production, as they are before or after the change; None means every group.
        of: whose groups; everyone's unless it is said.
    """
    changes.note(conn, dataset.name, changes.ROWS)
    for consumer in consumers(dataset) if of is None else of:
        marks = _marks(dataset, consumer, rows)
        conn.execute(insert(dirty_groups).from_select(["dataset", "consumer", "group_key"], marks))


def _marks(dataset: Dataset, consumer: Consumer, rows: Select[Any] | None) -> Select[Any]:
    names = (literal(dataset.name), literal(consumer.name))
    every = select(*names, literal(None, JSONB(none_as_null=True)))
    if rows is None:
        return every
    if consumer.group is None:
        return every.where(exists(rows))
    groups = select(*consumer.group(rows.subquery())).distinct().limit(MOST_GROUPS + 1).subquery()
    pairs = [item for column in groups.c for item in (literal(column.name), column)]
    return select(*names, func.jsonb_build_object(*pairs)).select_from(groups)


def mark_all(conn: Connection, dataset: Dataset, consumer: str) -> None:
    """Mark every group of one consumer."""
    conn.execute(insert(dirty_groups).values(dataset=dataset.name, consumer=consumer, group_key=None))


def clear_aggregates(conn: Connection, dataset: Dataset) -> None:
    """Take away the marks of all aggregates of a dataset, declared or not: its tables are made anew."""
    mine = and_(
        dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer.startswith(OF_AGGREGATES, autoescape=True)
    )
    conn.execute(delete(dirty_groups).where(mine))


def take(conn: Connection, dataset: Dataset, consumer: str) -> Sequence[str | None]:
    """Take the marks of a consumer away, in the transaction that writes what is computed.

    Returns:
        Of each mark the key of its group, as JSON; None for every group.
    """
    # As text, of which every digit is kept: Python would make floats of the numbers in it.
    taken = delete(dirty_groups).where(_of(dataset, consumer)).returning(dirty_groups.c.group_key.cast(Text))
    return conn.execute(taken).scalars().all()


def pending(conn: Connection, dataset: Dataset, consumer: str) -> Pending:
    """Read the marks of a consumer, in the snapshot in which it reads the rows; they stay until they are acknowledged."""
    found = select(dirty_groups.c.mark_id, dirty_groups.c.group_key.cast(Text)).where(_of(dataset, consumer))
    marks = conn.execute(found).tuples().all()
    keys = [key for _, key in marks]
    groups = None if None in keys or len(keys) > MOST_GROUPS else frozenset(filter(None, keys))
    return Pending([mark_id for mark_id, _ in marks], groups)


def acknowledge(conn: Connection, marks: Pending) -> None:
    """Take away the marks that were read, in the transaction that publishes what was computed; later ones stay."""
    conn.execute(delete(dirty_groups).where(among(dirty_groups.c.mark_id, marks.ids)))


def is_stale(conn: Connection, dataset: Dataset) -> bool:
    """True if groups of an aggregate wait to be computed: a run that loads files and dies leaves nothing but such marks."""
    names = [changes.aggregate(aggregate.name) for aggregate in dataset.aggregates]
    mine = and_(dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer.in_(names))
    return bool(conn.scalar(select(exists(select(dirty_groups.c.mark_id).where(mine)))))


def _of(dataset: Dataset, consumer: str) -> ColumnElement[bool]:
    return and_(dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer == consumer)
