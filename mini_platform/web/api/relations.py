"""Relations: everything that can be listed, each with described columns and something to select from.

Here: production rows, derived tables, the ledger, rejected rows, the quality report. Not here: parsing of requests (`query.py`)
and responses (`datasets.py`, `export.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Table,
    Text,
    case,
    func,
    literal,
    select,
    true,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import array

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.reserved import PERSONAL
from mini_platform.rows.protection import DIGIT, LETTER, MASK, NOT_IDENTIFYING, SHAPE_CHARACTERS
from mini_platform.warehouse.filters import python_type
from mini_platform.warehouse.tables import COUNTERS, dataset_tables, quality_report
from mini_platform.warehouse.tables import audit as trail
from mini_platform.warehouse.tables import files as ledger
from mini_platform.web.problems import NotFoundError

SORTED_CHARACTERS = 256
"""Number of first characters by which text of any length is sorted, as cursors contain them."""
FILES = (
    *(
        "file_id",
        "dataset",
        "name",
        "version",
        "status",
        "error",
        "channel",
        "bytes",
        "sha256",
        "arrived_at",
        "staged_at",
    ),
    *(
        "loaded_at",
        "run_id",
        "attempts",
        "rows_read",
        *COUNTERS,
        "rule_counts",
        "unexpected_columns",
        "missing_columns",
    ),
    *("same_as", "raw_dropped_at", "erased_at", "rows_erased"),
)
"""Columns of the ledger that are listed; the others are for the workers."""


@dataclass(frozen=True, eq=False)
class RelationColumn:
    """A column of a relation.

    Attributes:
        name: name of the column.
        element: expression that is selected.
        type: Python type of the values: str, int, float, Decimal, bool, date, datetime, dict or a list of one of these.
        description: meaning of the values.
        unit: unit of the values.
        personal: True for personal data.
        masked: True if values are hidden; such a column cannot be searched, filtered or sorted by.
        nullable: True if values may be null.
        short: True if texts have a limited length, so that rows can be sorted by the whole text.
    """

    name: str
    element: ColumnElement[Any]
    type: Any
    description: str
    unit: str | None = None
    personal: bool = False
    masked: bool = False
    nullable: bool = True
    short: bool = False

    @property
    def can_sort(self) -> bool:
        """True if rows can be sorted by the column."""
        return not self.masked and self.type is not dict

    @property
    def sorted_by(self) -> ColumnElement[Any]:
        """Return the expression that rows are sorted by."""
        if self.type is str and not self.short:
            return func.left(self.element, SORTED_CHARACTERS, type_=self.element.type)
        return self.element


@dataclass(frozen=True, eq=False)
class Relation:
    """A table, view or select that can be listed.

    Attributes:
        name: name of the relation, such as `stations.rows`.
        columns: columns by name, in the order in which they are shown.
        source: FROM clause of the columns.
        key: columns that identify a row and are not null; empty if no such columns are visible.
        ties: columns that make the ordering unique: the key. Without a key: all columns, and the number among rows that look
            the same.
        search: columns searched by `search=`.
        order: default ordering: names, with `-` for descending order.
        remedy: how to get rows with personal data in clear, as a sentence; empty if there is no way.
    """

    name: str
    columns: Mapping[str, RelationColumn]
    source: FromClause
    key: tuple[str, ...]
    ties: tuple[RelationColumn, ...]
    search: tuple[str, ...]
    order: tuple[str, ...]
    remedy: str = ""

    @cached_property
    def mark(self) -> str:
        """Return a hash of the select and of this version: it differs if the same rows would be shown differently."""
        elements = select(*(column.element.label(name) for name, column in self.columns.items()))
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        sql = str(elements.select_from(self.source).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        return hashlib.sha256(f"{version('mini-platform')} {sql}".encode()).hexdigest()

    @property
    def is_personal(self) -> bool:
        """True if the select reads personal data, masked or not."""
        return any(column.personal for column in self.columns.values())

    @property
    def masked(self) -> tuple[str, ...]:
        """Return the names of the columns whose values are hidden."""
        return tuple(name for name, column in self.columns.items() if column.masked)

    @property
    def is_clear(self) -> bool:
        """True if personal data is shown that is masked unless a request wants it."""
        return bool(self.remedy) and self.is_personal and not self.masked


@cache
def rows(dataset: Dataset, *, clear: bool = False) -> Relation:
    """Return the rows of production: the stored columns, and the files that they come from.

    `_file_id`, `_loaded_at` and (where unexpected columns are kept) `_extra` have their names in the table: no declared column
    begins with an underscore.

    Args:
        dataset: dataset of the rows.
        clear: show personal data unmasked; `personal.reveals` decides so.
    """
    table = dataset_tables(dataset).production
    declared = {column.name: column for column in dataset.columns}
    columns = []
    for column in _in_order(table, [column.name for column in dataset.stored_columns]):
        declaration = declared.get(column.name)
        item = _relation_column(column, clear=clear)
        columns.append(
            replace(item, description=declaration.description, unit=declaration.unit) if declaration else item
        )
    name = f"{dataset.name}.rows{'.clear' if clear else ''}"
    remedy = f"Add {PERSONAL}=true, which takes the scope read:{dataset.name}."
    return replace(_relation(name, columns, table, dataset.key, dataset.searched), remedy=remedy)


@cache
def computed(dataset: Dataset, name: str) -> Relation:
    """Return an aggregate or a view; a view has no key.

    Raises:
        NotFoundError: the dataset has no analytics of this name.
    """
    known = {item.name: item for item in dataset.computed}
    if name not in known:
        hint = f"Its analytics: {', '.join(known)}." if known else "It has none."
        raise NotFoundError(f"{dataset.name} has no analytics {name!r}. {hint}")
    tables = dataset_tables(dataset)
    table = (tables.aggregates | tables.views)[name]
    columns = []
    for column in table.columns:
        description, *unit = known[name].columns.get(column.name, (column.comment or "",))
        columns.append(replace(_relation_column(column), description=description, unit=unit[0] if unit else None))
    key = [column.name for column in table.primary_key]
    return _relation(f"{dataset.name}.{name}", columns, table, key, [c.name for c in columns if c.type is str])


@cache
def files(*datasets: Dataset) -> Relation:
    """Return the ledger of these datasets: every file received, newest first."""
    names = [dataset.name for dataset in datasets]
    source = select(ledger).where(ledger.c.dataset.in_(names)).subquery("files")
    columns = [_relation_column(ledger.c[name], source.c[name]) for name in FILES]
    return _relation(
        f"{'_'.join(names)}.files", columns, source, ("file_id",), ("name", "error", "sha256", "run_id"), ("-file_id",)
    )


@cache
def audit() -> Relation:
    """Return the audit trail, newest first."""
    columns = [_relation_column(column) for column in trail.columns]
    return _relation("audit", columns, trail, ("audit_id",), ("actor", "action", "subject"), ("-audit_id",))


@cache
def quality(dataset: Dataset) -> Relation:
    """Return the quality report: one row per run, table and column, newest first."""
    source = select(quality_report).where(quality_report.c.dataset == dataset.name).subquery("quality")
    columns = [_relation_column(column, source.c[column.name]) for column in quality_report.columns]
    key = ("run_id", "table_name", "column_name")
    return _relation(f"{dataset.name}.quality", columns, source, key, ("table_name", "column_name"), ("-measured_at",))


@cache
def rejects(dataset: Dataset) -> Relation:
    """Return one item per failed rule of each rejected row, in file order, as `warehouse.quarantine.rejects` does.

    For a rule about a whole row, the value is the row: its raw text, or its cells.
    """
    table = dataset_tables(dataset).quarantine
    cells = {column.name: _shape(column) if column.info.get("shaped") else _shown(column) for column in table.columns}
    broken = (
        func.unnest(table.c._rules, table.c._reasons)
        .table_valued(sql_column("rule", Text), sql_column("sentence", Text))
        .render_derived(name="broken")
    )
    rule = broken.c.rule
    of_columns = [(rule == r.name, r.column) for r in dataset.rules if r.column]
    row = func.array_to_string(array([cells[c.name] for c in dataset.read_columns]), ",", "", type_=Text)
    whole = func.coalesce(func.nullif(cells["_raw"], ""), row, type_=Text)
    name = select(ledger.c.name).where(ledger.c.file_id == table.c._file_id).scalar_subquery()
    no_column: ColumnElement[Any] = literal(None, Text)
    columns = [
        RelationColumn("file_id", table.c._file_id, int, "File that contains the row", nullable=False),
        RelationColumn("file", name, str, "Name of the file"),
        RelationColumn("line", table.c._line, int, "Line on which the row starts", nullable=False),
        RelationColumn("record", table.c._record, int, str(table.c._record.comment), nullable=False),
        RelationColumn(
            "column",
            case(*((holds, literal(column, Text)) for holds, column in of_columns), else_=no_column)
            if of_columns
            else no_column,
            str,
            "Column that fails the rule; empty for a rule about the whole row",
        ),
        RelationColumn(
            "value",
            case(*((holds, cells[column]) for holds, column in of_columns), else_=whole) if of_columns else whole,
            str,
            "Value as it arrived; the whole row for a rule about the whole row",
            personal=dataset.is_personal,
        ),
        RelationColumn("rule", rule, str, "Name of the rule", nullable=False, short=True),
        RelationColumn("sentence", broken.c.sentence, str, "Reason, as a sentence"),
    ]
    key = ("file_id", "line", "record", "rule")
    source = table.join(broken, true())
    return _relation(f"{dataset.name}.rejects", columns, source, key, ("file", "column", "value", "rule", "sentence"))


def _relation(
    name: str,
    listed: Iterable[RelationColumn],
    source: FromClause,
    key: Iterable[str],
    search: Iterable[str],
    order: Iterable[str] = (),
) -> Relation:
    columns = {column.name: column for column in listed}
    key, ties = tuple(key), tuple(columns[name] for name in key)
    if not key or any(column.masked for column in ties):
        source, columns, ties = _numbered(source, columns, key)
        key = ()
    searched = tuple(name for name in search if not columns[name].masked)
    default = tuple(order) or tuple(column.name for column in ties if column.name in columns)
    return Relation(name, columns, source, key, ties, searched, default)


def _numbered(
    source: FromClause, columns: Mapping[str, RelationColumn], key: tuple[str, ...]
) -> tuple[FromClause, dict[str, RelationColumn], tuple[RelationColumn, ...]]:
    """Return the same rows with a number among those that look alike, so that a cursor can tell them apart."""
    # Rows that look alike in all visible columns form a partition; row_number tells them apart. It is ordered by the key and
    # the unmasked values, so that the same row has the same number in each request, and a cursor finds its place again.
    alike = [column.sorted_by for column in columns.values() if column.can_sort]
    exact = [c.element.cast(Text) if c.type is dict else c.element for c in columns.values() if not c.masked]
    number = func.row_number(type_=BigInteger).over(partition_by=alike, order_by=[*(source.c[k] for k in key), *exact])
    shown = select(*(column.element.label(name) for name, column in columns.items()), number.label("_number"))
    rows = shown.select_from(source).subquery("numbered")
    numbered = {name: replace(column, element=rows.c[name]) for name, column in columns.items()}
    last = RelationColumn("_number", rows.c._number, int, "Number among rows that look the same", nullable=False)
    return rows, numbered, (*(column for column in numbered.values() if column.can_sort), last)


def _in_order(table: Table, names: list[str]) -> Iterator[Column[Any]]:
    """Yield the columns of a table, these first."""
    yield from (table.c[name] for name in names)
    yield from (column for column in table.columns if column.name not in names)


def _relation_column(
    column: Column[Any], element: ColumnElement[Any] | None = None, *, clear: bool = False
) -> RelationColumn:
    """Return a column of a table, or the same column of a select from it."""
    personal = bool(column.info.get("personal"))
    masked = personal and not clear
    indexes = column.table.indexes if isinstance(column.table, Table) else ()
    return RelationColumn(
        column.name,
        _shown(column) if masked else column if element is None else element,
        str if masked else python_type(column),
        column.comment or "",
        personal=personal,
        masked=masked,
        nullable=bool(column.nullable),
        short=column.primary_key or any(column.name in index.columns for index in indexes),
    )


def _shown(column: Column[Any]) -> ColumnElement[Any]:
    """Return a column as it may be shown: personal data as a mask, which is text whatever the type."""
    return case((column.is_not(None), literal(MASK, Text)), else_=None) if column.info.get("personal") else column


def _shape(column: Column[Any]) -> ColumnElement[Any]:
    """Return a column of rejected rows as `protection.shape` shows it."""
    start = func.left(column, SHAPE_CHARACTERS, type_=Text)
    for pattern, sign in ((LETTER, "a"), (DIGIT, "9")):
        start = func.regexp_replace(start, pattern, sign, "g", type_=Text)
    return case((column.regexp_match(f"^(?:{NOT_IDENTIFYING})$"), column), else_=start)
