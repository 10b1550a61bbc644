"""Runs: what each Dagster run loaded and how long it took, by the audit trail."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import BigInteger, DateTime, Select, Text, func, literal, select, union_all

from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform.warehouse.tables import audit as trail
from mini_platform.web.auth.guard import allowed, readable
from mini_platform.web.pages import reads
from mini_platform.web.pages.rendering import TableData, render
from mini_platform.web.site import SiteDep

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", several=True))])
RUNS = 100
RUN = "run "
"""Prefix of a run's id in the audit trail."""


@router.get("/runs")
def runs(request: Request, site: SiteDep, dataset: str | None = None) -> Response:
    """Return the last runs; as data with their durations in seconds."""
    chosen = _runs(list(readable(request, dataset)))
    with site.read() as conn:
        state = reads.state(conn)
        results = conn.execute(chosen.limit(RUNS)).mappings().all()
    rows = [list({**run, "took": run["took"] and run["took"].total_seconds()}.values()) for run in results]
    tables = {"runs": TableData(list(chosen.selected_columns.keys()), rows)}
    return render(request, "runs.html", tables=tables, runs=results, dataset=dataset, state=state, most=RUNS)


def _runs(datasets: list[str]) -> Select[Any]:
    """Return a select of runs from the audit trail, and from the ledger for files in progress.

    The ledger has only the last run of a file: without the audit trail, re-validation would remove earlier runs from the list.
    """
    is_done = trail.c.action.in_(reads.DONE) & trail.c.actor.like(f"{RUN}%")
    figures = (trail.c.details[name].astext.cast(BigInteger).label(name) for name in ("rows_read", *COUNTERS))
    ended = select(
        func.substr(trail.c.actor, len(RUN) + 1, type_=Text).label("run_id"), trail.c.dataset,
        trail.c.subject.cast(BigInteger).label("file_id"), trail.c.action.label("status"), *figures,
        func.coalesce(trail.c.details["queued_at"].astext.cast(DateTime(timezone=True)), files.c.arrived_at).label("since"),
        trail.c.at.label("ended_at"), (files.c.run_id == func.substr(trail.c.actor, len(RUN) + 1)).label("is_last"),
    ).join_from(trail, files, files.c.file_id == trail.c.subject.cast(BigInteger))  # fmt: skip
    nothing = literal(None, BigInteger)
    under_way = select(
        files.c.run_id, files.c.dataset, files.c.file_id, literal("pending"), *(nothing for _ in ("rows_read", *COUNTERS)),
        func.coalesce(files.c.queued_at, files.c.arrived_at), literal(None, DateTime(timezone=True)), literal(value=True),
    ).where(files.c.run_id.is_not(None), files.c.dataset.in_(datasets), files.c.status.in_(PENDING))  # fmt: skip
    file_runs = union_all(ended.where(is_done, trail.c.dataset.in_(datasets)), under_way).subquery("of")
    return (
        select(
            file_runs.c.run_id,
            file_runs.c.dataset,
            func.count(file_runs.c.file_id.distinct()).label("files"),
            *(func.count().filter(file_runs.c.status == s).label(s) for s in (*reads.DONE, "pending")),
            func.count()
            .filter(file_runs.c.status == "loaded", file_runs.c.rows_rejected > 0)
            .label("loaded_with_rejects"),
            *(func.sum(file_runs.c[name]).cast(BigInteger).label(name) for name in ("rows_read", *COUNTERS)),
            func.min(file_runs.c.since).label("waited_since"),
            func.max(file_runs.c.ended_at).label("ended_at"),
            # From the arrival or queueing of the first file to the end of the last one.
            (func.max(file_runs.c.ended_at) - func.min(file_runs.c.since)).label("took"),
            func.bool_and(file_runs.c.is_last).label("is_last"),
        )
        .group_by(file_runs.c.run_id, file_runs.c.dataset)
        .order_by(func.max(func.coalesce(file_runs.c.ended_at, file_runs.c.since)).desc())
    )
