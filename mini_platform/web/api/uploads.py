"""Uploads: files that are sent become raw files with a row in the ledger, and are loaded as any other file.

What is answered is durable: the bytes are on disk and the row is committed. Then Dagster is asked for a run; where it does
not answer, the sensor sees to it.
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
"""How a file without a name is called, by its content type; others as the dataset's first format."""
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
    202: {"model": LandedFile, "description": "It is kept, and will be loaded: see `url`"}
}
Name = Annotated[str | None, Query(description="Name of a file that is sent as the body itself")]


@router.post(
    "/api/datasets/{dataset}/files/",
    dependencies=[Depends(allowed("write"))],
    summary="Send a file",
    status_code=HTTPStatus.ACCEPTED,
    response_model=LandedFile,
    responses={
        200: {"model": LandedFile, "description": "It is done: loaded, refused, failed or unchanged; see `status`"},
        **PENDING_ANSWER,
        **documented(400, 404, 408, 413, 415, 422, 507),
    },
    openapi_extra=FILE,
)
async def send(
    request: Request, response: Response, site: SiteDep, dataset: DatasetName, name: Name = None, wait: Wait = 0
) -> LandedFile:
    """Keep a file, byte for byte, to be loaded.

    A body that is the file itself is named by `name`, or its Content-Disposition, or after its hash. The same name with other
    bytes is a new version; the same name with the same bytes is `unchanged`, so that a request can be repeated without harm.
    """
    chosen = site.dataset(dataset)
    return (await outcome_of_upload(request, site, chosen, wait)).answer(response)


async def outcome_of_upload(request: Request, site: Site, dataset: Dataset, wait: float) -> FileStatus:
    """Take the file of a request in, have it loaded, and wait for that."""
    limit = site.settings.max_upload_bytes
    async with receive(request, site.platform.store, limit, lambda sent: _fit(sent, dataset)) as incoming:
        name = _fit(incoming.name, dataset) if incoming.name is not None else _made(incoming, dataset)
        row = await run_in_threadpool(land, site.platform.engine, dataset, name, incoming.arriving)
    nudge(request, dataset)
    return await status_after(request, site, dataset, row.file_id, wait)


def _fit(sent: str, dataset: Dataset) -> str:
    """The name of a file, as it is taken.

    Raises:
        ProblemError: 400, or 415 where it ends as no file of the dataset does.
    """
    try:
        return file_name(sent, dataset)
    except UnfitSuffixError as error:
        taken = list(dataset.suffixes)
        raise ProblemError(str(error), HTTPStatus.UNSUPPORTED_MEDIA_TYPE, suffixes=taken) from error
    except UnfitNameError as error:
        raise ProblemError(str(error)) from error


def _made(incoming: Incoming, dataset: Dataset) -> str:
    """A name for a file that came without one: the same for the same bytes."""
    suffix = SUFFIXES.get(incoming.content_type, dataset.suffixes[0])
    return _fit(f"upload-{incoming.arriving.sha256[:12]}{suffix}", dataset)
