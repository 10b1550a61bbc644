"""What became of a file that was landed, and waiting until something has."""

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
    """A row of the ledger: a file that arrived, and what became of it and of each of its rows."""

    file_id: int = Field(description="Its place in the order of arrival")
    dataset: str
    name: str
    version: int = Field(description="1 for the first bytes under this name, then 2, 3 …")
    sha256: str = Field(description="Of its bytes")
    bytes: int
    channel: str = Field(description="How it came in")
    arrived_at: dt.datetime
    loaded_at: dt.datetime | None = None
    status: str = Field(description="landed, staged, loaded, refused, failed or unchanged")
    error: str | None = Field(None, description="Why it was refused or failed")
    unchanged: bool = Field(description="Its bytes are the current version of this name already: nothing is loaded")
    same_as: int | None = Field(None, description="The version that they are")
    rows_read: int | None = Field(None, description="Sum of the five below; null until it is loaded")
    rows_inserted: int | None = None
    rows_updated: int | None = None
    rows_unchanged: int | None = None
    rows_superseded: int | None = Field(None, description="Rows whose key comes again, later in the file")
    rows_rejected: int | None = None
    url: str = Field(description="Where this row of the ledger is")

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
    """A landed file as it is now.

    Attributes:
        row: of the ledger.
        version: the row that was loaded, or will be: another one where the file's bytes were unchanged.
        fresh: what is computed from the dataset is up to date.
    """

    row: Row[Any]
    version: Row[Any]
    fresh: bool

    @property
    def pending(self) -> bool:
        """Whether it waits to be loaded."""
        return self.version.status in PENDING

    @property
    def shown(self) -> LandedFile:
        """For programs."""
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
        """The body; 202 as long as the file is pending, 200 once it is done."""
        shown = self.shown
        response.status_code = 202 if self.pending else 200
        response.headers["Location"] = shown.url
        return shown


def outcome(conn: Connection, dataset: Dataset, file_id: int) -> FileStatus:
    """A landed file as it is now."""
    row = conn.execute(select(files).where(files.c.file_id == file_id)).one()
    version = row if row.same_as is None else conn.execute(select(files).where(files.c.file_id == row.same_as)).one()
    return FileStatus(row, version, not is_stale(conn, dataset))


async def until(
    request: Request, site: Site, seconds: float, look: Callable[[Connection], T], done: Callable[[T], bool]
) -> T:
    """Look at the database again and again, until what is seen is done, the time is over, or nobody waits any more."""

    def see() -> T:
        with site.read() as conn:
            return look(conn)

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        seen = await run_in_threadpool(see)
        if done(seen) or loop.time() >= end or await request.is_disconnected():
            return seen
        await asyncio.sleep(min(LOOK_SECONDS, max(0.0, end - loop.time())))


async def status_after(request: Request, site: Site, dataset: Dataset, file_id: int, seconds: float) -> FileStatus:
    """A landed file as soon as it is loaded, with all that is computed from it; or as it is after so many seconds."""
    return await until(
        request,
        site,
        seconds,
        lambda conn: outcome(conn, dataset, file_id),
        lambda seen: not seen.pending and (seen.fresh or seen.version.status != "loaded"),
    )
