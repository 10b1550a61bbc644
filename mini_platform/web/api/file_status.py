"""The status of a landed file, and waiting for it to be loaded."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, select

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.dirty_groups import is_stale
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import files
from mini_platform.web.site import Site

LOOK_SECONDS = 0.2
LONGEST_SECONDS = 120.0

Wait = Annotated[
    float,
    Query(ge=0, le=LONGEST_SECONDS, description="Seconds to wait until the file is loaded before answering."),
]
T = TypeVar("T")


class LandedFile(BaseModel):
    """A ledger entry: a file that arrived, its status, and the results of its rows."""

    file_id: int = Field(description="Id, ascending in order of arrival")
    dataset: str
    name: str
    version: int = Field(description="1 for the first bytes under this name, then 2, 3 …")
    sha256: str = Field(description="SHA-256 of its bytes")
    bytes: int
    channel: str = Field(description="How it arrived")
    arrived_at: dt.datetime
    loaded_at: dt.datetime | None = None
    status: str = Field(description="landed or staged (pending), loaded, refused, failed or unchanged")
    error: str | None = Field(None, description="Why it was refused or failed")
    unchanged: bool = Field(
        description="The bytes are identical to the current version of this name: nothing is loaded"
    )
    same_as: int | None = Field(None, description="Id of the identical file")
    rows_read: int | None = Field(None, description="Sum of the five below; null until it is loaded")
    rows_inserted: int | None = None
    rows_updated: int | None = None
    rows_unchanged: int | None = None
    rows_superseded: int | None = Field(None, description="Rows whose key is repeated later in the file")
    rows_rejected: int | None = None
    url: str = Field(description="URL of this ledger entry")

    model_config = {
        "json_schema_extra": {
            "example": {
                "file_id": 12,
                "dataset": "DATASET",
                "name": "oslo.csv",
                "version": 1,
                "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                "bytes": 88,
                "channel": "upload",
                "arrived_at": "2026-01-02T06:00:00Z",
                "loaded_at": "2026-01-02T06:00:03Z",
                "status": "loaded",
                "error": None,
                "unchanged": False,
                "same_as": None,
                "rows_read": 2,
                "rows_inserted": 1,
                "rows_updated": 0,
                "rows_unchanged": 0,
                "rows_superseded": 0,
                "rows_rejected": 1,
                "url": "/api/datasets/DATASET/files/12/",
            }
        }
    }


@dataclass(frozen=True)
class FileStatus:
    """The current state of a landed file.

    Attributes:
        row: ledger entry of the file.
        version: ledger entry that is loaded; another one if the bytes were unchanged.
        fresh: True if derived tables are up to date.
    """

    row: Row[Any]
    version: Row[Any]
    fresh: bool

    @property
    def pending(self) -> bool:
        """True if the file is not loaded yet."""
        return self.version.status in PENDING

    @property
    def shown(self) -> LandedFile:
        """Return the file as the model of the API."""
        known = {name: getattr(self.row, name) for name in LandedFile.model_fields if hasattr(self.row, name)}
        for name in ("arrived_at", "loaded_at"):
            known[name] = known[name] and known[name].astimezone(dt.UTC)
        if self.row.same_as is not None and self.version.status in ("refused", "failed"):
            known["error"] = (
                f"it repeats file {self.version.file_id}, which is {self.version.status}: {self.version.error}"
            )
        url = f"/api/datasets/{self.row.dataset}/files/{self.row.file_id}/"
        return LandedFile(**known, unchanged=self.row.same_as is not None, url=url)

    def answer(self, response: Response) -> LandedFile:
        """Return the body; set status 202 while the file is pending, else 200."""
        shown = self.shown
        response.status_code = 202 if self.pending else 200
        response.headers["Location"] = shown.url
        return shown


def outcome(conn: Connection, dataset: Dataset, file_id: int) -> FileStatus:
    """Return the current state of a landed file."""
    row = conn.execute(select(files).where(files.c.file_id == file_id)).one()
    version = row if row.same_as is None else conn.execute(select(files).where(files.c.file_id == row.same_as)).one()
    return FileStatus(row, version, not is_stale(conn, dataset))


async def until(
    request: Request, site: Site, seconds: float, poll: Callable[[Connection], T], is_final: Callable[[T], bool]
) -> T:
    """Poll the database until the result is final, the time is up, or the client disconnects."""

    def query() -> T:
        with site.read() as conn:
            return poll(conn)

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        state = await run_in_threadpool(query)
        if is_final(state) or loop.time() >= end or await request.is_disconnected():
            return state
        await asyncio.sleep(min(LOOK_SECONDS, max(0.0, end - loop.time())))


async def status_after(request: Request, site: Site, dataset: Dataset, file_id: int, seconds: float) -> FileStatus:
    """Return the state of a file once it and all derived tables are loaded, or after this many seconds."""
    return await until(
        request,
        site,
        seconds,
        lambda conn: outcome(conn, dataset, file_id),
        lambda state: not state.pending and (state.fresh or state.version.status != "loaded"),
    )
