"""Declarations for which no table can be made, refused with a message at declaration and not by every run.

Here: keys of aggregates, and names that are too long or used twice. Not here: the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, String, Table
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.types import JSON

from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import INDEX_BYTES, UTF8_BYTES, Dataset
from mini_platform.declare.reserved import NAME_BYTES
from mini_platform.warehouse.dependence import Examined, Other, examine
from mini_platform.warehouse.known_sql import bare, branches, plain_column
from mini_platform.warehouse.tables.columns import columns_read
from mini_platform.warehouse.tables.ops import platform_tables


def examined_key(
    dataset: Dataset, aggregate: Aggregate, rows: SelectBase, production: Table, others: Mapping[Table, Other]
) -> Examined:
    """Return how an aggregate may be computed; refuse an impossible key, before a row makes every run fail."""
    where = f"{dataset.name}.{aggregate.name}"
    if unknown := set(aggregate.key) - set(rows.selected_columns.keys()):
        raise DeclarationError(f"{where}: its key has {sorted(unknown)}, which it does not select")
    examined = examine(rows, aggregate, production, others)
    for name in aggregate.key:
        element = rows.selected_columns[name]
        if isinstance(element.type, ARRAY | JSON):
            raise DeclarationError(
                f"{where}: {name} is in its key, and a list or an object cannot be in a key: leave it out"
            )
        if name in examined.nullable:
            raise DeclarationError(
                f"{where}: {name} is in its key, which must not be empty, but it may be: leave such rows out with "
                f".where({name}.is_not(None)), or give empty ones a value with func.coalesce({name}, …), where {name} is "
                "the expression"
            )
    positions = [list(rows.selected_columns.keys()).index(name) for name in aggregate.key]
    for branch in branches(rows):
        _check_key_length(dataset, where, [list(branch.selected_columns)[position] for position in positions])
    if examined.unique is False:
        raise DeclarationError(
            f"{where}: several rows of its select may have one key ({', '.join(aggregate.key)}): group by its key alone, or "
            "add to the key the columns that tell the rows apart"
        )
    return examined


def _check_key_length(dataset: Dataset, where: str, key: Iterable[ColumnElement[Any]]) -> None:
    """Refuse a key whose texts may be too long for its index; columns under their own names are bounded already."""
    declared = {column.name: column for column in dataset.columns}
    total = 0
    for element in key:
        if not isinstance(element.type, String) or getattr(plain_column(element), "name", None) == element.key:
            continue
        for name in (origin.name for origin in columns_read(bare(element))):
            column = declared.get(name)
            if column is None or column.type is not str or column.is_protected:
                continue
            length = column.checks.get("str_length")
            longest = length.get("max_value") if isinstance(length, Mapping) else None
            if name not in dataset.index_bounds and not longest:
                raise DeclarationError(
                    f"{where}: its key {element.key} is made of {name}; give {name} a str_length with a max_value, as it is "
                    "indexed"
                )
            total += min(dataset.index_bounds.get(name, INDEX_BYTES), UTF8_BYTES * (longest or INDEX_BYTES))
    if total > INDEX_BYTES:
        raise DeclarationError(
            f"{where}: the texts that its key is made of may have {total:,} bytes, and {INDEX_BYTES:,} can be indexed: give "
            "them a shorter str_length"
        )


Owners = Mapping[tuple[str, str], str]
"""Names that are taken, as schema and name, each with its owner in words."""


def refuse_duplicate_names(names: Iterable[tuple[str, str, str]], others: Owners | None = None) -> Owners:
    """Refuse a name that the platform or one of the others uses, or that is made twice: one table would replace the other.

    Returns:
        All names that are taken now.

    Raises:
        DeclarationError: with the two owners of the name.
    """
    used = {(str(table.schema), table.name): "the platform" for table in platform_tables()} | dict(others or {})
    for schema, name, owner in names:
        if (other := used.setdefault((schema, name), owner)) is not owner:
            raise DeclarationError(
                f"{owner}: {schema}.{name} would be made for it, and for {other}: rename one of them"
            )
    return used


def refuse_long_names(dataset: Dataset, aggregates: Mapping[str, Table]) -> None:
    """Refuse an aggregate for which Postgres would truncate a name.

    Raises:
        DeclarationError: with the longest name.
    """
    for aggregate, table in aggregates.items():
        items: list[Any] = [*table.indexes, *table.constraints]
        names = [str(item.name) for item in items if item.name]
        if long := [name for name in names if len(name.encode()) > NAME_BYTES]:
            raise DeclarationError(
                f"{dataset.name}.{aggregate}: Postgres takes names of up to {NAME_BYTES} bytes, and {max(long, key=len)} would "
                "be made for one of its columns: shorten the name of the aggregate or of the column"
            )
