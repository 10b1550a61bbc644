"""Samples of any dataset, and their expected results in plain Python: csv, json, float, Decimal and datetime.

Here: which line of a sample breaks which rule, and the values that production must hold for the other lines. The values are
read off the clean sample by the standard library; of the platform only `write_sample` and the declaration are asked. Not here:
derived columns, which have tests of their own, and protected ones, whose values are nobody's business.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, select

from mini_platform import Column, Csv, Dataset, Json
from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import FORMS, Form, write_sample
from mini_platform.warehouse.tables import dataset_tables, files

Rows = Counter[tuple[Any, ...]]
"""Rows of production, as the values of the columns that are compared."""


def _has(dataset: Dataset, form: Form) -> bool:
    return any(isinstance(source, Csv if form == "csv" else Json) for source in dataset.sources)


EVERY = [(name, form) for name, dataset in all_datasets().items() for form in FORMS if _has(dataset, form)]
"""Every dataset in every form that its files can have."""


@dataclass(frozen=True)
class Sample:
    """A sample and its expected results.

    Attributes:
        dataset: dataset of the rows.
        form: form of the file.
        lines: lines of its text, without line ends.
        broken: kind of dirt by line (1-based).
        rows: values of the columns that are compared, by line, of the valid lines.
    """

    dataset: Dataset
    form: Form
    lines: list[str]
    broken: Mapping[int, str]
    rows: Mapping[int, tuple[Any, ...]]

    @property
    def data(self) -> bytes:
        return "\n".join([*self.lines, ""]).encode(encoding(self.dataset, self.form))

    @property
    def valid(self) -> Rows:
        return Counter(self.rows.values())


def encoding(dataset: Dataset, form: Form) -> str:
    declared = (source.encoding for source in dataset.sources if isinstance(source, Csv))
    return (next(declared, None) if form == "csv" else None) or "utf-8"


def compared(dataset: Dataset) -> list[Column]:
    """Return the columns whose values in production are those of the file."""
    return [column for column in dataset.stored_columns if column.is_read and not column.is_protected]


def sample(dataset: Dataset, form: Form, rows: int, dirty: float = 0.0, seed: int = 0) -> Sample:
    """Write a sample, and tell which of its lines break which rule."""
    clean, _ = _written(dataset, form, rows, 0, seed)
    lines, kinds = _written(dataset, form, rows, dirty, seed)
    spoiled = [number for number, both in enumerate(zip(clean, lines, strict=True), 1) if both[0] != both[1]]
    broken = {line: kinds[turn % len(kinds)] for turn, line in enumerate(spoiled)}
    records = _csv_records(dataset, clean) if form == "csv" else _json_records(clean)
    columns = compared(dataset)
    values = {
        line: tuple(_typed(column, _cell(column, record)) for column in columns)
        for line, record in records.items()
        if line not in broken
    }
    return Sample(dataset, form, lines, broken, values)


def _written(dataset: Dataset, form: Form, rows: int, dirty: float, seed: int) -> tuple[list[str], list[str]]:
    out = io.BytesIO()
    summary = write_sample(dataset, out, rows, dirty, seed, form=form)
    lines = out.getvalue().decode(encoding(dataset, form)).split("\n")
    assert lines.pop() == ""
    assert sum(summary.dirty.values()) == round(rows * dirty)
    return lines, list(summary.dirty)


def _csv_records(dataset: Dataset, lines: list[str]) -> dict[int, dict[str, Any]]:
    (source,) = (source for source in dataset.sources if isinstance(source, Csv))
    header, *rows = csv.reader(lines, delimiter=source.delimiter)
    return {line: dict(zip(header, row, strict=True)) for line, row in enumerate(rows, 2)}


def _json_records(lines: list[str]) -> dict[int, dict[str, Any]]:
    records = {}
    for line, text in enumerate(lines, 1):
        if text.startswith("{"):
            records[line] = _flat(json.loads(text.removesuffix(","), parse_float=str, parse_int=str))
    return records


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return an object with the names of nested objects joined by `_`."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}_") if isinstance(item, dict) else {prefix + name: item}
    return flat


def _cell(column: Column, record: Mapping[str, Any]) -> Any:
    return next((record[name] for name in (column.name, *column.aliases) if name in record), None)


def _typed(column: Column, cell: Any) -> Any:
    """Return a cell as the value that production must have."""
    if cell is None or cell == "":
        return None
    if column.type == list[float]:
        return list(map(float, json.loads(cell) if isinstance(cell, str) else cell))
    if column.type is bool:
        return cell if isinstance(cell, bool) else cell == "true"
    if column.type is str:
        text = unicodedata.normalize("NFC", cell.strip())
        return {"lower": text.lower(), "upper": text.upper()}.get(column.case or "", text)
    if column.type is dt.datetime:
        return dt.datetime.fromisoformat(cell).astimezone(dt.UTC)
    read = {float: float, int: int, Decimal: Decimal, dt.date: dt.date.fromisoformat}[column.type]
    return read(cell)


def production(conn: Connection, dataset: Dataset, file: str | None = None) -> Rows:
    """Return the rows of production, or those from one file, with the columns that are compared."""
    table = dataset_tables(dataset).production
    statement = select(*(table.c[column.name] for column in compared(dataset)))
    if file is not None:
        statement = statement.where(table.c._file_id.in_(select(files.c.file_id).where(files.c.name == file)))
    return Counter(map(tuple, conn.execute(statement)))
