"""Runs: what each run of Dagster loaded and how long that took, as the ledger has it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import BigInteger, Select, func, select

from mini_platform.api.guard import allowed, may
from mini_platform.api.site import Site, TheSite
from mini_platform.dashboard import reads
from mini_platform.dashboard.rendering import TableData, render
from mini_platform.warehouse.tables import COUNTERS, files

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read"))])
RUNS = 100


@router.get("/runs")
def runs(request: Request, site: TheSite, dataset: str | None = None) -> Response:
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
    done = files.c.status.in_(reads.DONE)
    last = func.max(func.coalesce(files.c.loaded_at, files.c.staged_at))
    return (
        select(
            files.c.run_id,
            files.c.dataset,
            func.count().label("files"),
            *(func.count().filter(files.c.status == s).label(s) for s in reads.DONE),
            func.count().filter(~done).label("pending"),
            func.sum(files.c.rows_read).cast(BigInteger).label("rows_read"),
            *(func.sum(files.c[name]).cast(BigInteger).label(name) for name in COUNTERS),
            func.min(files.c.arrived_at).label("arrived_at"),
            last.label("ended_at"),
            # From the first file that had arrived to the last one that was loaded: what somebody waits for.
            (last - func.min(files.c.arrived_at)).label("took"),
        )
        .where(files.c.run_id.is_not(None), files.c.dataset.in_(datasets), files.c.same_as.is_(None))
        .group_by(files.c.run_id, files.c.dataset)
        .order_by(func.max(func.coalesce(files.c.loaded_at, files.c.staged_at, files.c.arrived_at)).desc())
    )
