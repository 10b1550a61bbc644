"""Whether the platform is well: for load balancers, monitoring, and the readers of the system that this one replaces.

The figures of `/health` and `/stats` are those of the datasets that are synced from APIs, as the system synced them that was
replaced; where none is synced, those of all datasets:

    total_records_processed    rows read, by the ledger, of their files that are loaded
    run_count                  their runs, by Dagster's record: api_sources and loads, however they ended
    total_duration_seconds     of those that ended
    last_success, last_failure the later of what the runs say and what the api_sources say (`ops.checkpoints`)
    last_failure_reason        of the failed sync as a sentence, or which run failed
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
from mini_platform.operations.sources import inbox_states
from mini_platform.warehouse.tables import checkpoints, files
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import AWAY, answers_late
from mini_platform.web.site import Site, SiteDep

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Health(BaseModel):
    """How the platform is."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="degraded: the last run failed, or an inbox cannot be used; unavailable: the database does not answer"
    )
    db_connected: bool = Field(description="Also where it answers too late")
    last_etl_run: dt.datetime | None = Field(
        description="When rows were last synced or loaded; null: never, or not known"
    )
    etl_status: Literal["success", "failure", "running", "never_run", "unknown"]
    inboxes_failing: list[str] = Field([], description="Remote inboxes that cannot be used, as dataset/inbox")


class Stats(BaseModel):
    """What became of the runs of the datasets that are synced, or of all where none is."""

    total_records_processed: int = Field(description="Rows of loaded files, valid or not")
    total_duration_seconds: float
    last_success: dt.datetime | None
    last_failure: dt.datetime | None
    last_failure_reason: str | None
    run_count: int


@router.get("/api/health/")
def alive() -> Alive:
    """The process answers; whether the database does is told by `/health`."""
    return Alive()


@router.get(
    "/health",
    response_model_exclude_defaults=True,
    responses={503: {"model": Health, "description": "The database is away, or answers too late"}},
)
def health(site: SiteDep, response: Response) -> Health:
    """Whether the database answers, how the last run ended, and which remote inboxes cannot be used."""
    try:
        past = _Past(site)
        with site.read() as conn:
            states = inbox_states(site.platform, conn, site.datasets.values())
    except AWAY as error:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        connected = answers_late(error)
        return Health(status="unavailable", db_connected=connected, last_etl_run=None, etl_status="unknown")
    status = past.status()
    failing = [f"{row.dataset}/{row.inbox}" for row in states if row.last_error]
    return Health(
        status="degraded" if status == "failure" or failing else "ok",
        db_connected=True,
        last_etl_run=past.last_run,
        etl_status=status,
        inboxes_failing=failing,
    )


def _measured(site: Site) -> Sequence[Dataset]:
    """Return the datasets that the figures are of."""
    datasets = list(site.datasets.values())
    return [dataset for dataset in datasets if dataset.api_sources] or datasets


@router.get("/stats", dependencies=[Depends(allowed("read", _measured))])
def stats(site: SiteDep) -> Stats:
    """How many rows and runs there were, how long they took, and how the last ones ended.

    Of the datasets that are synced, or of all where none is.
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
    """What the ledger, the checkpoints and Dagster's record of runs say of the datasets."""

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
            self.api_sources = conn.execute(synced).one()
            self.rows, loaded_at = conn.execute(read).one()
        history = site.run_history()
        self.runs = [history[name] for name in names if name in history]
        self.last_run = _latest(*(run.last_started for run in self.runs), self.api_sources.last_started, loaded_at)
        self.last_success = _latest(
            *(run.last_succeeded for run in self.runs), self.api_sources.last_succeeded, loaded_at
        )
        self.last_failure = _latest(*(run.last_failed for run in self.runs), self.api_sources.last_failed)

    def status(self) -> Literal["success", "failure", "running", "never_run"]:
        if any(run.running for run in self.runs):
            return "running"
        if self.last_failure and (self.last_success is None or self.last_failure > self.last_success):
            return "failure"
        return "success" if self.last_success else "never_run"

    def failure_reason(self) -> str | None:
        if self.last_failure is None:
            return None
        if self.last_failure == self.api_sources.last_failed:
            return self.api_sources.last_error or "A sync failed; the one after it did not."
        failed = max((run for run in self.runs if run.last_failed), key=lambda run: run.last_failed)
        return f"Run {failed.last_failed_run} failed; Dagster shows why."


def _latest(*moments: dt.datetime | None) -> dt.datetime | None:
    return max((moment.astimezone(dt.UTC) for moment in moments if moment), default=None)
