"""Adopting: the rows of a replaced system's table become raw files of the channel `adopt`, which are loaded as any others.

The same rows become the same files, so that adopting them again changes nothing. The other database is only read.

Here: reading the table into files, and what would become of their rows. Not here: the values that such files have for columns
which the platform fills in (`rows/readers/files.py`, `warehouse/first_loaded.py`).
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Connection,
    DateTime,
    Integer,
    Text,
    cast,
    column,
    func,
    inspect,
    literal_column,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from mini_platform.declare.sources import ADOPT_CHANNEL, AdoptedTable
from mini_platform.landing.folder import DroppedFile
from mini_platform.warehouse.connection import DatabaseAwayError, engine
from mini_platform.warehouse.tables import dataset_tables

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform

FILE_NUMBERS = 50_000
"""Rows with numbers of one range of this length are one file: rows that are added later change no other."""
HIGHEST_NUMBER = 2**53
"""Numbers from here on are not exact in JSON as most programs read it."""

Figures = tuple[int, Mapping[str, int], dt.datetime | None, dt.datetime | None]
"""Number of rows, their number by source, the earliest first-loaded and the latest last-loaded time."""


class AdoptionError(Exception):
    """A table cannot be adopted; the message is a sentence."""


@dataclass(frozen=True)
class Adoption:
    """The rows of a table as files, which are not landed yet, and what would become of them.

    Attributes:
        table: name of the table.
        files: the files, in the order of the numbers of their rows.
        rows: number of rows.
        sources: number of rows by the value of the column with `system="source"`.
        first: earliest first-loaded time.
        last: latest last-loaded time.
        rejected: number of rows that would be rejected.
        reasons: number of rows by the rule that they break, as a sentence.
        refused: why files would be refused, by their name.
        present: number of rows that the dataset has already.
    """

    table: str
    files: Sequence[DroppedFile]
    rows: int
    sources: Mapping[str, int]
    first: dt.datetime | None
    last: dt.datetime | None
    rejected: int
    reasons: Mapping[str, int]
    refused: Mapping[str, str]
    present: int


@contextmanager
def adoption(platform: Platform, dataset: Dataset, url: str) -> Iterator[Adoption]:
    """Read the table that a dataset adopts into temporary files, and validate them; `land_files` lands them.

    Raises:
        AdoptionError: the dataset adopts no table, or it cannot be read at this URL.
    """
    if dataset.adopts is None:
        raise AdoptionError(f"{dataset.name} declares no table that it adopts.")
    with tempfile.TemporaryDirectory(prefix="adopt-") as folder:
        files, figures = _read(dataset, dataset.adopts, url, Path(folder))
        rejected, reasons, refused = _validate(platform, dataset, files)
        with platform.engine.connect() as conn:
            present = conn.scalar(select(func.count()).select_from(dataset_tables(dataset).production)) or 0
        yield Adoption(dataset.adopts.name, files, *figures, rejected, reasons, refused, present)


def _read(dataset: Dataset, adopted: AdoptedTable, url: str, folder: Path) -> tuple[list[DroppedFile], Figures]:
    try:
        if (kind := make_url(url).get_backend_name()) != "postgresql":
            raise AdoptionError(f"The URL names a {kind} database; Postgres is required.")
        source = engine(url, pool=1)
    except (ArgumentError, ValueError) as error:
        raise AdoptionError("The URL is not that of a database, such as postgresql://user@host:5432/name.") from error
    try:
        with source.connect() as conn:
            conn.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return _export(conn, dataset, adopted, folder)
    except DatabaseAwayError as error:
        raise AdoptionError(str(error).replace("DATABASE_URL", "its URL")) from error
    except DBAPIError as error:
        raise AdoptionError(f"The table cannot be read: {' '.join(str(error.orig).split())}.") from error
    finally:
        source.dispose()


def _export(
    conn: Connection, dataset: Dataset, adopted: AdoptedTable, folder: Path
) -> tuple[list[DroppedFile], Figures]:
    rows = _selected(conn, dataset, adopted)
    (number,) = dataset.surrogates
    lowest, highest = conn.execute(select(func.min(rows.c[number]), func.max(rows.c[number]))).one()
    if lowest is not None and not 1 <= lowest <= highest < HIGHEST_NUMBER:
        raise AdoptionError(f"The numbers of {adopted.name} are not all from 1 to {HIGHEST_NUMBER - 1:,}.")
    systems = {str(c.system): rows.c[c.name] for c in dataset.columns if c.system and c.name in rows.c}
    by_source = func.coalesce(systems.get("source"), "")
    sources = select(by_source, func.count()).select_from(rows).group_by(by_source)
    counts: dict[str, int] = dict(conn.execute(sources).tuples().all())
    moments = [systems[name] if name in systems else literal_column("NULL") for name in ("first_loaded", "last_loaded")]
    first, last = conn.execute(select(func.min(moments[0]), func.max(moments[1])).select_from(rows)).one()
    lines = select(rows.c[number], cast(func.row_to_json(literal_column("adopted")), Text)).order_by(rows.c[number])
    files = []
    streamed = conn.execute(lines, execution_options={"yield_per": 5_000})
    for start, part in groupby(streamed, key=lambda row: (row[0] or 0) // FILE_NUMBERS):
        name = f"{start * FILE_NUMBERS:012}.ndjson"
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            file.writelines(f"{line}\n" for _, line in part)
        files.append(DroppedFile(f"{adopted.name}/{name}", folder / name, ""))
    return files, (sum(counts.values()), dict(sorted(counts.items())), first, last)


def _selected(conn: Connection, dataset: Dataset, adopted: AdoptedTable) -> Any:
    """Return a subquery of the table's rows under the names of the dataset's columns.

    Raises:
        AdoptionError: the table or a column is missing, or a number is not a whole one.
    """
    schema, _, name = adopted.name.rpartition(".")
    inspector = inspect(conn)
    if not inspector.has_table(name, schema=schema or None):
        raise AdoptionError(f"The database {conn.engine.url.database} has no table {adopted.name}.")
    existing = {item["name"]: item["type"] for item in inspector.get_columns(name, schema=schema or None)}
    columns = [c for c in dataset.columns if c.is_read or c.system == "source" or not c.is_staged]
    names = {c.name: adopted.columns.get(c.name, c.name) for c in columns}
    required = [names[c.name] for c in columns if not c.optional]
    if missing := [there for there in required if there not in existing]:
        raise AdoptionError(f"The table {adopted.name} lacks {', '.join(missing)}; it has {', '.join(existing)}.")
    if not isinstance(existing[names[dataset.surrogates[0]]], Integer):
        raise AdoptionError(f"The column {names[dataset.surrogates[0]]} of {adopted.name} has no whole numbers.")
    there = table(name, *map(column, existing), schema=schema or None)
    values = [
        (
            cast(there.c[names[c.name]], DateTime(timezone=True)) if c.type is dt.datetime else there.c[names[c.name]]
        ).label(c.name)
        for c in columns
        if names[c.name] in existing
    ]
    return select(*values).subquery("adopted")


def _validate(
    platform: Platform, dataset: Dataset, files: Sequence[DroppedFile]
) -> tuple[int, Mapping[str, int], Mapping[str, str]]:
    """Return how many rows of the files would be rejected, why, and the files that would be refused with the reason."""
    from mini_platform.warehouse.validated_rows import Tally, ValidatedRows  # Imports polars and Pandera.

    rejected, rules, refused = 0, Counter[str](), {}
    for number, file in enumerate(files):
        tally = Tally(number, file.name, ADOPT_CHANNEL, file.path)
        for _ in ValidatedRows(dataset, {number: tally}, platform.raw_files(dataset), None).as_csv():
            pass
        rejected += tally.rows_rejected
        rules += tally.rule_counts
        if reason := tally.ledger_row(dataset)["error"]:
            refused[file.name] = reason
    errors = {rule.name: rule.message for rule in dataset.rules if rule.severity == "error"}
    return rejected, {errors[name]: count for name, count in rules.most_common() if name in errors}, refused
