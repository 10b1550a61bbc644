"""Asset checks: one per declared rule, all computed from the one validation pass, whose counts are in the ledger.

They only report. Bad files are stopped before the load: `warehouse/staging.py` refuses a file over its dataset's limit, as a
failed blocking check would not undo a write.

https://docs.dagster.io/guides/test/asset-checks
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Row, func, select

from mini_platform.dagster.charts import line
from mini_platform.dagster.metadata import skipped_rows, table_value, without_none
from mini_platform.declare.columns import Rule
from mini_platform.declare.dataset import Dataset
from mini_platform.landing.folder import DroppedFile
from mini_platform.platform import Platform
from mini_platform.warehouse import anomalies
from mini_platform.warehouse.tables import COUNTERS, among, dataset_tables, files, shown

SAMPLE_ROWS = 10
CHARTS = 3
"""Maximum number of charts per anomaly check."""

FILES_TAKEN = "files_taken"
FILES_ACCEPTED = "files_accepted"
FILES_NOT_EMPTY = "files_not_empty"
COLUMNS_AS_DECLARED = "columns_as_declared"


def files_taken_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Return the check of the raw asset."""
    return dg.AssetCheckSpec(FILES_TAKEN, asset=asset, description="Every dropped file could be read and landed.")


def files_taken_result(
    asset: dg.AssetKey, blocked: Sequence[DroppedFile], inboxes: Sequence[Row[Any]]
) -> dg.AssetCheckResult:
    """Return a failed check if files are blocked, or inboxes are down. The run continues with the files that were landed."""
    down = [{"inbox": row.inbox, "since": str(row.failing_since), "error": row.last_error} for row in inboxes]
    first = f": {blocked[0].name}: {blocked[0].skip_reason}" if blocked else ""
    also = "".join(f"; inbox {row['inbox']}: {row['error']}" for row in down)
    return dg.AssetCheckResult(
        check_name=FILES_TAKEN,
        asset_key=asset,
        passed=not blocked and not down,
        description=f"{len(blocked)} file{'' if len(blocked) == 1 else 's'} cannot be landed{first}{also}",
        metadata=without_none(
            {"files": len(blocked), "blocked_files": table_value(skipped_rows(blocked)), "inboxes": table_value(down)}
        ),
    )


def staging_specs(dataset: Dataset, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the checks of the staging asset."""
    descriptions = {
        FILES_ACCEPTED: "No file was refused or failed.",
        FILES_NOT_EMPTY: "Every file has rows.",
        COLUMNS_AS_DECLARED: "The files have only columns that the dataset declares; staging keeps other columns.",
    }
    descriptions |= {rule.name: f"No row breaks the rule: {rule.message}." for rule in dataset.rules}
    return [dg.AssetCheckSpec(name, asset=asset, description=text) for name, text in descriptions.items()]


def staging_results(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, file_ids: Sequence[int]
) -> list[dg.AssetCheckResult]:
    """Return the results of the staging asset's checks for these files."""
    chosen = select(files).where(files.c.file_id == func.any(list(file_ids))).order_by(files.c.file_id)
    rows = conn.execute(chosen).all()
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.rule_counts or {})
    failed_files = [r for r in rows if r.status in ("refused", "failed")]
    empty_files = [r for r in rows if r.rows_read == 0 and r not in failed_files]
    file_results = [
        _files_result(asset, FILES_ACCEPTED, failed_files, dg.AssetCheckSeverity.ERROR, "error"),
        _files_result(asset, FILES_NOT_EMPTY, empty_files, dg.AssetCheckSeverity.WARN, "status"),
        _columns_result(conn, dataset, asset, rows),
    ]
    return file_results + [_rule_result(conn, dataset, asset, rule, counts[rule.name], rows) for rule in dataset.rules]


