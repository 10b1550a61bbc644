"""Payloads: JSON that is sent to `/ingest` becomes a file of the dataset signals; `/process` waits until such files are loaded.

These are the paths of a system that this platform replaces. There, payloads were only processed on a request to `/process`;
here, a payload is loaded seconds after it was sent, with or without that request.
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
from mini_platform.landing.upload import PAYLOADS, land
from mini_platform.warehouse.ledger import PENDING
from mini_platform.warehouse.tables import among, files
from mini_platform.web.api.file_status import LONGEST_SECONDS, until
from mini_platform.web.api.incoming import no_room, whole
from mini_platform.web.api.replaced import ReplacedRoute
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import ProblemError, documented
from mini_platform.web.runs import nudge
from mini_platform.web.site import Site, SiteDep

DATASET = "signals"
router = APIRouter(route_class=ReplacedRoute, tags=["signals"], dependencies=[Depends(allowed("write", DATASET))])

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
    """A payload that is stored, and will be loaded."""

    status: str = Field("accepted", examples=["accepted"])
    raw_id: str = Field(
        examples=["12"], description="Id of the file in the ledger: /api/datasets/signals/files/{raw_id}/"
    )


class ProcessedSignals(BaseModel):
    """Number of processed payloads: `checked = processed + failed`."""

    processed: int = Field(description="Payloads with at least one valid row")
    failed: int = Field(description="Payloads without a valid row, or that cannot be read")
    checked: int = Field(description="Payloads that were pending at the time of the request, and are finished now")


@router.post(
    "/ingest",
    summary="Send a payload",
    status_code=HTTPStatus.ACCEPTED,
    responses=documented(400, 404, 408, 413, 507),
    openapi_extra=PAYLOAD,
)
async def ingest(request: Request, site: SiteDep) -> Accepted:
    """Store a JSON payload, to be loaded. It is on disk and in the ledger when the response is sent.

    A body that is not JSON is refused (400). The content is validated when it is loaded, like that of any other file. Each
    payload is a separate file, even if it is sent twice: of two payloads with the same time, the later one counts.
    """
    dataset = site.dataset(DATASET)
    body = await whole(request, site.settings.max_record_bytes)
    row = await run_in_threadpool(_land, site, dataset, body)
    nudge(request, dataset)
    return Accepted(raw_id=str(row.file_id))


@router.post("/process", summary="Wait for payloads", responses=documented(404, 422))
async def process(
    request: Request,
    site: SiteDep,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            lt=2**63,
            description="Maximum number of payloads to wait for, the oldest first; default: all",
            examples=[100],
        ),
    ] = None,
    wait: Annotated[float, Query(ge=0, le=LONGEST_SECONDS, description="Maximum number of seconds to wait")] = 60,
) -> ProcessedSignals:
    """Start loading the pending payloads, wait until they are loaded, and count them.

    Payloads that were loaded before the request are not counted, nor are those that are still pending when the wait is over,
    nor those beyond `limit`, which are loaded, too, but not waited for. If no payload is pending, all three numbers are 0.
    """
    dataset = site.dataset(DATASET)
    file_ids = await run_in_threadpool(_pending_files, site, dataset, limit)
    if not file_ids:
        return ProcessedSignals(processed=0, failed=0, checked=0)
    nudge(request, dataset)
    rows = await until(
        request, site, wait, lambda conn: _rows(conn, file_ids), lambda rows: not any(map(_is_pending, rows))
    )
    finished = [row for row in rows if not _is_pending(row)]
    processed = sum(row.status == "loaded" and row.rows_read > row.rows_rejected for row in finished)
    return ProcessedSignals(processed=processed, failed=len(finished) - processed, checked=len(finished))


def _land(site: Site, dataset: Dataset, body: bytes) -> Row[Any]:
    try:
        json.loads(body.decode("utf-8-sig"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProblemError(f"The body is not JSON: {reason}.") from error
    with no_room(), site.platform.store.receive() as arriving:
        arriving.write(body)
        return land(site.platform.engine, dataset, f"payload-{uuid.uuid4().hex}.json", arriving, PAYLOADS)


def _pending_files(site: Site, dataset: Dataset, limit: int | None) -> Sequence[int]:
    """Return ids of the pending payloads, at most `limit`, the oldest first."""
    pending = (files.c.dataset == dataset.name, files.c.channel == PAYLOADS, files.c.status.in_(PENDING))
    with site.read() as conn:
        return conn.scalars(select(files.c.file_id).where(*pending).order_by(files.c.file_id).limit(limit)).all()


def _rows(conn: Connection, file_ids: Sequence[int]) -> Sequence[Row[Any]]:
    columns = (files.c.status, files.c.rows_read, files.c.rows_rejected)
    return conn.execute(select(*columns).where(among(files.c.file_id, file_ids))).all()


def _is_pending(row: Row[Any]) -> bool:
    return row.status in PENDING
