"""Runs: what each run of Dagster loaded and how long that took, as the audit trail has it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import BigInteger, DateTime, Select, Text, func, literal, select, union_all

from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform.warehouse.tables import audit as trail
from mini_platform.web.auth.guard import allowed, may
from mini_platform.web.pages import reads
from mini_platform.web.pages.rendering import TableData, render
from mini_platform.web.site import Site, SiteDep

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read"))])
RUNS = 100
RUN = "run "
"""How the audit trail names a run, before its id."""


@router.get("/runs")
def runs(request: Request, site: SiteDep, dataset: str | None = None) -> Response:
    """The last runs; as data with their durations in seconds."""
    chosen = _chosen(request, site, dataset)
    with site.read() as conn:
        state = reads.state(conn)
        found = conn.execute(chosen.limit(RUNS)).mappings().all()
    rows = [list({**run, "took": run["took"] and run["took"].total_seconds()}.values()) for run in found]
    tables = {"runs": TableData(list(chosen.selected_columns.keys()), rows)}
    return render(request, "runs.html", tables=tables, runs=found, dataset=dataset, state=state, most=RUNS)


def _chosen(request: Request, site: Site, dataset: str | None) -> Select[Any]:
    return _runs([site.dataset(dataset).name] if dataset else [d for d in site.datasets if _may(request, site, d)])


def _may(request: Request, site: Site, dataset: str) -> bool:
    return may(request, "read", site.datasets[dataset])


def _runs(datasets: list[str]) -> Select[Any]:
    """What the audit trail says of each run, and what the ledger says of files that one works on.

    The ledger alone knows the last run of a file: one that was validated again would take the earlier run off the list.
    """
    done = trail.c.action.in_(reads.DONE) & trail.c.actor.like(f"{RUN}%")
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
    of = union_all(ended.where(done, trail.c.dataset.in_(datasets)), under_way).subquery("of")
    return (
        select(
            of.c.run_id,
            of.c.dataset,
            func.count(of.c.file_id.distinct()).label("files"),
            *(func.count().filter(of.c.status == s).label(s) for s in (*reads.DONE, "pending")),
            *(func.sum(of.c[name]).cast(BigInteger).label(name) for name in ("rows_read", *COUNTERS)),
            func.min(of.c.since).label("waited_since"),
            func.max(of.c.ended_at).label("ended_at"),
            # From when the first file waited to when the last one was done: what somebody waits for.
            (func.max(of.c.ended_at) - func.min(of.c.since)).label("took"),
            func.bool_and(of.c.is_last).label("is_last"),
        )
        .group_by(of.c.run_id, of.c.dataset)
        .order_by(func.max(func.coalesce(of.c.ended_at, of.c.since)).desc())
    )
