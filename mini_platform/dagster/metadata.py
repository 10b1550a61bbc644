"""What the Dagster UI shows of an asset: columns with units, lineage of columns, and what a materialization did.

Here: results of use cases and rows of tables -> metadata. Not here: charts (`charts.py`), what checks say (`checks.py`).

https://docs.dagster.io/guides/build/assets/metadata-and-tags
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
from sqlalchemy import Connection, Table, func, select

from mini_platform.config.settings import Settings
from mini_platform.dagster.charts import bars, files_chart, line_chart
from mini_platform.declare.computed import Aggregate, Computed, View
from mini_platform.declare.dataset import Dataset
from mini_platform.landing.folder import DroppedFile
from mini_platform.rows.wording import plain
from mini_platform.warehouse import aggregates, ledger
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
LISTED = 50
"""Rows of a listing at most."""


def table_metadata(table: Table) -> dict[str, Any]:
    """What is known of a table before it has rows: its name and its columns with types, units and constraints."""
    return {"dagster/table_name": table.fullname, "dagster/column_schema": _schema(table)}


def dashboard_link(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Where people who look at an asset find the pages of its dataset."""
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
    """Which columns of which tables each column of an aggregate or a view is computed from, read off its select."""
    deps = {}
    for selected in dataset_tables(dataset).rows(computed).selected_columns:
        found = sorted({(column.table.name, column.name) for column in columns_read(selected)})
        deps[selected.name] = [dg.TableColumnDep(dg.AssetKey([dataset.name, table]), name) for table, name in found]
    return dg.TableColumnLineage(deps)


def records(rows: Iterable[Mapping[Any, Any]], description: str | None = None) -> dg.TableMetadataValue | None:
    """Rows as a table in the UI; None where there are none. Values other than numbers are shown as text."""
    shown = [
        dg.TableRecord(
            {
                str(k): v if isinstance(v, bool | int | float) else str("" if v is None else plain(v))
                for k, v in r.items()
            }
        )
        for r in rows
    ]
    return dg.MetadataValue.table(records=shown) if shown else None


def preview(conn: Connection, table: Table, order: Sequence[Any] = ()) -> dict[str, Any]:
    """A few rows of a table and how many there are."""
    rows = conn.execute(select(table).order_by(*order).limit(PREVIEW_ROWS)).mappings()
    count = conn.scalar(select(func.count()).select_from(table)) or 0
    return given({"dagster/row_count": count, "preview": records(shown(table.columns, row) for row in rows)})


def given(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without the entries for which there is nothing to show."""
    return {name: value for name, value in metadata.items() if value is not None}


def landed_metadata(
    conn: Connection, dataset: Dataset, file_ids: Sequence[int], skipped: Sequence[DroppedFile]
) -> dict[str, Any]:
    """Return what the raw files of a dataset are, which of them a run is about, and what was left alone."""
    shown = (files.c.file_id, files.c.name, files.c.version, files.c.bytes, files.c.status, files.c.arrived_at)
    arrived = select(*shown).where(among(files.c.file_id, file_ids)).order_by(files.c.file_id.desc())
    versions = select(func.count(), func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == dataset.name, files.c.same_as.is_(None)
    )
    count, size = conn.execute(versions).one()
    return given(
        {
            "dagster/row_count": count,
            "bytes": int(size),
            "files_arrived": len(file_ids),
            "arrived": records(conn.execute(arrived.limit(LISTED)).mappings()),
            "skip_reason": records(skipped_rows(skipped)),
            "chart": files_chart(conn, dataset, ["bytes"]),
        }
    )


def skipped_rows(skipped: Sequence[DroppedFile]) -> list[dict[str, Any]]:
    """Return files that were left alone as rows of a table."""
    return [{"file": file.name, "left alone because": file.skip_reason} for file in skipped[:LISTED]]


def staged_metadata(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> dict[str, Any]:
    """Return what is staged, the first rejected rows of it, and how many files were staged now."""
    table = dataset_tables(dataset).staging
    return given(
        {
            **preview(conn, table, [table.c._rules.is_(None)]),
            "files_staged": len(file_ids),
            "files_deferred": conn.scalar(select(func.count()).where(ledger.is_deferred(dataset.name))),
            "chart": files_chart(conn, dataset, ["rows_read", "rows_rejected"]),
        }
    )


def loaded_metadata(conn: Connection, dataset: Dataset, file_ids: Sequence[int]) -> dict[str, Any]:
    """Return what production holds, and what became of the rows of the files that were loaded now."""
    table = dataset_tables(dataset).production
    rows = conn.execute(select(files).where(among(files.c.file_id, file_ids)).order_by(files.c.file_id)).all()
    return given(
        {
            **preview(conn, table, [table.c[name].desc() for name in dataset.key]),
            **{name: sum(getattr(row, name) for row in rows) for name in ("rows_read", *COUNTERS)},
            "files_loaded": len(rows),
            "accounting": records(ledger.accounting(row) for row in rows[-LISTED:]),
            "chart": files_chart(conn, dataset, COUNTERS),
        }
    )


def refreshed_metadata(
    conn: Connection, dataset: Dataset, aggregate: Aggregate, refreshed: aggregates.Refreshed
) -> dict[str, Any]:
    """Return what an aggregate holds, and what was computed now."""
    table = dataset_tables(dataset).aggregates[aggregate.name]
    return given(
        {
            **preview(conn, table, [table.c[name].desc() for name in aggregate.key]),
            "rows_written": refreshed.written,
            "rows_deleted": refreshed.deleted,
            "groups_computed": "all" if refreshed.groups is None else refreshed.groups,
            "chart": line_chart(conn, table, *aggregate.chart),
        }
    )


def view_metadata(conn: Connection, dataset: Dataset, view: View) -> dict[str, Any]:
    """Return what a view shows now; it is there since its dataset was declared."""
    table = dataset_tables(dataset).views[view.name]
    with aggregates.in_words(dataset, view):
        return given({**preview(conn, table), "chart": line_chart(conn, table, *view.chart)})


def measured_metadata(report: pd.DataFrame) -> dict[str, Any]:
    """Return a quality report as a table and a chart."""
    outside = [[float(sum(rules.values()))] for rules in report["out_of_range"]]
    labels = [f"{t} {c}" for t, c in zip(report["table_name"], report["column_name"], strict=True)]
    rows = report.drop(columns=["run_id", "dataset", "measured_at"]).to_dict("records")
    parts = [[float(nulls), *more] for nulls, more in zip(report["nulls"], outside, strict=True)]
    return given({"report": records(rows), "chart": bars(labels, ["nulls", "out of range"], parts)})


def reported_metadata(conn: Connection, dataset: Dataset, rows_written: int) -> dict[str, Any]:
    """Return how many rows of quality reports were written now, and how many of the dataset are kept."""
    kept = select(func.count()).select_from(quality_report).where(quality_report.c.dataset == dataset.name)
    return {"rows_written": rows_written, "dagster/row_count": conn.scalar(kept) or 0}
