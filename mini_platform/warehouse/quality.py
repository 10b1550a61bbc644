"""Quality: what staging and production hold, measured column by column in one scan of each table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Text, and_, case, func, literal, not_, select, tuple_

from mini_platform.dataset import Column, Dataset
from mini_platform.warehouse.tables import TYPES, dataset_tables

if TYPE_CHECKING:
    import pandas as pd


def measure(conn: Connection, dataset: Dataset, run_id: str) -> pd.DataFrame:
    """Measure staging and production.

    Returns:
        A row per table and column, with the columns of `analytics.quality_report`. Staging is measured over the rows that
        have columns; its minimum and maximum over the values that could be read, out of range or not.
    """
    import pandas as pd

    now = dt.datetime.now(dt.UTC)
    rows = [*_staging(conn, dataset), *_production(conn, dataset)]
    frame = pd.DataFrame({"run_id": run_id, "dataset": dataset.name, "measured_at": now, **row} for row in rows)
    return frame.astype(dict.fromkeys(("total_rows", "nulls", "distinct_values", "duplicates"), "int64"))


def _staging(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    staging = dataset_tables(dataset).staging
    rules = func.coalesce(staging.c._rules, literal([], staging.c._rules.type))

    def breaks(rule: str) -> ColumnElement[bool]:
        return func.array_position(rules, rule).is_not(None)

    def typed(column: Column) -> ColumnElement[Any]:
        text = staging.c[column.name]
        if column.type_rule is None:
            return text
        return case((not_(breaks(column.type_rule.name)), text.cast(TYPES[column.type])))

    values = {column.name: typed(column) for column in dataset.columns}
    with_columns = staging.c._raw.is_(None)
    valid = and_(with_columns, staging.c._rules.is_(None))
    keys = tuple_(*(values[name] for name in dataset.key))
    totals: list[ColumnElement[Any]] = [
        func.count().filter(with_columns).label("total_rows"),
        (func.count().filter(valid) - func.count(keys.distinct()).filter(valid)).label("duplicates"),
    ]
    totals += [func.count().filter(breaks(r.name)).label(f"rule {r.name}") for r in dataset.rules if r.column]
    totals += _profile(values)
    row = conn.execute(select(*totals).select_from(staging)).mappings().one()
    return _rows(dataset, f"staging.{dataset.table}", row)


def _production(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    production = dataset_tables(dataset).production
    values: dict[str, ColumnElement[Any]] = {c.name: production.c[c.name] for c in dataset.columns}
    row = conn.execute(select(func.count().label("total_rows"), *_profile(values))).mappings().one()
    return _rows(dataset, f"production.{dataset.table}", row)


def _profile(values: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    selected: list[ColumnElement[Any]] = []
    for name, value in values.items():
        selected += [
            func.count(value).label(f"filled {name}"),
            func.count(value.distinct()).label(f"distinct {name}"),
            func.min(value).cast(Text).label(f"minimum {name}"),
            func.max(value).cast(Text).label(f"maximum {name}"),
        ]
    return selected


def _rows(dataset: Dataset, table: str, measured: Any) -> list[dict[str, Any]]:
    total = measured["total_rows"]
    rows = []
    for column in dataset.columns:
        name = column.name
        filled = measured[f"filled {name}"]
        broken = {r.name: measured.get(f"rule {r.name}", 0) for r in dataset.rules if r.column == name}
        unreadable = broken[column.type_rule.name] if column.type_rule else 0
        nulls = total - filled - unreadable
        rows.append(
            {
                "table_name": table,
                "column_name": name,
                "total_rows": total,
                "nulls": nulls,
                "null_rate": nulls / total if total else 0.0,
                "out_of_range": broken,
                "minimum": measured[f"minimum {name}"],
                "maximum": measured[f"maximum {name}"],
                "distinct_values": measured[f"distinct {name}"],
                "duplicates": measured.get("duplicates", 0),
            }
        )
    return rows
