"""Health and statistics: for load balancers, monitoring, and clients of the system that this one replaces.

The figures of `/health` and `/stats` cover the datasets that are synced from APIs, as in the replaced system; if none is
synced, all datasets:

    total_records_processed    rows read, by the ledger, of their files that are loaded
    run_count                  their runs, by Dagster's record: syncs and loads, whatever their outcome
    total_duration_seconds     of those that ended
    last_success, last_failure the later one of runs and of syncs (`ops.checkpoints`)
    last_failure_reason        error of the failed sync, or the failed run
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy import func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.operations.incidents import WARNINGS, WATCHDOG_KINDS, open_by_kind
from mini_platform.operations.sources import inbox_states
from mini_platform.warehouse.logins import ReadingRefusedError
from mini_platform.warehouse.tables import checkpoints, files
from mini_platform.web.api.replaced import ReplacedRoute
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import AWAY, answers_late
from mini_platform.web.site import Site, SiteDep

router = APIRouter(tags=["health"], route_class=ReplacedRoute)


class Alive(BaseModel):
    """The process is running."""

    status: Literal["ok"] = "ok"


class Health(BaseModel):
    """The state of the platform."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="degraded: the last run failed, an inbox cannot be used, a declaration is invalid, or the watchdog has "
        "found a problem; unavailable: the database does not answer"
    )
    db_connected: bool = Field(description="True also if the database answers too late")
    last_etl_run: dt.datetime | None = Field(description="Time of the last sync or load; null: never, or unknown")
    etl_status: Literal["success", "failure", "running", "never_run", "unknown"]
    inboxes_failing: list[str] = Field([], description="Remote inboxes that cannot be used, as dataset/inbox")
    declarations_invalid: list[str] = Field([], description="Datasets whose declaration is invalid; the others work")
    incidents: dict[str, int] = Field({}, description="Number of open incidents by kind")


class Stats(BaseModel):
    """Totals of the runs of the datasets that are synced, or of all datasets if none is."""

    total_records_processed: int = Field(description="Rows of loaded files, valid or rejected")
    total_duration_seconds: float
    last_success: dt.datetime | None
    last_failure: dt.datetime | None
    last_failure_reason: str | None
    run_count: int


@router.get("/api/health/")
def alive() -> Alive:
    """Return ok if the process answers; `/health` reports on the database."""
    return Alive()


@router.get(
    "/health",
    response_model_exclude_defaults=True,
    responses={503: {"model": Health, "description": "The database cannot be reached, or answers too late"}},
)
def health(site: SiteDep, response: Response) -> Health:
    """Return the state of the database, the outcome of the last run, and what is wrong: inboxes, declarations, incidents."""
    try:
        past = _Past(site)
        with site.read() as conn:
            states = inbox_states(site.platform, conn, site.datasets.values())
            incidents = {kind: number for kind, number in open_by_kind(conn).items() if number}
    except AWAY as error:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        connected = answers_late(error) or isinstance(error, ReadingRefusedError)
        return Health(status="unavailable", db_connected=connected, last_etl_run=None, etl_status="unknown")
    status = past.status()
    failing = [f"{row.dataset}/{row.inbox}" for row in states if row.last_error]
    invalid = sorted({declaration.name for declaration in site.platform.invalid})
    stopped = [kind for kind in WATCHDOG_KINDS if kind in incidents and kind not in WARNINGS]
    return Health(
        status="degraded" if status == "failure" or failing or invalid or stopped else "ok",
        db_connected=True,
        last_etl_run=past.last_run,
        etl_status=status,
        inboxes_failing=failing,
        declarations_invalid=invalid,
        incidents=incidents,
    )


def _measured(site: Site) -> Sequence[Dataset]:
    """Return the datasets that the figures are of."""
    datasets = list(site.datasets.values())
    return [dataset for dataset in datasets if dataset.api_sources] or datasets


@router.get("/stats", dependencies=[Depends(allowed("read", _measured))])
def stats(site: SiteDep) -> Stats:
    """Return the number of rows and runs, their durations, and the outcome of the last ones.

    The figures cover the datasets that are synced from APIs, or all datasets if none is.
    """
    past = _Past(site)
    return Stats(
        total_records_processed=past.rows,
        total_duration_seconds=round(sum(run.seconds for run in past.runs), 3),
        last_success=past.last_success,
        last_failure=past.last_failure,
        last_failure_reason=past.failure_reason(),
        run_count=sum(run.runs for run in past.runs),
    )


class _Past:
    """Past runs of the datasets, by the ledger, the checkpoints and Dagster's run records."""

    def __init__(self, site: Site) -> None:
        names = [dataset.name for dataset in _measured(site)]
        synced = select(
            func.max(checkpoints.c.last_started).label("last_started"),
            func.max(checkpoints.c.last_succeeded).label("last_succeeded"),
            func.max(checkpoints.c.last_failed).label("last_failed"),
            func.max(checkpoints.c.last_error).label("last_error"),
        ).where(checkpoints.c.dataset.in_(names))
        read = select(func.coalesce(func.sum(files.c.rows_read), 0), func.max(files.c.loaded_at)).where(
            files.c.dataset.in_(names), files.c.status == "loaded"
        )
        with site.read() as conn:
            self.syncs = conn.execute(synced).one()
            self.rows, loaded_at = conn.execute(read).one()
        history = site.run_history()
        self.runs = [history[name] for name in names if name in history]
        self.last_run = _latest(*(run.last_started for run in self.runs), self.syncs.last_started, loaded_at)
        self.last_success = _latest(*(run.last_succeeded for run in self.runs), self.syncs.last_succeeded, loaded_at)
        self.last_failure = _latest(*(run.last_failed for run in self.runs), self.syncs.last_failed)

    def status(self) -> Literal["success", "failure", "running", "never_run"]:
        if any(run.running for run in self.runs):
            return "running"
        if self.last_failure and (self.last_success is None or self.last_failure > self.last_success):
            return "failure"
        return "success" if self.last_success else "never_run"

    def failure_reason(self) -> str | None:
        if self.last_failure is None:
            return None
        if self.last_failure == self.syncs.last_failed:
            return self.syncs.last_error or "A sync failed; the next one succeeded."
        failed = max((run for run in self.runs if run.last_failed), key=lambda run: run.last_failed)
        return f"Run {failed.last_failed_run} failed; Dagster shows why."


def _latest(*moments: dt.datetime | None) -> dt.datetime | None:
    return max((moment.astimezone(dt.UTC) for moment in moments if moment), default=None)
