"""Tables of the computed rows of a dataset: aggregates with their keys, references and surrogates, and views.

Here: the table for a select. Not here: the selects that are refused (`refused.py`), the dependences of a select
(`warehouse/dependence.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    CompoundSelect,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Select,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.types import NullType, TypeEngine

from mini_platform.declare.columns import DeclarationError, nearest
from mini_platform.declare.computed import Aggregate, Computed, View
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.dependence import FILLED, Examined, Other
from mini_platform.warehouse.exactness import stored_type
from mini_platform.warehouse.known_sql import branches, hides, plain_column
from mini_platform.warehouse.tables.columns import columns_read, personal_info
from mini_platform.warehouse.tables.refused import examined_key


def aggregate_table(
    dataset: Dataset,
    aggregate: Aggregate,
    rows: Select[Any],
    production: Table,
    others: Mapping[Table, Other],
    metadata: MetaData,
) -> tuple[Table, Examined]:
    """Return the table of an aggregate, and the result of examining its select."""
    columns = _computed_columns(dataset, aggregate, rows)
    examined = examined_key(dataset, aggregate, rows, production, others)
    for computed in columns:
        computed.nullable = computed.name not in aggregate.key
        computed.info = {**computed.info, FILLED: computed.name not in examined.nullable}
    items: list[SchemaItem] = list(columns)
    if aggregate.surrogate:
        comment = f"Number that was given to the {' and '.join(aggregate.key)} once and for all"
        items = [Column(aggregate.surrogate, BigInteger, comment=comment, autoincrement=False), *columns]
        items.append(UniqueConstraint(*aggregate.key, name=f"{aggregate.name}_key"))
    items.append(PrimaryKeyConstraint(*([aggregate.surrogate] if aggregate.surrogate else aggregate.key)))
    for column in rows.selected_columns:
        if (target := _foreign_key(column, others)) is not None:
            name = f"{aggregate.name}_{column.name}"
            # The referenced row is deleted only with the rows of production it is computed from: so is this row.
            items.append(ForeignKeyConstraint([column.name], [target], name=f"{name}_fkey", ondelete="CASCADE"))
            if aggregate.key != (column.name,):
                items.append(Index(name, column.name))  # Without it, each delete would search the whole table.
    return Table(aggregate.name, metadata, *items, schema="analytics", comment=aggregate.description), examined


def surrogates(aggregate: Aggregate, table: Table, metadata: MetaData) -> Table:
    """Return the table of the numbers of keys. It is not part of the aggregate, which is dropped if its declaration changes."""
    return Table(
        f"surrogates_{aggregate.name}",
        metadata,
        *(
            Column(name, table.c[name].type, primary_key=True, autoincrement=False, info=table.c[name].info)
            for name in aggregate.key
        ),
        Column(aggregate.surrogate, BigInteger, Identity(always=True), nullable=False),
        schema="ops",
        comment=f"Number of each key of analytics.{aggregate.name}, given once and for all",
    )


def view_table(dataset: Dataset, view: View, rows: Select[Any]) -> Table:
    """Return a view as a table, to be read and not to be created as one."""
    columns = _computed_columns(dataset, view, rows)
    return Table(view.name, MetaData(), *columns, schema="analytics", comment=view.description, info={"view": True})


def _computed_columns(dataset: Dataset, computed: Aggregate | View, rows: SelectBase) -> list[Column[Any]]:
    where = f"{dataset.name}.{computed.name}"
    if not isinstance(rows, Select | CompoundSelect):
        raise DeclarationError(f"{where}: its function returns {type(rows).__name__} instead of a SQLAlchemy select")
    selected = rows.selected_columns
    if untyped := [c.name for c in selected if isinstance(c.type, NullType)]:
        raise DeclarationError(f"{where}: give {untyped} a type, as in func.avg(x, type_=Double)")
    names = [column.name for column in selected]
    if undescribed := [name for name in names if name not in computed.columns]:
        raise DeclarationError(f"{where}: columns does not describe {', '.join(undescribed)}, which it selects")
    if unselected := [name for name in computed.columns if name not in names]:
        raise DeclarationError(
            f"{where}: columns describes {', '.join(unselected)}, which it does not select{nearest(unselected[0], names)}"
        )
    columns = []
    for column, *other_branches in zip(*(branch.selected_columns for branch in branches(rows)), strict=True):
        column_type = stored_type(column)
        types = (
            {_postgres_name(type_) for type_ in (column_type, *map(stored_type, other_branches))}
            if other_branches
            else ()
        )
        if len(types) > 1:
            raise DeclarationError(
                f"{where}: the parts of its union have different types for {column.name}, {' and '.join(sorted(types))}: "
                "cast them to one"
            )
        description, *unit = computed.columns[column.name]
        comment = f"{description} [{unit[0]}]" if unit else description
        personal = any(
            read.info.get("personal") for branch in (column, *other_branches) for read in columns_read(branch)
        ) or (dataset.is_personal and any(map(hides, (column, *other_branches))))
        columns.append(
            Column(column.name, column_type, comment=comment, info=personal_info(personal), autoincrement=False)
        )
    _refuse_chart(where, computed, {column.name: column.type for column in columns})
    return columns


def _refuse_chart(where: str, computed: Computed, types: Mapping[str, TypeEngine[Any]]) -> None:
    if computed.chart is None:
        return
    if unknown := [name for name in computed.chart if name not in (*types, *computed.extra_columns)]:
        known = (*types, *computed.extra_columns)
        raise DeclarationError(
            f"{where}: chart names {', '.join(unknown)}, which it does not select{nearest(unknown[0], known)}"
        )
    if not isinstance(types.get(computed.chart[1], BigInteger()), Numeric | Integer):
        raise DeclarationError(
            f"{where}: chart draws {computed.chart[1]}, which is not a number; draw another column, or leave the chart out"
        )


def _postgres_name(type_: TypeEngine[Any]) -> str:
    """Return the name of a type in Postgres; the same for all texts."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return "TEXT" if isinstance(type_, String) else str(type_.compile(dialect=dialect))


def _foreign_key(column: ColumnElement[Any], others: Mapping[Table, Other]) -> Column[Any] | None:
    """Return the surrogate or the key of another aggregate that a column selects; None if it selects neither."""
    origin = plain_column(column)
    if origin is None or not isinstance(origin.table, Table) or (other := others.get(origin.table)) is None:
        return None
    return origin if origin.name == other.aggregate.surrogate or other.aggregate.key == (origin.name,) else None