def _files_result(
    asset: dg.AssetKey, name: str, affected: Sequence[Row[Any]], severity: dg.AssetCheckSeverity, reason_column: str
) -> dg.AssetCheckResult:
    table = table_value(
        {"file_id": r.file_id, "file": r.name, reason_column: str(getattr(r, reason_column))}
        for r in affected[:SAMPLE_ROWS]
    )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not affected,
        severity=severity,
        metadata=without_none({"files": len(affected), "affected_files": table}),
    )


def _columns_result(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, rows: Sequence[Row[Any]]
) -> dg.AssetCheckResult:
    """Return the check of these files' columns, with a comparison to the declared columns and to those of the last load."""
    first = min((row.file_id for row in rows), default=0)
    last_run = (
        select(files.c.run_id)
        .where(files.c.dataset == dataset.name, files.c.status == "loaded", files.c.file_id < first)
        .order_by(files.c.file_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    last_files = conn.execute(select(files).where(files.c.dataset == dataset.name, files.c.run_id == last_run)).all()
    current, previous = _column_counts(dataset, rows), _column_counts(dataset, last_files)
    declared = {column.name: column for column in dataset.read_columns}
    contract = [
        {
            "column": name,
            "declared": "yes" if name in declared else "no",
            "files": current[name],
            "files_of_last_load": previous[name] if last_files else "",
            "change": "new"
            if last_files and not previous[name]
            else "gone"
            if last_files and not current[name]
            else "",
        }
        for name in dict.fromkeys([*declared, *current, *previous])
    ]
    unexpected = [row for row in rows if row.unexpected_columns]
    affected_files = table_value(
        {"file_id": r.file_id, "file": r.name, "unexpected_columns": str(r.unexpected_columns)}
        for r in unexpected[:SAMPLE_ROWS]
    )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=COLUMNS_AS_DECLARED,
        passed=not unexpected,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unexpected)} of {len(rows)} files have columns that are not declared ({dataset.unexpected_columns})"
        if unexpected
        else None,
        metadata=without_none(
            {"files": len(unexpected), "affected_files": affected_files, "contract": table_value(contract)}
        ),
    )


def _column_counts(dataset: Dataset, rows: Sequence[Row[Any]]) -> Counter[str]:
    """Return the number of files that have each column."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.rows_read is not None:
            counts.update({column.name for column in dataset.read_columns} - set(row.missing_columns or ()))
            counts.update(row.unexpected_columns or ())
    return counts


def _rule_result(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, rule: Rule, count: int, rows: Sequence[Row[Any]]
) -> dg.AssetCheckResult:
    read = sum(row.rows_read or 0 for row in rows)
    erased = sum(row.rows_erased or 0 for row in rows)
    # Limits apply to all rows of a file, as in its validation: also to those of erased persons, which were valid.
    too_many = rule.severity == "error" and any(
        dataset.reject_limit.exceeded((row.rule_counts or {}).get(rule.name, 0), row.rows_read + (row.rows_erased or 0))
        for row in rows
        if row.rows_read is not None
    )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=rule.name,
        passed=count == 0 or not dataset.warn_limit.exceeded(count, read + erased),
        severity=dg.AssetCheckSeverity.ERROR if too_many else dg.AssetCheckSeverity.WARN,
        description=f"{count} of {read} rows: {rule.message}",
        metadata=without_none(
            {
                "rows_checked": read,
                "rows_failed": count,
                "rate": count / read if read else 0.0,
                "threshold": f"warns above {dataset.warn_limit}, refuses the file above {dataset.reject_limit}",
                "failing_rows": _failing_rows(conn, dataset, rule, [row.file_id for row in rows]) if count else None,
            }
        ),
    )


def _failing_rows(
    conn: Connection, dataset: Dataset, rule: Rule, file_ids: Sequence[int]
) -> dg.TableMetadataValue | None:
    staging = dataset_tables(dataset).staging.c
    names = [rule.column] if rule.column else [c.name for c in dataset.read_columns]
    values = [staging[name] for name in (*names, "_raw", "_rules")]
    failing = (
        select(files.c.name.label("file"), staging._line.label("line"), *values)
        .join(files, files.c.file_id == staging._file_id)
        .where(among(staging._file_id, file_ids), staging._rules.contains([rule.name]))
        .limit(SAMPLE_ROWS)
    )
    rows = [shown(values, row) for row in conn.execute(failing).mappings()]
    columns = [name for name in rows[0] if name != "_rules"] if rows else []
    filled = [name for name in columns if any(row[name] is not None for row in rows)]
    return table_value({name.removeprefix("_"): row[name] for name in filled} for row in rows)


USUAL = {
    "rows": "The newest load has about as many rows as the loads before it.",
    "rejects": "The newest load has about the usual share of rejected rows.",
    "nulls": "The columns of the newest load are empty about as often as usual.",
    "means": "The means of the numeric columns of the newest load are about the usual ones.",
}
"""Kind of figure (`warehouse.anomalies`) -> description of its check."""


def anomaly_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """Return the checks that compare the newest load with the dataset's recent loads; they never do more than warn."""
    asset = dg.AssetKey([dataset.name, "quality_report"])

    @dg.multi_asset_check(
        name=f"{dataset.name}_as_usual",
        specs=[dg.AssetCheckSpec(f"{kind}_as_usual", asset=asset, description=text) for kind, text in USUAL.items()],
    )
    def as_usual(platform: dg.ResourceParam[Platform]) -> Iterator[dg.AssetCheckResult]:
        with platform.engine.connect() as conn:
            figures = anomalies.figures(conn, dataset)
        for kind in USUAL:
            yield _figures_result(asset, kind, [figure for figure in figures if figure.kind == kind])

    return as_usual


