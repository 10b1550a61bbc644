"""Quality: what staging and production hold, measured column by column.

A column is grouped by its values once, which hashes and runs in parallel, and every figure is computed over the groups:
over a few thousand values instead of a million rows. `count(DISTINCT ...)` would sort: ten times slower on 1M rows.

Of a large file that comes alone, the validation pass has counted the same already (`figures.py`): nothing is read again.
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
"""Unicode's White_Space: what `validation.clean` trims."""
ALWAYS_MEASURED = 1_000_000
"""A production table of so many rows is measured by every run: half a second."""
CHANGED_SHARE = 0.2
"""A larger one is measured again when so many of its rows may have changed; until then its last figures are reported."""


def measure(conn: Connection, dataset: Dataset, run_id: str) -> pd.DataFrame:
    """Measure staging and production.

    Staging is measured over the rows that have columns; its minimum, maximum and mean over the values that could be read,
    out of range or not. Personal data has neither.

    Returns:
        A row per table and column, with the columns of `analytics.quality_report`. `measured_at` says from when the
        figures are: those of a large production table may be older than the run (see `CHANGED_SHARE`).
    """
    import pandas as pd

    now = dt.datetime.now(dt.UTC)
    production = _still_good(conn, dataset) or _production(conn, dataset, _filled(conn, dataset, run_id))
    rows = [{"measured_at": now, **row} for row in (*_staging(conn, dataset), *production)]
    frame = pd.DataFrame({**row, "run_id": run_id, "dataset": dataset.name} for row in rows)
    frame["mean"] = pd.Series([row["mean"] for row in rows], dtype=object)  # None stays None, and is no NaN.
    return frame.astype(dict.fromkeys(("total_rows", "nulls", "distinct_values", "duplicates"), "int64"))


def _staging(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    staging = dataset_tables(dataset).staging
    results = select(staging.c._file_id, staging.c._rules, func.count()).group_by(staging.c._file_id, staging.c._rules)
    broken: Counter[str] = Counter()
    staged: Counter[int] = Counter()
    for file_id, rules, count in conn.execute(results):
        staged[file_id] += count
        broken.update(dict.fromkeys(rules or (), count))
    found = conn.execute(select(files).where(among(files.c.file_id, list(staged)))).all()
    alone = found[0] if len(found) == 1 and found[0].rows_read == staged[found[0].file_id] else None
    if alone and alone.keys_unique:
        duplicates = 0  # One file, and staging it has shown that its keys are unique.
    else:
        valid = staging.c._rules.is_(None)
        stored = dataset_tables(dataset).production
        key = (staging.c[name].cast(stored.c[name].type) for name in dataset.key)  # 1.0 and 1.00 are one.
        keys = select(func.count().label("rows")).where(valid).group_by(*key)
        duplicates = int(conn.scalar(select(func.coalesce(func.sum(keys.subquery().c.rows - 1), 0))) or 0)
    known = _known(conn, staging, dataset.staged_columns, (alone and alone.figures) or {}, "staged")
    return [
        (known.get(column.name) or _figures(conn, staging, column, _staged_values(dataset, column)))
        | {"out_of_range": {r.name: broken[r.name] for r in dataset.rules if r.column == column.name}}
        | {"duplicates": duplicates}
        for column in dataset.staged_columns
    ]


def _staged_values(dataset: Dataset, column: Column) -> Select[Any]:
    """The values of a column with their rows: 1.0 and 1.00 are one; where it could not be read, each `text` by itself.

    Where only the shape of rejected rows is known, or may be shown, texts that no valid row has are no values.
    """
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
        )  # A list that was read stands in one form; one that was not is no array.
    elif column.type is str:
        value = case((texts.c.readable, func.btrim(value, WHITE_SPACE) if column.trim else value))
    else:
        # The cell of a rejected row may stand as it arrived: with space around it that Postgres does not take for any, or a
        # null token that is missed there.
        plain = func.btrim(value, WHITE_SPACE)
        says = plain.not_in(["", *(token.strip() for token in column.null_tokens)])
        value = case((texts.c.readable & says, plain.cast(sql_type(column))))
    read = select(texts.c.text, value.label("value"), texts.c.rows).subquery("read")
    unread = case((read.c.value.is_(None), read.c.text))
    values = select(func.min(read.c.text).label("text"), read.c.value, func.sum(read.c.rows).label("rows"))
    return values.group_by(read.c.value, unread)


