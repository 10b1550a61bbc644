"""Quality: statistics of the columns of staging and production.

A column is grouped by its values once, which hashes and runs in parallel, and every figure is computed over the groups:
over a few thousand values instead of a million rows. `count(DISTINCT ...)` would sort: ten times slower on 1M rows.

For a single large file, the validation pass has counted the figures already (`figures.py`): no table is read.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Numeric,
    Select,
    Table,
    Text,
    case,
    func,
    literal,
    not_,
    or_,
    select,
)

from mini_platform.declare.columns import Column
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.exactness import as_double
from mini_platform.warehouse.tables import among, dataset_tables, files, quality_report, sql_type

if TYPE_CHECKING:
    import pandas as pd

    from mini_platform.warehouse.figures import ColumnFigures

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which `validation.clean` trims."""
ALWAYS_MEASURED = 1_000_000
"""A production table of at most this many rows is measured by every run, in half a second."""
CHANGED_SHARE = 0.2
"""A larger table is measured when this share of its rows may have changed; until then its last figures are reported."""


def measure(conn: Connection, dataset: Dataset, run_id: str) -> pd.DataFrame:
    """Measure staging and production.

    Staging is measured over the rows that could be split into columns; its minimum, maximum and mean over the values that
    could be parsed, in range or not. Personal data has none of these three.

    Returns:
        A row per table and column, with the columns of `analytics.quality_report`. `measured_at` is the time of the
        figures: those of a large production table may be older than the run (see `CHANGED_SHARE`).
    """
    import pandas as pd

    now = dt.datetime.now(dt.UTC)
    production = _reusable_figures(conn, dataset) or _production_rows(
        conn, dataset, _single_file_figures(conn, dataset, run_id)
    )
    rows = [{"measured_at": now, **row} for row in (*_staging_rows(conn, dataset), *production)]
    frame = pd.DataFrame({**row, "run_id": run_id, "dataset": dataset.name} for row in rows)
    frame["mean"] = pd.Series([row["mean"] for row in rows], dtype=object)  # None stays None instead of NaN.
    return frame.astype(dict.fromkeys(("total_rows", "nulls", "distinct_values", "duplicates"), "int64"))


def current(conn: Connection, dataset: Dataset, *, staged: bool) -> list[dict[str, Any]]:
    """Compute the figures of staging or of production now, a row per column, as in the report."""
    return _staging_rows(conn, dataset) if staged else _production_rows(conn, dataset, {})


def rows_outside(conn: Connection, dataset: Dataset, column: Column, *, staged: bool) -> tuple[int, int]:
    """Return the number of rows below and above the limits that a column has by `in_range`."""
    groups = (_staged_values(dataset, column) if staged else _production_values(dataset, column)).subquery("groups")
    limits = column.checks["in_range"]
    outside = (groups.c.value < limits["min_value"], groups.c.value > limits["max_value"])
    below, above = conn.execute(
        select(*(func.coalesce(func.sum(groups.c.rows).filter(one), 0) for one in outside))
    ).one()
    return int(below), int(above)


