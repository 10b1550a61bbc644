"""Asset checks: one per declared rule, all from the one validation pass, whose counts are in the ledger.

They report; they are not the gate. The gate stands before the load: a file over its dataset's limit is refused by
`warehouse/staging.py`, because a failed blocking check would not undo a write.

https://docs.dagster.io/guides/test/asset-checks
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Row, func, select

from mini_platform.dagster.charts import line
from mini_platform.dagster.metadata import given, records, skipped_rows
from mini_platform.declare.columns import Rule
from mini_platform.declare.dataset import Dataset
from mini_platform.landing.folder import DroppedFile
from mini_platform.platform import Platform
from mini_platform.warehouse import anomalies
from mini_platform.warehouse.tables import COUNTERS, among, dataset_tables, files, shown

SAMPLE_ROWS = 10
CHARTS = 3
"""Charts of one anomaly check at most."""

TAKEN = "files_taken"
ACCEPTED = "files_accepted"
NOT_EMPTY = "files_not_empty"
AS_DECLARED = "columns_as_declared"


def taken_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check of the raw asset."""
    return dg.AssetCheckSpec(TAKEN, asset=asset, description="Every dropped file could be read and kept.")


def taken(asset: dg.AssetKey, blocked: Sequence[DroppedFile], down: Sequence[Row[Any]]) -> dg.AssetCheckResult:
    """Fails where files wait for somebody's help. The run goes on: what was landed before is not to wait with them."""
    dead = [{"inbox": row.inbox, "since": str(row.failing_since), "why": row.last_error} for row in down]
    first = f": {blocked[0].name}: {blocked[0].skip_reason}" if blocked else ""
    also = "".join(f"; inbox {row['inbox']}: {row['why']}" for row in dead)
    return dg.AssetCheckResult(
        check_name=TAKEN,
        asset_key=asset,
        passed=not blocked and not dead,
        description=f"{len(blocked)} file{'' if len(blocked) == 1 else 's'} cannot be taken{first}{also}",
        metadata=given(
            {"files": len(blocked), "skip_reason": records(skipped_rows(blocked)), "inboxes": records(dead)}
        ),
    )


