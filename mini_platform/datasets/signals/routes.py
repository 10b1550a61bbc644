"""Payloads: JSON that is sent to `/ingest` becomes a file of the dataset signals, and `/process` waits until such are loaded.

The paths of a system that this one replaces. There, nothing was processed before `/process` asked; here, a payload is loaded
seconds after it came in, whether anybody asks or not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row, select

from mini_platform import Dataset
from mini_platform.landing.upload import land
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import among, files
from mini_platform.web.api.file_status import LONGEST_SECONDS, until
from mini_platform.web.api.incoming import no_room, whole
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import ProblemError, documented
from mini_platform.web.runs import nudge
from mini_platform.web.site import Site, SiteDep

DATASET = "signals"
router = APIRouter(tags=["signals"], dependencies=[Depends(allowed("write", DATASET))])

CHANNEL = "post"
PAYLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {},
                "example": {"time_stamp": "2026-01-01T12:00:00+01:00", "data": [1, 2.5, 3]},
            }
        },
    }
}


class Accepted(BaseModel):
    """A payload is kept, and will be loaded."""

    status: str = Field("accepted", examples=["accepted"])
    raw_id: int = Field(description="Its row in the ledger: /api/datasets/signals/files/{raw_id}/")


class ProcessedSignals(BaseModel):
    """What became of payloads: `checked = processed + failed`."""

    processed: int = Field(description="Payloads of which at least one row is valid")
    failed: int = Field(description="Payloads of which no row is valid, or that cannot be read")
    checked: int = Field(description="Payloads that were waiting when this was asked, and are done now")


@router.post(
    "/ingest",
    summary="Send a payload",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(400, 404, 408, 413, 507),
    openapi_extra=PAYLOAD,
)
async def ingest(request: Request, site: SiteDep) -> Accepted:
    """Keep a JSON payload, to be loaded. It is on disk and in the ledger when this answers.

    What is not JSON is not taken (400). What JSON says is validated when it is loaded, as of any other file. Each payload is a
    file of its own, also where the same is sent again: of two with the same time the later one counts.
    """
    dataset = site.dataset(DATASET)
    body = await whole(request, site.settings.max_record_bytes)
    row = await run_in_threadpool(_land, site, dataset, body)
    nudge(request, dataset)
    return Accepted(raw_id=row.file_id)


@router.post("/process", summary="Wait for payloads", responses=documented(404, 422))
async def process(
    request: Request,
    site: SiteDep,
    wait: Annotated[float, Query(ge=0, le=LONGEST_SECONDS, description="Seconds to wait at most")] = 60,
) -> ProcessedSignals:
    """Have the payloads loaded that are waiting, wait for that, and count them.

    Payloads that were loaded before this was asked are not counted, nor are those that still wait when the time is over. A
    call that finds nothing waiting answers three zeros.
    """
    dataset = site.dataset(DATASET)
    file_ids = await run_in_threadpool(_waiting, site, dataset)
    if not file_ids:
        return ProcessedSignals(processed=0, failed=0, checked=0)
    nudge(request, dataset)
    rows = await until(request, site, wait, lambda conn: _rows(conn, file_ids), lambda seen: not any(map(_pends, seen)))
    done = [row for row in rows if not _pends(row)]
    processed = sum(row.status == "loaded" and row.rows_read > row.rows_rejected for row in done)
    return ProcessedSignals(processed=processed, failed=len(done) - processed, checked=len(done))


def _land(site: Site, dataset: Dataset, body: bytes) -> Row[Any]:
    try:
        json.loads(body.decode("utf-8-sig"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProblemError(f"The body is not JSON: {why}.") from error
    with no_room(), site.platform.store.receive() as arriving:
        arriving.write(body)
        return land(site.platform.engine, dataset, f"payload-{uuid.uuid4().hex}.json", arriving, CHANNEL)


def _waiting(site: Site, dataset: Dataset) -> Sequence[int]:
    """Payloads that are not done."""
    mine = (files.c.dataset == dataset.name, files.c.channel == CHANNEL, files.c.status.in_(PENDING))
    with site.read() as conn:
        return conn.execute(select(files.c.file_id).where(*mine)).scalars().all()


def _rows(conn: Connection, file_ids: Sequence[int]) -> Sequence[Row[Any]]:
    shown = (files.c.status, files.c.rows_read, files.c.rows_rejected)
    return conn.execute(select(*shown).where(among(files.c.file_id, file_ids))).all()


def _pends(row: Row[Any]) -> bool:
    return row.status in PENDING
