"""Tables of a dataset, derived from its declaration.

Here: staging, production, quarantine, first-loaded times of deleted rows, and all of a dataset's tables together. Not here:
tables of computed rows (`computed.py`), creating tables (`warehouse/schema.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    Select,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from mini_platform.declare.columns import DeclarationError, placed, reported
from mini_platform.declare.computed import Computed
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.dependence import Examined, Other
from mini_platform.warehouse.page_rows import PageRows
from mini_platform.warehouse.tables.columns import (
    RECORD,
    as_text,
    extra_column,
    hidden,
    personal_info,
    raw_column,
    sql_type,
)
from mini_platform.warehouse.tables.computed import aggregate_table, surrogates, view_table
from mini_platform.warehouse.tables.refused import Owners, refuse_duplicate_names, refuse_long_names

LASTING = {"first_loaded": "When the row was first loaded", "surrogate": "Number of the row"}
"""System columns whose value a key keeps if its row is deleted and comes back, with their comments."""


@dataclass(frozen=True)
class DatasetTables:
    """The tables of one dataset, by kind; `places.py` lists those that store rows."""

    staging: Table
    production: Table
    quarantine: Table
    aggregates: dict[str, Table]
    views: dict[str, Table]
    surrogates: dict[str, Table]
    """Tables with the number of each key, for the aggregates that have a surrogate."""
    gone: Table | None
    """Table of the first-loaded times and numbers of deleted rows that may come back; None if the dataset has neither."""
    examined: dict[str, Examined]
    """Result of examining the select of each aggregate."""

    @property
    def groups(self) -> dict[str, Mapping[str, Column[Any]]]:
        """Return for each aggregate that can be computed by group: key column -> the column of production that it is."""
        return {name: examined.groups for name, examined in self.examined.items() if examined.groups is not None}

    def rows(self, computed: Computed) -> Select[Any]:
        """Return the select of an aggregate or a view."""
        return computed.select(self.production, *((self.aggregates | self.views)[name] for name in computed.reads))


@cache
def dataset_tables(dataset: Dataset) -> DatasetTables:
    """Derive the tables of a dataset from its declaration.

    Raises:
        DeclarationError: an aggregate, a view or the page cannot be made as declared.
    """
    metadata = MetaData()
    production = _production(dataset, metadata)
    gone = None
    if any(column.is_lasting for column in dataset.columns):
        gone = _gone(dataset, production, metadata)
    tables = DatasetTables(
        _staging(dataset, metadata), production, _quarantine(dataset, metadata), {}, {}, {}, gone, {}
    )
    others: dict[Table, Other] = {}
    for aggregate in dataset.aggregates:
        with placed(aggregate):
            rows = _selected(dataset, aggregate, tables)
            table, examined = aggregate_table(dataset, aggregate, rows, production, others, metadata)
        if aggregate.surrogate:
            tables.surrogates[aggregate.name] = surrogates(aggregate, table, metadata)
        tables.examined[aggregate.name] = examined
        tables.aggregates[aggregate.name] = table
        others[table] = Other(aggregate, examined)
    for view in dataset.views:
        with placed(view):
            tables.views[view.name] = view_table(dataset, view, _selected(dataset, view, tables))
    with placed(dataset):
        refuse_duplicate_names(computed_names(dataset, tables))
        refuse_long_names(dataset, tables.aggregates)
    if dataset.page is not None:
        with placed(dataset.page):
            PageRows(dataset, dataset.page, tables)  # Raises if it cannot be made.
    return tables


def without_tables(datasets: Iterable[Dataset]) -> dict[str, DeclarationError]:
    """Return the datasets for which no tables can be made, by name, each with the reason.

    Of two that would have a table or an index of the same name, it is the later one.
    """
    refused: dict[str, DeclarationError] = {}
    used: Owners = {}
    for dataset in datasets:
        try:
            with reported(f"dataset {dataset.name}"):
                used = refuse_duplicate_names(computed_names(dataset, dataset_tables(dataset)), used)
        except DeclarationError as error:
            refused[dataset.name] = error
    return refused


def _selected(dataset: Dataset, computed: Computed, tables: DatasetTables) -> Select[Any]:
    """Return the select of an aggregate or a view; refuse one whose function fails, as on a column that does not exist."""
    try:
        return tables.rows(computed)
    except Exception as error:  # A function of a user may raise anything.
        where = f"{dataset.name}.{computed.name}"
        reason = (
            f"names {error.args[0]}, which its table lacks"
            if isinstance(error, AttributeError | KeyError)
            else f"fails with {type(error).__name__}: {error}"
        )
        raise DeclarationError(f"{where}: its function {reason}") from error


def _staging(dataset: Dataset, metadata: MetaData) -> Table:
    return Table(
        dataset.table,
        metadata,
        Column("_file_id", BigInteger, nullable=False, comment="ops.files"),
        Column("_line", BigInteger, nullable=False, comment="Line of the file on which the row starts"),
        Column("_record", BigInteger, server_default=text("0"), comment=RECORD),
        Column("_rules", ARRAY(Text), comment="Names of the rules it breaks; NULL for a valid row"),
        Column("_reasons", ARRAY(Text), comment="The same as sentences"),
        raw_column(dataset),
        extra_column(dataset),
        *(as_text(dataset, column) for column in (*dataset.staged_columns, *dataset.adopted_columns)),
        schema="staging",
        # Unlogged: after a crash of the server, which empties it, its rows are made again from the raw files.
        prefixes=["UNLOGGED"],
        comment=f"Every row of the files being loaded, valid or not, as text. {dataset.description}",
    )


def _production(dataset: Dataset, metadata: MetaData) -> Table:
    return Table(
        dataset.table,
        metadata,
        *(
            Column(
                c.name,
                sql_type(c),
                *([Identity()] if c.system == "surrogate" else []),
                primary_key=c.name in dataset.key,
                # Otherwise SQLAlchemy makes a key of a single number a counter.
                autoincrement="auto" if c.system == "surrogate" else False,
                nullable=c.nullable,
                comment=c.comment,
                info=personal_info(hidden(c)),
            )
            for c in sorted(dataset.stored_columns, key=lambda c: c.name not in dataset.key)
        ),
        Column("_file_id", BigInteger, nullable=False, comment="File that brought these values: ops.files"),
        Column("_loaded_at", DateTime(timezone=True), nullable=False, comment="When they were written"),
        *([extra_column(dataset)] if dataset.unexpected_columns == "keep" else []),
        *(Index(f"{dataset.table}_{name}", name) for name in dataset.indexes if name not in dataset.surrogates),
        *(Index(f"{dataset.table}_{name}", name, unique=True) for name in dataset.surrogates),
        schema="production",
        comment=dataset.description,
        info={"dataset": dataset.name},
    )


def _quarantine(dataset: Dataset, metadata: MetaData) -> Table:
    return Table(
        dataset.table,
        metadata,
        Column("_file_id", BigInteger, primary_key=True, comment="ops.files"),
        Column("_line", BigInteger, primary_key=True, comment="Line of the file on which the row starts"),
        Column("_record", BigInteger, primary_key=True, server_default=text("0"), autoincrement=False, comment=RECORD),
        Column("_rules", ARRAY(Text), nullable=False, comment="Names of the rules it breaks"),
        Column("_reasons", ARRAY(Text), nullable=False, comment="The same as sentences"),
        raw_column(dataset),
        extra_column(dataset),
        Column("_quarantined_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        *(as_text(dataset, column) for column in (*dataset.staged_columns, *dataset.adopted_columns)),
        schema="quarantine",
        comment=f"Rejected rows with their reasons. {dataset.description}",
    )


def _gone(dataset: Dataset, production: Table, metadata: MetaData) -> Table:
    return Table(
        f"gone_{dataset.table}",
        metadata,
        *(
            Column(c.name, c.type, primary_key=True, autoincrement=False, info=c.info)
            for c in production.primary_key.columns
        ),
        *(
            Column(f"_{system}", sql_type(c), nullable=False, comment=LASTING[system])
            for system, c in {str(c.system): c for c in dataset.columns if c.is_lasting}.items()
        ),
        Column("_last_file", BigInteger, nullable=False, comment="The last file that had arrived when it was deleted"),
        schema="ops",
        comment=f"Deleted rows of production.{dataset.table} that files which wait to be loaded again may bring back",
    )


def computed_names(dataset: Dataset, tables: DatasetTables) -> Iterator[tuple[str, str, str]]:
    """Yield schema, name and owner of each table and index of aggregates and views, whose schemas other datasets use too."""
    for name, table in (*tables.aggregates.items(), *tables.views.items(), *tables.surrogates.items()):
        indexed: list[Any] = [*table.indexes, *(c for c in table.constraints if isinstance(c, UniqueConstraint))]
        yield from ((str(table.schema), str(item.name), f"{dataset.name}.{name}") for item in (table, *indexed))


@cache
def production_with_extra(dataset: Dataset) -> Table:
    """Return production with the column of unexpected columns that an earlier declaration of the dataset kept."""
    table = dataset_tables(dataset).production.to_metadata(MetaData())
    table.append_column(extra_column(dataset))
    return table
