"""Metadata of assets in the Dagster UI: columns with units, lineage of columns, and the results of a materialization.

Here: results of use cases and rows of tables -> metadata. Not here: charts (`charts.py`), results of checks (`checks.py`).

https://docs.dagster.io/guides/build/assets/metadata-and-tags
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
from sqlalchemy import Connection, RowMapping, Table, func, select

from mini_platform.config.settings import Settings
from mini_platform.dagster.charts import bars, files_chart, line_chart
from mini_platform.declare.computed import Aggregate, Computed, View
from mini_platform.declare.dataset import Dataset
from mini_platform.landing.folder import DroppedFile
from mini_platform.rows.wording import file_status, plain
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.frames import StoredFrame
from mini_platform.warehouse.tables import (
    COUNTERS,
    among,
    columns_read,
    dataset_tables,
    files,
    quality_report,
    shown,
)

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_ROWS = 5
MAX_LISTED = 50
"""Maximum number of rows in a table of files."""


def table_metadata(table: Table) -> dict[str, Any]:
    """Return metadata that does not depend on rows: the table's name, and its columns with types, units and constraints."""
    return {"dagster/table_name": table.fullname, "dagster/column_schema": _schema(table)}


def dashboard_link(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Return the link from an asset to the dashboard's page of its dataset."""
    return {"dashboard": dg.MetadataValue.url(f"{settings.links_url}/datasets/{quote(dataset.name)}")}


def _schema(table: Table) -> dg.TableSchema:
    columns = [
        dg.TableColumn(
            name=column.name,
            type=type(column.type).__name__.lower(),
            description=column.comment,
            constraints=dg.TableColumnConstraints(
                nullable=bool(column.nullable), other=["primary key"] if column.primary_key else []
            ),
        )
        for column in table.columns
    ]
    return dg.TableSchema(columns=columns)


def column_lineage(dataset: Dataset, computed: Computed) -> dg.TableColumnLineage:
    """Return the columns from which each column of an aggregate or a view is computed, according to its select."""
    deps = {}
    for selected in dataset_tables(dataset).rows(computed).selected_columns:
        sources = sorted({(column.table.name, column.name) for column in columns_read(selected)})
        deps[selected.name] = [dg.TableColumnDep(dg.AssetKey([dataset.name, table]), name) for table, name in sources]
    return dg.TableColumnLineage(deps)


def table_value(rows: Iterable[Mapping[Any, Any]], description: str | None = None) -> dg.TableMetadataValue | None:
    """Return rows as a table for the UI; None if there are none. Values other than numbers are shown as text."""
    table_records = [
        dg.TableRecord(
            {
                str(k): v if isinstance(v, bool | int | float) else str("" if v is None else plain(v))
                for k, v in r.items()
            }
        )
        for r in rows
    ]
    return dg.MetadataValue.table(records=table_records) if table_records else None


def preview(conn: Connection, table: Table, order: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the first rows of a table, and the number of its rows."""
    rows = conn.execute(select(table).order_by(*order).limit(PREVIEW_ROWS)).mappings()
    count = conn.scalar(select(func.count()).select_from(table)) or 0
    return without_none({"dagster/row_count": count, "preview": table_value(shown(table.columns, row) for row in rows)})


def without_none(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without the entries that are None."""
    return {name: value for name, value in metadata.items() if value is not None}


def landed_metadata(
    conn: Connection, dataset: Dataset, file_ids: Sequence[int], skipped: Sequence[DroppedFile]
) -> dict[str, Any]:
    """Return the number and size of a dataset's raw files, the files of the run, and the skipped files."""
    columns = (files.c.file_id, files.c.name, files.c.version, files.c.bytes, files.c.status, files.c.arrived_at)
    arrived = (
        select(*columns, files.c.rows_rejected).where(among(files.c.file_id, file_ids)).order_by(files.c.file_id.desc())
    )
    versions = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None)
    )
    count, size = conn.execute(versions).one()
    return without_none(
        {
            "dagster/row_count": count,
            "bytes": int(size),
            "files_arrived": len(file_ids),
            "arrived": table_value(
                [_with_shown_status(row) for row in conn.execute(arrived.limit(MAX_LISTED)).mappings()]
            ),
            "skipped_files": table_value(skipped_rows(skipped)),
            "chart": files_chart(conn, dataset, ["bytes"]),
        }
    )


