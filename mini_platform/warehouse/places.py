"""Places in the database where rows of a dataset may be stored: each kind of table is one entry here.

These use the list, so that none needs a change for a new kind: creating tables and their grants (`schema.py`), forgetting a
person, backup and purge (`operations/`, which also has the places outside of the database), and the tests that look for rows
that must not be stored. Not here: views, which store nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Column, Table

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.tables import DatasetTables, dataset_tables

if TYPE_CHECKING:
    from mini_platform.config.settings import Settings

Content = Literal["rows", "keys", "computed"]
"""Content of a table, and its change with a declaration: columns are added to tables of rows; keys are kept unless the key
itself changes; computed rows are computed anew."""
EraseTime = Literal["at once", "with its files", "by computing", "after computing"]
"""Time at which a person's rows are erased: as soon as they are found; once the files with earlier versions of them are known;
when they are computed anew, as their source rows are deleted; when no computed row refers to them any more."""


@dataclass(frozen=True)
class Retention:
    """The time for which rows are kept.

    Attributes:
        days: number of days, from the settings; 0 keeps them for ever.
        timestamp: name of the column with the time at which a row was written.
    """

    days: Callable[[Settings], float]
    timestamp: str


def _same_name_columns(dataset: Dataset, table: Table) -> list[Column[Any]]:
    """Return the columns that have the name of a declared column with hashes of persons."""
    hashed = [column.name for column in dataset.columns if column.personal == "hash"]
    return [table.c[name] for name in hashed if name in table.c]


def _key_columns(dataset: Dataset, table: Table) -> list[Column[Any]]:
    """Return the columns of numbered keys that are hashes of persons, whatever their names are."""
    tables = dataset_tables(dataset)
    hashed = {column.name for column in dataset.columns if column.personal == "hash"}
    groups = next((tables.groups.get(name, {}) for name, numbers in tables.surrogates.items() if numbers is table), {})
    return [table.c[key] for key, column in groups.items() if column.name in hashed]


@dataclass(frozen=True)
class TablePlace:
    """A kind of table that stores rows of a dataset.

    Attributes:
        name: name of such rows, as shown to people.
        tables: the tables of a dataset, each in one of `SCHEMAS`. An UNLOGGED one is not backed up: it can be made again.
        holds: content of the tables.
        erased: time at which a person's rows are erased.
        person_columns: columns of such a table that have hashes of persons.
        retention: time for which rows are kept; None for ever, or until they are not needed any more.
    """

    name: str
    tables: Callable[[DatasetTables], Iterable[Table]]
    holds: Content
    erased: EraseTime
    person_columns: Callable[[Dataset, Table], Sequence[Column[Any]]] = _same_name_columns
    retention: Retention | None = None

    def of(self, dataset: Dataset) -> list[Table]:
        """Return the tables of a dataset."""
        return list(self.tables(dataset_tables(dataset)))


TABLES = [
    TablePlace("staged rows", lambda tables: [tables.staging], "rows", "at once"),
    TablePlace("rows", lambda tables: [tables.production], "rows", "with its files"),
    TablePlace(
        "rejected rows",
        lambda tables: [tables.quarantine],
        "rows",
        "at once",
        retention=Retention(lambda settings: settings.quarantine_retention, "_quarantined_at"),
    ),
    TablePlace("deleted rows", lambda tables: [] if tables.gone is None else [tables.gone], "keys", "at once"),
    TablePlace("numbers of keys", lambda tables: tables.surrogates.values(), "keys", "after computing", _key_columns),
    TablePlace("computed rows", lambda tables: tables.aggregates.values(), "computed", "by computing"),
]
"""Every kind of table of a single dataset. Beside them, `ops.dirty_groups` has keys until their groups are computed."""


def tables_of(dataset: Dataset, *holding: Content) -> tuple[Table, ...]:
    """Return every table of a dataset, or those with this content; without views."""
    return tuple(table for place in TABLES if not holding or place.holds in holding for table in place.of(dataset))


def tables_to_erase(dataset: Dataset, when: EraseTime) -> list[tuple[Table, Sequence[Column[Any]]]]:
    """Return the tables from which a person's rows are erased at this time, each with the columns that identify the person."""
    places = (place for place in TABLES if place.erased == when)
    return [(table, place.person_columns(dataset, table)) for place in places for table in place.of(dataset)]
