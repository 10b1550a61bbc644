"""Quality: the columns of a dataset, now and over time, with their rules and the rows that fail them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Connection, RowMapping, select

from mini_platform.declare.columns import Rule
from mini_platform.declare.dataset import Dataset
from mini_platform.rows.wording import percent, plural
from mini_platform.warehouse.tables import dataset_tables, quality_report
from mini_platform.web.api import relations
from mini_platform.web.auth.guard import allowed, readable
from mini_platform.web.pages import charts, reads
from mini_platform.web.pages.charts import Chart, Series
from mini_platform.web.pages.listing import Listing, listing
from mini_platform.web.pages.rendering import TableData, moment, render
from mini_platform.web.problems import NotFoundError, ProblemError
from mini_platform.web.site import SiteDep

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", several=True))])
RUNS = 200
"""Maximum number of measurements that are drawn."""


@router.get("/quality")
def quality(request: Request, site: SiteDep, dataset: str | None = None, column: str | None = None) -> Response:
    """Return the quality page of a dataset, by column; for one column over time, with its rejects."""
    chosen = next(iter(readable(request, dataset).values()), None)
    if chosen is None:
        raise ProblemError("There is no dataset that this key may read.", HTTPStatus.FORBIDDEN)
    if column and column not in {c.name for c in chosen.columns}:
        names = ", ".join(c.name for c in chosen.columns)
        raise NotFoundError(f"{chosen.name} has no column {column!r}. The columns are: {names}.")
    tables = dataset_tables(chosen)
    with site.read(personal=chosen.is_personal) as conn:
        state = reads.state(conn)
        production = reads.latest_quality(conn, tables.production.fullname)
        history = _history(conn, chosen, column)
        counts = reads.broken(conn, chosen)
        rejects = _rejects(request, conn, chosen, column) if column or "rule" in request.query_params else None
        drawn = _of_column(history, chosen, column) if column else _of_files(reads.last_files(conn, chosen))
    rules = [rule for rule in chosen.rules if not column or rule.column == column]
    run = next((figures["run_id"] for figures in production.values()), None)
    measured = [("table_name", tables.production.fullname), ("run_id", run)]
    return render(
        request, "quality.html",
        dataset=chosen, column=column, production=production, counts=counts, rejects=rejects,
        trends=_trends(history, tables.production.fullname), state=state, loads=reads.LOADS,
        chart=drawn, rules=rules, measured=measured, tables={"rules": _rules(rules, counts)},
    )  # fmt: skip


def _rules(rules: Sequence[Rule], counts: Mapping[str, int]) -> TableData:
    """Return rules with the number of rows that failed them in the last files."""
    rows = [(rule.name, rule.column, rule.message, rule.severity, counts.get(rule.name, 0)) for rule in rules]
    return TableData(("rule", "column", "broken_if", "severity", "rows"), rows)


def _history(conn: Connection, dataset: Dataset, column: str | None) -> Sequence[RowMapping]:
    """Return measurements, oldest first; each once, even if several runs reported it."""
    q = quality_report
    chosen = select(q.c.table_name, q.c.column_name, q.c.measured_at, q.c.null_rate, q.c.total_rows, q.c.out_of_range)
    chosen = chosen.distinct(q.c.table_name, q.c.column_name, q.c.measured_at).where(q.c.dataset == dataset.name)
    if column:
        chosen = chosen.where(q.c.column_name == column)
    last = select(q.c.measured_at).where(q.c.dataset == dataset.name).distinct().order_by(q.c.measured_at.desc())
    chosen = chosen.where(q.c.measured_at.in_(last.limit(RUNS)))
    return list(conn.execute(chosen.order_by(q.c.table_name, q.c.column_name, q.c.measured_at)).mappings())


def _trends(history: Sequence[RowMapping], table: str) -> dict[str, list[float]]:
    """Return the fraction of nulls of each column over time."""
    trends: dict[str, list[float]] = {}
    for row in history:
        if row["table_name"] == table:
            trends.setdefault(row["column_name"], []).append(row["null_rate"])
    return trends


def _rejects(request: Request, conn: Connection, dataset: Dataset, column: str | None) -> Listing:
    """Return rejected rows, of one column if one is chosen; newest file first."""
    fixed = {"ordering": "-file_id,line"} | ({"column": column} if column else {})
    base = f"/api/datasets/{dataset.name}/rejects"
    return listing(
        request, conn, relations.rejects(dataset), base, fixed, own=("dataset", "column", "ordering", "fields")
    )


def _of_files(newest_first: Sequence[RowMapping]) -> Chart | None:
    """Return a chart of the fraction of rejected rows, file by file; None if no file has rows."""
    files = [file for file in reversed(newest_first) if file["rows_read"]]
    if not files:
        return None
    shares = [(file["rows_rejected"] or 0) / file["rows_read"] for file in files]
    names = [file["name"] for file in files]
    figure = charts.bars(names, [Series("rejected", [share * 100 for share in shares])], "% of rows", most=8)
    worst = max(range(len(files)), key=shares.__getitem__)
    most = f", highest in {files[worst]['name']}: {percent(shares[worst])}" if shares[worst] else ""
    rows = [
        (moment(f["arrived_at"]), f["name"], f["rows_read"], f["rows_rejected"], percent(share))
        for f, share in zip(files, shares, strict=True)
    ]
    total = percent(sum(f["rows_rejected"] or 0 for f in files) / sum(f["rows_read"] for f in files))
    last = f"the last {plural(len(files), 'file')}" if len(files) > 1 else "the last file"
    return Chart(
        "rejected-share", "Rejected over time", f"{total} of the rows in {last}{most if len(files) > 1 else ''}.",
        charts.as_json(figure), ("Arrived (UTC)", "File", "Rows", "Rejected", "Share"), rows,
    )  # fmt: skip


def _of_column(history: Sequence[RowMapping], dataset: Dataset, column: str) -> Chart:
    """Return a chart of the rows that failed each rule of a column, load by load."""
    rules: list[Rule] = [rule for rule in dataset.rules if rule.column == column]
    measured = [row for row in history if row["table_name"] == dataset_tables(dataset).staging.fullname]
    x: list[dt.datetime] = [row["measured_at"] for row in measured]
    series = [Series(rule.sentence, [row["out_of_range"].get(rule.name, 0) for row in measured]) for rule in rules]
    names = [f"{at:%Y-%m-%d %H:%M:%S}" for at in x]
    figure = charts.bars(names, series, "rows", stacked=True, most=8)
    broken = plural(sum(sum(one.values) for one in series), "time")
    failures = f"rules of {column} failed {broken}" if rules else f"no rules are declared for {column}"
    summary = f"Over {plural(len(x), 'measurement')}, {failures}."
    table = [
        (moment(row["measured_at"]), row["total_rows"], percent(row["null_rate"]), *(s.values[i] for s in series))
        for i, row in enumerate(measured)
    ]
    columns = ("Measured (UTC)", "Rows read", "Null %", *(rule.sentence for rule in rules))
    return Chart("column-chart", f"{column} over time", summary, charts.as_json(figure), columns, table)