def _with_shown_status(row: RowMapping) -> dict[str, Any]:
    shown = dict(row)
    return shown | {"status": file_status(row["status"], shown.pop("rows_rejected"))}


def skipped_rows(skipped: Sequence[DroppedFile]) -> list[dict[str, Any]]:
    """Return skipped files as rows of a table."""
    return [{"file": file.name, "skip reason": file.skip_reason} for file in skipped[:MAX_LISTED]]


def staged_metadata(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> dict[str, Any]:
    """Return a preview of staged rows, rejected ones first, and the numbers of files that were staged now and deferred."""
    table = dataset_tables(dataset).staging
    return without_none(
        {
            **preview(conn, table, [table.c._rules.is_(None)]),
            "files_staged": len(file_ids),
            "files_deferred": conn.scalar(select(func.count()).where(ledger.is_deferred(dataset.name))),
            "chart": files_chart(conn, dataset, ["rows_read", "rows_rejected"]),
        }
    )


def loaded_metadata(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> dict[str, Any]:
    """Return a preview of production, and the counters of the files that this run loaded."""
    table = dataset_tables(dataset).production
    rows = conn.execute(select(files).where(among(files.c.file_id, file_ids)).order_by(files.c.file_id)).all()
    return without_none(
        {
            **preview(conn, table, [table.c[name].desc() for name in dataset.key]),
            **{name: sum(getattr(row, name) for row in rows) for name in ("rows_read", *COUNTERS)},
            "files_loaded": len(rows),
            "accounting": table_value(ledger.accounting(row) for row in rows[-MAX_LISTED:]),
            "chart": files_chart(conn, dataset, COUNTERS),
        }
    )


def refreshed_metadata(
    conn: Connection, dataset: Dataset, aggregate: Aggregate, refreshed: aggregates.Refreshed
) -> dict[str, Any]:
    """Return a preview of an aggregate, and the number of rows and groups that this run computed."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    return without_none(
        {
            **preview(conn, table, [table.c[name].desc() for name in aggregate.key]),
            "rows_written": refreshed.written,
            "rows_deleted": refreshed.deleted,
            "groups_computed": "all" if refreshed.groups is None else refreshed.groups,
            "chart": line_chart(conn, table, *aggregate.chart) if aggregate.chart else None,
        }
    )


def view_metadata(conn: Connection, dataset: Dataset, view: View) -> dict[str, Any]:
    """Return a preview of a view. The view itself was created with the tables of its dataset."""
    table = dataset_tables(dataset).views[view.name]
    with aggregates.translate_errors(dataset, view):
        chart = line_chart(conn, table, *view.chart) if view.chart else None
        return without_none({**preview(conn, table), "chart": chart})


def frame_metadata(conn: Connection, stored: StoredFrame) -> dict[str, Any]:
    """Return the table of a user's own asset, its number of rows, and the numbers of rows that this run changed."""
    count = conn.scalar(select(func.count()).select_from(stored.table)) or 0
    counters = {f"rows_{name}": getattr(stored, name) for name in ("inserted", "updated", "unchanged", "deleted")}
    return {"dagster/row_count": count, **table_metadata(stored.table), **counters}


def measured_metadata(report: pd.DataFrame) -> dict[str, Any]:
    """Return a quality report as a table and a chart."""
    out_of_range = [[float(sum(rules.values()))] for rules in report["out_of_range"]]
    labels = [f"{t} {c}" for t, c in zip(report["table_name"], report["column_name"], strict=True)]
    rows = report.drop(columns=["run_id", "dataset", "measured_at"]).to_dict("records")
    parts = [[float(nulls), *others] for nulls, others in zip(report["nulls"], out_of_range, strict=True)]
    return without_none({"report": table_value(rows), "chart": bars(labels, ["nulls", "out of range"], parts)})


def reported_metadata(conn: Connection, dataset: Dataset, rows_written: int) -> dict[str, Any]:
    """Return the number of rows that this run added to the quality report, and the number of all rows of the dataset."""
    all_rows = select(func.count()).select_from(quality_report).where(quality_report.c.dataset == dataset.name)
    return {"rows_written": rows_written, "dagster/row_count": conn.scalar(all_rows) or 0}
