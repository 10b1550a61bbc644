"""Dirty groups: marks of groups that must be computed again, for consumers that compute from the rows of a dataset.

A consumer (an aggregate is one) divides the rows of production into groups. Each change of rows marks, in its own
transaction, the groups of every consumer that it affects. A consumer that has computed groups removes their marks: in the
transaction that writes them (`take`), or in two steps, if that is done elsewhere and takes long (`pending`, then
`acknowledge`). Each consumer has marks of its own, so one that falls behind does not hold up others.

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
AGGREGATE_PREFIX = changes.aggregate("")


@dataclass(frozen=True)
class Consumer:
    """A computation from rows of production.

    Attributes:
        name: name in `ops.dirty_groups`.
        group: function from rows of production to the labelled columns that make the key of a row's group; None if all
            groups are computed at once.
    """

    name: str
    group: Callable[[FromClause], Sequence[ColumnElement[Any]]] | None


@dataclass(frozen=True)
class Pending:
    """The marks of a consumer at the time of reading.

    Attributes:
        ids: ids of the marks.
        groups: keys of the marked groups, as JSON; None if all groups are to be computed.
    """

    ids: Sequence[int]
    groups: frozenset[str] | None


def consumers(dataset: Dataset) -> list[Consumer]:
    """Return all consumers of the rows of a dataset."""
    return [_aggregate_consumer(dataset, aggregate) for aggregate in dataset.aggregates]


def _aggregate_consumer(dataset: Dataset, aggregate: Aggregate) -> Consumer:
    name = changes.aggregate(aggregate.name)
    if (columns := dataset_tables(dataset).groups.get(aggregate.name)) is None:
        return Consumer(name, None)
    return Consumer(name, lambda rows: [rows.c[column.name].label(key) for key, column in columns.items()])


def mark(conn: Connection, dataset: Dataset, rows: Select[Any] | None, only: Iterable[Consumer] | None = None) -> None:
    """Mark, in the transaction that changes rows, the groups that must be computed again.

    Args:
        conn: the transaction that changes the rows.
        dataset: dataset of the rows.
        rows: rows of production, as they are before or after the change; None means every group.
        only: consumers whose groups are marked; None means all.
    """
    changes.note(conn, dataset.name, changes.ROWS)
    for consumer in consumers(dataset) if only is None else only:
        marks = _marks(dataset, consumer, rows)
        conn.execute(insert(dirty_groups).from_select(["dataset", "consumer", "group_key"], marks))


def _marks(dataset: Dataset, consumer: Consumer, rows: Select[Any] | None) -> Select[Any]:
    labels = (literal(dataset.name), literal(consumer.name))
    all_groups = select(*labels, literal(None, JSONB(none_as_null=True)))
    if rows is None:
        return all_groups
    if consumer.group is None:
        return all_groups.where(exists(rows))
    groups = select(*consumer.group(rows.subquery())).distinct().limit(MOST_GROUPS + 1).subquery()
    pairs = [item for column in groups.c for item in (literal(column.name), column)]
    return select(*labels, func.jsonb_build_object(*pairs)).select_from(groups)


def mark_all(conn: Connection, dataset: Dataset, consumer: str) -> None:
    """Mark every group of one consumer."""
    conn.execute(insert(dirty_groups).values(dataset=dataset.name, consumer=consumer, group_key=None))


def clear_aggregates(conn: Connection, dataset: Dataset) -> None:
    """Delete the marks of all aggregates of a dataset, declared or not: its tables are created anew."""
    marks = and_(
        dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer.startswith(AGGREGATE_PREFIX, autoescape=True)
    )
    conn.execute(delete(dirty_groups).where(marks))


def take(conn: Connection, dataset: Dataset, consumer: str) -> Sequence[str | None]:
    """Delete and return the marks of a consumer, in the transaction that writes what is computed.

    Returns:
        The key of the group of each mark, as JSON; None for every group.
    """
    # As text, to keep every digit: Python would turn the numbers in it into floats.
    statement = delete(dirty_groups).where(_is_of(dataset, consumer)).returning(dirty_groups.c.group_key.cast(Text))
    return conn.execute(statement).scalars().all()


def pending(conn: Connection, dataset: Dataset, consumer: str) -> Pending:
    """Read the marks of a consumer, in the snapshot in which it reads the rows; they stay until they are acknowledged."""
    statement = select(dirty_groups.c.mark_id, dirty_groups.c.group_key.cast(Text)).where(_is_of(dataset, consumer))
    marks = conn.execute(statement).tuples().all()
    keys = [key for _, key in marks]
    groups = None if None in keys or len(keys) > MOST_GROUPS else frozenset(filter(None, keys))
    return Pending([mark_id for mark_id, _ in marks], groups)


def acknowledge(conn: Connection, marks: Pending) -> None:
    """Delete the marks that were read, in the transaction that publishes what was computed; later ones stay."""
    conn.execute(delete(dirty_groups).where(among(dirty_groups.c.mark_id, marks.ids)))


def is_stale(conn: Connection, dataset: Dataset) -> bool:
    """Return True if groups of an aggregate wait to be computed: of a run that loads files and dies, only marks remain."""
    names = [changes.aggregate(aggregate.name) for aggregate in dataset.aggregates]
    marks = and_(dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer.in_(names))
    return bool(conn.scalar(select(exists(select(dirty_groups.c.mark_id).where(marks)))))


def _is_of(dataset: Dataset, consumer: str) -> ColumnElement[bool]:
    return and_(dirty_groups.c.dataset == dataset.name, dirty_groups.c.consumer == consumer)