def _filled(conn: Connection, dataset: Dataset, run_id: str) -> dict[str, ColumnFigures]:
    """Figures of the one file with which this very run has filled the empty production table; else none."""
    loaded = select(files).where(files.c.dataset == dataset.name, files.c.loaded_at.is_not(None)).limit(2)
    found = conn.execute(loaded).all()
    if len(found) != 1 or found[0].run_id != run_id or not (found[0].figures and found[0].keys_unique):
        return {}
    rows = conn.scalar(select(func.count()).select_from(dataset_tables(dataset).production))
    return found[0].figures if found[0].rows_inserted == rows == found[0].rows_read - found[0].rows_rejected else {}


def _known(
    conn: Connection, table: Table, columns: Sequence[Column], figures: Mapping[str, ColumnFigures], which: str
) -> dict[str, dict[str, Any]]:
    """Figures that were counted, as `_figures` has them; the server says how the smallest and largest values are written."""
    known = [(column, figures[column.name][which]) for column in columns if column.name in figures]
    ends = [
        literal(of[end]).cast(sql_type(column)).cast(Text).label(f"{n} {end}")
        for n, (column, of) in enumerate(known)
        for end in ("minimum", "maximum")
    ]
    written = conn.execute(select(*ends)).mappings().one() if ends else {}
    return {
        column.name: _row(table, column, {**of, **{end: written[f"{n} {end}"] for end in ("minimum", "maximum")}})
        for n, (column, of) in enumerate(known)
    }


def _production(conn: Connection, dataset: Dataset, filled: Mapping[str, ColumnFigures]) -> list[dict[str, Any]]:
    table = dataset_tables(dataset).production
    known = _known(conn, table, dataset.stored_columns, filled, "valid")
    result = []
    for column in dataset.stored_columns:
        value = table.c[column.name]
        values = select(value.label("text"), value.label("value"), func.count().label("rows")).group_by(value)
        rules = {r.name: 0 for r in dataset.rules if r.column == column.name}
        figures = known.get(column.name) or _figures(conn, table, column, values)
        result.append(figures | {"out_of_range": rules, "duplicates": 0})  # It has a key.
    return result


def _still_good(conn: Connection, dataset: Dataset) -> list[dict[str, Any]]:
    """The last figures of production if it is large and little of it can have changed since; else none."""
    name = dataset_tables(dataset).production.fullname
    mine = quality_report.c.table_name == name
    last = select(func.max(quality_report.c.measured_at)).where(mine).scalar_subquery()
    # Several runs may have reported figures of that time.
    chosen = select(quality_report).distinct(quality_report.c.column_name)
    chosen = chosen.where(mine, quality_report.c.measured_at == last).order_by(quality_report.c.column_name)
    found = {row["column_name"]: dict(row) for row in conn.execute(chosen).mappings()}
    columns = [column.name for column in dataset.stored_columns]
    if sorted(found) != sorted(columns) or found[columns[0]]["total_rows"] <= ALWAYS_MEASURED:
        return []
    figures = found[columns[0]]
    since = func.greatest(files.c.staged_at, files.c.loaded_at) > figures["measured_at"]
    changed = conn.scalar(select(func.sum(files.c.rows_read)).where(files.c.dataset == dataset.name, since)) or 0
    return [found[name] for name in columns] if changed < CHANGED_SHARE * figures["total_rows"] else []


def _figures(conn: Connection, table: Table, column: Column, values: Select[Any]) -> dict[str, Any]:
    """Figures of a column.

    Args:
        conn: where it is.
        table: whose column.
        column: as it is declared.
        values: selects each different `value` with its `rows` and a `text` that stands for it; of texts that stand for none
            each by itself, one of them null.
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
            # As numeric, as a sum of large floats would be an error.
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