def _staging_rows(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    staging = dataset_tables(dataset).staging
    results = select(staging.c._file_id, staging.c._rules, func.count()).group_by(staging.c._file_id, staging.c._rules)
    failures: Counter[str] = Counter()
    staged_rows: Counter[int] = Counter()
    for file_id, rules, count in conn.execute(results):
        staged_rows[file_id] += count
        failures.update(dict.fromkeys(rules or (), count))
    staged_files = conn.execute(select(files).where(among(files.c.file_id, list(staged_rows)))).all()
    only_file = (
        staged_files[0]
        if len(staged_files) == 1 and staged_files[0].rows_read == staged_rows[staged_files[0].file_id]
        else None
    )
    if only_file and only_file.keys_unique:
        duplicates = 0  # One file, whose keys staging has found unique.
    else:
        valid = staging.c._rules.is_(None)
        stored = dataset_tables(dataset).production
        key = (staging.c[name].cast(stored.c[name].type) for name in dataset.key)  # 1.0 and 1.00 are one key.
        keys = select(func.count().label("rows")).where(valid).group_by(*key)
        duplicates = int(conn.scalar(select(func.coalesce(func.sum(keys.subquery().c.rows - 1), 0))) or 0)
    counted = _counted_figures(conn, staging, dataset.staged_columns, (only_file and only_file.figures) or {}, "staged")
    return [
        (counted.get(column.name) or _figures(conn, staging, column, _staged_values(dataset, column)))
        | {"out_of_range": {r.name: failures[r.name] for r in dataset.rules if r.column == column.name}}
        | {"duplicates": duplicates}
        for column in dataset.staged_columns
    ]


def _staged_values(dataset: Dataset, column: Column) -> Select[Any]:
    """Return a select of a column's values with their row counts: 1.0 and 1.00 are one value; unreadable texts count each.

    Where only the shape of rejected cells is stored or may be shown, texts that no valid row has are not values.
    """
    # In three steps: group by text; convert each distinct text to its value, NULL if it is not readable; group by value (so
    # 1.0 and 1.00 become one group) and, for unreadable texts, by the text itself.
    staging = dataset_tables(dataset).staging
    rules, text = staging.c._rules, staging.c[column.name]
    readable: ColumnElement[bool] = literal(value=True)
    if column.name in dataset.shaped_columns:
        readable = rules.is_(None)
    elif column.type_rule:
        readable = or_(rules.is_(None), not_(rules.contains([column.type_rule.name])))
    groups = select(text.label("text"), func.bool_or(readable).label("readable"), func.count().label("rows"))
    groups = groups.where(staging.c._raw.is_(None)).group_by(text)
    texts = groups.subquery("texts")
    value: ColumnElement[Any] = texts.c.text
    if column.type == list[float]:
        value = case(
            (texts.c.readable, value)
        )  # A list that could be read has one canonical form; any other is not an array.
    elif column.type is str:
        value = case((texts.c.readable, func.btrim(value, WHITE_SPACE) if column.trim else value))
    else:
        # The cell of a rejected row may be stored as it arrived: with white space that Postgres does not trim, or as a null
        # token.
        plain = func.btrim(value, WHITE_SPACE)
        has_value = plain.not_in(["", *(token.strip() for token in column.null_tokens)])
        if column.type is int:  # Postgres does not read `12.0` and `1E3` as whole numbers,
            plain = plain.cast(Numeric)  # type: ignore[assignment]
        if column.type is dt.datetime:  # a comma before the fraction, or times without minutes.
            plain = func.regexp_replace(func.replace(plain, ",", "."), "([Tt][0-9]{2})([-+Zz])", r"\1:00\2")
        value = case((texts.c.readable & has_value, plain.cast(sql_type(column))))
    read = select(texts.c.text, value.label("value"), texts.c.rows).subquery("read")
    unreadable_text = case((read.c.value.is_(None), read.c.text))
    values = select(func.min(read.c.text).label("text"), read.c.value, func.sum(read.c.rows).label("rows"))
    return values.group_by(read.c.value, unreadable_text)


def _single_file_figures(conn: Connection, dataset: Dataset, run_id: str) -> dict[str, ColumnFigures]:
    """Return the figures of the single file from which this run has filled the empty production table; else none."""
    loaded = select(files).where(files.c.dataset == dataset.name, files.c.loaded_at.is_not(None)).limit(2)
    entries = conn.execute(loaded).all()
    if len(entries) != 1 or entries[0].run_id != run_id or not (entries[0].figures and entries[0].keys_unique):
        return {}
    rows = conn.scalar(select(func.count()).select_from(dataset_tables(dataset).production))
    return (
        entries[0].figures
        if entries[0].rows_inserted == rows == entries[0].rows_read - entries[0].rows_rejected
        else {}
    )


def _counted_figures(
    conn: Connection, table: Table, columns: Sequence[Column], figures: Mapping[str, ColumnFigures], kind: str
) -> dict[str, dict[str, Any]]:
    """Return figures counted by validation, in the form of `_figures`; the server formats minimum and maximum as text."""
    counted = [(column, figures[column.name][kind]) for column in columns if column.name in figures]
    ends = [
        literal(column_figures[end]).cast(sql_type(column)).cast(Text).label(f"{n} {end}")
        for n, (column, column_figures) in enumerate(counted)
        for end in ("minimum", "maximum")
    ]
    texts = conn.execute(select(*ends)).mappings().one() if ends else {}
    return {
        column.name: _row(
            table, column, {**column_figures, **{end: texts[f"{n} {end}"] for end in ("minimum", "maximum")}}
        )
        for n, (column, column_figures) in enumerate(counted)
    }


def _production_rows(
    conn: Connection, dataset: Dataset, file_figures: Mapping[str, ColumnFigures]
) -> list[dict[str, Any]]:
    table = dataset_tables(dataset).production
    counted = _counted_figures(conn, table, dataset.stored_columns, file_figures, "valid")
    result = []
    for column in dataset.stored_columns:
        rules = {r.name: 0 for r in dataset.rules if r.column == column.name}
        figures = counted.get(column.name) or _figures(conn, table, column, _production_values(dataset, column))
        result.append(figures | {"out_of_range": rules, "duplicates": 0})  # It has a key.
    return result


def _production_values(dataset: Dataset, column: Column) -> Select[Any]:
    """Return a select of a column's values with their row counts."""
    value = dataset_tables(dataset).production.c[column.name]
    return select(value.label("text"), value.label("value"), func.count().label("rows")).group_by(value)


def _reusable_figures(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    """Return the last figures of production if it is large and few rows can have changed since; else none."""
    name = dataset_tables(dataset).production.fullname
    is_production = quality_report.c.table_name == name
    last = select(func.max(quality_report.c.measured_at)).where(is_production).scalar_subquery()
    # Several runs may have reported figures of that time.
    statement = select(quality_report).distinct(quality_report.c.column_name)
    statement = statement.where(is_production, quality_report.c.measured_at == last).order_by(
        quality_report.c.column_name
    )
    by_column = {row["column_name"]: dict(row) for row in conn.execute(statement).mappings()}
    columns = [column.name for column in dataset.stored_columns]
    if sorted(by_column) != sorted(columns) or by_column[columns[0]]["total_rows"] <= ALWAYS_MEASURED:
        return []
    figures = by_column[columns[0]]
    is_newer = func.greatest(files.c.staged_at, files.c.loaded_at) > figures["measured_at"]
    changed = conn.scalar(select(func.sum(files.c.rows_read)).where(files.c.dataset == dataset.name, is_newer)) or 0
    return [by_column[name] for name in columns] if changed < CHANGED_SHARE * figures["total_rows"] else []


def _figures(conn: Connection, table: Table, column: Column, values: Select[Any]) -> dict[str, Any]:
    """Compute the figures of a column.

    Args:
        conn: connection to the database.
        table: table of the column.
        column: declaration of the column.
        values: select of each distinct `value` with its number of `rows` and a `text` for it; texts without a value, one of
            which may be null, have a row each.
    """
    groups = values.subquery("groups")
    value, rows = groups.c.value, groups.c.rows
    selected = [
        func.coalesce(func.sum(rows), 0).label("total_rows"),
        func.coalesce(func.sum(rows).filter(groups.c.text.is_(None)), 0).label("nulls"),
        func.count(groups.c.text).label("distinct_values"),
    ]
    if not column.personal and column.type != list[float]:
        ordered = value.cast(Text) if column.type is bool else value  # There is no min(boolean).
        selected += [func.min(ordered).cast(Text).label("minimum"), func.max(ordered).cast(Text).label("maximum")]
        if column.type in (float, int, Decimal):
            # As numeric, as a sum of large floats would overflow.
            mean = func.sum(value.cast(Numeric) * rows) / func.sum(rows).filter(value.is_not(None))
            selected.append(as_double(mean).label("mean"))
    return _row(table, column, dict(conn.execute(select(*selected)).mappings().one()))


def _row(table: Table, column: Column, figures: Mapping[str, Any]) -> dict[str, Any]:
    total_rows, nulls = int(figures["total_rows"]), int(figures["nulls"])
    return {
        "table_name": table.fullname,
        "column_name": column.name,
        "minimum": None,
        "maximum": None,
        "mean": None,
        **figures,
        "total_rows": total_rows,
        "nulls": nulls,
        "null_rate": nulls / total_rows if total_rows else 0.0,
    }
