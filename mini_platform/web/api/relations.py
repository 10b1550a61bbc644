"""Relations: what can be listed, each as columns with their meaning over something to select from.

Here: production rows, what is computed from them, the ledger, rejected rows, the quality report. Not here: what a request asks
of them (`query.py`), nor how it is answered (`datasets.py`, `export.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from sqlalchemy import (
    ARRAY,
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
from sqlalchemy.dialects.postgresql import JSONB, array

from mini_platform.declare.dataset import Dataset
from mini_platform.rows.protection import DIGIT, LETTER, MASK, NOBODYS, SHAPE_CHARACTERS
from mini_platform.warehouse.tables import COUNTERS, dataset_tables, quality_report
from mini_platform.warehouse.tables import audit as trail
from mini_platform.warehouse.tables import files as ledger
from mini_platform.web.problems import NotFoundError

SORTED_CHARACTERS = 256
"""Text that may be of any length is sorted by so many of its first characters: a cursor holds what it stands at."""
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
"""Columns of the ledger that people need; the others are the workers'."""


@dataclass(frozen=True, eq=False)
class RelationColumn:
    """A column of a relation.

    Attributes:
        name: of it.
        element: what is selected.
        type: of its values in Python: str, int, float, Decimal, bool, date, datetime, dict or a list of one of these.
        description: of what it holds.
        unit: of its values.
        personal: it has personal data.
        masked: its values are hidden; it can be neither searched, filtered nor sorted by.
        nullable: it may be empty.
        short: its texts are of limited length, so that they can be sorted by as they are.
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
        """Whether rows can be sorted by it."""
        return not self.masked and self.type is not dict

    @property
    def sorted_by(self) -> ColumnElement[Any]:
        """What rows are sorted by."""
        if self.type is str and not self.short:
            return func.left(self.element, SORTED_CHARACTERS, type_=self.element.type)
        return self.element


@dataclass(frozen=True, eq=False)
class Relation:
    """Something that can be listed.

    Attributes:
        name: of it, such as `stations.rows`.
        columns: by name, in the order in which they are shown.
        source: what the columns are selected from.
        key: columns that tell the rows apart and are never empty; none where no such columns are to be seen.
        ties: what rows are sorted by last, so that no two are at the same place: the key. Without a key: all columns, and of
            rows that look the same the number.
        search: columns that `search=` looks in.
        order: by which it is sorted unless asked otherwise: names, `-` before those that descend.
    """

    name: str
    columns: Mapping[str, RelationColumn]
    source: FromClause
    key: tuple[str, ...]
    ties: tuple[RelationColumn, ...]
    search: tuple[str, ...]
    order: tuple[str, ...]

    @cached_property
    def mark(self) -> str:
        """Stands for what is selected and how it is written: it differs where the same rows are shown otherwise."""
        elements = select(*(column.element.label(name) for name, column in self.columns.items()))
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        said = str(elements.select_from(self.source).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        return hashlib.sha256(f"{version('mini-platform')} {said}".encode()).hexdigest()

    @property
    def is_personal(self) -> bool:
        """Whether it takes personal data to make it, even where they are masked."""
        return any(column.personal for column in self.columns.values())


@cache
def rows(dataset: Dataset, *, clear: bool = False) -> Relation:
    """The rows of production: the stored columns, and where they come from.

    `_file_id`, `_loaded_at` and (where unexpected columns are kept) `_extra` are called as in the table: no declared column
    begins with an underscore.

    Args:
        dataset: whose rows.
        clear: show personal data that is hidden elsewhere; the caller knows that whoever asks may see it.
    """
    table = dataset_tables(dataset).production
    declared = {column.name: column for column in dataset.columns}
    listed = []
    for column in _in_order(table, [column.name for column in dataset.stored_columns]):
        said = declared.get(column.name)
        item = _listed(column, clear=clear)
        listed.append(replace(item, description=said.description, unit=said.unit) if said else item)
    return _relation(f"{dataset.name}.rows{'.clear' if clear else ''}", listed, table, dataset.key, dataset.searched)


@cache
def computed(dataset: Dataset, name: str) -> Relation:
    """An aggregate or a view; a view has no key.

    Raises:
        NotFoundError: the dataset computes nothing of this name.
    """
    known = {item.name: item for item in dataset.computed}
    if name not in known:
        those = f"It computes: {', '.join(known)}." if known else "It computes nothing."
        raise NotFoundError(f"{dataset.name} has no analytics {name!r}. {those}")
    tables = dataset_tables(dataset)
    table = (tables.aggregates | tables.views)[name]
    listed = []
    for column in table.columns:
        description, *unit = known[name].columns.get(column.name, (column.comment or "",))
        listed.append(replace(_listed(column), description=description, unit=unit[0] if unit else None))
    key = [column.name for column in table.primary_key]
    return _relation(f"{dataset.name}.{name}", listed, table, key, [c.name for c in listed if c.type is str])


@cache
def files(dataset: Dataset | None = None) -> Relation:
    """The ledger: every file that ever arrived, the last one first; without a dataset those of all."""
    source: FromClause = ledger
    if dataset is not None:
        source = select(ledger).where(ledger.c.dataset == dataset.name).subquery("files")
    listed = [_listed(ledger.c[name], source.c[name]) for name in FILES]
    name = f"{dataset.name if dataset else ''}.files"
    return _relation(name, listed, source, ("file_id",), ("name", "error", "sha256", "run_id"), ("-file_id",))


@cache
def audit() -> Relation:
    """The audit trail: who did what, the last first."""
    listed = [_listed(column) for column in trail.columns]
    return _relation("audit", listed, trail, ("audit_id",), ("actor", "action", "subject"), ("-audit_id",))


@cache
def quality(dataset: Dataset) -> Relation:
    """The quality report: a row per run, table and column, the last measurements first."""
    source = select(quality_report).where(quality_report.c.dataset == dataset.name).subquery("quality")
    listed = [_listed(column, source.c[column.name]) for column in quality_report.columns]
    key = ("run_id", "table_name", "column_name")
    return _relation(f"{dataset.name}.quality", listed, source, key, ("table_name", "column_name"), ("-measured_at",))


@cache
def rejects(dataset: Dataset) -> Relation:
    """One item per broken rule of each rejected row, in file order, as `warehouse.quarantine.rejects` has them.

    The value of a rule about a whole row is the row: its text as it arrived, or its cells.
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
    listed = [
        RelationColumn("file_id", table.c._file_id, int, "File that the row stands in", nullable=False),
        RelationColumn("file", name, str, "Name of the file"),
        RelationColumn("line", table.c._line, int, "Line on which the row starts", nullable=False),
        RelationColumn("record", table.c._record, int, str(table.c._record.comment), nullable=False),
        RelationColumn(
            "column",
            case(*((holds, literal(column, Text)) for holds, column in of_columns), else_=no_column)
            if of_columns
            else no_column,
            str,
            "Column that breaks the rule; empty where the whole row does",
        ),
        RelationColumn(
            "value",
            case(*((holds, cells[column]) for holds, column in of_columns), else_=whole) if of_columns else whole,
            str,
            "What stands there; of a rule about the whole row: the row",
            personal=dataset.is_personal,
        ),
        RelationColumn("rule", rule, str, "Name of the rule", nullable=False, short=True),
        RelationColumn("sentence", broken.c.sentence, str, "What is wrong, as a sentence"),
    ]
    key = ("file_id", "line", "record", "rule")
    source = table.join(broken, true())
    return _relation(f"{dataset.name}.rejects", listed, source, key, ("file", "column", "value", "rule", "sentence"))


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
    """The same rows, those that look the same numbered: what looks the same can then be told apart by a cursor."""
    alike = [column.sorted_by for column in columns.values() if column.can_sort]
    exact = [c.element.cast(Text) if c.type is dict else c.element for c in columns.values() if not c.masked]
    number = func.row_number(type_=BigInteger).over(partition_by=alike, order_by=[*(source.c[k] for k in key), *exact])
    shown = select(*(column.element.label(name) for name, column in columns.items()), number.label("_number"))
    rows = shown.select_from(source).subquery("numbered")
    made = {name: replace(column, element=rows.c[name]) for name, column in columns.items()}
    last = RelationColumn("_number", rows.c._number, int, "Number among rows that look the same", nullable=False)
    return rows, made, (*(column for column in made.values() if column.can_sort), last)