def specs(dataset: Dataset, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of the staging asset."""
    described = {
        ACCEPTED: "No file was refused or failed.",
        NOT_EMPTY: "Every file has rows.",
        AS_DECLARED: "The files have no columns that the dataset does not declare; such columns are kept in staging.",
    }
    described |= {rule.name: f"No row breaks the rule: {rule.message}." for rule in dataset.rules}
    return [dg.AssetCheckSpec(name, asset=asset, description=words) for name, words in described.items()]


def results(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, file_ids: Sequence[int]
) -> list[dg.AssetCheckResult]:
    """What the checks say of these files."""
    chosen = select(files).where(files.c.file_id == func.any(list(file_ids))).order_by(files.c.file_id)
    rows = conn.execute(chosen).all()
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.rule_counts or {})
    rejected_files = [r for r in rows if r.status in ("refused", "failed")]
    empty_files = [r for r in rows if r.rows_read == 0 and r not in rejected_files]
    found = [
        _about_files(asset, ACCEPTED, rejected_files, dg.AssetCheckSeverity.ERROR, "error"),
        _about_files(asset, NOT_EMPTY, empty_files, dg.AssetCheckSeverity.WARN, "status"),
        _about_columns(conn, dataset, asset, rows),
    ]
    return found + [_about_rule(conn, dataset, asset, rule, counts[rule.name], rows) for rule in dataset.rules]


def _about_files(
    asset: dg.AssetKey, name: str, at_fault: Sequence[Row[Any]], severity: dg.AssetCheckSeverity, why: str
) -> dg.AssetCheckResult:
    table = records({"file_id": r.file_id, "file": r.name, why: str(getattr(r, why))} for r in at_fault[:SAMPLE_ROWS])
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not at_fault,
        severity=severity,
        metadata=given({"files": len(at_fault), "which": table}),
    )


def _about_columns(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, rows: Sequence[Row[Any]]
) -> dg.AssetCheckResult:
    """The columns that these files have, against the declared ones and those of the load before: a diff of the contract."""
    first = min((row.file_id for row in rows), default=0)
    last_run = (
        select(files.c.run_id)
        .where(files.c.dataset == dataset.name, files.c.status == "loaded", files.c.file_id < first)
        .order_by(files.c.file_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    before = conn.execute(select(files).where(files.c.dataset == dataset.name, files.c.run_id == last_run)).all()
    now, then = _seen(dataset, rows), _seen(dataset, before)
    declared = {column.name: column for column in dataset.read_columns}
    contract = [
        {
            "column": name,
            "declared": "yes" if name in declared else "no",
            "files": now[name],
            "files_of_last_load": then[name] if before else "",
            "change": "new" if before and not then[name] else "gone" if before and not now[name] else "",
        }
        for name in dict.fromkeys([*declared, *now, *then])
    ]
    widened = [row for row in rows if row.unexpected_columns]
    which = records(
        {"file_id": r.file_id, "file": r.name, "unexpected_columns": str(r.unexpected_columns)}
        for r in widened[:SAMPLE_ROWS]
    )
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=AS_DECLARED,
        passed=not widened,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(widened)} of {len(rows)} files have columns that are not declared ({dataset.unexpected_columns})"
        if widened
        else None,
        metadata=given({"files": len(widened), "which": which, "contract": records(contract)}),
    )


def _seen(dataset: Dataset, rows: Sequence[Row[Any]]) -> Counter[str]:
    """How many of these files have each column."""
    found: Counter[str] = Counter()
    for row in rows:
        if row.rows_read is not None:
            found.update({column.name for column in dataset.read_columns} - set(row.missing_columns or ()))
            found.update(row.unexpected_columns or ())
    return found


def _about_rule(
    conn: Connection, dataset: Dataset, asset: dg.AssetKey, rule: Rule, count: int, rows: Sequence[Row[Any]]
) -> dg.AssetCheckResult:
    read = sum(row.rows_read or 0 for row in rows)
    erased = sum(row.rows_erased or 0 for row in rows)
    # As the file is validated: rows of erased persons were read, and valid.
    too_many = rule.severity == "error" and dataset.reject_limit.exceeded(count, read + erased)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=rule.name,
        passed=count == 0 or not dataset.warn_limit.exceeded(count, read + erased),
        severity=dg.AssetCheckSeverity.ERROR if too_many else dg.AssetCheckSeverity.WARN,
        description=f"{count} of {read} rows: {rule.message}",
        metadata=given(
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
    told = [name for name in rows[0] if name != "_rules"] if rows else []
    filled = [name for name in told if any(row[name] is not None for row in rows)]
    return records({name.removeprefix("_"): row[name] for name in filled} for row in rows)


USUAL = {
    "rows": "The newest load has about as many rows as the loads before it.",
    "rejects": "The newest load has about the usual share of rejected rows.",
    "nulls": "The columns of the newest load are empty about as often as usual.",
    "means": "The means of the numeric columns of the newest load are about the usual ones.",
}
"""Kind of figure (`warehouse.anomalies`) -> what its check says."""


def anomaly_checks(dataset: Dataset) -> dg.AssetChecksDefinition:
    """The checks that compare the newest load with the dataset's own recent loads; they only ever warn."""
    asset = dg.AssetKey([dataset.name, "quality_report"])

    @dg.multi_asset_check(
        name=f"{dataset.name}_as_usual",
        specs=[dg.AssetCheckSpec(f"{kind}_as_usual", asset=asset, description=words) for kind, words in USUAL.items()],
    )
    def as_usual(platform: dg.ResourceParam[Platform]) -> Iterator[dg.AssetCheckResult]:
        with platform.engine.connect() as conn:
            found = anomalies.figures(conn, dataset)
        for kind in USUAL:
            yield _about_figures(asset, kind, [figure for figure in found if figure.kind == kind])

    return as_usual


def _about_figures(asset: dg.AssetKey, kind: str, found: Sequence[anomalies.Figure]) -> dg.AssetCheckResult:
    unusual = [figure for figure in found if figure.is_unusual]
    shown = [
        {"figure": f.name, "newest": f.value, "usually from": f.usual and f.usual[0], "to": f.usual and f.usual[1]}
        for f in unusual or found
    ]
    charts = {
        f"chart_{f.name.replace(' ', '_')}": line(
            f"{f.name} by load", [*f.history, f.value or 0.0], f"{len(f.history)} loads ago", "newest", f.usual
        )
        for f in (unusual or found)[:CHARTS]
        if f.history and f.value is not None
    }
    compared = max((len(figure.history) for figure in found), default=0)
    few = f"{compared} earlier loads: too few to say what is usual" if compared < anomalies.FEWEST_LOADS else None
    names = ", ".join(figure.name for figure in unusual)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"{kind}_as_usual",
        passed=not unusual,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"out of the usual range: {names}" if unusual else few,
        metadata=given({"loads_compared": compared, "figures": records(shown), **charts}),
    )


def accounting_check(dataset: Dataset) -> dg.AssetChecksDefinition:
    """The check that every row of every loaded file is accounted for."""

    @dg.asset_check(
        asset=dg.AssetKey([dataset.name, dataset.table]),
        name="every_row_accounted_for",
        description="Of every loaded file: rows read = inserted + updated + unchanged + superseded + rejected.",
    )
    def every_row_accounted_for(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        columns = [files.c.rows_read, *(files.c[name] for name in COUNTERS)]
        mine = select(*(func.coalesce(func.sum(c), 0).label(c.name) for c in columns)).where(
            files.c.dataset == dataset.name, files.c.status == "loaded"
        )
        with platform.engine.connect() as conn:
            row = conn.execute(mine).mappings().one()
        totals = {name: int(value) for name, value in row.items()}
        accounted = sum(totals[name] for name in COUNTERS)
        return dg.AssetCheckResult(passed=accounted == totals["rows_read"], metadata=totals)

    return every_row_accounted_for
