"""Uploads: files that are sent become raw files with a row in the ledger, and are loaded like any other file.

When the response is sent, the bytes are on disk and the row is committed. Then a run is requested from Dagster; if it does not
answer, the sensor requests one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from mini_platform.declare.dataset import Dataset
from mini_platform.landing.upload import UnfitNameError, UnfitSuffixError, file_name, land
from mini_platform.web.api.file_status import FileStatus, LandedFile, Wait, status_after
from mini_platform.web.api.incoming import Incoming, receive
from mini_platform.web.api.parameters import refuse_undeclared
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import ProblemError, documented
from mini_platform.web.runs import nudge
from mini_platform.web.site import DatasetName, Site, SiteDep

router = APIRouter(tags=["uploads"])

SUFFIXES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/plain": ".txt",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".ndjson",
}
"""Suffix of an unnamed file by content type; the default is that of the dataset's first format."""
FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary", "description": "One file"}},
    }
}
BYTES = {"schema": {"type": "string", "format": "binary"}}
FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Multipart with one part `file`, or the file itself.",
        "content": {
            "multipart/form-data": FORM,
            "text/csv": BYTES,
            "application/json": {"schema": {}},
            "application/octet-stream": BYTES,
        },
    }
}
PENDING_ANSWER: dict[int | str, dict[str, Any]] = {
    202: {"model": LandedFile, "description": "Stored, and pending: see `url`"}
}
Name = Annotated[str | None, Query(description="Name of a file that is sent as the raw body")]


@router.post(
    "/api/datasets/{dataset}/files/",
    dependencies=[Depends(allowed("write")), Depends(refuse_undeclared)],
    summary="Upload a file",
    status_code=HTTPStatus.ACCEPTED,
    response_model=LandedFile,
    responses={
        200: {"model": LandedFile, "description": "Done: loaded, refused, failed or unchanged; see `status`"},
        **PENDING_ANSWER,
        **documented(400, 404, 408, 413, 415, 422, 507),
    },
    openapi_extra=FILE,
)
async def send(
    request: Request, response: Response, site: SiteDep, dataset: DatasetName, name: Name = None, wait: Wait = 0
) -> LandedFile:
    """Store a file, byte for byte, to be loaded.

    The name of a raw body is `name`, or that of its Content-Disposition, or made from its hash. The same name with different
    bytes is a new version; the same name with the same bytes is `unchanged`, so a request can be repeated safely.
    """
    chosen = site.dataset(dataset)
    return (await outcome_of_upload(request, site, chosen, wait)).answer(response)


async def outcome_of_upload(request: Request, site: Site, dataset: Dataset, wait: float) -> FileStatus:
    """Receive the file of a request, request a run, and wait for the file to be loaded."""
    limit = site.settings.max_upload_bytes
    async with receive(request, site.platform.store, limit, lambda sent: _checked_name(sent, dataset)) as incoming:
        name = (
            _checked_name(incoming.name, dataset) if incoming.name is not None else _name_from_hash(incoming, dataset)
        )
        row = await run_in_threadpool(land, site.platform.engine, dataset, name, incoming.arriving)
    nudge(request, dataset)
    return await status_after(request, site, dataset, row.file_id, wait)


def _checked_name(sent: str, dataset: Dataset) -> str:
    """Return the name under which a file is stored.

    Raises:
        ProblemError: 400, or 415 if the suffix is not one of the dataset.
    """
    try:
        return file_name(sent, dataset)
    except UnfitSuffixError as error:
        suffixes = list(dataset.suffixes)
        raise ProblemError(str(error), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, suffixes=suffixes) from error
    except UnfitNameError as error:
        raise ProblemError(str(error)) from error


def _name_from_hash(incoming: Incoming, dataset: Dataset) -> str:
    """Return a name for an unnamed file; the same bytes always have the same name."""
    suffix = SUFFIXES.get(incoming.content_type, dataset.suffixes[0])
    return _checked_name(f"upload-{incoming.arriving.sha256[:12]}{suffix}", dataset)
