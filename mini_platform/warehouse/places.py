"""Places in the database where a row of a dataset may stand: a further kind of table is one entry here.

These walk them, so that nobody needs to be told of a new one: making tables and what roles may do with them (`schema.py`),
forgetting a person, backup and purge (`operations/`, where the places outside of the database are, too), and the tests that
look for what must not be there. Not here: views, which keep nothing.
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

Holds = Literal["rows", "keys", "computed"]
"""What changes with a declaration: columns are added to tables of rows; keys are kept unless the key itself changes; what is
computed is computed anew."""
Erased = Literal["at once", "with its files", "by computing", "after computing"]
"""When a person's rows go: as soon as they are found; once it is known which files hold what they were before; by themselves,
as what they are computed from is gone; when nothing that is computed refers to them any more."""


@dataclass(frozen=True)
class Kept:
    """How long rows are kept.

    Attributes:
        days: by the settings; 0 is for ever.
        moment: name of the column that says when a row was written.
    """

    days: Callable[[Settings], float]
    moment: str


def _of_the_same_name(dataset: Dataset, table: Table) -> list[Column[Any]]:
    """Return the columns in which a declared column with hashes of persons stands under its own name."""
    hashed = [column.name for column in dataset.columns if column.personal == "hash"]
    return [table.c[name] for name in hashed if name in table.c]


def _of_groups(dataset: Dataset, table: Table) -> list[Column[Any]]:
    """Return the columns of numbered keys that are hashes of persons, by whatever name."""
    tables = dataset_tables(dataset)
    hashed = {column.name for column in dataset.columns if column.personal == "hash"}
    groups = next((tables.groups.get(name, {}) for name, numbers in tables.surrogates.items() if numbers is table), {})
    return [table.c[key] for key, column in groups.items() if column.name in hashed]


@dataclass(frozen=True)
class TablePlace:
    """Tables of one kind, in which rows of a dataset stand.

    Attributes:
        name: of such rows, as people read it.
        tables: those of a dataset; each in one of `SCHEMAS`. One that is UNLOGGED is not backed up: it can be made again.
        holds: what changes with a declaration.
        erased: when a person's rows go.
        persons: the columns of such a table that hold hashes of persons.
        kept: how long; None for ever, or until whatever needs them is done.
    """

    name: str
    tables: Callable[[DatasetTables], Iterable[Table]]
    holds: Holds
    erased: Erased
    persons: Callable[[Dataset, Table], Sequence[Column[Any]]] = _of_the_same_name
    kept: Kept | None = None

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
        kept=Kept(lambda settings: settings.quarantine_retention, "_quarantined_at"),
    ),
    TablePlace("deleted rows", lambda tables: [] if tables.gone is None else [tables.gone], "keys", "at once"),
    TablePlace("numbers of keys", lambda tables: tables.surrogates.values(), "keys", "after computing", _of_groups),
    TablePlace("computed rows", lambda tables: tables.aggregates.values(), "computed", "by computing"),
]
"""Every kind of table that is a dataset's own. Beside them, `ops.dirty_groups` has keys until their groups are computed."""


def tables_of(dataset: Dataset, *holding: Holds) -> tuple[Table, ...]:
    """Return every table of a dataset, or those that hold this; views aside."""
    return tuple(table for place in TABLES if not holding or place.holds in holding for table in place.of(dataset))


def erased(dataset: Dataset, when: Erased) -> list[tuple[Table, Sequence[Column[Any]]]]:
    """Return the tables from which a person's rows go at this moment, each with the columns that say whose a row is."""
    places = (place for place in TABLES if place.erased == when)
    return [(table, place.persons(dataset, table)) for place in places for table in place.of(dataset)]