def _in_order(table: Table, names: list[str]) -> Iterator[Column[Any]]:
    """The columns of a table, these first."""
    yield from (table.c[name] for name in names)
    yield from (column for column in table.columns if column.name not in names)


def _listed(column: Column[Any], element: ColumnElement[Any] | None = None, *, clear: bool = False) -> RelationColumn:
    """A column of a table, or the same column of something that selects from it."""
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
    """A column as it may be shown: personal data as a mask, which is text whatever is hidden."""
    return case((column.is_not(None), literal(MASK, Text)), else_=None) if column.info.get("personal") else column


def _shape(column: Column[Any]) -> ColumnElement[Any]:
    """A column of rejected rows as `protection.shape` has it."""
    start = func.left(column, SHAPE_CHARACTERS, type_=Text)
    for pattern, sign in ((LETTER, "a"), (DIGIT, "9")):
        start = func.regexp_replace(start, pattern, sign, "g", type_=Text)
    return case((column.regexp_match(f"^(?:{NOBODYS})$"), column), else_=start)


def python_type(column: ColumnElement[Any]) -> Any:
    """Type of the values of a column in Python."""
    if isinstance(column.type, ARRAY):
        return list[column.type.item_type.python_type]  # type: ignore[name-defined]
    return dict if isinstance(column.type, JSONB) else column.type.python_type