def _figures_result(asset: dg.AssetKey, kind: str, figures: Sequence[anomalies.Figure]) -> dg.AssetCheckResult:
    unusual = [figure for figure in figures if figure.is_unusual]
    table_rows = [
        {
            "figure": f.name,
            "newest": f.value,
            "usual minimum": f.usual and f.usual[0],
            "usual maximum": f.usual and f.usual[1],
        }
        for f in unusual or figures
    ]
    charts = {
        f"chart_{f.name.replace(' ', '_')}": line(
            f"{f.name} by load", [*f.history, f.value or 0.0], f"{len(f.history)} loads ago", "newest", f.usual
        )
        for f in (unusual or figures)[:CHARTS]
        if f.history and f.value is not None
    }
    compared = max((len(figure.history) for figure in figures), default=0)
    too_few = (
        f"{compared} earlier loads: too few to compute the usual range" if compared < anomalies.FEWEST_LOADS else None
    )
    names = ", ".join(figure.name for figure in unusual)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"{kind}_as_usual",
        passed=not unusual,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"out of the usual range: {names}" if unusual else too_few,
        metadata=without_none({"loads_compared": compared, "figures": table_value(table_rows), **charts}),
    )


def accounting_check(dataset: Dataset) -> dg.AssetChecksDefinition:
    """Return the check that every row of every loaded file is accounted for."""

    @dg.asset_check(
        asset=dg.AssetKey([dataset.name, dataset.table]),
        name="every_row_accounted_for",
        description="For every loaded file: rows read = inserted + updated + unchanged + superseded + rejected.",
    )
    def every_row_accounted_for(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        columns = [files.c.rows_read, *(files.c[name] for name in COUNTERS)]
        sums = select(*(func.coalesce(func.sum(c), 0).label(c.name) for c in columns)).where(
            files.c.dataset == dataset.name, files.c.status == "loaded"
        )
        with platform.engine.connect() as conn:
            row = conn.execute(sums).mappings().one()
        totals = {name: int(value) for name, value in row.items()}
        accounted = sum(totals[name] for name in COUNTERS)
        return dg.AssetCheckResult(passed=accounted == totals["rows_read"], metadata=totals)

    return every_row_accounted_for
