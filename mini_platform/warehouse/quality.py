"""Quality: what staging and production hold, measured column by column.

Distinct values and duplicates are counted over `SELECT DISTINCT` and `GROUP BY`, which hash and run in parallel;
`count(DISTINCT ...)` sorts: ten times slower on 1M rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, ColumnElement, Connection, Table, Text, and_, case, func, not_, select, true

from mini_platform.dataset import Column, Dataset
from mini_platform.warehouse.tables import TYPES, dataset_tables, files

if TYPE_CHECKING:
    import pandas as pd

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space: what `validation.clean` trims."""


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
    rules = staging.c._rules

    def typed(column: Column) -> ColumnElement[Any]:
        text = staging.c[column.name]
        if column.type_rule is None:
            return text
        kind = TYPES[column.type]
        readable = not_(rules.contains([column.type_rule.name]))
        # The cell of a rejected row may stand as it arrived, with space around it that Postgres does not take for any.
        return case((rules.is_(None), text.cast(kind)), (readable, func.btrim(text, WHITE_SPACE).cast(kind)))

    rule = func.unnest(rules).label("rule")
    broken: dict[str, int] = dict(conn.execute(select(rule, func.count()).group_by(rule)).tuples().all())
    staged = select(files.c.keys_unique).where(files.c.file_id.in_(select(staging.c._file_id).distinct()))
    if conn.execute(staged).scalars().all() == [True]:
        duplicates = 0  # One file, and staging it has shown that its keys are unique.
    else:
        keys = select(func.count().label("rows")).where(rules.is_(None)).group_by(*(staging.c[k] for k in dataset.key))
        duplicates = conn.scalar(select(func.coalesce(func.sum(keys.subquery().c.rows - 1), 0))) or 0
    values = {column.name: typed(column) for column in dataset.columns}
    return _profile(conn, dataset, staging, values, staging.c._raw.is_(None), broken, int(duplicates))


def _production(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    production = dataset_tables(dataset).production
    values: dict[str, ColumnElement[Any]] = {c.name: production.c[c.name] for c in dataset.columns}
    return _profile(conn, dataset, production, values, true(), {}, 0)  # The key is the primary key: no duplicates.


def _profile(
    conn: Connection,
    dataset: Dataset,
    table: Table,
    values: Mapping[str, ColumnElement[Any]],
    rows: ColumnElement[bool],
    broken: Mapping[str, int],
    duplicates: int,
) -> list[dict[str, Any]]:
    """Figures of every column over the rows of a table that fulfil a condition."""
    selected: list[ColumnElement[Any]] = [func.count().label("total_rows")]
    for name, value in values.items():
        ordered = value.cast(Text) if isinstance(value.type, Boolean) else value  # There is no min(boolean).
        selected += [
            func.count(table.c[name]).label(f"filled {name}"),
            func.min(ordered).cast(Text).label(f"minimum {name}"),
            func.max(ordered).cast(Text).label(f"maximum {name}"),
        ]
    measured = conn.execute(select(*selected).where(rows)).mappings().one()
    total = measured["total_rows"]
    result = []
    for column in dataset.columns:
        name = column.name
        distinct = select(table.c[name]).where(and_(rows, table.c[name].is_not(None))).distinct().subquery()
        nulls = total - measured[f"filled {name}"]
        result.append(
            {
                "table_name": table.fullname,
                "column_name": name,
                "total_rows": total,
                "nulls": nulls,
                "null_rate": nulls / total if total else 0.0,
                "out_of_range": {r.name: broken.get(r.name, 0) for r in dataset.rules if r.column == name},
                "minimum": measured[f"minimum {name}"],
                "maximum": measured[f"maximum {name}"],
                "distinct_values": conn.scalar(select(func.count()).select_from(distinct)),
                "duplicates": duplicates,
            }
        )
    return result
