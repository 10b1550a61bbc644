"""Quarantine: storing rejected rows with their reasons, and reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.bulk import filled_in_bulk, is_empty
from mini_platform.warehouse.tables import among, dataset_tables, files, shown


def write(
    conn: Connection, dataset: Dataset, file_ids: Sequence[int], with_rejects: Sequence[int], *, many: bool = False
) -> None:
    """Replace the quarantined rows of these files by their rejected rows in staging.

    Args:
        conn: the caller's transaction.
        dataset: dataset of the files.
        file_ids: files whose quarantined rows are deleted.
        with_rejects: files among them that have rejected rows now.
        many: True if the rows are so many that an empty table is better filled without its indexes.
    """
    tables = dataset_tables(dataset)
    if file_ids:
        conn.execute(delete(tables.quarantine).where(among(tables.quarantine.c._file_id, file_ids)))
    ids = list(with_rejects)
    if not ids:
        return
    names = [c.name for c in tables.staging.columns]
    rejected = select(tables.staging).where(among(tables.staging.c._file_id, ids), tables.staging.c._rules.is_not(None))
    bulk = many and is_empty(conn, tables.quarantine)
    with filled_in_bulk(conn, tables.quarantine) if bulk else nullcontext():
        conn.execute(insert(tables.quarantine).from_select(names, rejected, include_defaults=False))


def rejects(
    conn: Connection, dataset: Dataset, *, file_id: int | None = None, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield an item for each broken rule of each rejected row: file, line, record, column, value, rule, reason; in file order.

    For a rule about a whole row, the value is the row: its text as it arrived, or its cells.
    """
    quarantine = dataset_tables(dataset).quarantine
    columns = {rule.name: rule.column for rule in dataset.rules}
    statement = (
        select(quarantine, files.c.name.label("_file"))
        .join(files, files.c.file_id == quarantine.c._file_id)
        .order_by(quarantine.c._file_id, quarantine.c._line, quarantine.c._record)
        .limit(limit)
        .execution_options(yield_per=1000)
    )
    if file_id is not None:
        statement = statement.where(quarantine.c._file_id == file_id)
    for row in conn.execute(statement).mappings():
        for rule, reason in zip(row["_rules"], row["_reasons"], strict=True):
            column = columns.get(rule)
            cells = shown(quarantine.columns, row)
            value = (
                cells[column]
                if column
                else cells["_raw"] or ",".join(cells[c.name] or "" for c in dataset.read_columns)
            )
            yield {
                "file_id": row["_file_id"],
                "file": row["_file"],
                "line": row["_line"],
                "record": row["_record"],
                "column": column,
                "value": value,
                "rule": rule,
                "reason": reason,
            }
